"""The road may not become slower unseen: work is counted, not timed, so chance has no say in it."""

import os
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import astuple, fields
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from guard import today
from guard.counting import Counts
from guard.flood import Flood
from guard.messages import READ_BYTES, RECORDS_A_READ
from guard.one_batch import MARK, RECORDS
from guard.stretches import STRETCHES, calls_a_read
from logfan.amqp import connection
from logfan.amqp.failures import ConnectionFailure
from logfan.config.settings import RabbitmqSettings, Settings, SinkSettings
from logfan.pipeline.completions import Completions
from logfan.pipeline.consumer import Consumer
from logfan.telemetry.metrics import ConsumerStats
from support.tracer import tracer
from support.waiting import wait_until

HINT = """
All counts: PYTHONPATH=tests .venv/bin/python -m guard.show
The table is raised (with --write, in a commit that says why) where the work buys something that
users get: safety, a feature, or less time in `make bench`. Else make the road shorter again."""
FLOOD = 32_000
A_BATCH = {"writev": 1, "fdatasync": 1, "stat": 3}
"""System calls of the sink `file`; a look by name or descriptor is a `stat`."""
CALLS_A_READ = ((False, 17), (True, 18))
"""For a read of whole messages, and for one that cuts a message; with three sinks."""
READS_A_MIB = 24
"""Of 128 KiB they are 8, and some that find nothing: 11.4 today. With pika's own 4 KiB: 256."""


def over(name: str, counts: Counts) -> list[str]:
    """What is more than today's count and the margin."""
    per = STRETCHES[name].per
    return [
        f"{name}: {count} {field.name.replace('_', ' ')} a {per}, and {limit:.2f} is the limit "
        f"(it was {known})"
        for field, count, known in zip(
            fields(Counts), astuple(counts), astuple(today.COUNTS[name]), strict=True
        )
        if count > (limit := known * (1 + today.MARGIN) + today.SLACK)
    ]


def test_the_table_has_each_stretch() -> None:
    assert list(today.COUNTS) == list(STRETCHES)


@pytest.mark.skipif(
    sys.version_info[:2] != today.PYTHON,
    reason="the bytecode of another Python than the table's has other counts",
)
@pytest.mark.parametrize("name", STRETCHES)
def test_a_message_costs_no_more_work_than_it_did(name: str, tmp_path: Path) -> None:
    stretch = STRETCHES[name]
    counts = stretch.count(tmp_path)
    found = over(name, counts)
    if found:
        pytest.fail(
            "\n".join([f"{stretch.what}: more work than before", *found, HINT]), pytrace=False
        )


@pytest.mark.parametrize(("cut", "limit"), CALLS_A_READ)
def test_a_read_calls_few_functions_of_ours(cut: bool, limit: int) -> None:
    calls_a_read(cut=cut)  # all is loaded and known now
    assert calls_a_read(cut=cut) <= limit


@pytest.mark.parametrize("form", ["raw", "json"])
def test_a_batch_is_one_write_one_fdatasync_and_three_looks(form: str, tmp_path: Path) -> None:
    batches = calls_of_batches(form, tmp_path)
    assert len(batches) == -(-RECORDS // RECORDS_A_READ)
    for calls in batches:
        assert calls == A_BATCH, f"format {form}: {dict(calls)} for a batch, not {A_BATCH}"


def calls_of_batches(form: str, folder: Path) -> list[Counter[str]]:
    """The system calls of each batch; those for memory are not counted."""
    program, environ = tracer()
    trace = folder / "trace"
    script = [sys.executable, "-m", "guard.one_batch", form, str(folder / "a.log")]
    done = subprocess.run(
        [program, "-o", str(trace), *script],
        env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    batches: list[Counter[str]] = []
    inside = False
    for line in trace.read_text().splitlines():
        if MARK in line:
            inside = not inside
            if inside:
                batches.append(Counter())
        elif inside and (found := re.match(r"(\w+)\(", line)):
            name = found[1]
            if name in ("brk", "mmap", "munmap", "mremap", "madvise", "mprotect"):
                continue
            is_look = name in ("stat", "fstat", "lstat", "newfstatat", "statx")
            batches[-1]["stat" if is_look else name] += 1
    return batches


class _Reading:
    """How often new threads call `recv_into`."""

    def __init__(self) -> None:
        self.reads = 0

    def look(self, _frame: FrameType, event: str, called: Any) -> None:
        """As `threading.setprofile` calls it."""
        if event == "c_call" and called.__name__ == "recv_into":
            self.reads += 1


class _Nobody:
    """Takes a consumer's reports."""

    def on_subscribed(self) -> None:
        """The flood begins."""

    def on_end(self, failure: ConnectionFailure) -> None:
        raise AssertionError(failure.why)

    def on_fault(self) -> None:
        raise AssertionError("a thread ended")


def reads_of_a_flood() -> float:
    """A real consumer reads all at once what it gets. How many reads a MiB that takes."""
    reading, stats = _Reading(), ConsumerStats()
    with Flood(FLOOD).running() as flood:
        settings = Settings(
            sinks={"a": SinkSettings(kind="nothing")},
            rabbitmq=RabbitmqSettings(urls=[f"amqp://guest:guest@127.0.0.1:{flood.port}/%2F"]),
        )
        ioloop = connection.new_loop()
        consumer = Consumer(
            settings=settings, stats=stats, ioloop=ioloop, events=_Nobody(),
            workers=(),  # each batch is acknowledged at once
            completions=Completions(0, ioloop.add_callback_threadsafe),
        )  # fmt: skip
        before = threading.getprofile()
        threading.setprofile(reading.look)
        consumer.start()
        threading.setprofile(before)
        try:
            wait_until(lambda: stats.acked == FLOOD, "all is acknowledged")
        finally:
            assert consumer.finish(10.0)
        assert 0 < flood.acks <= reading.reads, "more batches than reads"
        return reading.reads / (flood.size / (1 << 20))


def test_a_flood_is_read_in_large_pieces_and_a_read_is_one_batch() -> None:
    # A sender that gets no processor leaves less to be read: of three floods one will do.
    reads = [reads_of_a_flood()]
    while reads[-1] > READS_A_MIB and len(reads) < 3:
        reads.append(reads_of_a_flood())
    assert min(reads) <= READS_A_MIB, (
        f"{min(reads):.1f} reads a MiB, and {READS_A_MIB} are the limit: "
        f"`Connection.receive` asks for {READ_BYTES:,} bytes at a time; does pika still call it?"
    )
