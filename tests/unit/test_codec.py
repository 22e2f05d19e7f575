"""Properties that are decoded by the shape of the last ones are what they are byte by byte."""

from hypothesis import given
from hypothesis import strategies as st

from logfan.api import NO_HEADERS, Properties
from logfan.codec import (
    _MOST_KNOWN,
    _MOST_STARTS,
    EncodedProperties,
    _decode_each,
    _known,
    decode_properties,
)

IDS = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["", "é" * 120, "\udcff", "a"]))
TIMES = st.one_of(st.none(), st.integers(0, 2**64 - 1))
HEADERS = st.sampled_from([NO_HEADERS, NO_HEADERS, NO_HEADERS, {"a": 1}])
TYPES = st.sampled_from([None, "application/json", "text/plain"])
APPS = st.sampled_from([None, "", "shop", "show", "shape"])
PROPERTIES = st.builds(
    Properties, headers=HEADERS, message_id=IDS, timestamp=TIMES, content_type=TYPES, app_id=APPS,
    correlation_id=st.sampled_from([None, None, None, "c"]), delivery_mode=st.sampled_from([1, 2]),
    content_encoding=st.none(), priority=st.none(), reply_to=st.none(), expiration=st.none(),
    type=st.none(), user_id=st.none(), cluster_id=st.none(),
)  # fmt: skip


def encoded(properties: Properties) -> bytes:
    return b"".join(EncodedProperties(properties).encode())


def damaged(raw: bytes, cut: int, at: int, byte: int) -> bytes:
    """Without so many of its last bytes, and with another byte somewhere."""
    raw = raw[: max(2, len(raw) - cut)]
    at = 2 + at % max(1, len(raw) - 2)
    return raw[:at] + bytes((byte,)) + raw[at + 1 :]


DAMAGED = st.builds(
    damaged, PROPERTIES.map(encoded), st.integers(0, 12), st.integers(0, 60), st.integers(0, 255)
)


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


def test_publishers_without_end_do_not_fill_the_memory() -> None:
    for number in range(2 * _MOST_KNOWN + 10):
        for sent in (
            Properties(app_id=f"a{number}"),
            Properties(message_id="m", app_id=f"a{number}"),
            Properties(message_id="m", reply_to=f"r{number}"),
        ):
            assert decode_properties(encoded(sent)) == sent
        starts = _known.starts.values()
        held = sum(len(commons) for known in starts for *_, commons in known)
        assert len(_known.whole) + held <= _known.count <= _MOST_KNOWN
        assert all(len(known) <= _MOST_STARTS for known in starts)
