"""The sink `loki`: lines to Grafana Loki, and to what takes its push API."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import orjson
from pydantic import AfterValidator, Field

import logfan
from logfan_sinks.formats import Format, encoder
from logfan_sinks.http.client import (
    HeaderText,
    HttpClient,
    HttpClientSink,
    HttpOptions,
    with_path,
)
from logfan_sinks.http.verdicts import Answer, Table
from logfan_sinks.template import checked, compiled

# With 400 Loki has stored what is valid all the same.
TABLE = Table(refused=frozenset((400, 413)))
OTHER = "other"
_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_VALUE_CHARS = 200
_PATH = "/loki/api/v1/push"


_Templates = Annotated[dict[Annotated[str, Field(pattern=_NAME)], str], AfterValidator(checked)]


class LokiSink(HttpClientSink):
    """Push lines to Grafana Loki, with labels from an allow-list.

    Done: 2xx.
    Not now: 429, 5xx, lost connections and every other code but 400 and 413.
    Refused: 400, with which Loki has stored what is valid all the same: the lines are sent again in
    halves until one is refused alone.
    Repeats: the same stream, time and line is one entry, so the time is the record's own; best
    effort. Equal lines of different records, which would be one entry too, get times that are
    nanoseconds apart.
    """

    class Config(HttpOptions):
        url: str
        """Where Loki listens, as http://127.0.0.1:3100; /loki/api/v1/push is added to a url
        without a path."""
        labels: _Templates = Field(default={"job": "logfan"}, min_length=1, max_length=15)
        """The labels of a line: text with fields in braces, as { job = "shop", level = "{level}" }.
        Each combination is a stream: take what has few values."""
        metadata: _Templates = Field(default={"message_id": "{message_id}"}, max_length=30)
        """Structured metadata of a line, for ids and what else has many values; empty ones are
        left out. {} for a Loki before 3.0."""
        format: Format = "text"
        """text: the body with control characters escaped; json: the record with its origin and
        headers; raw: the body's text as it came."""
        tenant: HeaderText | None = None
        """The tenant, sent as X-Scope-OrgID."""
        max_streams: int = Field(default=500, ge=1, le=100_000)
        """Most combinations of labels; what comes beyond goes to one stream whose labels with
        fields are "other"."""
        max_records: int = Field(default=5000, ge=1, le=100_000)
        """Most lines in one request."""

    _streams: set[tuple[str, ...]]
    _equal: "EqualLines"

    def open(self) -> None:
        """Read the secrets, and see that the server can be reached."""
        self.close()
        config = self.config
        self._encode = encoder(config.format)
        self._names = tuple(config.labels)
        self._labels = compiled([*config.labels.values()])
        self._metadata = compiled(dict(config.metadata)) if config.metadata else None
        self._other = tuple(OTHER if "{" in text else text for text in config.labels.values())
        if not hasattr(self, "_streams"):
            self._streams = set()
            self._equal = EqualLines()
        self._url = with_path(config.url, _PATH)
        self._client = HttpClient(config, media_type="application/json")
        self._tenant = {"X-Scope-OrgID": config.tenant} if config.tenant else {}
        self._client.connect()

    def write(self, records: Sequence[logfan.Record]) -> None:
        self._deliver(records, self._encode(records), TABLE).settle(len(records))

    def _send(self, lines: Sequence[bytes], records: Sequence[logfan.Record]) -> Answer:
        streams: dict[tuple[str, ...], list[Any]] = {}
        for record, line in zip(records, lines, strict=True):
            labels = self._stream(record)
            streams.setdefault(labels, []).append(self._entry(record, line, labels))
        body = [
            {"stream": dict(zip(self._names, labels, strict=True)), "values": entries}
            for labels, entries in streams.items()
        ]
        return self._client.request(orjson.dumps({"streams": body}), self._tenant, url=self._url)

    def _stream(self, record: logfan.Record) -> tuple[str, ...]:
        labels = tuple([text[:_VALUE_CHARS] or "none" for text in self._labels(record)])
        if labels not in self._streams:
            if len(self._streams) >= self.config.max_streams:
                return self._other
            self._streams.add(labels)
        return labels

    def _entry(self, record: logfan.Record, line: bytes, labels: tuple[str, ...]) -> list[Any]:
        time = logfan.time_of(record)
        microseconds = round((record.received_at if time is None else time) * 1e6)
        before = self._equal.before(record, (labels, microseconds, line))
        entry: list[Any] = [
            str(microseconds * 1000 + before),
            line.decode("utf-8", "backslashreplace"),
        ]
        if self._metadata is not None:
            found: Mapping[str, str] = self._metadata(record)
            if given := {name: text[:_VALUE_CHARS] for name, text in found.items() if text}:
                entry.append(given)
        return entry


class EqualLines:
    """Counts the entries that Loki would take for one. What is read together has one time of
    receipt, and many publishers' times are whole seconds. Bounded: it forgets the oldest."""

    def __init__(self, most: int = 50_000) -> None:
        self._most = most
        self._numbers = itertools.count()
        self._marks: WeakKeyDictionary[logfan.Record, int] = WeakKeyDictionary()
        """Of records without an identity: the object, while it is there, is known again."""
        self._counts: dict[int, int] = {}
        """By the hash of an entry: of so many it stands for one. By that of an entry and its
        record: how many came before. An older one is among `_older`."""
        self._older: dict[int, int] = {}

    def before(self, record: logfan.Record, entry: tuple[Any, ...]) -> int:
        """How many other records with this entry came before; the same whenever it comes again."""
        whose: str | int | None = record.id()
        if whose is None:
            whose = self._marks.get(record)
        if whose is None:
            whose = self._marks[record] = next(self._numbers)
        key = hash((entry, whose))
        count = self._of(key)
        if count is None:
            count = self._of(hash(entry)) or 0
            self._keep(hash(entry), count + 1)
        self._keep(key, count)
        return count

    def _of(self, key: int) -> int | None:
        return self._counts.get(key, self._older.get(key))

    def _keep(self, key: int, count: int) -> None:
        if len(self._counts) >= self._most:
            self._older, self._counts = self._counts, {}
        self._counts[key] = count


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("loki", LokiSink)
