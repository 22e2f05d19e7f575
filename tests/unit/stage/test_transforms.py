"""Transforms of somebody's own in the stage: what they give, what they get wrong, and their place
among the other steps."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

import logfan
from logfan.plugins.validation import check_transform
from logfan.record import Record
from logfan.stage.redact import Redactor
from logfan.stage.stage import Stage
from logfan.stage.transforms import TransformFailed, transformed
from logfan.stage.where import Where
from logfan.testing import record

Apply = Callable[[Sequence[Record]], Any]


class Calls(logfan.Transform):
    """Does what a function does."""

    function: Apply

    def apply(self, records: Sequence[Record]) -> Iterable[Record | None]:
        outcome: Iterable[Record | None] = self.function(records)
        return outcome


def transforms(*functions: Apply) -> list[tuple[str, Any]]:
    made: list[tuple[str, Any]] = []
    for number, function in enumerate(functions):
        one = Calls(Calls.Config())
        one.function = function
        made.append((f"t{number}", one))
    return made


def each(function: Callable[[Record], Record | None]) -> Apply:
    return lambda records: [function(one) for one in records]


def marked(mark: bytes) -> Apply:
    return each(lambda one: one.replace(body=one.body + mark))


def odd_ones(one: Record) -> Record | None:
    return one if int(one.body) % 2 else None


def over(bad: bytes, error: BaseException) -> Apply:
    def apply(records: Sequence[Record]) -> Sequence[Record]:
        if any(one.body == bad for one in records):
            raise error
        return records

    return apply


def numbered(count: int) -> list[Record]:
    return [record(str(n), message_id=f"m{n}") for n in range(count)]


def bodies(records: Iterable[Record]) -> list[bytes]:
    return [one.body for one in records]


def test_they_follow_each_other_and_the_next_gets_what_the_last_left() -> None:
    staged = Stage(transforms=transforms(each(odd_ones), marked(b"a"), marked(b"b"))).apply(
        numbered(6)
    )
    assert bodies(staged.records) == [b"1ab", b"3ab", b"5ab"]
    assert staged.places == [1, 3, 5]
    assert [one.message_id for one in staged.records] == ["m1", "m3", "m5"]
    assert (staged.passed, staged.undecided, staged.failed, staged.refused) == (6, 0, {}, {})


def test_where_all_is_filtered_the_next_is_not_asked() -> None:
    def never(_: Sequence[Record]) -> Any:
        raise AssertionError("it was asked")

    staged = Stage(transforms=transforms(each(lambda _: None), never)).apply(numbered(2))
    assert (staged.records, staged.places) == ([], [])


def test_it_may_be_a_generator_and_is_not_asked_for_more_than_there_are() -> None:
    def endless(records: Sequence[Record]) -> Iterable[Record]:
        yield from records
        while True:
            yield records[0]

    def lazy(records: Sequence[Record]) -> Iterable[Record]:
        for one in records:
            yield one.replace(body=one.body + b"!")

    staged = Stage(transforms=transforms(lazy)).apply(numbered(2))
    assert bodies(staged.records) == [b"0!", b"1!"]
    with pytest.raises(TransformFailed, match="t0 gives more than 2 for 2; it must give one for"):
        transformed(transforms(endless), numbered(2))


def test_where_and_sample_come_before_and_see_what_was_published() -> None:
    seen: list[bytes] = []

    def look(records: Sequence[Record]) -> Sequence[Record]:
        seen.extend(bodies(records))
        return [one.replace(body=b'{"n":0}') for one in records]

    stage = Stage(where=Where.of({"n": {"above": 2}}), transforms=transforms(look))
    staged = stage.apply([record({"n": n}) for n in range(5)])
    assert seen == [b'{"n":3}', b'{"n":4}']
    assert staged.places == [3, 4]


def test_redact_has_the_last_word_on_what_a_transform_puts_in() -> None:
    stage = Stage(transforms=transforms(marked(b" a@b.org")), redactor=Redactor(patterns=["email"]))
    assert bodies(stage.apply(numbered(1)).records) == [b"0 [redacted]"]


def test_one_over_which_it_fails_is_failed_alone_and_the_others_pass() -> None:
    staged = Stage(transforms=transforms(over(b"2", ValueError("a bug")), marked(b"!"))).apply(
        numbered(5)
    )
    assert bodies(staged.records) == [b"0!", b"1!", b"3!", b"4!"]
    assert staged.places == [0, 1, 3, 4]
    assert staged.passed == 4
    assert {place: one.why for place, one in staged.failed.items()} == {
        2: "transform t0 failed: ValueError: a bug"
    }
    assert "raise error\nValueError: a bug" in staged.failed[2].traceback
    assert staged.refused == {}


def test_one_that_is_unavailable_is_so_for_all_that_follow() -> None:
    asked: list[int] = []

    def away(records: Sequence[Record]) -> Any:
        asked.append(len(records))
        raise logfan.SinkUnavailable("the table is away", retry_after=7)

    staged = Stage(transforms=transforms(away)).apply(numbered(3))
    assert asked == [3, 1]
    assert [*staged.failed] == [0, 1, 2]
    failed = staged.failed[2]
    assert (failed.why, failed.unavailable, failed.retry_after) == (
        "transform t0: the table is away", True, 7,
    )  # fmt: skip


class Liar(Record):
    """No record of the host's."""


