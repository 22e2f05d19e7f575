"""The daemon's own log: readable, and nothing in it can be forged."""

import json
import logging
import logging.config
import os
import re
import select
from collections.abc import Callable, Iterator

import pytest

from logfan.telemetry import log_output


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.disable(logging.NOTSET)
    for known in root.manager.loggerDict.values():
        if isinstance(known, logging.Logger):
            known.disabled = False


def test_text_has_the_time_in_utc_the_level_and_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_output.configure("info", "text", environ={})
    logging.getLogger("logfan.x").warning("a\nforged \x1b[2J line")
    logging.getLogger("logfan.x").debug("not logged")
    text = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z warning a\\nforged \\x1b\[2J line\n", text), text


def test_json_is_an_object_a_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log_output.configure("info", "json", environ={})
    try:
        int("a \udc80 bug")
    except ValueError:
        logging.getLogger("logfan.x").exception("it %s", "broke")
    entry = json.loads(capsys.readouterr().err)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "logfan.x", "it broke")
    assert "ValueError" in entry["traceback"]


SILENCED: dict[str, Callable[[], None]] = {
    "disable": lambda: logging.disable(logging.CRITICAL),
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "a root of its own": lambda: logging.config.dictConfig({"version": 1, "root": {}}),
    "basicConfig": lambda: logging.basicConfig(force=True, level=logging.CRITICAL),
    "the root's level": lambda: logging.getLogger().setLevel(logging.CRITICAL),
}


@pytest.mark.parametrize("how", SILENCED)
def test_what_a_plugin_silences_is_heard_again(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("logfan.x")
    log_output.configure("info", "text", environ={})
    assert not log_output.keep()
    SILENCED[how]()
    assert log_output.keep()
    assert not log_output.keep()
    log.info("heard")
    assert "info    heard\n" in capsys.readouterr().err


def test_what_a_plugin_silenced_before_is_set_up_anew(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("logfan.x")
    logging.config.dictConfig({"version": 1})
    logging.disable(logging.CRITICAL)
    log_output.configure("info", "text", environ={})
    log.info("heard")
    assert "info    heard\n" in capsys.readouterr().err


class Hostile(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_raises_whatever_it_is_made_of(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_output.configure("info", form, environ={})
    log = logging.getLogger("logfan.sink.x")
    error = Hostile()
    log.warning("with a traceback", exc_info=error)
    log.warning("%s", error)
    log.warning(error)
    log.warning("a bad %d format", "x")
    written = capsys.readouterr().err
    assert "Hostile (its text cannot be read)" in written
    assert "this line cannot be put together: SystemExit: 3" in written
    assert "a bad %d format (this line cannot be put together: TypeError" in written
    assert "Logging error" not in written


def test_a_traceback_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    log_output.configure("info", "text", environ={})
    error = ValueError("x" * (10 << 20))
    logging.getLogger("logfan.x").error("it broke", exc_info=error)
    assert len(capsys.readouterr().err) < 32 << 10


def test_under_journald_each_line_has_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read) as reader:
        monkeypatch.setattr("sys.stderr", stream)
        status = os.fstat(stream.fileno())
        log_output.configure(
            "info", "text", environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        )
        logging.getLogger("logfan.x").error("it broke")
        stream.flush()
        assert reader.readline() == "<3>it broke\n"


def test_where_nobody_reads_it_lines_are_counted_and_no_thread_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_output, "_PATIENCE_SECONDS", 0.01)
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read, "rb", buffering=0) as reader:
        monkeypatch.setattr("sys.stderr", stream)
        log_output.configure("info", "text", environ={})
        log = logging.getLogger("logfan.x")
        written = 0
        while select.select([], [stream], [], 0)[1]:
            log.error("%s %d", "x" * 7000, written, extra={"traceback": "é" * 3000})
            written += 1
            assert written < 60, "the log's own bound is not what ends this"
        log.error("lost")
        text = reader.read(1 << 20)
        log.error("seen")
        text += reader.read(1 << 20)
        lines = text.decode().splitlines()
        assert re.search(r"warning standard error was not read: \d lines of this log", lines[-2])
        assert lines[-1].endswith("error   seen")
        assert "lost" not in lines[-3]


def test_of_pika_only_warnings_are_heard_in_debug(capsys: pytest.CaptureFixture[str]) -> None:
    log_output.configure("debug", "text", environ={})
    logging.getLogger("pika.connection").info("a frame")
    logging.getLogger("pika.connection").warning("a surprise")
    logging.getLogger("logfan.x").debug("ours")
    shown = capsys.readouterr().err
    assert "a frame" not in shown
    assert "a surprise" in shown
    assert "ours" in shown


def test_pika_is_heard_only_in_debug(capsys: pytest.CaptureFixture[str]) -> None:
    log_output.configure("info", "text", environ={})
    logging.getLogger("pika.connection").error("inside")
    assert capsys.readouterr().err == ""
