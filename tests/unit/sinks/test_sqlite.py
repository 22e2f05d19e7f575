"""The sink `sqlite`: each verdict of a real database."""

import json
import os
import shutil
import sqlite3
import stat
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


def rows(path: Path, what: str = "*") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return [*database.execute(f"SELECT {what} FROM logs ORDER BY rowid")]


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


def test_a_new_database_and_its_log_are_closed_to_other_users(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    before = os.umask(0o022)
    try:
        put(opened(path), record(b"first"))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("logs.db", "logs.db-wal", "logs.db-shm"), 0o640)


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


_OTHER_COLUMNS = (
    "received_at REAL NOT NULL, exchange TEXT NOT NULL, routing_key TEXT NOT NULL, level TEXT, "
    "message TEXT, headers TEXT, properties TEXT, body NOT NULL"
)


def made(path: Path, columns: str, after: str = "") -> None:
    """A table of the operator's."""
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"CREATE TABLE logs ({columns}); {after}")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (_OTHER_COLUMNS.replace("level TEXT", "level TEXT NOT NULL"), "NOT NULL"),
        (_OTHER_COLUMNS.replace("message TEXT", "message CHECK (message <> 'bad')"), "CHECK"),
        (_OTHER_COLUMNS + ", UNIQUE (message)", "UNIQUE"),
        (_OTHER_COLUMNS + ", UNIQUE (message) ON CONFLICT ROLLBACK", "UNIQUE"),
    ],
)
@pytest.mark.parametrize("id_", ["id TEXT UNIQUE", "id TEXT"])
def test_a_constraint_of_the_table_refuses_and_drops_nothing(
    tmp_path: Path, columns: str, why: str, id_: str
) -> None:
    path = tmp_path / "logs.db"
    made(path, f"{id_}, {columns}")
    sink = opened(path)
    put(sink, record({"level": "error", "msg": "there"}, message_id="0"))
    bad = {"NOT NULL": "no level", "CHECK": "bad", "UNIQUE": "there"}[why]
    with pytest.raises(RecordsRejected) as caught:
        sink.write([
            record({"level": "error", "msg": "good"}, message_id="1"),
            record(
                {"msg": bad} if why == "NOT NULL" else {"level": "error", "msg": bad},
                message_id="2",
            ),
            record({"level": "error", "msg": "also good"}, message_id="3"),
        ])  # fmt: skip
    sink.flush()
    assert [*caught.value.reasons] == [1]
    assert f"{why} constraint failed" in caught.value.reasons[1]
    assert [row[0] for row in rows(path, "id")] == ["0", "1", "3"]


@pytest.mark.parametrize(
    ("id_", "key", "after"),
    [
        ("id TEXT PRIMARY KEY", "", ""),
        ("id INTEGER PRIMARY KEY", "", ""),
        ("id TEXT", ", PRIMARY KEY (received_at, id)", ""),
        ("id TEXT UNIQUE", ", UNIQUE (received_at, id)", ""),
        ("id TEXT", "", "CREATE UNIQUE INDEX one ON logs (id) WHERE id IS NOT NULL"),
        ("id TEXT", "", "CREATE UNIQUE INDEX one ON logs (lower(id))"),
    ],
)
def test_a_repeat_is_known_by_whatever_index_with_id_there_is(
    tmp_path: Path, id_: str, key: str, after: str
) -> None:
    path = tmp_path / "logs.db"
    made(path, f"{id_}, {_OTHER_COLUMNS}{key}", after)
    sink = opened(path)
    for _ in range(2):
        put(sink, *(record(b"x", message_id=str(n), received_at=1.0) for n in range(1, 4)))
    assert sorted(str(row[0]) for row in rows(path, "id")) == ["1", "2", "3"]


_USERS = (
    "CREATE TABLE users (user); "
    "CREATE TRIGGER of_user AFTER INSERT ON logs BEGIN INSERT INTO users VALUES ({}); END"
)


@pytest.mark.parametrize(
    ("columns", "after"),
    [
        ("", "CREATE INDEX of_user ON logs (json_extract(body, '$.user'))"),
        (", user GENERATED ALWAYS AS (json_extract(body, '$.user')) STORED", ""),
        ("", _USERS.format("json_extract(new.body, '$.user')")),
    ],
)
def test_a_row_that_an_expression_cannot_take_is_refused_alone(
    tmp_path: Path, columns: str, after: str
) -> None:
    path = tmp_path / "logs.db"
    made(path, f"id TEXT UNIQUE, {_OTHER_COLUMNS}{columns}", after)
    sink = opened(path)
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record({"user": "ann"}), record(b"no JSON"), record({"user": "bob"})])
    sink.flush()
    assert dict(caught.value.reasons) == {1: "refused by SQLite: malformed JSON"}
    assert [row[0] for row in rows(path, "body")] == ['{"user":"ann"}', '{"user":"bob"}']


