"""Fields in the file sink's path: what they become, and that no message leaves its folder."""

import os
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import logfan
from logfan.config.loader import prepare
from logfan_sinks.file import FileSink
from logfan_sinks.file.paths import PathTemplate, safe_name
from support.files import NOON, deliver, opened, record

HOSTILE = [
    "..", ".", "../../etc/passwd", "/etc/passwd", "a/../../b", "", "\0", "a\0b", "a\nb", "\x1b[2J",
    ".hidden", "...", "~root", "-rf", "x" * 300, "é" * 200, "\u202egnp.exe", "\ud800", "a" * 60_000,
    "CON", " ", "\u200b", "a\\..\\b", "app.log.20261124T101500.123456Z", "{date}", "%2e%2e%2f",
]  # fmt: skip


KEEP_HELP = "a number of files, such as 14, or an age, such as '30d'"


def template(text: str) -> PathTemplate:
    return PathTemplate(text, instance="blue", host="web-1")


def test_each_field_has_its_value() -> None:
    message = record(
        '{"app": {"name": "shop", "tags": ["new"]}}', routing_key="eu.web", headers={"tenant": "t1"}
    )
    path = template(
        "{date}/{hour}/{host}/{instance}/{routing_key}/{headers.tenant}/{json.app.name}"
        "/{json.app.tags.0}.log"
    )
    assert path.of(message) == "2026-11-24/12/web-1/blue/eu.web/t1/shop/new.log"


@pytest.mark.parametrize(
    ("field", "message", "part"),
    [
        ("level", record("2026-11-26 00:13:53,181 CRITICAL down"), "critical"),
        ("level", record('{"level": 50}'), "error"),
        ("level", record("plain", headers={"level": "WARN"}), "warning"),
        ("level", record("plain", routing_key="logback.ERROR"), "error"),
        ("level", record("plain"), "_"),
        ("level", record('{"level": "great"}'), "_"),
        ("json.level", record('{"level": "ERROR"}'), "ERROR"),
        ("json.log.level", record('{"log.level": "ERROR", "log": {"level": "x"}}'), "ERROR"),
        ("json.log.level", record('{"log": {"level": "ERROR"}}'), "ERROR"),
        ("headers.a.b", record("x", headers={"a.b": "flat"}), "flat"),
        ("headers.a.b", record("x", headers={"a": {"b": "deep"}}), "deep"),
    ],
)  # fmt: skip
def test_a_field_is_read_as_everywhere(field: str, message: logfan.Record, part: str) -> None:
    assert template(f"{{{field}}}.log").of(message) == f"{part}.log"


def test_date_and_hour_are_those_of_the_receipt_in_utc() -> None:
    path = template("{date}T{hour}")
    assert path.at(NOON + 11 * 3600 + 3599.999) == "2026-11-24T23"
    assert path.at(NOON + 12 * 3600) == "2026-11-25T00"
    assert path.of(record("x", received_at=NOON - 12 * 3600 - 0.001)) == "2026-11-23T23"


def test_an_empty_instance_is_called_main() -> None:
    assert PathTemplate("{instance}", instance="").at(NOON) == "main"


def test_braces_in_a_value_are_not_filled_in_again() -> None:
    path = PathTemplate("{instance}/{routing_key}", instance="{host}", host="web-1")
    assert path.of(record("x", routing_key="{date}")) == "{host}/{date}"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("headers.tenant", record("x")),
        ("headers.tenant", record("x", headers={"tenant": None})),
        ("headers.tenant", record("x", headers={"tenant": {"a": 1}})),
        ("headers.tenant", record("x", headers={"tenant": ("a", "b")})),
        ("json.app.name", record("no json")),
        ("json.app.name", record('{"app": "no table"}')),
        ("json.app.name", record("[" * 100_000)),
        ("json.5.name", record("[1, 2]")),
        ("json.²", record("[1, 2, 3]")),
        ("routing_key", record("x", routing_key="")),
    ],
)
def test_a_message_without_the_value_goes_to_an_underscore(
    field: str, message: logfan.Record
) -> None:
    assert template(f"logs/{{{field}}}.log").of(message) == "logs/_.log"


