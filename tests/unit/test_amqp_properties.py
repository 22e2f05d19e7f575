"""Properties that are read by a template are what they are byte by byte."""

import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from hypothesis import given, settings

from logfan.amqp_properties import (
    _MOST_KNOWN_BYTES,
    _MOST_LAYOUTS,
    _MOST_PASSED_OVER,
    Slot,
    Templates,
    _decode_each,
    _templates,
    decode_properties,
)
from logfan.record import Properties
from support.properties import MESSAGES, encoded


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    _templates.__init__()  # type: ignore[misc]
    yield
    _templates.__init__()  # type: ignore[misc]


@settings(deadline=None)
@given(MESSAGES)
def test_one_after_the_other_they_are_what_each_is_by_itself(messages: list[bytes]) -> None:
    for raw in messages:
        assert repr(decode_properties(raw)) == repr(_decode_each(raw))


@pytest.mark.parametrize("timestamp", [None, 5])
@pytest.mark.parametrize("headers", [{}, {"host": "web-1", "n": 5}])
def test_a_known_message_that_is_cut_anywhere(
    timestamp: int | None, headers: dict[str, object]
) -> None:
    raw = encoded(
        Properties(content_type="a", message_id="mm", timestamp=timestamp, headers=headers)
    )
    for size in range(2, len(raw) + 1):
        decode_properties(raw)
        for cut in (raw[:size], raw[:size] + bytes(len(raw) - size)):
            assert decode_properties(cut) == _decode_each(cut)


def test_ids_and_times_of_one_publisher() -> None:
    for number in range(3):
        for app in ("shop", "warehouse"):
            sent = Properties(message_id="m" * number, timestamp=number, priority=3, app_id=app)
            assert decode_properties(encoded(sent)) == sent


def test_what_is_the_same_each_time_is_decoded_once() -> None:
    raw = encoded(Properties(content_type="text/plain", delivery_mode=1))
    assert decode_properties(raw) is decode_properties(bytes(bytearray(raw)))


def test_headers_that_differ_are_known_from_the_third_message_on() -> None:
    sent = [
        Properties(
            headers={"host": "web-1", "traceparent": f"00-{number:032x}-01", "attempt": number},
            message_id=f"m{number}",
        )
        for number in range(5)
    ]
    known = []
    for one in sent:
        known.append(_templates.find(encoded(one)) is not None)
        assert decode_properties(encoded(one)) == one
        assert list(decode_properties(encoded(one)).headers) == list(one.headers)
    assert known == [False, False, True, True, True]


def test_what_differed_once_is_left_open_from_then_on() -> None:
    for host, number in (("a", 1), ("b", 1), ("b", 2)):
        decode_properties(encoded(Properties(headers={"host": host, "n": number})))
    assert _templates.find(encoded(Properties(headers={"host": "c", "n": 3})))


FIELDS = (b"x\0\0\0\x02ok", b"x\0\0\0\x02no")
ODD_FIELDS = (
    b"x\0\0\0\x01no", b"A\0\0\0\x01Vk", b"D\x01\0\0\0\x01?", b"x\0\0\0\x03no",
    b"?\0\0\0\x02no", b"S\0\0\0\x02\xff\xff",
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD_FIELDS)
def test_a_value_of_another_kind_or_length_in_the_same_place(odd: bytes) -> None:
    for field in (*FIELDS, odd):
        table = b"\x01n" + field + b"\x04host" + b"V"
        raw = struct.pack(">HI", 0x2000, len(table)) + table
        assert decode_properties(raw) == _decode_each(raw)


def test_publishers_that_take_turns_are_all_known() -> None:
    sent = [
        Properties(message_id="m", app_id=f"app-{number}", headers={f"h{number}": number % 3})
        for number in range(50)
    ]
    for _ in range(3):
        assert [decode_properties(encoded(one)) for one in sent] == sent
    assert all(_templates.find(encoded(one)) for one in sent)


def test_only_what_is_whole_and_alike_is_learnt() -> None:
    known: Templates[str] = Templates()
    twice = b"\x01aV\x01aV"
    for odd in (
        encoded(Properties(message_id="m"))[:-1],
        encoded(Properties(content_type="abc", message_id="m", timestamp=1))[:-1],
        encoded(Properties(message_id="m", app_id="x" * 200, type="y" * 255))[:1],
        encoded(Properties(message_id="m", headers={"a": 1}))[:-3],
        b"",
        struct.pack(">HI", 0x2000, len(twice)) + twice,
        struct.pack(">HI", 0x2000, 3) + b"\x01a?",
        encoded(Properties(headers={f"{number}": "" for number in range(65)})),
        encoded(Properties(headers={"a": "x" * 2000})),
    ):
        known.learn(odd, lambda slots: "odd")
    assert (known.size, known.layouts) == (0, {})
    raw = encoded(Properties(content_type="abc", message_id="mm", timestamp=1, app_id="x"))
    known.learn(raw, lambda slots: "".join(slot.name for slot in slots))
    assert list(known.groups([b"", raw, 5, raw])) == [
        (None, [0, 2], ()),
        ("message_idtimestamp", [1, 3], [(b"mm", b"mm"), (1, 1)]),
    ]


def _named(name: str, _: Sequence[Slot]) -> str:
    return name


def test_those_that_are_alike_come_together_with_their_columns() -> None:
    known: Templates[str] = Templates()
    raws = [encoded(Properties(message_id=f"{n}", headers={f"h{n % 3}": "v"})) for n in range(9)]
    for raw, name in zip(raws[:2], ("first", "second"), strict=False):
        known.learn(raw, partial(_named, name))
    assert list(known.groups(raws)) == [
        ("first", [0, 3, 6], [(b"0", b"3", b"6")]),
        ("second", [1, 4, 7], [(b"1", b"4", b"7")]),
        (None, [2, 5, 8], ()),
    ]


def test_headers_that_can_be_changed_are_each_messages_own() -> None:
    raw = encoded(Properties(message_id="m", headers={"list": [1], "table": {"a": 1}, "n": 1}))
    for _ in range(3):
        headers = decode_properties(raw).headers
        assert headers == {"list": [1], "table": {"a": 1}, "n": 1}
        headers["list"].append(2)
        headers["table"].clear()
        assert isinstance(headers, dict)
        headers["n"] = 2


def test_publishers_without_end_do_not_fill_the_memory() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            for sent in (
                Properties(message_id="m", headers={f"{number} {n}": "" for n in range(60)}),
                Properties(message_id="m", headers={"n" * number: [[]] * 50}),
            ):
                assert decode_properties(encoded(sent)) == sent
            assert _templates.size <= _MOST_KNOWN_BYTES
            assert all(len(some) <= _MOST_LAYOUTS for some in _templates.layouts.values())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - before < 8 << 20
    assert 1 < _templates._every <= _MOST_PASSED_OVER, "what never comes again is learnt each time"
