"""The files that one sink holds open: opened, rotated and closed as records and time ask for it."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable

from logfan_sinks.file.log_file import Held, LogFile, Taken, Unsettled
from logfan_sinks.file.paths import PathTemplate
from logfan_sinks.file.rotation import Archivist, Rotate, rotated_name

_CLAIMS: dict[int, tuple[str, re.Pattern[str]]] = {}
"""The paths of the sinks that no message decides on: of no other's messages either."""


class OpenFiles:
    """One sink's. What was written since the last `settle` can be taken back, also from files that
    were closed or rotated meanwhile."""

    def __init__(
        self,
        sink: str,
        template: PathTemplate,
        open_file: Callable[[str], LogFile],
        *,
        most: int,
        rotate: Rotate | None,
        archivist: Archivist | None,
        now: Callable[[], float],
    ) -> None:
        """`most` files are open at a time. `now` is the time that rotation goes by, in seconds
        since 1970."""
        self.paths: OrderedDict[str, LogFile] = OrderedDict()
        """Those that are open, by their paths; the one used last comes last."""
        self._template = template
        self._open_file, self._most = open_file, most
        self._rotate, self._archivist, self._now = rotate, archivist, now
        self._written: dict[LogFile, None] = {}
        self._closed: dict[tuple[int, int], Unsettled] = {}
        self._rotated: set[str] = set()
        self._hour = 0
        if not template.from_messages:
            _CLAIMS[id(self)] = sink, template.absolute()

    def get(self, path: str, coming: int = 0) -> LogFile:
        """The file for this path, to be written to; rotated where `coming` bytes or the time ask
        for it. Raises SinkUnavailable; `Taken` where it is a matter of the path alone."""
        file = self.paths.get(path)
        if file is not None and not file.is_current():
            self._release(file)
            file = None
        if file is None:
            file = self._opened(path)
        rotate = self._rotate
        if rotate is not None and rotate.is_due(file, coming, self._now()):
            left = file.rotate(lambda folder, name: rotated_name(folder, name, self._now()))
            if left is not None:
                self._closed[left.identity] = left
            file.period = rotate.period(self._now())
            self._rotated.add(file.place)  # tended with `settle`: until then it may be cut
        self.paths.move_to_end(path)
        self._written[file] = None
        return file

    def settle(self) -> None:
        """Make durable what was written; then it can no longer be taken back."""
        for file in self._written:
            file.sync()
        for file in self._written:
            file.settle()
        self._written.clear()
        self._closed.clear()
        while self._rotated:
            self._tend(self._rotated.pop())

    def take_back(self) -> None:
        """Undo what was written since the last `settle`."""
        # The host writes all of it again: without this the files that did take their part of it
        # would have it twice.
        for file in self._written:
            file.take_back()
        self._written.clear()
        for closed in self._closed.values():
            closed.take_back()
        self._closed.clear()

    def close_past(self, hour: int) -> None:
        """With a new hour, close what is not being written to: yesterday's file may be large, and
        its space comes back only once it is closed."""
        if hour != self._hour:
            self._hour = hour
            for file in [*self.paths.values()]:
                if file not in self._written:
                    self._release(file)

    def close(self) -> None:
        for file in self.paths.values():
            file.close()
        self.paths.clear()
        self._written.clear()

    def forget(self) -> None:
        """The sink ends: its paths are free for the messages of others."""
        _CLAIMS.pop(id(self), None)

    def _opened(self, path: str) -> LogFile:
        while len(self.paths) >= self._most:
            self._release(next(iter(self.paths.values())))
        untrusted = self._template.untrusted
        if untrusted:
            for name, paths in list(_CLAIMS.values()):
                if paths.fullmatch(os.path.abspath(path)):  # noqa: PTH100 - text alone
                    raise Taken(f"{path}: is a path of sinks.{name}", lasting=True)
        try:
            file = self._open_file(path)
        except Held as held:
            # A file system that takes A for a: the same file, under another of its names.
            for file in self.paths.values():
                if file.identity == held.identity:
                    break
            else:
                if untrusted and held.is_ours:
                    raise Taken(str(held), lasting=False) from None
                raise
        else:
            file.carry(self._closed.pop(file.identity, None))
            if self._rotate is not None:
                # One that the last run left belongs to the period in which it was written to.
                began = file.modified_at if file.size else self._now()
                file.period = self._rotate.period(began)
            # Where messages decide, files come and go all the time: there it waits for a rotation.
            if not self._template.from_messages and file.regular:
                self._tend(file.place)
        file.names.append(path)
        self.paths[path] = file
        return file

    def _release(self, file: LogFile) -> None:
        """Close it, durable first: `settle` does not see it any more."""
        file.sync()
        left = file.unsettled
        if left is not None:
            self._closed[left.identity] = left
        for path in file.names:
            self.paths.pop(path, None)
        self._written.pop(file, None)
        file.close()

    def _tend(self, place: str) -> None:
        if self._archivist is not None:
            self._archivist.tend(place, self._template.untrusted, self._now())
