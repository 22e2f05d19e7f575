"""Whole deliveries are taken in one pass; whatever is not just that is left where it stands."""

import struct
from collections.abc import Callable

import pytest

from logfan.amqp import delivery_parser
from logfan.amqp.delivery_parser import Stream
from logfan.amqp_properties import decode_properties
from logfan.record import Properties
from support import wire_bytes as wire

TAG, CHANNEL, AT = "ctag1.9f", 5, 1_795_521_600.25
APART = b"x-logfan-replay"
JSON = b"\x80\0" + wire.short("application/json")


def stream(
    consumer: str = TAG, decode: Callable[[bytes], Properties] = decode_properties
) -> Stream:
    return Stream(CHANNEL, consumer, decode, apart=APART)


def message(
    tag: int, content: bytes = b"hello", properties: bytes = JSON, *, bits: int = 0,
    exchange: bytes = b"logs", routing_key: bytes = b"a.b",
) -> bytes:  # fmt: skip
    """The three frames of a delivery."""
    return (
        wire.deliver(CHANNEL, TAG, tag, bits, exchange, routing_key)
        + wire.header(CHANNEL, len(content), properties)
        + wire.body(CHANNEL, content)
    )


def taken(data: bytes, at: int = 0) -> int:
    """How many deliveries a scan takes."""
    run = stream().scan(data, at, AT)
    return 0 if run is None else len(run.records)


def test_a_run_holds_what_was_delivered_in_order() -> None:
    data = message(7, b"one") + message(8, b"three", b"\0\0", exchange=b"", routing_key=b"q")
    run = stream().scan(data, 0, AT)
    assert run is not None
    assert (run.last_tag, run.size, run.end) == (8, 8, len(data))
    first, second = run.records
    assert (first.body, first.exchange, first.routing_key) == (b"one", "logs", "a.b")
    assert (second.body, second.exchange, second.routing_key) == (b"three", "", "q")
    assert first.properties == Properties(content_type="application/json")
    assert second.properties == Properties()
    assert {one.received_at for one in run.records} == {AT}
    assert not any(one.redelivered for one in run.records)


def test_properties_are_decoded_when_somebody_looks_and_once() -> None:
    asked: list[bytes] = []

    def decode(raw: bytes) -> Properties:
        asked.append(raw)
        return decode_properties(raw)

    run = stream(decode=decode).scan(message(1), 0, AT)
    assert run is not None
    assert not asked
    assert run.records[0].properties.content_type == "application/json"
    assert run.records[0].headers == {}
    assert asked == [JSON]


def test_a_body_may_be_parsed_from_a_run() -> None:
    run = stream().scan(message(1, b'{"n": 1}'), 0, AT)
    assert run is not None
    assert run.records[0].json() == {"n": 1}


def test_it_begins_where_it_is_asked_to() -> None:
    before = wire.heartbeat()
    assert taken(before + message(1)) == 0
    assert taken(before + message(1), len(before)) == 1


def test_what_is_not_whole_yet_is_left() -> None:
    first, second = message(1), message(2)
    for cut in range(len(second)):
        run = stream().scan(first + second[:cut], 0, AT)
        assert run is not None
        assert (len(run.records), run.end) == (1, len(first))
        assert stream().scan(second[:cut], 0, AT) is None


def test_what_is_cut_has_begun_and_its_size_is_known_with_its_content_header() -> None:
    first, second = message(1), message(2)
    method = len(wire.deliver(CHANNEL, TAG, 2, 0, b"logs", b"a.b"))
    head = method + len(wire.header(CHANNEL, 5, JSON))
    one = stream()
    whose = 7 + 4 + 1 + len(TAG)
    for cut in range(len(second)):
        begun = one.begun(first + second[:cut], len(first))
        if 7 <= cut < whose:
            assert begun is None, "it may be another's"
        else:
            assert begun == (5 if cut >= head else 0)
    assert one.begun(first + second, len(first)) is None


