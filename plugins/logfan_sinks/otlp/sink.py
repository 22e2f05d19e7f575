"""The sink `otlp`: log records to an OpenTelemetry collector, or to what speaks its protocol."""

import re
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter
from pydantic import Field

import logfan
from logfan_sinks.http.client import HttpClient, HttpClientSink, HttpOptions, with_path
from logfan_sinks.http.verdicts import Answer, Table
from logfan_sinks.otlp import protobuf
from logfan_sinks.outcome import Outcome

# As the protocol has it: all else must not be sent again.
TABLE = Table(refused=frozenset((400, 413, 422)), not_now=frozenset((429, 502, 503, 504)))
REJECTED = Counter(
    "logfan_otlp_sink_rejected_records",
    "Records that the server took and rejected, by number alone: they cannot be dead-lettered",
    ["sink"],
)
_PATH = "/v1/logs"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE_FIELDS = (("trace_id", "span_id"), ("traceId", "spanId"), ("trace.id", "span.id"))


class OtlpSink(HttpClientSink):
    """Send records to an OpenTelemetry collector (OTLP over HTTP, protobuf).

    Done: 2xx. Where partial_success rejects some, the protocol names none of them and forbids to
    send them again: they are counted (logfan_otlp_sink_rejected_records_total) and logged.
    Not now: 429, 502, 503, 504 and lost connections, in the pace that Retry-After asks for.
    Refused: all other codes, as the protocol has it; with 400, 413 and 422 the one at fault is
    found by halves.
    Repeats: the protocol finds none; trace and span ids are carried.
    """

    class Config(HttpOptions):
        url: str
        """Where the collector listens, as http://127.0.0.1:4318; /v1/logs is added to a url
        without a path."""
        resource: dict[str, str] = Field(default={"service.name": "logfan"})
        """Attributes of the resource that the records come from."""
        max_records: int = Field(default=2000, ge=1, le=100_000)
        """Most records in one request."""

    def open(self) -> None:
        """Read the secrets, and see that the server can be reached."""
        self.close()
        self._url = with_path(self.config.url, _PATH)
        self._client = HttpClient(self.config, media_type="application/x-protobuf")
        self._client.connect()

    def write(self, records: Sequence[logfan.Record]) -> None:
        outcome = self._deliver(records, [*map(encoded, records)], TABLE, self._note_rejected)
        outcome.settle(len(records))

    def _send(self, lines: Sequence[bytes], _: Sequence[logfan.Record]) -> Answer:
        return self._client.request(protobuf.request(self.config.resource, lines), url=self._url)

    def _note_rejected(self, answer: Answer, count: int) -> Outcome:
        """The protocol names none of the records that it rejects, and forbids to send them again.
        An empty `partial_success` comes with success."""
        try:
            rejected, why = protobuf.partial_success(answer.body)
        except ValueError:
            return Outcome()  # as JSON, or from a server that answers with a page
        if rejected > 0:
            REJECTED.labels(self.name).inc(rejected)
            self.log.warning(
                "sink %s: the server rejected %d of %d records and names none of them: %s",
                self.name, rejected, count, why or "without a reason",
            )  # fmt: skip
        return Outcome()


def encoded(record: logfan.Record) -> bytes:
    """One `LogRecord`: the message as body, all else as attributes."""
    attributes: list[bytes] = []
    try:
        tree = record.json()
    except ValueError:
        tree = None
    if isinstance(tree, dict):
        attributes += [protobuf.attribute(name, value) for name, value in tree.items()]
    attributes += [
        protobuf.attribute(f"messaging.header.{name}", value)
        for name, value in record.headers.items()
    ]
    attributes.append(protobuf.attribute("messaging.destination.name", record.exchange))
    if record.routing_key:
        attributes.append(
            protobuf.attribute("messaging.rabbitmq.destination.routing_key", record.routing_key)
        )
    if record.message_id:
        attributes.append(protobuf.attribute("messaging.message.id", record.message_id))
    return protobuf.log_record(
        seconds=logfan.time_of(record), observed=record.received_at,
        level=logfan.field("level")(record), body=logfan.field("message")(record),
        attributes=attributes, trace=_trace(record),
    )  # fmt: skip


def _trace(record: logfan.Record) -> tuple[bytes, bytes] | None:
    """The trace and the span, from the header `traceparent` or the body."""
    given = record.headers.get("traceparent")
    if isinstance(given, str) and (match := _TRACEPARENT.fullmatch(given)):
        return bytes.fromhex(match[1]), bytes.fromhex(match[2])
    for names in _TRACE_FIELDS:
        trace, span = (logfan.field(f"json.{name}")(record) for name in names)
        if isinstance(trace, str) and isinstance(span, str) and (len(trace), len(span)) == (32, 16):
            try:
                return bytes.fromhex(trace), bytes.fromhex(span)
            except ValueError:
                return None
    return None


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("otlp", OtlpSink)
