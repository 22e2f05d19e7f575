"""What every sink must do, as a pytest class to subclass."""

import inspect
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import orjson
import pytest
from pydantic import ValidationError

from logfan.config.option_docs import meanings_of
from logfan.plugins.validation import why_unusable
from logfan.record import Record
from logfan.sink import RecordsRejected, Sink
from logfan.testing.pipeline import Pipeline
from logfan.testing.records import hostile_records, record
from logfan.testing.sink_steps import Outcome, SinkSteps, descriptors, in_the_end, left_open

How = Literal["away", "slow", "refuses"]
"""How the other side can be broken: it does not answer at all, it takes a connection and answers
nothing, it refuses single records."""
Break = AbstractContextManager[object] | tuple[Callable[[], object], Callable[[], object]]
"""A context manager within which it is broken, or two functions that break and mend it."""

_OPENS = 20
_ATTEMPTS = 2
_SHOWN = 200
_RETRY_SECONDS = 0.05
_TESTS: Mapping[str, Sequence[str]] = {
    "read_back": (),
    "away": (
        "test_an_outage_is_reported_and_loses_nothing",
        "test_an_outage_between_write_and_flush_loses_nothing",
        "test_opened_in_vain_it_lets_go",
        "test_in_a_pipeline_an_outage_loses_nothing",
    ),
    "slow": ("test_it_does_not_wait_for_ever",),
    "refuses": ("test_just_the_refused_records_are_refused",),
}
"""What can be left unproven, and the tests that go with it."""


class ConformanceWarning(UserWarning):
    """Something about a sink is not proven, as its suite lacks a method, or its docs lack an
    option."""


