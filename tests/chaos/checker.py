"""The judge: what was confirmed, against what each sink durably holds. Imports nothing of logfan.

It reads the publisher's journal, the files themselves (live, rotated, compressed) and, where
given, the dead letters. Several publishers have a journal each. By itself:
`python -m chaos.checker JOURNAL[,JOURNAL] raw:raw.log json:out.jsonl`.

What it calls what:

- *lost*: confirmed by the broker at least once, and in no file (nor refused into the dead letters);
- *unrouted*: confirmed and in no file, but published without `mandatory` while the exchange was
  made anew and nothing could be bound to it yet: the broker drops it, whoever listens. Never
  counted for a publisher that is mandatory;
- *unexpected*: an id that was never published;
- *corrupt*: a line that is not byte for byte what was published; *torn*: a last line without end;
- *duplicated*: copies beyond the number of times that the id was published;
- *late*: a first copy that comes after one published later on the same channel of the publisher;
- *misordered*: a late one that nothing explains. Order is promised for what the broker delivers:
  a sink gets records in the order of their delivery. What was published once, on one channel, and
  was never delivered twice must therefore stand in order. What came again, because a connection
  or the daemon was lost or because the publisher had no confirm, comes late, which is no fault.
"""

import base64
import gzip
import json
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Literal, cast

import zstandard

from chaos import bodies

Kind = Literal["raw", "json"]
Span = tuple[int, int]
"""From when to when, in monotonic nanoseconds."""
_TOLD = 5


class NothingToCheck(Exception):
    """There is nothing to compare: a check that passed on it would be blind."""


@dataclass(slots=True)
class Journal:
    """What the publisher did."""

    run: str = ""
    name: str = ""
    """Of the publisher, where there are several; its findings bear it."""
    times: "array[int]" = field(default_factory=lambda: array("H"))
    """How often each number was published; the index is the number."""
    epochs: "array[int]" = field(default_factory=lambda: array("I"))
    """The channel that it was published on first."""
    confirmed: bytearray = field(default_factory=bytearray)
    unrouted: set[int] = field(default_factory=set)
    """Numbers of which the publishing that was confirmed may have reached no queue."""

    @classmethod
    def read(cls, path: Path, *, name: str = "", unbound: Sequence[Span] = ()) -> "Journal":
        """`unbound`: the spans in which no queue was bound to the exchange. Raises NothingToCheck
        where nothing was confirmed."""
        journal = cls(name=name)
        with path.open() as lines:
            journal.run = next(lines).split()[1]
            for line in lines:
                words = line.split()
                number = int(words[1])
                if words[0] == "c":
                    journal.confirmed[number] = 1
                    continue
                if number == len(journal.times):
                    journal.times.append(0)
                    journal.epochs.append(int(words[2]))
                    journal.confirmed.append(0)
                journal.times[number] += 1
                # The last publishing is the one that was confirmed.
                if any(start <= int(words[3]) <= end for start, end in unbound):
                    journal.unrouted.add(number)
                else:
                    journal.unrouted.discard(number)
        if not any(journal.confirmed):
            raise NothingToCheck(f"{path}: not one message was confirmed")
        return journal

    @property
    def count(self) -> int:
        """How many messages were confirmed."""
        return self.confirmed.count(1)

    @property
    def resent(self) -> int:
        """How many publishings were repetitions."""
        return sum(self.times) - len(self.times)


@dataclass(slots=True)
class Finding:
    """What one sink holds, and what is wrong with it."""

    sink: str
    files: int = 0
    lines: int = 0
    distinct: int = 0
    lost: list[int] = field(default_factory=list)
    unrouted: int = 0
    unexpected: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    refused: int = 0
    """How many of the confirmed lie, refused, in the dead letters."""
    wrongly_refused: list[str] = field(default_factory=list)
    duplicated: int = 0
    late: int = 0
    misordered: list[int] = field(default_factory=list)

    def faults(self, duplicates_max: int) -> list[str]:
        """In words; empty where the promise was kept."""
        found = []
        for name in ("lost", "unexpected", "corrupt", "torn", "wrongly_refused", "misordered"):
            those = getattr(self, name)
            if those:
                some = ", ".join(str(item) for item in those[:_TOLD])
                found.append(f"{self.sink}: {len(those)} {name.replace('_', ' ')} ({some})")
        if self.duplicated > duplicates_max:
            found.append(f"{self.sink}: {self.duplicated} duplicated, {duplicates_max} explained")
        return found


