"""The sink `kafka` against a real Kafka: each verdict."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaException

from logfan.record import Record
from logfan.sink import RecordsRejected, Sink, SinkUnavailable
from logfan.testing import record
from logfan.testing.conformance import Break, How, SinkConformance
from logfan_sinks.kafka import KafkaSink
from support.kafka import Kafka
from support.needed import needed
from support.opener import opener
from support.waiting import wait_until

Open = Callable[..., KafkaSink]
_numbers = count()


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with needed(), Kafka() as server:
        yield server


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """A topic of this test's own, with one partition."""
    name = f"logs-{next(_numbers)}"
    kafka.create(name)
    return name


@pytest.fixture
def opened(kafka: Kafka, topic: str) -> Iterator[Open]:
    """Opens a sink to the topic, and closes it at the end."""
    given = {"brokers": [kafka.address], "topic": topic}
    with opener(KafkaSink, "stream", **given) as opened:
        yield opened


def put(sink: KafkaSink, *records: Record) -> None:
    sink.write(records)
    sink.flush()


def numbered(count: int, first: int = 0, **fields: Any) -> list[Record]:
    return [record(b"%d" % n, message_id=str(n), **fields) for n in range(first, first + count)]


def values(kafka: Kafka, topic: str) -> list[bytes]:
    return [value for value, _, _ in kafka.messages(topic)]


