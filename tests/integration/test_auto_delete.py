"""A queue that goes with its last consumer, or with its connection: a stop takes its backlog along
first, and what was delivered is written though the queue is gone."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pika
import pytest

from logfan.testing.node import RabbitNode
from support.broker import (
    ALL,
    Names,
    add_user,
    channel,
    declare_bound,
    delete_queue,
    permit,
    publish,
)
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

SLOW = """
import os
import time
import logfan

class Slow(logfan.Sink):
    class Config(logfan.SinkConfig):
        path: str
        seconds: float = 0.2

    def write(self, records):
        if os.path.exists("down"):
            raise logfan.SinkUnavailable("down")
        time.sleep(self.config.seconds)
        with open(self.config.path, "ab") as file:
            file.writelines(record.body[:6] + b"\\n" for record in records)

@logfan.hookimpl
def register_sinks(register):
    register("slow", Slow)
"""
LOST = 'logfan_connections_total{outcome="lost"}'
SINKS = '[sinks.raw]\nkind = "slow"\npath = "raw.log"'


def daemon(
    folder: Path, node: RabbitNode, names: Names, seconds: float = 0.2, **environ: str
) -> DaemonProcess:
    add_drop_in(folder, "slow", SLOW)
    (folder / "raw.log").touch()
    sinks = f"{SINKS}\nseconds = {seconds}"
    return DaemonProcess(
        folder, node.url, names, sinks, extra="prefetch = 10", environ=environ
    )  # fmt: skip


def lines(folder: Path) -> list[bytes]:
    return (folder / "raw.log").read_bytes().splitlines()


LARGE = [b"%06d" % number + bytes(4_000) for number in range(20)]


def user_of(names: Names) -> str:
    return f"user-{names.queue}"


@contextmanager
def unable_to_pause(folder: Path, node: RabbitNode, names: Names) -> Iterator[DaemonProcess]:
    """A daemon whose sink is down and has no room for `LARGE`, and whose user may let no other
    consumer keep the auto-delete queue meanwhile."""
    user = user_of(names)
    add_user(node, user)
    declare_bound(node.url, names, auto_delete=True)
    environ = {
        "LOGFAN_RABBITMQ__URLS": f'["{node.url.replace("guest:guest", f"{user}:secret")}"]',
        "LOGFAN_RABBITMQ__MAX_IN_FLIGHT_BYTES": "10KiB",
    }
    with daemon(folder, node, names, 0.0, **environ) as running:
        (folder / "down").touch()
        permit(node, user, (".*", ".*", "^logs-.*"))
        publish(node.url, names.exchange, LARGE)
        wait_until(lambda: "lets no other one keep it" in running.log(), "it is refused")
        yield running


def test_a_pause_waits_until_the_broker_lets_another_consumer_keep_the_queue(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Without one the queue would be deleted with all that waits in it."""
    with unable_to_pause(tmp_path, node, names) as running:
        requeued = running.metric("logfan_requeued_messages_total")
        permit(node, user_of(names), ALL)
        (tmp_path / "down").unlink()
        wait_until(lambda: len(lines(tmp_path)) == 20, "all are written")
        assert {*lines(tmp_path)} == {body[:6] for body in LARGE}
        assert running.metric("logfan_requeued_messages_total") - requeued < 1_000
        assert running.metric(LOST) == 0
        assert running.stop() == 0


