"""A queue that goes with its last consumer, or with its connection: a stop takes its backlog along
first, and what was delivered is written though the queue is gone."""

import signal
from functools import partial
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, channel, publish
from support.daemon import DaemonProcess
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
SINKS = '[sinks.raw]\nkind = "slow"\npath = "raw.log"'


def daemon(
    folder: Path, node: RabbitNode, names: Names, seconds: float = 0.2, **environ: str
) -> DaemonProcess:
    (folder / "plugins").mkdir()
    (folder / "plugins/slow.py").write_text(SLOW)
    (folder / "raw.log").touch()
    sinks = f"{SINKS}\nseconds = {seconds}"
    return DaemonProcess(
        folder, node.url, names, sinks, extra="prefetch = 10", environ=environ
    )  # fmt: skip


def lines(folder: Path) -> list[bytes]:
    return (folder / "raw.log").read_bytes().splitlines()


@pytest.mark.parametrize("kind", ["auto-delete", "exclusive"])
def test_a_stop_consumes_the_backlog_of_a_queue_that_goes_with_it(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    if kind == "auto-delete":
        with channel(node.url) as open_channel:
            open_channel.exchange_declare(names.exchange, "fanout")
            open_channel.queue_declare(names.queue, durable=True, auto_delete=True)
            open_channel.queue_bind(names.queue, names.exchange)
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
        with channel(node.url) as open_channel:
            open_channel.queue_delete(names.queue)
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
        with channel(node.url) as open_channel:
            open_channel.queue_delete(names.queue)
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
            with channel(node.url) as open_channel:
                open_channel.queue_delete(names.queue)
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
        with channel(node.url) as open_channel:
            open_channel.queue_delete(names.queue)
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.log()
        assert {*lines(tmp_path)} == {*bodies}


def _knows(running: DaemonProcess, windows: int) -> bool:
    return running.log().count("the queue is gone with 10 ") == windows


def test_two_windows_of_queues_that_are_gone_while_the_sink_is_down(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The first is held until the sink is up, the second is named as lost, the third is written."""
    windows = [[b"%d%05d" % (window, number) for number in range(10)] for window in range(3)]
    with daemon(tmp_path, node, names, 0.0, LOGFAN_QUEUE__TYPE="exclusive") as running:
        (tmp_path / "down").touch()
        for lost, window in enumerate(windows):
            wait_until(running.is_ready, "its queue is bound")
            wait_until(lambda: running.metric("logfan_in_flight_messages") == 0, "a new window")
            publish(node.url, names.exchange, window)
            wait_until(lambda: running.metric("logfan_in_flight_messages") == 10, "all in flight")
            if lost < 2:
                node.close_all_connections()
                wait_until(partial(_knows, running, lost + 1), "it is known")
        (tmp_path / "down").unlink()
        wait_until(lambda: len(lines(tmp_path)) == 20, "both are written")
        assert {*lines(tmp_path)} == {*windows[0], *windows[2]}
        assert running.log().count("the sinks go on with them") == 1
        assert running.log().count("sinks lose them") == 1
        assert running.stop() == 0
