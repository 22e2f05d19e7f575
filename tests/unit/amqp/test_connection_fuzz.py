"""logfan reads the wire as pika does: the same bytes in the same reads tell the same story.

Two differences are stated where pika is set up. `support.readers._left_raw`: pika raises on
properties that it cannot decode and logfan keeps all of them, so pika, too, leaves them as bytes
here. They are compared as logfan decodes them. `support.readers._Bounded`: pika waits for a frame
of any size, and logfan for none that is larger than agreed.

`LOGFAN_FUZZ_CASES=500000` reads so many; where they are more than usual, drawn anew each time.
"""

import os
from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec

from logfan.amqp_properties import decode_properties
from logfan.record import Properties
from support.readers import Pair, listening
from support.wire_bytes import Case, Scene, body, deliver, header
from support.wire_chance import draw, draw_scene

_USUAL = 2_500
CASES = int(os.environ.get("LOGFAN_FUZZ_CASES", _USUAL))
_AT_ONCE = 20
_PARTS = 2 if CASES >= _USUAL else 1
"""Each a test of its own with cases of its own, so that several processors share the work."""


def read_alike(case: Case) -> bool:
    """Whether both tell the same story of it."""
    return Pair(case.scene).read(case)


def smallest(case: Case) -> Case:
    """The least of it that still is read in two ways."""
    for smaller in case.smaller():
        if not read_alike(smaller):
            return smallest(smaller)
    return case


def difference(case: Case) -> str:
    """Where the two stories part, for a person to read."""
    pair = Pair(case.scene)
    pair.read(case)
    theirs, ours = [*pair.pika.story, "the end"], [*pair.logfan.story, "the end"]
    at = next(n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b)
    frames = "\n".join(one.hex(" ") for one in case.frames)
    return f"{case.scene}, cut at {case.cuts}\n{frames}\npika:   {theirs[at]}\nlogfan: {ours[at]}"


def assert_read_alike(case: Case) -> None:
    assert read_alike(case), difference(case)


@pytest.mark.parametrize("part", range(_PARTS))
def test_whatever_comes_is_read_as_pika_reads_it(part: int) -> None:
    read, seen = 0, Counter[str]()

    @settings(
        max_examples=-(-CASES // (_AT_ONCE * _PARTS)), deadline=None, database=None,
        derandomize=CASES <= _USUAL, report_multiple_bugs=False,
    )  # fmt: skip
    @given(seed=st.integers(0, (1 << 64) - 1))
    def read_some(seed: int) -> None:
        nonlocal read
        chance, pair = Random(seed * _PARTS + part), None
        for _ in range(_AT_ONCE):
            if pair is None or not pair.goes_on:
                pair = Pair(draw_scene(chance))
            case = draw(chance, pair.scene)
            if not pair.read(case):
                assert pair.past is not None
                raise AssertionError(difference(smallest(pair.past)))
            read += 1
            seen.update(_kinds_in(pair))

    with listening():
        read_some()
    assert read >= CASES // _PARTS
    missing = {what for what, times in _OFTEN.items() if seen[what] * times < read}
    assert not missing, f"hardly ever seen: {missing}; {seen}"


_MESSAGE = (deliver(1, "x", 2), header(1, 5), body(1, b"hello"))


@pytest.mark.parametrize(
    "frames",
    [
        (header(1, 7), *_MESSAGE, body(1, b"")),
        (header(1, 9), body(1, b"left"), *_MESSAGE),
        (deliver(1, "x", 1), *_MESSAGE, header(1, 2), body(1, b"hi")),
    ],
)
def test_a_method_or_a_header_alone_is_not_forgotten(frames: tuple[bytes, ...]) -> None:
    """pika keeps it until a message ends; what it then makes of lone frames depends on it."""
    with listening():
        assert_read_alike(Case(Scene(1, "x", "plain", company=False), frames, ()))


def test_a_content_header_too_short_to_be_one_is_left_to_pika() -> None:
    """Cut behind its length, which says less than the least that a header has."""
    short = bytes.fromhex("02 0001 00000002 003c 0000000000000000")
    frames = (deliver(1, "x", 1), short)
    cut = (len(frames[0]) + 10,)
    assert_read_alike(Case(Scene(1, "x", "plain", company=False), frames, cut))


@pytest.mark.parametrize(
    "properties",
    [
        spec.BasicProperties(),
        spec.BasicProperties(
            content_type="text/plain", content_encoding="gzip", delivery_mode=2, priority=9,
            correlation_id="c", reply_to="r", expiration="5000", message_id="é", timestamp=1,
            type="t", user_id="u", app_id="a", cluster_id="x",
            headers={"n": -1, "s": "é", "b": True, "none": None, "in": {"list": [1, "two"]}},
        ),
    ],
)  # fmt: skip
def test_properties_that_pika_can_decode_are_what_pika_decodes(properties: Any) -> None:
    raw = b"".join(properties.encode())
    theirs, ours = spec.BasicProperties(), decode_properties(raw)
    theirs.decode(raw)
    for name in set(Properties._fields) - {"headers"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert orjson.dumps(dict(ours.headers)) == orjson.dumps(theirs.headers or {})


# Each of these must be seen at least once in so many cases: what is not drawn is not compared.
_OFTEN = {
    "a run": 3, "a long run": 10, "one by one": 3, "a heartbeat": 20, "a replay": 100, "message": 2,
    "channel over": 40, "connection over": 5, "cancelled": 250, "returned": 250, "got": 500,
    "blocked": 200, "cancel-ok": 250, "consuming": 250, "sent": 40, "logged": 3, "aborted": 100,
    "InvalidFrameError": 50, "AttributeError": 50, "BodyTooLongError": 100, "KeyError": 100,
    "error": 200, "a long body": 20,
}  # fmt: skip


def _kinds_in(pair: Pair) -> set[str]:
    """What happened, in words."""
    story, runs = pair.pika.story, pair.logfan.in_runs
    seen = {one[0] for one in story}
    seen |= {one[1].split("(")[0].split(":")[0] for one in story if one[0] == "raised"}
    if runs:
        seen |= {"a run", "a long run"} if max(runs) > 2 else {"a run"}
    if sum(one[0] == "message" for one in story) > sum(runs):
        seen.add("one by one")
    if any(one[0] == "message" and not one[5] and "x-logfan-replay" in one[7] for one in story):
        seen.add("a replay")
    if pair.logfan.in_long:
        seen.add("a long body")
    beats = [one[3] for one in story if one[0] == "after a read"]
    if any(beats):
        seen.add("a heartbeat")
    return seen
