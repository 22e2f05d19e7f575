"""The sink `postgres` against a real PostgreSQL: each verdict."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg
import pytest

from logfan.record import Record
from logfan.sink import RecordsRejected, Sink, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan.testing.conformance import Break, How, SinkConformance
from logfan.testing.node import free_port
from logfan_sinks import postgres as postgres_sink
from logfan_sinks.postgres import PostgresSink
from support.gate import Gate
from support.needed import needed
from support.opener import opener
from support.postgres import Postgres

Open = Callable[..., PostgresSink]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with needed(), Postgres(free_port()) as server:
        yield server


def sql(postgres: Postgres, command: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        cursor = connection.execute(command.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def opened(postgres: Postgres) -> Iterator[Open]:
    """Opens a sink to an empty database, and closes it at the end."""
    sql(postgres, "DROP TABLE IF EXISTS logs")
    with opener(PostgresSink, "db", dsn=postgres.dsn, timeout="5s") as opened:
        yield opened


def put(sink: PostgresSink, *records: Record) -> None:
    sink.write(records)
    sink.flush()


def ids(postgres: Postgres) -> list[str]:
    return [row[0] for row in sql(postgres, "SELECT id FROM logs ORDER BY id::int")]


def numbered(count: int) -> list[Record]:
    return [record({"n": n}, message_id=str(n)) for n in range(count)]


def made(postgres: Postgres, id_: str, more: str, after: str = "") -> None:
    """A table of the operator's."""
    sql(
        postgres,
        f"CREATE TABLE logs ({id_}, received_at timestamptz NOT NULL, exchange text NOT NULL, "
        "routing_key text NOT NULL, level text, message text, headers jsonb, properties jsonb, "
        f"body text, body_bytes bytea{more}; {after}",
    )


def test_a_row_holds_what_the_record_does(opened: Open, postgres: Postgres) -> None:
    put(
        opened(),
        record({"level": "ERR", "msg": "it failed"}, routing_key="shop", headers={"host": "a"},
               message_id="m-1", received_at=1.5),
        record(b"\xff\x00", message_id="m-2"), record(b"nul \x00 inside", message_id="m-3"),
    )  # fmt: skip
    rows = sql(
        postgres,
        "SELECT level, message, extract(epoch FROM received_at)::float, headers->>'host', "
        "body, body_bytes FROM logs ORDER BY id",
    )
    assert rows[0] == ("error", "it failed", 1.5, "a", '{"level":"ERR","msg":"it failed"}', None)
    assert json.loads(rows[0][4])["level"] == "ERR"
    assert [row[4:] for row in rows[1:]] == [(None, b"\xff\x00"), (None, b"nul \x00 inside")]


def test_what_has_an_identity_is_there_once(opened: Open, postgres: Postgres) -> None:
    sink = opened(id=["headers.id"])
    put(sink, *numbered(5), *numbered(3))
    put(sink, *numbered(7))
    put(sink, record(b"x", headers={"id": 7}), record(b"x", headers={"id": "7"}))
    assert ids(postgres) == [str(n) for n in range(8)]


def test_nothing_is_there_before_the_commit(opened: Open, postgres: Postgres) -> None:
    sink = opened()
    sink.write(numbered(2))
    assert ids(postgres) == []
    sink.open()
    assert ids(postgres) == []


def test_rows_that_the_table_does_not_take_are_found(opened: Open, postgres: Postgres) -> None:
    sink = opened()
    sql(postgres, "ALTER TABLE logs ADD CONSTRAINT no_bad CHECK (message <> 'bad')")
    records = [record(b"bad" if n in (3, 8) else b"ok", message_id=str(n)) for n in range(10)]
    records.append(record(b"x", message_id="10", headers={"nul": "\0"}))
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    sink.flush()
    assert [*caught.value.reasons] == [3, 8]
    assert "no_bad" in caught.value.reasons[3]
    assert "(23514)" in caught.value.reasons[3]
    assert ids(postgres) == ["0", "1", "2", "4", "5", "6", "7", "9", "10"]


