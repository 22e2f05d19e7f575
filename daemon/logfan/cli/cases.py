"""The case files of `logfan test`: TOML into records and what sinks are expected to get of them."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from logfan.config.settings import Settings, read_table
from logfan.config.validation_errors import faults_of
from logfan.faults import Fault, Faults, did_you_mean
from logfan.record import Properties, Record

_RECEIVED_AT = 1_767_225_600.0
"""2026-01-01T00:00:00Z, so that a case has the same outcome at any time."""
_WORDS = ("filtered", "kept")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _as_json(value: Any) -> Any:
    """The value as JSON has it: dates become strings. Raises ValueError for what JSON cannot
    hold."""
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        raise ValueError(f"JSON cannot hold it ({error}); write it as a string") from None


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('must be a string of base64, in quotes: "…"')  # noqa: TRY004 - for pydantic
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is no base64: {error}") from None


class _Message(_Table):
    """A body, in one of three ways, and headers."""

    text: str | None = None
    tree: Annotated[Any, AfterValidator(_as_json)] = Field(default=None, validation_alias="json")
    raw: Annotated[bytes | None, BeforeValidator(_bytes)] = Field(
        default=None, validation_alias="base64"
    )
    headers: dict[str, Any] = {}


_PROPERTIES: dict[str, Any] = {
    name: (kind, None) for name, kind in get_type_hints(Properties).items() if name != "headers"
}
_Properties: Any = create_model("_Properties", __base__=_Table, **_PROPERTIES)


class _Published(_Message):
    """A message as it is published."""

    exchange: str | None = None
    routing_key: str = ""
    properties: _Properties = _Properties()

    @model_validator(mode="after")
    def _has_one_body(self) -> "_Published":
        if len(self.model_fields_set & {"text", "tree", "raw"}) != 1:
            raise ValueError("it has one body: write one of text, json and base64")
        return self

    def record(self, exchange: str) -> Record:
        body = self.raw
        if body is None:
            body = orjson.dumps(self.tree) if self.text is None else self.text.encode()
        properties = Properties(headers=_as_delivered(self.headers), **self.properties.__dict__)
        return Record(
            body, exchange if self.exchange is None else self.exchange, self.routing_key, False,
            _RECEIVED_AT, properties,
        )  # fmt: skip


class Expected(_Message):
    """What a sink gets: the whole body as text or in base64, some of its JSON, some headers."""


FILTERED = Expected()
"""In the place of a record that the sink does not get."""
KEPT = Expected()


def _outcome(value: Any) -> Any:
    """A word stands for a table."""
    if isinstance(value, str):
        if value not in _WORDS:
            words = " or ".join(f'"{word}"' for word in _WORDS)
            raise ValueError(
                f"must be {words}, or a table with what the sink gets of it, as "
                f'{{ json = {{ level = "error" }} }}{did_you_mean(value, _WORDS)}'
            )
        return FILTERED if value == "filtered" else KEPT
    return value


class _Case(_Table):
    name: Annotated[str, Field(min_length=1)]
    record: _Published
    sinks: Annotated[dict[str, Annotated[Expected, BeforeValidator(_outcome)]], Field(min_length=1)]


def _not_empty(cases: list[_Case]) -> list[_Case]:
    if not cases:
        raise ValueError("there is none; write each as [[cases]] with name, record and sinks")
    return cases


class _Cases(_Table):
    cases: Annotated[list[_Case], AfterValidator(_not_empty)] = Field([], validate_default=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One case: what is published, and what each sink is expected to get."""

    file: Path
    name: str
    record: Record
    expected: Mapping[str, Expected]


def read_cases(path: Path, settings: Settings) -> list[Case]:
    """All cases of a file. Raises Faults, each with the file and its path in that."""
    try:
        cases = _Cases.model_validate(read_table(path)).cases
    except ValidationError as error:
        faults = faults_of(error, _Cases)
        raise Faults(
            Fault(f"{path}: {one.place}", one.problem, one.value) for one in faults
        ) from None
    faults = [
        Fault(
            f"{path}: cases.{number}.sinks.{name}",
            f"the config has no such sink{did_you_mean(name, settings.sinks, 'sinks')}",
        )
        for number, case in enumerate(cases)
        for name in case.sinks
        if name not in settings.sinks
    ]
    if faults:
        raise Faults(faults)
    exchange = settings.exchange.name
    return [Case(path, one.name, one.record.record(exchange), one.sinks) for one in cases]


def _as_delivered(value: Any) -> Any:
    """Headers as a broker delivers them: lists are tuples."""
    if isinstance(value, Mapping):
        return {name: _as_delivered(one) for name, one in value.items()}
    return tuple(map(_as_delivered, value)) if isinstance(value, list) else value