def test_a_sink_that_hangs_gets_no_window_of_each_connection(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Else its memory grew with each connection that is lost."""
    environ = {
        "LOGFAN_RABBITMQ__ACKNOWLEDGEMENT_TIMEOUT": "3s",
        "LOGFAN_RABBITMQ__RECONNECT__MAX": "1s",
    }
    with daemon(tmp_path, node, names, 90.0, **environ) as running:
        publish(node.url, names.exchange, [b"%06d" % number for number in range(100)])
        for connection in range(1, 6):
            node.close_all_connections()
            wait_until(partial(_has_lost, running, connection), "it is known")
            wait_until(lambda: _waits(running) or running.is_ready(), "it is back")
            wait_until(lambda: running.metric("logfan_in_flight_messages") == 0, "none in flight")
        assert running.metric("logfan_received_messages_total") <= 20
        running.kill()


def test_what_waits_for_a_fuller_batch_keeps_no_one_from_the_next_connection(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """A sink that lingers for minutes is no sink that hangs: what it has comes again anyway."""
    sinks = '[sinks.raw.batch]\nlinger = "300s"\n[sinks.raw]\nkind = "slow"\npath = "raw.log"'
    add_drop_in(tmp_path, "slow", SLOW)
    (tmp_path / "raw.log").touch()
    with DaemonProcess(tmp_path, node.url, names, sinks, extra="prefetch = 10") as running:
        publish(node.url, names.exchange, [b"000000"])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 1, "it lingers")
        node.close_all_connections()
        wait_until(lambda: running.metric(LOST) == 1, "it is known")
        wait_until(running.is_ready, "it consumes again", 30.0)
        publish(node.url, names.exchange, [b"%06d" % number for number in range(1, 10)])
        wait_until(lambda: len(lines(tmp_path)) == 10, "the window is full, and written")
        assert running.stop() == 0


def _has_lost(running: DaemonProcess, connections: int) -> bool:
    return running.metric(LOST) == connections


@pytest.mark.parametrize("kind", ["auto-delete", "exclusive"])
def test_a_stop_consumes_the_backlog_of_a_queue_that_goes_with_it(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    if kind == "auto-delete":
        declare_bound(node.url, names, auto_delete=True)
    environ = {"LOGFAN_QUEUE__TYPE": "exclusive"} if kind == "exclusive" else {}
    with daemon(tmp_path, node, names, 0.2, **environ) as running:
        publish(node.url, names.exchange, [b"%06d" % number for number in range(100)])
        wait_until(lambda: len(lines(tmp_path)) > 0, "it has begun")
        assert running.metric("logfan_in_flight_messages") + len(lines(tmp_path)) < 100
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert set(lines(tmp_path)) == {b"%06d" % number for number in range(100)}


def test_what_was_delivered_is_written_though_its_queue_is_deleted_meanwhile(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon(tmp_path, node, names, seconds=7.0) as running:  # longer than between two looks
        publish(node.url, names.exchange, [b"%06d" % number for number in range(10)])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "all are in flight")
        running.signal(signal.SIGSTOP)  # so that it learns of both at once
        delete_queue(node.url, names.queue)
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGCONT)
        assert running.wait() == 0
        assert len(lines(tmp_path)) == 10


def test_what_a_stop_loses_of_a_queue_that_is_gone_is_named(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon(tmp_path, node, names, seconds=60.0, LOGFAN_SHUTDOWN_TIMEOUT="1s") as running:
        publish(node.url, names.exchange, [b"%06d" % number for number in range(10)])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "all are in flight")
        delete_queue(node.url, names.queue)
        wait_until(lambda: "the sinks go on with them" in running.log(), "it knows")
        running.signal(signal.SIGTERM)
        assert running.wait() == 75
        assert "stopping: draining 10 messages within 1 s" in running.log()
        assert "10 messages of a queue that is gone are lost" in running.log()


def test_what_a_stop_hands_back_to_a_queue_that_goes_with_it_is_named(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_SHUTDOWN_TIMEOUT": "1s", "LOGFAN_QUEUE__TYPE": "exclusive"}
    with daemon(tmp_path, node, names, seconds=60.0, **environ) as running:
        publish(node.url, names.exchange, [b"%06d" % number for number in range(12)])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the window is full")
        running.signal(signal.SIGTERM)
        assert running.wait() == 75
        assert "12 messages are lost with their queue" in running.log()


def test_what_waits_in_an_exclusive_queue_for_a_sink_that_never_opened_is_named_at_a_stop(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    sinks = '[sinks.raw]\nkind = "file"\npath = "file/raw.log"\n'
    environ = {"LOGFAN_QUEUE__TYPE": "exclusive"}
    with DaemonProcess(tmp_path, node.url, names, sinks, environ=environ).unready() as running:
        waits = "waiting for sink raw to open"
        wait_until(lambda: waits in running.get("/readyz")[1], "it is bound")
        publish(node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: running.metric("logfan_queue_ready_messages") == 2, "it knows")
        assert running.stop() == 0
        assert "2 messages, when last seen, are lost with their queue" in running.log()


@pytest.mark.parametrize(
    ("kind", "how"), [("exclusive", "closed"), ("classic", "deleted"), ("quorum", "deleted")]
)
def test_what_was_delivered_is_written_though_no_queue_has_it_any_more(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str, how: str
) -> None:
    """The queue went with its connection, or was deleted: it will not be delivered again."""
    bodies = [b"%06d" % number for number in range(10)]
    with daemon(tmp_path, node, names, seconds=1.0, LOGFAN_QUEUE__TYPE=kind) as running:
        publish(node.url, names.exchange, bodies[:1])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 1, "the sink has one")
        publish(node.url, names.exchange, bodies[1:])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the others wait")
        if how == "closed":
            node.close_all_connections()
        else:
            delete_queue(node.url, names.queue)
        wait_until(lambda: set(lines(tmp_path)) == {*bodies}, "all are written")
        assert running.metric("logfan_in_flight_messages") == 0
        wait_until(running.is_ready, "it consumes again")
        publish(node.url, names.exchange, [b"behind"])
        wait_until(lambda: b"behind" in lines(tmp_path), "it goes on")
        assert running.stop() == 0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_stop_right_after_the_queue_was_deleted_writes_what_was_delivered(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    """RabbitMQ 4.3 cancels a quorum queue's consumers before it deletes it: it is asked again."""
    bodies = [b"%06d" % number for number in range(10)]
    with daemon(tmp_path, node, names, seconds=1.0, LOGFAN_QUEUE__TYPE=kind) as running:
        publish(node.url, names.exchange, bodies)
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "all are in flight")
        delete_queue(node.url, names.queue)
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.log()
        assert {*lines(tmp_path)} == {*bodies}


