"""The sink `postgres`: a row for each record in a table of PostgreSQL, durable with the commit."""

import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SecretStr, model_validator

import logfan
from logfan_sinks.address import Timeout
from logfan_sinks.extras import ExtraConfig
from logfan_sinks.outcome import Outcome
from logfan_sinks.row import FieldName, Row, row_of
from logfan_sinks.secret_file import secret_of

if TYPE_CHECKING:
    import psycopg

_COLUMNS = (*Row._fields, "body_bytes")
_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
  id text UNIQUE,
  received_at timestamptz NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  level text,
  message text,
  headers jsonb,
  properties jsonb,
  body text,
  body_bytes bytea
)"""
_STAGING = """
CREATE TEMPORARY TABLE logfan_incoming (
  id text, received_at double precision, exchange text, routing_key text,
  level text, message text, headers jsonb, properties jsonb, body text, body_bytes bytea
) ON COMMIT DELETE ROWS"""
_LOOK = f"SELECT {', '.join(_COLUMNS)} FROM {{}} LIMIT 0"  # noqa: S608 - names of ours
_MOVE = """
INSERT INTO {} (id, received_at, exchange, routing_key, level, message, headers, properties, body,
                body_bytes)
SELECT id, to_timestamp(received_at), exchange, routing_key, level, message, headers, properties,
       body, body_bytes
FROM logfan_incoming
{}"""
# Begins the transaction: its commit waits for the disk whatever is configured, and what is deferred
# until then would fail without a word of the row.
_BEGIN = "SET LOCAL synchronous_commit TO on; SET CONSTRAINTS ALL IMMEDIATE"
_KIND = "SELECT relkind::text, row_security_active(oid) FROM pg_class WHERE oid = to_regclass(%s)"
# The indexes by which a table tells that an id is there already.
_INDEXES = """
SELECT i.indisexclusion, pg_get_expr(i.indpred, i.indrelid),
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, true)
             FROM generate_series(1, i.indnkeyatts) AS n)
FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attname = 'id'
WHERE i.indrelid = to_regclass(%s) AND (i.indisunique OR i.indisexclusion) AND i.indisvalid
  AND (a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
       OR i.indexprs IS NOT NULL AND EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = i.indexrelid
              AND refobjid = i.indrelid AND refobjsubid = a.attnum))"""
_TABLE, _PARTITIONED = "r", "p"
# Classes of SQLSTATE that are about a row: data, constraints, a view's check option, and what a
# trigger raises; and one row that is too complex, or too large for an index or a value of JSON.
_ROW_CLASSES = ("22", "23", "44")
_RAISED = ("P0001", "P0004")
_CHECKS = "ExecWithCheckOptions"
"""Where PostgreSQL looks whether policies of the table let a row in: it has no code of its own."""
_NO_PARTITION, _NOT_OF_PARTITION = "ExecFindPartition", "ExecPartitionCheckEmitError"
"""Where it finds no partition for a row, or the table is a partition that is not the row's: it says
23514, as of a constraint, and the operator has to make one."""
_TOO_COMPLEX = "54001"
_TOO_LARGE = "54000"
# What has the code of the latter, and is about the table or the server, comes from these.
_NOT_OF_A_ROW = ("md.c", "bufmgr.c", "xact.c", "multixact.c", "varsup.c")
_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_NO_DSN = (
    "the dsn cannot be read; as a URL, percent-encode what is special in user or password (/ as "
    "%2F, @ as %40, % as %25, a space as %20); else it is key=value, with spaces between"
)
_GRACE_SECONDS = 5.0
"""The server ends a long statement itself; so much later it counts as gone."""


class PostgresSink(logfan.Sink):
    """Insert a row for each record into a table of PostgreSQL, durable with the commit.

    Done: the commit.
    Not now: every other failure, among them a lost connection, a server that is read-only (25006),
    and a missing table (42P01). A row without a partition (23514 as well, with its key in the log)
    comes again alone, until there is one.
    Refused: what the table does not take: SQLSTATE 22, 23 and 44, also of what is deferred; 54000,
    54001, P0001 and P0004, as of a trigger; a row that a policy keeps out. Found by halves.
    Repeats: a record with an identity is inserted once (ON CONFLICT (id) DO NOTHING), where the
    table has a unique index with id, as the one that the sink makes; a commit whose answer was lost
    is written again.
    """

    class Config(ExtraConfig):
        library, extra = "psycopg", "postgres"

        dsn: SecretStr | None = None
        """The database, as postgresql://logfan@db.example.org/logs; a password belongs into
        dsn_file."""
        dsn_file: Path | None = None
        """The file that holds the dsn."""
        table: Annotated[str, Field(pattern=r"^([a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*$")] = "logs"
        """The table, as logs or audit.logs; it is made where it is missing and may be made."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]. A record without one may come twice after a crash. An
        identity of more than 512 bytes is hashed."""
        timeout: Timeout = 30.0
        """How long a statement, or a connection, may take."""

        @model_validator(mode="after")
        def _has_a_dsn(self) -> "PostgresSink.Config":
            if (self.dsn is None) == (self.dsn_file is None):
                raise ValueError("one of dsn and dsn_file is needed, and not both")
            return self

    _connection: "psycopg.Connection[Any] | None" = None

    def open(self) -> None:
        """Connect, and see that the table is as it must be."""
        import psycopg

        self.close()
        seconds = max(1, round(self.config.timeout))
        dsn, table = secret_of(self.config.dsn, self.config.dsn_file), self.config.table
        options = _options(_parts(dsn), seconds)
        try:
            self._connection = connection = psycopg.connect(
                dsn, connect_timeout=seconds, options=options,
                application_name="logfan",
                keepalives_idle=60, keepalives_interval=10, keepalives_count=4,
            )  # fmt: skip
            with self._bounded(connection):
                if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
                    connection.execute(_CREATE.format(table).encode())
                connection.execute(_LOOK.format(table).encode())
                connection.execute(_STAGING)
                [(kind, hides)] = connection.execute(_KIND, (table,)).fetchall()
                indexes = connection.execute(_INDEXES, (table,)).fetchall()
                connection.commit()
        except psycopg.Error as error:
            raise _unavailable(error) from None
        clause = _on_conflict("" if hides else kind, indexes)
        self._move = _MOVE.format(table, clause).encode()

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Insert all of it, in a transaction that `flush` commits."""
        import psycopg

        connection = self._connection
        if connection is None:
            raise logfan.SinkUnavailable("not connected")
        rows = [_values(row_of(record, self.config.id)) for record in records]
        outcome = Outcome()
        try:
            with self._bounded(connection):
                connection.rollback()
                connection.execute(_BEGIN, prepare=False)
            self._insert(connection, rows, 0, outcome, is_first=True)
        except psycopg.Error as error:
            raise _unavailable(error) from None
        outcome.settle(len(records))

    def _insert(
        self,
        connection: "psycopg.Connection[Any]",
        rows: Sequence[tuple[Any, ...]],
        first: int,
        outcome: Outcome,
        *,
        is_first: bool = False,
    ) -> None:
        """Insert these; where one is at fault, in halves. `first` is the place of the first of
        them; `is_first`: nothing was copied in this transaction before."""
        import psycopg

        try:
            with (
                self._bounded(connection),
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                if not is_first:
                    cursor.execute("DELETE FROM logfan_incoming")
                with cursor.copy(_COPY) as copy:
                    for row in rows:
                        copy.write_row(row)
                cursor.execute(self._move)
        except (psycopg.Error, UnicodeError) as error:
            if not _is_about_a_row(error):
                raise
            last, why = first + len(rows) - 1, _text(error)
            if last == first:
                if _is_about_partition(error):
                    outcome.later[first] = why
                else:
                    outcome.refused[first] = f"refused by PostgreSQL: {why}"
                return
            if is_first and _is_about_partition(error):
                # On the first of a month no row has one: not each is to be asked about.
                self._insert(connection, rows[:1], first, outcome)
                self._insert(connection, rows[-1:], last, outcome)
                if {first, last} <= outcome.later.keys():
                    outcome.later = dict.fromkeys(range(first, last + 1), outcome.later[first])
                    return
                first, rows = first + 1, rows[1:-1]
            middle = len(rows) // 2
            for begin, part in ((first, rows[:middle]), (first + middle, rows[middle:])):
                if part:
                    self._insert(connection, part, begin, outcome)

    def flush(self) -> None:
        import psycopg

        try:
            if self._connection is not None:
                with self._bounded(self._connection):
                    self._connection.commit()
        except psycopg.Error as error:
            raise _unavailable(error) from None

    @contextmanager
    def _bounded(self, connection: "psycopg.Connection[Any]") -> Iterator[None]:
        """Cut the connection where the server is silent: libpq waits for an answer without end."""
        import psycopg

        seconds = self.config.timeout + _GRACE_SECONDS
        is_cut = threading.Event()
        with socket.socket(fileno=os.dup(connection.fileno())) as own:
            timer = threading.Timer(seconds, _cut, (own, is_cut))
            timer.start()
            try:
                yield
            except psycopg.Error:
                if is_cut.is_set():
                    raise logfan.SinkUnavailable(f"no answer for {seconds:g} s") from None
                raise
            finally:
                timer.cancel()
                timer.join()

    def close(self) -> None:
        """Disconnect; what was not committed is not there."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_COPY = f"COPY logfan_incoming ({', '.join(_COLUMNS)}) FROM STDIN".encode()


def _parts(dsn: str) -> dict[str, Any]:
    """The dsn taken apart. Raises `logfan.SinkUnavailable` without a word of it: the libraries'
    errors quote what they cannot read, which may be a password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise logfan.SinkUnavailable(_NO_DSN) from None
    hosts, ports = (str(parts.get(key) or "").split(",") for key in ("host", "port"))
    names = [host for host in hosts if not host.startswith(("/", "@"))]  # others are sockets
    if any("@" in name for name in names) or not all(port.isdecimal() for port in ports if port):
        raise logfan.SinkUnavailable(_NO_DSN)
    return parts


def _options(given: Mapping[str, Any], seconds: int) -> str:
    """Those of the dsn, or of PGOPTIONS, such as a search_path; and ours."""
    own = given.get("options") or os.environ.get("PGOPTIONS", "")
    return f"{own} -c statement_timeout={seconds * 1000} -c client_encoding=UTF8".strip()


def _on_conflict(kind: str, indexes: Sequence[tuple[Any, ...]]) -> str:
    """The clause. What violates another constraint than that of id is no repeat."""
    if kind in {_TABLE, _PARTITIONED}:
        if (False, None, ["id"]) in indexes:
            return "ON CONFLICT (id) DO NOTHING"
        if not indexes and kind == _TABLE:
            return ""
        if len(indexes) == 1:
            [(is_exclusion, condition, keys)] = indexes
            if not is_exclusion:
                where = f" WHERE {condition}" if condition else ""
                return f"ON CONFLICT ({', '.join(keys)}){where} DO NOTHING"
    # A view, a foreign table, indexes of the partitions alone, policies that hide rows: no index
    # can be named.
    return "ON CONFLICT DO NOTHING"


def _values(row: Row) -> tuple[Any, ...]:
    """Text of PostgreSQL holds no NUL: a body with one is kept as bytes, elsewhere U+FFFD takes its
    place."""
    body, raw = row.body, None
    if isinstance(body, str) and "\0" in body:
        body = body.encode()
    if isinstance(body, bytes):
        body, raw = None, body  # type: ignore[assignment]
    return (
        row.id, row.received_at, _without_nul(row.exchange), _without_nul(row.routing_key),
        row.level and _without_nul(row.level), _without_nul(row.message),
        row.headers and _json_without_nul(row.headers),
        row.properties and _json_without_nul(row.properties), body, raw,
    )  # fmt: skip


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _json_without_nul(text: str) -> str:
    return _JSON_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


def _cut(stream: socket.socket, is_cut: threading.Event) -> None:
    is_cut.set()
    with suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


def _is_about_a_row(error: Exception) -> bool:
    import psycopg

    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        # Found by psycopg itself, before it sends.
        return isinstance(error, psycopg.DataError | UnicodeError)
    if error.sqlstate == _TOO_LARGE:
        return error.diag.source_file not in _NOT_OF_A_ROW
    if error.diag.source_function == _CHECKS:
        return True
    return error.sqlstate.startswith((*_ROW_CLASSES, *_RAISED, _TOO_COMPLEX))


def _is_about_partition(error: Exception) -> bool:
    import psycopg

    where = error.diag.source_function if isinstance(error, psycopg.Error) else None
    return where in (_NO_PARTITION, _NOT_OF_PARTITION)


def _text(error: Exception) -> str:
    state, diag = getattr(error, "sqlstate", None), getattr(error, "diag", None)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    text = f"{first} ({state})" if state else first
    if diag is not None and diag.source_function == _NO_PARTITION:
        return f"{text}; {diag.message_detail or ''}; make that partition, or a default one"
    return text


def _unavailable(error: Exception) -> logfan.SinkUnavailable:
    return logfan.SinkUnavailable(_text(error))


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("postgres", PostgresSink)
