"""What real publishers send, as bytes with their properties: what each becomes everywhere."""

import bz2
import json
import lzma
import zlib
from typing import Any, NamedTuple

import pytest
import zstandard
from prometheus_client import REGISTRY

from logfan import field, json_lines, time_of
from logfan.record import Record
from logfan.stage.redact import Redactor
from logfan.stage.where import Where
from logfan.testing import record
from logfan_sinks.file.paths import PathTemplate
from logfan_sinks.formats import encode_text
from logfan_sinks.metrics import MetricsSink

AT = 1_795_651_200.0


class Sent(NamedTuple):
    """A message, and how it should be read."""

    body: bytes
    level: str | None
    message: str
    key: str = ""
    properties: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def record(self) -> Record:
        return record(self.body, routing_key=self.key, received_at=AT, **self.properties)


def text(line: str, level: str | None) -> Sent:
    """A line of text, whose message is all of it."""
    return Sent(f"{line}\n".encode(), level, line)


def headers(**given: Any) -> dict[str, Any]:
    return {"headers": given}


SENT = {
    "Python logging": text("2026-11-26 00:13:53,181 CRITICAL plain: down", "critical"),
    "Python logging, dashes": text("2026-11-26 00:13:53,181 - mqlogger - ERROR - x", "error"),
    "loguru": text("2026-11-26 00:13:53.181 | ERROR    | module:f:12 - it failed", "error"),
    "logback": text("00:13:53.181 [main] WARN  c.example.App - slow", "warning"),
    "log4j": text("2026-11-26 00:13:53,181 [http-1] FATAL c.example.App: down", "critical"),
    "zap console": text("2026-11-26T00:13:53.181Z\terror\tcaller.go:12\tit failed", "error"),
    "tracing": text("2026-11-26T00:13:53.181234Z ERROR app::db: it failed", "error"),
    "slog": text('time=2026-11-26T00:13:53.181Z level=ERROR+4 msg="it failed"', "error"),
    "logrus": text('time="2026-11-26T00:13:53Z" level=warning msg="slow"', "warning"),
    "winston in colour": text("\x1b[31merror\x1b[39m: it failed", "error"),
    "logrus in colour": text("\x1b[31mERRO\x1b[0m[0000] it failed", "error"),
    "amq.rabbitmq.log": Sent(
        b"2026-11-26 00:16:23.449417+00:00 [error] <0.1676.0> closing\n", "error",
        "2026-11-26 00:16:23.449417+00:00 [error] <0.1676.0> closing", "error",
    ),
    "pino": Sent(b'{"level":50,"time":1795651200000,"msg":"it failed"}\n', "error", "it failed"),
    "bunyan": Sent(b'{"name":"app","level":60,"msg":"down","v":0}', "critical", "down"),
    "GELF": Sent(b'{"version":"1.1","short_message":"x","level":3}', "error", "x"),
    "syslog-ng as JSON": Sent(b'{"PRIORITY":"err","MESSAGE":"x"}', "error", "x"),
    "journald": Sent(b'{"PRIORITY":"3","MESSAGE":"x"}', "error", "x"),
    "syslog-ng amqp()": Sent(
        b"", "error", "it failed", properties=headers(PRIORITY="err", MESSAGE="it failed"),
    ),
    "rabbitmq_event_exchange": Sent(
        b"", None, "name=q vhost=/", "queue.created", headers(name="q", vhost="/"),
    ),
    "loguru serialised": Sent(
        b'{"text":"x\\n","record":{"level":{"name":"ERROR","no":40},"message":"x"}}', "error", "x",
    ),
    "ECS, flat": Sent(b'{"log.level":"error","message":"x"}', "error", "x"),
    "ECS, nested": Sent(b'{"log":{"level":"error"},"message":"x"}', "error", "x"),
    "OpenTelemetry": Sent(b'{"severityText":"ERROR","body":"x"}', "error", "x"),
    "OpenTelemetry, a number": Sent(b'{"severity_number":17,"body":"x"}', "error", "x"),
    "Serilog": Sent(b'{"@t":"2026-11-26T00:00:00Z","@m":"x","@l":"Fatal"}', "critical", "x"),
    "Serilog, information": Sent(b'{"@t":"2026-11-26T00:00:00Z","@mt":"x"}', "info", "x"),
    ".NET": Sent(b'\xef\xbb\xbf{"LogLevel":"Warning","Message":1,"msg":"x"}', "warning", "x"),
    "java.util.logging": Sent(b'{"level":"SEVERE","message":"x"}', "error", "x"),
    "zap": Sent(b'{"level":"dpanic","ts":1795651200.5,"msg":"x"}', "critical", "x"),
    "syslog's words": Sent(b'{"level":"emerg","msg":"x"}', "critical", "x"),
    "notice": Sent(b'{"level":"notice","msg":"x"}', "info", "x"),
    "AmqpAppender, by key": Sent(b"it failed", "error", "it failed", "logback.ERROR"),
    "AmqpAppender, by header": Sent(
        b"it failed", "error", "it failed", "app", headers(level="ERROR"),
    ),
    "logstash, old": Sent(b'{"@message":"x","@fields":{"levelname":"ERROR"}}', "error", "x"),
    "tracing as JSON": Sent(b'{"level":"WARN","fields":{"message":"x"}}', "warning", "x"),
    "structlog with NaN": Sent(b'{"level":"error","event":"x","load":NaN}', "error", "x"),
    "latin-1": Sent(
        b"error: caf\xe9", "error", "error: café",
        properties={"content_type": "text/plain; charset=iso-8859-1"},
    ),
    "no level": Sent(b'{"message":"x","user":7}', None, "x", "orders.created"),
}  # fmt: skip


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_each_is_read_alike_everywhere(sent: Sent) -> None:
    one = sent.record
    assert field("level")(one) == sent.level
    assert field("message")(one).removesuffix("\n") == sent.message
    path = PathTemplate("{level}.log", instance="").of(one)
    assert path == f"{sent.level or '_'}.log"
    where = Where.of({"level": sent.level or {"exists": False}})
    assert where.decide(one) is True
    config = {"counters": [{"name": "publishers", "labels": {"level": "level"}}]}
    sink = MetricsSink(MetricsSink.Config.model_validate(config), name="m")
    sink.open()
    try:
        sink.write([one])
        labels = {"level": sent.level or ""}
        assert REGISTRY.get_sample_value("publishers_total", labels) == 1
    finally:
        sink.close()


