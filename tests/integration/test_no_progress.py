"""Coming back without progress is no way back: a short consumer_timeout, a message that cannot be
delivered."""

import os
from collections import Counter
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.amqp10 import publish_undeliverable, take_one
from support.broker import Names, channel, publish, waiting
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.needed import needed
from support.waiting import wait_until

HANGING = """
import logfan, pathlib, time


class Hanging(logfan.Sink):
    def write(self, records):
        while not pathlib.Path("go").exists():
            time.sleep(0.01)


@logfan.hookimpl
def register_sinks(register):
    register("hanging", Hanging)
"""


def times_written(folder: Path) -> Counter[bytes]:
    return Counter((folder / "raw.log").read_bytes().splitlines())


@pytest.mark.long
def test_a_consumer_timeout_that_is_shorter_is_learned_and_named(
    fresh_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """RabbitMQ 4.3 has it for quorum queues only, and cancels the consumer."""
    fresh_node.eval(
        "application:set_env(rabbit, consumer_timeout, 10000), "
        "application:set_env(rabbit, channel_tick_interval, 1000).",
    )
    add_drop_in(tmp_path, "hanging", HANGING)
    sinks = RAW + '[sinks.hanging]\nkind = "hanging"\n'
    environ = {"LOGFAN_QUEUE__TYPE": "quorum"}
    with DaemonProcess(tmp_path, fresh_node.url, names, sinks, environ=environ) as daemon:
        publish(fresh_node.url, names.exchange, (b"%d" % n for n in range(100)))
        wait_until(lambda: "set rabbitmq.acknowledgement_timeout" in daemon.log(), "learned")
        wait_until(
            lambda: (
                "waiting for sink hanging to go on" in daemon.get("/readyz")[1]
                or "handed back to the broker" in daemon.log()  # RabbitMQ 4.3
            ),
            "it gets nothing, or hands that back in time",
        )
        assert daemon.metric('logfan_connections_total{outcome="lost"}') == 1
        # Three of its timeouts later nothing has been written again: the sink hangs still.
        before = daemon.metric("logfan_received_messages_total")
        fresh_node.eval("timer:sleep(30000).")
        assert daemon.metric("logfan_received_messages_total") == before
        assert daemon.metric('logfan_connections_total{outcome="lost"}') == 1
        assert max(times_written(tmp_path).values()) <= 2
        assert daemon.get("/readyz")[0] == 503
        (tmp_path / "go").touch()
        wait_until(lambda: daemon.acked() == 100, "all is acknowledged")
        assert daemon.stop() == 0


def version_with_amqp10() -> RabbitNode:
    """RabbitMQ 4 and later speak it without a plugin."""
    asked = os.environ.get("PRIVATE_RABBITMQ", "")
    with needed():
        return RabbitNode(version=asked if asked.startswith("4") else "4.0")


@pytest.mark.parametrize("kind", ["classic", pytest.param("quorum", marks=pytest.mark.long)])
def test_what_stands_before_a_message_that_cannot_be_delivered_passes_and_it_is_reported(
    names: Names, tmp_path: Path, kind: str
) -> None:
    with version_with_amqp10() as node:
        with channel(node.url) as admin:
            admin.exchange_declare(names.exchange, "fanout")
        # Six attempts or more before it is known: with the usual back-off a minute, or two.
        environ = {"LOGFAN_QUEUE__TYPE": kind, "LOGFAN_RABBITMQ__RECONNECT__MAX": "1s"}
        daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
        with daemon:
            pass
        publish(node.url, names.exchange, (b"%d" % n for n in range(50)))
        publish_undeliverable(node.url, names.exchange, b"poison")
        publish(node.url, names.exchange, (b"%d" % n for n in range(50, 100)))
        with daemon:
            words = "the broker fails to deliver the message at its head"
            wait_until(lambda: words in daemon.log(), "it is logged")
            assert f"queue {names.queue}: {words}" in daemon.log()
            written = times_written(tmp_path)
            # A quorum queue puts what was returned behind the others.
            assert set(written) >= {b"%d" % n for n in range(50)}
            # RabbitMQ 4.3 returns what a lost connection had a moment later.
            wait_until(
                lambda: node.ready(names.queue) == 101 - len(times_written(tmp_path)),
                "the others wait",
            )
            assert max(written.values()) <= 4
            wait_until(lambda: take_one(node.url, names.queue, b"poison"), "it is taken away")
            wait_until(lambda: len(times_written(tmp_path)) == 100, "what stood behind comes")
            wait_until(lambda: waiting(node.url, names.queue) == 0, "the queue is empty")
            assert max(times_written(tmp_path).values()) <= 4
            assert daemon.stop() == 0