def test_a_sink_that_is_down_with_the_window_of_a_queue_that_is_gone_gets_no_other_one(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The next queue fills meanwhile: a second window would be lost with the second queue."""
    windows = [[b"%d%05d" % (window, number) for number in range(10)] for window in range(2)]
    with daemon(tmp_path, node, names, 0.0) as running:
        (tmp_path / "down").touch()
        publish(node.url, names.exchange, windows[0])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "all in flight")
        delete_queue(node.url, names.queue)
        wait_until(lambda: _waits(running), "it waits for the sink")
        publish(node.url, names.exchange, windows[1])
        assert node.ready(names.queue) == 10
        node.close_all_connections()
        wait_until(lambda: running.metric(LOST) == 2, "it is known")
        wait_until(lambda: _waits(running), "it waits for the sink again")
        (tmp_path / "down").unlink()
        wait_until(lambda: len(lines(tmp_path)) == 20, "both are written")
        assert {*lines(tmp_path)} == {*windows[0], *windows[1]}
        assert running.metric("logfan_received_messages_total") == 20
        assert running.stop() == 0


def _waits(running: DaemonProcess) -> bool:
    words = "waiting for sink raw to go on with messages of an earlier connection"
    return words in running.get("/readyz")[1]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_that_was_made_anew_before_it_is_asked_for_has_not_what_was_delivered(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    """Two daemons on one queue: where it is deleted, the faster one declares it again."""
    bodies = [b"%06d" % number for number in range(20)]
    folders = tmp_path / "fast", tmp_path / "slow"
    for folder in folders:
        folder.mkdir()
    with (
        daemon(folders[1], node, names, 3.0, LOGFAN_QUEUE__TYPE=kind) as slow,
        daemon(folders[0], node, names, 0.0, LOGFAN_QUEUE__TYPE=kind) as fast,
    ):
        publish(node.url, names.exchange, bodies)
        wait_until(lambda: slow.metric("logfan_in_flight_messages") == 10, "it has its half")
        wait_until(lambda: len(lines(folders[0])) == 10, "the other one has written its own")
        slow.signal(signal.SIGSTOP)
        delete_queue(node.url, names.queue)
        wait_until(lambda: fast.metric(LOST) == 1, "it knows")
        wait_until(fast.is_ready, "it declared the queue again")
        slow.signal(signal.SIGCONT)
        wait_until(lambda: len(lines(folders[1])) == 10, "all are written")
        assert {*lines(folders[0]), *lines(folders[1])} == {*bodies}
        assert "consumer_timeout" not in slow.log()


def test_what_was_delivered_is_written_though_the_connection_goes_with_its_queue(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The broker cancels the consumer, and the connection ends before it can be asked why."""
    bodies = [b"%06d" % number for number in range(10)]
    with daemon(tmp_path, node, names, seconds=3.0) as running:
        publish(node.url, names.exchange, bodies[:1])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 1, "the sink has one")
        publish(node.url, names.exchange, bodies[1:])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the others wait")
        running.signal(signal.SIGSTOP)  # so that it learns of both at once
        delete_queue(node.url, names.queue)
        node.close_all_connections()
        running.signal(signal.SIGCONT)
        wait_until(lambda: {*lines(tmp_path)} == {*bodies}, "all are written", 30.0)
        assert running.stop() == 0