def mutated(records: Sequence[Record]) -> Sequence[Record]:
    records[0].body = b"other"  # type: ignore[misc] # the defect
    return records


WRONG: dict[str, tuple[Apply, str]] = {
    "too few": (lambda records: records[1:], "gives 1 for 2; it must give one for each: a record"),
    "too many": (lambda records: [*records, None], "gives more than 2 for 2"),
    "nothing": (lambda _: None, "TypeError: apply returned a NoneType; it must give one for each"),
    "a number": (lambda _: 5, "TypeError: apply returned a int"),
    "text": (lambda _: "ab", "gives a str in place of a record, or None"),
    "bodies": (bodies, "gives a bytes in place of a record, or None"),
    "another order": (lambda records: records[::-1], "gives in place 0 what came in place 1"),
    "one twice": (lambda records: [records[0]] * 2, "gives in place 1 what came in place 0"),
    "another class": (
        lambda records: [Liar(b"", "", "", False, 0.0, one.properties) for one in records],
        "gives a Liar in place of a record",
    ),
    "a body of text": (
        lambda records: [
            Record("x", "", "", False, 0.0, one.properties)  # type: ignore[arg-type]
            for one in records
        ],
        "gives a record that is none; make it by record.replace(body=…, headers=…)",
    ),
    "no properties": (
        lambda records: [Record(b"x", "", "", False, 0.0, lambda: None) for _ in records],  # type: ignore[arg-type,return-value]
        "gives a record that is none",
    ),
    "another identity": (
        lambda records: [record(one.body, message_id="x") for one in records],
        "gives a record with another message id",
    ),
    "no identity": (lambda records: [record(one.body) for one in records], "another message id"),
    "a change of what all share": (mutated, "changes a record itself; it must give another: rec"),
    "an exit": (over(b"0", SystemExit(3)), "failed: SystemExit: 3"),
    "no text": (over(b"0", logfan.SinkUnavailable("")), "transform t0: unavailable"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_it_gets_wrong_is_named(name: str) -> None:
    apply, problem = WRONG[name]
    records = numbered(2)
    with pytest.raises(TransformFailed) as caught:
        transformed(transforms(apply), records)
    assert "transform t0" in str(caught.value)
    assert problem in str(caught.value)
    assert bodies(records) == [b"0", b"1"]


def test_a_failure_keeps_nothing_of_what_was_raised() -> None:
    with pytest.raises(TransformFailed) as caught:
        transformed(transforms(over(b"0", ValueError("x"))), numbered(1))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


class Options(logfan.TransformConfig):
    suffix: str = "!"


class Named(logfan.Transform[Options]):
    def apply(self, records: Sequence[Record]) -> Iterable[Record | None]:
        return [one.replace(body=one.text + self.config.suffix) for one in records]


def test_its_options_may_stand_in_brackets_as_those_of_a_sink() -> None:
    assert Named.Config is Options
    named = Named(Options(suffix="?"), name="archive", instance="a")
    assert (named.name, named.instance, named.log.name) == ("archive", "a", "logfan.sink.archive")
    assert bodies(Stage(transforms=[("named", named)]).apply(numbered(1)).records) == [b"0?"]
    check_transform("named", Named)
    with pytest.raises(TypeError, match=r"in Transform\[\]; put a subclass of logfan.Transform"):

        class Wrong(logfan.Transform[int]):  # type: ignore[type-var]
            pass