@dataclass(slots=True)
class _Held:
    """What was read of one sink."""

    copies: "array[int]"
    firsts: "array[int]"
    """Numbers in the order of their first copies."""
    redelivered: bytearray

    def add(self, number: int, *, redelivered: bool) -> None:
        """One copy."""
        if not self.copies[number]:
            self.firsts.append(number)
        self.copies[number] += 1
        if redelivered:
            self.redelivered[number] = 1


@dataclass(frozen=True, slots=True)
class Source:
    """One sink's file, as its config names it."""

    name: str
    kind: Kind
    path: Path


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record."""

    sink: str
    reason: str
    body: bytes


Refuses = Callable[[str, int], bool]
"""Sink and number: whether the record must lie in the dead letters."""
Overtaken = Callable[[str, int], bool]
"""Sink and number: whether the sink may have wanted it later."""


def check(
    journal: Journal,
    sources: Sequence[Source],
    dead_letters: Sequence[DeadLetter] = (),
    *,
    refuses: Refuses = lambda _sink, _number: False,
    overtaken: Overtaken = lambda _sink, _number: False,
) -> list[Finding]:
    """A finding for each sink. Raises NothingToCheck where a sink has no file at all."""
    return check_all([journal], sources, dead_letters, refuses=refuses, overtaken=overtaken)


def check_all(
    journals: Sequence[Journal],
    sources: Sequence[Source],
    dead_letters: Sequence[DeadLetter] = (),
    *,
    refuses: Refuses = lambda _sink, _number: False,
    overtaken: Overtaken = lambda _sink, _number: False,
) -> list[Finding]:
    """The same for several publishers: a finding for each sink and publisher. What belongs to
    none of them is found with the first."""
    read = [(source, _read(source, journals)) for source in sources]
    findings = []
    for place, journal in enumerate(journals):
        again = bytearray(len(journal.times))
        for _, held_by_all in read:
            for number, flag in enumerate(held_by_all[place][1].redelivered):
                again[number] |= flag
        for source, held_by_all in read:
            finding, held = held_by_all[place]
            finding.distinct = len(held.firsts)
            dead = _dead(source.name, dead_letters, journal, finding)
            _judge(journal, finding, held, dead, partial(refuses, source.name))
            _judge_order(journal, finding, held.firsts, again, partial(overtaken, source.name))
            findings.append(finding)
    for source, held_by_all in read:
        _judge_strange_letters(source.name, dead_letters, journals, held_by_all[0][0])
    return findings


def files_of(path: Path) -> list[Path]:
    """The files rotated from a path, oldest first, and the live one. A crash may leave a file
    beside its finished compressed copy: they are one, and half a copy (`.part`) is none."""
    rotated: dict[str, Path] = {}
    for file in sorted(path.parent.glob(f"{path.name}.*")):
        stamp = file.name[len(path.name) :].removesuffix(".gz").removesuffix(".zst")
        if not stamp.endswith(".part"):
            rotated.setdefault(stamp, file)
    live = [path] if path.exists() else []
    return [rotated[stamp] for stamp in sorted(rotated)] + live


def _read(source: Source, journals: Sequence[Journal]) -> list[tuple[Finding, _Held]]:
    """What the sink holds of each publisher, in the journals' order."""
    files = files_of(source.path)
    if not files:
        raise NothingToCheck(f"sink {source.name}: there is no {source.path}")
    found = [_nothing_yet(source.name, journal) for journal in journals]
    by_run = {journal.run: pair for journal, pair in zip(journals, found, strict=True)}
    first = found[0][0]
    unpack = _from_json if source.kind == "json" else _from_raw
    for file in files:
        for line in _lines(file):
            if not line.endswith(b"\n"):
                first.torn.append(f"{file.name}: {line[:60]!r}")
                continue
            try:
                body, redelivered = unpack(line[:-1])
                parsed = bodies.parse(body)
            except ValueError as error:
                first.corrupt.append(f"{file.name}: {error}: {line[:60]!r}")
                continue
            finding, held = by_run.get(parsed.run, (first, None))
            finding.lines += 1
            if held is None or parsed.number >= len(held.copies):
                finding.unexpected.append(bodies.make_id(parsed.run, parsed.number))
            else:
                held.add(parsed.number, redelivered=redelivered)
    for finding, _ in found:
        finding.files = len(files)
    return found


def _nothing_yet(sink: str, journal: Journal) -> tuple[Finding, _Held]:
    total = len(journal.times)
    name = f"{sink} ({journal.name})" if journal.name else sink
    return Finding(name), _Held(array("H", bytes(2 * total)), array("I"), bytearray(total))


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stored:
        if file.suffix == ".gz":
            with gzip.open(stored) as unpacked:
                yield from unpacked
        elif file.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(stored)
            yield from _split(cast("IO[bytes]", reader))
        else:
            yield from stored


