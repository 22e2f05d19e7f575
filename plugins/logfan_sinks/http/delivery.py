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
            found = _of_all(end - begin, str(error), error.retry_after)
        else:
            verdict = table.of(answer)
            if verdict is Verdict.REFUSED and end - begin > 1:
                middle = (begin + end) // 2
                waiting += [(middle, end), (begin, middle)]
                continue
            found = _judged(answer, verdict, end - begin, items)
        outcome.refused |= {begin + place: why for place, why in found.refused.items()}
        if found.later:
            outcome.retry_after, outcome.whole = found.retry_after, found.whole
            outcome.later |= {begin + place: why for place, why in found.later.items()}
            why = next(iter(found.later.values()))
            for first, last in reversed(waiting):
                outcome.later |= dict.fromkeys(range(first, last), why)
            break
    return outcome


def _judged(answer: Answer, verdict: Verdict, count: int, items: Items | None) -> Outcome:
    """What an answer means for each record of its request."""
    pace = answer.retry_after()
    if verdict is Verdict.DONE:
        try:
            found = Outcome() if items is None else items(answer, count)
        except ValueError as error:
            return _of_all(count, str(error))
        found.retry_after = pace
        return found
    did = "answers" if verdict is Verdict.NOT_NOW else "refused with"
    why = "; ".join(filter(None, [f"{did} {answer}", advice(answer)]))
    if verdict is Verdict.NOT_NOW:
        return _of_all(count, why, pace)
    return Outcome(refused=dict.fromkeys(range(count), why))


def _of_all(count: int, why: str, retry_after: float | str | None = None) -> Outcome:
    """None of them is taken now."""
    return Outcome(later=dict.fromkeys(range(count), why), retry_after=retry_after, whole=True)
