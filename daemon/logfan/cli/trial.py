"""Sinks at work without a broker: each on its worker, as in the daemon, and what became of it."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Self

import logfan
from logfan.config.loader import Made, SinkSpec, made_of
from logfan.dead_letters.letter import Refusal
from logfan.pipeline.completions import Completions
from logfan.pipeline.sink_runner import why_returned
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.record import Record, with_body
from logfan.runtime.backoff import Backoff
from logfan.runtime.foreign_text import describe
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.telemetry.metrics import SinkStats
from logfan.testing.pipeline import Kept
from logfan.testing.records import change_of, state_of
from logfan.testing.sink_steps import Family, in_the_end

_LONGEST_DELAY_SECONDS = 1.0
_LEFT_SECONDS = 1.0
"""So long the thread of a sink that was given up may take to end."""
_LETTING_GO_SECONDS = 1.0
"""So long the threads of a sink may take to end, once it is closed."""
_FAULT_SECONDS = 0.1
"""So long one that is about to raise may take."""

_Calls = queue.SimpleQueue[Callable[[], None]]


class SinkTrial:
    """One sink, and what it did. Used on the main thread; its worker has one of its own."""

    def __init__(self, made: Made, calls: _Calls) -> None:
        """`calls` takes what is to be called on the main thread."""
        self.spec = spec = made.spec
        self.stats = SinkStats()
        self.refused: list[Refusal] = []
        self.given = 0
        """How many records it was offered."""
        self.gave_up: str | None = None
        """Why it is not waited for any more."""
        self.change: str | None = None
        """What it changes of a record that it gets; None where it changes nothing."""
        self.mistake: str | None = None
        """What else is wrong with its methods: that `write` returns something, or that `close`
        raises."""
        self._raised_at = ""
        """Where in the author's code the last call raised; empty where it did on purpose."""
        self.moved_at = time.monotonic()
        """When it last got on, or had nothing to do."""
        self._completions = completions = Completions(1, calls.put)
        completions.on_completed = self._on_completed
        completions.on_sink_opened = self._moved
        self.sink = made.sink
        self._watch_calls()
        self.threads = Family(lambda thread: thread.name == f"sink-{spec.name}")
        """What the sink's thread starts."""
        self.lasting: str | None = None
        """What of it does not end; None where all does."""
        settings = spec.settings
        batch, retry = settings.batch, settings.retry
        self.worker = SinkWorker(
            sink=self.sink,
            limits=Limits(batch.max_records, batch.max_bytes),
            backoff=Backoff(
                min(retry.initial, _LONGEST_DELAY_SECONDS), min(retry.max, _LONGEST_DELAY_SECONDS)
            ),
            stats=self.stats, completions=completions, number=0, stage=made.stage,
            send=self._send, on_fault=lambda: calls.put(lambda: None),
        )  # fmt: skip

    def _send(self, refusals: Sequence[Refusal]) -> Kept:
        self.refused += refusals
        return Kept()

    def _watch_calls(self) -> None:
        for name in ("open", "write", "flush", "close"):
            setattr(self.sink, name, partial(self._call, name, getattr(self.sink, name)))

    def _call(
        self, name: str, method: Callable[..., object], records: Sequence[Record] = ()
    ) -> object:
        """Call a method of the sink, and look at what it changes, returns and raises."""
        given, before = (*records,), [state_of(one) for one in records]
        try:
            returned = method(records) if records else method()
        except BaseException as error:
            self._raised_at = _place_of(error)
            if name == "close":
                self.mistake = f"close raised {describe(error)}{self._raised_at}"
            raise
        finally:
            self.change = self.change or change_of(given, before)
        if returned is not None and name in ("write", "flush"):
            self.mistake = why_returned(name, returned)
        return returned

    def offer(self, records: Sequence[Record]) -> None:
        """Hand it copies of these, unless it was given up: who changes a record is known then."""
        self.given += len(records)
        if self.gave_up is not None:
            return
        now = time.monotonic()
        if not self.worker.held:
            self.moved_at = now
        size = sum(record.size for record in records)
        own = tuple(with_body(one, one.body, one.properties) for one in records)
        batch = self._completions.tracker.open(own, self.given, size, now)
        self.worker.submit(batch)

    @property
    def not_taken(self) -> int:
        """How many were neither written nor filtered nor refused."""
        return self.given - self.stats.written - self.stats.filtered - len(self.refused)

    @property
    def is_good(self) -> bool:
        """Whether it opened, and took all that it should."""
        wrong = self.worker.fault, self.gave_up, self.change, self.mistake, self.lasting
        return not any(wrong) and not self.refused and not self.not_taken

    def give_up(self, patience: float) -> None:
        """Wait for it no more, after so many seconds."""
        reasons = [] if self.worker.has_opened else ["it did not open"]
        if self.worker.busy_seconds() > patience / 2:
            reasons.append("it does not return from a call of its own code")
        elif self.worker.failure is not None:
            reasons.append(f"{self.worker.failure}{self._raised_at}")
        self.gave_up = ": ".join(reasons) or "it takes no more records"

    def join(self, patience: float) -> None:
        """Wait for the end of its thread, and of those that it started."""
        if not self.worker.join(patience if self.gave_up is None else _LEFT_SECONDS):
            if self.gave_up is None:
                where = "a call of its own code" if self.worker.held else "close"
                self.lasting = f"does not return from {where} for {patience:g} s"
            return
        for one in self.sink._logfan_threads:
            one.join(_FAULT_SECONDS)
        if in_the_end(lambda: not self._holding(), _LETTING_GO_SECONDS):
            return
        left = self._holding()
        names = ", ".join(repr(one.name) for one in left)
        what = "a thread behind, which holds the process: end it"
        if len(left) > 1:
            what = f"{len(left)} threads behind, which hold the process: end them"
        self.lasting = f"leaves {what} in close ({names})"

    def _holding(self) -> list[threading.Thread]:
        """The interpreter waits for these at its end."""
        return [one for one in self.threads.alive() if not one.daemon]

    def _on_completed(self) -> None:
        self._completions.tracker.advance()
        self._moved()

    def _moved(self) -> None:
        self.moved_at = time.monotonic()