def _split(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(1 << 20):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _from_raw(line: bytes) -> tuple[bytes, bool]:
    return line, False


def _from_json(line: bytes) -> tuple[bytes, bool]:
    """The body out of the envelope, made bytes again; and whether it was delivered before."""
    envelope = json.loads(line)
    body = envelope["body"]
    if isinstance(body, str):
        raw = body.encode()
    elif body.keys() == {"base64"}:
        raw = base64.b64decode(body["base64"], validate=True)
    else:
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    mark = envelope["message_id"].encode()
    if mark not in raw[: len(mark) + 10]:
        raise bodies.Corrupt(f"another's envelope ({envelope['message_id']})")
    return raw, bool(envelope.get("redelivered"))


def _dead(
    sink: str, letters: Sequence[DeadLetter], journal: Journal, finding: Finding
) -> "array[int]":
    """How many dead letters there are of each number."""
    dead = array("H", bytes(2 * len(journal.times)))
    for letter in letters:
        parsed = _parsed(letter)
        if letter.sink != sink or parsed is None or parsed.run != journal.run:
            continue
        if parsed.number >= len(dead):
            finding.unexpected.append(bodies.make_id(parsed.run, parsed.number))
        elif str(parsed.number) not in letter.reason:
            finding.wrongly_refused.append(f"{parsed.number}, for {letter.reason!r}")
        else:
            dead[parsed.number] += 1
    return dead


def _judge_strange_letters(
    sink: str, letters: Sequence[DeadLetter], journals: Sequence[Journal], finding: Finding
) -> None:
    """Dead letters that are nothing that was published."""
    for letter in letters:
        if letter.sink != sink:
            continue
        try:
            parsed = bodies.parse(letter.body)
        except bodies.Corrupt as error:
            finding.corrupt.append(f"dead letter: {error}: {letter.body[:60]!r}")
            continue
        if all(parsed.run != journal.run for journal in journals):
            finding.unexpected.append(bodies.make_id(parsed.run, parsed.number))


def _parsed(letter: DeadLetter) -> bodies.Parsed | None:
    try:
        return bodies.parse(letter.body)
    except bodies.Corrupt:
        return None


def _judge(
    journal: Journal,
    finding: Finding,
    held: _Held,
    dead: "array[int]",
    refuses: Callable[[int], bool],
) -> None:
    """Number by number: is it where it belongs, and how often?"""
    for number, confirmed in enumerate(journal.confirmed):
        copies, letters = held.copies[number], dead[number]
        right, wrong = (letters, copies) if refuses(number) else (copies, letters)
        if confirmed and not right and number in journal.unrouted:
            finding.unrouted += 1
        elif confirmed and not right:
            finding.lost.append(number)
        if wrong:
            finding.wrongly_refused.append(f"{number}, {copies} written and {letters} dead")
        finding.refused += bool(letters)
        finding.duplicated += max(0, right - journal.times[number])


def _judge_order(
    journal: Journal,
    finding: Finding,
    firsts: "array[int]",
    again: bytearray,
    overtaken: Callable[[int], bool],
) -> None:
    latest: dict[int, int] = {}
    promised: dict[int, int] = {}
    for number in firsts:
        epoch = journal.epochs[number]
        if number < latest.get(epoch, -1):
            finding.late += 1
        else:
            latest[epoch] = number
        if journal.times[number] > 1 or again[number] or overtaken(number):
            continue
        if number < promised.get(epoch, -1):
            finding.misordered.append(number)
        else:
            promised[epoch] = number


def main(arguments: Sequence[str]) -> int:
    """The command line: 1 where anything is wrong; duplicates are reported and not judged."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    journals = [Journal.read(Path(name)) for name in arguments[0].split(",")]
    sources = []
    for word in arguments[1:]:
        kind, _, path = word.partition(":")
        sources.append(Source(path, cast("Kind", kind), Path(path)))
    wrong = 0
    for journal in journals:
        print(f"{journal.count:,} confirmed, {journal.resent:,} published again")
    for finding in check_all(journals, sources):
        faults = finding.faults(finding.duplicated)
        wrong += len(faults)
        print(
            f"{finding.sink}: {finding.distinct:,} in {finding.lines:,} lines of {finding.files} "
            f"files; {finding.duplicated:,} duplicated, {finding.late:,} late"
        )
        for fault in faults:
            print(f"  {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
