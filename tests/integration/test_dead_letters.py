"""Refused records are dead-lettered, each alone, confirmed before it counts; poison on evidence."""

import math
from pathlib import Path
from typing import Any

import pika
import pytest

from logfan.amqp import connection
from logfan.dead_letters.letter import Letter
from logfan.testing.node import RabbitNode
from support.broker import Names, channel, delete_queue, make_anew, publish, waiting
from support.command import logfan
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

SINKS = RAW + '[sinks.picky]\nkind = "picky"\nretry = { initial = "20ms", max = "200ms" }\n'
PICKY = """
import logfan, pathlib


class Picky(logfan.Sink):
    '''Refuses, fails and takes, as the bodies demand.'''

    def write(self, records):
        mood = pathlib.Path("mood").read_text() if pathlib.Path("mood").exists() else ""
        if mood == "down":
            raise logfan.SinkUnavailable("the store is away")
        refused = {}
        with open("picky.log", "ab") as log:
            for index, record in enumerate(records):
                if record.body.startswith(b"refuse") and mood != "mended":
                    refused[index] = "not wanted"
            for record in records:
                if record.body.startswith(b"crash") and mood != "mended":
                    raise ValueError("cannot stand " + record.text)
            for index, record in enumerate(records):
                if index not in refused:
                    log.write(record.body + b"\\n")
        if refused:
            raise logfan.RecordsRejected(refused)


@logfan.hookimpl
def register_sinks(register):
    register("picky", Picky)
"""


def daemon_at(folder: Path, node: RabbitNode, names: Names, **options: Any) -> DaemonProcess:
    add_drop_in(folder, "picky", PICKY)
    return DaemonProcess(folder, node.url, names, SINKS, **options)


def letters_in(node: RabbitNode, queue: str) -> list[Letter]:
    """All that wait in the queue; they are taken out."""
    found: list[Letter] = []
    with channel(node.url) as admin:
        while True:
            method, properties, body = admin.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            found.append(Letter(body, connection.to_properties(properties)))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def test_letters_that_wait_are_counted_also_those_of_others_and_none_where_it_is_unknown(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    def counted(daemon: DaemonProcess) -> float:
        return daemon.metric("logfan_dead_letters_waiting")

    often = {"logfan.dead_letters.publisher._TICK_SECONDS": 0.1}
    with daemon_at(tmp_path, node, names, constants=often) as daemon:
        wait_until(lambda: counted(daemon) == 0, "the queue is there and empty")
        publish(node.url, names.exchange, [b"refuse %d" % n for n in range(7)])
        wait_until(lambda: counted(daemon) == 7, "they are counted")
        with channel(node.url) as other:
            other.basic_publish("", f"{names.queue}.dead", b"of another")
        wait_until(lambda: counted(daemon) == 8, "and that of another")
        with channel(node.url) as other:
            other.queue_purge(f"{names.queue}.dead")
        wait_until(lambda: counted(daemon) == 0, "and those that were taken away")
        delete_queue(node.url, f"{names.queue}.dead")

        def is_back() -> bool:
            with channel(node.url) as other:
                try:
                    other.queue_declare(f"{names.queue}.dead", passive=True)
                except pika.exceptions.ChannelClosedByBroker:
                    return False
                return True

        wait_until(is_back, "a queue that was deleted is declared anew, though nothing is refused")
        assert daemon.is_ready()
        assert daemon.stop() == 0
    tmp_path.joinpath("config.toml").write_text(
        tmp_path.joinpath("config.toml").read_text() + "[dead_letter]\nenabled = false\n"
    )
    with daemon:
        assert math.isnan(counted(daemon))


def test_just_the_refused_records_are_dead_lettered_with_their_story(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    bodies = [b"refuse %d" % n if n % 10 == 0 else b"%d" % n for n in range(200)]
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, bodies, message_id="m", headers={"host": "a"})
        wait_until(lambda: daemon.acked() == 200, "all is acknowledged")
        assert lines(tmp_path / "raw.log") == bodies
        assert lines(tmp_path / "picky.log") == [b for b in bodies if b[:6] != b"refuse"]
        assert daemon.metric('logfan_dead_lettered_records_total{sink="picky"}') == 20
        assert daemon.metric('logfan_sink_records_total{outcome="rejected",sink="picky"}') == 20
        assert daemon.metric('logfan_dead_lettered_records_total{sink="raw"}') == 0
        found = letters_in(node, f"{names.queue}.dead")
        assert [letter.body for letter in found] == bodies[::10]
        assert {letter.sink for letter in found} == {"picky"}
        assert {letter.reason for letter in found} == {"not wanted"}
        assert {letter.attempts for letter in found} == {1}
        assert {letter.exchange for letter in found} == {names.exchange}
        assert {letter.queue for letter in found} == {names.queue}
        assert found[0].first_failed_at.startswith("20")
        assert found[0].properties.delivery_mode == 2
        assert found[0].original().message_id == "m"
        assert dict(found[0].original().headers) == {"host": "a"}
        assert "20 records refused and dead-lettered" in daemon.log() or "refused" in daemon.log()
        assert daemon.stop() == 0


def test_a_record_that_fails_alone_while_another_is_taken_is_poison(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    bodies = [b"crash" if n == 50 else b"%d" % n for n in range(100)]
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, bodies)
        wait_until(lambda: daemon.acked() == 100, "all is acknowledged")
        (letter,) = letters_in(node, f"{names.queue}.dead")
        assert letter.body == b"crash"
        assert letter.reason == "ValueError: cannot stand crash"
        assert letter.attempts >= 6
        assert lines(tmp_path / "picky.log") == [body for body in bodies if body != b"crash"]
        assert lines(tmp_path / "raw.log") == bodies


def test_a_sink_that_takes_nothing_is_down_and_refuses_nothing(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, [b"crash %d" % n for n in range(5)])
        wait_until(
            lambda: daemon.metric('logfan_sink_retries_total{sink="picky"}') > 30, "it is tried"
        )
        assert waiting(node.url, f"{names.queue}.dead") == 0
        assert "picky" in daemon.get("/readyz")[1]
        (tmp_path / "mood").write_text("mended")
        wait_until(lambda: daemon.acked() == 5, "all is acknowledged")
        assert sorted(lines(tmp_path / "picky.log")) == [b"crash %d" % n for n in range(5)]


def test_where_the_dead_letter_cannot_be_published_the_record_waits(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, node, names) as daemon:
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}  # at once: all is refused
        make_anew(node.url, f"{names.queue}.dead", **full)
        publish(node.url, names.exchange, [b"one", b"refuse", b"two"])
        wait_until(lambda: "cannot be dead-lettered" in daemon.get("/readyz")[1], "it is reported")
        assert node.unacked(names.queue) == 3 - daemon.acked() >= 1
        # The last may have come in a read of its own: then it waits behind the refused one.
        assert lines(tmp_path / "picky.log") in ([b"one"], [b"one", b"two"])
        delete_queue(node.url, f"{names.queue}.dead")
        # It is declared anew once a letter finds it gone.
        wait_until(lambda: daemon.acked() == 3, "all is acknowledged")
        assert [letter.body for letter in letters_in(node, f"{names.queue}.dead")] == [b"refuse"]
        assert lines(tmp_path / "picky.log") == [b"one", b"two"]


