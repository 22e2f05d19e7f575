"""The sink `stdout`: one line a message, whatever standard output is, and nothing forged."""

import os
import pty
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan import Record, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks import formats, stdout
from logfan_sinks.stdout import StdoutSink
from support.files import file_size_limit


class Output:
    """Standard output as a pipe or a terminal, and what came out of it."""

    def __init__(self, read: int, write: int) -> None:
        self.read_end = read
        self.stream = os.fdopen(write, "w")

    def text(self) -> str:
        os.set_blocking(self.read_end, False)
        got, seconds = b"", 0.05 if os.isatty(self.read_end) else 0  # a terminal takes a moment
        while not got or select.select([self.read_end], [], [], seconds)[0]:
            select.select([self.read_end], [], [], 10)
            got += os.read(self.read_end, 1 << 20)
        return got.decode()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    yield from _output(monkeypatch, *os.pipe())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield from _output(monkeypatch, *pty.openpty())


def _output(monkeypatch: pytest.MonkeyPatch, read: int, write: int) -> Iterator[Output]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    output = Output(read, write)
    monkeypatch.setattr("sys.__stdout__", output.stream)
    yield output
    os.close(output.read_end)
    output.stream.close()


def sink(**options: str) -> StdoutSink:
    built = StdoutSink(StdoutSink.Config.model_validate(options))
    built.open()
    return built


def test_text_in_a_pipe_is_the_body(pipe: Output) -> None:
    sink().write([record("info: Hello World!"), record('{"message": "hi"}')])
    assert pipe.text() == 'info: Hello World!\n{"message": "hi"}\n'


def test_text_on_a_terminal_has_a_coloured_level_and_the_message(terminal: Output) -> None:
    body = {"level": "error", "message": "no disk", "disk": "sda", "free": 0}
    sink().write([record(body, routing_key="shop")])
    text = terminal.text()
    assert "\x1b[31merror   \x1b[0m shop no disk disk=sda free=0" in text


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("error: it broke", "error"), ("[warn] hot", "warning"), ("info: x", "info"),
        ('{"severity": "FATAL", "msg": "x"}', "critical"), ('{"lvl": "debug"}', "debug"),
        ("2026-11-26 00:13:53,181 - mqlogger - ERROR - x", "error"), ('{"level": 50}', "error"),
        ("\x1b[31mERRO\x1b[0m[0000] x", "error"), ('{"log.level": "WARN"}', "warning"),
    ],
)  # fmt: skip
def test_the_level_is_found_where_publishers_put_it(terminal: Output, body: str, name: str) -> None:
    sink(colour="never").write([record(body)])
    assert re.match(rf"\d\d:\d\d:\d\d {name} ", terminal.text())


@pytest.mark.parametrize("body", ["hello", '{"level": "great"}', '{"a": 1}', "Notes: x", "[1]"])
def test_a_level_that_is_not_found_is_none(terminal: Output, body: str) -> None:
    sink(colour="never").write([record(body)])
    assert re.match(rf"\d\d:\d\d:\d\d {' ' * 8} ", terminal.text())


def test_a_level_outside_of_the_body_is_shown(terminal: Output) -> None:
    sink(colour="never").write([
        record("x", headers={"level": "ERROR"}), record("y", routing_key="logback.WARN")
    ])  # fmt: skip
    lines = terminal.text().splitlines()
    assert lines[0].endswith(" error    x")
    assert lines[1].endswith(" warning  logback.WARN y")


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (record({"user": 7, "msg": "it failed\n", "ok": "a b"}), 'it failed user=7 ok="a b"'),
        (record({"@m": "x", "@l": "Error", "@t": "soon"}), "x"),
        (record({"fields": {"message": "x"}, "target": "app"}), "x target=app"),
        (record(b"", headers={"MESSAGE": "it failed", "HOST": "a"}), "it failed"),
        (record(b"", headers={"name": "q", "vhost": "/"}), "name=q vhost=/"),
        (record("text\n"), "text"),
        (record("\ufefftext"), "text"),
    ],
)  # fmt: skip
def test_the_message_comes_first_then_the_other_fields(
    terminal: Output, one: Record, line: str
) -> None:
    sink(colour="never").write([one])
    assert terminal.text()[18:] == f"{line}\r\n"


