"""Messages wait in the queue and the broker delivers none: a consumer that it forgot, and one that
stands by."""

import json
from pathlib import Path

from logfan.testing.node import RabbitNode
from support.broker import Names, channel, publish
from support.daemon import RAW, DaemonProcess
from support.waiting import wait_until

SECONDS = 1.0
CONSTANTS = {
    "logfan.pipeline.standstill.STANDSTILL_SECONDS": SECONDS,
    "logfan.amqp.queue_monitor.LOOK_SECONDS": 0.2,
}
LOST = 'logfan_connections_total{outcome="lost"}'
WORDS = "the broker has delivered none for"
WINDOW = 10


def daemon_of(folder: Path, node: RabbitNode, names: Names, **environ: str) -> DaemonProcess:
    folder.mkdir(exist_ok=True)
    return DaemonProcess(
        folder, node.url, names, RAW, extra=f"prefetch = {WINDOW}\n", constants=CONSTANTS,
        environ=environ,
    )  # fmt: skip


def seconds_of(daemon: DaemonProcess) -> float:
    """How long the daemon runs."""
    status = json.loads(daemon.get("/status.json")[1])
    return float(status["now"] - status["started_at"])


def test_a_consumer_that_the_broker_forgot_is_made_anew(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """RabbitMQ 3.10 sends no cancel where a quorum queue is deleted and declared again at once. It
    counts what the new one holds as delivered, up to the prefetch."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
    with daemon_of(tmp_path, node, names, LOGFAN_QUEUE__TYPE="quorum") as daemon:
        publish(node.url, names.exchange, [b"first"])
        wait_until(lambda: daemon.acked() == 1, "it is written")
        with channel(node.url) as admin:
            admin.queue_delete(names.queue)
            admin.queue_declare(names.queue, durable=True, arguments=arguments)
            admin.queue_bind(names.queue, names.exchange)
        bodies = {b"%d" % number for number in range(3 * WINDOW)}
        publish(node.url, names.exchange, sorted(bodies))
        raw = tmp_path / "raw.log"
        wait_until(lambda: bodies <= {*raw.read_bytes().splitlines()}, "all are written")
        assert daemon.metric(LOST) == 1
        wait_until(lambda: node.counts(names.queue).unacked == 0, "all are acknowledged")
        is_old = node.version.startswith("3.")
        assert (WORDS in daemon.log()) is is_old, daemon.log()
        assert daemon.stop() == 0


def test_a_consumer_that_stands_by_is_left_alone(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Of a queue with a single active consumer, which is another one, and is slow."""
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "fanout")
        other.queue_declare(names.queue, durable=True, arguments={"x-single-active-consumer": True})
        other.queue_bind(names.queue, names.exchange)
        other.basic_qos(prefetch_count=1)
        other.basic_consume(names.queue, lambda *_: None)
        publish(node.url, names.exchange, [b"one", b"two", b"three"])
        with daemon_of(tmp_path, node, names) as daemon:
            wait_until(lambda: daemon.metric("logfan_queue_ready_messages") == 2, "it sees two")
            enough = seconds_of(daemon) + 5 * SECONDS
            wait_until(lambda: seconds_of(daemon) > enough, "it has looked for long")
            assert daemon.metric("logfan_queue_ready_messages") == 2
            assert daemon.metric(LOST) == 0
            assert WORDS not in daemon.log()
            other.cancel()
            other.connection.close()
            wait_until(lambda: daemon.acked() == 3, "it is its turn")
            assert daemon.stop() == 0