@pytest.mark.parametrize(
    ("odd", "known_after"),
    [
        (wire.deliver(CHANNEL, "other", 1) + b"more", 7),
        (wire.deliver(CHANNEL + 1, TAG, 1) + b"more", 7),
        (wire.heartbeat(), 7),
        (message(1, bits=1), len(wire.deliver(CHANNEL, TAG, 1, 0, b"logs", b"a.b"))),
        (
            message(1, properties=b"\x20\0" + APART, exchange=b""),
            -len(wire.body(CHANNEL, b"hello")),
        ),
        (wire.deliver(CHANNEL, TAG, 1) + wire.heartbeat(), -1),
        (wire.deliver(CHANNEL, TAG, 1) + wire.header(CHANNEL, 0) + b"more", -4),
        (message(1)[:-14] + wire.heartbeat(), -1),
    ],
)
def test_the_beginning_of_anything_else_is_left_to_pika_once_it_is_known(
    odd: bytes, known_after: int
) -> None:
    cuts = range(known_after % len(odd), len(odd))
    assert all(stream().begun(odd[:cut], 0) is None for cut in cuts)


def test_method_frames_of_another_size_are_learnt_and_the_old_ones_known_again() -> None:
    keys = [b"a", b"longer", b"a", b"", b"k" * 255, b"longer"]
    content = b"." * 300  # with less behind a long one, the last would be left to pika
    data = b"".join(message(n, content, routing_key=key) for n, key in enumerate(keys, 1))
    one = stream()
    for _ in range(2):
        run = one.scan(data, 0, AT)
        assert run is not None
        assert [record.routing_key.encode() for record in run.records] == keys


@pytest.mark.parametrize("tag", ["x", "é☃", "t" * 255, "\N{SNOWMAN}" * 85])
def test_any_consumer_tag_will_do(tag: str) -> None:
    data = wire.deliver(CHANNEL, tag, 1) + wire.header(CHANNEL, 2) + wire.body(CHANNEL, b"hi")
    assert stream(tag).scan(data, 0, AT) is not None
    assert taken(data) == 0


@pytest.mark.parametrize("length", [0, 1, 255])
def test_the_shortest_and_the_longest_exchange_and_routing_key_fit(length: int) -> None:
    odd = message(2, exchange=b"e" * length, routing_key=b"k" * length)
    assert taken(message(1) + odd) == 2


@pytest.mark.parametrize("tag", [0, 1, 1 << 31, (1 << 64) - 1])
def test_a_run_may_begin_with_any_tag(tag: int) -> None:
    run = stream().scan(message(tag), 0, AT)
    assert run is not None
    assert run.last_tag == tag


@pytest.mark.parametrize("second", [1, 3, 0, 1 << 40])
def test_a_run_ends_where_the_tags_do_not_go_on(second: int) -> None:
    data = message(1) + message(second)
    run = stream().scan(data, 0, AT)
    assert run is not None
    assert (len(run.records), run.last_tag) == (1, 1)
    rest = stream().scan(data, run.end, AT)
    assert rest is not None
    assert rest.last_tag == second


def test_a_body_that_ends_like_a_frame_or_holds_frames_is_a_body() -> None:
    for content in (bytes((wire.END,)) * 20, message(2), b"\0"):
        run = stream().scan(message(1, content), 0, AT)
        assert run is not None
        assert [record.body for record in run.records] == [content]


