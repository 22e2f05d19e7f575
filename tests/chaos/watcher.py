"""Looks at the daemon all the time, from outside: its metrics, and what the kernel reports of it.

A thread of its own scrapes; what it finds broken it keeps in words.
"""

import os
import re
import statistics
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Self

from chaos.daemon import PREFETCH, ChaosDaemon

_EVERY_SECONDS = 0.15
_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
_COUNTERS = (
    "logfan_received_messages_total", "logfan_acked_messages_total",
    "logfan_requeued_messages_total", "logfan_abandoned_messages_total",
)  # fmt: skip
_IN_FLIGHT = "logfan_in_flight_messages"
LOST = 'logfan_connections_total{outcome="lost"}'
_FLAT = {"descriptors": 3.0, "threads": 2.0, "memory_kib": 32 * 1024.0}
"""How much may be added over a life that saw many faults."""
_SAMPLES_MIN = 25


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the kernel reports of the process at one moment."""

    descriptors: float
    threads: float
    memory_kib: float


def vitals(pid: int) -> Vitals:
    """Raises OSError where the process is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    words = dict(line.split(":", 1) for line in status.splitlines())
    if "VmRSS" not in words:
        raise ProcessLookupError(f"process {pid} has ended and is not waited for yet")
    return Vitals(
        len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - only counted
        float(words["Threads"]),
        float(words["VmRSS"].split()[0]),
    )


def starved_seconds(pid: int) -> float:
    """How long the process could have run and the machine had no core for it; of its threads, the
    one that waited longest. 0 where it is gone, or where the kernel does not tell."""
    longest = 0
    # Threads come and go while they are looked at.
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                longest = max(longest, int((thread / "schedstat").read_text().split()[1]))
    return longest / 1e9


class Watcher:
    """Watches one daemon through all its lives."""

    def __init__(self, daemon: ChaosDaemon) -> None:
        self._daemon = daemon
        self.scrapes = 0
        self.broken: list[str] = []
        """Invariants that did not hold, in words."""
        self._before: tuple[int, Mapping[str, float]] = (0, {})
        self._losses: dict[int, float] = {}
        self._requeued: dict[int, float] = {}
        self.lives: dict[int, list[Vitals]] = defaultdict(list)
        """By life: what was seen of it once it consumed."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    @property
    def losses(self) -> int:
        """Connections, channels and consumers lost, over all lives."""
        return int(sum(self._losses.values()))

    @property
    def requeued(self) -> int:
        """Messages that the daemon handed back by itself, over all lives."""
        return int(sum(self._requeued.values()))

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # a watcher that stopped looking must report it
            self._broke(f"the watcher ended: {error!r}")
            raise

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            life = self._daemon.lives
            try:
                seen = self._scrape()
                pid = self._daemon.pid
                now = vitals(pid)
            except (OSError, HTTPException):
                continue  # killed, stopped or not listening yet
            if life != self._daemon.lives or _IN_FLIGHT not in seen:
                continue
            self.scrapes += 1
            self._judge(life, seen)
            if seen["logfan_consuming"]:
                self.lives[life].append(now)

    def _scrape(self) -> Mapping[str, float]:
        url = f"http://127.0.0.1:{self._daemon.port}/metrics"
        with urllib.request.urlopen(url, timeout=2) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def _judge(self, life: int, seen: Mapping[str, float]) -> None:
        received, acked, requeued, abandoned = (seen[name] for name in _COUNTERS)
        in_flight = seen[_IN_FLIGHT]
        if received != acked + requeued + abandoned + in_flight:
            self._broke(
                f"life {life}: {received:.0f} received, but {acked:.0f} acked, {requeued:.0f} "
                f"requeued, {abandoned:.0f} abandoned and {in_flight:.0f} in flight"
            )
        if not 0 <= in_flight <= PREFETCH:
            self._broke(f"life {life}: {in_flight:.0f} in flight of {PREFETCH}")
        before_life, before = self._before
        for name in _COUNTERS:
            if before_life == life and seen[name] < before[name]:
                self._broke(f"life {life}: {name} fell from {before[name]} to {seen[name]}")
        self._before = (life, seen)
        self._losses[life], self._requeued[life] = seen[LOST], requeued

    def _broke(self, words: str) -> None:
        if len(self.broken) < 20:
            self.broken.append(words)

    # Flatness

    def growth(self) -> tuple[dict[str, float], int]:
        """The most that any long life added, and how many lives were long enough."""
        worst = dict.fromkeys(_FLAT, 0.0)
        long = [samples for samples in self.lives.values() if len(samples) >= _SAMPLES_MIN]
        for samples in long:
            for name in _FLAT:
                worst[name] = max(worst[name], added([getattr(s, name) for s in samples]))
        return worst, len(long)

    def not_flat(self) -> list[str]:
        """In words, where a long life grew."""
        worst, _ = self.growth()
        return [
            f"{name} grew by {worst[name]:.0f} in one life, {limit:.0f} allowed"
            for name, limit in _FLAT.items()
            if worst[name] > limit
        ]


def added(samples: Sequence[float]) -> float:
    """How much the last third lies above the most of the first third; not below 0."""
    third = len(samples) // 3
    return max(0.0, statistics.median(samples[-third:]) - max(samples[:third]))
