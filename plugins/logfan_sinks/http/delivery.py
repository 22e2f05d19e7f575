"""Many records by few requests, and what becomes of each. Sans-I/O.

A refused request does not name the record at fault. So its records are sent again
in halves, and what is refused alone is refused for good. What was taken is never sent again.
"""

from collections.abc import Callable, Iterator, Sequence

import logfan
from logfan_sinks.http.verdicts import Answer, Table, Verdict, advice
from logfan_sinks.outcome import Outcome

Send = Callable[[Sequence[bytes], Sequence[logfan.Record]], Answer]
"""Sends these lines of these records in one request."""


Items = Callable[[Answer, int], Outcome]
"""Reads an answer of 2xx to so many records that holds an outcome for each. Raises ValueError where
it does not: then nothing is known of any."""


def chunks(sizes: Sequence[int], most_records: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Where each request begins and ends. A record that is larger goes alone."""
    begin, total = 0, 0
    for place, size in enumerate(sizes):
        if place > begin and (total + size > most_bytes or place - begin == most_records):
            yield begin, place
            begin, total = place, 0
        total += size
    if begin < len(sizes):
        yield begin, len(sizes)


def deliver(
    records: Sequence[logfan.Record],
    lines: Sequence[bytes],
    send: Send,
    table: Table,
    *,
    most_records: int,
    most_bytes: int,
    items: Items | None = None,
) -> Outcome:
    """Send all of it. The first answer that is not now ends it: the rest is for later."""
    outcome = Outcome()
    waiting = [*chunks([*map(len, lines)], most_records, most_bytes)][::-1]
    while waiting:
        begin, end = waiting.pop()
        try:
            answer = send(lines[begin:end], records[begin:end])
        except logfan.SinkUnavailable as error:
            _put_off(outcome, begin, end, waiting, str(error), error.retry_after)
            break
        verdict = table.of(answer)
        if verdict is Verdict.REFUSED and end - begin > 1:
            middle = (begin + end) // 2
            waiting += [(middle, end), (begin, middle)]
        elif verdict in (Verdict.REFUSED, Verdict.ALL_REFUSED):
            why = "; ".join(filter(None, [f"refused with {answer}", advice(answer)]))
            outcome.refused |= dict.fromkeys(range(begin, end), why)
        elif verdict is Verdict.NOT_NOW:
            why = "; ".join(filter(None, [f"answers {answer}", advice(answer)]))
            _put_off(outcome, begin, end, waiting, why, answer.retry_after())
            break
        elif items is not None:
            try:
                found = items(answer, end - begin)
            except ValueError as error:
                _put_off(outcome, begin, end, waiting, str(error), None)
                break
            outcome.refused |= {begin + place: why for place, why in found.refused.items()}
            if found.later:
                outcome.later |= {begin + place: why for place, why in found.later.items()}
                why = next(iter(found.later.values()))
                _put_off(outcome, end, end, waiting, why, answer.retry_after())
                break
    return outcome


def _put_off(
    outcome: Outcome,
    begin: int,
    end: int,
    waiting: Sequence[tuple[int, int]],
    why: str,
    retry_after: float | None,
) -> None:
    outcome.retry_after = retry_after
    for first, last in ((begin, end), *reversed(waiting)):
        outcome.later.update(dict.fromkeys(range(first, last), why))
