"""The sink `file`: appends a line for each record, durable before the acknowledgement."""

import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from prometheus_client import Counter, Gauge
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

import logfan
from logfan_sinks.file.directories import make_folders
from logfan_sinks.file.file_limit import FileLimit
from logfan_sinks.file.log_file import (
    MOST_BUFFERS,
    Full,
    Held,
    LogFile,
    Taken,
    Unsettled,
    unavailable,
)
from logfan_sinks.file.paths import PathTemplate, check_template, too_long
from logfan_sinks.file.rotation import Archivist, Keep, rotated_name, suffix_bytes
from logfan_sinks.formats import (
    BEGINNINGS,
    LONG_BODY_BYTES,
    Format,
    as_readable,
    encoder,
    line_pieces,
)

OVERFLOWED = Counter(
    "logfan_file_sink_overflowed_records",
    "Records written to the path for all others, beyond max_files",
    ["sink"],
)
FILES = Gauge("logfan_file_sink_files", "Files that messages brought about, of max_files", ["sink"])
_CHUNK_BYTES = 16 << 20
_JOINED_BYTES = 192 << 10
_PIECE_BYTES = 1 << 20
_SIZE = attrgetter("size")
_TOLD_SECONDS = 60.0
_CLAIMS: dict[int, tuple[str, re.Pattern[str]]] = {}
"""The paths of the sinks that no message decides on: of no other's messages either."""
_AGE: TypeAdapter[float] = TypeAdapter(logfan.Duration)


def _keep(value: object) -> object:
    if isinstance(value, Keep):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Keep(count=value)
    if isinstance(value, str):
        with suppress(ValueError):
            return Keep(age=_positive(_AGE.validate_python(value)))
    raise ValueError('must be a number of files, such as 14, or an age, such as "30d"')


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than nothing")
    return value


