"""`logfan test`: cases that hold, differences for people, and faults of case files."""

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from logfan.stage.sample import is_sampled
from logfan.testing import record
from logfan_sinks.stdout import StdoutSink

CONFIG = """
[plugins]
directories = []
[rabbitmq]
url_file = "away"
[exchange]
name = "events"
[sinks.archive]
kind = "stdout"
[sinks.alerts]
kind = "of a package that is not here"
url = "http://127.0.0.1:1"
where = { level = ["error", "critical"], routing_key = { prefix = "shop." } }
redact = { paths = ["user.email", "headers.authorization"], patterns = ["card"] }
[sinks.numbers]
kind = "stdout"
where = { n = { above = 3 } }
on_error = "drop"
[sinks.few]
kind = "stdout"
sample = 0.5
[sinks.joined]
kind = "stdout"
redact = { paths = ["user.email"], hash = true, key_file = "away" }
"""
GOOD = """
[[cases]]
name = "an order"
[cases.record]
json = { level = "ERROR", user = { email = "ann@example.org" }, at = 2026-01-02T03:04:05Z }
routing_key = "shop.orders"
headers = { authorization = "Bearer x", hosts = ["a", "b"] }
properties = { content_type = "application/json", timestamp = 5 }
[cases.sinks]
alerts = { json = { user = { email = "[redacted]" } }, headers = { authorization = "[redacted]" } }
archive = { json = { at = 2026-01-02T03:04:05Z }, headers = { hosts = ["a", "b"] } }
numbers = "filtered"
joined = { json = { user = { email = "HASH" } } }

[[cases]]
name = "text"
record = { text = "4111 1111 1111 1111", headers = {}, exchange = "logs" }
sinks = { alerts = "filtered", archive = "kept", numbers = "filtered" }

[[cases]]
name = "bytes"
record = { base64 = "/wD+" }
sinks.archive = { base64 = "/wD+", text = "\\\\xff\\u0000\\\\xfe" }

[[cases]]
name = "one of the sample"
record = { text = "a", properties = { message_id = "1" } }
sinks.few = "FEW"
"""
HASH = blake2b(b"ann@example.org", key=b"test", digest_size=16).hexdigest()

DROPPED = next(text for text in "abcdefghijkl" if not is_sampled(record(text), 0.5))


@pytest.fixture(autouse=True)
def _no_sink_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(_: object) -> None:
        raise AssertionError("a sink was opened")

    monkeypatch.setattr(StdoutSink, "open", opens)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)


def judged(*texts: str, **options: Any) -> Result:
    for number, text in enumerate(texts):
        Path(f"cases{number}.toml").write_text(text)
    names = [f"cases{number}.toml" for number in range(len(texts))]
    return CliRunner().invoke(main, ["test", *names], **options)


def case(record: str, sinks: str) -> str:
    return f'[[cases]]\nname = "one"\nrecord = {record}\nsinks = {sinks}\n'


def test_what_is_as_expected_passes_and_does_so_again() -> None:
    kept = is_sampled(record("a", message_id="1"), 0.5)
    text = GOOD.replace("HASH", HASH).replace("FEW", "kept" if kept else "filtered")
    for _ in range(2):
        done = judged(text, case('{ text = "" }', '{ archive = { text = "" } }'))
        assert (done.exit_code, done.stdout) == (0, "5 cases passed\n")


