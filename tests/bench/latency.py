"""From publish to durable and acknowledged, at a given rate.

The publisher stamps each body. The daemon is a real one, started by `bench.stamped`, which notes
when each acknowledgement goes out. There is one raw file sink, one channel and one order: line n of
the file is delivery tag n, so the two lists together give each message's time.
"""

import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bench import entrants
from bench.bodies import stamp_of
from bench.contest import TROUBLES, ContestFailed, own_folder, verify
from bench.entrants import Start
from bench.process import Process
from bench.results import Latency, quantile
from bench.stage import QUEUE, TESTS, Stage
from support.broker import channel

_PREFETCH = 4000
_SIZE = 200
_FLOW_RATE = 20_000
_WAIT_SECONDS = 90.0


Beside = Callable[[Start], AbstractContextManager[object]]
"""What runs beside the daemon that was started so."""


def measure(
    stage: Stage,
    rate: float,
    seconds: float,
    label: str,
    beside: Beside = nullcontext,
    exchange: str = "",
) -> Latency:
    """Publish `rate` messages a second for so long, and see when each is done."""
    count = max(1, int(rate * seconds))
    with own_folder(stage) as folder:
        try:
            return _measure(stage, folder, rate, count, label, beside, exchange)
        except TROUBLES as error:
            raise ContestFailed(f"latency at {label}: {error}") from None


def _measure(
    stage: Stage,
    folder: Path,
    rate: float,
    count: int,
    label: str,
    beside: Beside,
    exchange: str,
) -> Latency:
    stage.declare("classic")
    start = _stamped(stage, folder)
    with Process(start, folder) as process:
        _wait(process, lambda: _is_consumed(stage))
        stage.observer.forget()
        with beside(start):
            sent, left = _publish(stage, process, count, rate, exchange)
            _wait(process, lambda: _is_empty(stage))
        code = process.stop()
        if code:
            raise RuntimeError(f"it ended with {code}: {process.log()}")
    verify(start.files, count)
    times = times_of(start.files[0], folder / "acks", count)
    return Latency(
        entrant=entrants.ONE, asked=rate, sent=count / sent, count=count, label=label,
        p50=quantile(times, 0.5), p99=quantile(times, 0.99), p999=quantile(times, 0.999),
        worst=times[-1], left=left,
    )  # fmt: skip


def flow(stage: Stage, seconds: float) -> float:
    """Messages a second that go all the way while they are published as fast as the broker takes
    them: what publisher, broker and daemon reach together on this machine."""
    with own_folder(stage) as folder:
        stage.declare("classic")
        start = entrants.logfan(entrants.ONE, stage.node.url, folder, _PREFETCH)
        with Process(start, folder) as process:
            _wait(process, lambda: _is_consumed(stage))
            stage.observer.forget()
            began = time.monotonic()
            count = int(_FLOW_RATE * seconds)
            _publish(stage, process, count, 0.0)
            _wait(process, lambda: _is_empty(stage))
            took = time.monotonic() - began
            process.stop()
        verify(start.files, count)
    return count / took


def _stamped(stage: Stage, folder: Path) -> Start:
    start = entrants.logfan(entrants.ONE, stage.node.url, folder, _PREFETCH)
    command = [sys.executable, "-m", "bench.stamped", str(folder / "acks"), *start.command[1:]]
    return Start(command, {**start.environ, "PYTHONPATH": str(TESTS)}, start.files)


def _publish(
    stage: Stage, process: Process, count: int, rate: float, exchange: str = ""
) -> tuple[float, int]:
    """The seconds it took the publisher, and what was in the queue when it was done."""
    seconds = count / rate if rate else 0.0
    with subprocess.Popen(
        stage.filler(count, _SIZE, rate, exchange), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, cwd=TESTS, text=True,
    ) as publisher:  # fmt: skip
        try:
            _wait(process, lambda: publisher.poll() is not None, seconds)
        finally:
            publisher.kill()
        output, complaint = publisher.communicate()
    look = stage.observer.read()
    if publisher.returncode:
        raise RuntimeError(f"the publisher failed: {complaint.strip()[-500:]}")
    return float(output), look.messages if look else 0


def _is_consumed(stage: Stage) -> bool:
    with channel(stage.node.url) as open_channel:
        return bool(open_channel.queue_declare(QUEUE, passive=True).method.consumer_count)


def _is_empty(stage: Stage) -> bool:
    look = stage.observer.read()
    return look is not None and look.messages == 0


def _wait(process: Process, condition: Callable[[], bool], seconds: float = 0.0) -> None:
    """Wait until it holds; raises RuntimeError where the daemon ends, or much later."""
    deadline = time.monotonic() + seconds + _WAIT_SECONDS
    while not condition():
        process.sample()
        if time.monotonic() > deadline:
            raise RuntimeError(f"it took too long: {process.log()}")
        time.sleep(0.02)


def times_of(file: Path, acks: Path, count: int) -> list[float]:
    """Each message's milliseconds, sorted. `file`: what the sink holds; `acks`: tags and times."""
    pairs = array("q")
    pairs.frombytes(acks.read_bytes())
    tags, moments = pairs[::2], pairs[1::2]
    if len(tags) == 0 or tags[-1] != count:
        raise RuntimeError(f"the last ack is not the one of message {count}")
    times: list[float] = []
    ack = 0
    with file.open("rb") as lines:
        for tag, line in enumerate(lines, 1):
            while tags[ack] < tag:
                ack += 1
            times.append((moments[ack] - stamp_of(line)) / 1e6)
    return sorted(times)
