"""What the sample shows of messages, on a real broker; it takes nothing and leaves nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika

from logfan.doctor import sample
from logfan.testing.node import RabbitNode
from support.broker import QUEUE_NAMES, Names, channel, listed
from support.doctor import ADVICE, OK, SKIPPED, WARNING, examined

CHECKS = tuple(one.name for one in sample.CHECKS)


@contextmanager
def publisher(node: RabbitNode, names: Names, **properties: Any) -> Iterator[list[int]]:
    """Publishes until the end, and counts."""
    over, count = threading.Event(), [0]

    def publish() -> None:
        with channel(node.url) as out:
            while not over.wait(0.01):
                out.basic_publish(names.exchange, "", b"x", pika.BasicProperties(**properties))
                count[0] += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()


def test_messages_without_id_persistence_and_right_time(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_declare(names.queue, durable=True)
        admin.queue_bind(names.queue, names.exchange)
        before = listed(node, QUEUE_NAMES)
        with publisher(node, names, timestamp=int(time.time()) - 3600) as count:
            report = examined(tmp_path, node.url, names, checks=CHECKS, sample_seconds=0.5)
        assert listed(node, QUEUE_NAMES) == before
        # Not one was taken from the queue.
        assert node.ready(names.queue) == count[0]
    found = {check: report.one(check).severity for check in CHECKS}
    assert found == {
        "sample": OK, "message-ids": ADVICE, "persistence": WARNING, "timestamps": ADVICE,
    }  # fmt: skip


def test_messages_as_they_should_be(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        good = {"message_id": "a", "delivery_mode": 2, "timestamp": int(time.time())}
        with publisher(node, names, **good):
            report = examined(tmp_path, node.url, names, checks=CHECKS, sample_seconds=0.5)
    assert {one.severity for one in report.findings} == {OK}


def test_nothing_is_published_or_may_not_be_asked(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        report = examined(tmp_path, node.url, names, checks=CHECKS, sample_seconds=0.2)
        assert report.one("sample").severity is ADVICE
        assert report.one("persistence").severity is SKIPPED
        unasked = examined(tmp_path, node.url, names, checks=CHECKS)
        assert {unasked.one(check).severity for check in CHECKS} == {SKIPPED}
        admin.exchange_delete(names.exchange)
        other = {"alternate-exchange": "amq.fanout"}
        admin.exchange_declare(names.exchange, "fanout", arguments=other)
        report = examined(tmp_path, node.url, names, checks=CHECKS, sample_seconds=0.2)
        assert "alternate exchange" in report.one("sample").what
        assert report.one("sample").severity is SKIPPED
