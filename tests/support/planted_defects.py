"""A careful sink for a real server, and the like of it with one defect each.

pytest runs this file by its path: see tests/unit/testing/test_planted_defects.py.
"""

import base64
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import pytest
from pydantic import Field, model_validator

import logfan
from logfan.testing import SinkConformance, conformance
from logfan.testing.conformance import Break, How
from logfan.testing.sink_steps import in_the_end
from support.line_server import LineServer


class Options(logfan.SinkConfig):
    port: int
    """Where the server listens."""
    timeout: logfan.Duration = 5.0
    """How long it may take to answer."""
    folder: Path
    """For what some of the defects write."""


def wait_for(event: threading.Event) -> None:
    event.wait()


class Careful(logfan.Sink[Options]):
    """Lines to a server that confirms each batch."""

    _socket: socket.socket | None = None
    _is_pending = False

    def open(self) -> None:
        self.close()
        try:
            self._socket = socket.create_connection(
                ("127.0.0.1", self.config.port), self.config.timeout
            )
        except OSError as error:
            raise logfan.SinkUnavailable(f"the server cannot be reached: {error}") from error

    def write(self, records: Sequence[logfan.Record]) -> None:
        self._send(b"".join(b":%b\n" % base64.b64encode(one.body) for one in records))
        self._is_pending = True

    def flush(self) -> None:
        if not self._is_pending:
            return
        self._send(b"\n")
        refused = json.loads(self._answer())
        self._is_pending = False
        if refused:
            raise logfan.RecordsRejected(dict.fromkeys(refused, "the server refuses it"))

    def close(self) -> None:
        self._is_pending = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise logfan.SinkUnavailable(f"the server is gone: {error}") from error

    def _answer(self) -> bytes:
        assert self._socket is not None
        answer = b""
        while not answer.endswith(b"\n"):
            try:
                more = self._socket.recv(4096)
            except OSError as error:
                raise logfan.SinkUnavailable(f"the server does not answer: {error}") from error
            if not more:
                raise logfan.SinkUnavailable("the server has ended the connection")
            answer += more
        return answer


class SwallowsErrors(Careful):
    """A lost connection is logged, and that is all."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        try:
            super().write(records)
            super().flush()
        except logfan.SinkUnavailable as error:
            self.log.warning("%s", error)

    def flush(self) -> None: ...


class FlushesNothing(Careful):
    """Waits for no confirmation."""

    def flush(self) -> None: ...


class RefusesOnOutage(Careful):
    """Takes every error for a fault of the records."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        try:
            super().write(records)
            super().flush()
        except logfan.SinkUnavailable as error:
            raise logfan.RecordsRejected(dict.fromkeys(range(len(records)), str(error))) from error


class Reorders(Careful):
    """The newest first."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        super().write(records[::-1])


class Lines(logfan.Sink[Options]):
    """Lines in a file."""

    mode = "ab"

    def open(self) -> None:
        self.close()
        self.file = (self.config.folder / "lines").open(self.mode, buffering=0)

    def write(self, records: Sequence[logfan.Record]) -> None:
        self.file.write(b"".join(one.body + b"\n" for one in records))

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


class LosesOnReopen(Lines):
    """Begins the file anew."""

    mode = "wb"


class Mutates(Careful):
    """Adds a field of its own to what all sinks share."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        for one in records:
            try:
                one.json()["seen"] = True
            except (ValueError, TypeError):
                continue
        super().write(records)