def test_nul_is_kept_out_of_text_and_json(opened: Open, postgres: Postgres) -> None:
    headers = {"nul": "a\0\0", "n\0l": 1, "text": r"\u0000", "both": "\\\0"}
    put(opened(), record(b"x", routing_key="a\0b", headers=headers, message_id="1\0", app_id="\0"))
    [(id_, route, kept, app)] = sql(
        postgres, "SELECT id, routing_key, headers, properties->>'app_id' FROM logs"
    )
    assert (route, app, len(id_)) == ("a\ufffdb", "\ufffd", 64)
    assert kept == {
        "nul": "a\ufffd\ufffd", "n\ufffdl": 1, "text": r"\u0000", "both": "\\\ufffd",
    }  # fmt: skip


def test_a_long_identity_holds_nobody_up(opened: Open, postgres: Postgres) -> None:
    sink = opened(id=["order.id"])
    long = [os.urandom(3000).hex() for _ in range(2)]
    for _ in range(2):
        put(sink, *(record({"order": {"id": one}}) for one in ("fine", *long)))
    assert sql(postgres, "SELECT count(*) FROM logs") == [(3,)]


def test_a_row_that_is_too_large_for_an_index_is_refused_alone(
    opened: Open, postgres: Postgres
) -> None:
    sink = opened()
    sql(postgres, "CREATE INDEX ON logs (body)")
    records = numbered(5)
    records[2] = record(os.urandom(3000).hex().encode(), message_id="2")
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    sink.flush()
    assert [*caught.value.reasons] == [2]
    assert "(54000)" in caught.value.reasons[2]
    assert ids(postgres) == ["0", "1", "3", "4"]


@pytest.mark.parametrize("id_", ["id text UNIQUE", "id text"])
def test_what_another_unique_index_forbids_is_refused(
    opened: Open, postgres: Postgres, id_: str
) -> None:
    made(postgres, id_, ", UNIQUE (message))")
    sink = opened()
    put(sink, record(b"there", message_id="0"))
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record(body, message_id=body.decode()[0]) for body in (b"1", b"there", b"2")])
    sink.flush()
    assert [*caught.value.reasons] == [1]
    assert "(23505)" in caught.value.reasons[1]
    assert ids(postgres) == ["0", "1", "2"]


_NO_BAD = (
    "CREATE OR REPLACE FUNCTION no_bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF new.message = 'bad' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN new; END $$; "
)
_KEEPS_OUT = {
    "of_known": "DROP TABLE IF EXISTS known; CREATE TABLE known (m text PRIMARY KEY); "
    "INSERT INTO known VALUES ('good'); ALTER TABLE logs ADD CONSTRAINT of_known "
    "FOREIGN KEY (message) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
    "not this one": f"{_NO_BAD} CREATE TRIGGER one BEFORE INSERT ON logs "
    "FOR EACH ROW EXECUTE FUNCTION no_bad()",
    "one (P0001)": f"{_NO_BAD} CREATE CONSTRAINT TRIGGER one AFTER INSERT ON logs "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no_bad()",
    "check option": "ALTER TABLE logs RENAME TO logs_below; CREATE VIEW logs AS "
    "SELECT * FROM logs_below WHERE message <> 'bad' WITH CHECK OPTION",
    "row-level": "ALTER TABLE logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; "
    "CREATE POLICY good ON logs USING (true) WITH CHECK (message <> 'bad')",
}


