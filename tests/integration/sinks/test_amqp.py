"""The sink `amqp` against a real RabbitMQ: each verdict."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import record
from logfan.testing.node import RabbitNode
from logfan_sinks.amqp import AmqpSink
from support.broker import Names, channel, granting, memory_alarm
from support.letters import bodies
from support.opener import opener

Open = Callable[..., AmqpSink]


@pytest.fixture
def opened(node: RabbitNode, names: Names) -> Iterator[Open]:
    """Opens a sink to the exchange of this test, which has a queue, and closes it at the end."""
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "direct", durable=True)
        other.queue_declare(names.queue, durable=True)
        other.queue_bind(names.queue, names.exchange, "shop")
    with opener(AmqpSink, "other", url=node.url, exchange=names.exchange) as opened:
        yield opened


def numbered(count: int, key: str = "shop") -> list[Record]:
    return [record(b"%d" % n, routing_key=key, message_id=str(n)) for n in range(count)]


def test_records_arrive_in_order_with_their_properties(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    sink = opened()
    one = record(
        b"body", routing_key="shop", message_id="m-1", app_id="web", user_id="somebody",
        headers={"host": "a", "n": 7, "list": (1, "x")}, content_type="text/plain", timestamp=5,
    )  # fmt: skip
    sink.write([one])
    with channel(node.url) as other:
        _, properties, body = other.basic_get(names.queue, auto_ack=True)
    assert body == b"body"
    assert (properties.message_id, properties.app_id, properties.timestamp) == ("m-1", "web", 5)
    assert (properties.delivery_mode, properties.user_id) == (2, None)
    assert properties.headers == {
        "host": "a", "n": 7, "list": [1, "x"], "x-logfan-exchange": "logs",
    }  # fmt: skip
    sink.write(numbered(3000))
    assert bodies(node.url, names.queue) == [b"%d" % n for n in range(3000)]


def test_a_publishers_headers_neither_route_nor_choose_a_sink_at_the_other_broker(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    """The right to publish to `logs` is none to write to every queue that this sink's user may."""
    with channel(node.url) as other:
        other.queue_declare(f"{names.queue}.private", durable=True)
        other.queue_bind(f"{names.queue}.private", names.exchange, "private")
    headers = {
        "CC": ["private"], "BCC": ["private"], "cc": "mine", "x-logfan-replay": "archive",
        "x-logfan-sink": "archive", "x-logfan-reason": "forged", "x-logfan-exchange": "forged",
    }  # fmt: skip
    opened(routing_key="shop").write([record(b"body", routing_key="shop", headers=headers)])
    assert bodies(node.url, f"{names.queue}.private") == []
    with channel(node.url) as other:
        _, properties, body = other.basic_get(names.queue, auto_ack=True)
    assert body == b"body"
    assert properties.headers == {"cc": "mine", "x-logfan-exchange": "logs"}


