"""The last warnings of the log, whatever plugins put into them."""

import logging
import threading

import pytest

from logfan.telemetry.troubles import KEPT, Troubles


@pytest.fixture
def log() -> logging.Logger:
    logger = logging.Logger("one")  # noqa: LOG001 - none of the process's own
    logger.addHandler(Troubles())
    return logger


def kept(log: logging.Logger) -> list[tuple[str, str, int]]:
    handler = log.handlers[0]
    assert isinstance(handler, Troubles)
    return [(one.level, one.text, one.count) for one in handler.last]


def test_warnings_and_above_are_kept_the_newest_last(log: logging.Logger) -> None:
    log.info("all is well")
    log.warning("sink %s is down", "a")
    log.error("it is worse")
    assert kept(log) == [("warning", "sink a is down", 1), ("error", "it is worse", 1)]


def test_only_the_last_are_kept(log: logging.Logger) -> None:
    for number in range(50):
        log.warning("trouble %s", "x" * number)
    assert len(kept(log)) == KEPT
    assert kept(log)[-1] == ("warning", "trouble " + "x" * 49, 1)


def test_one_line_that_comes_ever_again_does_not_push_out_the_others(log: logging.Logger) -> None:
    log.warning("something else")
    for number in range(1000):
        log.warning("cannot write record %d", number)
    assert kept(log) == [
        ("warning", "something else", 1), ("warning", "cannot write record 999", 1000),
    ]  # fmt: skip


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_foreign_text_is_guarded(log: logging.Logger) -> None:
    log.warning("%s", Hostile())
    log.warning("at amqp://bob:s3cret@host/ \x1b[2J half \ud800 of it\n%s", "x" * 100_000)
    (_, first, _), (_, second, _) = kept(log)
    assert "cannot be put together" in first
    assert "s3cret" not in second
    assert "\x1b" not in second
    assert len(second.encode()) < 1000


def test_it_may_be_read_while_others_log(log: logging.Logger) -> None:
    def write() -> None:
        for number in range(3000):
            log.warning("%s", "y" * (number % 40))

    writers = [threading.Thread(target=write) for _ in range(3)]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        assert len(kept(log)) <= KEPT
    assert len(kept(log)) == KEPT
