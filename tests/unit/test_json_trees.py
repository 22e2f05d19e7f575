"""What JSON becomes is known before it is parsed: never less than it takes, in linear time."""

import gc
import json
import math
import random
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfan import json_lines, json_pieces, json_trees
from logfan import record as api
from logfan.json_trees import LONG, MAX_BYTES, SMALL_BYTES, Odd, tree_bytes, with_odd_numbers
from logfan.testing import record

N = 5_000
SHAPES = {
    "empty lists": b"[" + b",".join([b"[]"] * N) + b"]",
    "empty objects": b"[" + b",".join([b"{}"] * N) + b"]",
    "objects": b"[" + b",".join([b'{"a":1}'] * N) + b"]",
    "objects of six": b"["
    + b",".join([b'{"a":257,"b":1.5,"c":"xy","d":{},"e":[],"f":257}'] * N)
    + b"]",
    "objects in objects": b"["
    + b",".join([b'{"a":' * 1000 + b"1" + b"}" * 1000] * (N // 1000))
    + b"]",
    "lists in lists": b"[" + b",".join([b"[" * 1000 + b"]" * 1000] * (N // 1000)) + b"]",
    "numbers": b"[" + b",".join([b"257"] * N) + b"]",
    "fractions": b"[" + b",".join([b"1.5"] * N) + b"]",
    "short strings": b"[" + b",".join([b'"ab"'] * N) + b"]",
    "euros": b"[" + b",".join(['"€"'.encode()] * N) + b"]",
    "emoji": b"[" + b",".join(['"😀"'.encode()] * N) + b"]",
    "escaped emoji": b"[" + b",".join([b'"\\ud83d\\ude00"'] * N) + b"]",
    "keys": b"{" + b",".join(b'"%06d":257' % n for n in range(N)) + b"}",
    "long keys": b"{" + b",".join(b'"%070d":257' % n for n in range(N)) + b"}",
    "wide keys": b"{" + b",".join('"😀%06d":257'.encode() % n for n in range(N)) + b"}",
    "a wide string": b'["' + b"a" * N * 10 + "😀".encode() + b'"]',
    "a string made wide by an escape": b'["' + b"a" * N * 10 + b'\\uD83D\\uDE00"]',
    "a string made wider by an escape": b'["' + b"a" * N * 10 + b'\\u20ac"]',
}


def taken_by(body: bytes) -> int:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tree = orjson.loads(body)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert tree
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_takes_more_than_is_thought(shape: str) -> None:
    assert taken_by(SHAPES[shape]) <= tree_bytes(SHAPES[shape])


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=200,
    )
)
def test_the_marks_outside_of_strings_are_counted_whatever_the_strings_hold(value: Any) -> None:
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        plain = json.dumps(_without_strings(value)).encode()
        assert json_trees._marks_outside_strings(body) == json_trees._marks(plain)


def _without_strings(value: Any) -> Any:
    if isinstance(value, str):
        return ""
    if isinstance(value, list):
        return [_without_strings(one) for one in value]
    if isinstance(value, dict):
        return {str(at): _without_strings(one) for at, one in enumerate(value.values())}
    return value


@pytest.mark.parametrize("length", [65530, 65535, 65536, 65537, 131072])
def test_strings_over_the_ends_of_pieces_are_strings(length: int) -> None:
    for text in ("\\" * length, '"' * length, "[" * length, '\\"[' * (length // 3)):
        body = orjson.dumps([text, [text, "x"], {}])
        assert json_trees._marks_outside_strings(body) == json_trees._marks(b'["",["",""],{}]')


def test_a_long_text_full_of_marks_is_parsed_all_the_same() -> None:
    body = orjson.dumps({"log": "[{:," * 1_000_000})
    assert tree_bytes(body) < 2 * len(body)
    assert record(body).json()["log"].startswith("[{:,")


@pytest.mark.slow
def test_what_would_take_too_much_is_no_json_and_says_why() -> None:
    body = b"[" + b",".join([b"[]"] * 2_000_000) + b"]"
    assert tree_bytes(body) > MAX_BYTES
    with pytest.raises(ValueError, match=r"values might take more than 128 MiB of memory"):
        record(body).json()


@pytest.mark.slow
@pytest.mark.parametrize("unit", [b"[],", b'"', b"\\", b'"\\', b"x", b"\xff", b" ", b"[", b'{"a":'])
def test_the_look_takes_linear_time(unit: bytes) -> None:
    def seconds(size: int) -> float:
        body = b"[" + unit * (size // len(unit))
        begun = time.process_time()
        tree_bytes(body)
        return time.process_time() - begun

    # Both sizes so large that no bound on the bytes alone decides.
    assert seconds(10 << 20) < 8 * max(seconds(5 << 20), 0.01)


ODD_NUMBERS: list[tuple[bytes, bytes, list[str]]] = [
    (b'{"a":NaN}', b'{"a":null}', ["NaN"]),
    (b"[NaN, -Infinity,Infinity,NaN]", b"[null, null,null,null]", ["NaN", "-Infinity", "Infinity"]),
    (b'{"NaN":"NaN","a":"\\"NaN","b":NaN}', b'{"NaN":"NaN","a":"\\"NaN","b":null}', ["NaN"]),
    (b'{"a\\\\":NaN,"b":"\\\\"}', b'{"a\\\\":null,"b":"\\\\"}', ["NaN"]),
    (b'{"a":\n NaN\n}', b'{"a":null}', ["NaN"]),
    (b'\xef\xbb\xbf{"a":NaN}', b'{"a":null}', ["NaN"]),
    ('{"a":NaN,"b":"é"}'.encode("utf-16"), '{"a":null,"b":"é"}'.encode(), ["NaN"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "json_text", "names"), ODD_NUMBERS)
def test_numbers_that_json_has_not_are_null_and_named(
    body: bytes, json_text: bytes, names: list[str]
) -> None:
    one = record(body)
    assert one.json() == orjson.loads(json_text)
    line = json_lines([one])[0]
    assert line.endswith(b',"body":%b,"body_replaced":%b}' % (json_text, orjson.dumps(names)))
    assert b"".join(json_pieces(one)) == line
    assert one.body == body


@pytest.mark.parametrize(
    "body",
    [
        b"NaN", b"Infinity", b"{NaN:1}", b"[1NaN]", b"[NaNa]", b"[-NaN]", b'["NaN]', b"[NaN",
        b"{'a':NaN}", b"NaN: not a number", b"[NaN] not a number", b'[NaN,"\\NaN"]',
    ],
)  # fmt: skip
def test_what_is_no_json_beside_them_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match="the body is not JSON"):
        record(body).json()
    assert b"body_replaced" not in json_lines([record(body)])[0]


TREES = st.recursive(
    st.none() | st.floats() | st.text() | st.sampled_from(["NaN", '"-Infinity', '\\"NaN\\']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)


@given(TREES, st.booleans())
def test_what_python_writes_is_json(value: Any, long: bool) -> None:
    whole = [value, " " * SMALL_BYTES if long else ""]
    text = json.dumps(whole)
    plain = json.loads(text, parse_constant=lambda _: None)
    assert record(text).json() == plain


@pytest.mark.slow
@pytest.mark.parametrize("length", [65530, 65535, 65536, 65537, 131072])
def test_odd_numbers_are_found_over_the_ends_of_pieces(length: int) -> None:
    for text in ("\\" * length, '"' * length, "NaN" * length, '\\"NaN' * (length // 5)):
        body = json.dumps([text, math.nan, text]).encode()
        one = record(body)
        assert one.json() == [text, None, text]
        assert json_lines([one])[0].endswith(b',"body_replaced":["NaN"]}')


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", [b"NaN,", b'"NaN', b'"NaN",', b"\\", b'\\"NaN', b"Infinity", b"Na", b"-", b"[NaN,"]
)
def test_odd_numbers_take_linear_time(unit: bytes) -> None:
    def seconds(size: int) -> float:
        body = b"[NaN," + unit * (size // len(unit))
        begun = time.process_time()
        with_odd_numbers(body)
        return time.process_time() - begun

    assert seconds(1 << 18) < 8 * max(seconds(1 << 17), 0.01)


@pytest.mark.slow
def test_a_body_full_of_them_is_bounded_as_any_other() -> None:
    many = b"[" + b"NaN," * 1_500_000 + b"NaN]"
    with pytest.raises(ValueError, match=r"values might take more than 128 MiB of memory"):
        record(many).json()
    some = b"[" + b"NaN," * 30_000 + b"NaN]"
    one = record(some)
    tracemalloc.start()
    assert one.json()[-1] is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tree_bytes(some) + 4 * len(some)


def test_what_is_parsed_is_shared_while_it_is_little_and_let_go_when_it_is_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "_PARSED", api._Kept("_json", LONG, 1 << 20))
    small = record({"n": 1})
    assert small.json() is small.json()
    long = record([list(range(1000))])
    assert long.size > SMALL_BYTES
    assert long.json() is long.json()
    many = [record([[n % 7] * 2000]) for n in range(200)]
    for one in many:
        one.json()
    held = [one for one in many if type(one._json) is not Odd]
    assert 0 < len(held) < 20
    assert held == many[-len(held) :]


def test_nothing_is_held_for_records_that_are_gone() -> None:
    one = record([list(range(5000))])
    watch = weakref.ref(one)
    one.json()
    del one
    gc.collect()
    assert watch() is None


def test_threads_that_ask_at_once_get_the_same() -> None:
    chance = random.Random(1)
    bodies = [[chance.randrange(1000)] * 5000 for _ in range(50)]
    with ThreadPoolExecutor(4) as pool:
        records = [record(body) for body in bodies for _ in range(4)]
        assert list(pool.map(lambda one: one.json(), records)) == [
            body for body in bodies for _ in range(4)
        ]
