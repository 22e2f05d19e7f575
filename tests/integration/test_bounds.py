"""What waits is bounded: in bytes, in time, and in how often a quorum queue may return it."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from logfan.amqp import connection
from logfan.dead_letters.letter import Letter
from logfan.testing.node import RabbitNode
from support.broker import Names, channel, declare_bound, publish, waiting
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

MOODY = """
import logfan, os, pathlib, time


class Moody(logfan.Sink):
    '''Up, down or dead, as a file demands.'''

    def open(self):
        if self.mood() == "down":
            raise logfan.SinkUnavailable("the store is away")

    def write(self, records):
        if self.mood() == "down":
            raise logfan.SinkUnavailable("the store is away")
        if self.mood() == "deadly":
            os._exit(9)
        while self.mood() == "slow":
            time.sleep(0.01)

    def mood(self):
        file = pathlib.Path("mood")
        return file.read_text() if file.exists() else ""


@logfan.hookimpl
def register_sinks(register):
    register("moody", Moody)
"""
SINKS = RAW + '[sinks.moody]\nkind = "moody"\nretry = { initial = "50ms", max = "200ms" }\n'
SUMS = ("acked", "requeued", "abandoned")


def moody_daemon(folder: Path, node: RabbitNode, names: Names, **options: Any) -> DaemonProcess:
    add_drop_in(folder, "moody", MOODY)
    return DaemonProcess(folder, node.url, names, SINKS, **options)


COUNTING = """
import logfan, pathlib, time


class Counting(logfan.Sink):
    '''Notes how many records each write has; the first one waits.'''

    def write(self, records):
        with open("writes", "a") as file:
            file.write(f"{len(records)}\\n")
        while pathlib.Path("shut").exists():
            time.sleep(0.01)


@logfan.hookimpl
def register_sinks(register):
    register("counting", Counting)
