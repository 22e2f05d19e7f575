"""A record that a sink wants later holds up no other, on a real broker."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish, waiting
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

SINKS = (
    '[sinks.raw]\nkind = "file"\npath = "raw.log"\nformat = "raw"\n'
    '[sinks.topics]\nkind = "topics"\nretry = { initial = "20ms", max = "200ms" }\n'
)
TOPICS = """
import logfan, pathlib


class Topics(logfan.Sink):
    '''A file for each topic, which must be there, as in Kafka.'''

    def write(self, records):
        later = {}
        for place, record in enumerate(records):
            topic = pathlib.Path(record.properties.type + ".topic")
            if topic.exists():
                with topic.open("ab") as file:
                    file.write(record.body + b"\\n")
            else:
                later[place] = f"no topic {record.properties.type}"
        if later:
            raise logfan.RecordsRejected(later=later)


@logfan.hookimpl
def register_sinks(register):
    register("topics", Topics)
"""
PREFETCH = 20


def daemon_at(
    tmp_path: Path, node: RabbitNode, names: Names, environ: Mapping[str, str]
) -> DaemonProcess:
    add_drop_in(tmp_path, "topics", TOPICS)
    (tmp_path / "here.topic").touch()
    environ = {
        "LOGFAN_RABBITMQ__PREFETCH": str(PREFETCH), "LOGFAN_SHUTDOWN_TIMEOUT": "1s", **environ,
    }  # fmt: skip
    return DaemonProcess(tmp_path, node.url, names, SINKS, environ=environ)


@pytest.fixture
def daemon(tmp_path: Path, node: RabbitNode, names: Names) -> Iterator[DaemonProcess]:
    with daemon_at(tmp_path, node, names, {}) as daemon:
        yield daemon


def send(node: RabbitNode, names: Names, topic: str, *bodies: bytes) -> None:
    publish(node.url, names.exchange, bodies, type=topic)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def test_the_others_are_written_and_acknowledged_and_it_is_once_it_can_be(
    daemon: DaemonProcess, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    send(node, names, "nowhere", b"early")
    wait_until(lambda: "no topic nowhere" in daemon.get("/readyz")[1], "an operator sees it")
    others = [b"%d" % n for n in range(10 * PREFETCH)]
    send(node, names, "here", *others)
    wait_until(lambda: daemon.acked() == len(others), "all others are acknowledged")
    assert lines(tmp_path / "here.topic") == others, "in the order that they came in"
    assert node.unacked(names.queue) == 1
    assert daemon.metric('logfan_sink_up{sink="topics"}') == 0
    assert "takes 1 record later: no topic nowhere; offered again in 0.02 s" in daemon.log()
    (tmp_path / "nowhere.topic").touch()
    wait_until(lambda: node.unacked(names.queue) == 0, "it is acknowledged")
    assert lines(tmp_path / "nowhere.topic") == [b"early"]
    wait_until(daemon.is_ready, "ready")
    assert lines(tmp_path / "raw.log") == [b"early", *others], "the other sink got each once"
    assert "wants no record later any more" in daemon.log()
    assert daemon.stop() == 0


def test_one_that_waits_at_a_stop_goes_back_to_the_broker(
    daemon: DaemonProcess, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    send(node, names, "nowhere", b"early")
    send(node, names, "here", b"1", b"2")
    wait_until(lambda: daemon.acked() == 2, "the others are acknowledged")
    assert daemon.stop() != 0
    assert waiting(node.url, names.queue) == 1
    (tmp_path / "nowhere.topic").touch()
    daemon.start()
    wait_until(lambda: lines(tmp_path / "nowhere.topic") == [b"early"], "it comes again")
    assert daemon.stop() == 0


def test_where_all_are_wanted_later_the_sink_is_down_and_the_order_stays(
    daemon: DaemonProcess, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    bodies = [b"%d" % n for n in range(5 * PREFETCH)]
    send(node, names, "nowhere", *bodies)
    wait_until(
        lambda: f"takes {PREFETCH} records later" in daemon.get("/readyz")[1], "all are held"
    )
    assert node.unacked(names.queue) == PREFETCH
    (tmp_path / "nowhere.topic").touch()
    wait_until(lambda: daemon.acked() == len(bodies), "all of it is acknowledged")
    assert lines(tmp_path / "nowhere.topic") == bodies
    assert daemon.metric("logfan_requeued_messages_total") == 0


def test_records_that_wait_for_long_come_round_and_lose_no_life(
    tmp_path: Path, node: RabbitNode, names: Names
) -> None:
    """Published again for their sink alone, they say nothing new of it: it counts as up."""
    environ = {"LOGFAN_RABBITMQ__ACKNOWLEDGEMENT_TIMEOUT": "9s", "LOGFAN_QUEUE__TYPE": "quorum"}
    with daemon_at(tmp_path, node, names, environ) as daemon:
        send(node, names, "nowhere", b"1")
        send(node, names, "here", b"2")
        send(node, names, "nowhere", b"3")
        wait_until(lambda: daemon.acked() >= 1 + 3 * 2, "both come round three times")
        assert daemon.metric("logfan_requeued_messages_total") == 0
        assert lines(tmp_path / "raw.log") == [b"1", b"2", b"3"], "no other sink gets them again"
        assert node.unacked(names.queue) == 2
        (tmp_path / "nowhere.topic").touch()
        wait_until(daemon.is_ready, "they are taken")
        assert {*lines(tmp_path / "nowhere.topic")} == {b"1", b"3"}
        assert daemon.stop() == 0
