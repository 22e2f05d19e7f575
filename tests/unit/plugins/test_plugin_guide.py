"""Every code block of the guide for authors, run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[3] / "plugins/README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


@pytest.mark.parametrize("text", blocks("python"), ids=range(len(blocks("python"))))
def test_a_block_of_python_runs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "test_block.py"
    file.write_text(text)
    subprocess.run([sys.executable, str(file)], check=True, cwd=tmp_path)
    if "def test_" in text:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 15


def test_the_whole_sink_passes_check_with_its_config(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir(mode=0o755)
    plugin = tmp_path / "plugins/shout.py"
    plugin.write_text(blocks("python")[0])
    plugin.chmod(0o644)
    config = tmp_path / "config.toml"
    folder = f'[plugins]\ndirectories = ["{tmp_path}/plugins"]\n'
    config.write_text(folder + blocks("toml")[0])
    for arguments in (["check"], ["sinks", "shout"]):
        command = [sys.executable, "-m", "logfan", *arguments, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert 'suffix  string, default "!"' in done.stdout
    assert "What is put behind each line." in done.stdout


def test_every_block_of_toml_is_toml() -> None:
    assert [tomllib.loads(text) for text in blocks("toml")]


def test_every_public_name_is_in_the_guide() -> None:
    import logfan
    import logfan.testing

    for name in logfan.__all__:
        if name not in ("Properties", "Record"):
            assert f"logfan.{name}" in GUIDE, name
    assert "`logfan.testing`" in GUIDE


def test_every_command_of_the_guide_is_there() -> None:
    lines = [line for text in blocks("console") for line in text.splitlines()]
    commands = [line.split()[2] for line in lines if line.startswith("$ logfan ")]
    assert commands
    for command in commands:
        run = [sys.executable, "-m", "logfan", command, "--help"]
        subprocess.run(run, check=True, capture_output=True)
