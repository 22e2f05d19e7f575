"""How many files messages may bring about; what comes beyond goes to one path for all of it."""

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from re import Pattern

from logfan import Record
from logfan_sinks.file.paths import STAMP, PathTemplate


class FileLimit:
    """Which paths there are, by a number for each: they may be many, and long.

    It counts for the date (and hour) in the path, from what lies on the disk and what comes to it.
    """

    def __init__(self, template: PathTemplate, most: int, log: logging.Logger) -> None:
        self.overflowed = 0
        """Records sent to the path for all others so far."""
        self._template = template
        self._most = most
        self._log = log
        self._known: set[int] = set()
        self._period: int | None = None
        self._logged: int | None = None

    @property
    def files(self) -> int:
        """How many of the files that messages brought about are known."""
        return len(self._known)

    def forget(self) -> None:
        """Look at the disk again before the next path is judged: files may have been removed."""
        self._period = None

    def of(self, record: Record) -> str:
        """The record's path, or that for all others."""
        path = self._template.of(record)
        # A collision, with a secret hash, only lets one file more in.
        if self._period is not None and hash(path) in self._known:
            return path
        other = self._template.other(record.received_at)
        period = self._template.period(record.received_at)
        if period != self._period:
            self._period = period
            there = existing(*self._template.pattern(record.received_at))
            there = (found for found in there if found != other)
            self._known = {hash(found) for found in islice(there, self._most)}
        if path == other or hash(path) in self._known:
            return path
        if len(self._known) < self._most:
            self._known.add(hash(path))
            return path
        self.overflowed += 1
        if self._logged != period:
            self._logged = period
            self._log.warning(
                "messages decide on more than %d files (max_files); what would need another goes "
                "to %s", self._most, other,
            )  # fmt: skip
        return other


def existing(folder: str, patterns: Sequence[Pattern[str]]) -> Iterator[str]:
    """The files below the folder whose parts match, without following links; what cannot be
    looked into is empty."""
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if not patterns[0].fullmatch(entry.name) or STAMP.search(entry.name):
                    continue
                if len(patterns) > 1:
                    if entry.is_dir(follow_symlinks=False):
                        yield from existing(f"{folder}{entry.name}/", patterns[1:])
                elif entry.is_file(follow_symlinks=False):
                    yield folder + entry.name
    except OSError:
        return
