"""The shipped config.toml: all keys there are, and what is commented out is the default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from logfan.config.settings import Settings, SinkSettings

SHIPPED = Path(__file__).parents[3] / "config.toml"
EXAMPLES = {
    "rabbitmq.url_file", "rabbitmq.tls", "rabbitmq.management_url", "queue.arguments",
    "queue.routing_keys", "queue.delivery_limit",
    "dead_letter.queue", "http.tls",
}  # fmt: skip
"""Keys whose default is that they are absent: what stands there is an example."""


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The file with every key that it comments out set."""
    return tomllib.loads(re.sub(r"^# (?=\w+ = )", "", SHIPPED.read_text(), flags=re.MULTILINE))


def keys_of(model: type[BaseModel], place: str = "") -> set[str]:
    """Every key, tables within tables too, as `rabbitmq.tls.verify`."""
    found = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys_of(field.annotation, f"{place}{name}.")
        elif name != "sinks":
            found.add(f"{place}{name}")
    return found


def has(table: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def test_it_shows_every_key_that_there_is(table: dict[str, Any]) -> None:
    assert {key for key in keys_of(Settings) if not has(table, key)} == set()


def test_it_shows_every_key_that_all_sinks_have(table: dict[str, Any]) -> None:
    sink = table["sinks"]["archive"]
    assert {key for key in keys_of(SinkSettings) if not has(sink, key)} == set()


def test_what_is_commented_out_is_the_default(table: dict[str, Any]) -> None:
    for key in EXAMPLES:
        *above, last = key.split(".")
        place = table
        for part in above:
            place = place[part]
        del place[last]
    sinks = {"sinks": {name: {"kind": sink["kind"]} for name, sink in table["sinks"].items()}}
    shown = Settings.model_validate(table)
    default = Settings.model_validate(sinks)
    for name in Settings.model_fields:
        if name != "sinks":
            assert getattr(shown, name) == getattr(default, name), name
    for name, sink in shown.sinks.items():
        plain = default.sinks[name]
        assert (sink.required, sink.batch, sink.retry) == (
            plain.required, plain.batch, plain.retry,
        )  # fmt: skip
