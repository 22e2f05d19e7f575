"""`transforms` in the config: each fault by its key, and what commands make of them."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from logfan.config.changes import changed_keys
from logfan.config.loader import prepare
from support.command import logfan
from support.drop_ins import add_drop_in

PLUGIN = """
import logfan
from pydantic import field_validator

class Stamp(logfan.Transform):
    '''Put a suffix behind each body; filters what is empty.'''

    class Config(logfan.TransformConfig):
        suffix: str = "!"
        times: int = 1
        token: str = ""

        @field_validator("token")
        @classmethod
        def _judged(cls, token):
            if token == "odd":
                raise RuntimeError("not of this kind")
            return token

    def apply(self, records):
        end = self.config.suffix * self.config.times
        for record in records:
            if record.body == b"bad":
                raise ValueError(f"not {self.name}'s")
            yield record.replace(body=record.text + end) if record.body else None

@logfan.hookimpl
def register_transforms(register):
    register("stamp", Stamp)
"""
HEAD = '[plugins]\ndirectories = ["plugins"]\n'
SINK = '[sinks.archive]\nkind = "file"\npath = "out.log"\nformat = "raw"\n'
FAULTS = {
    "transforms = 5": ("sinks.archive.transforms = 5", "must be a list"),
    'transforms = { kind = "stamp" }': ("sinks.archive.transforms", "must be a list"),
    'transforms = ["stamp"]': ('sinks.archive.transforms.0 = "stamp"', "must be a table: { … }"),
    "transforms = [{ suffix = 'x' }]": ("sinks.archive.transforms.0.kind", "is missing"),
    'transforms = [{ kind = "stmap" }]': (
        'sinks.archive.transforms.0.kind = "stmap"', 'no such transform; did you mean "stamp"?',
    ),
    'transforms = [{ kind = "geoip" }]': (
        'sinks.archive.transforms.0.kind = "geoip"', "no such transform; kinds: stamp",
    ),
    'transforms = [{ kind = "stamp" }, { kind = "stamp", sufix = "x" }]': (
        "sinks.archive.transforms.1.sufix", 'unknown key; did you mean "suffix"?',
    ),
    'transforms = [{ kind = "stamp", suffix = 5 }]': (
        "sinks.archive.transforms.0.suffix = 5", "must be a string",
    ),
    'transforms = [{ kind = "stamp", times = "many" }]': (
        'sinks.archive.transforms.0.times = "many"', "must be a whole number",
    ),
    'transforms = [{ kind = "stamp", token = "odd" }]': (
        "sinks.archive.transforms.0", "plugins/stamp.py failed to judge it: RuntimeError",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add_drop_in(tmp_path, "stamp", PLUGIN)


def asked(command: str, *arguments: str, lines: str = "") -> Result:
    Path("config.toml").write_text(HEAD + SINK + lines)
    Path("config.toml").chmod(0o600)
    return CliRunner().invoke(main, [command, *arguments])


def tried(lines: str, given: str) -> tuple[int, str]:
    """`logfan try` with these lines on standard input: its exit code and its report."""
    Path("config.toml").write_text(HEAD + SINK + lines)
    done = logfan("try", stdin=given)
    return done.returncode, done.stderr


@pytest.mark.parametrize("lines", FAULTS)
def test_a_fault_names_its_key_and_the_way_out(lines: str) -> None:
    place, problem = FAULTS[lines]
    done = asked("check", lines=lines)
    assert done.exit_code == 78
    assert f"fault  {place}: " in done.stderr
    assert problem in done.stderr
    assert "1 fault " in done.stderr


def test_faults_of_several_come_together_with_those_of_the_sink() -> None:
    lines = 'transforms = [{ kind = "a" }, { kind = "stamp", suffix = 5, times = "x" }]\nodd = 1'
    shown = asked("check", lines=lines).stderr
    assert [line.split()[1].rstrip(":") for line in shown.splitlines()[:-1]] == [
        "sinks.archive.odd", "sinks.archive.transforms.0.kind",
        "sinks.archive.transforms.1.suffix", "sinks.archive.transforms.1.times",
    ]  # fmt: skip


def test_where_there_is_none_at_all_that_is_reported() -> None:
    Path("plugins/stamp.py").unlink()
    shown = asked("check", lines='transforms = [{ kind = "stamp" }]').stderr
    assert "no such transform; there is none" in shown


def test_a_secret_of_one_is_never_shown() -> None:
    lines = 'transforms = [{ kind = "stamp", token = "s3cret-s3cret", times = "x" }]'
    done = asked("check", lines=lines)
    assert "s3cret" not in done.output
    assert asked("check", lines=lines.replace('"x"', "1")).exit_code == 0
    prepared = prepare(Path("config.toml"), environ={})
    assert "s3cret" not in repr(prepared)
    other = {"LOGFAN_SINKS__ARCHIVE__TRANSFORMS": '[{"kind": "stamp", "token": "another"}]'}
    changed = changed_keys(prepared, prepare(Path("config.toml"), environ=other))
    assert changed == ["sinks.archive.transforms"]


def test_the_environment_gives_them_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "LOGFAN_SINKS__ARCHIVE__TRANSFORMS"
    monkeypatch.setenv(name, '[{"kind": "stamp", "times": 2}]')
    assert asked("check").exit_code == 0
    assert tried("", "a\n")[0] == 0
    assert Path("out.log").read_text() == "a!!\n"
    monkeypatch.setenv(name, '[{"kind": "stamp", "times": "x"}]')
    shown = asked("check").stderr
    assert f'sinks.archive.transforms.0.times (from {name}) = "x": must be a whole' in shown
    monkeypatch.setenv(name, "stamp")
    assert f"environment variable {name}: is not JSON" in asked("check").stderr


def test_try_runs_them_and_reports_what_they_fail_over() -> None:
    lines = 'transforms = [{ kind = "stamp" }, { kind = "stamp", suffix = "?", times = 2 }]\n'
    lines += 'retry = { initial = "1ms", max = "5ms" }\n'
    code, shown = tried(lines, "a\nb\nbad\nc\n")
    assert code == 1
    assert Path("out.log").read_text() == "a!??\nb!??\nc!??\n"
    assert "sink archive (file): 3 written, 1 refused" in shown
    assert "line 3: transform stamp failed: ValueError: not archive's" in shown


def test_each_sink_has_an_instance_of_its_own() -> None:
    lines = 'transforms = [{ kind = "stamp" }]\n[sinks.b]\nkind = "file"\npath = "b.log"\n'
    lines += 'format = "raw"\ntransforms = [{ kind = "stamp", suffix = "?" }]\n'
    shown = tried(lines, "bad\na\n")[1]
    assert (Path("out.log").read_text(), Path("b.log").read_text()) == ("a!\n", "a?\n")
    assert "not archive's" in shown
    assert "not b's" in shown


CASES = """
[[cases]]
name = "stamped"
record = { text = "a", properties = { message_id = "m" } }
sinks = { archive = { text = "a!" }, plain = { text = "a" } }

