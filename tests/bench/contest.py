"""One measurement: fill the queue, start a contestant, watch the queue, verify."""

import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bench import bodies, entrants
from bench.clocks import machine_busy
from bench.entrants import Start
from bench.process import Process
from bench.results import Case, Drain
from bench.stage import LOOK_SECONDS, Stage

_SAMPLE_SECONDS = 0.005
_STALL_SECONDS = 60.0
TROUBLES = (RuntimeError, AssertionError, OSError, subprocess.SubprocessError)
"""What goes wrong in one measurement and does not end the others."""


class ContestFailed(Exception):
    """A contestant broke down or lost messages; the text says which and how."""


def drain(stage: Stage, case: Case) -> Drain:
    """Measure it once. Raises ContestFailed."""
    with own_folder(stage) as folder:
        start = entrants.start_of(case.entrant, stage, folder, case.prefetch, case.count)
        try:
            stage.fill(case.queue, case.count, case.size, case.shape)
            return _drain(stage, case, start, folder)
        except TROUBLES as error:
            raise ContestFailed(f"{case}: {error}") from None


@contextmanager
def own_folder(stage: Stage) -> Iterator[Path]:
    """A folder for one contestant, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="contest-", dir=stage.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _drain(stage: Stage, case: Case, start: Start, folder: Path) -> Drain:
    busy, own = machine_busy(), time.process_time()
    with Process(start, folder) as process:
        begin, end = watch(stage, process, case.count)
        took = time.time() - process.started
        busy, own = machine_busy() - busy, time.process_time() - own
        known = own + process.cpu.at(end) + stage.broker.whole
        memory = process.memory_kib()
        counted = counted_at(start.port) if start.port else case.count
        code = process.stop()
        if entrants.is_logfan(case.entrant) and code:
            raise RuntimeError(f"it ended with {code}: {process.log()}")
    verify(start.files, case.count)
    if counted != case.count:
        raise RuntimeError(f"its metrics sink counted {counted} of {case.count} messages")
    return Drain(
        case=case,
        seconds=max(end - begin, LOOK_SECONDS),
        cpu_seconds=process.cpu.between(begin, end),
        broker_cpu_seconds=stage.broker.between(begin, end),
        memory_kib=memory,
        start_seconds=begin - process.started,
        start_cpu_seconds=process.cpu.at(begin),
        others_share=max(0.0, busy - known) / (took * (os.cpu_count() or 1)),
    )


class Watched(Protocol):
    """What is looked at while the queue empties: one process, or several."""

    def sample(self) -> None:
        """Note its processor time. Raises RuntimeError where it has ended."""

    def log(self) -> str:
        """The end of what it wrote."""


def watch(stage: Stage, process: Watched, count: int) -> tuple[float, float]:
    """When the first message was delivered, and when the broker had the last ack."""
    observer = stage.observer
    progress, last = time.monotonic(), -1
    stage.broker.forget()
    while True:
        process.sample()
        stage.broker.sample()
        look = observer.read()
        if look is not None and look.messages == 0:
            break
        if look is not None and look.messages != last:
            progress, last = time.monotonic(), look.messages
        if time.monotonic() - progress > _STALL_SECONDS:
            raise RuntimeError(f"{last} messages are left and nothing moves: {process.log()}")
        time.sleep(_SAMPLE_SECONDS)
    process.sample()
    stage.broker.sample()
    begin = next(look.at for look in observer.looks if look.ready < count)
    end = next(look.at for look in observer.looks if look.messages == 0)
    return begin, end


def verify(files: list[Path], count: int) -> None:
    """Every file holds every message, once. Raises RuntimeError."""
    for path in files:
        with path.open("rb") as file:
            lines, distinct = bodies.seen(file, count)
        if (lines, distinct) != (count, count):
            raise RuntimeError(
                f"{path.name} holds {lines} lines with {distinct} of {count} messages: "
                + ("lost" if distinct < count else "duplicated")
            )


def counted_at(port: int, name: str = entrants.COUNTED) -> int:
    """The sum of all series of a metric; by default how many messages the metrics sink has seen."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return int(sum(float(value) for value in values))
