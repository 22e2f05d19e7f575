"""Every code block of the guide for authors, run."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from support.fresh_venv import FreshVenv

GUIDE = (Path(__file__).parents[3] / "plugins/README.md").read_text()
WALK = GUIDE.partition("## A plugin in ten minutes")[2].partition("\n## ")[0]
"""What a reader does step by step, from one block to the next."""


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


ALONE = [text for text in blocks("python") if text not in WALK]


@pytest.mark.parametrize("text", ALONE, ids=range(len(ALONE)))
def test_a_block_of_python_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "test_block.py"
    file.write_text(text)
    runpy.run_path(str(file))
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
        done = CliRunner().invoke(main, [*arguments, "--config", str(config)])
        assert done.exit_code == 0, done.output
    assert 'suffix  string, default "!"' in done.stdout
    assert "What is put behind each line." in done.stdout


@pytest.mark.slow
def test_the_ten_minutes_lead_where_they_say(tmp_path: Path) -> None:
    venv = FreshVenv(tmp_path)
    plugin = tmp_path / "logfan-courier"
    files = iter([plugin / "logfan_courier.py", plugin / "tests/test_courier.py"])
    shown: list[str] = []
    first, *steps = re.findall(r"^```(\w+)\n(.*?)^```$", WALK, re.MULTILINE | re.DOTALL)
    assert "venv" in first[1]
    for language, text in steps:
        if language == "console":
            lines = [line.removeprefix("$ ") for line in text.splitlines()]
            shown += [venv.shell(line, tmp_path) for line in lines]
        elif language == "diff":
            (plugin / "change.diff").write_text(text)
            venv.shell("git apply change.diff", plugin)
        elif language == "toml":
            (tmp_path / "config.toml").write_text(text)
        else:
            next(files).write_text(text)
    tested = [text for text in shown if " passed" in text]
    assert [" skipped" in text for text in tested] == [True, True, False]
    assert any("prefix  string" in text and "What each line begins with." in text for text in shown)
    assert any(text.startswith('> {"received_at":') for text in shown)
    assert "40 passed in" in tested[-1]


AWAY = 'raise logfan.SinkUnavailable(f"the server is gone: {error}") from error'
MISTAKES = {
    # a line of the sink: what stands there by mistake, the test that sees it, and what it prints
    "written": (
        AWAY, "return 200", "is_reported",
        "write and flush returned while the other side was away",
    ),
    "refused": (AWAY, "return 422", "is_reported", "they would go to the dead letters"),
    "endless": (", timeout=config.timeout", "", "for_ever", "write has not returned for 1 s"),
}  # fmt: skip


@pytest.mark.slow
def test_the_mistakes_of_the_ten_minutes_are_seen(tmp_path: Path) -> None:
    sink, suite = [text for text in blocks("python") if text in WALK]
    short = suite.replace("sink_class = CourierSink", "sink_class = CourierSink\n    seconds = 1.0")
    for name, (right, wrong, _, message) in MISTAKES.items():
        assert right in sink
        assert message.replace("1 s", "30 s") in GUIDE
        (tmp_path / f"{name}.py").write_text(sink.replace(right, wrong))
        (tmp_path / f"test_{name}.py").write_text(short.replace("logfan_courier", name))
    chosen = " or ".join(f"(test_{name} and {test})" for name, (_, _, test, _) in MISTAKES.items())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "."]
    shown = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    ).stdout
    assert " passed" not in shown
    for name, (_, _, _, message) in MISTAKES.items():
        assert re.search(rf"^(E|FAILED|ERROR) .*{message}", shown, re.MULTILINE), (name, shown)
    assert f"{len(MISTAKES)} failed" in shown


def test_every_block_of_toml_is_toml() -> None:
    assert [tomllib.loads(text) for text in blocks("toml")]


def test_every_public_name_is_in_the_guide() -> None:
    import logfan
    import logfan.testing

    for name in logfan.__all__:
        if name not in ("Properties", "Record"):
            assert f"logfan.{name}" in GUIDE, name
    assert "`logfan.testing`" in GUIDE
