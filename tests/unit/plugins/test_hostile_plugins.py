"""Plugins that people get wrong: each a fault that names the file, and nothing of it is run on."""

import importlib.util
import os
import py_compile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from logfan.config.settings import SinkSettings
from logfan.faults import Fault
from logfan.plugins.discovery import discover
from logfan.plugins.validation import HOST_KEYS
from support.command import logfan
from support.users import ordinary_user

TOP = "import logfan\n"
SINK = "class S(logfan.Sink):\n    def write(self, records): pass\n"
HOOK = "@logfan.hookimpl\ndef register_sinks(register):\n    register('s', S)\n"

TRANSFORM = "class T(logfan.Transform):\n    def apply(self, records): return records\n"
THOOK = "@logfan.hookimpl\ndef register_transforms(register):\n    register('t', T)\n"


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
    "fails at import without a text": (
        TOP + "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E\n",
        "E: E (its text cannot be read) (line 4)",
    ),
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
    "arguments in the wrong order": (
        TOP + SINK + hook("register(S, 's')"),
        'the order is register(kind, class): register("s", S)',
    ),
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
    "config takes a key that chooses records": (
        TOP + sink("class Config(logfan.SinkConfig):\n        where: str = ''") + HOOK,
        "'where', which belongs to logfan",
    ),
    "registers by other names": (
        TOP + SINK + hook("register(name='s', sink=S)"), "TypeError: register() got an unexpected",
    ),
    "hook is async": (
        TOP + SINK + HOOK.replace("def reg", "async def reg"), "its register_sinks is async",
    ),
    "config of a type that only type checkers import": (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pathlib import Path\n" + TOP
        + sink("class Config(logfan.SinkConfig):\n        path: Path") + HOOK,
        "S.Config names the type Path, which is not there when it runs",
    ),
    "config of a wild type": (
        TOP + sink("class Config(logfan.SinkConfig):\n        f: open") + HOOK,
        "cannot be imported",
    ),
    "config takes a key of ours by an alias": (
        "from pydantic import Field\n" + TOP
        + sink("class Config(logfan.SinkConfig):\n        a: int = Field(1, alias='retry')") + HOOK,
        "'retry', which belongs to logfan",
    ),
    "config of a type without a shape": (
        "import threading\n" + TOP
        + sink("class Config(logfan.SinkConfig):\n        lock: threading.Event") + HOOK,
        "cannot be imported",
    ),
    "abstract": (
        "import abc\n" + TOP + sink("@abc.abstractmethod\n    def send(self): ...").replace(
            "class S(logfan.Sink)", "class S(logfan.Sink, abc.ABC)"
        ) + HOOK,
        "S is abstract; it lacks send",
    ),
    "static write": (
        TOP + "class S(logfan.Sink):\n    @staticmethod\n    def write(records): pass\n" + HOOK,
        "S.write must take (self, records)",
    ),
    "fails deep inside what it imports": (
        TOP + "import json\n\njson.loads('{')\n", "JSONDecodeError: Expecting",
    ),
    "misspelt hook of transforms": (
        TOP + TRANSFORM + THOOK.replace("transforms(", "transform("),
        "did you mean register_transforms?",
    ),
    "a hook of nothing like it": (
        TOP + SINK + HOOK.replace("register_sinks", "on_message"),
        "the hooks are register_sinks and register_transforms",
    ),
    "hook of transforms with other parameters": (
        TOP + TRANSFORM + THOOK.replace("(register)", "(registry)"),
        "its register_transforms must take exactly one parameter, named register",
    ),
    "hook of transforms that registers nothing": (
        TOP + "@logfan.hookimpl\ndef register_transforms(register): pass\n",
        'its register_transforms registers nothing; call register("kind", TransformClass)',
    ),
    "hook of transforms that fails": (
        TOP + THOOK.replace("'t', T", "undefined"), "register_transforms failed: NameError",
    ),
    "a sink as a transform": (
        TOP + SINK + THOOK.replace("T)", "S)"), "S, which is no subclass of logfan.Transform",
    ),
    "a transform as a sink": (
        TOP + TRANSFORM + hook("register('t', T)"), "T, which is no subclass of logfan.Sink",
    ),
    "the base of transforms itself": (
        TOP + THOOK.replace("T)", "logfan.Transform)"), "Transform has no apply(self, records)",
    ),
    "apply misspelt": (
        TOP + TRANSFORM.replace("apply", "aply") + THOOK,
        'has no apply(self, records); is it "aply"',
    ),
    "apply without records": (
        TOP + TRANSFORM.replace("self, records", "self") + THOOK,
        "T.apply must take (self, records)",
    ),
    "apply is async": (TOP + TRANSFORM.replace("def a", "async def a") + THOOK, "T.apply is async"),
    "a transform with an init": (
        TOP + TRANSFORM + "    def __init__(self, config): pass\n" + THOOK,
        "T overrides __init__; make what it needs at the first use instead",
    ),
    "config of a transform is no config": (
        TOP + TRANSFORM + "    class Config: pass\n" + THOOK,
        "T.Config must be a subclass of logfan.TransformConfig",
    ),
    "config of a transform takes a key of ours": (
        TOP + TRANSFORM + "    class Config(logfan.TransformConfig):\n        kind: str\n" + THOOK,
        "has the key 'kind', which belongs to logfan itself",
    ),
    "one transform twice": (
        TOP + TRANSFORM + THOOK + "    register('t', T)\n", 'the transform "t" twice',
    ),
    "a kind that is taken": (TOP + SINK + hook("register('file', S)"), "logfan_sinks.file"),
    "one kind twice": (
        TOP + SINK + hook("register('s', S); register('s', S)"),
        'the kind "s" twice, for S; leave one of the calls out',
    ),
    "one kind for two classes": (
        TOP + SINK + SINK.replace("S(", "Other(") + hook("register('s', S); register('s', Other)"),
        'the kind "s" twice, for S and for Other; give one of them another name',
    ),
    "a key of the config without a type": (
        TOP + sink("class Config(logfan.SinkConfig):\n        timeout = 5") + HOOK,
        "the Config's timeout = 5 has no type; annotate it: timeout: int = 5, or timeout: typing.",
    ),
    "a key of the config without a type, of no plain value": (
        TOP + sink("class Config(logfan.SinkConfig):\n        lock = open") + HOOK,
        "has no type; annotate it: lock: TYPE = <built-in function open>",
    ),
    "conflicts without its decorator": (
        TOP + sink("def conflicts(self, configs): return {}") + HOOK,
        "must be a class method that returns a dict: @classmethod above def conflicts(cls, conf",
    ),
    "advice is async": (
        TOP + sink("@classmethod\n    async def advice(cls, configs): return {}") + HOOK,
        "S.advice must be a class method",
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
def test_each_is_reported_with_its_file(case: str, folder: Path, tmp_path: Path) -> None:
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


def test_a_folder_that_others_may_write_above_it_is_refused(folder: Path) -> None:
    put(folder, "good.py", TOP + SINK + HOOK)
    folder.parent.chmod(0o777)
    (fault,) = faults(folder)
    assert fault.place == str(folder)
    assert f"lies in {folder.parent}, which may be written by everyone" in fault.problem
    folder.parent.chmod(0o1777)  # as /tmp: others cannot move what is ours
    assert faults(folder) == []


def test_of_a_link_its_target_is_looked_at(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = put(elsewhere, "target.py", TOP + SINK + HOOK)
    (folder / "link.py").symlink_to(target)
    assert faults(folder) == []
    elsewhere.chmod(0o777)
    (fault,) = faults(folder)
    assert fault.place == str(folder / "link.py")
    assert f"chmod go-w {elsewhere}" in fault.problem


def test_what_lies_compiled_beside_a_plugin_is_never_run(folder: Path) -> None:
    file = put(folder, "good.py", TOP + SINK + HOOK)
    evil = put(folder.parent, "evil.py", (TOP + SINK + HOOK).replace("'s'", "'e'"))
    # As long and as old as the plugin, so that Python itself would take it for the plugin.
    os.utime(evil, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    py_compile.compile(
        str(evil), cfile=importlib.util.cache_from_source(str(file)), dfile=str(file)
    )
    kinds = discover([folder], []).kinds
    assert "s" in kinds
    assert "e" not in kinds


def test_nothing_is_written_beside_a_plugin(folder: Path) -> None:
    put(folder, "good.py", TOP + SINK + HOOK)
    assert faults(folder) == []
    assert list(folder.iterdir()) == [folder / "good.py"]


def test_a_file_for_a_folder_is_reported(tmp_path: Path) -> None:
    (fault,) = faults(put(tmp_path, "file.py", ""))
    assert "is no folder; plugins.directories must name folders" in fault.problem


def test_a_link_to_nowhere_for_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (fault,) = faults(tmp_path / "link")
    assert fault.problem == "is a link to nowhere"


@contextmanager
def out_of_reach(folder: Path) -> Iterator[None]:
    """The folder shut, and we not root for a while, who may look into every folder."""
    folder.chmod(0)
    try:
        with ordinary_user():
            yield
    finally:
        folder.chmod(0o755)


def test_a_folder_out_of_reach_is_reported(folder: Path) -> None:
    with out_of_reach(folder):
        (fault,) = faults(folder / "inside")
    assert fault.problem == "cannot be reached: permission denied"


def test_a_folder_that_may_not_be_listed_is_reported(folder: Path) -> None:
    with out_of_reach(folder):
        (fault,) = faults(folder)
    assert "permission denied" in fault.problem


def test_an_error_in_what_a_plugin_imports_names_both_places(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "torn_helper.py", "x = 1\nx = (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    put(folder, "good.py", TOP + "import torn_helper\n")
    (fault,) = faults(folder)
    assert fault.place == str(folder / "good.py")
    assert f"({tmp_path / 'torn_helper.py'}, line 2)" in fault.problem


@pytest.mark.parametrize("neighbour", ["beside.py", "beside/more.py"])
def test_the_fault_of_a_drop_in_that_imports_its_neighbour_names_the_package(
    folder: Path, neighbour: str
) -> None:
    (folder / neighbour).parent.mkdir(mode=0o755, exist_ok=True)
    put(folder, neighbour, TOP + SINK + HOOK)
    put(folder, "good.py", TOP + "from beside.more import x\n")
    (fault,) = faults(folder)
    assert fault.place == str(folder / "good.py")
    assert fault.problem == (
        f"cannot be imported: ModuleNotFoundError: No module named 'beside'; {folder} holds "
        "beside, but a drop-in is one file and cannot import its neighbours: put both into one "
        "file, or make a package (logfan generate plugin) (line 2)"
    )


def test_a_kind_that_is_not_there_may_be_of_a_plugin_that_could_not_be_loaded(
    folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "pager"\n')
    first = put(folder, "a.py", TOP + "x = (\n")
    shown = CliRunner().invoke(main, ["check", "--config", str(config)]).output
    words = 'sinks.a.kind = "pager": no such kind of sink; its plugin may be'
    assert f"{words} the one that could not be loaded ({first})" in shown
    second = put(folder, "b.py", TOP + "1 / 0\n")
    shown = CliRunner().invoke(main, ["check", "--config", str(config)]).output
    assert f"{words} one of those that could not be loaded ({first}, {second})" in shown
    config.write_text(config.read_text().replace("pager", "fle"))
    shown = CliRunner().invoke(main, ["check", "--config", str(config)]).output
    assert f'could not be loaded ({first}, {second}); did you mean "file"?' in shown


def test_a_link_to_nowhere_is_reported(folder: Path) -> None:
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
    assert discover([folder], ["bad"]).faults == []


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "from pydantic import field_validator\n"
            + TOP
            + sink(
                "class Config(logfan.SinkConfig):\n        n: int = 1\n"
                "        @field_validator('n', mode='before')\n        @classmethod\n"
                "        def check(cls, value): raise KeyError('oops')"
            )
            + HOOK,
            "failed to judge it: KeyError('oops')",
        ),
        (
            TOP
            + "class E(Exception):\n    def __str__(self): 1 / 0\n    __repr__ = __str__\n"
            + sink("@classmethod\n    def conflicts(cls, configs): raise E")
            + HOOK,
            "bad.py failed: E (its text cannot be read)",
        ),
        (
            TOP + sink("@classmethod\n    def conflicts(cls, configs): return None") + HOOK,
            "conflicts must return a dict, {name: why}, not a NoneType",
        ),
        (
            TOP + sink("@classmethod\n    def conflicts(cls, configs): return ['a']") + HOOK,
            "bad.py failed: TypeError('conflicts must return a dict, {name: why}, not a list')",
        ),
        (
            TOP + sink("@classmethod\n    def conflicts(cls, configs): raise SystemExit(0)") + HOOK,
            "bad.py failed: SystemExit(0)",
        ),
        (
            TOP
            + "from pydantic import field_validator\n"
            + sink(
                "class Config(logfan.SinkConfig):\n        n: int = 1\n"
                "        @field_validator('n')\n        @classmethod\n"
                "        def _(cls, n): raise SystemExit(0)"
            )
            + HOOK,
            "failed to judge it: SystemExit(0)",
        ),
    ],
    ids=[
        "validator that fails",
        "an error without a text",
        "conflicts that gives nothing",
        "conflicts that gives a list",
        "conflicts that exits",
        "validator that exits",
    ],
)
def test_what_fails_only_when_it_is_configured_is_a_fault_of_its_sink(
    folder: Path, tmp_path: Path, text: str, words: str
) -> None:
    put(folder, "bad.py", text)
    config = tmp_path / "config.toml"
    config.write_text(f'[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "s"\nn = 2\n')
    if "conflicts" in text:
        config.write_text(config.read_text().replace("n = 2\n", ""))
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert result.exit_code == 78
    assert "sinks.a" in result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_the_keys_that_a_class_never_gets_are_those_of_each_sink() -> None:
    assert {*HOST_KEYS, "decode"} == SinkSettings.model_fields.keys()


@pytest.mark.parametrize("command", ["check", "run"])
def test_all_classes_that_cannot_be_made_are_named(
    folder: Path, tmp_path: Path, command: str
) -> None:
    unmade = "    def __new__(cls, *_, **__): raise RuntimeError('no more of them')\n"
    put(folder, "bad.py", TOP + SINK + unmade + HOOK)
    sinks = "".join(f'[sinks.{name}]\nkind = "s"\n' for name in ("a", "b"))
    (tmp_path / "config.toml").write_text(f'[plugins]\ndirectories = ["{folder}"]\n{sinks}')
    done = logfan(command, folder=tmp_path)
    assert done.returncode == 78
    first, second, total = done.stderr.splitlines()
    assert first.startswith("fault  sinks.a: S of")
    assert second.startswith("fault  sinks.b: S of")
    assert total == "2 faults in config.toml"


def test_a_metric_of_the_hosts_own_is_a_fault_of_the_plugins(folder: Path, tmp_path: Path) -> None:
    name = "logfan_received_messages_total"
    counter = f"import prometheus_client\nprometheus_client.Counter('{name}', '')\n"
    put(folder, "bad.py", counter + TOP + SINK + HOOK)
    config = f'[plugins]\ndirectories = ["{folder}"]\n[sinks.a]\nkind = "s"\n'
    (tmp_path / "config.toml").write_text(config)
    done = logfan("run", folder=tmp_path)
    assert done.returncode == 78
    fault, total = done.stderr.splitlines()
    assert fault.startswith("fault  plugins: the code of a plugin registers a metric of logfan's")
    assert "not with logfan_" in fault
    assert name in fault
    assert total == "1 fault in config.toml"


@pytest.mark.parametrize("raised", ["RuntimeError", "SystemExit"])
def test_a_class_that_cannot_be_made_is_a_fault_of_its_place_at_the_start(
    folder: Path, tmp_path: Path, raised: str
) -> None:
    unmade = f"    def __new__(cls, *_, **__): raise {raised}('no more of them')\n"
    put(folder, "bad.py", TOP + SINK + unmade + HOOK + TRANSFORM + unmade + THOOK)
    config = tmp_path / "config.toml"
    head = f'[http]\nlisten = "127.0.0.1:0"\n[plugins]\ndirectories = ["{folder}"]\n'
    cannot = f"of {folder / 'bad.py'} cannot be made: {raised}: no more of them"
    for sinks, fault in (
        ('[sinks.a]\nkind = "s"\n', f"sinks.a: S {cannot}"),
        (
            '[sinks.a]\nkind = "stdout"\ntransforms = [{ kind = "t" }]\n',
            f"sinks.a.transforms.0: T {cannot}",
        ),
    ):
        config.write_text(head + sinks)
        done = logfan("run", folder=tmp_path)
        assert done.returncode == 78
        assert done.stderr == f"fault  {fault}\n1 fault in config.toml\n"