"""


def has_one(other: Any, queue: str) -> bool:
    """Takes a message, which goes back when the channel is closed."""
    return other.basic_get(queue)[0] is not None


def adds_up(daemon: DaemonProcess) -> bool:
    """received = acked + requeued + abandoned + in flight."""
    parts = sum(daemon.metric(f"logfan_{name}_messages_total") for name in SUMS)
    parts += daemon.metric("logfan_in_flight_messages")
    return parts == daemon.metric("logfan_received_messages_total")


def test_a_long_outage_hands_the_window_back_and_another_instance_goes_on(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'acknowledgement_timeout = "3s"\nprefetch = 50'
    with moody_daemon(tmp_path, node, names, extra=extra) as daemon:
        (tmp_path / "mood").write_text("down")
        publish(node.url, names.exchange, [b"%d" % n for n in range(200)])
        wait_until(lambda: daemon.metric("logfan_requeued_messages_total") == 50, "handed back")
        wait_until(lambda: waiting(node.url, names.queue) == 200, "the queue has them all")
        assert daemon.metric("logfan_consuming") == 0
        assert daemon.metric("logfan_connected") == 1
        assert daemon.metric("logfan_in_flight_messages") == 0
        status, reasons = daemon.get("/readyz")
        assert status == 503
        assert "unsubscribed until it is up" in reasons
        assert "sink moody is down: the store is away" in reasons
        assert daemon.get("/healthz")[0] == 200
        assert "50 messages were handed back to the broker" in daemon.log()
        other = tmp_path / "other"
        other.mkdir()
        with DaemonProcess(other, node.url, names, RAW) as neighbour:
            wait_until(lambda: neighbour.acked() == 200, "another instance takes them")
        (tmp_path / "mood").write_text("")
        wait_until(daemon.is_ready, "it subscribes again")
        publish(node.url, names.exchange, [b"later"])
        wait_until(lambda: daemon.acked() == 1, "and goes on")
        assert daemon.metric('logfan_connections_total{outcome="lost"}') == 0
        assert adds_up(daemon)
        assert daemon.stop() == 0


def test_a_sink_that_hangs_loses_its_window_before_the_broker_closes_the_channel(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'acknowledgement_timeout = "3s"\nprefetch = 50'
    with moody_daemon(tmp_path, node, names, extra=extra) as daemon:
        (tmp_path / "mood").write_text("slow")
        publish(node.url, names.exchange, [b"%d" % n for n in range(10)])
        wait_until(lambda: daemon.metric("logfan_requeued_messages_total") == 10, "handed back")
        (tmp_path / "mood").write_text("")
        wait_until(lambda: waiting(node.url, names.queue) == 0, "taken again")
        wait_until(lambda: node.unacked(names.queue) == 0, "all is acknowledged")
        assert daemon.acked() == 10
        assert adds_up(daemon)
        assert daemon.stop() == 0


@pytest.mark.parametrize("size", [1 << 20, 3 << 20], ids=["1MiB", "3MiB"])
def test_bytes_in_flight_stay_within_their_budget(
    node: RabbitNode, names: Names, tmp_path: Path, size: int
) -> None:
    count = 60
    extra = 'max_in_flight_bytes = "8MiB"\nprefetch = 1000'
    with moody_daemon(tmp_path, node, names, extra=extra) as daemon:
        before = daemon.memory_kib()
        (tmp_path / "mood").write_text("slow")
        # The first is large enough that none of the others comes with it.
        publish(node.url, names.exchange, (bytes([65 + n % 26]) * size for n in range(count)))
        wait_until(lambda: "max_in_flight_bytes" in daemon.get("/readyz")[1], "it is full")
        wait_until(lambda: daemon.metric("logfan_consuming") == 0, "it unsubscribed")
        assert 0 < daemon.metric("logfan_in_flight_bytes") <= 8 << 20
        (tmp_path / "mood").write_text("")
        wait_until(lambda: daemon.acked() == count, "all is acknowledged")
        assert sorted(line[:1] for line in (tmp_path / "raw.log").read_bytes().splitlines()) == (
            sorted(bytes([65 + n % 26]) for n in range(count))
        )
        assert adds_up(daemon)
        assert daemon.memory_kib() - before < 64 * 1024
        assert daemon.stop() == 0


def test_memory_is_bounded_whatever_waits(
    node: RabbitNode, names: Names, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With LARGE_MESSAGES=1000 in the environment: 4 GiB wait, and the peak is printed."""
    count, size = int(os.environ.get("LARGE_MESSAGES", "40")), 4 << 20
    with moody_daemon(tmp_path, node, names) as daemon:
        base = daemon.memory_kib() >> 10
    publish(node.url, names.exchange, (b"%07d" % n + b"x" * (size - 7) for n in range(count)))
    (tmp_path / "mood").write_text("slow")
    with daemon.unready():
        wait_until(lambda: "max_in_flight_bytes" in daemon.get("/readyz")[1], "full", 60 + count)
        (tmp_path / "mood").write_text("")
        wait_until(lambda: daemon.acked() == count, "all is acknowledged", 60 + count)
        peak = daemon.memory_kib() >> 10
        returned = int(daemon.metric("logfan_requeued_messages_total"))
        assert adds_up(daemon)
        assert daemon.stop() == 0
    with (tmp_path / "raw.log").open("rb") as lines:
        assert sorted(int(line[:7]) for line in lines) == list(range(count))
    with capsys.disabled():
        print(f"\n{count} of 4 MiB: {base} MiB, at most {peak} MiB; {returned} were handed back")
    # The budget is 64 MiB; the rest is one read, one body in parts, and one write.
    assert peak - base < 64 + 48


def test_what_a_busy_sink_has_no_room_for_waits_in_the_broker_and_is_not_sent_twice(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'max_in_flight_bytes = "24MiB"\nprefetch = 4000'
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, extra=extra)
    with daemon:
        pass
    publish(node.url, names.exchange, (b"%07d" % n + bytes(1 << 20) for n in range(100)))
    with daemon:
        wait_until(lambda: daemon.acked() == 100, "all is acknowledged")
        assert daemon.metric("logfan_requeued_messages_total") == 0
        assert adds_up(daemon)
    with (tmp_path / "raw.log").open("rb") as lines:
        assert [int(line[:7]) for line in lines] == list(range(100))