def test_a_sink_that_refuses_too_much_is_paused_and_not_emptied(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_DEAD_LETTER__MAX_RATIO": "0.1"}
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"refuse %d" % n for n in range(1_000)])
        wait_until(lambda: "max_ratio (0.1)" in daemon.get("/readyz")[1], "it is paused")
        assert daemon.metric('logfan_sink_paused{sink="picky"}') == 1
        assert waiting(node.url, f"{names.queue}.dead") <= 100
        assert "max_ratio" in daemon.log()
        (tmp_path / "mood").write_text("mended")
        wait_until(lambda: daemon.acked() == 1_000, "all is acknowledged")
        taken = len(lines(tmp_path / "picky.log"))
        assert taken + len(letters_in(node, f"{names.queue}.dead")) == 1_000
        assert daemon.metric('logfan_sink_paused{sink="picky"}') == 0


def test_without_dead_letters_a_refused_record_is_offered_again(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_DEAD_LETTER__ENABLED": "false"}
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"one", b"refuse", b"two"])
        wait_until(lambda: "are offered again" in daemon.log(), "it is reported")
        publish(node.url, names.exchange, [b"four"])
        wait_until(
            lambda: lines(tmp_path / "picky.log") == [b"one", b"two", b"four"], "others go on"
        )
        assert not daemon.is_ready()
        (tmp_path / "mood").write_text("mended")
        wait_until(lambda: daemon.acked() == 4, "all is acknowledged")
        assert lines(tmp_path / "picky.log")[-1] == b"refuse"
        assert daemon.log().count("up again") == 1
        with pytest.raises(LookupError):
            node.counts(f"{names.queue}.dead")


def test_a_replayed_letter_reaches_just_the_sink_that_refused_it(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, [b"refuse", b"one"], headers={"host": "a"})
        wait_until(lambda: daemon.acked() == 2, "all is acknowledged")
        (letter,) = letters_in(node, f"{names.queue}.dead")
        (tmp_path / "mood").write_text("mended")
        again = letter.replay()
        headers = dict(again.properties.headers)
        with channel(node.url, confirms=True) as admin:
            for name in ("picky", "nobody"):
                headers["x-logfan-replay"] = name
                basic = pika.BasicProperties(headers=headers, delivery_mode=2)
                admin.basic_publish("", names.queue, again.body, basic, mandatory=True)
        wait_until(lambda: daemon.acked() == 4, "all is acknowledged")
        assert lines(tmp_path / "picky.log") == [b"one", b"refuse"]
        assert lines(tmp_path / "raw.log") == [b"refuse", b"one"]
        (unknown,) = letters_in(node, f"{names.queue}.dead")
        assert unknown.sink == "nobody"
        assert "no sink is called 'nobody'" in unknown.reason
        assert unknown.exchange == names.exchange


def test_once_the_sink_is_mended_replay_brings_it_its_records_and_nobody_else(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    bodies = [b"refuse %d" % n for n in range(300)]
    with daemon_at(tmp_path, node, names) as daemon, channel(node.url) as tutorial:
        theirs = tutorial.queue_declare("", exclusive=True).method.queue
        tutorial.queue_bind(theirs, names.exchange)
        publish(node.url, names.exchange, bodies)
        wait_until(lambda: daemon.acked() == 300, "all is acknowledged")
        assert waiting(node.url, f"{names.queue}.dead") == 300
        (tmp_path / "mood").write_text("mended")
        done = logfan("dlq", "replay", "--config", str(daemon.config), folder=tmp_path)
        assert done.stdout.startswith("300 replayed: picky 300"), done.stderr
        assert done.returncode == 0
        wait_until(lambda: daemon.acked() == 600, "the replayed ones are acknowledged")
        assert lines(tmp_path / "picky.log") == bodies
        assert lines(tmp_path / "raw.log") == bodies
        assert waiting(node.url, f"{names.queue}.dead") == 0
        assert tutorial.queue_declare(theirs, passive=True).method.message_count == 300