@pytest.mark.parametrize(
    "change", ["DROP TABLE logs", "ALTER TABLE logs DROP COLUMN level", "DROP TABLE users"]
)
def test_a_schema_that_no_longer_fits_is_not_about_a_row(tmp_path: Path, change: str) -> None:
    path = tmp_path / "logs.db"
    made(path, f"id TEXT UNIQUE, {_OTHER_COLUMNS}", _USERS.format("new.message"))
    sink = opened(path)
    put(sink, record(b"first"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA legacy_alter_table = ON")
        if change == "DROP TABLE users":
            other.execute(change)
        else:
            other.executescript(f"DROP TRIGGER of_user; {change}")
    with pytest.raises(SinkUnavailable, match="SQLITE_ERROR"):
        sink.write([record(b"second"), record(b"third")])


def test_without_an_index_on_id_each_is_inserted(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    made(path, f"id TEXT, {_OTHER_COLUMNS}")
    sink = opened(path)
    put(sink, record(b"x", message_id="1"), record(b"x", message_id="1"))
    assert len(rows(path)) == 2


def test_a_trigger_that_ends_the_transaction_takes_no_other_row_with_it(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    made(
        path, f"id TEXT UNIQUE, {_OTHER_COLUMNS}",
        "CREATE TRIGGER no BEFORE INSERT ON logs WHEN new.message = 'bad' "
        "BEGIN SELECT RAISE(ROLLBACK, 'no such message'); END",
    )  # fmt: skip
    sink = opened(path)
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record(body) for body in (b"good", b"bad", b"also good", b"bad", b"last")])
    sink.flush()
    assert [*caught.value.reasons] == [1, 3]
    assert [row[8] for row in rows(path)] == ["good", "also good", "last"]


@pytest.mark.parametrize("step", ["before", "within"])
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_not_now(tmp_path: Path, fate: str, step: str) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    put(sink, record(b"first"))

    def lose() -> None:
        for name in ("logs.db", "logs.db-wal", "logs.db-shm"):
            (tmp_path / name).rename(tmp_path / f"{name}.old")
        if fate == "replaced":
            with closing(sqlite3.connect(path)) as other:
                other.execute("CREATE TABLE others (a)")

    if step == "before":
        lose()
        with pytest.raises(SinkUnavailable, match=f"{fate} while it was open"):
            sink.write([record(b"second")])
    else:
        sink.write([record(b"second")])
        lose()
        with pytest.raises(SinkUnavailable, match=f"{fate} while it was open"):
            sink.flush()
    sink.open()
    put(sink, record(b"second"))
    assert [row[8] for row in rows(path)] == ["second"]


def test_a_log_that_was_deleted_is_not_now_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path)
    put(sink, record(b"first"))
    (tmp_path / "logs.db-wal").unlink()
    with pytest.raises(SinkUnavailable, match=r"logs\.db-wal was deleted"):
        put(sink, record(b"second"))
    sink.open()
    put(sink, record(b"second"))
    assert [row[8] for row in rows(path)] == ["first", "second"]


def test_a_link_that_points_elsewhere_is_not_now(tmp_path: Path) -> None:
    link = tmp_path / "logs.db"
    link.symlink_to(tmp_path / "one.db")
    sink = opened(link)
    put(sink, record(b"first"))
    link.unlink()
    link.symlink_to(tmp_path / "two.db")
    with pytest.raises(SinkUnavailable, match="while it was open"):
        put(sink, record(b"second"))
    sink.open()
    put(sink, record(b"second"))
    assert [row[8] for row in rows(tmp_path / "two.db")] == ["second"]


def test_a_database_in_memory_has_no_file_to_look_at() -> None:
    sink = opened(Path(":memory:"))
    put(sink, record(b"first"))
    assert sink._database is not None
    assert [*sink._database.execute("SELECT body FROM logs")] == [("first",)]
    assert not Path(":memory:").exists()


def test_an_identity_that_an_index_does_not_take_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    sink = opened(path, id=["id"])
    found = ["x" * 512, "ä" * 256, "x" * 513, "ä" * 257, "a\0b", "a\0c", "x" * 6000]
    for _ in range(2):
        put(sink, *(record({"id": one}) for one in found))
        put(sink, record(b"", message_id="\udcff"))
        put(sink, record(b"", message_id="?"))
    kept = [row[0] for row in rows(path, "id")]
    assert kept[:2] == found[:2]
    assert kept[-1] == "?"
    hashed = kept[2:-1]
    assert {len(one) for one in hashed} == {64}
    assert len({*hashed}) == len(hashed)


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


def test_what_a_killed_run_left_in_the_log_is_synced_before_it_counts_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill within the commit leaves rows that can be read and were not synced."""
    path, killed = tmp_path / "logs.db", tmp_path / "killed.db"
    put(opened(path), record(b"1", message_id="m-1"))
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{killed}{suffix}")
    synced: list[int] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    sink = opened(killed)
    assert synced == [Path(f"{killed}-wal").stat().st_ino]
    put(sink, record(b"1", message_id="m-1"))  # as it is there, no commit writes it
    assert rows(killed, "id") == [("m-1",)]
