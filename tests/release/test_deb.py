"""The Debian package, installed, used, upgraded, removed and purged by dpkg in a real Debian."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from logfan import __version__
from support.chroot import Chroot

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # the first one builds the release

WANTED = "etc/systemd/system/multi-user.target.wants/logfan.service"
UNIT = "usr/lib/systemd/system/logfan.service"
COMPILED = "import re2, orjson, zstandard, obstore, confluent_kafka, psycopg, pydantic_core"


@pytest.fixture(scope="module")
def package(dist: Path) -> Path:
    [package] = dist.glob("logfan_*.deb")
    return package


@pytest.fixture
def debian(tmp_path: Path) -> Chroot:
    return Chroot(tmp_path / "debian", platform.freedesktop_os_release()["VERSION_CODENAME"])


def _install(debian: Chroot, package: Path) -> str:
    (debian.root / package.name).write_bytes(package.read_bytes())
    return debian.run("dpkg", "--install", f"/{package.name}")


def _newer(package: Path, folder: Path) -> Path:
    """The same package as a later version of itself."""
    contents, newer = folder / "contents", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", package, contents], check=True)
    control = contents / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+1", control.read_text()))
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "-b"]
    subprocess.run([*build, contents, newer], check=True, stdout=subprocess.DEVNULL)
    return newer


def test_its_life_from_the_installation_to_the_purge(
    debian: Chroot, package: Path, tmp_path: Path
) -> None:
    root = debian.root
    config = root / "etc/logfan/config.toml"

    _install(debian, package)
    assert debian.run("logfan", "--version") == f"logfan, version {__version__}\n"
    assert debian.run("logfan", "check").startswith("/etc/logfan/config.toml: ok\n")
    # Compiled for this Python, each finds the libraries that it links to.
    path = "import sys; sys.path.insert(0, '/usr/lib/logfan')"
    debian.run("python3", "-c", f"{path}; {COMPILED}")
    assert "logfan:" in (root / "etc/passwd").read_text()
    assert (root / "usr/lib/logfan/logfan/__pycache__").is_dir()
    if os.geteuid() == 0:  # a user cannot give folders to another, in there either
        assert debian.run("stat", "-c", "%U %a", "/var/log/logfan") == "logfan 750\n"
    # Nobody has edited the config yet.
    assert not (root / WANTED).is_symlink()

    assert config.read_text().startswith("#:schema ./config.schema.json\n")
    assert json.loads(debian.run("cat", "/etc/logfan/config.schema.json"))["properties"]["sinks"]
    assert debian.run("cat", "/etc/logfan/alerts.yml") == debian.run("logfan", "generate", "alerts")
    assert debian.run("logfan", "generate", "unit") == (root / UNIT).read_text()
    assert debian.run("systemd-analyze", "verify", "--man=no", f"/{UNIT}") == ""

    debian.run("systemctl", "enable", "logfan", "logfan@a")
    config.write_text(edited := f"{config.read_text()}\n# edited\n")
    _install(debian, _newer(package, tmp_path))
    assert config.read_text() == edited
    assert (root / WANTED).is_symlink()
    assert debian.run("logfan", "check").startswith("/etc/logfan/config.toml: ok\n")

    (root / "var/log/logfan").mkdir(exist_ok=True)
    (root / "var/log/logfan/app.jsonl").write_text("{}\n")
    debian.run("dpkg", "--remove", "logfan")
    assert not (root / "usr/bin/logfan").exists()
    assert not (root / "usr/lib/logfan").exists()  # with what was compiled
    assert config.read_text() == edited

    debian.run("dpkg", "--purge", "logfan")
    assert not (root / "etc/logfan").exists()
    assert not (root / "var/lib/logfan").exists()
    left = debian.run("find", "/etc/systemd", "/var/lib/systemd", "-name", "*logfan*")
    assert left == ""
    assert (root / "var/log/logfan/app.jsonl").read_text() == "{}\n"  # somebody's records


def test_lintian_finds_nothing_that_is_not_explained(debian: Chroot, package: Path) -> None:
    (debian.root / "logfan.deb").write_bytes(package.read_bytes())
    assert debian.run("lintian", "--allow-root", "--fail-on=error,warning", "/logfan.deb") == ""