NOON = 1_795_651_200


@pytest.mark.parametrize(
    ("body", "properties", "received_at", "shown"),
    [
        ({"msg": "x", "ts": NOON + 0.5}, {}, NOON + 1.4, ""),
        ({"msg": "x", "ts": NOON + 0.5}, {}, NOON + 1.6, " time=2026-11-26T00:00:00.500Z"),
        ({"msg": "x", "ts": NOON + 0.5}, {}, NOON - 0.6, " time=2026-11-26T00:00:00.500Z"),
        ("x", {"timestamp": NOON}, NOON + 1.9, ""),
        ("x", {"timestamp": NOON}, NOON + 2.1, " time=2026-11-26T00:00:00.000Z"),
        ("x", {"timestamp": NOON * 1000}, NOON + 9, " time=2026-11-26T00:00:00.000Z"),
        ("x", {"timestamp": NOON}, NOON - 1.1, " time=2026-11-26T00:00:00.000Z"),
        ("x", {}, NOON, ""),
    ],
)
def test_the_publishers_time_is_shown_where_it_is_another(
    terminal: Output, body: Any, properties: dict[str, Any], received_at: float, shown: str
) -> None:
    sink(colour="never").write([record(body, received_at=received_at, **properties)])
    assert terminal.text()[18:] == f"x{shown}\r\n"


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_a_terminal_without_colour_gets_none(
    terminal: Output, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "dumb")
    sink().write([record("error: x")])
    assert "\x1b" not in terminal.text()


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("kind", sorted(set(hostile_records()) - {"large", "deep json"}))
def test_no_control_character_of_a_message_comes_through(
    terminal: Output, kind: str, form: str
) -> None:
    sink(format=form, colour="never").write([hostile_records()[kind]])
    text = terminal.text()
    assert text.endswith("\r\n")
    assert text[:-2].isprintable()


def test_a_raw_body_is_kept_off_a_terminal(terminal: Output) -> None:
    with pytest.raises(SinkUnavailable, match="could drive the terminal"):
        sink(format="raw")


def test_raw_in_a_pipe_is_the_bytes(pipe: Output) -> None:
    sink(format="raw").write([record(b"a\x1b[2J")])
    assert pipe.text() == "a\x1b[2J\n"