class Overwrites(Careful):
    """Writes what is no JSON in capitals, where it lies, and so into what all sinks share."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        for one in records:
            if not one.body.startswith(b"{"):
                one.body = one.body.upper()  # type: ignore[misc] # the defect
        super().write(records)


class Answers(Careful):
    """Returns whether it took the records."""

    def write(self, records: Sequence[logfan.Record]) -> bool:  # type: ignore[override] # the defect
        super().write(records)
        return True


class GoesOnAfterClose(Careful):
    """Its thread does not know that it is over."""

    def open(self) -> None:
        super().open()
        if not hasattr(self, "beats"):
            self.beats = threading.Event()
            self.start_thread("heartbeat", lambda: wait_for(self.beats))


class ClosesOnce(Careful):
    """Has no idea that `close` also follows an open that failed."""

    def close(self) -> None:
        if hasattr(self, "was_open"):
            del self.was_open
            super().close()
        elif self._socket is None and hasattr(self, "opened_once"):
            raise RuntimeError("not open")

    def open(self) -> None:
        super().close()
        super().open()
        self.was_open = self.opened_once = True


class EarlyOptions(Options):
    @model_validator(mode="after")
    def _make(self) -> Self:
        (self.folder / "spool").touch()
        return self


class AcquiresEarly(Careful, logfan.Sink[EarlyOptions]):
    """Makes its file when its options are checked."""

    Config = EarlyOptions


class DropsTheLast(Careful):
    """One too few."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        super().write(records[: max(1, len(records) - 1)])


class Duplicates(Careful):
    """Sends again what was confirmed."""

    def flush(self) -> None:
        super().flush()
        if self.sent:
            super().write(self.sent)
            self.sent = ()
            super().flush()

    sent: Sequence[logfan.Record] = ()

    def write(self, records: Sequence[logfan.Record]) -> None:
        super().write(records)
        self.sent = records[-1:]


class CountsFromOne(Careful):
    """Names the neighbour of what was refused."""

    def flush(self) -> None:
        try:
            super().flush()
        except logfan.RecordsRejected as rejected:
            wrong = {max(0, place - 1): why for place, why in rejected.reasons.items()}
            raise logfan.RecordsRejected(wrong) from None


class Blocks(Careful):
    """Waits for the answer without a time limit."""

    def open(self) -> None:
        super().open()
        assert self._socket is not None
        self._socket.settimeout(None)


class BuffersAcrossFlush(Careful):
    """Sends a batch when the next one comes."""

    held: Sequence[logfan.Record] = ()

    def write(self, records: Sequence[logfan.Record]) -> None:
        if self.held:
            super().write(self.held)
        self.held = records


class LosesOnClose(Lines):
    """Takes its file for a temporary one."""

    def close(self) -> None:
        super().close()
        (self.config.folder / "lines").write_bytes(b"")


class BrokenOptions(Options):
    retries: Annotated[int, Field(ge=1)] = 0
    """How often to try."""


class BrokenDefault(Careful, logfan.Sink[BrokenOptions]):
    """Its default breaks its rule."""

    Config = BrokenOptions


class LeaksDescriptors(Careful):
    """Forgets the socket that it had."""

    def open(self) -> None:
        self.old = [*getattr(self, "old", []), self._socket]
        self._socket = None
        super().open()


class LeaksThreads(Careful):
    """One more each time."""

    def open(self) -> None:
        super().open()
        self.over = threading.Event()
        self.start_thread("pinger", lambda: wait_for(self.over))


class Exits(Careful):
    """Ends the process where the server is away."""

    def _send(self, data: bytes) -> None:
        try:
            super()._send(data)
        except logfan.SinkUnavailable:
            sys.exit(1)

    def _answer(self) -> bytes:
        try:
            return super()._answer()
        except logfan.SinkUnavailable:
            sys.exit(1)


class IgnoresTheSecond(Careful):
    """Sends the first batch alone."""

    batches = 0

    def write(self, records: Sequence[logfan.Record]) -> None:
        self.batches += 1
        if self.batches == 1:
            super().write(records)


class AcceptsWhileAway(Careful):
    """Keeps in memory what the server cannot take, and sends it later."""

    spool: Sequence[logfan.Record] = ()

    def write(self, records: Sequence[logfan.Record]) -> None:
        waiting = [*self.spool, *records]
        try:
            super().write(waiting)
            super().flush()
            self.spool = ()
        except logfan.SinkUnavailable:
            self.spool = waiting

    def open(self) -> None:
        try:
            super().open()
        except logfan.SinkUnavailable:
            self.log.warning("going on without it")

    def flush(self) -> None: ...


