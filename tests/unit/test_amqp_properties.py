"""Properties that are decoded by the shape of the last ones are what they are byte by byte."""

from hypothesis import given
from hypothesis import strategies as st

from logfan.amqp_properties import (
    _MOST_KNOWN,
    _MOST_SHAPES,
    Known,
    _decode_each,
    _known,
    decode_properties,
)
from logfan.record import Properties
from support.properties import DAMAGED, PROPERTIES, encoded


@given(st.lists(PROPERTIES.map(encoded) | DAMAGED, min_size=2, max_size=12))
def test_one_after_the_other_they_are_what_each_is_by_itself(messages: list[bytes]) -> None:
    for raw in messages:
        assert decode_properties(raw) == _decode_each(raw)


def test_a_known_message_that_is_cut_anywhere() -> None:
    for timestamp in (None, 5):
        raw = encoded(Properties(content_type="a", message_id="mm", timestamp=timestamp))
        for size in range(2, len(raw) + 1):
            decode_properties(raw)
            assert decode_properties(raw[:size]) == _decode_each(raw[:size])


def test_ids_and_times_of_one_publisher() -> None:
    for number in range(3):
        for app in ("shop", "warehouse"):
            sent = Properties(message_id="m" * number, timestamp=number, priority=3, app_id=app)
            assert decode_properties(encoded(sent)) == sent


def test_what_is_the_same_each_time_is_decoded_once() -> None:
    raw = encoded(Properties(content_type="text/plain", delivery_mode=1))
    assert decode_properties(raw) is decode_properties(bytes(bytearray(raw)))


def test_publishers_that_take_turns_are_all_known() -> None:
    apps = [f"app-{number}" for number in range(50)]
    sent = [Properties(message_id="m", app_id=app) for app in apps]
    _known.forget()
    for one in sent:
        decode_properties(encoded(one))
    count = _known.count
    assert [decode_properties(encoded(one)) for one in sent] == sent
    assert _known.count == count, "decoded one by one again"


def test_only_what_is_whole_and_alike_is_learnt() -> None:
    known: Known[str] = Known()
    for odd in (
        encoded(Properties(message_id="m", headers={"a": 1})),
        encoded(Properties(message_id="m", correlation_id="c")),
        encoded(Properties(timestamp=1)),
        encoded(Properties(message_id="m"))[:-1],
        encoded(Properties(content_type="abc", message_id="m", timestamp=1))[:-1],
        encoded(Properties(message_id="m", app_id="x" * 200, type="y" * 255))[:1],
        b"",
    ):
        known.learn(odd, "odd")
    assert (known.count, known.whole, known.shapes) == (0, {}, {})
    raw = encoded(Properties(content_type="abc", message_id="mm", timestamp=1, app_id="x"))
    known.learn(raw, "even")
    assert known.shape_of(raw) == (2 + 4, raw[:6], 8, {b"\1x": "even"})


def test_publishers_without_end_do_not_fill_the_memory() -> None:
    for number in range(2 * _MOST_KNOWN + 10):
        for sent in (
            Properties(app_id=f"a{number}"),
            Properties(message_id="m", app_id=f"a{number}"),
            Properties(message_id="m", reply_to=f"r{number}"),
        ):
            assert decode_properties(encoded(sent)) == sent
        shapes = _known.shapes.values()
        held = sum(len(commons) for known in shapes for *_, commons in known)
        assert len(_known.whole) + held <= _known.count <= _MOST_KNOWN
        assert all(len(known) <= _MOST_SHAPES for known in shapes)