EMPTY = [sent for sent in SENT.values() if not sent.body]


@pytest.mark.parametrize("sent", EMPTY)
def test_an_empty_body_is_no_empty_line(sent: Sent) -> None:
    assert encode_text(sent.record).decode() == sent.message


def test_one_line_end_is_dropped_and_a_mark_passed_over() -> None:
    assert encode_text(record(b"error: x\n")) == b"error: x"
    assert encode_text(record(b"\xef\xbb\xbferror: x\r\n")) == b"error: x"
    assert encode_text(record(b"error: x\n\n")) == b"error: x\\n"


def test_a_key_with_a_dot_is_found_first_everywhere() -> None:
    one = record(b'{"user.id":"flat","user":{"id":"nested","name":"ann"},"log.level":"warn"}')
    names = {"user.id": "flat", "user.name": "ann", "log.level": "warn"}
    for name, value in names.items():
        assert field(name)(one) == value
        assert PathTemplate(f"{{json.{name}}}.log", instance="").of(one) == f"{value}.log"
        assert Where.of({name: value}).decide(one) is True
        assert labelled(one, name) == value
    assert Where.of({"level": "warning"}).decide(one) is True


def labelled(one: Record, name: str) -> str:
    """The label that a counter gives the field."""
    config = {"counters": [{"name": "dotted", "labels": {"label": name}}]}
    sink = MetricsSink(MetricsSink.Config.model_validate(config), name="m")
    sink.open()
    try:
        sink.write([one])
        (family,) = [one for one in REGISTRY.collect() if one.name == "dotted"]
        (sample,) = [one for one in family.samples if one.name == "dotted_total"]
        return sample.labels["label"]
    finally:
        sink.close()


def test_a_key_with_a_dot_is_found_by_redact_as_well() -> None:
    one = record(b'{"user.email":"a@b.c","user":{"email":"d@e.f"}}')
    assert field("user.email")(one) == "a@b.c"
    hidden = b'{"user.email":"[redacted]","user":{"email":"[redacted]"}}'
    assert Redactor(["user.email"]).apply(one).body == hidden


BODY = b'{"level":"error","message":"x"}'
PACKED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "kombu, what it calls gzip": (zlib.compress(BODY), headers(compression="application/x-gzip")),
    "kombu, bz2": (bz2.compress(BODY), headers(compression="application/x-bz2")),
    "kombu, lzma": (lzma.compress(BODY), headers(compression="application/x-lzma")),
    "kombu, zstd": (zstandard.compress(BODY), headers(compression="application/zstd")),
    "GELF": (zlib.compress(BODY), {}),
    "deflate": (zlib.compress(BODY), {"content_encoding": "deflate"}),
}


@pytest.mark.parametrize(("body", "properties"), PACKED.values(), ids=PACKED)
def test_what_is_compressed_is_read_where_it_is_decoded(
    body: bytes, properties: dict[str, Any]
) -> None:
    properties = {"content_encoding": "utf-8"} | properties
    assert field("level")(record(body, **properties)) is None
    assert field("level")(record(body, **properties).decoded()) == "error"


def test_nan_is_null_with_a_mark() -> None:
    line = json_lines([SENT["structlog with NaN"].record])[0]
    assert json.loads(line)["body"]["load"] is None
    assert json.loads(line)["body_replaced"] == ["NaN"]


def test_a_timestamp_in_milliseconds_is_one() -> None:
    assert time_of(record(b"x", timestamp=int(AT) * 1000)) == AT
