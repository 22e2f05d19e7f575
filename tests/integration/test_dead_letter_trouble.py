"""A failing dead-letter queue, and a failing letter, hold nothing back and lose nothing."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pika
import pytest

from integration.test_dead_letters import daemon_at, letters_in, lines
from logfan.testing.node import RabbitNode
from support.broker import (
    Names,
    add_user,
    channel,
    delete_queue,
    delete_user,
    granting,
    limit_user,
    make_anew,
    memory_alarm,
    publish,
    waiting,
)
from support.command import logfan
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.letters import wait_for_messages
from support.waiting import wait_until

FRAME_MAX, MESSAGE_MAX = 8192, 100_000
SLOW = """
import logfan, pathlib, time


class Slow(logfan.Sink):
    def write(self, records):
        refused = {place: "no" for place, one in enumerate(records) if one.body == b"refuse"}
        if refused:
            raise logfan.RecordsRejected(refused)
        while pathlib.Path("hold").exists():
            time.sleep(0.01)
        with open("slow.log", "ab") as file:
            file.writelines(one.body + b"\\n" for one in records)


@logfan.hookimpl
def register_sinks(register):
    register("slow", Slow)
"""


@pytest.fixture
def tight_node(node: RabbitNode) -> Iterator[RabbitNode]:
    """A node with small frames, and a small bound on messages."""
    with granting(node, frame_max=FRAME_MAX, max_message_size=MESSAGE_MAX):
        yield node


def make_full(node: RabbitNode, queue: str) -> None:
    """Have the dead-letter queue refuse every further letter."""
    make_anew(node.url, queue, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    with channel(node.url, confirms=True) as admin, suppress(pika.exceptions.NackError):
        while True:  # as more than the limit may come in before it is heard of
            admin.basic_publish("", queue, b"full")


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_full_dead_letter_queue_hands_no_window_back_and_costs_no_life(
    kind: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {
        "LOGFAN_RABBITMQ__ACKNOWLEDGEMENT_TIMEOUT": "9s",  # a third of it is when they come round
        "LOGFAN_QUEUE__TYPE": kind, "LOGFAN_RABBITMQ__PREFETCH": "50",
    }  # fmt: skip
    dead = f"{names.queue}.dead"
    if kind == "quorum":
        with channel(node.url) as admin:
            admin.queue_declare(
                names.queue, durable=True,
                arguments={"x-queue-type": "quorum", "x-delivery-limit": 3},
            )  # fmt: skip
    make_full(node, dead)
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        first = [b"refuse %d" % n if n % 25 == 0 else b"%d" % n for n in range(100)]
        publish(node.url, names.exchange, first)
        wait_until(lambda: daemon.acked() == 96, "all but the refused ones are acknowledged")
        status, text = daemon.get("/readyz")
        assert status == 503
        assert "4 refused records cannot be dead-lettered" in text
        assert daemon.metric('logfan_sink_up{sink="picky"}') == 0
        wait_until(lambda: node.unacked(names.queue) == 4, "four are held")
        # They are published to the queue again before the broker would take them back.
        wait_until(lambda: daemon.acked() >= 104, "they come round twice, as new messages")
        more = [b"more %d" % n for n in range(100)]
        publish(node.url, names.exchange, more)
        good = [body for body in first if body[:6] != b"refuse"] + more
        wait_until(lambda: set(more) <= {*lines(tmp_path / "picky.log")}, "all else goes on")
        assert daemon.metric("logfan_requeued_messages_total") == 0
        assert daemon.metric("logfan_redelivered_messages_total") == 0
        delete_queue(node.url, dead)
        wait_until(daemon.is_ready, "it is ready again")
        assert daemon.metric("logfan_requeued_messages_total") == 0, "none was handed back"
        wait_for_messages(node.url, dead, 4)
        wait_until(
            lambda: daemon.metric("logfan_dead_letters_waiting") == waiting(node.url, dead),
            "they are counted",
        )
        # Twice, where the queue went while a record that came round awaited its confirm.
        assert {letter.body for letter in letters_in(node, dead)} == {*first[::25]}
        assert Counter(lines(tmp_path / "picky.log")) == Counter(good)
        assert Counter(lines(tmp_path / "raw.log")) == Counter(first + more)
        assert daemon.stop() == 0
        assert waiting(node.url, names.queue) == 0


def test_a_broker_that_blocks_publishers_is_named_and_refused_records_wait(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, [b"refuse 0"])
        wait_until(lambda: daemon.acked() == 1, "its letter is confirmed")
        daemon.signal(signal.SIGSTOP)
        publish(node.url, names.exchange, [b"refuse 1", b"good"])
        with memory_alarm(node):
            daemon.signal(signal.SIGCONT)
            wait_until(lambda: daemon.acked() == 2, "the good one is acknowledged")
            words = "the broker blocks all publishers, as it is low on memory"
            wait_until(lambda: words in daemon.log(), "the log names the reason")
            assert daemon.metric("logfan_in_flight_messages") == 1
        wait_until(daemon.is_ready, "it is ready again")
        wait_until(lambda: daemon.acked() == 3, "the letter is confirmed")
        assert {one.body for one in letters_in(node, f"{names.queue}.dead")} == {
            b"refuse 0", b"refuse 1",
        }  # fmt: skip
        assert daemon.stop() == 0


def test_a_refused_record_as_large_as_the_budget_holds_nothing_back_that_is_small(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """It is all that a prefetch that was cut for large messages allows."""
    environ = {"LOGFAN_RABBITMQ__MAX_IN_FLIGHT_BYTES": "1MiB"}
    make_full(node, f"{names.queue}.dead")
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        large = [word + bytes(800_000) for word in (b"refuse", b"one", b"two")]
        small = [b"%d" % n for n in range(50)]
        publish(node.url, names.exchange, [*large, *small])
        wait_until(lambda: daemon.acked() == 52, "all others are written")
        assert node.unacked(names.queue) == 1
        assert daemon.stop() == 75


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_refused_record_whose_queue_is_deleted_has_its_letter_once_there_is_room(
    kind: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    dead = f"{names.queue}.dead"
    make_full(node, dead)
    with daemon_at(tmp_path, node, names, environ={"LOGFAN_QUEUE__TYPE": kind}) as daemon:
        publish(node.url, names.exchange, [b"refuse", b"one"])
        wait_until(lambda: "cannot be dead-lettered" in daemon.get("/readyz")[1], "it is held")
        delete_queue(node.url, names.queue)
        wait_until(lambda: "the sinks go on with them" in daemon.log(), "the queue is gone")
        wait_until(lambda: daemon.metric("logfan_consuming") == 1, "it consumes again")
        publish(node.url, names.exchange, [b"two"])
        wait_until(lambda: lines(tmp_path / "picky.log") == [b"one", b"two"], "all others go on")
        delete_queue(node.url, dead)
        wait_until(daemon.is_ready, "it is ready again")
        wait_for_messages(node.url, dead, 1)
        assert [letter.body for letter in letters_in(node, dead)] == [b"refuse"]
        assert lines(tmp_path / "picky.log") == [b"one", b"two"]
        assert Counter(lines(tmp_path / "raw.log")) == Counter([b"refuse", b"one", b"two"])
        assert daemon.stop() == 0


def test_a_refused_record_of_a_queue_that_is_gone_costs_none_of_the_next_queue(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Of both the daemon has the last copies: an exclusive queue goes with its connection."""
    make_full(node, f"{names.queue}.dead")
    add_drop_in(tmp_path, "slow", SLOW)
    sinks = '[sinks.slow]\nkind = "slow"\n'
    environ = {"LOGFAN_QUEUE__TYPE": "exclusive", "LOGFAN_RABBITMQ__PREFETCH": "50"}
    with DaemonProcess(tmp_path, node.url, names, sinks, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"refuse"])
        wait_until(lambda: "cannot be dead-lettered" in daemon.get("/readyz")[1], "it is held")
        for window in range(3):
            bodies = [b"%d of %d" % (number, window) for number in range(20)]
            (tmp_path / "hold").touch()
            wait_until(lambda: daemon.metric("logfan_consuming") == 1, "it consumes")
            publish(node.url, names.exchange, bodies)
            wait_until(lambda: daemon.metric("logfan_in_flight_messages") >= 20, "in flight")
            node.close_all_connections()
            wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 0, "it knows")
            (tmp_path / "hold").unlink()
            written = tmp_path / "slow.log"
            wait_until(lambda: {*bodies} <= {*lines(written)}, daemon.log, 30.0)  # noqa: B023
        daemon.kill()