@pytest.mark.parametrize(("why", "after"), _KEEPS_OUT.items())
def test_whatever_the_table_has_to_keep_a_row_out_refuses_that_row_alone(
    opened: Open, postgres: Postgres, why: str, after: str
) -> None:
    made(postgres, "id text UNIQUE", ")", after)
    sql(
        postgres,
        "DROP ROLE IF EXISTS owner; CREATE ROLE owner LOGIN; ALTER TABLE logs OWNER TO owner; "
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO owner; GRANT CREATE ON SCHEMA public TO owner",
    )
    sink = opened(dsn=postgres.dsn.replace("logfan@", "owner@"))
    try:
        for n in range(0, 30, 3):
            bodies = (b"good", b"bad", b"good")
            with pytest.raises(RecordsRejected, match="1 record rejected") as caught:
                put(sink, *(record(body, message_id=str(n + at)) for at, body in enumerate(bodies)))
            sink.flush()
            assert [*caught.value.reasons] == [1]
            assert why in caught.value.reasons[1]
        assert ids(postgres) == [str(n) for n in range(30) if n % 3 != 1]
    finally:
        sink.close()
        if "VIEW" in after:
            sql(postgres, "DROP VIEW logs; DROP TABLE logs_below")
        sql(postgres, "DROP OWNED BY owner")


@pytest.mark.parametrize("given", ["dsn", "environment"])
def test_options_of_the_dsn_hold_beside_our_own(
    opened: Open, postgres: Postgres, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(postgres, "DROP SCHEMA IF EXISTS audit CASCADE; CREATE SCHEMA audit")
    dsn = postgres.dsn
    if given == "dsn":
        dsn += "?options=-csearch_path%3Daudit"
    else:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=audit")
    sink = opened(dsn=dsn)
    monkeypatch.delenv("PGOPTIONS", raising=False)
    put(sink, *numbered(2))
    assert sink._connection is not None
    assert sink._connection.execute("SHOW statement_timeout").fetchone() == ("5s",)
    assert sql(postgres, "SELECT count(*) FROM audit.logs") == [(2,)]


@pytest.mark.parametrize(
    ("id_", "key", "after"),
    [
        ("id text PRIMARY KEY", ")", ""),
        ("id varchar(40) UNIQUE", ", UNIQUE (id, received_at))", ""),
        ("id text", ", PRIMARY KEY (received_at, id))", ""),
        ("id text", ")", "CREATE UNIQUE INDEX ON logs (id) WHERE id IS NOT NULL"),
        ("id text", ")", "CREATE UNIQUE INDEX ON logs (md5(id))"),
        ("id text", ")", "CREATE UNIQUE INDEX ON logs ((id || exchange))"),
        ("id text", ", EXCLUDE (id WITH =))", ""),
        ("id text", ", UNIQUE (id, exchange), UNIQUE (id, received_at))", ""),
        ("id text", ", UNIQUE (id, received_at)) PARTITION BY RANGE (received_at)",
         "CREATE TABLE logs_all PARTITION OF logs DEFAULT"),
        ("id text", ") PARTITION BY RANGE (received_at)",
         "CREATE TABLE logs_all PARTITION OF logs (id UNIQUE) DEFAULT"),
        ("id text UNIQUE", ")",
         "ALTER TABLE logs RENAME TO logs_below; CREATE VIEW logs AS SELECT * FROM logs_below"),
    ],
)  # fmt: skip
def test_a_repeat_is_known_by_whatever_index_with_id_there_is(
    opened: Open, postgres: Postgres, id_: str, key: str, after: str
) -> None:
    made(postgres, id_, key, after)
    sink = opened()
    try:
        for _ in range(2):
            put(sink, *(record(b"x", message_id=str(n), received_at=1.0) for n in (0, 1, 2, 2)))
        assert ids(postgres) == ["0", "1", "2"]
    finally:
        if "VIEW" in after:
            sql(postgres, "DROP VIEW logs; DROP TABLE logs_below")


def test_policies_that_hide_rows_are_no_hindrance(opened: Open, postgres: Postgres) -> None:
    made(postgres, "id text UNIQUE", ")")
    sql(
        postgres,
        "DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN; "
        "GRANT SELECT, INSERT ON logs TO writer; ALTER TABLE logs ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY may_write ON logs FOR INSERT WITH CHECK (true)",
    )
    sink = opened(dsn=postgres.dsn.replace("logfan@", "writer@"))
    put(sink, *numbered(2))
    put(sink, *numbered(3))
    assert ids(postgres) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("table", "why", "mended"),
    [
        ("logs", r"no partition .*\(23514\); .*2026-12-01.*; make that partition", "default"),
        ("november", r"violates partition constraint \(23514\)", "detach"),
    ],
)
def test_a_partition_that_is_missing_is_not_now(
    opened: Open, postgres: Postgres, table: str, why: str, mended: str
) -> None:
    """As on the first of a month: each row would be refused, until somebody makes one."""
    made(
        postgres, "id text", ") PARTITION BY RANGE (received_at)",
        "CREATE TABLE november PARTITION OF logs "
        "FOR VALUES FROM ('2026-11-01Z') TO ('2026-12-01Z')",
    )  # fmt: skip
    first_of_december = 1_796_083_200.0
    records = [record(b"x", received_at=first_of_december + n) for n in range(-3, 3)]
    sink = opened(table=table)
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert sorted(caught.value.later) == [3, 4, 5]
    assert re.search(why, caught.value.later[3])
    assert not caught.value.reasons
    sink.flush()
    assert sql(postgres, f"SELECT count(*) FROM {table}") == [(3,)], "the others are there"
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records[3:])
    assert [*caught.value.later] == [0, 1, 2]
    sink.flush()
    ways = {
        "default": "CREATE TABLE later PARTITION OF logs DEFAULT",
        "detach": "ALTER TABLE logs DETACH PARTITION november",
    }
    sql(postgres, ways[mended])
    try:
        sink.open()
        put(sink, *records[3:])
        assert sql(postgres, f"SELECT count(*) FROM {table}") == [(6,)]
    finally:
        sql(postgres, "DROP TABLE logs; DROP TABLE IF EXISTS november")


