"""Just enough of a broker on a real socket: it lets one consumer in, then sends all at once."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pika import frame, spec

from guard.messages import messages, renumbered

_BLOCK = 1_000
_FRAMES_MAX = 131_072


class Flood:
    """Answers whatever it is asked, and floods who consumes."""

    def __init__(self, count: int) -> None:
        """`count`: how many messages."""
        self.count = count
        self.acks = 0
        """How many came in."""
        self.size = 0
        """Bytes of all deliveries."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._socket: socket.socket | None = None
        self._senders: list[threading.Thread] = []
        self._sending = threading.Lock()
        """So that an answer does not lie within a frame of the flood."""

    @contextmanager
    def running(self) -> Iterator["Flood"]:
        """Serve one connection until it is closed, or until the end of the `with`."""
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._listening.close()
            if self._socket is not None:
                self._socket.close()
            for one in (thread, *self._senders):
                one.join(10.0)

    def _serve(self) -> None:
        try:
            self._socket, _ = self._listening.accept()
            self._answer_all(self._socket)
        except OSError:
            return  # the test is over

    def _answer_all(self, peer: socket.socket) -> None:
        data = b""
        while more := peer.recv(65536):
            data += more
            while True:
                taken, value = frame.decode_frame(data)
                if value is None:
                    break
                data = data[taken:]
                if isinstance(value, frame.ProtocolHeader):
                    self._say(peer, 0, _START)
                elif isinstance(value, frame.Method):
                    self._answer(peer, value.channel_number, value.method)

    def _answer(self, peer: socket.socket, channel: int, method: Any) -> None:
        if isinstance(method, spec.Basic.Ack):
            self.acks += 1
            return
        known = _ANSWERS.get(type(method))
        if known is not None:
            self._say(peer, channel, known)
        if isinstance(method, spec.Basic.Consume):
            self._say(peer, channel, spec.Basic.ConsumeOk(method.consumer_tag))
            sender = threading.Thread(
                target=self._send, args=(peer, method.consumer_tag), daemon=True
            )
            self._senders.append(sender)
            sender.start()

    def _say(self, peer: socket.socket, channel: int, method: Any) -> None:
        with self._sending:
            peer.sendall(frame.Method(channel, method).marshal())

    def _send(self, peer: socket.socket, consumer_tag: str) -> None:
        block = messages(_BLOCK, consumer_tag)
        tags = range(1, self.count + 1, _BLOCK)
        data = b"".join(renumbered(block, consumer_tag, tag) for tag in tags)
        self.size = len(data)
        with self._sending, suppress(OSError):  # it may have had enough
            peer.sendall(data)


_START = spec.Connection.Start(
    0, 9, {"product": "RabbitMQ", "version": "3.13.0", "capabilities": {"basic.nack": True}},
    "PLAIN", "en_US",
)  # fmt: skip
_ANSWERS = {
    spec.Connection.StartOk: spec.Connection.Tune(2047, _FRAMES_MAX, 0),
    spec.Connection.Open: spec.Connection.OpenOk(),
    spec.Connection.Close: spec.Connection.CloseOk(),
    spec.Channel.Open: spec.Channel.OpenOk(),
    spec.Channel.Close: spec.Channel.CloseOk(),
    spec.Exchange.Declare: spec.Exchange.DeclareOk(),
    spec.Queue.Declare: spec.Queue.DeclareOk("logfan", 0, 0),
    spec.Queue.Bind: spec.Queue.BindOk(),
    spec.Basic.Qos: spec.Basic.QosOk(),
}
"""A broker's answers to what a client sends."""