class NeverComesBack(Careful):
    """Opens once in its life."""

    def open(self) -> None:
        if self._socket is None:
            super().open()


class LeaksWhereItCannotOpen(Careful):
    """Takes its lock file first, and leaves it open where the server is away."""

    def open(self) -> None:
        self.locks = [*getattr(self, "locks", []), (self.config.folder / "lock").open("ab")]
        super().open()
        for one in self.locks:
            one.close()


class TakesWhatIsRefused(Careful):
    """Does not read the answer."""

    def flush(self) -> None:
        try:
            super().flush()
        except logfan.RecordsRejected:
            self.log.warning("some were refused")


class SkipsTheEmpty(Lines):
    """Holds a record without a body for none."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        super().write([one for one in records if one.body])


class Decodes(Lines):
    """Takes each body for UTF-8."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        [one.body.decode() for one in records]
        super().write(records)


class Parses(Lines):
    """Takes each body for JSON."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        [one.json() for one in records]
        super().write(records)


class RefusesTheFirst(Lines):
    """Whatever it is."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        super().write(records[1:])
        raise logfan.RecordsRejected({0: "no"})


class LenientOptions(Options, extra="ignore"):
    pass


class Lenient(Careful, logfan.Sink[LenientOptions]):
    """Takes any key."""

    Config = LenientOptions


class Hasty(Careful):
    """Takes what it needs too early."""

    def __init__(self, config: Any, *, name: str = "x", instance: str = "") -> None:
        super().__init__(config, name=name, instance=instance)


class Suite(SinkConformance):
    """With everything that the suite can prove. What a defect never lets go is not waited for."""

    lets_go_seconds: ClassVar[float] = 0.5

    def options(self, folder: Path) -> dict[str, Any]:
        return {"port": self.server.port, "timeout": "300ms", "folder": str(folder)}

    def read_back(self, sink: Any, folder: Path) -> list[bytes]:
        file = folder / "lines"
        return file.read_bytes().splitlines() if file.exists() else self.server.held

    def break_it(self, how: How, folder: Path) -> Break:
        server = self.server
        if how == "away":
            return server.stop, server.start
        return server.slow() if how == "slow" else server.refusing(b"refuse")

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def shorter(holds: Callable[[], bool], seconds: float = self.lets_go_seconds) -> bool:
            return in_the_end(holds, seconds)

        monkeypatch.setattr(conformance, "in_the_end", shorter)

    @pytest.fixture(autouse=True)
    def _serve(self) -> Iterator[None]:
        self.server = LineServer()
        self.server.start()
        yield
        self.server.stop()


class TestCareful(Suite):
    sink_class: ClassVar[type[logfan.Sink]] = Careful
    lets_go_seconds = 5.0

    def options(self, folder: Path) -> dict[str, Any]:
        return {**super().options(folder), "timeout": "5s"}


class Defect(NamedTuple):
    """One that the suite must see."""

    cls: type[logfan.Sink]
    test: str
    """The test that must fail, by a part of its name."""
    message: str
    """What it must say, as a regular expression."""


