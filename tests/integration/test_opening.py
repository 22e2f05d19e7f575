"""Nothing is consumed before each required sink has opened once: another instance can have it."""

import json
from pathlib import Path
from typing import Any

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, declare_bound, delete_queue, granting, impatient, publish, waiting
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

LATE = '[sinks.late]\nkind = "late"\nretry = { initial = "50ms", max = "200ms" }\n'
PLUGIN = """
import logfan, pathlib

class Late(logfan.Sink):
    '''Opens once a file is there, and fails while another is.'''

    def open(self):
        if not pathlib.Path("open").exists():
            raise logfan.SinkUnavailable("the store is away")

    def write(self, records):
        if pathlib.Path("down").exists():
            raise logfan.SinkUnavailable("the store has gone")

@logfan.hookimpl
def register_sinks(register):
    register("late", Late)
"""


def daemon_of(
    folder: Path, node: RabbitNode, names: Names, sinks: str = RAW + LATE, drains: str = "30s"
) -> DaemonProcess:
    add_drop_in(folder, "late", PLUGIN)
    return DaemonProcess(
        folder, node.url, names, sinks, environ={"LOGFAN_SHUTDOWN_TIMEOUT": drains}
    )


def wait_for_words(daemon: DaemonProcess) -> list[str]:
    """Until /readyz reports what it waits for; its reasons."""
    wait_until(
        lambda: "waiting for sink late to open" in daemon.get("/readyz")[1],
        f"it waits for its sink:\n{daemon.log()}",
    )
    reasons: list[str] = json.loads(daemon.get("/readyz")[1])["reasons"]
    return reasons


def test_an_instance_with_a_broken_sink_takes_nothing_from_the_healthy_one(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    first.mkdir()
    with daemon_of(first, node, names).unready() as daemon:
        reasons = wait_for_words(daemon)
        assert "sink late is down: the store is away" in reasons
        # The queue is there and bound, so that nothing that is published is lost.
        publish(node.url, names.exchange, [b"%d" % n for n in range(200)])
        assert waiting(node.url, names.queue) == 200
        wait_until(lambda: daemon.metric("logfan_queue_ready_messages") == 200, "it counts them")
        wait_until(lambda: "nothing is consumed before each required sink" in daemon.log(), "seen")
        assert (daemon.metric("logfan_connected"), daemon.metric("logfan_consuming")) == (1, 0)
        assert daemon.metric("logfan_received_messages_total") == 0
        assert daemon.metric('logfan_sink_down_seconds{sink="late"}') > 0
        assert daemon.get("/healthz")[0] == 200
        second = tmp_path / "second"
        second.mkdir()
        with DaemonProcess(second, node.url, names, RAW) as healthy:
            wait_until(lambda: healthy.acked() == 200, "the healthy one takes all")
            assert healthy.stop() == 0
        (first / "open").touch()
        daemon.wait_ready()
        publish(node.url, names.exchange, [b"later"])
        wait_until(lambda: daemon.acked() == 1, "it consumes")
        assert (first / "raw.log").read_bytes() == b"later\n"
        # One that has opened once is waited for with its window in hand, as ever.
        (first / "down").touch()
        publish(node.url, names.exchange, [b"held"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 1, "it holds")
        wait_until(lambda: daemon.metric("logfan_oldest_unacknowledged_seconds") > 0.2, "its age")
        (first / "down").unlink()
        wait_until(lambda: daemon.acked() == 2, "it goes on")
        assert daemon.metric("logfan_oldest_unacknowledged_seconds") == 0
        assert daemon.stop() == 0


def test_it_stops_cleanly_while_it_waits_and_finds_a_queue_that_was_deleted(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_of(tmp_path, node, names).unready() as daemon:
        wait_for_words(daemon)
        delete_queue(node.url, names.queue)
        wait_until(lambda: "the queue is gone; it is declared" in daemon.log(), "noticed")
        wait_for_words(daemon)
        publish(node.url, names.exchange, [b"kept"])
        assert waiting(node.url, names.queue) == 1
        assert daemon.stop() == 0
        assert waiting(node.url, names.queue) == 1


def expiring(node: RabbitNode, names: Names, **arguments: Any) -> None:
    """A look at a quorum queue does not count as use of it; one at a classic queue does, and comes
    too late here."""
    declare_bound(node.url, names, arguments={"x-expires": 3_000, **arguments})


def keeps_all(node: RabbitNode, names: Names, folder: Path) -> str:
    """A sink comes late, and gets all. Returns the log."""
    (folder / "folder").touch()
    sinks = '[sinks.raw]\nkind = "file"\npath = "folder/raw.log"\nformat = "raw"\n'
    with DaemonProcess(folder, node.url, names, sinks).unready() as daemon:
        wait_until(lambda: "waiting for sink raw to open" in daemon.get("/readyz")[1], "it waits")
        publish(node.url, names.exchange, [b"%d" % number for number in range(10)])
        node.eval("timer:sleep(9000).")
        (folder / "folder").unlink()
        (folder / "folder").mkdir()
        daemon.wait_ready()
        raw = folder / "folder/raw.log"
        wait_until(lambda: daemon.acked() == 10, daemon.log)
        assert {*raw.read_bytes().split()} == {b"%d" % number for number in range(10)}
        assert "the queue is gone" not in daemon.log()
        assert daemon.stop() == 0
        return daemon.log()


QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}


def test_a_queue_that_expires_without_a_consumer_is_kept_meanwhile(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    expiring(node, names, **QUORUM)
    keeps_all(node, names, tmp_path)


def test_a_queue_that_expires_is_kept_though_it_counts_what_is_returned(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    expiring(node, names, **{**QUORUM, "x-delivery-limit": 3})
    assert "it goes to the dead letters" not in keeps_all(node, names, tmp_path)


@pytest.mark.parametrize("arguments", [{}, QUORUM], ids=["classic", "quorum"])
def test_a_queue_that_expires_is_kept_though_the_broker_has_little_patience(
    node: RabbitNode, names: Names, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """It takes the other consumer's channel away, or cancels it (RabbitMQ 4.3), for want of an
    acknowledgement."""
    expiring(node, names, **arguments)
    with impatient(node):
        keeps_all(node, names, tmp_path)


def test_a_connection_without_a_channel_for_the_other_consumer_says_so(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    expiring(node, names)
    with granting(node, channel_max=2), DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        assert "no third channel (the broker's channel_max is 2)" in daemon.log()
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "it is consumed")
        assert daemon.stop() == 0


def test_a_sink_that_is_not_required_is_not_waited_for(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_of(tmp_path, node, names, f"{RAW}{LATE}required = false\n", "5s") as daemon:
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "it is consumed")
        assert daemon.stop() == 0


def test_an_exclusive_queue_is_declared_at_once_and_consumed_later(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    daemon = daemon_of(tmp_path, node, names)
    config = daemon.config.read_text().replace(f'name = "{names.queue}"', 'type = "exclusive"')
    daemon.config.write_text(config)
    with daemon.unready():
        wait_for_words(daemon)
        publish(node.url, names.exchange, [b"one"])
        (tmp_path / "open").touch()
        wait_until(lambda: daemon.acked() == 1, "it was kept for it")
        assert daemon.stop() == 0
