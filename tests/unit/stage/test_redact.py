"""`redact`: what is replaced, and that all else stays byte for byte."""

import bz2
import gzip
import json
import re
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logfan.dotted_path import walk_to
from logfan.stage.json_edit import edited
from logfan.stage.patterns import NAMED, Patterns
from logfan.stage.redact import Redactor
from logfan.testing import record


def redacted(body: bytes, *paths: str, patterns: list[str] | None = None, **more: Any) -> bytes:
    return Redactor(paths, patterns or [], **more).apply(record(body)).body


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("a", b'{"a":1}', b'{"a":"[redacted]"}'),
        ("a", b'{ "a" : [1, {"b":2}] , "c":3 }', b'{ "a" : "[redacted]" , "c":3 }'),
        ("a.b", b'{"a":{"b":"x","c":1.50}}', b'{"a":{"b":"[redacted]","c":1.50}}'),
        ("a.b", b'{"a.b":"x","a":{"b":null}}', b'{"a.b":"[redacted]","a":{"b":"[redacted]"}}'),
        ("a.b.c", b'{"a":{"b.c":7}}', b'{"a":{"b.c":"[redacted]"}}'),
        ("u.m", b'{"u":[{"m":1},{"n":3}]}', b'{"u":[{"m":"[redacted]"},{"n":3}]}'),
        ("u.0.m", b'{"u":[{"m":1},{"m":3}]}', b'{"u":[{"m":"[redacted]"},{"m":3}]}'),
        ("u.1.m", b'{"u":[ [] ,{"m":3}]}', b'{"u":[ [] ,{"m":"[redacted]"}]}'),
        ("u.1", b'{"u":["x",{"m":3},"y"],"v":[1,2]}', b'{"u":["x","[redacted]","y"],"v":[1,2]}'),
        ("u.0", b'{"u":["x"]}', b'{"u":["[redacted]"]}'),
        ("u.0.1", b'{"u":[[1,2],[3,4]]}', b'{"u":[[1,"[redacted]"],[3,4]]}'),
        ("0.m", b'[{"m":1},{"m":2}]', b'[{"m":"[redacted]"},{"m":2}]'),
        ("0", b"[[1],2]", b'["[redacted]",2]'),
        ("u.0.m.n", b'{"u":[{"m.n":1}]}', b'{"u":[{"m.n":"[redacted]"}]}'),
        ("u.0", b'{"u":{"0":1,"1":2}}', b'{"u":{"0":"[redacted]","1":2}}'),
        ("u.0", b'{"u":[1],"u.0":3}', b'{"u":["[redacted]"],"u.0":"[redacted]"}'),
        ("u.0.m", b'{"u":[{"0":{"m":1}}]}', b'{"u":[{"0":{"m":"[redacted]"}}]}'),
        ("u.-1", b'{"u":[1]}', None), ("u.7", b'{"u":[1]}', None), ("u.0", b'{"u":[]}', None),
        ("u.-1", b'{"u":{"-1":1}}', b'{"u":{"-1":"[redacted]"}}'),
        ("a", '{"a":1}'.encode("utf-16"), b'{"a":"[redacted]"}'),
        ("a", b'\xef\xbb\xbf{"a":1}', b'{"a":"[redacted]"}'),
        ("a", b'{"a":1,"a":2}', b'{"a":"[redacted]","a":"[redacted]"}'),
        ("a", b'{"\\u0061":1}', b'{"\\u0061":"[redacted]"}'),
        ("json.a", b'{"a":true}', b'{"a":"[redacted]"}'),
        ("a", b'[{"a":1}]', b'[{"a":"[redacted]"}]'),
        ("a", b'{"b":{"a":1}}', b'{"b":{"a":1}}'),
        ("a.b", b'{"a":"b"}', b'{"a":"b"}'),
        ("a", b'{"a":1,"b":NaN}', b'{"a":"[redacted]","b":NaN}'),
        ("a", b'{"a":-Infinity,"b":NaN}', b'{"a":"[redacted]","b":NaN}'),
        ("a", b'{"b":"a","n":1e400,"big":12345678901234567890}', None),
        ("a", b"a=1", None), ("a", b"", None), ("a", b"7", None), ("a", b'"a"', None),
    ],
)  # fmt: skip
def test_a_path_and_nothing_else(path: str, before: bytes, after: bytes | None) -> None:
    assert redacted(before, path) == (before if after is None else after)


