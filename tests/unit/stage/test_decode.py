"""`decode` in the stage: once, before all else, and no more at once than its bound."""

import gzip
import zlib
from collections.abc import Iterator, Sequence

import pytest

from logfan.compression import decode as undo
from logfan.config.settings import SinkSettings
from logfan.record import Record
from logfan.stage.redact import Redactor
from logfan.stage.stage import Stage, Staged
from logfan.stage.where import Where
from logfan.testing import record

MIB = 1 << 20


def packed(body: bytes, level: int = 9) -> Record:
    return record(gzip.compress(body, level), content_encoding="gzip")


def pieces(stage: Stage, records: list[Record]) -> Iterator[Staged]:
    while records:
        staged = stage.apply(records)
        yield staged
        records = records[len(records) - staged.left :]


def test_what_comes_after_it_and_the_sink_get_what_was_packed() -> None:
    stage = Stage(
        decode_bytes=MIB, where=Where.of({"n": {"above": 0}}), redactor=Redactor(["user"])
    )
    staged = stage.apply([packed(b'{"n":%d,"user":"ann"}' % n) for n in range(3)])
    assert [one.body for one in staged.records] == [
        b'{"n":1,"user":"[redacted]"}', b'{"n":2,"user":"[redacted]"}',
    ]  # fmt: skip
    assert [one.properties.content_encoding for one in staged.records] == [None, None]
    assert (staged.places, staged.undecided, staged.left) == ([1, 2], 0, 0)


@pytest.mark.parametrize("properties", [
    {"content_encoding": "gzip"}, {"headers": {"compression": "application/x-gzip"}}, {},
])  # fmt: skip
def test_it_knows_a_compression_however_it_is_declared(properties: dict[str, object]) -> None:
    body = gzip.compress(b"{}") if properties.get("content_encoding") else zlib.compress(b"{}")
    (one,) = Stage(decode_bytes=MIB).apply([record(body, **properties)]).records  # type: ignore[arg-type]
    assert (one.body, one.properties.content_encoding, dict(one.headers)) == (b"{}", None, {})


def test_a_body_is_undone_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(body: bytes, names: Sequence[str]) -> bytes:
        calls.append(len(body))
        return undo(body, names)

    monkeypatch.setattr("logfan.record.decode", counted)
    # Too large to be kept for others.
    text = b'{"level":"error","user":"ann@example.org","t":"%b"}' % (b"x y " * (2 * MIB))
    one = packed(text, 0)
    stage = Stage(
        decode_bytes=MIB, where=Where.of({"level": "error"}),
        redactor=Redactor(["user"], ["email"]),
    )  # fmt: skip
    assert stage.apply([one, record(b"{}")]).records[0].body[:35] == (
        b'{"level":"error","user":"[redacted]'
    )
    assert len(calls) == 1


def test_no_more_is_undone_at_once_than_the_bound_and_all_of_it_comes() -> None:
    bodies = [b"%d" % n * (200 << 10) for n in range(10)]
    records = [packed(body) for body in bodies]
    stage = Stage(decode_bytes=MIB)
    staged = [*pieces(stage, records)]
    assert [len(one.records) for one in staged] == [5, 5]
    assert [one.left for one in staged] == [5, 0]
    assert [one.body for piece in staged for one in piece.records] == bodies


def test_a_body_beyond_the_bound_comes_by_itself() -> None:
    large = packed(b"b" * (2 * MIB), 0)
    staged = pieces(Stage(decode_bytes=9), [record(b"a"), large, large, record(b"d")])
    sizes = [[one.size for one in piece.records] for piece in staged]
    assert sizes == [[1], [2 * MIB], [2 * MIB], [1]]


def test_without_compression_the_bound_is_that_of_the_bodies() -> None:
    records = [record(b"x" * 10) for _ in range(4)]
    staged = [*pieces(Stage(decode_bytes=20), records)]
    assert [one.records for one in staged] == [records[:2], records[2:]]


@pytest.mark.parametrize("keeps", [True, False])
def test_what_cannot_be_undone_goes_on_as_it_came_and_is_undecided(keeps: bool) -> None:
    torn = record(gzip.compress(b"x")[:-1], content_encoding="gzip")
    bomb = packed(bytes(2 * MIB))
    unknown = record(b"x", content_encoding="br")
    staged = Stage(decode_bytes=MIB, keeps_undecided=keeps).apply(
        [torn, record(b"y"), bomb, unknown]
    )
    assert staged.records[0] is torn
    assert staged.records[2] is bomb
    assert staged.records[3] is unknown
    assert staged.undecided == 3
    assert "the stream is torn" in staged.undecoded[0]
    assert "would be larger than 1 MiB and 200 times its size" in staged.undecoded[2]
    assert "'br' is not known" in staged.undecoded[3]


def test_one_that_is_undecided_twice_counts_once() -> None:
    torn = record(b"\x1f\x8b torn", content_encoding="gzip")
    stage = Stage(decode_bytes=MIB, where=Where.of({"n": 1}), redactor=Redactor(patterns=["email"]))
    staged = stage.apply([torn])
    assert (staged.undecided, staged.records) == (1, [torn])


def test_one_that_is_undone_a_second_time_for_redact_leaves_nothing_behind() -> None:
    inner = gzip.compress(b"ann@example.org")
    staged = Stage(decode_bytes=MIB, redactor=Redactor(patterns=["email"])).apply([packed(inner)])
    assert staged.records[0].decoded().body == b"[redacted]"


def test_only_the_key_makes_a_stage_of_it() -> None:
    assert SinkSettings(kind="a").stage() is None
    assert SinkSettings(kind="a", decode=True).stage() is not None
