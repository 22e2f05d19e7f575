"""One measurement of several daemons at once: on one queue, or each on a queue of its own.

They are set up as `logfan@.service` does it: one config, and an instance's name, port and queue
from its environment. What is measured begins when the last of them is ready, so that all of them
work, and ends with the last acknowledgement on the last queue.
"""

import json
import os
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Self

from bench import bodies, entrants
from bench.clocks import machine_busy
from bench.contest import TROUBLES, ContestFailed, counted_at, own_folder, watch
from bench.entrants import THREE, Start
from bench.process import Process
from bench.results import Case, Drain
from bench.stage import LOOK_SECONDS, SPREAD, WEIGHT, Stage, queues_of
from logfan.testing.node import free_port
from support.waiting import wait_until

_MARK = "-{instance}"
_READY_POLL_SECONDS = 0.02
_READY_SECONDS = 60.0
_LEAST_SHARE = 0.25
"""Of the messages: where fewer are left once all daemons are ready, the whole drain is taken."""
_REDELIVERED = "logfan_redelivered_messages_total"


def drain(stage: Stage, case: Case) -> Drain:
    """Measure it once. Raises ContestFailed."""
    with own_folder(stage) as folder:
        try:
            if case.queues:
                stage.fill_spread(case.queues, case.count, case.size)
            else:
                stage.fill(case.queue, case.count, case.size)
            return _drain(stage, case, starts(stage, case, folder))
        except TROUBLES as error:
            raise ContestFailed(f"{case}: {error}") from None


def starts(stage: Stage, case: Case, folder: Path) -> list[Start]:
    """How to start each daemon: `instances` of them on each queue."""
    config = folder / "config.toml"
    text = entrants.config_of(case.entrant, stage.node.url, folder, case.prefetch, _MARK)
    config.write_text(text)
    queues = queues_of(max(1, case.queues)) * case.instances
    found = []
    for number, queue in enumerate(queues, 1):
        port = free_port()
        environ = {**os.environ, "LOGFAN_HTTP__LISTEN": f"127.0.0.1:{port}"}
        if case.queues:
            environ |= {
                "LOGFAN_QUEUE__NAME": queue,
                "LOGFAN_QUEUE__ROUTING_KEYS": json.dumps([WEIGHT]),
                "LOGFAN_EXCHANGE__NAME": SPREAD,
                "LOGFAN_EXCHANGE__TYPE": "x-consistent-hash",
                "LOGFAN_EXCHANGE__DURABLE": "true",
            }
        name = str(number)
        command = [str(entrants.LOGFAN), "run", "--config", str(config), "--instance", name]
        files = entrants.written(case.entrant, folder, _MARK.format(instance=name))
        found.append(Start(command, environ, files, port))
    return found


class Crowd:
    """All daemons of one measurement, looked at as one. As a context manager they are killed at
    the end."""

    def __init__(self, crew: Sequence[Start], folder: Path) -> None:
        self._starts, self._folder = crew, folder
        self.processes: list[Process] = []
        self._stack = ExitStack()
        self._waiting = [start.port for start in crew]
        self._asked = 0.0
        self.ready_at: float | None = None
        """When the last of them reported that it is ready."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for number, start in enumerate(self._starts):
                own = self._folder / str(number)
                own.mkdir()
                self.processes.append(stack.enter_context(Process(start, own)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def started(self) -> float:
        return self.processes[0].started

    def sample(self) -> None:
        """Note how much processor time each has used. Raises RuntimeError where one has ended."""
        for process in self.processes:
            process.sample()
        if self._waiting and time.monotonic() - self._asked > _READY_POLL_SECONDS:
            self._waiting = [port for port in self._waiting if not _is_ready(port)]
            self._asked = time.monotonic()
            if not self._waiting:
                self.ready_at = time.time()

    def wait_ready(self) -> None:
        """Return when all are: a short queue may be empty before the last of them is there."""
        wait_until(self._all_ready, "all daemons are ready", _READY_SECONDS)

    def _all_ready(self) -> bool:
        self.sample()
        return self.ready_at is not None

    def cpu_between(self, begin: float, end: float) -> float:
        """Seconds of processor that all of them used."""
        return sum(process.cpu.between(begin, end) for process in self.processes)

    def log(self) -> str:
        """The end of what each wrote."""
        return "\n".join(process.log() for process in self.processes)

    def stop(self) -> None:
        """TERM for one after the other. Raises RuntimeError where one does not end well."""
        for process in self.processes:
            if code := process.stop():
                raise RuntimeError(f"one ended with {code}: {process.log()}")


def _drain(stage: Stage, case: Case, crew: Sequence[Start]) -> Drain:
    busy, own = machine_busy(), time.process_time()
    with Crowd(crew, crew[0].files[0].parent) as crowd:
        first, end = watch(stage, crowd, case.count)
        crowd.wait_ready()
        took = time.time() - crowd.started
        busy, own = machine_busy() - busy, time.process_time() - own
        known = own + crowd.cpu_between(crowd.started, end) + stage.broker.whole
        memory = sum(process.memory_kib() for process in crowd.processes)
        again = sum(counted_at(start.port, _REDELIVERED) for start in crew)
        seen = sum(counted_at(start.port) for start in crew)
        crowd.stop()
    verify(crew, case.count, again)
    if case.entrant == THREE and not case.count <= seen <= case.count + again:
        raise RuntimeError(f"their metrics sinks counted {seen} of {case.count} messages")
    begin, counted = _begin(stage, case, crowd.ready_at, first)
    return Drain(
        case=case,
        seconds=max(end - begin, LOOK_SECONDS),
        cpu_seconds=crowd.cpu_between(begin, end),
        broker_cpu_seconds=stage.broker.between(begin, end),
        memory_kib=memory,
        start_seconds=first - crowd.started,
        start_cpu_seconds=crowd.cpu_between(crowd.started, first),
        others_share=max(0.0, busy - known) / (took * (os.cpu_count() or 1)),
        counted=counted,
    )


def _begin(stage: Stage, case: Case, ready_at: float | None, first: float) -> tuple[float, int]:
    """From when on it is measured, and how many messages were there at that moment."""
    if ready_at is not None and ready_at > first:
        left = [look.messages for look in stage.observer.looks if look.at <= ready_at][-1]
        if left >= case.count * _LEAST_SHARE:
            return ready_at, left
    return first, case.count


def verify(crew: Sequence[Start], count: int, again: int) -> None:
    """The files of each sink, all daemons' together, hold every message once; or more often where
    the broker delivered some again. Raises RuntimeError."""
    for paths in zip(*(start.files for start in crew), strict=True):
        with ExitStack() as stack:
            # A file sink opens its file with the first record.
            files = [stack.enter_context(path.open("rb")) for path in paths if path.exists()]
            lines, distinct = bodies.seen(chain(*files), count)
        if distinct != count or not count <= lines <= count + again:
            raise RuntimeError(
                f"{paths[0].name} and its like hold {lines} lines with {distinct} of {count} "
                f"messages, {again} delivered again: "
                + ("lost" if distinct < count else "duplicated")
            )


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
