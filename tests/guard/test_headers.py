"""Headers make a line of JSON hardly more work than it is without them, whatever they are.

Held against the work for the same messages without headers, so that no table of counts is needed.
"""

from collections.abc import Callable
from typing import Any

import pytest
from pika import spec

from guard.counting import Counter, Counts
from guard.messages import AT, RECORDS_A_READ, bodies
from logfan import Record, json_format, json_lines
from logfan.amqp_properties import decode_properties
from logfan.record import Origin, Properties

PUBLISHERS = 100
CONSTANT = {"host": "web-12", "service": "shop"}


def traced(number: int) -> dict[str, Any]:
    """Of one publisher; the last differs from message to message."""
    return {**CONSTANT, "traceparent": f"00-{number:032x}-00f067aa0ba902b7-01"}


def of_many(number: int) -> dict[str, Any]:
    """Of publishers that have names of their own, and take turns."""
    publisher = number % PUBLISHERS
    return {"host": f"web-{publisher}", f"zone-{publisher % 10}": "eu"}


SHAPES: dict[str, tuple[Callable[[int], dict[str, Any]], float]] = {
    "none": (lambda number: {}, 1.1),
    "constant": (lambda number: CONSTANT, 1.1),
    "traceparent": (traced, 1.1),
    "a hundred publishers": (of_many, 2.0),
}
"""Headers by a message's number, and how many times the work without any they may be."""


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


def lines_of(headers: Callable[[int], dict[str, Any]]) -> Counts:
    """The work for a line, once such messages are known."""
    json_format._templates.forget()
    counter = Counter()
    for turn in range(3):
        records = read(headers, turn)
        if turn < 2:
            json_lines(records)
        else:
            with counter.here():
                json_lines(records)
    return counter.counts.each(RECORDS_A_READ)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_line_with_headers_is_hardly_more_work_than_one_without(shape: str) -> None:
    plain = lines_of(SHAPES["none"][0])
    headers, times = SHAPES[shape]
    counts = lines_of(headers)
    assert counts.instructions <= times * plain.instructions + 1
    assert counts.calls <= times * plain.calls + 0.5
    assert counts.c_calls <= times * plain.c_calls + 0.5
