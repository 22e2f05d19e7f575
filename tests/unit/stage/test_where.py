"""`where`: which records a sink gets."""

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logfan.record import UNPARSED, Record
from logfan.stage.where import Where
from logfan.testing import record

BODY = {
    "level": "ERROR", "service": "checkout", "duration_ms": 512.5, "status": 503, "ok": False,
    "tags": ["slow", "paid"], "user": {"email": "a@b.c"}, "zero": 0, "none": None,
}  # fmt: skip
RECORD = record(
    BODY,
    routing_key="shop.orders",
    exchange="logs",
    app_id="shop",
    headers={"host": "web-1", "n": 7},
)


def decides(where: Any, one: Any = RECORD) -> bool | None:
    return Where.of(where).decide(one)


HOLDS: list[dict[str, Any]] = [
    {}, {"service": "checkout"}, {"service": ["cart", "checkout"]}, {"level": "error"},
    {"level": ["error", "critical"]}, {"level": "ERR"}, {"json.level": "ERROR"},
    {"service": {"not": ["healthcheck"]}}, {"service": {"not": "healthcheck"}},
    {"service": {"not": {"prefix": "health"}}}, {"missing": {"not": "x"}},
    {"duration_ms": {"above": 500}}, {"duration_ms": {"below": 513}},
    {"status": {"between": [500, 503]}}, {"status": {"between": [503, 599]}},
    {"status": 503}, {"status": 503.0}, {"ok": False}, {"zero": 0},
    {"headers.host": {"matches": "web-.*"}}, {"headers": {"host": {"matches": "^web-[0-9]$"}}},
    {"headers.host": "web-1"}, {"headers.n": {"above": 6}}, {"routing_key": {"prefix": "shop."}},
    {"routing_key": {"suffix": [".orders", ".carts"]}}, {"exchange": "logs"}, {"app_id": "shop"},
    {"properties.app_id": "shop"}, {"user.email": {"exists": True}},
    {"user.name": {"exists": False}}, {"none": {"exists": False}}, {"user": {"exists": True}},
    {"tags": "slow"}, {"tags": {"prefix": "pa"}}, {"tags": {"not": "free"}},
    {"duration_ms": {"above": 500, "below": 600}}, {"service": {"matches": ["^a", "out$"]}},
]  # fmt: skip
FAILS: list[dict[str, Any]] = [
    {"service": "cart"}, {"level": "info"}, {"level": "error", "service": "cart"},
    {"service": {"not": ["checkout"]}}, {"missing": "x"}, {"missing": {"exists": True}},
    {"missing": {"above": 1}}, {"duration_ms": {"above": 512.5}}, {"duration_ms": {"below": 512.5}},
    {"status": {"between": [504, 599]}}, {"status": "503"}, {"ok": 0}, {"zero": False},
    {"service": {"above": 1}}, {"service": {"matches": "^out"}}, {"routing_key": {"prefix": "hop"}},
    {"tags": {"not": "slow"}}, {"headers.n": "7"}, {"ok": {"above": -1}}, {"app_id": "other"},
    {"duration_ms": {"above": 500, "below": 510}},
]  # fmt: skip


@pytest.mark.parametrize("where", HOLDS, ids=repr)
def test_what_holds(where: dict[str, Any]) -> None:
    assert decides(where) is True


@pytest.mark.parametrize("where", FAILS, ids=repr)
def test_what_does_not_hold(where: dict[str, Any]) -> None:
    assert decides(where) is False


def test_of_a_list_of_tables_one_must_hold() -> None:
    assert decides([{"service": "cart"}, {"status": 503}]) is True
    assert decides([{"service": "cart"}, {"status": 200}]) is False


def test_a_body_that_is_no_json_decides_nothing() -> None:
    text = record(b"error: it failed", routing_key="shop.orders")
    assert decides({"service": "checkout"}, text) is None
    assert decides({"level": "error"}, text) is True
    assert decides({"level": "info"}, text) is False
    assert decides({"routing_key": "other", "service": "checkout"}, text) is False
    assert decides([{"service": "checkout"}, {"routing_key": "shop.orders"}], text) is True
    assert decides([{"service": "checkout"}, {"routing_key": "other"}], text) is None
    assert decides({"app_id": "shop"}, record(b"text", app_id="shop")) is True


def test_routing_key_headers_and_properties_parse_no_body() -> None:
    where = {"routing_key": "a", "headers.host": "b", "properties.app_id": "c"}
    one = record(b"{", routing_key="a", headers={"host": "b"}, app_id="c")
    before = one._json
    assert decides(where, one) is True
    assert one._json is before


def test_what_a_table_marks_as_always() -> None:
    where = Where.of([{"level": "error", "always": True}, {"service": "checkout"}])
    assert where.is_always(RECORD)
    assert not where.is_always(record({"service": "checkout", "level": "info"}))
    assert not Where.of({"level": "error"}).is_always(RECORD)


