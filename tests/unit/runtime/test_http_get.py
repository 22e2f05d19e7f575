"""A GET of what does not end."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from logfan.runtime.http_get import http_get, is_logfan

HEAD = b"HTTP/1.0 200 OK\r\nX: "
BEGINNINGS = {"status line": b"HTTP", "headers": HEAD, "body": HEAD + b"y\r\n\r\n"}


@pytest.fixture(params=BEGINNINGS)
def trickling(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that goes on and on, a byte at a time."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    client.sendall(BEGINNINGS[request.param])
                    while not over.wait(0.02):
                        client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.timeout(60)
def test_an_answer_that_trickles_ends_in_time(trickling: str) -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        http_get(trickling, seconds=0.3, most_bytes=1 << 20)
    assert not is_logfan(trickling, 0.3)
    assert time.monotonic() - before < 30