DIFFERENCES = {
    ('{ text = "a" }', '{ archive = "filtered" }'): ("archive", "- filtered", "+ the sink gets it"),
    ('{ text = "a" }', '{ alerts = "kept" }'): ("alerts", "- the sink gets it", "+ filtered, by"),
    ('{ text = "a" }', "{ numbers = {} }"): ("numbers", '+ filtered, by on_error = "drop": where'),
    ('{ text = "DROPPED" }', '{ few = "kept" }'): ("few", "+ filtered, by sample = 0.5"),
    ('{ text = "a\\nb\\nc" }', '{ archive = { text = "a\\nx\\nc" } }'): (
        "archive, text", "    a\n  - x\n  + b\n    c\n",
    ),
    ('{ text = "a" }', '{ archive = { text = "a\\n" } }'): ("archive, text", "    a\n  -\n"),
    ('{ text = "a" }', "{ archive = { json = 1 } }"): ("archive, json", "- 1", "+ no JSON: a"),
    ('{ text = "\\u001b[2J" }', '{ archive = { text = "" } }'): ("archive, text", "+ \\x1b[2J"),
    ("{ json = { a = [1, true] } }", "{ archive = { json = { a = [1, 1] } } }"): (
        "archive, json.a.1", "- 1\n", "+ true\n",
    ),
    ("{ json = { a = [1, 2] } }", "{ archive = { json = { a = [1] } } }"): (
        "archive, json.a", "- [1]\n", "+ [1,2]\n",
    ),
    ("{ json = { a = { b = 1 } } }", "{ archive = { json = { a = { c = 1 } } } }"): (
        "archive, json.a.c", "- 1\n", "+ nothing\n",
    ),
    ('{ text = "a", headers = { h = "x" } }', '{ archive = { headers = { h = "y" } } }'): (
        "archive, headers.h", '- "y"\n', '+ "x"\n',
    ),
    ('{ text = "a" }', '{ archive = { base64 = "Yg==" } }'): (
        "archive, base64", "- Yg==\n", "+ YQ==\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENCES, ids=" ".join)
def test_a_difference_is_shown_where_it_is(what: tuple[str, str]) -> None:
    done = judged(case(what[0].replace("DROPPED", DROPPED), what[1]))
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("failed  cases0.toml: one\n  sink ")
    assert done.stdout.endswith("1 of 1 case failed (- expected, + got)\n")
    shown = done.stdout.replace("\n  ", "\n")
    place, *differing = DIFFERENCES[what]
    assert f"sink {place}\n" in shown
    for one in differing:
        assert one in shown


def test_all_differences_of_all_cases_are_shown_in_colours() -> None:
    one = case('{ text = "a" }', '{ archive = "filtered", alerts = "kept" }')
    other = case('{ text = "a" }', '{ archive = "kept" }')
    done = judged(one + other, one, color=True)
    plain = re.sub("\x1b\\[\\d+m", "", done.stdout)
    assert plain.count("failed  cases") == 2
    assert plain.count("  sink ") == 4
    assert plain.endswith("2 of 3 cases failed (- expected, + got)\n")
    assert "\x1b[31m- filtered\x1b[0m" in done.stdout
    assert "\x1b[32m+ the sink gets it: a\x1b[0m" in done.stdout


FAULTS = {
    "": "cases: there is none; write each as [[cases]] with name, record and sinks",
    "[[case]]\n": 'case: unknown key; did you mean "cases"?',
    "cases = [\n": "is not valid TOML",
    case('{ text = "a", json = 1 }', '{ few = "kept" }'): "cases.0.record: it has one body",
    case("{ headers = {} }", '{ few = "kept" }'): "cases.0.record: it has one body",
    case("{ text = 5 }", '{ few = "kept" }'): "cases.0.record.text = 5: must be a string",
    case('{ base64 = "?" }', '{ few = "kept" }'): 'cases.0.record.base64 = "?": is no base64',
    case('{ txt = "a" }', '{ few = "kept" }'): "cases.0.record.txt: unknown key; did you mean",
    case('{ text = "a", properties = { tmestamp = 1 } }', '{ few = "kept" }'): (
        'cases.0.record.properties.tmestamp: unknown key; did you mean "timestamp"?'
    ),
    case('{ text = "a" }', '{ fwe = "kept" }'): (
        'cases.0.sinks.fwe: the config has no such sink; did you mean "few"?'
    ),
    case('{ text = "a" }', '{ few = "kpet" }'): (
        'cases.0.sinks.few = "kpet": must be "filtered" or "kept", or a table'
    ),
    case('{ text = "a" }', "{ few = { jsn = 1 } }"): (
        'cases.0.sinks.few.jsn: unknown key; did you mean "json"?'
    ),
    case('{ text = "a" }', "{}"): "cases.0.sinks: must not be empty",
    '[[cases]]\nrecord = { text = "a" }\nsinks = { few = "kept" }\n': "cases.0.name: is missing",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_of_a_case_file_is_2_with_its_path_and_the_way_out(text: str) -> None:
    done = judged(text)
    assert done.exit_code == 2, done.output
    assert f"fault  cases0.toml: {FAULTS[text]}" in done.stderr
    assert done.stdout == ""


def test_faults_of_all_files_come_together_and_no_case_is_run() -> None:
    bad = case("{ text = 5 }", '{ few = "kpet" }')
    done = judged(bad, case('{ text = "a" }', '{ archive = "filtered" }'), bad)
    assert done.exit_code == 2
    assert done.stderr.count("fault  ") == 4
    assert "cases2.toml: cases.0.record.text" in done.stderr
    assert done.stdout == ""
    assert CliRunner().invoke(main, ["test", "away.toml"]).exit_code == 2
    assert CliRunner().invoke(main, ["test"]).exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sample = 0.5", "sample = 5", "sinks.few.sample = 5: must be at most 1.0"),
        ("above = 3", "abov = 3", "sinks.numbers.where: n: 'abov' is no condition"),
        ("[sinks.few]", "[sink.few]", 'sink: unknown key; did you mean "sinks"?'),
    ],
)
def test_a_fault_of_the_config_is_78(tmp_path: Path, old: str, new: str, problem: str) -> None:
    (tmp_path / "config.toml").write_text(CONFIG.replace(old, new))
    done = judged(case('{ text = "a" }', '{ archive = "kept" }'))
    assert done.exit_code == 78
    assert f"fault  {problem}" in done.stderr


def test_without_a_sink_it_is_78(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[sinks]\n")
    done = judged(case('{ text = "a" }', '{ archive = "kept" }'))
    assert done.exit_code == 78
    assert "at least one sink is needed" in done.stderr


def test_the_operators_page_shows_cases_that_pass(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "systemd/choose.md").read_text(encoding="utf-8")
    part = page.partition("\n## Try it\n")[0]
    config, cases = re.findall(r"^```toml\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    (tmp_path / "config.toml").write_text(config)
    done = judged(cases)
    assert (done.exit_code, done.stdout) == (0, f"{cases.count('[[cases]]')} cases passed\n")
