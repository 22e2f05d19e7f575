"""What a release holds: built as `make dist` builds it, installed apart, and used."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_works_where_it_is_installed(dist: Path, tmp_path: Path) -> None:
    [wheel] = dist.glob("logfan-*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # all that an installer does with a wheel of Python
        names = archive.namelist()
        archive.extractall(target)
    config = tmp_path / "config.toml"
    config.write_text('plugins.directories = []\n[sinks.a]\nkind = "file"\npath = "a.log"\n')
    config.chmod(0o600)

    def logfan(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "logfan", *arguments], cwd=tmp_path, check=True,
            env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True,
        ).stdout  # fmt: skip

    assert "ok" in logfan("check", "--config", str(config))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert logfan("--version") == f"logfan, version {version}\n"
    assert wheel.name.startswith(f"logfan-{version}-")
    assert any(name.endswith("systemd/system/logfan.service") for name in names)
    for arguments, path in {
        "config": "config.toml", "unit": "systemd/logfan.service",
        "unit --instances": "systemd/logfan@.service",
    }.items():  # fmt: skip
        shipped = (ROOT / path).read_text()
        assert logfan("generate", *arguments.split()) == shipped
        here = CliRunner().invoke(main, ["generate", *arguments.split()])
        assert here.output == shipped


@pytest.mark.slow
def test_the_source_release_holds_what_its_own_commands_need(dist: Path) -> None:
    [source] = dist.glob("logfan-*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
        "pyproject.toml", "config.toml", ".requirements.lock", ".requirements-oldest.lock",
        ".ci/run", "daemon/logfan/__init__.py", "plugins/logfan_sinks/file/sink.py",
        "systemd/logfan.service", "tests/conftest.py",
    }  # fmt: skip
    assert wanted <= names
