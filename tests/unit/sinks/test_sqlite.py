"""The sink `sqlite`: each verdict of a real database."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.sqlite import SqliteSink

_made: list[SqliteSink] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """None of a test's sinks stays open."""
    yield
    while _made:
        _made.pop().close()


def opened(path: Path, **options: Any) -> SqliteSink:
    sink = SqliteSink(SqliteSink.Config.model_validate({"path": str(path), **options}), name="db")
    _made.append(sink)
    sink.open()
    return sink


def rows(path: Path, what: str = "*", table: str = "logs") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return [*database.execute(f"SELECT {what} FROM {table} ORDER BY rowid")]


def put(sink: SqliteSink, *records: Record) -> None:
    sink.write(records)
    sink.flush()


def test_a_row_holds_what_the_record_does(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    put(
        sink,
        record({"level": "ERR", "msg": "it failed"}, routing_key="shop", headers={"host": "a"},
               message_id="m-1", app_id="web", received_at=1.5),
        record(b"\xff\x00"),
    )  # fmt: skip
    first, second = rows(path)
    assert first[:6] == ("m-1", 1.5, "logs", "shop", "error", "it failed")
    assert json.loads(first[6]) == {"host": "a"}
    assert json.loads(first[7]) == {"message_id": "m-1", "app_id": "web"}
    assert first[8] == '{"level":"ERR","msg":"it failed"}'
    assert (second[0], second[6], second[7], second[8]) == (None, None, None, b"\xff\x00")


def test_what_has_an_identity_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path, id=["headers.id", "order.id"])
    for _ in range(2):
        put(
            sink, record(b"a", message_id="m-1"), record(b"b", headers={"id": "h-1"}),
            record({"order": {"id": 7}}),
        )  # fmt: skip
    assert [row[0] for row in rows(path)] == ["m-1", "h-1", "7"]


def test_nothing_is_there_before_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    sink.write([record(b"a")])
    assert rows(path) == []
    sink.open()
    assert rows(path) == []
    assert sink._database is not None
    assert [*sink._database.execute("PRAGMA journal_mode")] == [("wal",)]
    assert [*sink._database.execute("PRAGMA synchronous")] == [(2,)]  # FULL
    put(sink, record(b"b"))
    assert [row[8] for row in rows(path)] == ["b"]


def test_every_hostile_record_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    hostile = hostile_records()
    put(sink, *hostile.values())
    bodies = [row[0] for row in rows(path, "body")]
    assert [b if isinstance(b, bytes) else b.encode() for b in bodies] == [
        one.body for one in hostile.values()
    ]


def test_a_locked_database_is_not_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logfan_sinks.sqlite._BUSY_SECONDS", 0.1)
    path = tmp_path / "logs.db"
    sink = opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkUnavailable, match="SQLITE_BUSY"):
            sink.write([record(b"a")])
        other.execute("ROLLBACK")
    put(sink, record(b"a"))
    assert len(rows(path)) == 1


def test_a_full_database_is_not_now_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    put(sink, record(b"first"))
    assert sink._database is not None
    sink._database.execute("PRAGMA max_page_count = 12")
    with pytest.raises(SinkUnavailable, match="full"):
        put(sink, record(b"x" * 100_000))
    sink.open()
    put(sink, record(b"x" * 100_000))
    assert [len(row[8]) for row in rows(path)] == [5, 100_000]


def test_a_row_that_the_table_refuses_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE INSERT ON logs WHEN new.message = 'bad' "
            "BEGIN SELECT RAISE(ABORT, 'no such message'); END"
        )
        other.commit()
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record(b"good"), record(b"bad"), record(b"also good")])
    sink.flush()
    assert dict(caught.value.reasons) == {1: "refused by SQLite: no such message"}
    assert [row[8] for row in rows(path)] == ["good", "also good"]


def test_a_body_beyond_the_limit_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    assert sink._database is not None
    sink._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record(b"good"), record(b"x" * 20_000)])
    sink.flush()
    assert [*caught.value.reasons] == [1]
    assert [row[8] for row in rows(path)] == ["good"]


def test_a_folder_that_is_missing_and_a_table_of_others(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match="unable to open database file"):
        opened(tmp_path / "no/logs.db")
    path = tmp_path / "logs.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE logs (a)")
    with pytest.raises(SinkUnavailable, match="no column id"):
        opened(path)
    (tmp_path / "no.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(SinkUnavailable, match="not a database"):
        opened(tmp_path / "no.db")


def test_a_name_that_is_no_table_and_two_sinks_on_one(tmp_path: Path) -> None:
    for options in ({"table": 'a"; DROP'}, {"id": ["a..b"]}):
        with pytest.raises(ValidationError):
            SqliteSink.Config.model_validate({"path": "x.db", **options})
    one = SqliteSink.Config(path=tmp_path / "x.db")
    assert [*SqliteSink.conflicts({"a": one, "b": one})] == ["b"]