def test_under_journald_each_line_has_a_priority_of_its_own(
    pipe: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat(pipe.stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    sink().write([
        record("<0>boom"), record("error: x"), record("a\nb"), record({"level": "notice"}),
        record("x", headers={"severity": "crit"}), record("x", routing_key="app.debug"),
    ])  # fmt: skip
    assert pipe.text() == ('<2><0>boom\n<3>error: x\n<6>a\\nb\n<6>{"level":"notice"}\n<2>x\n<7>x\n')


@pytest.mark.parametrize("form", ["raw", "text", "json"])
def test_under_journald_no_part_of_a_body_sets_its_own_priority(
    pipe: Output, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """It begins an entry at a line break, at a NUL, and after 48 KiB."""
    status = os.fstat(pipe.stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    built = sink(format=form)
    for body in (b"a\n<0>b\0<0>c\n", b"<0>" * 30_000, "<0>é".encode() * 10_000, b"\0<0>" * 9_000):
        writer = threading.Thread(target=built.write, args=([record(body)],))
        writer.start()
        got = b""
        while writer.is_alive() or select.select([pipe.read_end], [], [], 0)[0]:
            if select.select([pipe.read_end], [], [], 0.05)[0]:
                got += os.read(pipe.read_end, 1 << 20)
        entries = [part[: 48 << 10] for part in re.split(rb"[\n\0]", got) if part]
        # `<0>` at the start of a text is syslog's way to write its level; still no emergency.
        prefix = b"<2>" if body.startswith(b"<0>") else b"<6>"
        assert all(entry.startswith(prefix) for entry in entries)
        assert all(len(part) < 48 << 10 for part in re.split(rb"[\n\0]", got))
        got.decode()
        if form == "raw" and b"\0" not in body:
            assert b"".join(entry[3:] for entry in entries) == body


def test_a_raw_body_of_several_lines_is_so_many_entries(
    pipe: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat(pipe.stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    sink(format="raw").write([record("error: a\n<0>b\n"), record("")])
    assert pipe.text() == "<3>error: a\n<3><0>b\n<6>\n"


@pytest.mark.parametrize("form", ["raw", "text", "json"])
@pytest.mark.parametrize("kind", sorted(set(hostile_records()) - {"large", "deep json"}))
def test_a_long_line_is_the_same_in_pieces(
    pipe: Output, monkeypatch: pytest.MonkeyPatch, form: str, kind: str
) -> None:
    built, one = sink(format=form), hostile_records()[kind]
    os.set_blocking(pipe.read_end, False)
    built.write([one])
    whole = os.read(pipe.read_end, 1 << 20)
    monkeypatch.setattr(formats, "LONG_BODY_BYTES", -1)
    monkeypatch.setattr(stdout, "_PIECE_BYTES", 5)
    built.write([one])
    assert os.read(pipe.read_end, 1 << 20) == whole


def test_a_long_line_on_a_terminal_has_its_level_and_time(
    terminal: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LONG_BODY_BYTES", -1)
    sink(colour="never").write([record("error: it \x1b broke\n", routing_key="shop")])
    assert re.fullmatch(r"\d\d:\d\d:\d\d error    shop error: it \\x1b broke\r\n", terminal.text())


def test_a_reader_that_went_away_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr("sys.__stdout__", stream)
        built = sink()
        os.close(read)
        with pytest.raises(SinkUnavailable, match="no program reads standard output any more"):
            built.write([record("x")])


@pytest.mark.parametrize("long", [False, True])
def test_after_a_full_disk_each_record_has_a_whole_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, long: bool
) -> None:
    if long:
        monkeypatch.setattr(formats, "LONG_BODY_BYTES", -1)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    file = tmp_path / "out"
    records = [record("a" * 30), record("b" * 30)]
    with file.open("w") as stream:
        monkeypatch.setattr("sys.__stdout__", stream)
        built = sink()
        with file_size_limit(40), pytest.raises(SinkUnavailable, match="File too large"):
            built.write(records)
        sink().write(records)  # after a reload it is another one
        sink().write(records)
    whole = ["a" * 30, "b" * 30]
    assert file.read_text().splitlines() == ["a" * 30, "b" * 9, *whole, *whole]


@pytest.mark.parametrize("long", [False, True])
def test_two_sinks_on_one_pipe_leave_lines_whole(
    pipe: Output, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    if long:
        monkeypatch.setattr(formats, "LONG_BODY_BYTES", -1)
        monkeypatch.setattr(stdout, "_PIECE_BYTES", 100)
    lines = {letter * 999 for letter in "abc"}

    def write(line: str) -> None:
        built = sink()
        for _ in range(10):
            built.write([record(line)] * 50)

    writers = [threading.Thread(target=write, args=(line,)) for line in lines]
    for writer in writers:
        writer.start()
    got = b""
    while got.count(b"\n") < 1500:
        got += os.read(pipe.read_end, 5000)
    for writer in writers:
        writer.join(60)
    assert set(got.decode().splitlines()) == lines


def test_a_slow_reader_of_a_non_blocking_pipe_gets_everything(pipe: Output) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    built = sink()
    size = 1 << 20
    writer = threading.Thread(target=built.write, args=([record(b"x" * size)],))
    writer.start()
    got = 0
    while got <= size:
        got += len(os.read(pipe.read_end, 4096))
    writer.join(60)
    assert got == size + 1