[[cases]]
name = "empty"
record = { text = "" }
sinks = { archive = "filtered", plain = "kept" }
"""
OTHERS = """
transforms = [{ kind = "stamp" }]
[sinks.plain]
kind = "of a package that is not here"
"""


def test_test_knows_them_and_no_other_plugin_need_be_sound() -> None:
    Path("plugins/broken.py").write_text("raise SystemExit")
    Path("cases.toml").write_text(CASES)
    done = asked("test", "cases.toml", lines=OTHERS)
    assert (done.exit_code, done.stdout) == (0, "2 cases passed\n"), done.output
    Path("cases.toml").write_text(CASES.replace('"filtered"', '"kept"').replace('"a!"', '"a?"'))
    shown = asked("test", "cases.toml", lines=OTHERS).stdout
    assert "- a?\n    + a!" in shown
    assert "+ filtered, by a transform" in shown
    Path("cases.toml").write_text(CASES.replace('text = "a", prop', 'text = "bad", prop'))
    shown = asked("test", "cases.toml", lines=OTHERS).stdout
    assert "+ it does not get it: transform stamp failed: ValueError: not archive's" in shown


def test_test_reports_faults_of_transforms_with_those_of_their_plugins() -> None:
    Path("plugins/stamp.py").write_text("raise SystemExit")
    Path("cases.toml").write_text(CASES)
    done = asked("test", "cases.toml", lines=OTHERS)
    assert done.exit_code == 78
    assert "sinks.archive.transforms.0.kind" in done.stderr
    assert "plugins/stamp.py: cannot be imported: SystemExit" in done.stderr
