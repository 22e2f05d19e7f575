"""Sinks that need a server of their own, through the suite that authors of sinks are given."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from logfan.sink import Sink
from logfan.testing.conformance import SinkConformance
from logfan.testing.node import RabbitNode
from logfan_sinks.amqp import AmqpSink
from support.broker import Names, channel
from support.letters import bodies


class TestAmqp(SinkConformance):
    sink_class: ClassVar[type[Sink]] = AmqpSink

    @pytest.fixture(autouse=True)
    def _queue(self, node: RabbitNode, names: Names) -> None:
        self.node, self.queue = node, names.queue
        self.seen: list[bytes] = []
        with channel(node.url) as other:
            other.queue_declare(names.queue, durable=True)

    def options(self, folder: Path) -> dict[str, Any]:
        return {"url": self.node.url, "exchange": "", "routing_key": self.queue}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        self.seen += bodies(self.node.url, self.queue)
        return self.seen
