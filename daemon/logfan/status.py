"""What `/status.json` holds: put together from what the parts of the daemon know.

The main thread calls `tick` about once a second; HTTP threads call `document`. Its keys are a
promise to the status page, `logfan status`, `logfan top` and scripts: none is renamed.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from logfan import __version__
from logfan.config.loader import Prepared
from logfan.config.shown_config import Shown, shown_config
from logfan.pipeline.assembly import Pipeline
from logfan.pipeline.worker import SinkWorker
from logfan.runtime.clock import Clock
from logfan.runtime.foreign_text import line_of, valid
from logfan.telemetry.history import INTERVAL_SECONDS, History, Sample, sample_of
from logfan.telemetry.log_output import one_line
from logfan.telemetry.metrics import REASONS, Stats
from logfan.telemetry.status_page import shown
from logfan.telemetry.troubles import Troubles

_DIGITS = 3
"""Of the rates of the last 10 minutes."""
UP, DOWN, PAUSED, OPENING = "up", "down", "paused", "opening"


class Status:
    """Keeps what a moment cannot tell: rates, the last 10 minutes, the last troubles."""

    def __init__(self, stats: Stats, clock: Clock) -> None:
        self._stats = stats
        self._clock = clock
        self._history = History()
        self._troubles = Troubles()
        self._started_at = clock.time()
        self._config: tuple[Prepared | None, dict[str, Shown]] = None, {}

    def listen(self) -> None:
        """Keep warnings of the log from now on. Again after the log was configured anew."""
        logging.getLogger().addHandler(self._troubles)

    def end(self) -> None:
        """Keep no more of the log."""
        logging.getLogger().removeHandler(self._troubles)

    def tick(self) -> None:
        """Take a sample. The main thread calls this about once a second."""
        self._history.note(sample_of(self._stats, self._clock.monotonic()))

    def document(
        self, prepared: Prepared, pipeline: Pipeline, unready: Sequence[str]
    ) -> dict[str, Any]:
        """The whole of it. `unready`: why the daemon is not ready."""
        now = sample_of(self._stats, self._clock.monotonic())
        kinds = {spec.name: spec.kind.kind for spec in prepared.sinks}
        phase, since = pipeline.consumer.phase
        return {
            "version": __version__, "instance": prepared.settings.instance, "pid": os.getpid(),
            "config": valid(str(prepared.path or "")), "started_at": self._started_at,
            "now": self._clock.time(), "state": phase, "since": self._wall(since, now.at),
            "detail": _line(pipeline.consumer.state), "ready": not unready,
            "reasons": [_line(one) for one in shown(unready)], **self._counters(now),
            "prefetch": prepared.settings.rabbitmq.prefetch,
            "queue": prepared.settings.queue.name, **self._rates(now),
            "sinks": [self._sink(one, kinds.get(one.name, ""), now) for one in pipeline.workers],
            "history": self._chart(pipeline, now.at),
            "troubles": [*map(asdict, self._troubles.last)],
            "dead_letters": self._dead_letters(pipeline), "plugins": _plugins(prepared),
            "config_keys": self._config_of(prepared),
        }  # fmt: skip

    def _counters(self, now: Sample) -> dict[str, Any]:
        stats = self._stats.consumer
        oldest = stats.oldest()
        return {
            "received": now.received, "acknowledged": now.acknowledged,
            "redelivered": stats.redelivered, "requeued": stats.requeued,
            "abandoned": stats.abandoned, "in_flight": now.in_flight,
            "in_flight_bytes": stats.in_flight_bytes,
            "oldest_unacknowledged_seconds": 0.0 if oldest is None else max(0.0, now.at - oldest),
            "queue_ready": None if now.queue is None else now.queue.messages,
            "dead_letters_waiting": stats.dead_letters_waiting,
        }  # fmt: skip

    def _rates(self, now: Sample) -> dict[str, Any]:
        rate = asdict(self._history.rates(now))
        drain = rate.pop("time_to_drain")
        return {"rate": rate, "time_to_drain_seconds": drain}

    def _sink(self, worker: SinkWorker, kind: str, now: Sample) -> dict[str, Any]:
        stats, health = worker.stats, worker.health
        down_since, rates = health.down_since(now.at), self._history.sink(worker.name, now)
        pause, until = stats.pause, None
        state, since = UP, max(health.up_since, pause.until)
        if pause.is_on(now.at):
            state, since, until = PAUSED, pause.since, self._wall(pause.until, now.at)
        elif down_since is not None:
            state = PAUSED if stats.paused else OPENING if health.is_opening else DOWN
            since = down_since
        return {
            "name": worker.name, "kind": kind, "required": worker.required, "state": state,
            "since": self._wall(since, now.at), "until": until,
            "failure": None if down_since is None else _line(health.why(now.at) or "down"),
            "written": stats.written, "filtered": stats.filtered, "rejected": stats.rejected,
            "dropped": stats.dropped, "dead_lettered": stats.dead_lettered,
            "retries": stats.retries, "held": worker.held, "rate": rates.written,
            "batch_seconds": rates.batch_seconds,
        }  # fmt: skip

    def _chart(self, pipeline: Pipeline, now: float) -> dict[str, Any]:
        points, until = self._history.points, self._history.until
        return {
            "interval": INTERVAL_SECONDS, "until": self._wall(now if until is None else until, now),
            "received": [round(one.received, _DIGITS) for one in points],
            "acknowledged": [round(one.acknowledged, _DIGITS) for one in points],
            "queue_ready": [one.queue_ready for one in points],
            "sinks": {
                name: [round(one.sinks[name], _DIGITS) if name in one.sinks else None
                       for one in points]
                for name in (worker.name for worker in pipeline.workers)
            },
        }  # fmt: skip

    def _dead_letters(self, pipeline: Pipeline) -> list[dict[str, Any]]:
        rows = [
            (count, worker.name, reason)
            for worker in pipeline.workers
            for reason, count in worker.stats.dead_letter_reasons.items()
        ]
        rows.sort(reverse=True)
        return [
            {"sink": sink, "reason": _line(reason), "count": count}
            for count, sink, reason in rows[:REASONS]
        ]

    def _config_of(self, prepared: Prepared) -> dict[str, Shown]:
        """Made once for each config: only a reload changes it."""
        known, keys = self._config
        if known is not prepared:
            keys = shown_config(prepared)
            self._config = prepared, keys
        return keys

    def _wall(self, at: float, now: float) -> float:
        """A monotonic time in seconds since 1970."""
        return self._clock.time() - (now - at)


def _line(text: str) -> str:
    """Foreign text, as a page or a terminal may show it."""
    return one_line(line_of(text))


def _plugins(prepared: Prepared) -> list[dict[str, str]]:
    origins = {spec.kind.kind: spec.kind.origin for spec in prepared.sinks}
    for step in (step for spec in prepared.sinks for step in spec.transforms):
        origins[step.kind.kind] = step.kind.origin
    return [{"kind": kind, "origin": valid(origin)} for kind, origin in sorted(origins.items())]