_GOOD = (wire.deliver(CHANNEL, TAG, 2), wire.header(CHANNEL, 5, JSON), wire.body(CHANNEL, b"hello"))
_LEFT = {
    "redelivered": [message(2, bits=1)],
    "an odd bit beside redelivered": [message(2, bits=2)],
    "an exchange that is not UTF-8": [message(2, exchange=b"\xff")],
    "a routing key that is not UTF-8": [message(2, routing_key=b"\xc3(")],
    "a replayed dead letter": [
        message(2, properties=b"\x20\0" + wire.table(wire.short(APART) + b"V"), exchange=b"")
    ],
    "something behind the routing key": [wire.deliver(CHANNEL, TAG, 2, rest=b"\xce"), *_GOOD[1:]],
    "a routing key that is cut short": [
        _GOOD[0][:3] + struct.pack(">I", len(_GOOD[0]) - 9) + _GOOD[0][7:-2] + b"\xce", *_GOOD[1:]
    ],
    "another channel": [wire.deliver(CHANNEL + 1, TAG, 2), *_GOOD[1:]],
    "another consumer": [wire.deliver(CHANNEL, "ctag1.9g", 2), *_GOOD[1:]],
    "a consumer whose tag begins alike": [wire.deliver(CHANNEL, TAG + "0", 2), *_GOOD[1:]],
    "another method": [_GOOD[0].replace(b"\0<\0<", b"\0<\0\x32"), *_GOOD[1:]],
    "another type of frame": [b"\2" + _GOOD[0][1:], *_GOOD[1:]],
    "a method with a wrong end": [_GOOD[0][:-1] + b"\0", *_GOOD[1:]],
    "a heartbeat before the header": [_GOOD[0], wire.heartbeat(), *_GOOD[1:]],
    "a header on another channel": [_GOOD[0], wire.header(CHANNEL + 1, 5, JSON), _GOOD[2]],
    "a header of another class": [_GOOD[0], wire.header(CHANNEL, 5, JSON, of=50), _GOOD[2]],
    "a header with a weight": [_GOOD[0], wire.header(CHANNEL, 5, JSON, weight=1), _GOOD[2]],
    "a header without flags": [_GOOD[0], wire.header(CHANNEL, 5, b""), _GOOD[2]],
    "a header with half the flags": [_GOOD[0], wire.header(CHANNEL, 5, b"\0"), _GOOD[2]],
    # The end of this header, 206, is where the last byte of the size would be.
    "a header without a size": [
        _GOOD[0],
        wire.frame(wire.HEADER, CHANNEL, b"\0\x3c" + bytes(9)),
        wire.body(CHANNEL, b"." * wire.END),
    ],
    "a header with a wrong end": [_GOOD[0], _GOOD[1][:-1] + b"\0", _GOOD[2]],
    "a heartbeat before the body": [*_GOOD[:2], wire.heartbeat(), _GOOD[2]],
    "a body on another channel": [*_GOOD[:2], wire.body(CHANNEL + 1, b"hello")],
    "a body with a wrong end": [*_GOOD[:2], _GOOD[2][:-1] + b"\0"],
    "no body": [_GOOD[0], wire.header(CHANNEL, 0, JSON)],
    "an empty body": [_GOOD[0], wire.header(CHANNEL, 0, JSON), wire.body(CHANNEL, b"")],
    "a body that is too short": [*_GOOD[:2], wire.body(CHANNEL, b"hell")],
    "a body that is too long": [*_GOOD[:2], wire.body(CHANNEL, b"hello!")],
    "a body in two frames": [
        _GOOD[0],
        wire.header(CHANNEL, 20),
        wire.body(CHANNEL, b"." * 8),
        wire.body(CHANNEL, b"\xce" * 12),
    ],
    "a size beyond all measure": [_GOOD[0], wire.header(CHANNEL, (1 << 64) - 1, JSON), _GOOD[2]],
    "a method": [wire.method(CHANNEL, (60, 30), wire.short(TAG) + b"\1")],
    "a heartbeat": [wire.heartbeat()],
    "a protocol header": [b"AMQP\0\0\x09\x01"],
    "noise": [b"\1\0\5\xff\xff\xff\xff" + b"\xce" * 30],
}  # fmt: skip


@pytest.mark.parametrize("frames", _LEFT.values(), ids=_LEFT)
def test_what_is_not_a_plain_delivery_is_left_to_pika(frames: list[bytes]) -> None:
    odd, before, after = b"".join(frames), message(1), message(3)
    one = stream()
    for _ in range(2):  # what was learnt from it changes nothing
        run = one.scan(before + odd + after, 0, AT)
        assert run is not None
        assert (len(run.records), run.end) == (1, len(before))
        assert one.scan(odd + after, 0, AT) is None


def test_the_examples_differ_from_a_plain_delivery_in_what_their_names_say_alone() -> None:
    assert taken(message(1) + b"".join(_GOOD) + message(3)) == 3


def test_replay_in_a_message_to_an_exchange_means_nothing() -> None:
    assert taken(message(1, properties=b"\x20\0" + wire.table(wire.short(APART) + b"V"))) == 1


def test_what_is_remembered_of_the_ends_of_methods_is_bounded() -> None:
    one = stream()
    for number in range(20_050):
        run = one.scan(message(number, routing_key=b"%d" % number), 0, AT)
        assert run is not None
        assert run.records[0].routing_key == str(number)
    assert delivery_parser._source.cache_info().currsize <= 10_000
