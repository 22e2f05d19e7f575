"""The sink `loki`: lines to Grafana Loki, and to what takes its push API."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

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
    effort.
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
        self._url = with_path(config.url, _PATH)
        self._client = HttpClient(config, media_type="application/json")
        self._tenant = {"X-Scope-OrgID": config.tenant} if config.tenant else {}
        self._client.connect()

    def write(self, records: Sequence[logfan.Record]) -> None:
        self._deliver(records, self._encode(records), TABLE).settle(len(records))

    def _send(self, lines: Sequence[bytes], records: Sequence[logfan.Record]) -> Answer:
        streams: dict[tuple[str, ...], list[Any]] = {}
        for record, line in zip(records, lines, strict=True):
            streams.setdefault(self._stream(record), []).append(self._entry(record, line))
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

    def _entry(self, record: logfan.Record, line: bytes) -> list[Any]:
        time = logfan.time_of(record)
        seconds = record.received_at if time is None else time
        entry: list[Any] = [
            str(round(seconds * 1e6) * 1000),
            line.decode("utf-8", "backslashreplace"),
        ]
        if self._metadata is not None:
            found: Mapping[str, str] = self._metadata(record)
            if given := {name: text[:_VALUE_CHARS] for name, text in found.items() if text}:
                entry.append(given)
        return entry


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("loki", LokiSink)
