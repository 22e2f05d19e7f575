"""The sink `sqlite`: a row for each record in a local database, durable with its commit."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import logfan
from logfan_sinks.row import FieldName, Row, row_of

_BUSY_SECONDS = 10.0
_CREATE = """
CREATE TABLE IF NOT EXISTS "{}" (
  id TEXT UNIQUE,
  received_at REAL NOT NULL,
  exchange TEXT NOT NULL,
  routing_key TEXT NOT NULL,
  level TEXT,
  message TEXT,
  headers TEXT,
  properties TEXT,
  body NOT NULL
)"""
_INSERT = 'INSERT OR IGNORE INTO "{}" ({}) VALUES ({})'
_INDEX = 'CREATE INDEX IF NOT EXISTS "{0}_received_at" ON "{0}" (received_at)'


class SqliteSink(logfan.Sink):
    """Insert a row for each record into a SQLite database, durable with the commit.

    Done: the commit (write-ahead log, synchronous = FULL).
    Not now: a database that is locked, full, or cannot be read or written.
    Refused: a row that the table does not take: a constraint, a trigger, a body beyond the limit.
    Repeats: a record with an identity is inserted once (INSERT OR IGNORE).
    """

    class Config(logfan.SinkConfig):
        path: Path
        """The database file; it is made where it is missing, its folder is not."""
        table: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "logs"
        """The table; it is made where it is missing, with an index on received_at."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]. A record with an identity is inserted once, however often it
        comes; any other may come twice after a crash."""

    _database: sqlite3.Connection | None = None

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """Two sinks that write one table would hold each other up."""
        seen: dict[tuple[Path, str], str] = {}
        faults = {}
        for name, config in configs.items():
            other = seen.setdefault((config.path.absolute(), config.table), name)
            if other != name:
                faults[name] = f"writes the same table as sinks.{other}; use another table or path"
        return faults

    def open(self) -> None:
        """Open the database, and see that the table is as it must be."""
        self.close()
        table = self.config.table
        try:
            self._database = database = sqlite3.connect(
                self.config.path, timeout=_BUSY_SECONDS, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(_CREATE.format(table))
            columns = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
            if missing := [name for name in Row._fields if name not in columns]:
                raise logfan.SinkUnavailable(
                    f"{self.config.path}: table {table} has no column {missing[0]}: it is not of "
                    "this sink; use another table"
                )
            database.execute(_INDEX.format(table))
        except sqlite3.Error as error:
            raise self._unavailable(error) from None
        names = ", ".join(Row._fields)
        self._insert = _INSERT.format(table, names, ", ".join("?" * len(Row._fields)))

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Insert all of it, in a transaction that `flush` commits."""
        rows = [row_of(record, self.config.id) for record in records]
        try:
            self._begin().executemany(self._insert, rows)
        except (sqlite3.Error, OverflowError) as error:
            if not _is_about_a_row(error):
                raise self._unavailable(error) from None
            if refused := dict(self._insert_each(rows)):
                raise logfan.RecordsRejected(refused) from None

    def _begin(self) -> sqlite3.Connection:
        database = self._database
        if database is None:
            raise logfan.SinkUnavailable("the database is closed")
        if database.in_transaction:
            database.rollback()
        database.execute("BEGIN IMMEDIATE")
        return database

    def _insert_each(self, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
        """One by one; which are refused, and why."""
        database = self._begin()
        for place, row in enumerate(rows):
            try:
                database.execute(self._insert, row)
            except (sqlite3.Error, OverflowError) as error:
                if not _is_about_a_row(error):
                    raise self._unavailable(error) from None
                yield place, f"refused by SQLite: {error}"

    def flush(self) -> None:
        """Commit: SQLite syncs the file."""
        try:
            if self._database is not None and self._database.in_transaction:
                self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> logfan.SinkUnavailable:
        name = getattr(error, "sqlite_errorname", "")
        return logfan.SinkUnavailable(f"{self.config.path}: {error}{f' ({name})' if name else ''}")

    def close(self) -> None:
        """Close the database; what was not committed is not there."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _is_about_a_row(error: Exception) -> bool:
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError):
        return True
    return getattr(error, "sqlite_errorname", "") == "SQLITE_TOOBIG"


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("sqlite", SqliteSink)