FOUND = {
    "email": [b"mail a.b+c@x.example.org now", b"mail [redacted] now"],
    "card": [b"card 4111 1111 1111 1111.", b"card [redacted]."],
    "iban": [b"to DE89 3704 0044 0532 0130 00 now", b"to [redacted] now"],
    "ipv4": [b"from 10.0.0.255 port", b"from [redacted] port"],
    "ipv6": [b"from 2001:db8::8a2e:370:7334 port", b"from [redacted] port"],
    "jwt": [b"t eyJhbGciOi.eyJzdWIiOi.c2ln end", b"t [redacted] end"],
    "bearer": [b"authorization: Bearer abc.def", b"authorization: [redacted]"],
    r"(?i)token=\S+": [b"x Token=abc y", b"x [redacted] y"],
}


@pytest.mark.parametrize("name", FOUND)
def test_a_pattern_in_text_and_in_json(name: str) -> None:
    before, after = FOUND[name]
    assert redacted(before, patterns=[name]) == after
    inside = json.dumps({"a": before.decode(), before.decode(): [before.decode()]})
    assert json.loads(redacted(inside.encode(), patterns=[name])) == {
        "a": after.decode(), after.decode(): [after.decode()],
    }  # fmt: skip


def test_every_named_pattern_is_tried() -> None:
    assert NAMED.keys() <= FOUND.keys()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("card", b"4111 1111 1111 1112"), ("card", b"1795651200000"), ("card", b"0000000000000"),
        ("iban", b"DE89 3704 0044 0532 0130 01"), ("ipv4", b"1.2.3"), ("ipv4", b"256.1.1.1"),
        ("email", b"a@b"), ("ipv6", b"12:30:45"),
    ],
)  # fmt: skip
def test_what_only_looks_like_one_stays(name: str, text: bytes) -> None:
    assert redacted(text, patterns=[name]) == text


def test_a_card_that_is_a_number_becomes_a_string() -> None:
    assert redacted(b'{"n":4111111111111111}', patterns=["card"]) == b'{"n":"[redacted]"}'


def test_an_escape_hides_nothing() -> None:
    assert redacted(b'{"m":"a\\u0040b.org"}', patterns=["email"]) == b'{"m":"[redacted]"}'


def test_bytes_that_are_no_text_stay() -> None:
    assert redacted(b"\xff token=abc \xfe", patterns=[r"token=\S+"]) == b"\xff [redacted] \xfe"


def test_headers_by_path_and_by_pattern() -> None:
    redactor = Redactor(["headers.authorization", "headers.user.mail"], ["email"])
    headers = {"authorization": "x", "user": {"mail": "m", "id": 7}, "from": "a@b.org", "n": 1}
    one = redactor.apply(record(b"body", headers=headers, app_id="shop"))
    assert one.headers == {
        "authorization": "[redacted]", "user": {"mail": "[redacted]", "id": 7},
        "from": "[redacted]", "n": 1,
    }  # fmt: skip
    assert (one.body, one.properties.app_id) == (b"body", "shop")
    assert headers["from"] == "a@b.org"


def test_a_header_by_the_index_of_a_list() -> None:
    headers = {"x-death": [{"queue": "a", "n": 1}, {"queue": "b"}], "t": ["x", ["y", "z"]]}
    redactor = Redactor(["headers.x-death.0.queue", "headers.t.1.0", "headers.t.7"])
    assert redactor.apply(record(b"body", headers=headers)).headers == {
        "x-death": ({"queue": "[redacted]", "n": 1}, {"queue": "b"}),
        "t": ("x", ("[redacted]", "z")),
    }


def test_what_has_nothing_to_replace_is_the_same_record() -> None:
    one = record({"a": "x"}, headers={"h": "y", "t": {"u": 1}, "l": (1, "z")})
    assert Redactor(["user.email", "headers.x"], ["email", "card"]).apply(one) is one


def test_a_keyed_hash_joins_records_and_tells_nothing() -> None:
    hashed = [redacted(b'{"m":"a@b.org"}', "m", key=key) for key in (b"1", b"1", b"2")]
    assert hashed[0] == hashed[1] != hashed[2]
    value = json.loads(hashed[0])["m"]
    assert re.fullmatch("[0-9a-f]{32}", value)
    by_pattern = redacted(b"a@b.org", patterns=["email"], key=b"1")
    assert by_pattern.decode() == value


