"""The sink `file`: appends a line for each record, durable before the acknowledgement."""

import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, WithJsonSchema

import logfan
from logfan_sinks.formats import Format, encoder
from logfan_sinks.logfile import LogFile, sync_folder, unavailable
from logfan_sinks.paths import PathTemplate, check_template, template
from logfan_sinks.rotation import Archivist, Keep, rotated_name

_AGE: TypeAdapter[float] = TypeAdapter(logfan.Duration)


def _keep(value: object) -> object:
    if isinstance(value, Keep):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("must not be negative")
        return Keep(count=value)
    if isinstance(value, str):
        return Keep(age=_AGE.validate_python(value))
    raise ValueError('must be a number of files, or an age such as "30d"')


class Rotate(logfan.SinkConfig):
    """When the file is moved aside and a new one begun, and what becomes of the old ones."""

    size: logfan.Size | None = None
    """Before the file grows beyond this size."""
    every: logfan.Duration | None = None
    """At each multiple of this time in UTC: "1d" is at midnight, "1h" at the full hour."""
    keep: Annotated[
        Keep, BeforeValidator(_keep), WithJsonSchema({"type": ["integer", "string"]})
    ] = Field(default=14, validate_default=True)
    """How many rotated files stay, or for how long: 14, or "30d"."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """How rotated files are compressed."""


class FileSink(logfan.Sink):
    """Append each record to a file as one line, made durable before it is acknowledged."""

    class Config(logfan.SinkConfig):
        path: Annotated[str, AfterValidator(check_template)]
        """Where to; may hold {date}, {hour} (UTC), {host}, {instance}, {routing_key},
        {headers.NAME} and {json.DOTTED.PATH}."""
        format: Format = "json"
        """json: one object a line; text: the body, control characters escaped; raw: the body's
        bytes and a newline."""
        fsync: Literal["batch", "never"] = "batch"
        """batch: durable before the acknowledgement; never: left to the system."""
        rotate: Rotate | None = None
        """{ size = "100MiB", every = "1d", keep = 14, compress = "gzip" }"""
        max_open_files: Annotated[int, Field(ge=1, le=100_000)] = 64
        """Most files held open where messages decide on the path."""

    def open(self) -> None:
        """Let go of all files and open those whose path is known already."""
        self._let_go()
        self._encode = encoder(self.config.format)
        self._template: PathTemplate = template(self.config.path, self.instance)
        self._files: OrderedDict[str, LogFile] = OrderedDict()
        self._unsynced: dict[str, LogFile] = {}
        rotate: Rotate | None = self.config.rotate
        self._archivist = None
        if rotate is not None:
            self._archivist = Archivist(compress=rotate.compress, keep=rotate.keep, log=self.log)
        if not self._template.from_messages:
            self._file(self._template.render_at(self.now()))

    def write(self, records: Sequence[logfan.Record]) -> None:
        """One write for each file that the batch concerns."""
        for path, lines in self._by_path(records).items():
            lines.append(b"")
            data = b"\n".join(lines)
            file = self._file(path, len(data))
            self._unsynced[path] = file
            file.append(data)

    def flush(self) -> None:
        """One fdatasync for each file written since the last."""
        for file in self._unsynced.values():
            file.sync()
        self._unsynced.clear()

    def close(self) -> None:
        """Close all files."""
        self._let_go()

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """Two sinks on one path would tear each other's lines."""
        first: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for name, config in configs.items():
            path = os.path.normpath(config.path)
            if path in first:
                wrong[name] = f"has the same path as sinks.{first[path]}: {path}"
            first.setdefault(path, name)
        return wrong

    def now(self) -> float:
        """The time that rotation goes by, in seconds since 1970."""
        return time.time()

    def _let_go(self) -> None:
        for file in getattr(self, "_files", {}).values():
            file.close()
        archivist = getattr(self, "_archivist", None)
        if archivist is not None:
            archivist.close()

    def _by_path(self, records: Sequence[logfan.Record]) -> dict[str, list[bytes]]:
        """The lines for each path, in delivery order."""
        encode, path_of = self._encode, self._template.render
        first, last = records[0].received_at, records[-1].received_at
        if not self._template.from_messages and (
            not self._template.from_time or first // 3600 == last // 3600
        ):
            return {self._template.render_at(first): [encode(record) for record in records]}
        lines: dict[str, list[bytes]] = {}
        for record in records:
            lines.setdefault(path_of(record), []).append(encode(record))
        return lines

    def _file(self, path: str, coming: int = 0) -> LogFile:
        """The open file for this path, rotated where `coming` bytes or the time ask for it."""
        file = self._files.get(path)
        if file is not None and not file.is_current():
            file.sync()
            self._forget(path, file)
            file = None
        if file is None:
            file = self._opened(path)
        if self._is_due(file, coming):
            file = self._rotated(path, file)
        self._files.move_to_end(path)
        return file

    def _opened(self, path: str) -> LogFile:
        while len(self._files) >= self.config.max_open_files:
            oldest, file = next(iter(self._files.items()))
            file.sync()
            self._forget(oldest, file)
        trusted = self._template.static or "." if self._template.from_messages else ""
        file = LogFile(path, durable=self.config.fsync == "batch", log=self.log, trusted=trusted)
        self._files[path] = file
        every = self._every()
        # A file that the last run left behind belongs to the period in which it was written to.
        file.period = int((file.modified_at if file.size else self.now()) // every)
        if self._archivist is not None and file.regular:
            self._archivist.tend(Path(path), self.now())
        return file

    def _forget(self, path: str, file: LogFile) -> None:
        del self._files[path]
        self._unsynced.pop(path, None)
        file.close()

    def _every(self) -> float:
        rotate: Rotate | None = self.config.rotate
        return rotate.every or float("inf") if rotate is not None else float("inf")

    def _is_due(self, file: LogFile, coming: int) -> bool:
        rotate: Rotate | None = self.config.rotate
        if rotate is None or not file.regular or not file.size:
            return False
        too_large = rotate.size is not None and file.size + coming > rotate.size
        return too_large or int(self.now() // self._every()) != file.period

    def _rotated(self, path: str, file: LogFile) -> LogFile:
        file.sync()
        self._forget(path, file)
        try:
            Path(path).rename(rotated_name(Path(path), self.now()))
            sync_folder(Path(path).parent)
        except OSError as error:
            raise unavailable(path, error) from None
        return self._opened(path)


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    """The kind `file`."""
    register("file", FileSink)