def test_a_table_that_cannot_grow_is_not_about_a_row() -> None:
    class Full(psycopg.errors.ProgramLimitExceeded):
        diag = SimpleNamespace(source_file="md.c")  # type: ignore[assignment]

    assert not postgres_sink._is_about_a_row(Full())
    assert postgres_sink._is_about_a_row(psycopg.errors.ProgramLimitExceeded())


def test_an_index_that_goes_or_comes_is_found_by_the_next_open(
    opened: Open, postgres: Postgres
) -> None:
    sink = opened()
    sql(postgres, "ALTER TABLE logs DROP CONSTRAINT logs_id_key")
    with pytest.raises(SinkUnavailable, match="42P10"):
        sink.write(numbered(1))
    sink.open()
    put(sink, *numbered(2), *numbered(1))
    assert ids(postgres) == ["0", "0", "1"]


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("DROP TABLE logs", "42P01"),
        ("ALTER DATABASE postgres SET default_transaction_read_only = on", "25006"),
    ],
)
def test_faults_of_the_server_are_not_now(
    opened: Open, postgres: Postgres, command: str, state: str
) -> None:
    sink = opened()
    sql(postgres, command)
    try:
        if state == "25006":
            sink.close()
            with pytest.raises(SinkUnavailable, match=state):
                sink.open()
        else:
            with pytest.raises(SinkUnavailable, match=state):
                sink.write(numbered(2))
    finally:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


def test_a_crash_of_the_server_loses_nothing(opened: Open, postgres: Postgres) -> None:
    sink = opened()
    put(sink, *numbered(3))
    postgres.stop(signal.SIGQUIT)
    with pytest.raises(SinkUnavailable):
        put(sink, *numbered(5))
    with pytest.raises(SinkUnavailable, match="refused"):
        sink.open()
    postgres.start()
    sink.open()
    put(sink, *numbered(5))
    assert ids(postgres) == [str(n) for n in range(5)]


