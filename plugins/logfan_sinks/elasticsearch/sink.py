"""The sink `elasticsearch`: a document for each record, by the bulk API of Elasticsearch or
OpenSearch."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

import logfan
from logfan_sinks.elasticsearch.bulk import (
    FILTER_PATH,
    action,
    document,
    identity,
    index_of,
    outcome_of,
)
from logfan_sinks.http.client import HttpClient, HttpClientSink, HttpOptions
from logfan_sinks.http.verdicts import Answer, Table
from logfan_sinks.row import FieldName

# All else that is not 2xx is about the server: 403 is a block of the index, or a right that is
# missing; 413 asks for smaller requests.
TABLE = Table(refused=frozenset((400, 413)))
_ANSWER_BYTES = 64 << 20


class ElasticsearchSink(HttpClientSink):
    """Index a document for each record in Elasticsearch or OpenSearch; what has an id, once.

    A document has the body's fields (or message, the text), and of ours, where the body has none of
    that name: @timestamp, log.level (not beside a log that is text, as Docker's is), and logfan
    with exchange, routing_key, and headers as a list of "name=value".
    Done: an item with 2xx, or with 409, as the document is there already.
    Not now: items with 429, 403, 404, 5xx, or 400 of a closed index, a pipeline that is missing, an
    alias without a write index, or too many shards or documents, which come again alone; requests
    with any code but 2xx, 400 and 413; answers without an item for each document.
    Refused: an item with any other 400, as a field of another type, also without what is of ours.
    413 sends halves.
    Repeats: the operation is create with the record's identity as _id (hashed beyond 512 bytes), so
    a repeat is found, within one index. {date} is of the record's own time for that reason.
    """

    class Config(HttpOptions):
        index: Annotated[str, Field(pattern=r'^[^A-Z\\/*?"<>| ,#:]+$', max_length=200)]
        """Where to; may hold {date}, the day (UTC) of the record's own time. In lower case."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]. A record with an identity is indexed once, within one index;
        any other may come twice after a crash."""
        pipeline: str | None = None
        """The ingest pipeline."""
        max_records: int = Field(default=2000, ge=1, le=100_000)
        """Most documents in one request."""

    def open(self) -> None:
        """Read the secrets, and ask the server who it is."""
        self.close()
        config = self.config
        base = config.url.rstrip("/")
        self._url = f"{base}/_bulk?filter_path={FILTER_PATH}"
        if config.pipeline:
            self._url += f"&pipeline={quote(config.pipeline, safe='')}"
        self._client = HttpClient(
            config, media_type="application/x-ndjson", answer_bytes=_ANSWER_BYTES
        )
        answer = self._client.request(b"", method="GET", url=f"{base}/")
        if not 200 <= answer.status < 300:
            raise logfan.SinkUnavailable(f"GET / answers {answer}", answer.retry_after())

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Send all of it; each document has its own answer."""
        outcome = self._deliver(records, self._lines(records), TABLE, outcome_of)
        if outcome.refused:
            # Maybe for what is of ours: the index may have a `log` that is text, or have taken a
            # routing key for a date.
            places = sorted(outcome.refused)
            some = [records[place] for place in places]
            lines = self._lines(some, with_ours=False)
            outcome.correct(places, self._deliver(some, lines, TABLE, outcome_of))
        outcome.whole |= "{date}" not in self.config.index
        outcome.settle(len(records))

    def _lines(self, records: Sequence[logfan.Record], *, with_ours: bool = True) -> list[bytes]:
        config = self.config
        return [
            action(index_of(config.index, record), identity(record, config.id))
            + b"\n"
            + document(record, with_ours=with_ours)
            for record in records
        ]

    def _send(self, lines: Sequence[bytes], _: Sequence[logfan.Record]) -> Answer:
        return self._client.request(b"\n".join((*lines, b"")), url=self._url)


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    """The kind `elasticsearch`; OpenSearch has the same API."""
    register("elasticsearch", ElasticsearchSink)
