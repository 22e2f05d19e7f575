"""The keys of the stage in the config: each fault by its key, with the way out."""

import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from logfan.config.loader import prepare
from logfan.testing import record
from support.drop_ins import add_drop_in

SINK = '[plugins]\ndirectories = []\n[sinks.a]\nkind = "stdout"\n'
FAULTS = {
    "where = 5": ("sinks.a.where = 5", "5 is no table of matchers; write one as { level ="),
    "where = []": ("sinks.a.where", "leave `where` out to get all"),
    'where = { level = "errr" }': ("sinks.a.where", "levels are debug, info, warning"),
    "where = [{ n = 1 }, { n = { abov = 3 } }]": ("sinks.a.where", "[1].n: 'abov' is no condition"),
    'where = { n = { matches = "(" } }': ("sinks.a.where", "n.matches: '(' is no regular expr"),
    'on_error = "kepe"': ('sinks.a.on_error = "kepe"', 'did you mean "keep"?'),
    'decode = "gzip"': ('sinks.a.decode = "gzip"', "must be true or false"),
    "sample = 2": ("sinks.a.sample = 2", "must be at most 1.0"),
    "sample = -1": ("sinks.a.sample = -1", "must be at least 0.0"),
    "redact = { hash = true }": ("sinks.a.redact", "name some, or leave it out"),
    'redact = { paths = ["a..b"] }': ("sinks.a.redact.paths", "write names between dots: user."),
    'redact = { patterns = ["("] }': ("sinks.a.redact.patterns", "named pattern (email, card,"),
    'redact = { paths = ["a"], wiht = "x" }': ("sinks.a.redact.wiht", 'did you mean "with"?'),
    'redact = { paths = ["a"], key_file = "k" }': ("sinks.a.redact", "is for hash = true"),
    'redact = { paths = ["a"], hash = true, key_file = "away" }': (
        'sinks.a.redact.key_file = "away"', "cannot be read: no such file or directory; it names",
    ),
    'redact = { paths = ["a"], hash = true, key_file = "empty" }': (
        'sinks.a.redact.key_file = "empty"', "the file is empty; it names the file that holds",
    ),
}  # fmt: skip
VARIABLES = {
    ("WHERE", "level=error"): "is not JSON; write lists and tables as JSON",
    ("WHERE", '{"level": "errr"}'): "'errr' is no level; levels are debug",
    ("WHERE__LEVEL", "errr"): "'errr' is no level; levels are debug",
    ("DECODE", "gzip"): "must be true or false",
    ("SAMPLE", "1.5"): "must be at most 1.0",
    ("REDACT__PATTERNS", '["("]'): "nor a regular expression of RE2",
    ("REDACT", '{"paths": ["a..b"]}'): "write names between dots",
}
TAKEN = {
    "WHERE": '[{"level": ["error", "critical"]}, {"n": {"above": 3}}]',
    "DECODE": "true",
    "SAMPLE": "0.5",
    "ON_ERROR": "drop",
    "REDACT__PATHS": '["user.email"]',
    "REDACT__WITH": "5",
}


def checked(folder: Path, lines: str) -> tuple[int, str]:
    (folder / "config.toml").write_text(SINK + lines)
    done = CliRunner().invoke(main, ["check", "-c", str(folder / "config.toml")])
    return done.exit_code, done.stderr


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("lines", FAULTS)
def test_a_fault_names_its_key_and_the_way_out(tmp_path: Path, lines: str) -> None:
    place, problem = FAULTS[lines]
    code, shown = checked(tmp_path, lines)
    assert code == 78
    assert f"fault  {place}: " in shown
    assert problem in shown
    assert "1 fault " in shown


def test_faults_of_one_table_are_reported_together(tmp_path: Path) -> None:
    shown = checked(tmp_path, 'redact = { paths = [""], patterns = ["("], hahs = true }')[1]
    assert [line.split(":")[0] for line in shown.splitlines()[:-1]] == [
        "fault  sinks.a.redact.paths", "fault  sinks.a.redact.patterns",
        "fault  sinks.a.redact.hahs",
    ]  # fmt: skip


@pytest.mark.parametrize("variable", VARIABLES, ids="=".join)
def test_a_fault_from_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    name = f"LOGFAN_SINKS__A__{variable[0]}"
    monkeypatch.setenv(name, variable[1])
    code, shown = checked(tmp_path, "")
    assert code == 78
    assert name in shown
    assert VARIABLES[variable] in shown


def test_every_key_can_be_set_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TAKEN.items():
        monkeypatch.setenv(f"LOGFAN_SINKS__A__{name}", value)
    assert checked(tmp_path, "") == (0, "")


def test_hashes_with_a_key_of_each_start_are_warned_of(tmp_path: Path) -> None:
    code, shown = checked(tmp_path, 'redact = { paths = ["a"], hash = true }')
    assert code == 0
    assert "warning  sinks.a.redact.hash without key_file: each start makes a new key" in shown
    (tmp_path / "key").write_text("any text")
    (tmp_path / "key").chmod(0o600)
    lines = 'redact = { paths = ["a"], hash = true, key_file = "key" }'
    assert checked(tmp_path, lines) == (0, "")


def test_the_options_of_a_kind_show_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sinks", "file"])
    lines = done.stdout.splitlines()
    for line in (
        "decode  boolean, default false",
        "where  table or list of tables, default none",
        'on_error  "keep" | "drop", default "keep"',
        "sample  number, default 1.0",
        "redact  table, default none",
        "redact.paths  list of strings, default empty",
        'redact.with  string, default "[redacted]"',
        "redact.key_file  path, default none",
    ):
        assert lines[lines.index(line) + 1].startswith("    ")


OWN = """
import logfan

class Old(logfan.Sink):
    '''Of the time before all sinks had the key.'''

    class Config(logfan.SinkConfig):
        decode: bool = False

    def write(self, records):
        for record in records:
            body = record.decoded().body if self.config.decode else record.body
            print(len(records), body.decode(), flush=True)

@logfan.hookimpl
def register_sinks(register):
    register("old", Old)
"""


def test_a_sink_of_somebody_with_a_key_decode_of_its_own_works_as_before(tmp_path: Path) -> None:
    add_drop_in(tmp_path, "old", OWN)
    (tmp_path / "config.toml").write_text(
        '[plugins]\ndirectories = ["plugins"]\n[sinks.a]\nkind = "old"\ndecode = true\n'
    )
    (sink,) = prepare(tmp_path / "config.toml", environ={}).sinks
    assert sink.config.model_dump() == {"decode": True}
    assert sink.settings.decode
    (staged,) = sink.settings.stage().apply([record(zlib.compress(b"a"))]).records  # type: ignore[union-attr]
    assert (staged.body, staged.decoded()) == (b"a", staged)
