"""No part of the daemon may be dead while the rest looks alive: a thread that ends ends it all."""

import gc
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan.config.loader import prepare
from logfan.daemon import Daemon
from logfan.runtime.threads import OwnThread
from support.drop_ins import add_drop_in
from support.http_get import get
from support.waiting import wait_until

# A consumer that dies leaves pika's socket to the process's end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SILENT = """
import logfan

class Silent(logfan.Sink):
    def write(self, records): ...

class Busy(logfan.Sink):
    '''Has a thread of its own.'''
    def open(self):
        self.start_thread("helper", self.help)
    def help(self):
        raise SystemExit("no more help")
    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("silent", Silent)
    register("busy", Busy)
"""


class Scene:
    """A daemon without a broker, on a thread, whose end can be held for a look."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.may_end = threading.Event()
        self.code: int | None = None
        add_drop_in(folder, "silent", SILENT)
        give_up = Daemon._give_up

        def held(daemon: Daemon, trouble: Any) -> int:
            self.may_end.wait(60)
            return give_up(daemon, trouble)

        monkeypatch.setattr(Daemon, "_give_up", held)

    def run(self, kind: str = "silent", options: str = "", required: bool = True) -> None:
        config = self._folder / "config.toml"
        config.write_text(
            f'shutdown_timeout = "1s"\n[rabbitmq]\nurls = ["amqp://127.0.0.1:1"]\n'
            f'[http]\nlisten = "127.0.0.1:0"\n[plugins]\ndirectories = ["{self._folder}/plugins"]\n'
            f'[sinks.one]\nkind = "{kind}"\nrequired = {str(required).lower()}\n{options}\n'
        )
        self.daemon = Daemon(prepare(config, environ={}), lambda: prepare(config, environ={}))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = self.daemon.run()

    def end(self) -> int | None:
        self.may_end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.code

    def get(self, path: str) -> tuple[int, str]:
        return get(f"http://127.0.0.1:{self.daemon.metrics_port}{path}")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    one = Scene(tmp_path, monkeypatch)
    yield one
    one.may_end.set()
    one.__dict__.clear()
    gc.collect()


class Broken:
    """A method that raises once it is let."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise self.error


ROTATING = 'path = "{folder}/a.log"\nrotate = {{ every = "1h", keep = 3 }}'
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "worker": ("logfan.pipeline.recovery.SinkRecovery.open", "silent", "", "sink-one"),
    "consumer": ("logfan.pipeline.consumer.Consumer._turn", "silent", "", "consumer"),
    "dead letters": (
        "logfan.dead_letters.publisher.DeadLetters._tick",
        "silent",
        "",
        "dead-letters",
    ),
    "archivist": (
        "logfan_sinks.file.rotation.Archivist._tend",
        "file",
        ROTATING,
        "archivist of sink one",
    ),
    "a thread of a plugin": ("logfan.config.units.nothing", "busy", "", "helper of sink one"),
}


ENDS = [SystemExit(3), KeyboardInterrupt(), RecursionError("deep")]


@pytest.mark.parametrize(
    ("part", "error"),
    # An Exception is one file's trouble to the archivist, which survives it: see its own test.
    [
        (part, error)
        for part in FAULTS
        for error in ENDS
        if not (part == "archivist" and isinstance(error, Exception))
    ],
)
def test_a_thread_that_ends_shows_at_once_and_ends_the_daemon_with_70(
    part: str,
    error: BaseException,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, kind, options, name = FAULTS[part]
    monkeypatch.setattr(place, Broken(error), raising=False)
    caplog.set_level(logging.INFO)
    scene.run(kind, options.format(folder=tmp_path))
    wait_until(lambda: scene.get("/healthz")[0] == 503, "it is not healthy")
    status, body = scene.get("/readyz")
    assert status == 503
    assert f"thread {name} ended: " in json.loads(body)["reasons"][0]
    if name not in ("consumer", "dead-letters"):
        assert 'logfan_sink_up{sink="one"} 0.0' in scene.get("/metrics")[1]
        assert "one down: thread" in scene.daemon.status_text()
    assert scene.end() == os.EX_SOFTWARE
    (logged,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    thread, of_sink, _ = name.partition(" of sink ")
    if of_sink:
        assert logged.getMessage().startswith("sink one (")
        assert f"): its thread {thread} ended: " in logged.getMessage()
        assert "the sink's author must handle the exception in the work" in logged.getMessage()
        assert "report it" not in logged.getMessage()
    else:
        assert f"internal fault: thread {name} ended: " in logged.getMessage()
    assert "Traceback" in logged.__dict__["traceback"]


def test_a_sink_that_is_not_required_is_no_exception(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan.pipeline.recovery.SinkRecovery.open", Broken(ValueError("a bug")))
    scene.run(required=False)
    wait_until(lambda: scene.get("/readyz")[1].count("thread sink-one ended"), "it is reported")
    assert scene.end() == os.EX_SOFTWARE


def test_a_listener_that_ends_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.may_end.set()
    monkeypatch.setattr(
        "logfan.telemetry.http_connections.BoundedServer.service_actions", Broken(SystemExit(1))
    )
    scene.run()
    assert scene.end() == os.EX_SOFTWARE


def test_a_thread_that_returns_unasked_is_a_fault_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan.pipeline.worker.SinkWorker._run", lambda _: None)
    scene.run()
    wait_until(lambda: "sink-one ended without" in scene.get("/readyz")[1], "it is reported")
    assert scene.end() == os.EX_SOFTWARE


@pytest.mark.parametrize("name", ["http", "consumer", "dead-letters", "sink-one"])
def test_a_thread_that_the_system_does_not_give_is_a_fault(
    name: str, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    scene.may_end.set()
    scene.run()
    assert scene.end() == os.EX_SOFTWARE
    assert f"thread {name} cannot be started: RuntimeError: can't start" in caplog.text


def test_a_fault_while_it_drains_ends_the_drain_and_is_70(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run()
    wait_until(lambda: "refused" in scene.get("/readyz")[1], "it tries to connect")
    monkeypatch.setattr("logfan.pipeline.sink_runner.SinkRunner.close", Broken(ValueError("a bug")))
    scene.daemon.stop()
    assert scene.end() == os.EX_SOFTWARE


def test_the_main_thread_is_one_of_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Daemon, "_tick", Broken(ValueError("a bug")))
    scene.run()
    assert scene.end() == os.EX_SOFTWARE
    assert "internal fault" in caplog.text


def test_one_that_may_end_is_none() -> None:
    ends: list[int] = []
    thread = OwnThread("one", lambda: None, lambda: ends.append(1))
    thread.may_end()
    thread.start()
    assert thread.join(60)
    assert thread.fault is None
    assert not ends


def test_one_that_is_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnThread, "_run", lambda _: None)
    thread = OwnThread("one", lambda: None, lambda: None)
    thread.start()
    assert thread.join(60)
    assert thread.fault == "thread one is gone"
