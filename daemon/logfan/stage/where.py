"""`where`: which records a sink gets, as data. Sans-I/O.

A table of matchers must all hold; of a list of tables one must. A key is a field's name
(`logfan.fields`), and may be dotted or nested. A matcher is a value, a list of values, or a table
of conditions. A value that is a list matches where one of its elements does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from operator import and_, attrgetter
from types import NoneType
from typing import Any

import pydantic_core.core_schema as core
from pydantic import GetCoreSchemaHandler

from logfan.charsets import is_utf8
from logfan.fields import LEVELS, Field, field, level_named
from logfan.json_trees import SMALL_BYTES
from logfan.record import Record, readable
from logfan.stage.patterns import compiled

Test = Callable[[Any], bool]
"""Takes a field's value, None where there is none."""

ALWAYS = "always"
"""A table's key that names no field: its records pass every sample."""
_CONDITIONS = ("not", "exists", "prefix", "suffix", "matches", "above", "below", "between")
_ROOTS = ("headers", "properties", "json")
_MAX_TABLES = 100
_SCALARS = (str, int, float, bool)
_PLAIN = frozenset(_SCALARS)
_MANY = 8
"""From so many records on columns cost less than one record after the other."""
_UNPARSED = object()
_BODY = attrgetter("body")


@dataclass(frozen=True, slots=True)
class _Table:
    """Matchers that must all hold: first those that parse no body."""

    matchers: tuple[tuple[Field, Test], ...]
    always: bool

    @property
    def needs_body(self) -> bool:
        """Whether a body is looked at."""
        return any(known.needs_body for known, _ in self.matchers)

    def holds(self, record: Record) -> bool | None:
        """None where the body would decide and is no JSON."""
        tree: Any = _UNPARSED
        for known, test in self.matchers:
            if known.walk is None:
                value = known.read(record)
            else:
                if tree is _UNPARSED:
                    try:
                        tree = record.json()
                    except ValueError:
                        return None
                value = known.walk(tree)
            if not test(value):
                return False
        return True

    def hold(self, records: Sequence[Record], trees: Sequence[Any]) -> list[bool]:
        """Of which records it holds; these are their parsed bodies."""
        return _hold(self.matchers, records, trees)

    def may_hold(self, records: Sequence[Record]) -> list[bool]:
        """Of which it holds as far as that is known without their bodies."""
        direct = [(known, test) for known, test in self.matchers if not known.needs_body]
        return _hold(direct, records, ())


def _hold(
    matchers: Sequence[tuple[Field, Test]], records: Sequence[Record], trees: Sequence[Any]
) -> list[bool]:
    held: list[bool] = []
    for known, test in matchers:
        tested = _tested(test, known.column(records, trees))
        held = [*map(and_, held, tested)] if held else tested
    return held or [True] * len(records)


