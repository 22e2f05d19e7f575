"""The sink `file`: appends a line for each record, durable before the acknowledgement."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from prometheus_client import Counter, Gauge
from pydantic import AfterValidator, Field

import logfan
from logfan_sinks.file.directories import make_folders
from logfan_sinks.file.file_limit import FileLimit
from logfan_sinks.file.log_file import MOST_BUFFERS, Full, LogFile, Taken, unavailable
from logfan_sinks.file.open_files import OpenFiles
from logfan_sinks.file.paths import PathTemplate, check_template, too_long
from logfan_sinks.file.rotation import Archivist, Rotate, suffix_bytes
from logfan_sinks.formats import (
    BEGINNINGS,
    LONG_BODY_BYTES,
    Format,
    encoder,
    line_pieces,
    total_size,
    with_lines,
)

OVERFLOWED = Counter(
    "logfan_file_sink_overflowed_records",
    "Records written to the path with _other, beyond max_files",
    ["sink"],
)
FILES = Gauge("logfan_file_sink_files", "Files that messages brought about, of max_files", ["sink"])
_CHUNK_BYTES = 16 << 20
_JOINED_BYTES = 192 << 10
_PIECE_BYTES = 1 << 20
_LOG_AGAIN_SECONDS = 60.0


@dataclass(slots=True)
class _Share:
    """What goes to one path."""

    received_at: float
    """Of the first of it."""
    indexes: Sequence[int]
    """Of its records in the batch."""
    lines: list[bytes]
    long: logfan.Record | None = None
    """A record in place of lines: its line is made while it is written."""


class FileSink(logfan.Sink):
    """Append each record to a file as one line, made durable before it is acknowledged."""

    class Config(logfan.SinkConfig):
        path: Annotated[str, AfterValidator(check_template)]
        """Where to; may hold {date} and {hour} (UTC, of the receipt), {host}, {instance} ("main"
        where it is empty), {routing_key}, {headers.NAME} and {json.DOTTED.PATH} ("_" where the
        message has none)."""
        format: Format = "json"
        """json: one object a line; text: the body in UTF-8, control characters and bytes that are
        no text escaped; raw: the body's bytes, and a newline where it ends with none."""
        fsync: Literal["batch", "never"] = "batch"
        """batch: durable before the acknowledgement; never: left to the system."""
        rotate: Rotate | None = None
        """{ size = "100MiB", every = "1d", keep = 14, compress = "gzip" }"""
        max_open_files: Annotated[int, Field(ge=1, le=100_000)] = 64
        """Most files held open where messages decide on the path."""
        max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
        """Most files that messages may bring about, for each {date} and {hour} of the path; files
        that are there count, also after a restart. What would need another goes to the path with
        "_other" in place of the message's fields: nothing is lost, and it is logged and counted."""

    _archivist: Archivist | None = None
    _files: OpenFiles
    _limit: FileLimit
    _logged_taken_at: float | None = None

    def open(self) -> None:
        """Let go of all files, and open what can be known before the first message."""
        if not hasattr(self, "_files"):
            self._files = self._set_up()
        else:
            self._take_back()
            self._files.close()
        self._limit.forget()
        self._counted = self._limit.overflowed
        if not self._template.from_messages:
            self._files.get(self._template.at(self.now()))
        elif not self._template.from_time:
            # Its own part of the path, at least: a fault there should show now.
            trusted = Path(self._template.pattern(0)[0])
            try:
                make_folders(trusted)
            except OSError as error:
                raise unavailable(str(trusted), error) from None

    def _set_up(self) -> OpenFiles:
        config = self.config
        self._encode = encoder(config.format)
        self._pieces_of = line_pieces(config.format)
        self._template = template = PathTemplate(config.path, instance=self.instance)
        self._limit = FileLimit(template, config.max_files, self.log)
        self._overflowed = OVERFLOWED.labels(self.name)
        self._file_count = FILES.labels(self.name)
        if config.rotate is not None:
            self._archivist = Archivist(
                compress=config.rotate.compress, keep=config.rotate.keep, now=self.now(),
                log=self.log, start_thread=self.start_thread,
            )  # fmt: skip
        open_file = partial(
            LogFile, durable=config.fsync == "batch", untrusted=template.untrusted,
            beginning=BEGINNINGS[config.format], log=self.log,
        )  # fmt: skip
        return OpenFiles(
            self.name, template, open_file, most=config.max_open_files,
            rotate=config.rotate, archivist=self._archivist, now=self.now,
        )  # fmt: skip

    def write(self, records: Sequence[logfan.Record]) -> None:
        """One write for each file that the batch concerns; all of it, or nothing."""
        refused: dict[int, str] = {}
        try:
            self._append(records, refused)
        except Full as full:
            refused = self._hopeless(records, full.most_bytes)
            if not refused:
                raise
            self._append(records, refused)
        if refused:
            raise logfan.RecordsRejected(refused)

    def _append(self, records: Sequence[logfan.Record], refused: dict[int, str]) -> None:
        """All but what is refused; to these it adds what no path is left for."""
        indexes: Sequence[int] = range(len(records))
        if refused:
            indexes = [at for at in indexes if at not in refused]
            records = [records[at] for at in indexes]
        if not records:
            return
        try:
            for path, share in self._shares(records, indexes):
                self._append_share(path, share, refused)
            if self._template.from_time:
                self._files.close_past(int(records[-1].received_at // 3600))
        except BaseException:
            self._take_back()
            raise

    def _append_share(self, path: str, share: "_Share", refused: dict[int, str]) -> None:
        long = share.long
        if long is None:
            size = sum(map(len, share.lines)) + len(share.lines)
        else:
            size = self._line_bytes(long) if self.config.rotate is not None else 0
        file = self._place(path, share, size, refused)
        if file is not None:
            written = _pieces(share.lines, size) if long is None else _long(self._pieces_of(long))
            for buffers in written:
                file.append(buffers)

    def _place(
        self, path: str, share: "_Share", size: int, refused: dict[int, str]
    ) -> LogFile | None:
        """The file for it; where the path is taken, the one for all others; None where that is
        taken, too."""
        try:
            return self._files.get(path, size)
        except Taken as taken:
            other = self._template.other(share.received_at)
            self._log_taken(taken, other)
        try:
            return self._files.get(other, size)
        except Taken as also:
            if not also.lasting:
                raise
            refused.update(dict.fromkeys(share.indexes, str(also)))
            return None

    def _log_taken(self, taken: Taken, other: str) -> None:
        now = self.now()
        if self._logged_taken_at is None or abs(now - self._logged_taken_at) >= _LOG_AGAIN_SECONDS:
            self._logged_taken_at = now
            self.log.warning(
                "%s; messages that decide on this path go to %s; give path a beginning or an end "
                "that no other name has", taken, other,
            )  # fmt: skip

    def _hopeless(self, records: Sequence[logfan.Record], most_bytes: int | None) -> dict[int, str]:
        """The records that no room would ever be enough for: else they would hold all others."""
        if most_bytes is None:
            return {}
        sizes = map(self._line_bytes, records)
        return {
            at: f"its line of {size} bytes is longer than a file may become here ({most_bytes})"
            for at, size in enumerate(sizes)
            if size > most_bytes
        }

    def _line_bytes(self, record: logfan.Record) -> int:
        return sum(map(len, self._pieces_of(record))) + 1

    def flush(self) -> None:
        """One fdatasync for each file written since the last; what was not durable is undone."""
        try:
            self._files.settle()
        except BaseException:
            self._take_back()
            raise
        if self._template.from_messages:
            self._file_count.set(self._limit.files)
            self._overflowed.inc(self._limit.overflowed - self._counted)
            self._counted = self._limit.overflowed

    def close(self) -> None:
        """Close all files; compressing ends soon and is done by the next run."""
        if hasattr(self, "_files"):
            self._files.close()
            self._files.forget()
        if self._archivist is not None:
            self._archivist.close()

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """Two sinks on one path would tear each other's lines; and names have their bounds."""
        first: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for name, config in configs.items():
            suffix = suffix_bytes(config.rotate.compress) if config.rotate is not None else 0
            if why := too_long(_template(config), suffix):
                wrong[name] = f"path {why}"
            path = os.path.abspath(config.path)  # noqa: PTH100 - text alone
            if path in first:
                wrong.setdefault(name, f"has the same path as sinks.{first[path]}: {path}")
            first.setdefault(path, name)
        return wrong

    @classmethod
    def advice(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What was likely meant otherwise."""
        found: dict[str, str] = {}
        fixed = {
            name: os.path.abspath(config.path)  # noqa: PTH100 - text alone
            for name, config in configs.items()
            if not _template(config).from_messages
        }
        for name, config in configs.items():
            template = _template(config)
            if config.rotate is not None and template.from_time:
                found[name] = (
                    "rotate.keep and rotate.compress do not reach files of earlier days, as {date} "
                    'and {hour} give each a path of its own; take rotate.every = "1d" instead of '
                    "them, or remove old files by other means"
                )
            elif template.from_messages and (
                taken := [one for one in fixed if template.absolute().fullmatch(fixed[one])]
            ):
                found[name] = (
                    f"a message may decide on the path of sinks.{taken[0]}: it goes to the path "
                    'with "_other" then; give one of them a folder of its own'
                )
            elif config.path.startswith("$"):
                found[name] = f"{config.path}: $NAME is not expanded, but a folder of that name"
        return found

    def now(self) -> float:
        """The time that rotation goes by, in seconds since 1970."""
        return time.time()

    def _take_back(self) -> None:
        self._files.take_back()
        self._limit.overflowed = self._counted

    def _shares(
        self, records: Sequence[logfan.Record], indexes: Sequence[int]
    ) -> Iterator[tuple[str, "_Share"]]:
        """What goes to each path, in delivery order; several times where it is many bytes."""
        encode, template = self._encode, self._template
        path_of = self._limit.of if template.from_messages else template.of
        first, last = records[0].received_at, records[-1].received_at
        fixed = not template.from_messages
        same = fixed and (not template.from_time or first // 3600 == last // 3600)
        path = template.at(first) if same else ""
        if same and total_size(records) <= LONG_BODY_BYTES:
            yield path, _Share(first, indexes, encode(records))
            return
        shares: dict[str, _Share] = {}
        size = 0
        for at, (record, line) in zip(indexes, with_lines(records, encode), strict=True):
            where = path or path_of(record)
            if line is None:
                yield from shares.items()
                shares, size = {}, 0
                yield where, _Share(record.received_at, [at], [], record)
                continue
            share = shares.get(where)
            if share is None:
                share = shares[where] = _Share(record.received_at, [], [])
            share.indexes.append(at)  # type: ignore[attr-defined]
            share.lines.append(line)
            size += len(line)
            if size >= _CHUNK_BYTES:  # a line may be much longer than its body
                yield from shares.items()
                shares, size = {}, 0
        yield from shares.items()


def _template(config: Any) -> PathTemplate:
    return PathTemplate(config.path, instance="")


def _pieces(lines: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    """What to write for the lines, `size` bytes with their newlines.

    A common batch is one buffer, as its copy costs less than many buffers would; more than that is
    copied by the kernel alone, and in pieces, so that the disk can begin with the first.
    """
    if size <= _JOINED_BYTES:
        yield [b"\n".join((*lines, b""))]
        return
    piece: list[bytes] = []
    room = _PIECE_BYTES
    for line in lines:
        piece += (line, b"\n")
        room -= len(line)
        if room <= 0 or len(piece) >= MOST_BUFFERS:
            yield piece
            piece, room = [], _PIECE_BYTES
    if piece:
        yield piece


def _long(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """What to write for one line that comes in pieces: some of them at a time."""
    some: list[bytes] = []
    room = _PIECE_BYTES
    for piece in pieces:
        some.append(piece)
        room -= len(piece)
        if room <= 0 or len(some) >= MOST_BUFFERS - 1:
            yield some
            some, room = [], _PIECE_BYTES
    yield [*some, b"\n"]


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("file", FileSink)