def test_all_faults_of_a_table_are_named_at_once_and_of_all_tables() -> None:
    with pytest.raises(ValueError, match=r"level\.above.*; r\.matches"):
        Where.of({"level": {"above": "x"}, "r": {"matches": "("}, "fine": 1})
    with pytest.raises(ValueError, match=r"\[0\]\.a\.above.*; \[2\]\.b"):
        Where.of([{"a": {"above": "x"}}, {"fine": 1}, {"b": []}])


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("error", "is no table"), ([], "leave `where` out"), ([{}, 7], "is no table"),
        ({"a": {"equals": 1}}, '"a.equals"'), ({"a": {"above": "x"}}, "a.above is 'x'; it is a"),
        ({"a": {"above": 1, "over": 2}}, "a: 'over' is no condition"),
        ({"a": {"above": True}}, "it is a number"), ({"a": {"above": float("nan")}}, "a number"),
        ({"a": {"between": [1]}}, "two numbers"), ({"a": {"between": [2, 1]}}, "above the second"),
        ({"a": []}, "empty list"), ({"a": [[1]]}, "is no value"), ({"a": {}}, "condition"),
        ({"a": {"exists": "yes"}}, "true or false"), ({"a": {"prefix": 7}}, "a string"),
        ({"a": {"prefix": ""}}, "a string"), ({"a": {"matches": "("}}, "expression of RE2"),
        ({"a": {"matches": "(?=x)"}}, "(?="), ({"a": {"matches": 7}}, "regular expression"),
        ({"a..b": 1}, "empty part"), ({"properties.x": 1}, "no property"),
        ({"level": "loud"}, "levels are debug, info"), ({"always": "yes"}, "true or false"),
        ([{"a": 1}, {"b": {"above": "x"}}], r"[1].b.above"), ({"a": {"not": {"up": 1}}}, "'up'"),
    ],
)  # fmt: skip
def test_a_fault_names_the_key_and_the_way_out(where: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at
        Where.of(where)
    assert text in str(caught.value)


def test_regular_expressions_are_linear() -> None:
    where = {"message": {"matches": "(a+)+$"}}
    assert decides(where, record({"message": "a" * 50_000 + "b"})) is False


POOL = [
    RECORD, record({"level": "info", "service": "cart", "status": 200}),
    record({"level": 30, "ok": 1, "zero": 0.0, "status": True}), record({"lvl": "WARN"}),
    record(b"null"), record([1, 2]), record("text"), record(b"3"), record(b"ERROR of a line"),
    record(b"not json"), record(b"\xff\x00"), record(b""),
    record(gzip.compress(b'{"service":"checkout"}'), content_encoding="gzip"),
    record(gzip.compress(b"ERROR text"), content_encoding="gzip"),
    record(gzip.compress(b"{}")[:9], content_encoding="gzip"),
    record({"service": "checkout", "pad": "x" * 3000}), record(b"x" * 3000, routing_key="shop.a"),
    record({"service": ["checkout", 1]}, app_id="shop"), record({"tags": {"a": 1}}),
    record('{"level":"ERROR","service":"é"}'.encode("utf-16"),
           content_type="application/json; charset=utf-16"),
    record({"status": 503, "duration_ms": float("inf")}), record(b'{"duration_ms":NaN}'),
    record({"n": 1}, routing_key="kern.error", headers={"host": "web-9", "n": 7, "level": "crit"}),
]  # fmt: skip
"""Records of every kind, in batches of which columns are made or not."""


@given(
    st.lists(st.sampled_from([*HOLDS, *FAILS]), min_size=1, max_size=3),
    st.lists(st.sampled_from(POOL), max_size=40),
)
def test_a_batch_is_decided_as_each_of_its_records_is(
    tables: list[dict[str, Any]], records: list[Record]
) -> None:
    where = Where.of(tables)
    assert where.decisions(records) == [where.decide(one) for one in records]


@pytest.mark.parametrize("where", [*HOLDS, *FAILS], ids=repr)
def test_a_batch_of_one_kind_is_decided_as_each_of_its_records_is(where: dict[str, Any]) -> None:
    for one in POOL:
        batch = [one] * 10
        assert Where.of(where).decisions(batch) == [decides(where, one)] * 10


def test_bodies_are_parsed_only_where_the_routing_key_leaves_it_open() -> None:
    where = Where.of({"routing_key": {"prefix": "shop."}, "service": "checkout"})
    records = [record({"service": "checkout"}, routing_key=f"{n % 2}shop.") for n in range(20)]
    records.append(record({"service": "checkout"}, routing_key="shop.a"))
    assert where.decisions(records) == [*[False] * 20, True]
    assert all(one._json is UNPARSED for one in records[:20])
    assert records[20]._json is not UNPARSED
