"""Pauses reading of a connection for a moment: what is not read waits in the broker. Knows pika's
internals, for `connection.py` alone."""

import errno
import ssl
from typing import Any

_NEEDS = ("_sock", "_nbio", "_on_socket_readable", "_state")


class Hold:
    """Who holds one connection's reading: until the last has let go, nothing is read."""

    def __init__(self) -> None:
        self._holders = 0

    def begin(self, transport: Any) -> bool:
        """Hold pika's transport once more; False where its inside is not as expected."""
        if any(getattr(transport, name, None) is None for name in _NEEDS):
            return False
        if not self._holders:
            transport._nbio.remove_reader(transport._sock.fileno())
        self._holders += 1
        return True

    def end(self, transport: Any) -> None:
        """Let go of it. One that is ending, or has ended, is not read any more."""
        self._holders -= 1
        if self._holders or transport is None or transport._state != transport._STATE_ACTIVE:
            return
        transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)
        if _is_tls(transport):
            # What TLS has taken from the socket already makes that no more readable.
            transport._nbio.add_callback_threadsafe(transport._on_socket_readable)

    def check(self, transport: Any) -> None:
        """To be called before each read: while it is held, raises what tells pika that nothing is
        there. pika reads more than once in a turn of the loop, and has TLS do so without an
        event of the socket."""
        if not self._holders:
            return
        if _is_tls(transport):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "held")
        raise BlockingIOError(errno.EAGAIN, "held")


def _is_tls(transport: Any) -> bool:
    return hasattr(transport, "_ssl_readable_action")
