"""The sink `sqlite`: a row for each record in a local database, durable with its commit."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

import logfan
from logfan_sinks.row import FieldName, Row, row_of

_BUSY_SECONDS = 10.0
_IN_MEMORY = ":memory:"
_MODE = 0o640
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
# ABORT: whatever the table has of its own for a constraint, a row at fault takes no other with it.
_INSERT = 'INSERT OR ABORT INTO "{}" ({}) {} {}'
_MARKS = ", ".join("?" * len(Row._fields))
_ONE, _NONE = f"VALUES ({_MARKS})", f"SELECT {_MARKS} WHERE 0"
_NULLS = (None,) * len(Row._fields)
_BARE = "ON CONFLICT DO NOTHING"
_INDEX = 'CREATE INDEX IF NOT EXISTS "{0}_received_at" ON "{0}" (received_at)'


class SqliteSink(logfan.Sink):
    """Insert a row for each record into a SQLite database, durable with the commit.

    Done: the commit (write-ahead log, synchronous = FULL).
    Not now: a database that is locked, full, cannot be read or written, or whose file was deleted
    or replaced.
    Refused: a row that the table does not take: a constraint, a trigger, a body beyond the limit,
    an expression of an index or a column that cannot take it, as json_extract of a body that is no
    JSON.
    Repeats: a record with an identity is inserted once (ON CONFLICT (id) DO NOTHING), where the
    table has a unique index with id, as the one that the sink makes.
    """

    class Config(logfan.SinkConfig):
        path: Path
        """The database file; it is made where it is missing, with the mode 0640, its folder is
        not."""
        table: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "logs"
        """The table; it is made where it is missing, with an index on received_at."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]. A record with an identity is inserted once, however often it
        comes; any other may come twice after a crash. An
        identity of more than 512 bytes is hashed."""

    _database: sqlite3.Connection | None = None
    _files: Mapping[Path, tuple[int, int] | None] = MappingProxyType({})
    """What the connection writes to, as it was when it was opened."""

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
        self._make_file()
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
            self._files = self._files_of(database)
            self._sync_what_is_there()
            self._insert, self._insert_none = self._statements(database)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from None

    def _sync_what_is_there(self) -> None:
        """A run that was killed within its commit left rows that everybody sees and no sync covers.
        They come again, are there already, and so would be written by no commit. A checkpoint
        would not do: it syncs nothing while another program reads what was before. Raises
        OSError."""
        for log in [*self._files][1:]:
            fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)  # SQLite has no locks on this file that would go with it

    def _make_file(self) -> None:
        """A new database is closed to other users, whatever the umask, as the files of the sink
        `file` are; SQLite gives its log the same mode. An error is SQLite's to report."""
        if str(self.config.path) != _IN_MEMORY:
            with suppress(OSError):
                os.close(os.open(self.config.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE))

    def _files_of(self, database: sqlite3.Connection) -> dict[Path, tuple[int, int] | None]:
        """The database and its write-ahead log; none where it is in memory."""
        file = database.execute("PRAGMA database_list").fetchone()[2]
        if not file:
            return {}
        # Under the name of the config a link is seen that points elsewhere later.
        path = self.config.path if self.config.path.exists() else Path(file)
        files, log = {path: _inode_of(path)}, Path(f"{file}-wal")
        if (inode := _inode_of(log)) is not None:
            files[log] = inode
        return files

    def _check_files(self) -> None:
        """SQLite goes on writing to files that have lost their name."""
        for path, inode in self._files.items():
            if (found := _inode_of(path)) is None or found != inode:
                fate = "deleted" if found is None else "replaced"
                raise logfan.SinkUnavailable(
                    f"{path} was {fate} while it was open; logfan opens the database again"
                )

    def _statements(self, database: sqlite3.Connection) -> tuple[str, str]:
        """The statement, and one that is the same but for a row. What violates another constraint
        than those of id is no repeat."""
        table, names = self.config.table, ", ".join(Row._fields)
        for clause in _on_conflict(database, table):
            insert = _INSERT.format(table, names, _ONE, clause)
            try:
                database.execute(f"EXPLAIN {insert}", _NULLS)
                break
            except sqlite3.OperationalError:
                if not clause or clause == _BARE:
                    raise
        return insert, _INSERT.format(table, names, _NONE, clause)

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Insert all of it, in a transaction that `flush` commits."""
        rows = [row_of(record, self.config.id) for record in records]
        self._check_files()
        try:
            self._begin().executemany(self._insert, rows)
        except (sqlite3.Error, OverflowError) as error:
            if not self._is_about_a_row(error):
                raise self._unavailable(error) from None
            if refused := self._insert_each(rows):
                raise logfan.RecordsRejected(refused) from None

    def _begin(self) -> sqlite3.Connection:
        database = self._database
        if database is None:
            raise logfan.SinkUnavailable("the database is closed")
        try:
            if database.in_transaction:
                database.rollback()
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._unavailable(error) from None
        return database

    def _insert_each(self, rows: Sequence[Row]) -> dict[int, str]:
        """One by one; which are refused, and why."""
        refused: dict[int, str] = {}
        database = self._begin()
        while not self._insert_others(database, rows, refused):
            self._begin()
        return refused

    def _insert_others(
        self, database: sqlite3.Connection, rows: Sequence[Row], refused: dict[int, str]
    ) -> bool:
        """Insert those that are not refused; False where one ended the transaction, as a trigger
        may (RAISE(ROLLBACK)): then none of it is there."""
        for place, row in enumerate(rows):
            if place in refused:
                continue
            try:
                database.execute(self._insert, row)
            except (sqlite3.Error, OverflowError) as error:
                if not self._is_about_a_row(error):
                    raise self._unavailable(error) from None
                refused[place] = f"refused by SQLite: {error}"
                if not database.in_transaction:
                    return False
        return True

    def _is_about_a_row(self, error: Exception) -> bool:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError):
            return True
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_ERROR" and self._database is not None:
            # Where the statement itself is sound, an expression could not take the row's values.
            try:
                self._database.execute(self._insert_none, _NULLS)
            except sqlite3.Error:
                return False
            return True
        return name == "SQLITE_TOOBIG"

    def flush(self) -> None:
        """Commit: SQLite syncs the file, which must be the one that has the name."""
        try:
            if self._database is not None and self._database.in_transaction:
                self._database.execute("COMMIT")
                self._check_files()
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


def _on_conflict(database: sqlite3.Connection, table: str) -> Sequence[str]:
    """The clause; another follows where this SQLite may not take it."""
    of_table = database.execute(f'PRAGMA table_info("{table}")')
    keys = {tuple(sorted(row[1] for row in of_table if row[5]))}  # the primary key
    for _, index, is_unique, _, is_partial in database.execute(f'PRAGMA index_list("{table}")'):
        info = database.execute("SELECT name FROM pragma_index_info(?)", (index,))
        columns = tuple(row[0] for row in info)
        if not is_unique:
            continue
        if None in columns or (is_partial and "id" in columns):
            return (_BARE,)  # of an expression, or under a condition: it has no name to give
        if not is_partial:
            keys.add(tuple(sorted(columns)))
    # The shortest first: (id), where there is one.
    found = sorted((key for key in keys if "id" in key), key=lambda key: (len(key), key))
    if not found:
        return ("",)
    quoted = [", ".join('"{}"'.format(name.replace('"', '""')) for name in key) for key in found]
    # SQLite takes more than one such clause since 3.35.
    return (" ".join(f"ON CONFLICT ({key}) DO NOTHING" for key in quoted), _BARE)


def _inode_of(path: Path) -> tuple[int, int] | None:
    """None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - of what is there now
    except OSError:
        return None
    return found.st_dev, found.st_ino


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("sqlite", SqliteSink)
