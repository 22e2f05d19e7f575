"""systemd's notify protocol: state and liveness as datagrams to the socket that systemd names.

It touches that socket and nothing else. It never blocks and never raises: the daemon works the
same whether systemd listens or not. Any thread may call it.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, MutableMapping

log = logging.getLogger(__name__)

_STATUS_BYTES = 500
_OWED_MESSAGES = 8


class Notifier:
    """Reports to systemd what the daemon does. Without an address it sends nothing."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        """`address`: a path, or an abstract name that begins with @."""
        self.watchdog_seconds = watchdog_seconds
        """The interval in which systemd expects a notification; None without a watchdog."""
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self._status = ""
        self._complained = False
        # What systemd must not miss: without READY it would end a healthy start.
        self._owed: deque[str] = deque(maxlen=_OWED_MESSAGES)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        if address:
            try:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
                )
            except OSError as error:
                self._complain(error)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """As systemd set it. The variables are taken out, so that no child speaks in our name."""
        address = environ.get("NOTIFY_SOCKET")
        pid = environ.get("WATCHDOG_PID", "")
        usec = environ.get("WATCHDOG_USEC", "")
        if isinstance(environ, MutableMapping):
            for name in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
                environ.pop(name, None)
        meant_for_us = pid in ("", str(os.getpid()))
        seconds = int(usec) / 1e6 if usec.isdecimal() and meant_for_us else 0.0
        return cls(address or None, seconds or None)

    def ready(self) -> None:
        """Started, or reloaded."""
        self._send_surely("READY=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send_surely(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send_surely("STOPPING=1")

    def watchdog(self) -> None:
        """Feed the watchdog. Call it often: a notification that finds the socket full is lost."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows: one line of printable text, sent where it changed."""
        printable = "".join(char if char.isprintable() else " " for char in text)
        line = _cut(" ".join(printable.split()), _STATUS_BYTES)
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def close(self) -> None:
        """Close the socket; what comes later is not sent."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _send_surely(self, message: str) -> None:
        """Send now, or together with one of the next messages, in order."""
        with self._lock:
            self._owed.append(message)
            self._pay()

    def _send(self, message: str) -> bool:
        """False where systemd is too busy to take it now."""
        with self._lock:
            return self._pay() and self._transmit(message)

    def _pay(self) -> bool:
        while self._owed:
            if not self._transmit(self._owed[0]):
                return False
            self._owed.popleft()
        return True

    def _transmit(self, message: str) -> bool:
        """One datagram; False where another try makes sense, as the receiver's queue is full."""
        if self._socket is None or self._address is None:
            return True
        try:
            self._socket.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            self._complain(error)
            return True
        self._complained = False
        return True

    def _complain(self, error: OSError) -> None:
        """Log it once, until it works again: it changes nothing for the daemon's own work."""
        if not self._complained:
            self._complained = True
            log.debug("systemd cannot be notified: %s", error)


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, whole characters."""
    return text.encode()[:size].decode("utf-8", "ignore")