def test_a_message_that_would_expire_stays_at_the_other_broker(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    """It is acknowledged here once it is confirmed there."""
    opened().write([record(b"body", routing_key="shop", expiration="0")])
    assert bodies(node.url, names.queue) == [b"body"]


def test_what_reaches_no_queue_is_held(opened: Open, node: RabbitNode, names: Names) -> None:
    sink = opened()
    records = [*numbered(3), record(b"lost", routing_key="nowhere"), *numbered(2)]
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert dict(caught.value.later) == {3: "reaches no queue: NO_ROUTE (312)"}
    assert not caught.value.reasons
    assert len(bodies(node.url, names.queue)) == 5
    sink.write(numbered(1))


def test_a_full_queue_holds_what_it_does_not_take(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
    with channel(node.url) as other:
        other.queue_declare(f"{names.queue}.full", durable=True, arguments=arguments)
        other.queue_bind(f"{names.queue}.full", names.exchange, "full")
    sink = opened(routing_key="full")
    later: Mapping[int, str] = {}
    refused: Mapping[int, str] = {}
    for _ in range(20):  # as more than the limit may come in before it is heard of
        with suppress(SinkUnavailable):  # as it says where none of a batch is taken
            try:
                sink.write(numbered(10))
            except RecordsRejected as rejected:
                later, refused = rejected.later, rejected.reasons
    assert len(later) == 10
    assert "nack" in later[0]
    assert not refused


def test_an_exchange_that_is_missing_is_not_now(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match=r"NOT_FOUND.*\(404\)"):
        opened(exchange="no-such-exchange").write(numbered(1))


def test_a_broker_that_does_not_shake_hands_is_not_now() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"amqp://127.0.0.1:{mute.getsockname()[1]}"
        config = AmqpSink.Config.model_validate({"url": url, "exchange": "x", "timeout": "1s"})
        with pytest.raises(SinkUnavailable, match="no answer to the handshake for 1 s"):
            AmqpSink(config, name="other").open()


def test_a_broker_that_goes_away_is_not_now(own_node: RabbitNode) -> None:
    with channel(own_node.url) as other:
        other.queue_declare("q", durable=True)
    config = {"url": own_node.url, "exchange": "", "routing_key": "q"}
    sink = AmqpSink(AmqpSink.Config.model_validate(config), name="other")
    sink.open()
    sink.write(numbered(2))
    own_node.stop()
    with pytest.raises(SinkUnavailable):
        sink.write(numbered(2))
    with pytest.raises(SinkUnavailable, match="refused"):
        sink.open()
    own_node.start()
    sink.open()
    sink.write(numbered(2))
    sink.close()
    assert len(bodies(own_node.url, "q")) == 4


def test_a_message_beyond_the_brokers_limit_is_refused_once_that_is_known(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    records = [record(body, routing_key="shop") for body in (b"a", b"x" * 2000, b"b")]
    with granting(node, max_message_size=1000):
        sink = opened()
        with pytest.raises(SinkUnavailable, match="larger than"):
            sink.write(records)
        sink.open()
        with pytest.raises(RecordsRejected) as caught:
            sink.write(records)
    assert dict(caught.value.reasons) == {
        1: "2,000 bytes are more than the broker's max_message_size"
    }
    assert {b"a", b"b"} <= {*bodies(node.url, names.queue)}


def test_a_limit_that_was_raised_is_known_after_the_next_open(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    large = record(b"x" * 2000, routing_key="shop")
    with granting(node, max_message_size=1000):
        sink = opened()
        with pytest.raises(SinkUnavailable, match="larger than"):
            sink.write([large])
        sink.open()
        with pytest.raises(RecordsRejected):
            sink.write([large])
    sink.open()
    sink.write([large])
    assert bodies(node.url, names.queue) == [large.body]


def test_headers_that_fit_no_frame_or_no_type_are_refused_alone(
    opened: Open, node: RabbitNode, names: Names
) -> None:
    records = [
        *numbered(1), record(b"a", routing_key="shop", headers={"long": "x" * 140_000}),
        record(b"b", routing_key="shop", headers={"long": "x" * 130_000}),
        record(b"c", routing_key="shop", headers={"huge": 1 << 80}), *numbered(2)[1:],
    ]  # fmt: skip
    with pytest.raises(RecordsRejected) as caught:
        opened().write(records)
    assert [*caught.value.reasons] == [1, 3]
    assert "more than a frame of the broker holds" in caught.value.reasons[1]
    assert bodies(node.url, names.queue) == [b"0", b"b", b"1"]


def test_an_alarm_is_waited_for_and_named(opened: Open, node: RabbitNode) -> None:
    sink = opened(timeout="1s")
    with (
        memory_alarm(node),
        pytest.raises(SinkUnavailable, match="no confirm for 1 s; it blocks publishers"),
    ):
        sink.write(numbered(2))
    sink.open()
    sink.write(numbered(2))


def test_no_thread_and_no_password_is_left_behind(opened: Open, tmp_path: Path) -> None:
    before = threading.active_count()
    file = tmp_path / "url"
    file.write_text("amqp://ann:s3cret@127.0.0.1:1/\n")
    with pytest.raises(SinkUnavailable) as caught:
        opened(url=None, url_file=str(file))
    assert "s3cret" not in str(caught.value)
    assert threading.active_count() == before
    with pytest.raises(SinkUnavailable, match="No such file"):
        opened(url=None, url_file="/no/such/file")
    with pytest.raises(SinkUnavailable, match=r"^tls.ca_file: /no/such/file: No such file"):
        opened(url="amqps://127.0.0.1:1/", tls={"ca_file": "/no/such/file"})


@pytest.mark.parametrize(
    "options",
    [
        {}, {"url": "http://a"}, {"url": "amqp://a:x@b:nonsense/"},
        {"url": "amqp://a", "url_file": "b"},
    ],
)  # fmt: skip
def test_a_config_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        AmqpSink.Config.model_validate({"exchange": "x", **options})
    assert "x@b" not in str(caught.value.errors(include_input=False))