@pytest.mark.parametrize(
    ("value", "name"),
    [(True, "true"), (5, "5"), (2.5, "2.5"), (b"bytes", "bytes"), (b"\xff", "\ufffd")],
)
def test_plain_values_of_other_types_are_written_out(value: object, name: str) -> None:
    assert safe_name(value) == name


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_routing_key_stays_in_its_folder(tmp_path: Path, value: str) -> None:
    (tmp_path / "logs").mkdir()
    with opened(tmp_path / "logs/{routing_key}/{headers.name}.log") as sink:
        deliver(sink, [record("x", routing_key=value, headers={"name": value})])
    written = [Path(folder) / name for folder, _, names in os.walk(tmp_path) for name in names]
    assert len(written) == 1
    assert written[0].read_bytes() == b"x\n"
    assert len(written[0].relative_to(tmp_path / "logs").parts) == 2
    assert not any(part.startswith(".") for part in written[0].relative_to(tmp_path).parts)


@given(st.lists(st.text() | st.binary() | st.none(), min_size=4, max_size=4))
def test_no_values_together_make_an_impossible_name(values: list[Any]) -> None:
    headers = dict(zip("abcd", values, strict=True))
    path = template("logs/{headers.a}{headers.b}/{headers.c}.{headers.d}.log").of(
        record("x", headers=headers)
    )
    parts = path.split("/")
    assert len(parts) == 3
    assert all(0 < len(part.encode()) <= 200 and not part.startswith(".") for part in parts)
    assert not any(category(char) in ("Cc", "Cs") for char in path)


def test_long_values_that_differ_at_their_end_get_files_of_their_own() -> None:
    path = template("{routing_key}.log")
    paths = {path.of(record("x", routing_key="x" * 250 + end)) for end in "abc"}
    assert len(paths) == 3
    assert all(path.endswith(".log") and len(path) == 104 for path in paths)
    fields = template("{headers.a}{headers.a}{headers.a}-{headers.b}.log")
    together = {
        fields.of(record("x", headers={"a": "é" * 60, "b": end})) for end in ("1" * 90, "2" * 90)
    }
    assert len(together) == 2


def test_a_message_cannot_pose_as_a_rotated_file() -> None:
    stamp = ".20261124T101500.123456Z"
    path = template("logs/app{routing_key}{headers.rest}").of(
        record("x", routing_key=f"x{stamp[:9]}", headers={"rest": f"{stamp[9:]}.gz"})
    )
    assert stamp not in path


@pytest.mark.parametrize(
    "name", ["config.toml", "Config.TOML", "orjson.py", "_json.PY", "shout.pyc", "a\nb.so"]
)
def test_a_message_cannot_write_a_config_or_code(name: str) -> None:
    """One of the working directory would be read or run by the next command that runs there."""
    safe = name.replace("\n", "_")
    whole = template("{routing_key}").of(record("x", routing_key=name))
    parts = template("logs/{headers.a}.{headers.b}").of(
        record("x", headers=dict(zip("ab", name.split("."), strict=True)))
    )
    assert (whole, parts) == (f"{safe}_", f"logs/{safe}_")
    assert template("logs/config.toml.{date}").of(record("x")).startswith("logs/config.toml.")
    assert template("{routing_key}").of(record("x", routing_key="a.pyx")) == "a.pyx"


def test_a_link_among_the_parts_that_messages_decide_on_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/evil").symlink_to(outside)
    (tmp_path / "logs/good").mkdir()
    (tmp_path / "logs/good/evil.log").symlink_to(outside / "file")
    hostile = [
        ("{routing_key}/{headers.name}.log", "evil", "a"),
        ("{routing_key}/{headers.name}.log", "good", "evil"),
        ("{routing_key}/new/{headers.name}.log", "evil", "a"),
    ]
    for path, key, name in hostile:
        message = record(path, routing_key=key, headers={"name": name})
        with opened(tmp_path / "logs" / path) as sink:
            deliver(sink, [message])
        assert "a part of the path is a symbolic link, which is refused (ELOOP)" in caplog.text
        caplog.clear()
        other = path.replace("{routing_key}", "_other").replace("{headers.name}", "_other")
        assert path in (tmp_path / "logs" / other).read_text().splitlines()
    assert list(outside.iterdir()) == []


