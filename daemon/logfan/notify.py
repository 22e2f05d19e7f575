"""systemd's notify protocol: state and liveness as datagrams to the socket that systemd names."""

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

log = logging.getLogger(__name__)

_STATUS_LENGTH = 500


class Notifier:
    """Tells systemd what the daemon does. Without a socket it tells nobody; it never raises."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        """`address`: a path, or an abstract name that begins with @."""
        self.watchdog_seconds = watchdog_seconds
        """How long systemd waits for a sign of life; None where it does not wait."""
        self._address = address
        self._status = ""
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """As systemd set it. The variable is taken out, so that no child speaks in our name."""
        address = environ.get("NOTIFY_SOCKET")
        if isinstance(environ, MutableMapping):
            environ.pop("NOTIFY_SOCKET", None)
        pid = environ.get("WATCHDOG_PID", "")
        usec = environ.get("WATCHDOG_USEC", "")
        meant_for_us = pid in ("", str(os.getpid()))
        seconds = int(usec) / 1e6 if usec.isdigit() and meant_for_us else 0.0
        return cls(address or None, seconds or None)

    def ready(self) -> None:
        """Started, or reloaded."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """A sign of life."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows, sent where it changed."""
        line = " ".join(text.split())[:_STATUS_LENGTH]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None or self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(message.encode(), socket.MSG_DONTWAIT, address)
        except OSError as error:
            log.debug("systemd was not told: %s", error)
