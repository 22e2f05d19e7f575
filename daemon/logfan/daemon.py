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
from typing import Any

from prometheus_client import REGISTRY

from logfan import __version__
from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.reconnect import StartupPolicy
from logfan.config.changes import changed_keys, elsewhere, left_behind, named
from logfan.config.file_watch import FileWatch
from logfan.config.loader import Prepared
from logfan.control import ControlServer, folder_of_daemon, name_of_socket
from logfan.faults import Fault, Faults
from logfan.pipeline.assembly import Pipeline
from logfan.plugins.drop_ins import changed_since_loaded
from logfan.runtime import malloc, signals
from logfan.runtime.clock import SYSTEM_CLOCK, Clock
from logfan.runtime.foreign_text import describe, line_of
from logfan.runtime.systemd import Notifier
from logfan.status import Status
from logfan.telemetry import log_output
from logfan.telemetry.http_server import HttpServer, ListenError
from logfan.telemetry.metrics import LogfanCollector, Stats

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_AGAIN_SECONDS = 5.0
"""So often a config that ran before is tried again, where a sink of it cannot be made."""


class _Signal(Enum):
    STOP = "stop"
    RELOAD = "reload"
    FAULT = "a thread has ended and should not have"


@dataclass(frozen=True, slots=True)
class _Report:
    """The pipeline of this number is subscribed, maybe again; with a failure its consumer cannot go
    on."""

    number: int
    failure: ConnectionFailure | None = None


_Event = _Signal | _Report


@dataclass(frozen=True, slots=True)
class _PipelineEvents:
    """What the pipeline of this number reports, on its way to the main thread."""

    number: int
    events: "queue.SimpleQueue[_Event]"

    def on_subscribed(self) -> None:
        self.events.put(_Report(self.number))

    def on_end(self, failure: ConnectionFailure) -> None:
        self.events.put(_Report(self.number, failure))

    def on_fault(self) -> None:
        self.events.put(_Signal.FAULT)