def test_the_operators_own_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    with opened(tmp_path / "logs/{date}/{routing_key}.log") as sink:
        deliver(sink, [record("x")])
    assert (tmp_path / "disk/2026-11-24/app.log").read_bytes() == b"x\n"


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"path": ""}, "must name a file"),
        ({"path": "logs/"}, "must name a file"),
        ({"path": "a\0b"}, "must name a file"),
        ({}, "required"),
        ({"path": 5}, "valid string"),
        ({"path": "{dat}.log"}, "unknown field {dat}; fields: {date}"),
        ({"path": "{}.log"}, "unknown field {}"),
        ({"path": "{headers}.log"}, "unknown field {headers}"),
        ({"path": "{headers.}.log"}, "unknown field {headers.}"),
        ({"path": "{json}.log"}, "unknown field {json}"),
        ({"path": "{json.a..b}.log"}, "has an empty part"),
        ({"path": "{date:%Y}.log"}, "unknown field {date:%Y}"),
        ({"path": "{Date}.log"}, "unknown field {Date}"),
        ({"path": "{date.log"}, "brace without its partner"),
        ({"path": "date}.log"}, "brace without its partner"),
        ({"path": "{{date}}.log"}, "brace without its partner"),
        ({"path": "a", "format": "jsno"}, "'json', 'text' or 'raw'"),
        ({"path": "a", "fsync": "always"}, "'batch' or 'never'"),
        ({"path": "a", "fsync": True}, "'batch' or 'never'"),
        ({"path": "a", "rotate": {}}, "needs size or every"),
        ({"path": "a", "rotate": {"keep": 3}}, "needs size or every"),
        ({"path": "a", "rotate": "1d"}, "valid dictionary"),
        ({"path": "a", "rotate": {"size": 100}}, "with its unit"),
        ({"path": "a", "rotate": {"size": "0B"}}, "more than nothing"),
        ({"path": "a", "rotate": {"every": "daily"}}, "with its unit"),
        ({"path": "a", "rotate": {"every": "0s"}}, "more than nothing"),
        (
            {"path": "a", "rotate": {"every": "1d", "keep": -1}},
            KEEP_HELP,
        ),
        (
            {"path": "a", "rotate": {"every": "1d", "keep": True}},
            KEEP_HELP,
        ),
        (
            {"path": "a", "rotate": {"every": "1d", "keep": 1.5}},
            KEEP_HELP,
        ),
        (
            {"path": "a", "rotate": {"every": "1d", "keep": "14"}},
            KEEP_HELP,
        ),
        (
            {"path": "a", "rotate": {"every": "1d", "keep": "0d"}},
            KEEP_HELP,
        ),
        ({"path": "a", "rotate": {"every": "1d", "compress": "xz"}}, "'none', 'gzip' or 'zstd'"),
        ({"path": "a", "rotate": {"every": "1d", "kep": 3}}, "not permitted"),
        ({"path": "a", "max_open_files": 0}, "greater than or equal to 1"),
        ({"path": "a", "colour": "auto"}, "not permitted"),
        ({"path": "~/logs/a.log"}, "begins with ~, which a shell expands and logfan does not"),
        ({"path": "~logs/a.log"}, "begins with ~"),
    ],
)
def test_a_wrong_option_is_a_fault_that_says_what_would_be_right(
    options: dict[str, Any], reported: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        FileSink.Config(**options)
    assert reported in str(caught.value).replace('"', "'") or reported in str(caught.value)


@pytest.mark.parametrize(
    ("path", "rotate", "reported"),
    [
        ("x" * 256, None, "has a name of 256 bytes in it; file systems take 255"),
        ("x" * 255, None, None),
        ("é" * 128, None, "has a name of 256 bytes in it"),
        ("x" * 256 + "/a", None, "has a name of 256 bytes in it"),
        ("x" * 231, {"size": "1MiB"}, None),
        ("x" * 232, {"size": "1MiB"}, "255 are allowed, and that leaves no room for the 24"),
        ("x" * 224, {"size": "1MiB", "compress": "gzip"}, "no room for the 32 that rotation adds"),
        ("x" * 223, {"size": "1MiB", "compress": "zstd"}, "no room for the 33 that rotation adds"),
        ("x" * 222, {"size": "1MiB", "compress": "zstd"}, None),
        ("x" * 220 + "{date}", {"size": "1MiB"}, None),
        ("x" * 222 + "{date}", {"size": "1MiB"}, "no room"),
        ("x" * 250 + "{routing_key}", {"size": "1MiB", "compress": "zstd"}, None),
    ],
)  # fmt: skip
def test_a_name_that_no_file_system_takes_is_a_fault(
    path: str, rotate: Any, reported: str | None
) -> None:
    found = FileSink.conflicts({"a": FileSink.Config(path=f"logs/{path}", rotate=rotate)})
    assert (reported in found["a"]) if reported else not found


@pytest.mark.parametrize(
    ("path", "fixed", "warned"),
    [
        ("logs/{routing_key}.log", "logs/errors.log", True),
        ("logs/{routing_key}.log", "./logs//errors.log", True),
        ("logs/{date}/{routing_key}", "logs/2026-11-24/a", True),
        ("logs/{routing_key}.log", "logs/errors.txt", False),
        ("logs/{routing_key}.log", "logs/a/errors.log", False),
        ("logs/{routing_key}.log", "errors.log", False),
        ("logs/{routing_key}.log", "logs/{headers.x}.log", False),
    ],
)
def test_a_path_that_messages_of_another_sink_may_decide_on_is_warned_of(
    path: str, fixed: str, warned: bool
) -> None:
    configs = {"a": FileSink.Config(path=path), "b": FileSink.Config(path=fixed)}
    advice = FileSink.advice(configs)
    assert ("a message may decide on the path of sinks.b" in advice.get("a", "")) is warned


def test_a_variable_of_the_shell_is_warned_of() -> None:
    advice = FileSink.advice({"a": FileSink.Config(path="$HOME/a.log")})
    assert advice["a"] == "$HOME/a.log: $NAME is not expanded, but a folder of that name"


@pytest.mark.parametrize("text", ["./~/a.log", "a~", "logs/~a.log"])
def test_a_tilde_elsewhere_is_a_character_like_others(text: str) -> None:
    assert FileSink.Config(path=text).path == text


def test_the_defaults_are_those_of_the_contract() -> None:
    config = FileSink.Config(path="a", rotate={"every": "1d"})
    assert (config.format, config.fsync, config.max_open_files) == ("json", "batch", 64)
    assert config.rotate is not None
    assert (config.rotate.keep.count, config.rotate.compress) == (14, "none")


def test_two_sinks_on_one_path_are_a_conflict() -> None:
    paths = {"a": "logs/x.log", "b": "./logs//x.log", "c": "logs/y.log", "d": "logs/../logs/x.log"}
    configs = {name: FileSink.Config(path=path) for name, path in paths.items()}
    wrong = FileSink.conflicts(configs)
    assert set(wrong) == {"b", "d"}
    assert "sinks.a" in wrong["b"]


def test_a_rotation_that_never_reaches_earlier_days_is_warned_about(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    rotate = 'rotate = { size = "1MiB" }'
    config.write_text(
        f'[sinks.a]\nkind = "file"\npath = "{{date}}.log"\n{rotate}\n'
        f'[sinks.b]\nkind = "file"\npath = "b.log"\n{rotate}\n'
        '[sinks.c]\nkind = "file"\npath = "{hour}.log"\n'
    )
    reported = [one for one in prepare(config, environ={}).warnings if "sinks." in one]
    assert len(reported) == 1
    assert reported[0].startswith("sinks.a: rotate.keep and rotate.compress do not reach")


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/v/a.log", "/v/a.log", True),
        ("/v/a.log", "/v/axlog", False),
        ("/v/{date}/{hour}.log", "/v/2026-11-24/09.log", True),
        ("/v/{date}/{hour}.log", "/v/yesterday/09.log", False),
        ("/v/{hour}-{headers.h}.log", "/v/09-any.log", True),
        ("/v/{hour}-{headers.h}.log", "/v/any-09.log", False),
        ("/v/{headers.h}.log", "/v/a/b.log", False),
        ("/v/{instance}/../{routing_key}.log", "/v/x.log", True),
    ],
)
def test_which_absolute_paths_a_template_may_give(template: str, path: str, fits: bool) -> None:
    assert bool(PathTemplate(template, instance="").absolute().fullmatch(path)) == fits