class SinkConformance:
    """Subclass it in a test module, name the sink, and pytest runs the suite on it.

    Override `options` for a sink that needs some, `read_back` so that the suite sees lost, doubled
    and disordered records, and `break_it` so that it sees what the sink makes of errors. What you
    leave out is a warning and a skipped test, unless `cannot` has a reason.
    """

    sink_class: ClassVar[type[Sink[Any]]]
    seconds: ClassVar[float] = 30.0
    """So long one call of the sink may take; more than its own time limits."""
    ordered: ClassVar[bool] = True
    """Whether `read_back` gives the records in the order in which they were written."""
    exactly_once: ClassVar[bool] = False
    """Whether nothing may be there twice, not even after an outage."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """What of `read_back`, `away`, `slow` and `refuses` cannot be shown for this sink, and why."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if unknown := cls.cannot.keys() - _TESTS.keys():
            raise TypeError(
                f"{cls.__name__}.cannot names {min(unknown)!r}; it may name {', '.join(_TESTS)}"
            )
        for what, names in _TESTS.items():
            for name in names:
                if what in cls.cannot:
                    setattr(cls, name, None)
                elif getattr(cls, name) is None:
                    setattr(cls, name, getattr(SinkConformance, name))

    # What authors override

    def options(self, folder: Path) -> dict[str, Any]:
        """The keys of the sink's table; `folder` is an empty one for its files."""
        del folder
        return {}

    def read_back(self, sink: Any, folder: Path) -> Sequence[Any] | None:
        """What the other side durably holds, an item a record, in order; None where that cannot
        be known."""
        del sink, folder
        return None

    def expected(self, record: Record) -> Any:
        """What `read_back` has to give for this record."""
        return record.body

    def equal(self, held: Any, expected: Any) -> bool:
        """Whether an item of `read_back` is what was expected. `same_json` compares JSON."""
        return bool(held == expected)

    def break_it(self, how: How, folder: Path) -> Break | None:
        """Break the other side in this way, and mend it; None where that is not possible.

        It keeps what it has meanwhile. Called anew for each time.
        """
        del how, folder
        return None

    def refused_record(self) -> Record:
        """A record that the other side refuses where it is broken so that it `refuses`."""
        return record({"refuse": "me"})

    # What the tests get

    @pytest.fixture
    def sink(self, tmp_path: Path) -> Iterator[Sink[Any]]:
        """The sink, opened, for tests of your own; closed at the end."""
        sink = self._build(tmp_path)
        sink.open()
        yield sink
        sink.close()

    @pytest.fixture
    def steps(self, tmp_path: Path) -> Iterator[SinkSteps]:
        """The sink, opened, on a thread of its own; closed at the end."""
        with SinkSteps(self._build(tmp_path), self.seconds) as steps:
            steps.must("open")
            yield steps

    def _build(self, folder: Path) -> Sink[Any]:
        config = self.sink_class.Config.model_validate(self.options(folder))
        return self.sink_class(config, name="conformance")

    # The class

    def test_it_says_what_it_is(self) -> None:
        docstring = vars(self.sink_class).get("__doc__") or ""
        assert docstring.strip(), "the class needs a docstring: `logfan sinks` shows its first line"

    def test_each_option_says_what_it_means(self) -> None:
        """Only a warning: the sink works without."""
        meanings = meanings_of(self.sink_class.Config)
        for option in self.sink_class.Config.model_fields:
            if not meanings.get(option):
                words = f"write a docstring below the option {option}: `logfan sinks KIND` shows it"
                warnings.warn(words, ConformanceWarning, stacklevel=1)

    def test_the_host_takes_it(self) -> None:
        unusable = why_unusable(self.sink_class)
        assert unusable is None, unusable

    def test_an_unknown_key_is_a_fault(self, tmp_path: Path) -> None:
        wrong = {**self.options(tmp_path), "no_such_key_in_any_sink": 1}
        with pytest.raises(ValidationError):
            self.sink_class.Config.model_validate(wrong)

    def test_its_defaults_keep_its_own_rules(self, tmp_path: Path) -> None:
        config = self.sink_class.Config
        options = self.options(tmp_path)
        for name, option in config.model_fields.items():
            key = option.validation_alias if isinstance(option.validation_alias, str) else name
            if option.is_required():
                continue
            try:
                config.model_validate({one: value for one, value in options.items() if one != key})
            except ValidationError as error:
                broken = [one for one in error.errors() if one["loc"][:1] == (key,)]
                assert not broken, (
                    f"the default of {key} breaks the rule of that option: {broken[0]['msg']}"
                )

    def test_it_acquires_nothing_before_open(self, tmp_path: Path) -> None:
        options = self.options(tmp_path)
        files, threads, open_before = _files(tmp_path), {*threading.enumerate()}, descriptors()
        self.sink_class(self.sink_class.Config.model_validate(options), name="conformance")
        words = "before open was called; `logfan check` makes it as well: acquire in open"
        assert not (made := _files(tmp_path) - files), f"made {min(made)} {words}"
        # Threads and connections of a server in this process come and go.
        in_the_end(lambda: not left_open(open_before))
        assert not (left := left_open(open_before)), f"opened {left[0]} {words}"
        none_left = in_the_end(lambda: not {*threading.enumerate()} - threads)
        assert none_left, f"started a thread {words}"

    # What it writes

    @pytest.mark.parametrize("count", [1, 2, 1000])
    def test_it_takes_batches_of_any_size(
        self, steps: SinkSteps, tmp_path: Path, count: int
    ) -> None:
        records = tuple(record({"n": n, "level": "info"}) for n in range(count))
        steps.take(records)
        self._expect(steps, tmp_path, records)

    def test_it_keeps_the_order_over_batches(self, steps: SinkSteps, tmp_path: Path) -> None:
        records = _numbered(range(30))
        for start in range(0, 30, 10):
            steps.take(records[start : start + 10])
        self._expect(steps, tmp_path, records)

    @pytest.mark.parametrize("kind", list(hostile_records()))
    def test_a_hostile_record_harms_no_neighbour(
        self, steps: SinkSteps, tmp_path: Path, kind: str
    ) -> None:
        neighbours = (record({"n": 1}), record({"n": 2}))
        records = (neighbours[0], hostile_records()[kind], neighbours[1])
        outcome = steps.offer(records)
        way_out = "refuse it alone: RecordsRejected({index: why})"
        outcome.must_not_raise(f"over a record such as publishers send ({kind}); {way_out}")
        assert not outcome.refused.keys() - {1}, (
            f"refused also the neighbours of the one hostile record (index 1 of 3, {kind}): "
            f"{outcome.refused}"
        )
        self._expect(steps, tmp_path, neighbours if outcome.refused else records)

    def test_records_are_left_as_they_were(self, steps: SinkSteps) -> None:
        records = [record({"a": {"b": [1, 2]}}, headers={"h": "v"}, message_id="m") for _ in "12"]
        before = [_shown_whole(one) for one in records]
        given = list(records)
        steps.take(given)
        words = "all sinks share the records: copy before you change"
        assert given == records, f"changed the sequence of records that write got; {words}"
        for one, was in zip(records, before, strict=True):
            changed = [name for name, value in _shown_whole(one).items() if value != was[name]]
            assert not changed, f"changed the {changed[0]} of a record; {words}"

    def test_in_a_pipeline_all_is_acknowledged(self, tmp_path: Path) -> None:
        records = _numbered(range(100))
        sink = self._build(tmp_path)
        with Pipeline(sink, max_records=7) as pipeline:
            for start in range(0, 100, 10):
                pipeline.deliver(*records[start : start + 10])
            pipeline.wait_acked(100, self.seconds)
        assert pipeline.numbers[sink.name].retries == 0, "the sink failed; see the log"
        self._expect_held(self.read_back(sink, tmp_path), records)

    def test_flush_without_a_write_returns(self, steps: SinkSteps) -> None:
        steps.must("flush")

    # Its life

    def test_opened_again_it_lets_go_and_goes_on(self, steps: SinkSteps, tmp_path: Path) -> None:
        first, second = record({"n": 1}), record({"n": 2})
        steps.take((first,))
        steps.must("open")
        before, threads = descriptors(), len(steps.threads())
        for _ in range(_OPENS):
            steps.must("open")
        words = "open must let go of what an earlier open acquired"
        in_the_end(lambda: len(left_open(before)) < _OPENS)
        left = left_open(before)
        assert len(left) < _OPENS, f"{_OPENS} times open left {len(left)} times {left[-1]}; {words}"
        in_the_end(lambda: len(steps.threads()) < threads + _OPENS)
        now = len(steps.threads())
        assert now < threads + _OPENS, f"{_OPENS} times open left {now} threads; {words}"
        steps.take((second,))
        self._expect(steps, tmp_path, (first, second))

    def test_closed_it_leaves_no_thread_and_no_file(self, tmp_path: Path) -> None:
        before: Mapping[int, str] = {}
        for _ in range(2):  # what a library begins once in a process is no leak
            sink, before = self._build(tmp_path), descriptors()
            with SinkSteps(sink, self.seconds) as steps:
                steps.must("open")
                steps.take((record({"n": 1}),))
                steps.must("close")
                # What ends on another thread ends a moment later.
                in_the_end(lambda: not steps.threads())
                assert not steps.threads(), f"close must end the sink's threads: {steps.threads()}"
        in_the_end(lambda: not left_open(before))
        left = left_open(before)
        assert not left, f"close must close what the sink opened: {left[0]} is open"

    def test_closed_it_keeps_what_was_flushed(self, steps: SinkSteps, tmp_path: Path) -> None:
        records = _numbered(range(3))
        steps.take(records)
        steps.must("close")
        self._expect(steps, tmp_path, records)

    def test_close_does_no_harm_twice(self, steps: SinkSteps) -> None:
        steps.must("close")
        steps.must(
            "close", when="where it was called a second time; it must be harmless, as it also "
            "follows an open that failed",
        )  # fmt: skip

    # The other side breaks

    def test_an_outage_is_reported_and_loses_nothing(
        self, steps: SinkSteps, tmp_path: Path
    ) -> None:
        before, meanwhile, after = _in_three()
        broken = self._broken("away", tmp_path)
        steps.take(before)
        with broken():
            for attempt in range(_ATTEMPTS):
                outcome = steps.offer(meanwhile, anew=attempt > 0)
                _check_not_refused(outcome, "while the other side was away")
                assert not outcome.is_taken, (
                    "write and flush returned while the other side was away: logfan acknowledges "
                    "these messages, and they are lost; let the error through, or raise "
                    "SinkUnavailable, and return from flush only once the other side confirmed"
                )
        self._take_in_the_end(steps, meanwhile)
        steps.take(after)
        self._expect(steps, tmp_path, (*before, *meanwhile, *after), after_outage=True)

    def test_an_outage_between_write_and_flush_loses_nothing(
        self, steps: SinkSteps, tmp_path: Path
    ) -> None:
        before, meanwhile, after = _in_three()
        broken = self._broken("away", tmp_path)
        steps.take(before)
        steps.must("write", meanwhile)
        with broken():
            error = steps.attempt("flush")
            outcome = Outcome(error, "flush")
            if isinstance(error, RecordsRejected):
                outcome = Outcome(refused=dict(error.reasons), later=dict(error.later))
            _check_not_refused(outcome, "while the other side was away")
        self._take_in_the_end(steps, after if outcome.is_taken else (*meanwhile, *after))
        self._expect(steps, tmp_path, (*before, *meanwhile, *after), after_outage=True)

    def test_opened_in_vain_it_lets_go(self, tmp_path: Path) -> None:
        broken = self._broken("away", tmp_path)
        sink = self._build(tmp_path)
        with broken():
            with SinkSteps(sink, self.seconds) as steps:
                steps.attempt("open")
                steps.attempt("close")
                before = descriptors()  # what a library begins once in a process is no leak
                for _ in range(_OPENS):  # no error is kept: its frames hold what was opened
                    refused = isinstance(steps.attempt("open"), RecordsRejected)
                    assert not refused, "open refused records"
                steps.must("close", when="after an open that failed")
                in_the_end(lambda: not steps.threads())
                assert not steps.threads(), "a failed open left a thread, which close does not end"
            in_the_end(lambda: not left_open(before))
            left = left_open(before)
            assert not left, f"a failed open left open, and close does not close: {left[0]}"

    def test_in_a_pipeline_an_outage_loses_nothing(self, tmp_path: Path) -> None:
        before, meanwhile, after = _in_three()
        broken = self._broken("away", tmp_path)
        sink = self._build(tmp_path)
        with Pipeline(sink) as pipeline:
            stats = pipeline.numbers[sink.name]
            pipeline.deliver(*before)
            pipeline.wait_acked(len(before), self.seconds)
            with broken():
                pipeline.deliver(*meanwhile)
                noticed = in_the_end(
                    lambda: stats.retries > 0 or pipeline.acked > len(before), self.seconds
                )
                assert noticed, f"the outage was not noticed for {self.seconds:g} s"
                assert pipeline.acked == len(before), "acknowledged what the other side cannot have"
            pipeline.deliver(*after)
            pipeline.wait_acked(len(before) + len(meanwhile) + len(after), self.seconds)
            refused = pipeline.refused[sink.name]
            assert not refused, f"refused records because of an outage: {refused[0].reason}"
        held = self.read_back(sink, tmp_path)
        self._expect_held(held, (*before, *meanwhile, *after), after_outage=True)

    def test_it_does_not_wait_for_ever(self, steps: SinkSteps, tmp_path: Path) -> None:
        before, meanwhile, after = _in_three()
        broken = self._broken("slow", tmp_path)
        steps.take(before)
        with broken():
            outcome = steps.offer(meanwhile)
            _check_not_refused(outcome, "while the other side answered nothing")
        self._take_in_the_end(steps, after if outcome.is_taken else (*meanwhile, *after))
        self._expect(steps, tmp_path, (*before, *meanwhile, *after), after_outage=True)

    @pytest.mark.parametrize(("count", "places"), [(5, (1, 3)), (1, (0,)), (3, (2,))])
    def test_just_the_refused_records_are_refused(
        self, steps: SinkSteps, tmp_path: Path, count: int, places: Sequence[int]
    ) -> None:
        broken = self._broken("refuses", tmp_path)
        records = [*_numbered(range(count))]
        for place in places:
            records[place] = self.refused_record()
        with broken():
            outcome = steps.offer(records)
            at = f"where the other side refused of {count} records those at {[*places]}"
            outcome.must_not_raise(f"{at}; refuse these alone: RecordsRejected({{index: why}})")
            assert outcome.refused, (
                f"took everything {at}: logfan acknowledges these messages, and they are lost; "
                "raise RecordsRejected({index: why})"
            )
            assert [*sorted(outcome.refused)] == [*places], (
                f"RecordsRejected names {sorted(outcome.refused)} {at}: the index is the place in "
                "what write got, from 0; every record that is not named counts as taken"
            )
        good = [one for place, one in enumerate(records) if place not in places]
        after = _numbered(range(100, 103))
        self._take_in_the_end(steps, after)
        self._expect(steps, tmp_path, (*good, *after), after_outage=True)

    # How it is judged

    def _broken(self, how: How, folder: Path) -> Callable[[], AbstractContextManager[None]]:
        """Breaks the other side. Skips where that is not possible."""
        found = self.break_it(how, folder)
        if found is None:
            self._skip(
                how, f"what it does where the other side {_MEANS[how]}", f"break_it for {how!r}"
            )

        @contextmanager
        def broken() -> Iterator[None]:
            with ExitStack() as stack:
                if isinstance(found, tuple):
                    found[0]()
                    stack.callback(found[1])
                else:
                    stack.enter_context(found)
                yield

        return broken

    def _skip(self, what: str, claim: str, method: str) -> NoReturn:
        text = (
            f"not proven for {self.sink_class.__name__}: {claim}; write {method} in "
            f"{type(self).__name__}, or say why not: cannot = {{{what!r}: …}}"
        )
        # It is about the author's class, not about a line of ours.
        line = inspect.getsourcelines(type(self))[1]
        warnings.warn_explicit(ConformanceWarning(text), None, inspect.getfile(type(self)), line)
        pytest.skip(text)

    def _take_in_the_end(self, steps: SinkSteps, records: Sequence[Record]) -> None:
        """As the host does it: open, write, flush, again and again until all is taken."""
        deadline = time.monotonic() + self.seconds
        while not (outcome := steps.offer(records, anew=True)).is_taken:
            _check_not_refused(outcome, "though the other side was there again")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"takes nothing, {self.seconds:g} s after the other side was there again: "
                    f"{outcome.step} raised {outcome.error!r}; open must begin anew"
                ) from outcome.error
            threading.Event().wait(_RETRY_SECONDS)

    def _expect(
        self,
        steps: SinkSteps,
        folder: Path,
        records: Sequence[Record],
        *,
        after_outage: bool = False,
    ) -> None:
        held = self.read_back(steps.sink, folder)
        self._expect_held(held, records, after_outage=after_outage)

    def _expect_held(
        self, held: Sequence[Any] | None, records: Sequence[Record], *, after_outage: bool = False
    ) -> None:
        """After an outage some may be there twice."""
        if held is None:
            if "read_back" in self.cannot:
                return
            self._skip("read_back", "that what flush returned for is there", "read_back")
        wanted = [self.expected(one) for one in records]
        if len(held) == len(wanted) and all(map(self.equal, held, wanted)):
            return
        places = [self._place_in(wanted, item) for item in held]
        wrong = self._difference(held, wanted, places, after_outage=after_outage)
        assert wrong is None, wrong

    def _place_in(self, wanted: Sequence[Any], item: Any) -> int | None:
        return next((n for n, one in enumerate(wanted) if self.equal(item, one)), None)

    def _difference(
        self, held: Sequence[Any], wanted: Sequence[Any], places: list[int | None],
        *, after_outage: bool,
    ) -> str | None:  # fmt: skip
        """What is wrong with it, in words; None where nothing is."""
        what = f"of {len(wanted)} records that flush returned for"
        if None in places:
            item = _short(held[places.index(None)])
            return (
                f"holds what was never written: {item}; record 0 is {_short(wanted[0])}; where the "
                "sink gives records another form on purpose, return that from expected"
            )
        missing = [n for n in range(len(wanted)) if n not in places]
        if missing:
            return (
                f"lost: {what}, the other side does not hold number {missing[0]} "
                f"({_short(wanted[missing[0]])}; {len(missing)} in all); return from flush only "
                "once it holds everything, and keep it through open and close"
            )
        if len(held) > len(wanted) and (self.exactly_once or not after_outage):
            twice = next(n for n in places if places.count(n) > 1)
            return (
                f"there twice: {what}, the other side holds number {twice} more than once; what "
                "flush returned for must not be sent again"
            )
        first = list(dict.fromkeys(places))
        if self.ordered and first != sorted(one for one in first if one is not None):
            return (
                f"another order: the other side holds the records {places[:20]}; write them as "
                "they come, or set ordered = False where read_back cannot know"
            )
        return None


