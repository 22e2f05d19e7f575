"""Plugins that people get wrong: each a fault that names the file, and nothing of it is run on."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from logfan.faults import Fault
from logfan.plugins import discover

TOP = "import logfan\n"
SINK = "class S(logfan.Sink):\n    def write(self, records): pass\n"
HOOK = "@logfan.hookimpl\ndef register_sinks(register):\n    register('s', S)\n"


def hook(call: str) -> str:
    return f"@logfan.hookimpl\ndef register_sinks(register):\n    {call}\n"


def sink(body: str) -> str:
    return f"class S(logfan.Sink):\n    def write(self, records): pass\n    {body}\n"


HOSTILE: dict[str, tuple[str, str]] = {
    "syntax error": (TOP + "def broken(:\n", "line 2"),
    "indentation": (TOP + "class S(logfan.Sink):\ndef write(self, records): pass\n", "line 3"),
    "null byte": (TOP + "\0", "null"),
    "missing module": ("import reqeusts\n", "No module named 'reqeusts'; install it"),
    "misspelt import": ("from logfan import Snk\n", "Snk"),
    "fails at import": (TOP + "x = 1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
    "exits at import": (TOP + "raise SystemExit('bye')\n", "SystemExit: bye (line 2)"),
    "interrupts at import": (TOP + "raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "recursion": (TOP + "def f(): f()\nf()\n", "RecursionError"),
    "empty file": ("", "registers no sink"),
    "no hook": (TOP + SINK, "registers no sink; write @logfan.hookimpl"),
    "hook without mark": (TOP + SINK + HOOK.replace("@logfan.hookimpl\n", ""), "registers no sink"),
    "misspelt hook": (TOP + SINK + HOOK.replace("sinks(", "sink("), "'register_sink' that logfan"),
    "hook of other parameters": (
        TOP + SINK + HOOK.replace("(register)", "(registry)"), "named register",
    ),
    "hook without parameters": (
        TOP + "@logfan.hookimpl\ndef register_sinks():\n    pass\n", "registers nothing",
    ),
    "hook that fails": (TOP + SINK + hook("register(undefined)"), "NameError"),
    "hook that exits": (TOP + SINK + hook("raise SystemExit(1)"), "SystemExit"),
    "hook that registers nothing": (TOP + SINK + hook("pass"), "registers nothing"),
    "register without a class": (TOP + SINK + hook("register('s')"), "TypeError"),
    "arguments in the wrong order": (TOP + SINK + hook("register(S, 's')"), "a kind is made of"),
    "kind in capitals": (TOP + SINK + hook("register('Shout', S)"), "'Shout'; a kind is made of"),
    "empty kind": (TOP + SINK + hook("register('', S)"), "a kind is made of"),
    "an object, no class": (TOP + SINK + hook("register('s', S(None))"), "leave out the ()"),
    "no sink": (TOP + "class S: pass\n" + HOOK, "no subclass of logfan.Sink"),
    "the base itself": (TOP + hook("register('s', logfan.Sink)"), "has no write"),
    "without write": (TOP + "class S(logfan.Sink): pass\n" + HOOK, "S has no write(self, records)"),
    "write misspelt": (
        TOP + "class S(logfan.Sink):\n    def wirte(self, records): pass\n" + HOOK, 'is it "wirte"',
    ),
    "write without records": (
        TOP + "class S(logfan.Sink):\n    def write(self): pass\n" + HOOK,
        "S.write must take (self, records)",
    ),
    "write is async": (
        TOP + "class S(logfan.Sink):\n    async def write(self, records): pass\n" + HOOK,
        "S.write is async",
    ),
    "write yields": (
        TOP + "class S(logfan.Sink):\n    def write(self, records): yield\n" + HOOK,
        "has a yield in it",
    ),
    "write is a value": (TOP + "class S(logfan.Sink):\n    write = 5\n" + HOOK, "is no method"),
    "open with parameters": (
        TOP + sink("def open(self, path): pass") + HOOK, "S.open must take (self)",
    ),
    "own init": (TOP + sink("def __init__(self): pass") + HOOK, "overrides __init__"),
    "config is no config": (
        TOP + sink("class Config: pass") + HOOK, "subclass of logfan.SinkConfig",
    ),
    "config is a dict": (TOP + sink("Config = {}") + HOOK, "subclass of logfan.SinkConfig"),
    "config takes a key of ours": (
        TOP + sink("class Config(logfan.SinkConfig):\n        kind: str = ''") + HOOK,
        "'kind', which belongs to logfan",
    ),
    "config of a wild type": (
        TOP + sink("class Config(logfan.SinkConfig):\n        f: open") + HOOK,
        "cannot be imported",
    ),
    "a kind that is taken": (TOP + SINK + hook("register('file', S)"), "logfan_sinks.file"),
    "one kind twice": (
        TOP + SINK + hook("register('s', S); register('s', S)"), 'the kind "s" twice',
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    return plugins


def put(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o644)
    return file


def faults(folder: Path) -> list[Fault]:
    return list(discover([folder], []).faults)


@pytest.mark.parametrize("case", HOSTILE)
def test_each_is_told_with_its_file(case: str, folder: Path, tmp_path: Path) -> None:
    text, words = HOSTILE[case]
    file = put(folder, "bad.py", text)
    (fault,) = faults(folder)
    assert fault.place == str(file)
    assert words in fault.problem
    config = tmp_path / "config.toml"
    config.write_text(f'[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "stdout"\n')
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert result.exit_code == 78
    assert str(file) in result.output
    assert "Traceback" not in result.output


def test_one_bad_plugin_does_not_hide_the_others(folder: Path) -> None:
    put(folder, "a.py", "import nowhere_at_all\n")
    put(folder, "b.py", TOP + SINK + HOOK)
    put(folder, "c.py", "x = (\n")
    discovered = discover([folder], [])
    assert discovered.kinds["s"].origin == str(folder / "b.py")
    assert [Path(fault.place).name for fault in discovered.faults] == ["a.py", "c.py"]


def test_of_two_plugins_with_one_kind_the_first_by_name_has_it(folder: Path) -> None:
    put(folder, "b.py", TOP + SINK + HOOK)
    put(folder, "a.py", TOP + SINK + HOOK)
    discovered = discover([folder], [])
    assert discovered.kinds["s"].origin == str(folder / "a.py")
    (fault,) = discovered.faults
    assert fault.place == str(folder / "b.py")
    assert str(folder / "a.py") in fault.problem


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o646, "everyone")])
def test_a_file_that_others_may_write_is_refused(folder: Path, mode: int, who: str) -> None:
    file = put(folder, "open.py", "raise SystemExit('was run')\n")
    file.chmod(mode)
    (fault,) = faults(folder)
    assert f"may be written by {who}; refused: chmod go-w" in fault.problem
    assert "was run" not in fault.problem


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    put(folder, "good.py", TOP + SINK + HOOK)
    folder.chmod(mode)
    (fault,) = faults(folder)
    assert fault.place == str(folder)
    assert "chmod go-w" in fault.problem
    assert "s" not in discover([folder], []).kinds


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_a_foreign_owner_is_refused(folder: Path) -> None:
    file = put(folder, "foreign.py", TOP + SINK + HOOK)
    os.chown(file, 12345, 12345)
    (fault,) = faults(folder)
    assert "belongs to user id 12345" in fault.problem


def test_a_link_to_nowhere_is_told(folder: Path) -> None:
    (folder / "gone.py").symlink_to(folder / "nowhere.py")
    (fault,) = faults(folder)
    assert "link to nowhere" in fault.problem


def test_a_missing_folder_is_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path / "nowhere") == []


def test_hidden_and_other_files_are_passed_over(folder: Path) -> None:
    for name in ("_helper.py", ".hidden.py", "notes.txt", "bad.py~"):
        put(folder, name, "raise SystemExit\n")
    assert faults(folder) == []


def test_a_disabled_plugin_is_not_even_imported(folder: Path) -> None:
    put(folder, "bad.py", "raise SystemExit\n")
    assert discover([folder], ["bad"]).faults == ()


def test_what_a_plugin_prints_at_import_stays_out_of_the_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, "loud.py", "print('hello')\n" + TOP + SINK + HOOK)
    assert faults(folder) == []
    assert capsys.readouterr().out == ""


def test_an_unchanged_plugin_is_imported_once(folder: Path) -> None:
    put(folder, "once.py", TOP + SINK + HOOK)
    first = discover([folder], []).kinds["s"].cls
    assert discover([folder], []).kinds["s"].cls is first
