"""Signals at odd moments of a daemon's life, and a standard error that nobody reads."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.command import start
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import PATIENCE_SECONDS, wait_until

STOPS = [signal.SIGTERM, signal.SIGINT]
SLOW = """
import pathlib, time
pathlib.Path("loading").touch()
time.sleep(3600)
"""
HOLDS_THE_PROCESS = '''
import threading, time, logfan

class Hold(logfan.Sink):
    """Leaves a thread behind."""

    def open(self):
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("hold", Hold)
'''


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_while_plugins_are_loaded_ends_it_at_once(
    number: signal.Signals, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "slow", SLOW)
    with DaemonProcess(tmp_path, node.url, names, RAW).unready() as daemon:
        wait_until((tmp_path / "loading").exists, "a plugin is being loaded")
        daemon.signal(number)
        assert daemon.wait() == 0
        assert daemon.log() == ""


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_after_the_stop_leaves_its_exit_code(
    number: signal.Signals, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "hold", HOLDS_THE_PROCESS)
    with DaemonProcess(tmp_path, node.url, names, '[sinks.h]\nkind = "hold"\n') as daemon:
        daemon.signal(number)
        wait_until(lambda: daemon.get("/healthz")[0] == 0, "it has stopped")
        while "left behind" not in daemon.log():
            daemon.signal(number)
            time.sleep(0.01)
        assert daemon.wait() == 0


def test_hangups_without_end_starve_neither_the_watchdog_nor_a_stop(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    heard = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "60000000"}
        with DaemonProcess(tmp_path, node.url, names, RAW, environ=environ) as daemon:
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: "unchanged" in daemon.log(), "it reloads")
            heard = ""
            hangups = 0
            until = time.monotonic() + PATIENCE_SECONDS
            # More than it can serve one by one.
            while heard.count("WATCHDOG=1") < 2 or hangups < 1000:
                assert time.monotonic() < until, f"the watchdog is fed: {heard[-500:]}"
                daemon.signal(signal.SIGHUP)
                hangups += 1
                with suppress(BlockingIOError):
                    while True:
                        heard += systemd.recv(4096).decode() + "\n"
                time.sleep(0.001)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0


@contextmanager
def unread(daemon: DaemonProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon, ready, with a standard error that is full."""
    read, write = os.pipe()
    process = start(
        ["run", "--config", str(daemon.config)], folder=daemon.folder,
        environ={**os.environ, "LOGFAN_HTTP__LISTEN": f"127.0.0.1:{daemon.port}"},
        stdout=write, stderr=write, forked=False,
    )  # fmt: skip
    assert isinstance(process, subprocess.Popen)
    try:
        wait_until(lambda: daemon.get("/readyz")[0] == 200, "the daemon is ready")
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"x")
        os.set_blocking(write, True)
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)


def test_a_standard_error_that_nobody_reads_holds_up_neither_messages_nor_the_stop(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    daemon = DaemonProcess(tmp_path, node.url, names, RAW)
    with unread(daemon) as process:
        node.close_all_connections()  # the consumer's thread logs that
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_a_second_signal_ends_it_although_nobody_reads_standard_error(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    full = RAW.replace("raw.log", "/dev/full")
    daemon = DaemonProcess(tmp_path, node.url, names, full)
    with unread(daemon) as process:
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 1, "it is held")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in daemon.get("/readyz")[1], "it drains")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 75
