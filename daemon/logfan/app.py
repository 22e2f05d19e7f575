"""The composition root: what is built from what, the order of start and stop, signals, reload.

It runs on the main thread, which only waits: for a signal, for the consumer's end, for the next
second. Everything else has a thread of its own.
"""

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import Any

from prometheus_client import REGISTRY

from logfan import __version__, logs, memory
from logfan.broker import Kind, Trouble
from logfan.clock import SYSTEM_CLOCK, Clock
from logfan.config import HttpSettings
from logfan.faults import Faults
from logfan.http import HttpServer
from logfan.metrics import LogfanCollector, Numbers
from logfan.notify import Notifier
from logfan.pipeline import Pipeline
from logfan.setup import Prepared

log = logging.getLogger(__name__)

EXIT_OK, EXIT_UNAVAILABLE, EXIT_INTERNAL = 0, 69, 70
EXIT_HANDED_BACK, EXIT_REFUSED, EXIT_CONFIG = 75, 77, 78

_TICK_SECONDS = 1.0


class _Signal(Enum):
    STOP = "stop"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class _Ended:
    """The consumer's thread ended by itself."""

    trouble: Trouble | None
    error: BaseException | None


class Daemon:
    """One running daemon. `run` returns the exit code."""

    def __init__(
        self,
        prepared: Prepared,
        prepare_again: Callable[[], Prepared],
        *,
        environ: Mapping[str, str] = os.environ,
        on_started: Callable[["Daemon"], None] | None = None,
        on_stopping: Callable[[], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`prepare_again` reads the config anew for a reload and raises Faults where it has some;
        `on_started` is called once all threads run, `on_stopping` before anything is stopped
        because of a signal."""
        self.numbers = Numbers()
        self._prepared = prepared
        self._prepare_again = prepare_again
        self._on_started, self._on_stopping = on_started, on_stopping
        self._clock = clock
        self._events: queue.SimpleQueue[_Signal | _Ended] = queue.SimpleQueue()
        self._notifier = Notifier.from_environment(environ)
        self._stopping = False
        self._ready = False
        self._http: HttpServer | None = None
        self._collector = LogfanCollector(self.numbers, __version__)
        self._pipeline = self._build(prepared)

    def run(self) -> int:
        """Run until a signal or a trouble that forbids to go on.

        Raises ListenError where the HTTP side cannot start.
        """
        settings = self._prepared.settings
        memory.return_what_is_free()
        REGISTRY.register(self._collector)
        try:
            # First the signals: who sees it answer may stop it at once.
            with _Signals(self._events):
                self._http = self._serve(self._prepared)
                self._pipeline.start()
                log.info("metrics at %s/metrics", self._address(settings.http))
                if settings.rabbitmq.startup == "retry":
                    self._tell_ready()
                if self._on_started is not None:
                    self._on_started(self)
                return self._until_the_end()
        finally:
            if self._http is not None:
                self._http.stop()
            REGISTRY.unregister(self._collector)
            self._notifier.close()

    def _address(self, http: HttpSettings) -> str:
        scheme = "http" if http.tls.cert_file is None else "https"
        host = f"[{http.listen.host}]" if ":" in http.listen.host else http.listen.host
        return f"{scheme}://{host}:{self.metrics_port}"

    def stop(self) -> None:
        """As SIGTERM does. May be called on any thread."""
        self._events.put(_Signal.STOP)

    @property
    def metrics_port(self) -> int:
        """The port that /metrics is served on."""
        return self._http.port if self._http is not None else 0

    # The main thread

    def _until_the_end(self) -> int:
        while True:
            event = self._next_event()
            if event is None:
                self._tick()
            elif event is _Signal.RELOAD:
                self._reload()
            elif event is _Signal.STOP:
                return self._stop()
            elif isinstance(event, _Ended):
                return self._give_up(event)

    def _next_event(self) -> _Signal | _Ended | None:
        try:
            return self._events.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            return None

    def _tick(self) -> None:
        """Progress feeds the watchdog; the absence of it does not."""
        stuck = [*self._pipeline.stuck(), *self._pipeline.hanging()]
        if stuck:
            self._notifier.status("stuck: " + "; ".join(stuck))
            return
        self._notifier.watchdog()
        self._notifier.status(self.status_text())

    def _stop(self) -> int:
        """The one ordered paragraph of the shutdown; `Pipeline.stop` is its middle."""
        timeout = self._prepared.settings.shutdown_timeout
        self._stopping = True
        self._notifier.stopping()
        if self._on_stopping is not None:
            self._on_stopping()
        held = self.numbers.consumer.in_flight_messages
        words = f"stopping: draining {held:,} messages within {timeout:.0f} s"
        log.info("%s", words)
        self._notifier.status(words)
        handed_back = self._pipeline.stop(timeout, self._wait)
        if handed_back:
            log.warning("stopped; %d messages went back to the broker", handed_back)
            return EXIT_HANDED_BACK
        log.info("stopped; everything received is acknowledged")
        return EXIT_OK

    def _give_up(self, ended: _Ended) -> int:
        self._stopping = True
        self._notifier.stopping()
        if ended.error is not None:
            log.critical("internal fault; please report it", exc_info=ended.error)
        elif ended.trouble is not None:
            log.error("giving up: %s", ended.trouble.why)
            self._notifier.status(ended.trouble.why)
        self._pipeline.stop(0.0, self._wait)
        if ended.error is not None or ended.trouble is None:
            return EXIT_INTERNAL
        return EXIT_REFUSED if ended.trouble.kind is Kind.REFUSED else EXIT_UNAVAILABLE

    def _wait(self, condition: Callable[[float], bool], deadline: float) -> bool:
        """Wait on a condition in ticks, so that signals and the watchdog are served meanwhile."""
        while True:
            remaining = deadline - self._clock.monotonic()
            if condition(max(0.0, min(remaining, _TICK_SECONDS))):
                return True
            if remaining <= 0:
                return False
            if not (self._pipeline.stuck() or self._pipeline.hanging()):
                self._notifier.watchdog()

    def _reload(self) -> None:
        """SIGHUP: reopen; where the config changed, drain and build the pipeline anew."""
        self._notifier.reloading()
        try:
            fresh = self._prepare_again()
        except Faults as faults:
            for fault in faults.faults:
                log.error("reload: %s", fault)
            log.error("reload: the new config has faults; going on with the old one")
        else:
            self._take_over(fresh)
        self._pipeline.reopen()
        self._notifier.ready()

    def _take_over(self, fresh: Prepared) -> None:
        if not _differ(fresh, self._prepared):
            log.info("reload: the config is unchanged; reopening files")
            return
        old, new = self._prepared.settings, fresh.settings
        logs.configure(new.log.level, new.log.format)
        if new.http != old.http:
            log.warning("reload: http.* takes effect at the next start")
        log.info("reload: the config changed; draining, then starting anew")
        handed_back = self._pipeline.stop(old.shutdown_timeout, self._wait)
        if handed_back:
            log.warning("reload: %d messages went back to the broker", handed_back)
        self._prepared = fresh
        self._pipeline = self._build(fresh)
        self._pipeline.start()

    # What is built from what

    def _build(self, prepared: Prepared) -> Pipeline:
        self.numbers.configure([spec.name for spec in prepared.sinks])
        return Pipeline(
            prepared,
            self.numbers,
            on_subscribed=self._on_subscribed,
            on_end=lambda trouble, error: self._events.put(_Ended(trouble, error)),
            clock=self._clock,
        )

    def _serve(self, prepared: Prepared) -> HttpServer:
        listen = prepared.settings.http.listen
        tls = prepared.settings.http.tls
        server = HttpServer(
            host=listen.host, port=listen.port, registry=REGISTRY,
            unhealthy=self._unhealthy, unready=self._unready, status=self.status,
            cert_file=tls.cert_file, key_file=tls.key_file,
        )  # fmt: skip
        server.start()
        return server

    def _on_subscribed(self) -> None:
        self._tell_ready()

    def _tell_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._notifier.ready()

    # What it says of itself

    def _unhealthy(self) -> list[str]:
        return self._pipeline.stuck()

    def _unready(self) -> list[str]:
        return ["stopping"] if self._stopping else self._pipeline.unready()

    def status_text(self) -> str:
        """What the daemon is doing, in one line, for systemd's STATUS."""
        numbers = self.numbers.consumer
        down = [worker for worker in self._pipeline.workers if worker.trouble is not None]
        parts = [self._pipeline.consumer.state]
        parts += [f"sink {worker.name} down: {worker.trouble}" for worker in down]
        parts.append(f"{numbers.acked:,} acknowledged, {numbers.in_flight_messages:,} in flight")
        return "; ".join(parts)

    def status(self) -> Mapping[str, Any]:
        """What the status page shows."""
        numbers = self.numbers.consumer
        return {
            "version": __version__,
            "instance": self._prepared.settings.instance,
            "state": "stopping" if self._stopping else self._pipeline.consumer.state,
            "consuming": numbers.consuming,
            "prefetch": self._prepared.settings.rabbitmq.prefetch,
            "received": numbers.received_messages,
            "acknowledged": numbers.acked,
            "in_flight": numbers.in_flight_messages,
            "in_flight_bytes": numbers.in_flight_bytes,
            "queue_ready": numbers.queue_ready,
            "sinks": [
                {
                    "name": worker.name, "required": worker.required,
                    "up": worker.trouble is None, "trouble": worker.trouble,
                    "held": worker.held, "written": worker.numbers.written,
                    "dropped": worker.numbers.dropped, "retries": worker.numbers.retries,
                    "dead_lettered": worker.numbers.dead_lettered,
                }
                for worker in self._pipeline.workers
            ],
        }  # fmt: skip


class _Signals:
    """TERM and INT stop, HUP reloads; a second TERM or INT exits at once."""

    def __init__(self, events: "queue.SimpleQueue[_Signal | _Ended]") -> None:
        self._events = events
        self._stops = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in (
            (signal.SIGTERM, self._on_stop), (signal.SIGINT, self._on_stop),
            (signal.SIGHUP, self._on_hangup),
        ):  # fmt: skip
            self._before[number] = signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self._stops += 1
        if self._stops > 1:
            os.write(
                2, b"second signal: exiting at once; the broker has what was not acknowledged\n"
            )
            os._exit(EXIT_HANDED_BACK)
        self._events.put(_Signal.STOP)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._events.put(_Signal.RELOAD)


def _differ(fresh: Prepared, current: Prepared) -> bool:
    """Whether anything differs that a sink or the consumer was built from.

    A plugin's code is not compared: new code takes a new start.
    """

    def built_from(prepared: Prepared) -> object:
        sinks = [(spec.name, spec.kind.origin, spec.config.model_dump()) for spec in prepared.sinks]
        return prepared.settings, sinks

    return built_from(fresh) != built_from(current)