@pytest.mark.parametrize("pattern", ["(", "a*", "", "(?=x)", "x" * 1001])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|matches nothing"):
        Patterns([pattern])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "é"]), inner),
)  # fmt: skip


def expected(tree: Any, path: list[str]) -> Any:
    """The plain way to do it."""
    if isinstance(tree, list):
        return [expected(one, path) for one in tree]
    if not isinstance(tree, dict):
        return tree
    changed = {}
    for key, value in tree.items():
        count = key.count(".") + 1
        fits = ".".join(path[:count]) == key
        changed[key] = value
        if fits:
            changed[key] = expected(value, path[count:]) if path[count:] else "X"
    return changed


LISTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["a", "0", "a.0", "0.1"]), inner)
    ),
)


@given(LISTS, st.lists(st.sampled_from(["a", "0", "1", "01"]), min_size=1, max_size=4))
def test_what_other_options_find_at_a_path_is_replaced(tree: Any, parts: list[str]) -> None:
    walk = walk_to(".".join(parts))
    after = json.loads(redacted(json.dumps(tree).encode(), ".".join(parts), mask="X"))
    assert walk(tree) is None or walk(after) == "X"
    headers = (
        Redactor(["headers." + ".".join(parts)], mask="X")
        .apply(record(b"", headers={"a": tree}))
        .headers
    )
    assert walk({"a": tree}) is None or walk(headers) == "X"


@given(
    JSON, st.sampled_from([["a"], ["a", "b"], ["b", "a", "b"], ["é"]]), st.sampled_from([None, 1])
)
def test_any_json_and_any_layout(tree: Any, path: list[str], indent: int | None) -> None:
    body = json.dumps(tree, indent=indent, ensure_ascii=indent is None).encode(
        "utf-8", "surrogatepass"
    )
    assert json.loads(edited(body, [path], lambda _: b'"X"', None)) == expected(tree, path)
    assert edited(body, [path], lambda raw: raw, lambda raw: raw) == body


@pytest.mark.parametrize(
    ("pack", "properties"),
    [
        (gzip.compress, {"content_encoding": "gzip"}), (zlib.compress, {}),
        (zlib.compress, {"headers": {"compression": "application/x-gzip"}}),
        (bz2.compress, {"content_encoding": "bz2"}),
        (zstandard.compress, {"content_encoding": "zstd"}),
    ],
)  # fmt: skip
def test_a_compressed_body_hides_nothing(pack: Any, properties: dict[str, Any]) -> None:
    one = record(pack(b'{"user":{"email":"ann@example.org"},"n":1.50}'), **properties)
    by_path = Redactor(["user.email"]).apply(one)
    assert by_path.decoded().body == b'{"user":{"email":"[redacted]"},"n":1.50}'
    by_pattern = Redactor(patterns=["email"]).apply(one)
    assert by_pattern.decoded().body == b'{"user":{"email":"[redacted]"},"n":1.50}'
    assert by_pattern.decoded().headers == {}
    assert Redactor(["user.name"], ["card"]).apply(one) is one


@pytest.mark.parametrize(
    ("codec", "properties"),
    [
        ("utf-16", {"content_type": "text/plain; charset=utf-16"}), ("utf-16", {}),
        ("utf-16-le", {"content_encoding": "utf-16"}),
        ("cp500", {"content_type": 'text/plain; charset="cp500"; x=1'}),
        ("latin-1", {"content_type": "text/plain; charset=iso-8859-1"}),
    ],
)  # fmt: skip
def test_another_character_set_hides_nothing(codec: str, properties: dict[str, Any]) -> None:
    one = record("Grüße an ann@example.org".encode(codec), **properties)
    redacted = Redactor(patterns=["email"]).apply(one)
    assert redacted.text == "Grüße an [redacted]"
    assert redacted.body.decode() == redacted.text
    declared = f"{redacted.properties.content_type} {redacted.properties.content_encoding}"
    assert "utf-16" not in declared
    assert "8859" not in declared
    assert "cp500" not in declared
    assert Redactor(patterns=["card"]).apply(one) is one


def test_patterns_that_name_a_group_alike() -> None:
    patterns = [r"a(?P<x>1+)", r"b(?P<x>2+)"]
    assert redacted(b"a11 b22 c", patterns=patterns) == b"[redacted] [redacted] c"