def test_a_letter_fits_into_the_frames_of_a_broker_with_small_ones(
    tight_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, tight_node, names) as daemon:
        headers = {"trace": "s" * 8100, "x-logfan-packed": 9, "x-logfan-sink": "raw"}
        publish(tight_node.url, names.exchange, [b"refuse"], headers={"trace": "s" * 8100})
        publish(tight_node.url, names.exchange, [b"refuse"], headers={**headers, "trace": "s"})
        publish(tight_node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: daemon.acked() == 4, "all is acknowledged")
        (tmp_path / "mood").write_text("mended")
        assert waiting(tight_node.url, f"{names.queue}.dead") == 2
        done = logfan("dlq", "replay", "--config", str(daemon.config), folder=tmp_path)
        assert done.stdout.startswith("2 replayed: picky 2"), done.stderr
        wait_until(lambda: lines(tmp_path / "picky.log").count(b"refuse") == 2, "both are there")
        assert lines(tmp_path / "raw.log").count(b"refuse") == 2


def test_a_letter_that_the_broker_never_takes_is_named_and_all_others_go_on(
    tight_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_RABBITMQ__PREFETCH": "20"}
    with daemon_at(tmp_path, tight_node, names, environ=environ) as daemon:
        large = b"refuse" + bytes(MESSAGE_MAX - 1000)
        publish(
            tight_node.url, names.exchange, [b"0", large], headers={"trace": "s" * 8100},
            message_id="the large one",
        )  # fmt: skip
        others = [b"refuse %d" % n if n % 20 == 0 else b"%d" % n for n in range(1, 201)]
        publish(tight_node.url, names.exchange, others)
        wait_until(lambda: daemon.acked() == 201, "all but one are acknowledged")
        assert tight_node.unacked(names.queue) == 1
        wait_until(lambda: "offered again in 4 s" in daemon.log(), "it is offered again, later")
        (line,) = [one for one in daemon.log().splitlines() if "offered again in 2 s" in one]
        for words in ("picky", "'the large one'", f"{len(large)} bytes", "not wanted", "is larger"):
            assert words in line
        assert "max_message_size" in line
        assert daemon.get("/readyz")[0] == 200
        assert daemon.log().count("the large one") <= 4
        letters = letters_in(tight_node, f"{names.queue}.dead")
        assert [letter.body for letter in letters] == others[19::20]
        (tmp_path / "mood").write_text("mended")
        wait_until(lambda: daemon.acked() == 202, "the sink takes it in the end")
        assert lines(tmp_path / "picky.log")[-1] == large
        assert daemon.stop() == 0


def test_the_consumer_comes_first_where_a_user_may_have_one_connection(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    user = names.queue
    add_user(node, user)
    limit_user(node, user, "max-connections", 1)
    with daemon_at(tmp_path, node, names) as unstarted:
        unstarted.kill()
        url = node.url.replace("guest:guest", f"{user}:secret")
        unstarted.config.write_text(unstarted.config.read_text().replace(node.url, url))
        with unstarted as daemon:
            publish(node.url, names.exchange, [b"one", b"refuse", b"two"])
            wait_until(lambda: daemon.acked() == 2, "the good ones are acknowledged")
            wait_until(lambda: "cannot be dead-lettered" in daemon.get("/readyz")[1], "it is shown")
            wait_until(lambda: "limit" in daemon.get("/readyz")[1], "the limit is named")
            node.close_all_connections()
            wait_until(lambda: daemon.metric("logfan_connected") == 1, "it comes back")
            limit_user(node, user, "max-connections", 100)
            wait_until(lambda: daemon.acked() >= 3, "the letter was sent")
            # Confirmed while the consumer's connection was lost, it is delivered and sent again.
            assert {one.body for one in letters_in(node, f"{names.queue}.dead")} == {b"refuse"}
    delete_user(node, user)


def test_what_is_refused_while_letters_cannot_be_sent_comes_again_alone_after_a_crash(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    make_full(node, f"{names.queue}.dead")
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, [b"one", b"refuse", b"two"])
        # At the broker: what was only sent may be lost with the process.
        wait_until(lambda: daemon.acked() == 2, "the good ones are taken")
        wait_until(lambda: node.unacked(names.queue) == 1, "the good ones are acknowledged")
        daemon.kill()
        delete_queue(node.url, f"{names.queue}.dead")
        daemon.start()
        wait_until(lambda: daemon.acked() == 1, "only the refused one came again")
        assert lines(tmp_path / "picky.log") == [b"one", b"two"]
        assert [one.body for one in letters_in(node, f"{names.queue}.dead")] == [b"refuse"]


def redelivered(daemon: DaemonProcess, count: int) -> bool:
    return daemon.metric("logfan_redelivered_messages_total") == count


def test_what_comes_again_while_letters_cannot_be_sent_counts_once_against_max_ratio(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_DEAD_LETTER__MAX_RATIO": "0.05"}
    make_full(node, f"{names.queue}.dead")
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"refuse %d" % n for n in range(30)])
        for count in (30, 60, 90):
            wait_until(
                lambda: "30 refused records cannot" in daemon.get("/readyz")[1], "all are held"
            )
            node.close_all_connections()
            wait_until(partial(redelivered, daemon, count), "they come again")
        delete_queue(node.url, f"{names.queue}.dead")
        wait_until(lambda: node.unacked(names.queue) == 0, "all are acknowledged")
        assert len({one.body for one in letters_in(node, f"{names.queue}.dead")}) == 30
        wait_until(daemon.is_ready, "it is ready again")


def test_a_sink_that_refuses_many_in_a_row_goes_on_once_it_takes_others(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """As after a start where many refused records were held: they come first, one after another.
    The prefetch must let 600 others come beside them, however the reads of the socket fall."""
    bad = [b"refuse %d" % n for n in range(600)]
    good = [b"%d" % n for n in range(1000)]
    environ = {"LOGFAN_RABBITMQ__PREFETCH": "1600"}
    with daemon_at(tmp_path, node, names, environ=environ) as daemon:
        publish(node.url, names.exchange, bad + good)
        wait_until(lambda: daemon.acked() == 1600, lambda: f"all is acknowledged:\n{daemon.log()}")
        assert daemon.metric('logfan_sink_paused{sink="picky"}') == 0
        assert lines(tmp_path / "picky.log") == good
        assert {one.body for one in letters_in(node, f"{names.queue}.dead")} == {*bad}
