"""The corpus and its expectations, for the tests and for the page that is made of them."""

import base64
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from logfan.amqp_properties import decode_properties
from logfan.record import Record

HERE = Path(__file__).parent
TEXTS = {
    "debug": "cache is warm",
    "info": "order 4711 is paid",
    "warning": "disk is 91 % full",
    "error": "payment failed",
    "lines": "two lines:\nthe second",
    "critical": "no disk is left",
}
"""What each program logs, by the name of it in the corpus."""
NO_LEVEL = "none"


class Expected(NamedTuple):
    """A publisher's table in `expected.toml`, which says what each of these means."""

    sends: str
    message: str = "{text}"
    lines: str = ""
    levels: dict[str, str] = {}  # noqa: RUF012 - never changed
    time: str = ""
    decode: bool = False


class Message(NamedTuple):
    """One recorded message, and how it should be read."""

    language: str
    publisher: str
    logged: str
    """A key of `TEXTS`, or `other`."""
    raw: bytes
    """The properties, as the broker sent them."""
    properties: dict[str, Any]
    """The same, for people."""
    delivered: Record
    expected: Expected

    @property
    def name(self) -> str:
        return f"{self.language}.{self.publisher}.{self.logged}"

    @property
    def record(self) -> Record:
        """As a sink with `decode` would read it, where that is needed."""
        return self.delivered.decoded() if self.expected.decode else self.delivered

    @property
    def level(self) -> str | None:
        levels = self.expected.levels
        level = levels.get("all") or levels.get(self.logged)
        if level == "routing_key":
            level = self.delivered.routing_key
        level = level or ("info" if self.logged == "lines" else self.logged)
        return None if level == NO_LEVEL else level

    def is_message(self, text: str) -> bool:
        """Whether that is the message, but for one line end."""
        pattern = self.expected.lines if self.logged == "lines" else ""
        pattern = pattern or self.expected.message
        logged = TEXTS.get(self.logged, "*")
        pattern = re.escape(pattern.replace("{text}", logged)).replace(r"\*", ".*")
        behind = r"\n?" if self.logged != "error" else ".*"
        return re.fullmatch(pattern + behind, text, re.DOTALL) is not None


@cache
def expectations() -> dict[tuple[str, str], Expected]:
    """By language and publisher."""
    tables = tomllib.loads((HERE / "expected.toml").read_text(encoding="utf-8"))
    return {
        (language, publisher): Expected(**table)
        for language, publishers in tables.items()
        for publisher, table in publishers.items()
    }


@cache
def corpus() -> list[Message]:
    """All recorded messages."""
    return [
        _message(path.stem, written)
        for path in sorted((HERE / "corpus").glob("*.json"))
        for written in json.loads(path.read_text(encoding="utf-8"))["messages"]
    ]


def _message(language: str, written: dict[str, Any]) -> Message:
    packed = written.get("body_base64")
    body = written["body"].encode() if packed is None else base64.b64decode(packed)
    raw = base64.b64decode(written["properties_base64"])
    record = Record(
        body, written["exchange"], written["routing_key"], False, written["received_at"],
        decode_properties(raw),
    )  # fmt: skip
    publisher = written["publisher"]
    expected = expectations()[language, publisher]
    return Message(
        language, publisher, written["logged"], raw, written["properties"], record, expected
    )