DEFECTS = {
    "swallowed exception": Defect(
        SwallowsErrors, "outage_is_reported",
        "write and flush returned while .* was away",
    ),
    "no-op flush": Defect(
        FlushesNothing, "any_size[1]",
        "lost: of 1 records that flush returned for",
    ),
    "refuses on an outage": Defect(
        RefusesOnOutage, "outage_is_reported",
        "refused 5 records while the other side was away .*dead letters",
    ),
    "reorders": Defect(
        Reorders, "keeps_the_order",
        "another order: the other side holds the records",
    ),
    "loses on re-open": Defect(
        LosesOnReopen, "opened_again",
        "lost: .* does not hold number 0",
    ),
    "mutates records": Defect(
        Mutates, "left_as_they_were",
        "changed the JSON of a record; all sinks share",
    ),
    "overwrites a body": Defect(
        Overwrites, "hostile_record",
        r"write changes the body of record 1 itself; a record is read-only, as all sinks share it",
    ),
    "returns an outcome": Defect(
        Answers, "any_size[1]",
        "write returned a bool; it must return None where all is taken",
    ),
    "late thread that goes on after close": Defect(
        GoesOnAfterClose, "closed_it_leaves",
        "close must end the sink's threads: .'heartbeat'",
    ),
    "double close fails": Defect(
        ClosesOnce, "no_harm_twice",
        "close raised RuntimeError: not open where it was called a second time",
    ),
    "acquires before open": Defect(
        AcquiresEarly, "nothing_before_open",
        "made .*spool before open was called",
    ),
    "drops the last of a batch": Defect(
        DropsTheLast, "any_size[2]",
        "lost: .* does not hold number 1",
    ),
    "duplicates": Defect(
        Duplicates, "any_size[1]",
        "there twice: .* holds number 0 more than once",
    ),
    "wrong index in RecordsRejected": Defect(
        CountsFromOne, "just_the_refused",
        r"RecordsRejected names \[0, 2\] .* those at \[1, 3\]",
    ),
    "blocks without end": Defect(
        Blocks, "not_wait_for_ever",
        "flush has not returned for 3 s, in line .*recv",
    ),
    "buffers across flush": Defect(
        BuffersAcrossFlush, "any_size[1]",
        "lost: of 1 records that flush returned for",
    ),
    "close that loses": Defect(
        LosesOnClose, "keeps_what_was_flushed",
        "lost: .* does not hold number 0",
    ),
    "config default broken": Defect(
        BrokenDefault, "its_defaults",
        "the default of retries breaks the rule of that option",
    ),
    "leaks a file descriptor": Defect(
        LeaksDescriptors, "opened_again",
        "a connection to 127.0.0.1:.* open must let go",
    ),
    "leaks a thread": Defect(
        LeaksThreads, "opened_again",
        "left 22 threads; open must let go",
    ),
    "raises BaseException": Defect(
        Exits, "outage_is_reported",
        "flush raised SystemExit, which is no Exception",
    ),
    "ignores records of a second batch": Defect(
        IgnoresTheSecond, "keeps_the_order",
        "lost: .* does not hold number 10",
    ),
    "accepts while the other side is away": Defect(
        AcceptsWhileAway, "outage_is_reported",
        "write and flush returned while .* was away",
    ),
    "does not recover from an outage": Defect(
        NeverComesBack, "outage_is_reported",
        "takes nothing, 3 s after the other side was there again",
    ),
    "leaks where it cannot open": Defect(
        LeaksWhereItCannotOpen, "opened_in_vain",
        "failed open left open, and close does not close: .*lock",
    ),
    "takes what is refused": Defect(
        TakesWhatIsRefused, "just_the_refused",
        "took everything .* they are lost",
    ),
    "skips the empty": Defect(
        SkipsTheEmpty, "hostile_record",
        "lost: of 3 records .* does not hold number 1",
    ),
    "takes bytes for text": Defect(
        Decodes, "hostile_record",
        "write raised UnicodeDecodeError.* over a record such as publishers send",
    ),
    "takes text for JSON": Defect(
        Parses, "hostile_record",
        "write raised .* over a record such as publishers send",
    ),
    "refuses a neighbour": Defect(
        RefusesTheFirst, "hostile_record",
        "refused also the neighbours of the one hostile record",
    ),
    "takes any key": Defect(
        Lenient, "unknown_key",
        "DID NOT RAISE",
    ),
    "overrides __init__": Defect(
        Hasty, "the_host_takes",
        "Hasty overrides __init__; acquire what it needs in open",
    ),
}  # fmt: skip

for _defect in DEFECTS.values():
    globals()[f"Test{_defect.cls.__name__}"] = type(
        f"Test{_defect.cls.__name__}", (Suite,),
        {"sink_class": _defect.cls, "seconds": 3.0, "__module__": __name__},
    )  # fmt: skip