def _place_of(error: BaseException) -> str:
    """The innermost line of code that is not logfan's, as it goes behind the error; empty for one
    that an author raises on purpose."""
    frames = [one for one in extract_tb(error.__traceback__) if not one.filename.startswith(_HOST)]
    if not frames or isinstance(error, SinkUnavailable | RecordsRejected):
        return ""
    return f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})"


_HOST = f"{Path(logfan.__file__).parent}/"


class Trial:
    """All sinks of a trial. As a context manager it starts and ends their threads."""

    def __init__(self, specs: Sequence[SinkSpec], instance: str, patience: float) -> None:
        """`patience`: so many seconds a sink may take without getting on. Raises Faults where the
        class of a sink, or of a transform, fails."""
        self._calls = _Calls()
        self._patience = patience
        self.sinks = [SinkTrial(made, self._calls) for made in made_of(specs, instance)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for one in self.sinks:
            self._stack.enter_context(one.threads)
            one.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sinks:
            one.worker.give_up()
        with self._stack:
            for one in self.sinks:
                one.join(self._patience)

    @property
    def is_over(self) -> bool:
        """Whether no sink is waited for any more."""
        return all(one.gave_up is not None for one in self.sinks)

    def offer(self, records: Sequence[Record], most_held: int) -> None:
        """Hand them to each sink, and wait until each holds no more than so many, or is given
        up."""
        for one in self.sinks:
            one.offer(records)
        self._wait(lambda one: one.worker.held > most_held)

    def finish(self) -> None:
        """Wait until each sink has opened and has done all, or is given up."""
        self._wait(lambda one: one.worker.held > 0 or not one.worker.has_opened)

    def _wait(self, is_behind: Callable[[SinkTrial], bool]) -> None:
        with suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()
        while behind := [one for one in self.sinks if one.gave_up is None and is_behind(one)]:
            first = min(behind, key=lambda one: (one.worker.fault is None, one.moved_at))
            left = first.moved_at + self._patience - time.monotonic()
            if left <= 0 or first.worker.fault is not None:
                first.give_up(self._patience)
                continue
            with suppress(queue.Empty):
                self._calls.get(timeout=left)()
