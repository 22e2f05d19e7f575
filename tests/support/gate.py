"""A TCP gate in front of a server: open, shut, silent, slow, or stalled within the handshake."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from logfan.testing.node import free_port

_SLOW_BYTES, _SLOW_PAUSE_SECONDS = 4096, 0.02


class Gate:
    """Forwards connections on a port of its own that stays the same."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self.slow_seconds = 0.0
        """Set before `open`: for so long each new connection takes little at a time, steadily."""
        self.connections = 0
        """How many came."""
        self.stall_after: int | None = None
        """So many bytes of the broker's pass on each new connection, and nothing after them."""
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def open(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        if self.slow_seconds:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BYTES)
        self._run(self._serve, self._listener)

    def freeze(self) -> None:
        """Take connections and bytes, and pass nothing on until `thaw`."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on again what came."""
        self._flows.set()

    def shut(self) -> None:
        """Refuse connections, and cut those that there are."""
        self.thaw()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()
        self._open.clear()
        self._threads.clear()

    def _run(self, call: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._target))
                for one in (client, broker):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, broker]
                self._run(self._relay, client, broker, self.stall_after)
                self.connections += 1

    def _relay(self, client: socket.socket, broker: socket.socket, most: int | None) -> None:
        with client, broker:
            back = threading.Thread(target=self._pump, args=(broker, client, most), daemon=True)
            back.start()
            self._trickle(client, broker)
            self._pump(client, broker, None)
            back.join()

    def _trickle(self, client: socket.socket, broker: socket.socket) -> None:
        end = time.monotonic() + self.slow_seconds
        with suppress(OSError):
            while time.monotonic() < end and (data := client.recv(_SLOW_BYTES)):
                broker.sendall(data)
                time.sleep(_SLOW_PAUSE_SECONDS)
            if self.slow_seconds:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def _pump(self, source: socket.socket, target: socket.socket, most: int | None) -> None:
        with suppress(OSError):
            while most != 0 and (data := source.recv(most or 65536)):
                self._flows.wait()
                target.sendall(data)
                most = None if most is None else most - len(data)
        if most == 0:
            return  # it stays open, and sends nothing more
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