@pytest.mark.parametrize("how", ["transient message", "transient queue"])
@pytest.mark.parametrize("end", ["restart", "kill"])
def test_what_a_restart_of_the_broker_loses_and_was_delivered_is_written(
    own_node: RabbitNode, names: Names, tmp_path: Path, how: str, end: str
) -> None:
    """Not acknowledged, and yet the broker does not deliver it again."""
    bodies = [b"%06d" % number for number in range(10)]
    properties = pika.BasicProperties(delivery_mode=1 if how == "transient message" else 2)
    with channel(own_node.url) as other:
        other.exchange_declare(names.exchange, "fanout", durable=True)
        if how == "transient queue":
            if own_node.version.startswith("4.3."):
                pytest.skip("RabbitMQ 4.3 declares no transient queue that is not exclusive")
            other.queue_declare(names.queue)
    with daemon(tmp_path, own_node, names, seconds=2.0) as running:
        with channel(own_node.url, confirms=True) as other:
            other.basic_publish(names.exchange, "", bodies[0], properties)
            wait_until(lambda: running.metric("logfan_in_flight_messages") == 1, "the sink has one")
            for body in bodies[1:]:
                other.basic_publish(names.exchange, "", body, properties)
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the others wait")
        if end == "kill":
            own_node.kill()
            own_node.start()
        else:
            own_node.restart()
        wait_until(lambda: {*lines(tmp_path)} == {*bodies}, "all are written")
        wait_until(running.is_ready, "it is back")
        assert running.stop() == 0, running.log()
        assert own_node.ready(names.queue) == 0


def test_what_is_persistent_waits_for_its_redelivery(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Each of the waiting messages is written once."""
    bodies = [b"%06d" % number for number in range(10)]
    with daemon(tmp_path, node, names, seconds=1.0) as running:
        publish(node.url, names.exchange, bodies[:1])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 1, "the sink has one")
        publish(node.url, names.exchange, bodies[1:])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the others wait")
        node.close_all_connections()
        wait_until(lambda: {*lines(tmp_path)} == {*bodies}, "all are written", 30.0)
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 0, "acknowledged")
        assert sorted(lines(tmp_path)) == [bodies[0], *bodies]
        assert running.stop() == 0


def test_a_stop_does_not_wait_until_another_consumer_may_keep_the_queue(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Nor is the backlog lost for that: what fits by now is consumed by the consumer that is
    there."""
    with unable_to_pause(tmp_path, node, names) as running:
        (tmp_path / "down").unlink()
        running.signal(signal.SIGTERM)
        assert running.wait(29.0) == 0, "within shutdown_timeout"
        assert {*lines(tmp_path)} == {body[:6] for body in LARGE}


def test_a_stop_whose_connection_goes_does_not_wait_for_the_backlog(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """It is lost with its exclusive queue, and that is named."""
    environ = {"LOGFAN_SHUTDOWN_TIMEOUT": "600s", "LOGFAN_QUEUE__TYPE": "exclusive"}
    with daemon(tmp_path, node, names, 1.0, **environ) as running:
        publish(node.url, names.exchange, [b"%06d" % number for number in range(100)])
        wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "the window is full")
        running.signal(signal.SIGTERM)
        wait_until(lambda: "consuming the backlog" in running.log(), "it consumes")
        node.close_all_connections()
        assert running.wait() == 0
        assert "messages, when last seen, are lost" in running.log()
        assert "the sinks go on with them" in running.log()
