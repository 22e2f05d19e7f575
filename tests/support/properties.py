"""AMQP properties as publishers send them, and damaged ones."""

from hypothesis import strategies as st

from logfan.amqp_properties import EncodedProperties
from logfan.record import NO_HEADERS, Properties

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