@pytest.mark.parametrize("step", ["write", "flush"])
def test_a_server_that_is_silent_is_not_waited_for_without_end(
    opened: Open, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(postgres_sink, "_GRACE_SECONDS", 0.5)
    sink = opened(timeout="1s")
    # The process of a connection that another test has left may be there for a moment.
    newest = "WHERE application_name = 'logfan' ORDER BY backend_start DESC LIMIT 1"
    [(pid,)] = sql(postgres, f"SELECT pid FROM pg_stat_activity {newest}")
    if step == "flush":
        sink.write(numbered(1))
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(SinkUnavailable, match=r"no answer for 1\.5 s"):
            put(sink, *numbered(1)) if step == "write" else sink.flush()
    finally:
        os.kill(pid, signal.SIGCONT)
    sink.open()
    put(sink, *numbered(2))
    assert ids(postgres) == ["0", "1"]


def test_a_table_that_is_locked_is_not_waited_for_without_end(
    opened: Open, postgres: Postgres
) -> None:
    sink = opened(timeout="1s")
    with psycopg.connect(postgres.dsn) as other:
        other.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SinkUnavailable, match="57014"):
            sink.write(numbered(1))
    put(sink, *numbered(1))
    assert ids(postgres) == ["0"]


def test_every_hostile_record_is_taken(opened: Open, postgres: Postgres) -> None:
    hostile = hostile_records()
    put(opened(), *hostile.values())
    assert sql(postgres, "SELECT count(*) FROM logs") == [(len(hostile),)]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hunter2 more@127.0.0.1:1/db", "postgresql://u:hunter2%zz@127.0.0.1:1/db",
        "postgresql://u:more@hunter2@127.0.0.1:1/db", "postgresql://127.0.0.1:hunter2/more@h/db",
        "postgresql://u:hunt%00er2@127.0.0.1:1/db", "hunter2", "host=127.0.0.1 port=1 hunter2",
    ],
    ids=["space", "percent", "at", "slash", "nul", "alone", "without a key"],
)  # fmt: skip
def test_a_dsn_that_cannot_be_read_is_not_quoted(tmp_path: Path, dsn: str) -> None:
    """What libpq cannot read of it may be the password."""
    file = tmp_path / "dsn"
    file.write_text(dsn)
    config = PostgresSink.Config.model_validate({"dsn_file": str(file), "timeout": "2s"})
    with pytest.raises(SinkUnavailable, match="the dsn cannot be read; as a URL") as caught:
        PostgresSink(config, name="db").open()
    assert "hunt" not in str(caught.value)


def test_sockets_and_several_hosts_are_read_as_before() -> None:
    dsn = "host=/run/a@b,@abstract,h port=5432,,5433 user=u"
    assert postgres_sink._parts(dsn)["user"] == "u"


def test_no_password_is_shown(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://ann:s3cret@127.0.0.1:1/logs\n")
    with pytest.raises(SinkUnavailable) as caught:
        opened(dsn=None, dsn_file=str(file))
    assert "s3cret" not in str(caught.value)


class TestConformance(SinkConformance):
    sink_class: ClassVar[type[Sink]] = PostgresSink
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> Iterator[None]:
        sql(postgres, "DROP TABLE IF EXISTS logs")
        self.postgres = postgres

        with Gate(postgres.port) as self.gate:
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        dsn = self.postgres.dsn.replace(f":{self.postgres.port}", f":{self.gate.port}")
        return {"dsn": dsn, "timeout": "2s"}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with psycopg.connect(self.postgres.dsn) as connection:
            connection.execute("LOCK TABLE logs")
            yield

    @contextmanager
    def _picky(self) -> Iterator[None]:
        sql(self.postgres, "ALTER TABLE logs ADD CONSTRAINT picky CHECK (body NOT LIKE '%refuse%')")
        yield
        sql(self.postgres, "ALTER TABLE logs DROP CONSTRAINT picky")

    def break_it(self, how: How, folder: Path) -> Break:
        if how == "away":
            return self.gate.shut, self.gate.open
        return self._locked() if how == "slow" else self._picky()

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        rows = sql(self.postgres, "SELECT body, body_bytes FROM logs ORDER BY ctid")
        return [body.encode() if raw is None else raw for body, raw in rows]
