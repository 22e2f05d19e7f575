"""Sinks that need a server of their own, through the suite that authors of sinks are given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from logfan.sink import Sink
from logfan.testing.conformance import Break, How, SinkConformance
from logfan.testing.node import RabbitNode
from logfan_sinks.amqp import AmqpSink
from support.broker import Names, channel
from support.gate import Gate
from support.letters import bodies


class TestAmqp(SinkConformance):
    sink_class: ClassVar[type[Sink]] = AmqpSink

    cannot = dict.fromkeys(("slow", "refuses"), "tests/integration/sinks/test_amqp.py shows it")

    @pytest.fixture(autouse=True)
    def _queue(self, node: RabbitNode, names: Names) -> Iterator[None]:
        self.node, self.queue = node, names.queue
        self.seen: list[bytes] = []
        with channel(node.url) as other:
            other.queue_declare(names.queue, durable=True)
        with Gate(node.port) as self.gate:
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        url = self.node.url.replace(f":{self.node.port}", f":{self.gate.port}")
        return {"url": url, "exchange": "", "routing_key": self.queue}

    def break_it(self, how: How, folder: Path) -> Break:
        return self.gate.shut, self.gate.open

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        self.seen += bodies(self.node.url, self.queue)
        return self.seen