def rss() -> int:
    """This process's memory, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_messages_arrive_in_order_with_key_and_identity(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(key="{routing_key}", format="raw", id=["headers.id"])
    one = record(b"a", routing_key="shop", message_id="m-1")
    put(sink, one, record(b"b", routing_key="é", headers={"id": 7}), record(b"c"))
    assert kafka.messages(topic) == [
        (b"a", b"shop", {"id": b"m-1"}), (b"b", "é".encode(), {"id": b"7"}), (b"c", b"", {}),
    ]  # fmt: skip
    put(sink, *numbered(3000))
    assert values(kafka, topic)[3:] == [b"%d" % n for n in range(3000)]


@pytest.mark.parametrize("compress", ["gzip", "lz4", "snappy", "zstd"])
def test_compressed_batches_are_read_as_they_were(
    opened: Open, kafka: Kafka, topic: str, compress: str
) -> None:
    put(opened(compress=compress, format="text"), *numbered(500))
    assert values(kafka, topic) == [b"%d" % n for n in range(500)]


def test_the_records_decide_on_the_topic(opened: Open, kafka: Kafka, topic: str) -> None:
    kafka.create("of.shop")
    kafka.create("of._.._etc_")
    sink = opened(topic="of.{routing_key}", format="raw")
    put(
        sink, record(b"a", routing_key="shop"), record(b"b", routing_key="/../etc\n"),
        record(b"c", routing_key="shop"),
    )  # fmt: skip
    assert values(kafka, "of.shop") == [b"a", b"c"]
    assert values(kafka, "of._.._etc_") == [b"b"]


def test_a_topic_that_no_name_may_be_is_another(opened: Open, kafka: Kafka) -> None:
    kafka.create("_")
    sink = opened(topic="{routing_key}", format="raw")
    put(sink, *[record(key.encode(), routing_key=key) for key in (".", "..", "", "/")])
    assert sorted(values(kafka, "_")) == [b"", b".", b"..", b"/"]


def test_what_names_a_topic_that_takes_nothing_is_refused_alone(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    internal = "__consumer_offsets"
    with suppress(KafkaException):  # it may be there
        kafka.create(internal)
    records = [*numbered(2, routing_key=topic), *numbered(1, 2, routing_key=internal)]
    sink = opened(topic="{routing_key}", format="raw")
    for _ in range(2):
        with pytest.raises(RecordsRejected) as caught:
            sink.write(records)
        assert [*caught.value.reasons] == [2]
        assert "TOPIC_EXCEPTION" in caught.value.reasons[2]
        assert not caught.value.later
    assert values(kafka, topic) == [b"0", b"1"] * 2
    with pytest.raises(SinkUnavailable, match="TOPIC_EXCEPTION"):
        opened(topic=internal, format="raw").write(records[:2])


def test_records_for_a_topic_that_is_missing_come_again_alone(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(topic="{routing_key}", format="raw")
    late = f"{topic}-late"
    records = [*numbered(2, routing_key=topic), *numbered(1, 2, routing_key=late)]
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert [*caught.value.later] == [2]
    assert "Unknown topic" in caught.value.later[2]
    assert not caught.value.reasons
    assert values(kafka, topic) == [b"0", b"1"]
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records[2:])
    assert [*caught.value.later] == [0], "it says nothing of records for other topics"
    kafka.create(late)
    sink.open()
    put(sink, records[2])
    assert values(kafka, late) == [b"2"]


def test_a_topic_that_is_missing_is_seen_when_it_opens(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match=r"the topic nowhere: .*Unknown topic"):
        opened(topic="nowhere")


def test_what_the_topic_finds_too_large_is_refused_alone(opened: Open, kafka: Kafka) -> None:
    kafka.create("small", max_message_bytes="2000")
    sink = opened(topic="small", format="raw")
    records = numbered(40)
    for place in (7, 8, 31):
        records[place] = record(b"x" * 3000)
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert [*caught.value.reasons] == [7, 8, 31]
    assert "MSG_SIZE_TOO_LARGE" in caught.value.reasons[7]
    assert not caught.value.later
    passed = [b"%d" % n for n in range(40) if n not in (7, 8, 31)]
    assert sorted(values(kafka, "small")) == sorted(passed)
    # A batch that is too large as a whole is no fault of any of its messages.
    put(sink, *[record(b"y" * 500) for _ in range(20)])
    assert len(values(kafka, "small")) == len(passed) + 20


def test_a_message_that_is_larger_than_the_clients_queue_arrives(
    opened: Open, kafka: Kafka
) -> None:
    kafka.create("large", max_message_bytes="90000000")
    sink = opened(
        topic="large", format="raw", max_message_bytes="90MB", timeout="10m", compress="gzip"
    )
    put(sink, record(b"a"), record(bytes(70 << 20)), record(b"b"))
    assert [len(value) for value in values(kafka, "large")] == [1, 70 << 20, 1]


def test_what_the_client_finds_too_large_is_refused_alone(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(format="raw", max_message_bytes="10kB")
    with pytest.raises(RecordsRejected) as caught:
        sink.write([*numbered(2), record(b"x" * 20_000), *numbered(1, 2)])
    assert [*caught.value.reasons] == [2]
    assert values(kafka, topic) == [b"0", b"1", b"2"]


def test_a_crash_in_the_middle_of_a_batch_loses_and_repeats_nothing(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(format="raw", timeout="60s")
    put(sink, *numbered(1000))
    written, is_back = [1000], threading.Event()

    def write() -> None:
        while not is_back.is_set():
            put(sink, *numbered(100, written[0]))
            written[0] += 100

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: written[0] > 2000, "some batches are there")
        kafka.kill()
        kafka.start()
    finally:
        is_back.set()
        writer.join()
    put(sink, *numbered(100, written[0]))
    assert values(kafka, topic) == [b"%d" % n for n in range(written[0] + 100)]


def test_brokers_that_are_silent_are_waited_for_no_longer_than_allowed(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(format="raw", timeout="2s")
    put(sink, *numbered(1))
    kafka.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(SinkUnavailable, match="no acknowledgement for 2 s"):
            sink.write(numbered(3, 1))
        with pytest.raises(SinkUnavailable):
            sink.open()
        assert time.monotonic() - began < 30
    finally:
        kafka.thaw()
    sink.open()
    put(sink, *numbered(3, 1))
    found = values(kafka, topic)
    # What was under way may have been taken as well; what was purged may not come late.
    assert found[:1] + found[-3:] == [b"0", b"1", b"2", b"3"]
    assert len(found) <= 7


def test_a_broker_that_is_away_is_named(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1.*refused"):
        opened(brokers=["127.0.0.1:1"], timeout="2s")


def test_it_logs_in_by_tls_with_a_password_from_a_file(
    opened: Open, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("s3cret\n")
    wrong.write_text("gu3ss\n")
    login: dict[str, Any] = {
        "brokers": [kafka.sasl], "sasl": "PLAIN", "username": "logfan", "timeout": "3s",
        "password_file": right, "tls": {"ca_file": str(kafka.ca)}, "format": "raw",
    }  # fmt: skip
    put(opened(**login), *numbered(1))
    put(opened(**{**login, "tls": {"verify": False}}), *numbered(1, 1))
    assert values(kafka, topic) == [b"0", b"1"]
    with pytest.raises(SinkUnavailable, match=r"(?i)authentication failed") as caught:
        opened(**{**login, "password_file": wrong})
    assert "gu3ss" not in str(caught.value)
    with pytest.raises(SinkUnavailable, match=r"certificate verify failed"):
        opened(**{**login, "tls": {}})
    with pytest.raises(SinkUnavailable, match="No such file"):
        opened(**{**login, "password_file": tmp_path / "none"})


def test_more_than_the_client_holds_is_sent_in_turns(
    opened: Open, kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan_sinks.kafka._QUEUE_KILOBYTES", 64)
    put(opened(format="raw"), *[record(b"x" * 5000) for _ in range(300)])
    assert len(values(kafka, topic)) == 300


def test_memory_stays_bounded_while_the_brokers_hang(
    opened: Open, kafka: Kafka, topic: str
) -> None:
    sink = opened(format="raw", timeout="1s")
    batch = [record(b"%06d" % n + b"x" * 10_000) for n in range(1000)]
    kafka.freeze()
    try:
        with pytest.raises(SinkUnavailable):
            sink.write(batch)
        before = rss()
        for _ in range(6):
            with pytest.raises(SinkUnavailable):
                sink.write(batch)
        assert rss() - before < 3 * 10_000 * len(batch)
    finally:
        kafka.thaw()


def test_files_for_tls_are_looked_for_when_it_opens(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match=r"^tls.ca_file: .*No such file"):
        opened(tls={"ca_file": str(tmp_path / "none")})


class TestConformance(SinkConformance):
    sink_class: ClassVar[type[Sink[Any]]] = KafkaSink

    @pytest.fixture(autouse=True)
    def _topic(self, kafka: Kafka, topic: str) -> Iterator[None]:
        self.kafka, self.topic = kafka, topic
        with kafka.gate:
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {
            "brokers": [f"127.0.0.1:{self.kafka.gate.port}"], "topic": self.topic, "format": "raw",
            "max_message_bytes": "20kB", "timeout": "3s",
        }  # fmt: skip

    def read_back(self, sink: Sink[Any], folder: Path) -> list[bytes]:
        return values(self.kafka, self.topic)

    def break_it(self, how: How, folder: Path) -> Break:
        if how == "away":
            return self.kafka.gate.shut, self.kafka.gate.open
        return self._hangs() if how == "slow" else nullcontext()

    @contextmanager
    def _hangs(self) -> Iterator[None]:
        self.kafka.freeze()
        yield
        self.kafka.thaw()

    def refused_record(self) -> Record:
        return record(b"x" * 30_000)
