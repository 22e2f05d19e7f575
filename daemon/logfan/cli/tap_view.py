"""What `logfan tap` shows: on a thread of its own, so that a slow terminal never makes the
connection wait; what does not fit is skipped and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from logfan.record import Record
from logfan.runtime.foreign_text import describe
from logfan.sink import Sink, SinkUnavailable
from logfan.stage.stage import Stage
from logfan.stage.where import Where

_HELD_RECORDS = 10_000
_HELD_BYTES = 16 << 20
_WINDOW_SECONDS = 1.0


class TapView:
    """Chooses, counts and writes records. `offer` is called on one thread, the rest is its own."""

    def __init__(
        self,
        output: Sink,
        *,
        where: Where | None = None,
        stage: Stage | None = None,
        limit: int = 0,
        rate: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`output` is open. `where` sees the messages as they were published, `stage` what `where`
        chose. `limit` and `rate`: 0 is none."""
        self.received = self.received_bytes = 0
        self.shown = 0
        self.queue_was_full = False
        """Whether the broker's queue was seen full, or nearly so: it may have dropped some."""
        self.failure: str | None = None
        """Why nothing more can be written; None also where no program reads the output any more."""
        self.is_over = False
        """Whether nothing more will be shown."""
        self._output = output
        self._where, self._stage = where, stage
        self._limit, self._rate = limit, rate
        self._clock = clock
        self._window_began, self._window_shown = float("-inf"), 0
        self._not_chosen = self._undecided = self._failed = 0
        self._why_failed = ""
        self._over_rate = self._too_slow = 0
        self._changed = threading.Condition()
        self._waiting: deque[Sequence[Record]] = deque()
        self._held = self._held_bytes = 0
        self._may_end = False
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def skipped(self) -> int:
        """How many would have been shown, or looked at, were there time."""
        return self._over_rate + self._too_slow

    def offer(self, records: Sequence[Record]) -> None:
        """Show these, unless too many wait already. Returns at once."""
        size = sum(record.size for record in records)
        with self._changed:
            self.received += len(records)
            self.received_bytes += size
            if self._held >= _HELD_RECORDS or self._held_bytes >= _HELD_BYTES:
                self._too_slow += len(records)
                return
            self._held += len(records)
            self._held_bytes += size
            self._waiting.append(records)
            self._changed.notify()

    def end(self, seconds: float) -> None:
        """Show what waits, for no more than so many seconds."""
        with self._changed:
            self._may_end = True
            if not seconds:
                self._waiting.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def summary(self) -> str:
        """What became of all that came, in one line."""
        counts = {
            "shown": self.shown, "not chosen": self._not_chosen,
            "undecided, as their body is no JSON": self._undecided,
            f"failed before the sink ({self._why_failed})": self._failed,
            "skipped for --rate": self._over_rate,
            "skipped, as they came faster than they were shown": self._too_slow,
        }  # fmt: skip
        counts["not looked at any more"] = self.received - sum(counts.values())
        parts = [f"{count:,} {what}" for what, count in counts.items() if count or what == "shown"]
        text = f"{self.received:,} received: {', '.join(parts)}"
        if self.queue_was_full:
            text += (
                "; the broker may have dropped more: tap's queue there was full, or nearly so, "
                "and it counts nothing"
            )
        return text

    # On its own thread

    def _run(self) -> None:
        try:
            while (records := self._next()) is not None:
                self._show(records)
                if 0 < self._limit <= self.shown:
                    break
        except SinkUnavailable as unavailable:
            if not isinstance(unavailable.__context__, BrokenPipeError):
                self.failure = str(unavailable)
        except BaseException as error:  # noqa: BLE001 - whatever it is, nothing more is shown
            self.failure = f"internal fault: {describe(error)}"
        finally:
            self.is_over = True

    def _next(self) -> Sequence[Record] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._may_end)
            if not self._waiting:
                return None
            records = self._waiting.popleft()
            self._held -= len(records)
            self._held_bytes -= sum(record.size for record in records)
            return records

    def _show(self, records: Sequence[Record]) -> None:
        records = self._staged(self._chosen(records))
        if self._rate:
            records = self._within_rate(records)
        if self._limit:
            records = records[: self._limit - self.shown]
        if records:
            self._output.write(records)
            self.shown += len(records)

    def _chosen(self, records: Sequence[Record]) -> Sequence[Record]:
        if self._where is None:
            return records
        decisions = [*map(self._where.decide, records)]
        self._undecided += decisions.count(None)
        self._not_chosen += decisions.count(False)
        return [record for record, wanted in zip(records, decisions, strict=True) if wanted]

    def _staged(self, records: Sequence[Record]) -> Sequence[Record]:
        """What the sink would get of them."""
        if self._stage is None:
            return records
        kept: list[Record] = []
        while records:
            staged = self._stage.apply(records)
            done = len(records) - staged.left
            kept += staged.records
            failed = len(staged.refused) + len(staged.failed)
            if failed:
                self._failed += failed
                reasons = [*staged.refused.values(), *(one.why for one in staged.failed.values())]
                self._why_failed = self._why_failed or reasons[0]
            self._not_chosen += done - len(staged.records) - failed
            records = records[done:]
        return kept

    def _within_rate(self, records: Sequence[Record]) -> Sequence[Record]:
        """The first of them, so that no second has more than the rate."""
        now = self._clock()
        if now - self._window_began >= _WINDOW_SECONDS:
            self._window_began, self._window_shown = now, 0
        shown = records[: self._rate - self._window_shown]
        self._window_shown += len(shown)
        self._over_rate += len(records) - len(shown)
        return shown