class Rotate(logfan.SinkConfig):
    """When the file is moved aside and a new one begun, and what becomes of the old ones."""

    size: Annotated[logfan.Size, AfterValidator(_positive)] | None = None
    """Before the file grows beyond this size; what is written at once, a batch or 16 MiB of it, is
    not split."""
    every: Annotated[logfan.Duration, AfterValidator(_positive)] | None = None
    """With the first record after each multiple of this time in UTC: "1d" is midnight, "1h" the
    full hour."""
    keep: Annotated[
        Keep, BeforeValidator(_keep), WithJsonSchema({"type": ["integer", "string"]})
    ] = Field(default=14, validate_default=True)
    """How many rotated files stay, or for how long: 14, or "30d". It counts for each path by
    itself: with {date} or {hour} in it the files of earlier days stay."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """How rotated files are compressed."""

    @model_validator(mode="after")
    def _has_an_occasion(self) -> Self:
        if self.size is None and self.every is None:
            raise ValueError('needs size or every, for example size = "100MiB"')
        return self


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
        no text escaped; raw: the body's bytes and a newline."""
        fsync: Literal["batch", "never"] = "batch"
        """batch: durable before the acknowledgement; never: left to the system."""
        decode: bool = False
        """Undo the content_encoding (gzip, zstd) of bodies first; what cannot be decoded, or would
        be larger than 64 MiB or (beyond 1 MiB) 200 times its size, is written as it came."""
        rotate: Rotate | None = None
        """{ size = "100MiB", every = "1d", keep = 14, compress = "gzip" }"""
        max_open_files: Annotated[int, Field(ge=1, le=100_000)] = 64
        """Most files held open where messages decide on the path."""
        max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
        """Most files that messages may bring about, for each {date} and {hour} of the path; files
        that are there count, also after a restart. What would need another goes to the path with
        "_other" in place of the message's fields: nothing is lost, and it is told and counted."""

    _archivist: Archivist | None = None
    _cap: FileLimit
    _told_taken: float | None = None

    def open(self) -> None:
        """Let go of all files, and open what can be known before the first message."""
        if hasattr(self, "_written"):
            self._take_back()
        self._let_go()
        self._encode = encoder(self.config.format)
        self._pieces_of = line_pieces(self.config.format)
        self._files: OrderedDict[str, LogFile] = OrderedDict()
        self._written: dict[str, LogFile] = {}
        self._closed: dict[tuple[int, int], Unsettled] = {}
        self._rotated: set[str] = set()
        self._hour = 0
        if not hasattr(self, "_cap"):
            self._template = PathTemplate(self.config.path, instance=self.instance)
            self._cap = FileLimit(self._template, self.config.max_files, self.log)
        if not self._template.from_messages:
            _CLAIMS[id(self)] = self.name, self._template.all_paths()
        self._cap.forget()
        self._counted = self._cap.overflowed
        self._overflowed = OVERFLOWED.labels(self.name)
        self._file_count = FILES.labels(self.name)
        rotate: Rotate | None = self.config.rotate
        if rotate is not None and self._archivist is None:
            self._archivist = Archivist(
                compress=rotate.compress, keep=rotate.keep, now=self.now(), log=self.log,
                start_thread=self.start_thread,
            )  # fmt: skip
        if not self._template.from_messages:
            self._file(self._template.at(self.now()))
        elif not self._template.from_time:
            # Its own part of the path, at least: a fault there should show now.
            trusted = Path(self._template.pattern(0)[0])
            try:
                make_folders(trusted)
            except OSError as error:
                raise unavailable(str(trusted), error) from None

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
            self._close_past(int(records[-1].received_at // 3600), self._written)
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
            file = self._file(path, size)
        except Taken as taken:
            other = self._template.other(share.received_at)
            self._tell_taken(taken, other)
            try:
                file = self._file(path := other, size)
            except Taken as also:
                if not also.lasting:
                    raise
                refused.update(dict.fromkeys(share.indexes, str(also)))
                return None
        self._written[path] = file
        return file

    def _tell_taken(self, taken: Taken, other: str) -> None:
        now = self.now()
        if self._told_taken is None or abs(now - self._told_taken) >= _TOLD_SECONDS:
            self._told_taken = now
            self.log.warning(
                "%s; messages that decide on this path go to %s; give path a beginning or an end "
                "that no other name has", taken, other,
            )  # fmt: skip

    def _hopeless(self, records: Sequence[logfan.Record], most_bytes: int | None) -> dict[int, str]:
        """The records that no room would ever be enough for: else they would hold all others."""
        if most_bytes is None:
            return {}
        readable = map(as_readable, records) if self.config.decode else records
        sizes = map(self._line_bytes, readable)
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
            for file in self._written.values():
                file.sync()
        except BaseException:
            self._take_back()
            raise
        for file in self._written.values():
            file.settle()
        self._written.clear()
        self._closed.clear()
        while self._rotated:
            self._tend(self._rotated.pop())
        if self._template.from_messages:
            self._file_count.set(self._cap.files)
            self._overflowed.inc(self._cap.overflowed - self._counted)
            self._counted = self._cap.overflowed

    def close(self) -> None:
        """Close all files; compressing ends soon and is done by the next run."""
        self._let_go()
        _CLAIMS.pop(id(self), None)
        if self._archivist is not None:
            self._archivist.close()

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """Two sinks on one path would tear each other's lines; and names have their bounds."""
        first: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for name, config in configs.items():
            suffix = suffix_bytes(config.rotate.compress) if config.rotate is not None else 0
            if why := too_long(PathTemplate(config.path, instance=""), suffix):
                wrong[name] = f"path {why}"
            path = os.path.abspath(config.path)  # noqa: PTH100 - a pure look at text
            if path in first:
                wrong.setdefault(name, f"has the same path as sinks.{first[path]}: {path}")
            first.setdefault(path, name)
        return wrong

    @classmethod
    def advice(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """What was likely meant otherwise."""
        found: dict[str, str] = {}
        fixed = {
            name: os.path.abspath(config.path)  # noqa: PTH100 - a pure look at text
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
                taken := [other for other, path in fixed.items() if template.may_be(path)]
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

    def _let_go(self) -> None:
        for file in getattr(self, "_files", {}).values():
            file.close()

    def _take_back(self) -> None:
        # The host writes everything since the last flush again: without this the files that did
        # take their part of it would have it twice.
        for file in self._written.values():
            file.take_back()
        self._written.clear()
        for closed in self._closed.values():
            closed.take_back()
        self._closed.clear()
        self._cap.overflowed = self._counted

    def _shares(
        self, records: Sequence[logfan.Record], indexes: Sequence[int]
    ) -> Iterator[tuple[str, "_Share"]]:
        """What goes to each path, in delivery order; several times where it is many bytes."""
        encode, template, decode = self._encode, self._template, self.config.decode
        path_of = self._cap.of if template.from_messages else template.of
        first, last = records[0].received_at, records[-1].received_at
        fixed = not template.from_messages
        same = fixed and (not template.from_time or first // 3600 == last // 3600)
        path = template.at(first) if same else ""
        if same and not decode and sum(map(_SIZE, records)) <= LONG_BODY_BYTES:
            yield path, _Share(first, indexes, encode(records))
            return
        shares: dict[str, _Share] = {}
        size = 0
        for at, record in zip(indexes, records, strict=True):
            seen = as_readable(record) if decode else record
            where = path or path_of(seen)
            if seen.size > LONG_BODY_BYTES:
                yield from shares.items()
                shares, size = {}, 0
                yield where, _Share(record.received_at, [at], [], seen)
                continue
            share = shares.get(where)
            if share is None:
                share = shares[where] = _Share(record.received_at, [], [])
            share.indexes.append(at)  # type: ignore[attr-defined]
            share.lines += encode((seen,))
            size += len(share.lines[-1])
            if size >= _CHUNK_BYTES:  # a line may be much longer than its body
                yield from shares.items()
                shares, size = {}, 0
        yield from shares.items()

    def _file(self, path: str, coming: int = 0) -> LogFile:
        """The open file for this path, rotated where `coming` bytes or the time ask for it."""
        file = self._files.get(path)
        if file is not None and not file.is_current():
            self._release(file)
            file = None
        if file is None:
            file = self._opened(path)
        if self._is_due(file, coming):
            left = file.rotate(lambda folder, name: rotated_name(folder, name, self.now()))
            if left is not None:
                self._closed[left.identity] = left
            file.period = self._period(self.now())
            self._rotated.add(file.place)  # tended with the flush: until then it may be cut
        self._files.move_to_end(path)
        return file

    def _opened(self, path: str) -> LogFile:
        while len(self._files) >= self.config.max_open_files:
            self._release(next(iter(self._files.values())))
        untrusted = self._template.untrusted
        if untrusted:
            for name, paths in list(_CLAIMS.values()):
                if paths.fullmatch(os.path.abspath(path)):  # noqa: PTH100 - a pure look at text
                    raise Taken(f"{path}: is a path of sinks.{name}", lasting=True)
        try:
            file = LogFile(
                path, durable=self.config.fsync == "batch", untrusted=untrusted,
                beginning=BEGINNINGS[self.config.format], log=self.log,
            )  # fmt: skip
        except Held as held:
            # A file system that takes A for a: the same file, under another of its names.
            for file in self._files.values():
                if file.identity == held.identity:
                    break
            else:
                if untrusted and held.is_ours:
                    raise Taken(str(held), lasting=False) from None
                raise
        else:
            file.carry(self._closed.pop(file.identity, None))
            # A file that the last run left behind belongs to the period in which it was written to.
            file.period = self._period(file.modified_at if file.size else self.now())
            # Where messages decide, files come and go all the time: there it waits for a rotation.
            if not self._template.from_messages and file.regular:
                self._tend(file.place)
        file.names.append(path)
        self._files[path] = file
        return file

    def _release(self, file: LogFile) -> None:
        """Close it, durable first: the flush to come will not see it."""
        file.sync()
        left = file.unsettled
        if left is not None:
            self._closed[left.identity] = left
        for path in file.names:
            self._files.pop(path, None)
            self._written.pop(path, None)
        file.close()

    def _tend(self, place: str) -> None:
        if self._archivist is not None:
            self._archivist.tend(place, self._template.untrusted, self.now())

    def _close_past(self, hour: int, batch: Mapping[str, object]) -> None:
        """With a new hour, close what the batch did not use: yesterday's file may be large, and
        whoever removes it expects its space back."""
        if self._template.from_time and hour != self._hour:
            self._hour = hour
            for path, file in list(self._files.items()):
                if path not in batch:
                    self._release(file)

    def _period(self, seconds: float) -> int:
        rotate: Rotate | None = self.config.rotate
        return int(seconds // rotate.every) if rotate is not None and rotate.every else 0

    def _is_due(self, file: LogFile, coming: int) -> bool:
        rotate: Rotate | None = self.config.rotate
        if rotate is None or not file.regular or not file.size:
            return False
        too_large = rotate.size is not None and file.size + coming > rotate.size
        return too_large or self._period(self.now()) != file.period


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
    """The kind `file`."""
    register("file", FileSink)