class Where:
    """Chooses records. Compile one with `Where.of`; as the type of a config's key it does that."""

    def __init__(self, tables: Sequence[_Table], data: Any) -> None:
        self._tables = tables
        self.data = data
        """The table, or the list of tables, as it was written."""
        self._needs_body = any(table.needs_body for table in tables)

    @classmethod
    def of(cls, data: Any) -> "Where":
        """Compile a table, or a list of tables. Raises ValueError, naming each key that has a fault
        and the way out."""
        tables = data if isinstance(data, list) else [data]
        if not tables:
            raise ValueError("an empty list chooses no record; leave `where` out to get all")
        if len(tables) > _MAX_TABLES:
            raise ValueError(f"{len(tables)} tables; {_MAX_TABLES} are the most")
        compiled, faults = [], []
        for number, table in enumerate(tables):
            if not isinstance(table, Mapping):
                raise ValueError(  # noqa: TRY004 - of a config's value
                    f"{_shown(table)} is no table of matchers; write one as "
                    '{ level = ["error", "critical"] }, or a list of them'
                )
            try:
                compiled.append(_table(table))
            except ValueError as error:
                faults.append(f"{f'[{number}].' * (len(tables) > 1)}{error}")
        if faults:
            raise ValueError("; ".join(faults))
        return cls(compiled, data)

    def decide(self, record: Record) -> bool | None:
        """Whether the sink gets the record. None where its body would decide and is no JSON."""
        unsure = False
        record = self._readable(record)
        for table in self._tables:
            holds = table.holds(record)
            if holds:
                return True
            unsure = unsure or holds is None
        return None if unsure else False

    def decisions(self, records: Sequence[Record]) -> list[bool | None]:
        """`decide` for each, for less than one by one costs."""
        if len(records) < _MANY:
            return [*map(self.decide, records)]
        if not self._needs_body:
            return self._held(records, ())
        possible = self._any([table.may_hold(records) for table in self._tables])
        if all(possible):
            return self._decisions_by_body(records)
        places = [place for place, may in enumerate(possible) if may]
        found: list[bool | None] = [False] * len(records)
        if places:
            chosen = self._decisions_by_body([records[place] for place in places])
            for place, decision in zip(places, chosen, strict=True):
                found[place] = decision
        return found

    def _decisions_by_body(self, records: Sequence[Record]) -> list[bool | None]:
        # What a small body becomes is kept with its record; of the others no more than one is held.
        if max(map(len, map(_BODY, records))) <= SMALL_BYTES:
            with suppress(ValueError):  # one of them is no JSON
                return self._held(records, [*map(Record.json, records)])
        return self._decisions_of_some(records)

    @staticmethod
    def _any(held: Sequence[list[bool]]) -> list[bool]:
        return held[0] if len(held) == 1 else [*map(any, zip(*held, strict=True))]

    def _held(self, records: Sequence[Record], trees: Sequence[Any]) -> list[bool | None]:
        """`decide` for records that are all JSON, or of which no body is looked at."""
        return [*self._any([table.hold(records, trees) for table in self._tables])]

    def _decisions_of_some(self, records: Sequence[Record]) -> list[bool | None]:
        """Where not all are small and JSON: those that are together, the others one by one."""
        found: list[bool | None] = [None] * len(records)
        places, trees = [], []
        for place, record in enumerate(records):
            if record.size <= SMALL_BYTES:
                with suppress(ValueError):
                    trees.append(record.json())
                    places.append(place)
                    continue
            found[place] = self.decide(record)
        for place, held in zip(
            places, self._held([records[place] for place in places], trees), strict=True
        ):
            found[place] = held
        return found

    def is_always(self, record: Record) -> bool:
        """Whether a table with `always = true` chooses the record, so that no sample drops it."""
        record = self._readable(record)
        return any(table.always and table.holds(record) for table in self._tables)

    def _readable(self, record: Record) -> Record:
        """With its compression undone, where a body is looked at; compressed ones are no text."""
        if not self._needs_body or is_utf8(record.body):
            return record
        return readable(record) or record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and self.data == other.data

    def __hash__(self) -> int:
        return hash(repr(self.data))

    def __repr__(self) -> str:
        return f"Where({self.data!r})"

    @classmethod
    def __get_pydantic_json_schema__(cls, _: Any, __: Any) -> dict[str, Any]:
        table = {"type": "object"}
        return {"anyOf": [table, {"type": "array", "items": table}]}

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> core.CoreSchema:
        return core.no_info_plain_validator_function(
            cls.of, serialization=core.plain_serializer_function_ser_schema(lambda one: one.data)
        )


def _table(table: Mapping[str, Any]) -> _Table:
    always = table.get(ALWAYS, False)
    if not isinstance(always, bool):
        raise ValueError(f"{ALWAYS} is {_shown(always)}; it is true or false")  # noqa: TRY004 - of a config's value
    matchers, faults = [], []
    for name, matcher in _fields(table):
        try:
            matchers.append((field(name), _test(name, matcher)))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    # What parses no body first, then what may know without its being JSON.
    matchers.sort(key=lambda one: (one[0].needs_body, one[0].walk is not None))
    return _Table(tuple(matchers), always)


def _tested(test: Test, values: Sequence[Any]) -> list[bool]:
    """The test of each value. Of values that are equal and of one kind it is made once."""
    kinds = {*map(type, values)} - {NoneType}
    if len(kinds) > 1 or not kinds <= _PLAIN:  # 1 and true are equal, and not alike
        return [*map(test, values)]
    outcomes = {value: test(value) for value in {*values}}
    if all(outcomes.values()):
        return [True] * len(values)
    return [*map(outcomes.__getitem__, values)]