@dataclass(slots=True)
class _Config:
    """A config that runs, or that a reload may go back to."""

    prepared: Prepared
    proven: bool = False
    """It was subscribed once: the broker takes it."""
    was_connected: bool = False
    """It had a connection when a reload ended it."""


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
        because of a signal. Raises Faults where a sink cannot be made."""
        self.stats = Stats()
        self._config = _Config(prepared)
        self._fallback: _Config | None = None
        """The config that ran before a reload, until the new one is subscribed."""
        self._returning: tuple[_Config, float] | None = None
        """The one to go back to, which cannot be started for now, and when to try again."""
        self._prepare_again = prepare_again
        self._on_started, self._on_stopping = on_started, on_stopping
        self._clock = clock
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stop_asked = threading.Event()
        self._reload_waits = False
        self._notifier = Notifier.from_environment(environ)
        self._watch = FileWatch(prepared.states)
        self._stopping = False
        self._ready = False
        self._status = Status(self.stats, clock)
        self._http = self._http_server()
        self._control = self._control_server(environ)
        self._collector = LogfanCollector(self.stats, __version__, clock)
        self._number = 0
        """Which pipeline of this process runs: events of an earlier one come too late."""
        self._pipeline = self._build(StartupPolicy.at_start(prepared.settings.rabbitmq.startup))

    def run(self) -> int:
        """Run until a signal, or a failure that it cannot go on after.

        Raises ListenError where the HTTP side cannot start, and Faults where a plugin has taken the
        name of a metric.
        """
        malloc.return_what_is_free()
        self._register_metrics()
        self._status.listen()
        try:
            # Signals first: a client that sees it answer may stop it at once.
            with signals.handling(self._handlers()):
                for warning in self._prepared.warnings:
                    log.warning("%s", warning)
                log.info("%s", self._start_line())
                self._status.tick()
                self._http.start()
                self._control.start()
                self._pipeline.start()
                log.info("metrics at %s/metrics", self._http.url)
                if self._prepared.settings.rabbitmq.startup == "retry":
                    self._report_ready()
                if self._on_started is not None:
                    self._on_started(self)
                return self._until_the_end()
        except ListenError:
            raise
        except BaseException as error:
            log.critical("internal fault; please report it", exc_info=error)
            self._pipeline.stop(0.0, self._wait)
            return os.EX_SOFTWARE
        finally:
            self._control.stop()
            self._http.stop()
            REGISTRY.unregister(self._collector)
            self._status.end()
            self._notifier.close()

    def _register_metrics(self) -> None:
        try:
            REGISTRY.register(self._collector)
        except ValueError as taken:
            why = (
                "the code of a plugin registers a metric of logfan's own; begin the names of its "
                f"metrics with the name of its sink, not with logfan_: {line_of(taken)}"
            )
            raise Faults([Fault("plugins", why)]) from taken

    def _handlers(self) -> Mapping[int, signals.Handler]:
        """TERM and INT stop, the second of them at once; HUP reloads."""
        stop = signals.first_and_second(lambda _: self.stop(), _exit_at_once)
        return {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self._on_hangup}

    def _on_hangup(self, *_: object) -> None:
        """On the main thread. One reload waits at most, so that a stop is never behind many."""
        if not self._reload_waits:
            self._reload_waits = True
            self._events.put(_Signal.RELOAD)

    def _start_line(self) -> str:
        prepared = self._prepared
        sinks = ", ".join(f"{spec.name} ({spec.settings.kind})" for spec in prepared.sinks)
        return f"logfan {__version__} starts; config {prepared.path or '(none)'}; sinks: {sinks}"

    def stop(self) -> None:
        """As SIGTERM does. May be called on any thread."""
        self._stop_asked.set()
        self._events.put(_Signal.STOP)

    @property
    def metrics_port(self) -> int:
        """The port that /metrics is served on."""
        return self._http.port

    @property
    def _prepared(self) -> Prepared:
        return self._config.prepared

    # The main thread

    def _until_the_end(self) -> int:
        due = self._clock.monotonic() + _TICK_SECONDS
        while True:
            event = self._next_event()
            if faults := self._faults():
                if self._fallback is None or self._own_faults():
                    return self._give_up(None)
                self._go_back(self._fallback, "; ".join(faults))
            match event:
                case _Signal.RELOAD:
                    self._reload()
                case _Signal.STOP:
                    return self._stop()
                case _Report(self._number, None):
                    self._on_subscribed()
                case _Report(self._number, ConnectionFailure() as failure):
                    if self._fallback is None:
                        return self._give_up(failure)
                    self._go_back(self._fallback, failure.why)
            # By the clock: events that come without end must not keep it from the watchdog.
            if event in (None, _Signal.FAULT) or self._clock.monotonic() >= due:
                self._tick()
                self._return_where_due()
                self._reload_where_changed()
                due = self._clock.monotonic() + _TICK_SECONDS

    def _next_event(self) -> _Event | None:
        try:
            return self._events.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            return None

    def _tick(self) -> None:
        """Progress feeds the watchdog; the absence of it does not."""
        self._status.tick()
        self._pipeline.look()
        if log_output.keep():
            log.warning(
                "code of a plugin, or of its library, had silenced this log (logging.disable, "
                "dictConfig, basicConfig or a level of the root logger): lines of the last moment "
                "may be missing; a plugin logs by self.log and leaves the setup to the daemon"
            )
        stuck = [*self._faults(), *self._pipeline.stuck(), *self._pipeline.hanging()]
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
        held = self.stats.consumer.in_flight_messages + self._pipeline.last_copies
        line = f"stopping: draining {held:,} messages within {timeout:.0f} s"
        log.info("%s", line)
        self._notifier.status(line)
        handed_back = self._pipeline.stop(timeout, self._wait)
        if self._faults():
            return os.EX_SOFTWARE
        if handed_back:
            log.warning("stopped; %d messages went back to the broker", handed_back)
        if handed_back or self._pipeline.last_copies:
            return os.EX_TEMPFAIL
        log.info("stopped; everything received is acknowledged")
        return os.EX_OK

    def _give_up(self, failure: ConnectionFailure | None) -> int:
        """Without a failure: a thread has ended and should not have, as the log has it."""
        self._stopping = True
        self._notifier.stopping()
        if failure is not None:
            log.error("giving up: %s", failure.why)
        self._notifier.status("; ".join(self._faults()) if failure is None else failure.why)
        self._pipeline.stop(0.0, self._wait)
        if failure is None or self._faults():
            return os.EX_SOFTWARE
        return os.EX_NOPERM if failure.cause is Cause.REFUSED else os.EX_UNAVAILABLE

    def _wait(self, condition: Callable[[float], bool], deadline: float) -> bool:
        """Wait on a condition in ticks, so that signals and the watchdog are served meanwhile."""
        while True:
            remaining = deadline - self._clock.monotonic()
            if condition(max(0.0, min(remaining, _TICK_SECONDS))):
                return True
            if remaining <= 0 or self._faults():
                return False
            self._status.tick()
            self._pipeline.look()
            if not (self._pipeline.stuck() or self._pipeline.hanging()):
                self._notifier.watchdog()

    # Reload: read, drain, start anew; back to the old config unless the new one gets subscribed

    def _reload_where_changed(self) -> None:
        """`watch`: reload, once what changed stays as it is for a tick."""
        if self._prepared.settings.watch and (changed := self._watch.look()):
            log.info("reload: changed on disk: %s", ", ".join(map(str, changed)))
            self._reload()

    def _reload(self) -> None:
        """SIGHUP: reopen; where the config changed, drain and build the pipeline anew."""
        self._reload_waits = False
        if self._ready:
            self._notifier.reloading()
        for file in changed_since_loaded():
            log.warning(
                "reload: %s changed since it was loaded; a plugin's new code takes effect at the "
                "next start: systemctl restart logfan", file,
            )  # fmt: skip
        fresh = self._read_again()
        if fresh is not None:
            self._take_over(fresh)
        self._pipeline.reopen()
        if self._ready:
            self._notifier.ready()

    def _read_again(self) -> Prepared | None:
        """The new config; None where the one that runs stays."""
        self._watch.renew()
        try:
            fresh = self._prepare_again()
        except Faults as faults:
            for fault in faults.faults:
                log.error("reload: %s", fault)
            log.error("reload: the new config has faults; going on with the old one")
            self._watch.add(faults.states)  # one that is missing may come
            return None
        except Exception:
            log.exception("reload: the new config cannot be read; going on with the old one")
            return None
        self._watch = FileWatch(fresh.states)
        keys = changed_keys(self._prepared, fresh)
        if not keys:
            log.info("reload: the config is unchanged; reopening files")
            return None
        log.info("reload: changed: %s; draining, then starting anew", named(keys))
        if any(key.startswith("http.") for key in keys):
            log.warning("reload: http.* takes effect at the next start: systemctl restart logfan")
        return fresh

    def _take_over(self, fresh: Prepared) -> None:
        """Drain, then run the new config; the old one is kept until this one is subscribed."""
        old = self._prepared
        news = [warning for warning in fresh.warnings if warning not in old.warnings]
        for warning in news:
            log.warning("reload: %s", warning)
        # Where one config after the other is refused, the first that ran is the one to go back to.
        fallback = self._fallback or self._config
        if self._fallback is None:
            fallback.was_connected = self.stats.consumer.connected
        leaves_broker = fallback.was_connected and elsewhere(fallback.prepared, fresh)
        handed_back = self._pipeline.stop(old.settings.shutdown_timeout, self._wait)
        if self._stop_asked.is_set() or self._faults():
            return  # the main loop ends the daemon: what was drained is drained for the stop, too
        if handed_back:
            log.warning("reload: %d messages went back to the broker", handed_back)
        self._fallback = fallback
        retry_absent = fresh.settings.rabbitmq.startup == "retry" and not leaves_broker
        try:
            self._begin(
                _Config(fresh), StartupPolicy(retry_refused=False, retry_absent=retry_absent)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the old one may go on
            self._go_back(fallback, f"it cannot be started ({_why(error)})", error)

    def _go_back(self, fallback: _Config, why: str, error: BaseException | None = None) -> None:
        """The new config came to nothing before it was subscribed."""
        self._fallback = None
        log.error(
            "reload: the new config is not taken over: %s; going back to the old one. Mend it, "
            "then reload again", why, exc_info=error,
        )  # fmt: skip
        self._pipeline.stop(0.0, self._wait)
        self._return_to(fallback)

    def _return_to(self, config: _Config) -> None:
        policy = StartupPolicy()
        if not config.proven:
            policy = StartupPolicy.at_start(config.prepared.settings.rabbitmq.startup)
        try:
            self._begin(config, policy)
        except Exception as error:
            log.error(
                "reload: nor can the old config be started (%s); nothing is consumed; trying again "
                "in %.0f s, and at the next reload", _why(error), _AGAIN_SECONDS,
                exc_info=None if self._returning else error,
            )  # fmt: skip
            self._returning = config, self._clock.monotonic() + _AGAIN_SECONDS

    def _return_where_due(self) -> None:
        if self._returning is not None and self._clock.monotonic() >= self._returning[1]:
            self._return_to(self._returning[0])

    def _begin(self, config: _Config, startup: StartupPolicy) -> None:
        log_settings = config.prepared.settings.log
        log_output.configure(log_settings.level, log_settings.format)
        self._status.listen()
        self._config = config
        self._pipeline = self._build(startup, self._pipeline)
        self._returning = None
        self._pipeline.start()

    def _on_subscribed(self) -> None:
        fallback, self._fallback = self._fallback, None
        if fallback is not None:
            log.info("reload: the new config is taken over")
            for warning in left_behind(fallback.prepared, self._prepared):
                log.warning("reload: %s", warning)
        self._config.proven = True
        self._report_ready()

    # What is built from what

    def _build(self, startup: StartupPolicy, before: Pipeline | None = None) -> Pipeline:
        self._number += 1
        self.stats.configure([spec.name for spec in self._prepared.sinks])
        events = _PipelineEvents(self._number, self._events)
        return Pipeline(
            self._prepared, self.stats, events=events, startup=startup, clock=self._clock,
            left_behind=before.left_behind if before is not None else (),
        )  # fmt: skip

    def _http_server(self) -> HttpServer:
        http = self._prepared.settings.http
        return HttpServer(
            host=http.listen.host, port=http.listen.port, registry=REGISTRY,
            unhealthy=self._unhealthy, unready=self._unready, status=self.status,
            cert_file=http.tls.cert_file, key_file=http.tls.key_file, on_fault=self._on_fault,
        )  # fmt: skip

    def _control_server(self, environ: Mapping[str, str]) -> ControlServer:
        folder, prepared = folder_of_daemon(environ), self._prepared
        name = name_of_socket(prepared.path, prepared.settings.instance)
        return ControlServer(folder and folder / name, self._on_request, self._on_fault)

    def _on_fault(self) -> None:
        self._events.put(_Signal.FAULT)

    def _faults(self) -> list[str]:
        """Threads that have ended and should not have."""
        return [*self._own_faults(), *self._pipeline.faults()]

    def _own_faults(self) -> list[str]:
        """Of those that no reload replaces."""
        threads = self._http.thread, self._control.thread
        return [one.fault for one in threads if one is not None and one.fault is not None]

    def _report_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._notifier.ready()

    # What operators ask for, on the control socket's thread

    def _on_request(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """`pause`, `resume`, or a look at how a sink is paused, by its name."""
        match request:
            case {"do": "pause", "sink": str(name), "seconds": float() | int() | None as seconds}:
                return self._pipeline.pause(name, seconds)
            case {"do": "resume", "sink": str(name)}:
                return self._pipeline.resume(name)
            case {"do": "look", "sink": str(name)}:
                return self._pipeline.look_at_pause(name)
        return {"error": "the daemon does not know this request; is it of another version?"}

    # What it reports

    def _unhealthy(self) -> list[str]:
        return [*self._faults(), *self._pipeline.stuck()]

    def _unready(self) -> list[str]:
        return [*self._faults(), *(["stopping"] if self._stopping else self._pipeline.unready())]

    def status_text(self) -> str:
        """What the daemon is doing, in one line, for systemd's STATUS."""
        stats = self.stats.consumer
        down = {worker.name: worker.failure for worker in self._pipeline.workers}
        parts = [self._pipeline.consumer.state]
        parts += [f"sink {name} down: {why}" for name, why in down.items() if why]
        parts.append(f"{stats.acked:,} acknowledged, {stats.in_flight_messages:,} in flight")
        return "; ".join(parts)

    def status(self) -> Mapping[str, Any]:
        """What `/status.json` holds."""
        return self._status.document(self._prepared, self._pipeline, self._unready())


def _why(error: Exception) -> str:
    """Why a config cannot be started."""
    return "; ".join(map(str, error.faults)) if isinstance(error, Faults) else describe(error)


def _exit_at_once() -> None:
    if log_output.has_room(2):
        os.write(2, b"second signal: exiting at once; the broker has what was not acknowledged\n")
    os._exit(os.EX_TEMPFAIL)
