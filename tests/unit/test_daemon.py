"""What systemd hears of a running daemon: ready in time, alive only while it makes progress."""

import gc
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan.config.loader import prepare
from logfan.daemon import Daemon, _Signal
from logfan.pipeline import assembly
from support.drop_ins import add_drop_in
from support.waiting import wait_until

HANGING = '''
import threading, logfan

class Hang(logfan.Sink):
    """Hangs in open until it is let go."""
    let_go = threading.Event()

    def open(self):
        self.let_go.wait(60)

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("hang", Hang)
'''


class Systemd:
    """The socket that systemd would listen at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(tmp_path / "notify")
    yield one
    one.close()


def daemon(folder: Path, systemd: Systemd, sink: str, startup: str = "retry") -> Daemon:
    plugins = add_drop_in(folder, "hang", HANGING)
    config = folder / "config.toml"
    config.write_text(
        f'shutdown_timeout = "1s"\n[rabbitmq]\nurls = ["amqp://127.0.0.1:1"]\n'
        f'startup = "{startup}"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[plugins]\ndirectories = ["{plugins}"]\n[sinks.one]\nkind = "{sink}"\n'
    )
    environ = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "60000000"}
    environ["WATCHDOG_PID"] = str(os.getpid())
    prepared = prepare(config, environ={})
    return Daemon(prepared, lambda: prepare(config, environ={}), environ=environ)


class Running:
    """A daemon on a thread; its exit code."""

    def __init__(self, one: Daemon) -> None:
        self.daemon = one
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.code = self.daemon.run()

    def stop(self) -> int | None:
        self.daemon.stop()
        self._thread.join(60)
        return self.code

    def join(self) -> int | None:
        self._thread.join(60)
        return self.code


@pytest.mark.slow
def test_a_hanging_sink_feeds_no_watchdog_and_a_working_one_does(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "HANG_SECONDS", 0.01)
    one = daemon(tmp_path, systemd, "hang")
    sink: Any = one._pipeline.workers[0]._runner._sink
    running = Running(one)
    try:
        wait_until(lambda: any("hangs" in line for line in systemd.listen()), "systemd hears of it")
        assert "READY=1" in systemd.heard
        assert "WATCHDOG=1" not in systemd.heard
        sink.let_go.set()
        wait_until(lambda: "WATCHDOG=1" in systemd.listen(), "a sign of life")
    finally:
        sink.let_go.set()
        assert running.stop() == 0
    assert "STOPPING=1" in systemd.listen()


def test_a_worker_that_a_reload_left_behind_is_forgotten_once_its_sink_has_returned(
    tmp_path: Path, systemd: Systemd
) -> None:
    """Else what it held stayed in memory until the next reload."""
    one = daemon(tmp_path, systemd, "hang")
    sink: Any = one._pipeline.workers[0]._runner._sink
    before = weakref.ref(one._pipeline.workers[0])
    running = Running(one)
    try:
        wait_until(one._pipeline.workers[0].busy_seconds, "it hangs")
        config = tmp_path / "config.toml"
        config.write_text(config.read_text().replace('"1s"', '"2s"'))
        one._events.put(_Signal.RELOAD)
        wait_until(lambda: one._pipeline.workers[0] is not before(), "it is reloaded")
        wait_until(lambda: "since before the reload" in one.status_text(), "it is waited for")
        sink.let_go.set()
        del sink
        wait_until(lambda: one._pipeline.workers[0].is_up, "it is opened once more")
        wait_until(lambda: gc.collect() >= 0 and before() is None, "the old one is forgotten", 20.0)
    finally:
        one._pipeline.workers[0]._runner._sink.let_go.set()  # type: ignore[attr-defined]
        assert running.stop() == 0


def test_with_startup_fail_it_is_not_ready_before_it_is_subscribed(
    tmp_path: Path, systemd: Systemd
) -> None:
    running = Running(daemon(tmp_path, systemd, "stdout", "fail"))
    assert running.join() == 69
    assert "READY=1" not in systemd.listen()
    assert any("connection refused" in line for line in systemd.heard)