def _fields(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each field's name and its matcher. TOML reads `headers.host` without quotes as a table in a
    table."""
    for key, value in table.items():
        if key in _ROOTS and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", matcher) for name, matcher in value.items())
        elif key != ALWAYS:
            yield key, value


def _test(name: str, matcher: Any) -> Test:
    """Compile what a field's value must be like."""
    if not isinstance(matcher, Mapping):
        return _any_of(name, matcher)
    if not matcher:
        raise ValueError(f"{name}: a table without a condition; there are {', '.join(_CONDITIONS)}")
    for key in matcher:
        if key not in _CONDITIONS:
            raise ValueError(
                f"{name}: {key!r} is no condition; there are {', '.join(_CONDITIONS)} (the name of "
                f'a field inside of {name} needs quotes: "{name}.{key}")'
            )
    tests = [_condition(name, key, operand) for key, operand in matcher.items()]
    return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)


def _condition(name: str, key: str, operand: Any) -> Test:
    path = f"{name}.{key}"
    if key == "not":
        test = _test(name, operand)
        return lambda value: not test(value)
    if key == "exists":
        if not isinstance(operand, bool):
            raise ValueError(f"{path} is {_shown(operand)}; it is true or false")
        return lambda value: (value is not None) is operand
    if key in ("prefix", "suffix"):
        return _of_each(_at_an_end(path, key, operand))
    if key == "matches":
        return _of_each(_matches(path, operand))
    return _of_each(_in_range(path, key, operand))


def _any_of(name: str, values: Any) -> Test:
    """Equal to one of them. `true` is not 1; 1.0 is."""
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise ValueError(f"{name}: an empty list matches nothing")
    for value in listed:
        if not isinstance(value, _SCALARS):
            raise ValueError(  # noqa: TRY004
                f"{name}: {_shown(value)} is no value to compare with; "
                "values are strings, numbers, true and false"
            )
    if name == "level":
        listed = [_level(value) for value in listed]
    texts = frozenset(value for value in listed if isinstance(value, str))
    truths = frozenset(value for value in listed if isinstance(value, bool))
    numbers = frozenset(value for value in listed if not isinstance(value, bool | str))

    def equals(value: Any) -> bool:
        if type(value) is str:
            return value in texts
        if type(value) is bool:
            return value in truths
        return isinstance(value, int | float | Decimal) and value in numbers

    return _of_each(equals)


def _level(value: Any) -> str:
    level = level_named(str(value))
    if level is None:
        raise ValueError(f"level: {_shown(value)} is no level; levels are {', '.join(LEVELS)}")
    return level


def _at_an_end(path: str, key: str, operand: Any) -> Test:
    ends = operand if isinstance(operand, list) else [operand]
    if not ends or not all(isinstance(end, str) and end for end in ends):
        raise ValueError(f"{path} is {_shown(operand)}; it is a string, or a list of strings")
    method, texts = (str.startswith if key == "prefix" else str.endswith), tuple(ends)
    return lambda value: isinstance(value, str) and method(value, texts)


def _matches(path: str, operand: Any) -> Test:
    """Found anywhere in the text, in linear time: RE2 knows no way back."""
    patterns = operand if isinstance(operand, list) else [operand]
    if not patterns or not all(isinstance(one, str) for one in patterns):
        raise ValueError(
            f"{path} is {_shown(operand)}; it is a regular expression, or a list of them"
        )
    try:
        searches = [
            compiled(pattern, f"{_shown(pattern)} is no regular expression of RE2").search
            for pattern in patterns
        ]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    search = searches[0]
    if len(searches) == 1:
        return lambda value: isinstance(value, str) and search(value) is not None
    return lambda value: isinstance(value, str) and any(one(value) is not None for one in searches)


def _in_range(path: str, key: str, operand: Any) -> Test:
    """`above` and `below` leave the bound out; `between` has both within."""
    bounds = operand if key == "between" and isinstance(operand, list) else [operand]
    numbers = all(_is_number(bound) for bound in bounds)
    if not numbers or len(bounds) != (2 if key == "between" else 1):
        right = "two numbers, as [200, 299]" if key == "between" else "a number"
        raise ValueError(f"{path} is {_shown(operand)}; it is {right}")
    low = bounds[0]
    if key == "above":
        return lambda value: _is_number(value) and value > low
    if key == "below":
        return lambda value: _is_number(value) and value < low
    high = bounds[1]
    if low > high:
        raise ValueError(f"{path} is {_shown(operand)}: the first is above the second")
    return lambda value: _is_number(value) and low <= value <= high


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _of_each(test: Test) -> Test:
    """Of a list the test need hold for one element."""

    def holds(value: Any) -> bool:
        if type(value) is list or type(value) is tuple:
            return any(test(one) for one in value)
        return test(value)

    return holds


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
