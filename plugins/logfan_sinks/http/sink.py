"""The sink `http`: records to any HTTP server, as lines, as an array, or one by one."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator

import logfan
from logfan_sinks.formats import Format, encoder
from logfan_sinks.http.client import HeaderText, HttpClient, HttpClientSink, HttpOptions
from logfan_sinks.http.verdicts import Answer, Table
from logfan_sinks.template import compiled

TABLE = Table(refused=frozenset((400, 413, 422)))
_MEDIA_TYPES = {"ndjson": "application/x-ndjson", "array": "application/json"}
_KEY = "Idempotency-Key"


class HttpSink(HttpClientSink):
    """Send records to an HTTP server; a 2xx is the acknowledgement.

    Done: 2xx.
    Not now: 408, 429, 5xx and lost connections, in the pace that Retry-After asks for. 401, 403,
    404 and redirects hold everything, too, and name what to look at in the config.
    Refused: 400, 413 and 422; the records are sent again in halves until one is refused alone.
    Repeats: each request has an Idempotency-Key, the hash of its message ids, where all have one.
    """

    class Config(HttpOptions):
        method: Literal["POST", "PUT", "PATCH"] = "POST"
        """The method of each request."""
        encoding: Literal["ndjson", "array", "single"] = "ndjson"
        """ndjson: a line for each record; array: one JSON array; single: a request for each
        record."""
        format: Format = "json"
        """json: one object a record, with its origin and headers; text and raw: the body alone,
        not for an array."""
        template: dict[str, Any] | None = None
        """What to send of each record instead, with fields in its strings:
        { text = "{level}: {message}" }, for webhooks."""
        media_type: HeaderText | None = None
        """The Content-Type; by the encoding unless given."""
        max_records: int = Field(default=1000, ge=1, le=100_000)
        """Most records in one request."""

        @model_validator(mode="after")
        def _fits(self) -> "HttpSink.Config":
            if self.encoding == "array" and self.format != "json" and self.template is None:
                raise ValueError(f'an array holds JSON; format is "{self.format}"')
            if self.template is not None:
                compiled(self.template)
            return self

    def open(self) -> None:
        """Read the secrets, and see that the server can be reached."""
        self.close()
        config = self.config
        if config.template is None:
            self._encode = encoder(config.format)
        else:
            fill = compiled(config.template)
            self._encode = lambda records: [orjson.dumps(fill(record)) for record in records]
        is_json = config.format == "json" or config.template is not None
        one = "application/json" if is_json else "text/plain"
        self._client = HttpClient(
            config, media_type=config.media_type or _MEDIA_TYPES.get(config.encoding, one)
        )
        self._client.connect()

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Send all of it; what the server took is done."""
        most = 1 if self.config.encoding == "single" else None
        outcome = self._deliver(records, self._encode(records), TABLE, most_records=most)
        outcome.settle(len(records))

    def _send(self, lines: Sequence[bytes], records: Sequence[logfan.Record]) -> Answer:
        if self.config.encoding == "array":
            body = b"[" + b",".join(lines) + b"]"
        elif self.config.encoding == "single":
            body = lines[0]
        else:
            body = b"\n".join((*lines, b""))
        return self._client.request(body, _idempotency(records), method=self.config.method)


def _idempotency(records: Sequence[logfan.Record]) -> dict[str, str]:
    """The same records give the same key; without an identity there is none."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        identity = record.id()
        if identity is None:
            return {}
        digest.update(identity.encode("utf-8", "replace") + b"\0")
    return {_KEY: digest.hexdigest()}


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("http", HttpSink)