def test_a_sink_that_lingers_waits_for_nothing_that_cannot_come(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The budget is full long before its batch is."""
    sinks = f'[sinks.raw.batch]\nlinger = "600s"\n{RAW}'
    extra = 'max_in_flight_bytes = "64KiB"'
    with DaemonProcess(tmp_path, node.url, names, sinks, extra=extra) as daemon:
        publish(node.url, names.exchange, [b"%04d" % n + bytes(4092) for n in range(48)])
        wait_until(lambda: daemon.acked() >= 32, "what fits is written each time", 30.0)
        assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_and_a_reload_do_not_linger(
    node: RabbitNode, names: Names, tmp_path: Path, number: signal.Signals
) -> None:
    sinks = f'[sinks.raw.batch]\nlinger = "600s"\n{RAW}'
    with DaemonProcess(tmp_path, node.url, names, sinks) as daemon:
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 1, "it lingers")
        daemon.config.write_text(daemon.config.read_text().replace("600s", "500s"))
        daemon.signal(number)
        if number is signal.SIGHUP:
            wait_until(lambda: "is taken over" in daemon.log(), "it is reloaded", 20.0)
            daemon.signal(signal.SIGTERM)
        assert daemon.wait(20.0) == 0
        assert "went back" not in daemon.log()
        assert (tmp_path / "raw.log").read_bytes() == b"one\n"


def test_one_body_larger_than_the_budget_still_passes(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'max_in_flight_bytes = "64KiB"'
    with DaemonProcess(tmp_path, node.url, names, RAW, extra=extra) as daemon:
        publish(node.url, names.exchange, [b"x" * (1 << 20), b"small", b"y" * (1 << 20)])
        wait_until(lambda: daemon.acked() == 3, "all is acknowledged")
        sizes = [len(line) for line in (tmp_path / "raw.log").read_bytes().splitlines()]
        assert sorted(sizes) == [5, 1 << 20, 1 << 20]


SLOW = """
import logfan, time


class Slow(logfan.Sink):
    def write(self, records):
        time.sleep(0.05)


@logfan.hookimpl
def register_sinks(register):
    register("slow", Slow)
"""


@pytest.mark.parametrize("behind", [0, 100])
def test_a_message_as_large_as_the_budget_is_returned_once_and_waits_until_it_fits(
    node: RabbitNode, names: Names, tmp_path: Path, behind: int
) -> None:
    """In a queue of others, whose delivery limit is 3: it would be dropped after 4 returns."""
    declare_bound(node.url, names, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    add_drop_in(tmp_path, "slow", SLOW)
    sinks = RAW + '[sinks.slow]\nkind = "slow"\nbatch = { max_records = 5 }\n'
    small = [b"%04d" % n + b"s" * 2_000 for n in range(100 + behind)]
    large = b"large" + b"x" * ((1 << 20) - 5)
    publish(node.url, names.exchange, [*small[:100], large, *small[100:], large])
    extra = 'max_in_flight_bytes = "1MiB"'
    with DaemonProcess(tmp_path, node.url, names, sinks, extra=extra) as daemon:
        wait_until(lambda: daemon.acked() == len(small) + 2, "all is acknowledged")
        assert "beside one of 1,048,576" in daemon.log()
        assert daemon.metric("logfan_delivery_count_max") <= 2
        written = (tmp_path / "raw.log").read_bytes().splitlines()
        assert sorted(written) == sorted([*small, large, large])
        assert daemon.metric('logfan_dead_lettered_records_total{sink="raw"}') == 0
        assert adds_up(daemon)


@pytest.mark.parametrize(
    "nature",
    [
        "auto-delete", "expires",
        pytest.param("single active consumer", marks=pytest.mark.long),
        pytest.param("ours", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_a_pause_deletes_no_queue_that_goes_with_its_last_consumer(
    node: RabbitNode, names: Names, tmp_path: Path, nature: str
) -> None:
    """Of want of room, of a long outage, and to subscribe with a larger prefetch."""
    arguments = {"x-expires": 1_500} if nature == "expires" else {}
    if nature == "single active consumer":
        arguments = {"x-single-active-consumer": True}
    environ = {"LOGFAN_QUEUE__TYPE": "exclusive"} if nature == "ours" else {}
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        if nature != "ours":
            admin.queue_declare(
                names.queue, durable=True, auto_delete=nature != "expires", arguments=arguments
            )
            admin.queue_bind(names.queue, names.exchange)
        extra = 'acknowledgement_timeout = "12s"\nmax_in_flight_bytes = "1MiB"\nprefetch = 100'
        (tmp_path / "mood").write_text("slow")
        with moody_daemon(tmp_path, node, names, extra=extra, environ=environ) as daemon:
            bodies = [b"%04d" % n + b"x" * 50_000 for n in range(100)]
            publish(node.url, names.exchange, bodies)
            wait_until(lambda: "allows beside one of" in daemon.log(), "a pause for room")
            wait_until(lambda: "handed back to the broker" in daemon.log(), "an outage")
            # Longer than the queue lives without a consumer, and than a message is held.
            node.eval("timer:sleep(5000).")
            (tmp_path / "mood").write_text("")
            wait_until(lambda: daemon.acked() >= 100, "all is acknowledged")
            written = {line[:4] for line in (tmp_path / "raw.log").read_bytes().splitlines()}
            assert written == {body[:4] for body in bodies}
            publish(node.url, names.exchange, [b"later"])
            wait_until(lambda: b"later" in (tmp_path / "raw.log").read_bytes(), "it goes on")
            assert daemon.metric('logfan_connections_total{outcome="lost"}') == 0


def test_a_last_delivery_is_not_returned_for_want_of_room(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    declare_bound(node.url, names, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    publish(node.url, names.exchange, [b"a" * (1 << 20), b"b" * (1 << 20)])
    for _ in range(2):
        with channel(node.url) as other:
            for _ in range(2):
                wait_until(partial(has_one, other, names.queue), "it is there")
    extra = 'max_in_flight_bytes = "1MiB"'
    # Whichever comes first, the other one has no room beside it.
    with DaemonProcess(tmp_path, node.url, names, RAW, extra=extra) as daemon:
        wait_until(lambda: daemon.acked() == 2, "all is acknowledged")
        wait_until(lambda: waiting(node.url, f"{names.queue}.dead") == 2, "both are kept")
        assert daemon.metric("logfan_delivery_count_max") == 2
        assert daemon.metric("logfan_requeued_messages_total") == 0


def test_a_stop_while_unsubscribed_drains_what_is_in_flight(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'max_in_flight_bytes = "4MiB"'
    with moody_daemon(tmp_path, node, names, extra=extra) as daemon:
        (tmp_path / "mood").write_text("slow")
        publish(node.url, names.exchange, (bytes([65 + n]) * (1 << 20) for n in range(10)))
        wait_until(lambda: daemon.metric("logfan_consuming") == 0, "it unsubscribed")
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: draining" in daemon.log(), "it drains")
        (tmp_path / "mood").write_text("")
        assert daemon.wait() == 0
    lines = (tmp_path / "raw.log").read_bytes().splitlines()
    assert len(lines) + waiting(node.url, names.queue) == 10


def test_a_quorum_queue_of_ours_never_drops_a_message_for_being_returned(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_QUEUE__TYPE": "quorum"}
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
    with daemon:
        publish(node.url, names.exchange, [])
    publish(node.url, names.exchange, [b"wanted"])
    for _ in range(25):
        with channel(node.url) as other:
            wait_until(partial(has_one, other, names.queue), "it is there")
    with daemon:
        wait_until(lambda: daemon.acked() == 1, "it is not lost")
        assert daemon.metric("logfan_delivery_count_max") == 25
        assert (tmp_path / "raw.log").read_bytes() == b"wanted\n"


def test_a_message_near_its_last_return_is_dead_lettered_before_it_is_dropped(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    declare_bound(node.url, names, arguments={"x-queue-type": "quorum", "x-delivery-limit": 5})
    (tmp_path / "mood").write_text("deadly")
    environ = {"LOGFAN_QUEUE__TYPE": "quorum"}
    daemon = moody_daemon(tmp_path, node, names, environ=environ)
    publish(node.url, names.exchange, [b"kills"])
    for _ in range(4):
        daemon.start(ready=False)
        assert daemon.wait() == 9
    with daemon:
        wait_until(lambda: daemon.acked() == 1, "it is out of the queue")
        assert "x-delivery-limit is '5' on the broker" in daemon.log()
        assert "its queue drops a message after 5 returns" in daemon.log()
        letters = []
        with channel(node.url) as admin:
            for _ in range(2):
                _, properties, body = admin.basic_get(f"{names.queue}.dead", auto_ack=True)
                letters.append(Letter(body, connection.to_properties(properties)))
        assert {letter.sink for letter in letters} == {"raw", "moody"}
        assert {letter.body for letter in letters} == {b"kills"}
        assert all("delivered 4 times before" in letter.reason for letter in letters)


def test_large_headers_are_bounded_as_bodies_are(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """128 KiB of headers may be 0.1 s of work: 1,000 such messages at once look like a hang."""
    add_drop_in(tmp_path, "counting", COUNTING)
    (tmp_path / "shut").touch()
    writes = tmp_path / "writes"
    sink = '[sinks.counting]\nkind = "counting"\nbatch = { max_bytes = "1MiB" }\n'
    budget = 'max_in_flight_bytes = "8MiB"'
    with DaemonProcess(tmp_path, node.url, names, sink, extra=budget) as one:
        publish(node.url, names.exchange, [b"x"] * 200, headers={"large": "x" * 100_000})
        wait_until(lambda: waiting(node.url, names.queue) > 100, "the budget is full")
        assert one.metric("logfan_in_flight_bytes") < 9 << 20
        (tmp_path / "shut").unlink()
        wait_until(lambda: one.metric("logfan_acked_messages_total") == 200, "all are written")
    assert max(map(int, writes.read_text().split())) <= 11
