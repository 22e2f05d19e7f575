"""A TCP relay in front of a broker that cuts the connection after so many bytes."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Relay:
    """Relays one connection. `cut_after`: bytes from the client, the last of which arrive."""

    def __init__(self, port: int, *, cut_after: int) -> None:
        self._target = port
        self._left = cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with client, socket.create_connection(("127.0.0.1", self._target)) as broker:
                back = threading.Thread(target=self._pump, args=(broker, client), daemon=True)
                back.start()
                while self._left > 0 and (data := client.recv(min(4096, self._left))):
                    broker.sendall(data)
                    self._left -= len(data)
                for side in (client, broker):
                    with suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
                back.join(5)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
