"""RabbitMQ's own log, events and trace, collected with the configs of the page for operators."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from logfan.testing.node import RabbitNode
from support import broker
from support.broker import Names, listed
from support.daemon import DaemonProcess
from support.needed import needed
from support.waiting import wait_until

PAGE = Path(__file__).parents[2] / "plugins/docs/publishers.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
EXCHANGES = ("amq.rabbitmq.log", "amq.rabbitmq.event", "amq.rabbitmq.trace")
LOG = re.findall(r"^```ini\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0].splitlines()


@pytest.fixture(scope="module")
def telling_node() -> Iterator[RabbitNode]:
    """A broker that publishes its log and its events."""
    with needed(), RabbitNode(plugins=["rabbitmq_event_exchange"], config=LOG) as node:
        # It makes the one of its log a moment after it listens.
        wait_until(partial(has_exchanges, node), "the broker has its exchanges")
        yield node


def has_exchanges(node: RabbitNode) -> bool:
    lines = "".join(listed(node, broker.EXCHANGES))
    return all(f'"{exchange}"' in lines for exchange in EXCHANGES)


def daemon_of(exchange: str, node: RabbitNode, folder: Path) -> DaemonProcess:
    (block,) = [block for block in BLOCKS if f'name = "{exchange}"' in block]
    daemon = DaemonProcess(
        folder, node.url, Names(exchange, "unused"), "",
        environ={"LOGFAN_RABBITMQ__URLS": json.dumps([node.url])},
    )  # fmt: skip
    daemon.config.write_text(block)
    return daemon


def refuse(node: RabbitNode) -> None:
    """A login with a wrong password."""
    parameters = pika.URLParameters(node.url)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with suppress(AMQPError):
        pika.BlockingConnection(parameters).close()


def broker_log(node: RabbitNode) -> str:
    return (node._folder / "node.log").read_text(errors="replace")


def test_the_log_is_collected_and_logfan_is_no_trouble_in_it(
    telling_node: RabbitNode, tmp_path: Path
) -> None:
    with daemon_of("amq.rabbitmq.log", telling_node, tmp_path) as daemon:
        # The first start asks whether its queues are there, and the broker logs that they are not.
        wait_until(
            lambda: (
                "no queue 'logfan-broker-log.dead'" in broker_log(telling_node)
                and "logfan-broker-log.dead" in "".join(listed(telling_node, broker.QUEUES))
            ),
            "both queues are there",
        )
        assert daemon.stop() == 0
        before = len(broker_log(telling_node))
        daemon.start()
        refuse(telling_node)
        path = tmp_path / "broker.log"
        wait_until(lambda: path.exists() and "login refused" in path.read_text(), "it is written")
        (line,) = [line for line in path.read_text().splitlines() if "login refused" in line]
        assert re.match(r"\d{4}-\d\d-\d\d .* \[error\] <", line)
        assert "\\n" in line  # two lines of the broker's are one record
        assert daemon.stop() == 0
    assert "warning" not in daemon.log().lower()
    written = broker_log(telling_node)[before:]
    troubles = [line for line in written.splitlines() if re.search(r"\[(warning|error)\]", line)]
    assert troubles
    # What it logs of the refused login, in the words of several versions.
    of_login = re.compile("invalid credentials|state: starting")
    assert [line for line in troubles if not of_login.search(line)] == []


def test_events_are_counted_and_chosen(telling_node: RabbitNode, tmp_path: Path) -> None:
    with daemon_of("amq.rabbitmq.event", telling_node, tmp_path) as daemon:
        refuse(telling_node)
        refused = tmp_path / "refused.jsonl"
        wait_until(lambda: refused.exists() and refused.read_bytes(), "the refusal is written")
        event = json.loads(refused.read_text().splitlines()[0])
        assert event["routing_key"] == "user.authentication.failure"
        assert event["headers"]["name"] == "guest"
        series = 'rabbitmq_events_total{event="user.authentication.failure"}'
        wait_until(lambda: daemon.metric(series) == 1, "it is counted")


def test_a_trace_holds_what_was_published(telling_node: RabbitNode, tmp_path: Path) -> None:
    with daemon_of("amq.rabbitmq.trace", telling_node, tmp_path) as daemon:
        telling_node.eval('rabbit_trace:start(<<"/">>).')
        connection = pika.BlockingConnection(pika.URLParameters(telling_node.url))
        connection.channel().basic_publish("amq.fanout", "shop.error", b"error: payment failed")
        connection.close()
        path = tmp_path / "trace.jsonl"
        wait_until(lambda: path.exists() and path.read_bytes(), "the copy is written")
        telling_node.eval('rabbit_trace:stop(<<"/">>).')
        assert daemon.stop() == 0
        (copy,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert copy["body"] == "error: payment failed"
    assert copy["headers"]["exchange_name"] == "amq.fanout"