_MEANS = {
    "away": "goes away", "slow": "takes a connection and answers nothing",
    "refuses": "refuses single records",
}  # fmt: skip


def same_json(held: bytes | str, expected: bytes | str) -> bool:
    """Whether both are the same bytes, or JSON of the same value. For `equal`."""
    if held == expected:
        return True
    try:
        return bool(orjson.loads(held) == orjson.loads(expected))
    except ValueError:
        return False


def _check_not_refused(outcome: Outcome, when: str) -> None:
    assert not outcome.refused, (
        f"refused {len(outcome.refused)} records {when} ({next(iter(outcome.refused.values()))}): "
        "they would go to the dead letters; raise SinkUnavailable for what is no fault of a record"
    )


def _numbered(numbers: range) -> tuple[Record, ...]:
    return tuple(record({"n": n}, message_id=f"m{n}") for n in numbers)


def _in_three() -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[Record, ...]]:
    """What is written before an outage, in it, and after it."""
    return _numbered(range(3)), _numbered(range(3, 8)), _numbered(range(8, 10))


def _shown_whole(one: Record) -> dict[str, Any]:
    return {
        "body": one.body, "JSON": orjson.dumps(one.json()), "headers": dict(one.headers),
        "exchange": one.exchange, "routing key": one.routing_key, "message id": one.message_id,
        "time of receipt": one.received_at,
    }  # fmt: skip


def _files(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}


def _short(item: Any) -> str:
    text = repr(item[: _SHOWN * 2] if isinstance(item, bytes | str) else item)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
