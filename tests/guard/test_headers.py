"""Headers make a line of JSON hardly more work than it is without them, whatever they are.

Held against the work for the same messages without headers, so that no table of counts is needed.
"""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from pika import spec

from guard import today
from guard.counting import Counter, Counts
from guard.messages import AT, RECORDS_A_READ, bodies
from logfan import Record, json_format, json_lines
from logfan.amqp_properties import decode_properties
from logfan.record import Origin, Properties

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != today.PYTHON,
    reason="the bytecode of another Python than the table's is counted otherwise",
)
PUBLISHERS = 100
CONSTANT = {"host": "web-12", "service": "shop"}


def traced(number: int) -> dict[str, Any]:
    """Of one publisher; the last differs from message to message."""
    return {**CONSTANT, "traceparent": f"00-{number:032x}-00f067aa0ba902b7-01"}


def of_many(number: int) -> dict[str, Any]:
    """Of publishers that have names of their own, and take turns."""
    publisher = number % PUBLISHERS
    return {"host": f"web-{publisher}", f"zone-{publisher % 10}": "eu"}


HARDLY_MORE = Counts(instructions=8, calls=0.5, c_calls=0.5)
SHAPES: dict[str, tuple[Callable[[int], dict[str, Any]], Counts]] = {
    "none": (lambda number: {}, HARDLY_MORE),
    "constant": (lambda number: CONSTANT, HARDLY_MORE),
    "traceparent": (traced, HARDLY_MORE),
    "a hundred publishers": (of_many, Counts(instructions=105, calls=0.8, c_calls=6)),
}
"""Headers by a message's number, and how much more than without any a line's work may be."""
ALONE = Counts(instructions=320, calls=12, c_calls=13)
"""The most that a line may be where its message comes alone, without headers: light traffic."""


def read(headers: Callable[[int], dict[str, Any]], turn: int) -> list[Record]:
    """A read's records, their properties as bytes. `turn` makes them others each time."""
    origin = Origin("logs", "", False, AT + turn, decode_properties)
    records = []
    for number, body in enumerate(bodies(RECORDS_A_READ), turn * RECORDS_A_READ):
        properties = spec.BasicProperties(
            content_type="application/json", delivery_mode=2, message_id=f"{number:032x}",
            timestamp=int(AT) + number, headers=headers(number) or None,
        )  # fmt: skip
        record = Record(body, "", "", False, 0.0, Properties())
        record.origin, record._properties = origin, b"".join(properties.encode())
        records.append(record)
    return records


def lines_of(headers: Callable[[int], dict[str, Any]], batch: int = RECORDS_A_READ) -> Counts:
    """The work for a line, once such messages are known and come in batches of this size."""
    json_format._templates.forget()
    counter = Counter()
    for turn in range(3):
        records = read(headers, turn)
        if turn < 2:
            json_lines(records)
        else:
            with counter.here():
                for at in range(0, RECORDS_A_READ, batch):
                    json_lines(records[at : at + batch])
    return counter.counts.each(RECORDS_A_READ)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_line_with_headers_is_hardly_more_work_than_one_without(shape: str) -> None:
    plain = lines_of(SHAPES["none"][0])
    headers, more = SHAPES[shape]
    counts = lines_of(headers)
    assert counts.instructions <= plain.instructions + more.instructions
    assert counts.calls <= plain.calls + more.calls
    assert counts.c_calls <= plain.c_calls + more.c_calls


def test_a_line_of_a_message_alone() -> None:
    counts = lines_of(SHAPES["none"][0], batch=1)
    assert counts.instructions <= ALONE.instructions
    assert counts.calls <= ALONE.calls
    assert counts.c_calls <= ALONE.c_calls
