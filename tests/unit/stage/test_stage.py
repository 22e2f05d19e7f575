"""The stage before a sink as a whole, and the sample."""

import gzip

import pytest

from logfan.record import Record
from logfan.stage.redact import Redactor
from logfan.stage.sample import is_sampled
from logfan.stage.stage import Stage
from logfan.stage.where import Where
from logfan.testing import record


def numbered(count: int) -> list[Record]:
    return [record({"n": n}, message_id=str(n)) for n in range(count)]


def test_what_is_chosen_keeps_its_order_and_its_place() -> None:
    records = numbered(6)
    staged = Stage(where=Where.of({"n": {"above": 2}})).apply(records)
    assert staged.records == records[3:]
    assert staged.places == [3, 4, 5]
    assert staged.undecided == 0


def test_where_all_stay_the_batch_is_the_same() -> None:
    records = numbered(3)
    staged = Stage(where=Where.of({"n": {"exists": True}})).apply(records)
    assert staged.records is records
    assert staged.places is None


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_no_json_stays_unless_asked_otherwise(keeps: bool) -> None:
    records = [record(b"text"), record({"n": 1}), record({"n": 2})]
    staged = Stage(where=Where.of({"n": 1}), keeps_undecided=keeps).apply(records)
    assert staged.places == ([0, 1] if keeps else [1])
    assert staged.undecided == 1


@pytest.mark.parametrize("with_id", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_sample_has_its_share_and_is_the_same_again(share: float, with_id: bool) -> None:
    records = [
        record(b"line %d" % n, routing_key="a", message_id=str(n) if with_id else None)
        for n in range(10_000)
    ]
    first = [is_sampled(one, share) for one in records]
    again = [
        is_sampled(record(one.body, routing_key="a", message_id=one.message_id), share)
        for one in records
    ]
    assert first == again
    assert abs(sum(first) / 10_000 - share) < 0.02


def test_a_larger_sample_holds_the_smaller_one() -> None:
    records = numbered(1000)
    small = {one.message_id for one in records if is_sampled(one, 0.1)}
    assert small < {one.message_id for one in records if is_sampled(one, 0.3)}


def test_what_where_marks_as_always_passes_the_sample() -> None:
    where = Where.of([{"n": 7, "always": True}, {}])
    staged = Stage(where=where, sample=0.0).apply(numbered(20))
    assert staged.places == [7]


def test_what_is_kept_is_redacted() -> None:
    stage = Stage(where=Where.of({"n": [1, 2]}), redactor=Redactor(["n"]))
    staged = stage.apply(numbered(4))
    assert [one.json() for one in staged.records] == [{"n": "[redacted]"}] * 2
    assert staged.places == [1, 2]


def test_the_identity_of_a_record() -> None:
    one = record({"order": {"id": 7}}, headers={"id": "h-1", "n": 5})
    assert record(b"", message_id="m-1").id("headers.id") == "m-1"
    assert one.id() is None
    assert one.id("headers.id") == "h-1"
    assert one.id("headers.missing", "order.id") == "7"
    assert one.id("order") is None
    assert record(b"text").id("order.id") is None


@pytest.mark.parametrize("keeps", [True, False])
def test_what_cannot_be_decompressed_is_undecided_where_it_would_be_redacted(keeps: bool) -> None:
    sealed = record(b"\x1f\x8b torn", content_encoding="gzip")
    unknown = record(b"x", content_encoding="br")
    records = [record(b"a@b.org"), sealed, unknown, record({"n": 1})]
    staged = Stage(redactor=Redactor(patterns=["email"]), keeps_undecided=keeps).apply(records)
    assert staged.undecided == 2
    assert staged.places == (None if keeps else [0, 3])
    assert staged.records[0].body == b"[redacted]"


def test_a_compressed_body_is_chosen_by_what_it_holds() -> None:
    records = [
        record(gzip.compress(b'{"n":%d,"level":"error"}' % n), content_encoding="gzip")
        for n in range(3)
    ]
    assert Stage(where=Where.of({"n": 1})).apply(records).places == [1]
    assert Stage(where=Where.of({"level": "error"})).apply(records).places is None
    assert Stage(where=Where.of({"level": "info"})).apply(records).places == []
    always = Where.of([{"n": 2, "always": True}, {}])
    assert Stage(where=always, sample=0.0).apply(records).places == [2]
