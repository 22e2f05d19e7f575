"""Sample logs for `logfan demo`, and how many of them went where."""

import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logfan.cli.common import blocked_message
from logfan.cli.demo_broker import say

if TYPE_CHECKING:
    from logfan.config.settings import Settings
    from logfan.daemon import Daemon

_COUNTS_SECONDS = 5.0


class Samples:
    """Publishes sample logs, and prints now and then how many went where."""

    def __init__(self, settings: "Settings", rate: float) -> None:
        self._settings = settings
        self._pause = 1.0 / max(rate, 0.1)
        self._end = threading.Event()
        self._published = 0
        self._daemon: Daemon | None = None
        self._threads = [
            threading.Thread(target=self._publish, name="samples", daemon=True),
            threading.Thread(target=self._count, name="counts", daemon=True),
        ]

    def __enter__(self) -> "Samples":  # noqa: PYI034 - private, and final in fact
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._say_counts()

    def start(self, daemon: "Daemon") -> None:
        """Begin; the daemon's threads run."""
        self._daemon = daemon
        say(f"metrics and status page: http://127.0.0.1:{daemon.metrics_port}/")
        for name, sink in self._settings.sinks.items():
            if isinstance(sink.options.get("path"), str):
                say(f"sink {name} writes {sink.options['path']}")
        say("publishing sample logs; Ctrl-C ends it")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish no more: what comes while the daemon stops would wait in the queue, and look
        lost in the last counts."""
        self._end.set()
        if self._daemon is not None:
            for thread in self._threads:
                thread.join(5.0)

    def _publish(self) -> None:
        from logfan.amqp.blocking import BrokerError
        from logfan.amqp.publisher import Publisher

        # Published before there is a queue, a sample would reach no queue.
        while not (self._daemon and self._daemon.stats.consumer.consuming):
            if self._end.wait(0.05):
                return
        try:
            with Publisher(self._settings, on_blocked=_report_blocked) as publisher:
                while not self._end.wait(self._pause):
                    body, properties = _sample(random)
                    self._published += publisher.publish(body, properties=properties)
        except BrokerError as error:
            if not self._end.is_set():
                say(f"no more samples: {error}")

    def _count(self) -> None:
        while not self._end.wait(_COUNTS_SECONDS):
            self._say_counts()

    def _say_counts(self) -> None:
        if self._daemon is None:
            return
        stats = self._daemon.stats
        sinks = ", ".join(f"{name} {sink.written:,}" for name, sink in stats.sinks.items())
        say(
            f"{self._published:,} published, {stats.consumer.received_messages:,} received, "
            f"{stats.consumer.acked:,} acknowledged; written: {sinks}{self._file_sizes()}"
        )

    def _file_sizes(self) -> str:
        sizes = []
        for sink in self._settings.sinks.values():
            path = sink.options.get("path")
            if isinstance(path, str):
                with suppress(OSError):
                    sizes.append(f"{path}: {Path(path).stat().st_size:,} bytes")
        return f" ({', '.join(sizes)})" if sizes else ""


def _report_blocked(why: str) -> None:
    say(blocked_message(why) if why else "the broker takes messages again; going on")


_SERVICES = ("checkout", "payments", "search", "mail")
_MESSAGES: tuple[tuple[str, str], ...] = (
    ("info", "order {n} placed"), ("info", "payment {n} settled"), ("info", "index refreshed"),
    ("debug", "cache hit for key {n}"), ("warning", "retrying call {n}"),
    ("error", "card declined for order {n}"),
)  # fmt: skip


def _sample(rng: Any) -> tuple[bytes, Mapping[str, Any]]:
    """One log record as a service would publish it."""
    import orjson

    level, text = rng.choices(_MESSAGES, weights=(6, 5, 2, 4, 2, 1))[0]
    record = {
        "level": level,
        "service": rng.choice(_SERVICES),
        "message": text.format(n=rng.randrange(1000, 10_000)),
        "duration_ms": round(rng.lognormvariate(4, 1), 1),
    }
    return orjson.dumps(record), {"content_type": "application/json", "app_id": record["service"]}
