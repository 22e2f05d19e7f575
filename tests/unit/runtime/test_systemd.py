"""The notify protocol, heard by a real datagram socket in systemd's place."""

import logging
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logfan.runtime.systemd import Notifier


class Systemd:
    """A datagram socket that hears what systemd would hear."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def hear(self) -> str:
        """The next datagram."""
        return self._socket.recv(65536).decode()

    def hears_nothing(self) -> bool:
        """Whether no datagram waits: they arrive before the sender's call returns."""
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    abstract = f"@logfan-test-{os.getpid()}-{id(request)}"
    heard = Systemd(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield heard
    heard.close()


@pytest.fixture
def notifier(systemd: Systemd) -> Iterator[Notifier]:
    notifier = Notifier(systemd.address, watchdog_seconds=30.0)
    yield notifier
    notifier.close()


def test_each_state_is_one_datagram_of_the_protocol(systemd: Systemd, notifier: Notifier) -> None:
    notifier.ready()
    notifier.stopping()
    notifier.watchdog()
    notifier.status("consuming")
    heard = [systemd.hear() for _ in range(4)]
    assert heard == ["READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=consuming"]


def test_a_reload_carries_the_monotonic_time_in_microseconds(
    systemd: Systemd, notifier: Notifier
) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    state, _, stamp = systemd.hear().partition("\n")
    assert state == "RELOADING=1"
    name, _, value = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


def test_a_status_is_sent_only_where_it_changed(systemd: Systemd, notifier: Notifier) -> None:
    notifier.status("consuming")
    notifier.status("consuming")
    notifier.status("stuck")
    assert [systemd.hear(), systemd.hear()] == ["STATUS=consuming", "STATUS=stuck"]
    assert systemd.hears_nothing()


@pytest.mark.parametrize(
    "separator", ["\n", "\r\n", "\0", "\x0b", "\x85", "\u2028", "\x1b[2J"], ids=ascii
)
def test_a_status_cannot_carry_a_second_line(
    systemd: Systemd, notifier: Notifier, separator: str
) -> None:
    notifier.status(f"sink down:{separator}READY=1")
    heard = systemd.hear()
    assert heard.startswith("STATUS=sink down: ")
    assert heard.isprintable()


def test_a_long_status_is_cut_between_characters(systemd: Systemd, notifier: Notifier) -> None:
    notifier.status("ä" * 5000)
    text = systemd.hear().removeprefix("STATUS=")
    assert set(text) == {"ä"}
    assert 400 <= len(text.encode()) <= 500


def test_a_status_that_is_no_unicode_is_still_sent(systemd: Systemd, notifier: Notifier) -> None:
    notifier.status("cannot open caf\udce9.log")
    assert systemd.hear().startswith("STATUS=cannot open caf")


def test_without_a_watchdog_no_sign_of_life_is_sent(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    notifier.watchdog()
    assert systemd.hears_nothing()
    notifier.close()


def test_without_a_socket_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    notifier.ready()
    notifier.status("consuming")
    notifier.close()
    assert notifier.watchdog_seconds is None


def test_after_close_nothing_is_sent(systemd: Systemd, notifier: Notifier) -> None:
    notifier.close()
    notifier.ready()
    assert systemd.hears_nothing()


def test_the_environment_is_read_and_cleared_for_children(systemd: Systemd) -> None:
    environ = {
        "NOTIFY_SOCKET": systemd.address,
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/usr/bin",
    }
    notifier = Notifier.from_environment(environ)
    notifier.ready()
    assert systemd.hear() == "READY=1"
    assert notifier.watchdog_seconds == 60.0
    assert environ == {"PATH": "/usr/bin"}
    notifier.close()


@pytest.mark.parametrize(
    ("pid", "usec", "expected"),
    [
        (None, "2000000", 2.0),
        ("ours", "500000", 0.5),
        ("1", "2000000", None),
        (None, "0", None),
        (None, "", None),
        (None, "soon", None),
        (None, "-5", None),
        (None, "²", None),
    ],
)
def test_the_watchdog_is_ours_only_where_systemd_says_so(
    pid: str | None, usec: str, expected: float | None
) -> None:
    pid = str(os.getpid()) if pid == "ours" else pid
    environ = {"WATCHDOG_USEC": usec} | ({} if pid is None else {"WATCHDOG_PID": pid})
    assert Notifier.from_environment(environ).watchdog_seconds == expected


def test_a_vanished_socket_is_reported_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="logfan.runtime.systemd")
    notifier = Notifier(str(tmp_path / "gone"), watchdog_seconds=1.0)
    notifier.ready()
    notifier.watchdog()
    notifier.status("consuming")
    notifier.close()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_socket_that_comes_back_is_heard_again(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    notifier = Notifier(path, watchdog_seconds=1.0)
    notifier.watchdog()
    systemd = Systemd(path)
    notifier.watchdog()
    assert systemd.hear() == "WATCHDOG=1"
    notifier.close()
    systemd.close()


@pytest.mark.parametrize("address", ["/" + "x" * 200, "relative", "vsock:2:1234", "@" + "y" * 200])
def test_an_address_that_cannot_be_used_hurts_nobody(address: str) -> None:
    notifier = Notifier(address)
    notifier.ready()
    notifier.close()


def _fill(systemd: Systemd) -> int:
    """Send until the socket takes no more; how many it took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        address = systemd.address
        target = "\0" + address[1:] if address.startswith("@") else address
        for count in range(100_000):
            try:
                sender.sendto(b"NOISE=1", socket.MSG_DONTWAIT, target)
            except BlockingIOError:
                return count
    raise AssertionError("the socket never filled up")


def test_ready_is_owed_where_the_socket_is_full_and_paid_in_order(
    systemd: Systemd, notifier: Notifier
) -> None:
    noise = _fill(systemd)
    began = time.monotonic()
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    assert time.monotonic() - began < 20.0, "a full socket must not block the daemon"
    assert {systemd.hear() for _ in range(noise)} == {"NOISE=1"}
    assert systemd.hears_nothing()
    notifier.watchdog()
    assert [systemd.hear() for _ in range(3)] == ["READY=1", "STOPPING=1", "WATCHDOG=1"]


def test_a_status_that_found_the_socket_full_is_sent_again(
    systemd: Systemd, notifier: Notifier
) -> None:
    noise = _fill(systemd)
    notifier.status("consuming")
    for _ in range(noise):
        systemd.hear()
    notifier.status("consuming")
    assert systemd.hear() == "STATUS=consuming"
