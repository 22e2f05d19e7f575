"""The transforms of one sink, in their order; what each gives is checked. Sans-I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from logfan.record import Properties, Record
from logfan.runtime.foreign_text import describe, line_of, traceback_of, type_name
from logfan.sink import SinkUnavailable
from logfan.transform import Transform

_ONE_FOR_EACH = "; it must give one for each: a record, or None"


@dataclass(frozen=True, slots=True)
class Failed:
    """A transform's failure, in text of our own: of what it raised nothing is kept."""

    why: str
    traceback: str = ""
    unavailable: bool = False
    """It reports that it can do nothing now: no evidence against a record."""
    retry_after: object = None
    """What it asks for, in seconds; not checked."""


class TransformFailed(Exception):
    """It failed over these records, or over one of them."""

    def __init__(self, failed: Failed) -> None:
        self.failed = failed
        super().__init__(failed.why)


def transformed(
    transforms: Sequence[tuple[str, Transform]], records: Sequence[Record]
) -> list[Record | None]:
    """For each record what becomes of it by one transform after the other, each behind its kind;
    None where it is filtered. Raises TransformFailed."""
    outcomes: list[Record | None] = [*records]
    for kind, transform in transforms:
        left = [place for place, record in enumerate(outcomes) if record is not None]
        if not left:
            break
        came = [record for record in outcomes if record is not None]
        for place, record in zip(left, _applied(kind, transform, came), strict=True):
            outcomes[place] = record
    return outcomes


def _given(transform: Transform, records: Sequence[Record]) -> list[Record | None]:
    """What it gives, however much that is; one more than there may be is enough."""
    outcome: object = transform.apply(tuple(records))
    if not isinstance(outcome, Iterable):
        raise TypeError(f"apply returned a {type_name(outcome)}{_ONE_FOR_EACH}")
    return [*islice(outcome, len(records) + 1)]


def _applied(kind: str, transform: Transform, records: Sequence[Record]) -> list[Record | None]:
    given: list[Record | None] = []
    bodies = [record.body for record in records]
    try:
        given = _given(transform, records)
        wrong = _wrong(records, given)
        failed = None if wrong is None else Failed(f"transform {kind} {wrong}")
    except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, its records stay
        failed = _failure(kind, error)
    for record, body in zip(records, bodies, strict=True):
        if record.body is not body:
            record.body = body  # type: ignore[misc] # other sinks share it
            failed = failed or Failed(
                f"transform {kind} changes a record itself; it must give another: "
                "record.replace(body=…)"
            )
    if failed is not None:
        raise TransformFailed(failed)
    return given


def _failure(kind: str, error: BaseException) -> Failed:
    # By the type alone, as an exception may lie about its class.
    if issubclass(type(error), SinkUnavailable):
        try:
            pace = getattr(error, "retry_after", None)
        except Exception:  # noqa: BLE001 - an exception of a plugin may raise when it is asked
            pace = None
        why = line_of(error) or "unavailable"
        return Failed(f"transform {kind}: {why}", unavailable=True, retry_after=pace)
    return Failed(f"transform {kind} failed: {describe(error)}", traceback_of(error))


def _wrong(records: Sequence[Record], given: Sequence[object]) -> str | None:
    """What is wrong with what it gives; None where nothing is."""
    count = len(records)
    if len(given) != count:
        gives = f"more than {count}" if len(given) > count else f"{len(given)}"
        return f"gives {gives} for {count}{_ONE_FOR_EACH}"
    came = {id(record): place for place, record in enumerate(records)}
    for place, (record, other) in enumerate(zip(records, given, strict=True)):
        if other is None or other is record:
            continue
        if type(other) is not Record:
            return f"gives a {type_name(other)} in place of a record, or None"
        if id(other) in came:
            return f"gives in place {place} what came in place {came[id(other)]}"
        if [type(other.body), type(other.properties)] != [bytes, Properties]:
            return "gives a record that is none; make it by record.replace(body=…, headers=…)"
        if other.message_id != record.message_id:
            return (
                "gives a record with another message id, by which it is recognised; make it by "
                "record.replace(body=…, headers=…)"
            )
    return None
