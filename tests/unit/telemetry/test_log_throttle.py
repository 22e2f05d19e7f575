"""One and the same line cannot flood the daemon's log."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from logfan.telemetry import log_output
from logfan.telemetry.log_throttle import BURST, BURST_OF_LOGGER, Throttle
from support.waiting import wait_until

PLUGIN = "logfan_plugin_shout"


class Log:
    """A Throttle with a clock of our own, and what it admits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.throttle = Throttle(lambda: self.now, 60.0)

    def __call__(self, name: str, message: str, *args: object, level: int = logging.INFO) -> bool:
        return self.throttle.admits(
            logging.LogRecord(name, level, "", 0, message, args or None, None)
        )

    def summaries(self) -> list[tuple[str, int, int, str]]:
        return [(u.logger, u.level, u.count, u.last) for u in self.throttle.summaries()]


@pytest.fixture
def admits() -> Log:
    return Log()


@pytest.mark.parametrize("name", ["logfan.pipeline.worker", "logfan_sinks.file", PLUGIN])
def test_a_burst_is_logged_and_what_is_beyond_is_counted_once_a_minute(
    admits: Log, name: str
) -> None:
    assert sum(admits(name, "took %d", n) for n in range(1_000)) == BURST
    assert admits.summaries() == []
    admits.now = 60.0
    assert admits.summaries() == [(name, logging.INFO, 1_000 - BURST, "took 999")]
    assert admits.summaries() == []
    assert sum(admits(name, "took %d", n) for n in range(1_000)) == BURST


def test_rare_lines_of_the_daemon_are_logged_in_the_middle_of_a_flood(admits: Log) -> None:
    for n in range(10_000):
        admits("logfan.pipeline.worker", "sink %s: %s", "a", f"failed {n} times")
        admits(PLUGIN, f"{n:c} of my own" if n > 64 else "x")
    assert admits("logfan.pipeline.worker", "sink %s: %s", "b", "disk full")
    assert admits("logfan.pipeline.worker", "%s", "another word")
    assert admits("logfan.pipeline.consumer", "%s", "the broker is away")
    assert admits(
        "logfan.pipeline.worker", "sink %s: %s", "a", "failed 1 times", level=logging.WARNING
    )


def test_a_plugin_that_makes_a_new_line_of_each_record_has_a_bound_as_well(admits: Log) -> None:
    words = [chr(0x4E00 + n) for n in range(5_000)]
    assert sum(admits(PLUGIN, f"got {word}") for word in words) <= BURST_OF_LOGGER
    admits.now = 60.0
    counts = [count for _, _, count, _ in admits.summaries()]
    assert sum(counts) >= 5_000 - BURST_OF_LOGGER
    assert len(counts) <= 501


def test_what_is_remembered_has_a_bound(admits: Log) -> None:
    for n in range(20_000):
        admits("logfan.x", "%s", chr(0x4E00 + n))
    assert len(admits.throttle._seen_own) <= 600
    assert len(admits.throttle._suppressed) <= 600


def test_a_format_that_does_not_fit_its_arguments_harms_nobody(admits: Log) -> None:
    assert sum(admits(PLUGIN, "got %d", "a word") for _ in range(1_000)) == BURST
    assert admits("logfan.x", "got %d", "a word")


def test_debug_lines_are_all_logged(admits: Log) -> None:
    assert all(admits("pika.x", "frame", level=logging.DEBUG) for _ in range(1_000))


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("_logging_as_it_was")
def test_the_count_is_logged_though_nothing_else_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_output.configure("info", "text", environ={}, window=0.2)
    seen = ""

    def output() -> str:
        nonlocal seen
        seen += capsys.readouterr().err
        return seen

    for n in range(BURST + 7):
        logging.getLogger(PLUGIN).warning("got %d", n)
    wait_until(lambda: "suppressed" in output(), "the count is admits")
    line = next(line for line in seen.splitlines() if "suppressed" in line)
    assert " warning " in line
    assert line.endswith(f" more lines like this were suppressed: got {BURST + 6}")


def test_the_count_is_logged_at_the_end_of_the_process() -> None:
    program = (
        "import logging\nfrom logfan.telemetry import log_output\n"
        "log_output.configure('info', 'json', environ={})\n"
        "for n in range(1060): logging.getLogger('p').error('got %d', n)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    lines = done.stderr.splitlines()
    assert len(lines) == BURST + 1
    assert '"level":"error"' in lines[-1]
    assert "1,000 more lines like this were suppressed: got 1059" in lines[-1]
