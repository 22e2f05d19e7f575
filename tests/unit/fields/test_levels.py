"""The level of what real publishers send."""

import json
import time
from typing import Any

import pytest

from logfan.fields import level_named, level_of
from logfan.fields.levels import levels_of
from logfan.record import Record
from logfan.testing import record


def of(body: bytes | str | dict[str, Any], key: str = "", **headers: Any) -> Record:
    if isinstance(body, dict):
        body = json.dumps(body)
    body = body.encode() if isinstance(body, str) else body
    return record(body, routing_key=key, headers=headers)


TEXT = {
    "python logging": ("2026-11-26 00:13:53,181 CRITICAL plain: down", "critical"),
    "python logging, names between dashes": (
        "2026-11-26 00:13:53,181 - mqlogger - ERROR - it failed", "error",
    ),
    "python basicConfig": ("ERROR:root:it failed", "error"),
    "names between dashes without a time": ("mqlogger - WARNING - slow", "warning"),
    "celery": ("[2026-11-26 00:13:53,181: ERROR/MainProcess] Task failed", "error"),
    "gunicorn": ("[2026-11-26 00:13:53 +0000] [12] [ERROR] Worker failed", "error"),
    "uvicorn": ("INFO:     127.0.0.1:5000 - GET /error", "info"),
    "loguru": ("2026-11-26 00:13:53.181 | ERROR    | module:f:12 - it failed", "error"),
    "logback": ("00:13:53.181 [main] ERROR c.example.App - it failed", "error"),
    "logback, a level in the thread's name": ("00:13:53.181 [info-1] ERROR c.App - x", "error"),
    "log4j": ("2026-11-26 00:13:53,181 [http-1] WARN  c.example.App: slow", "warning"),
    "spring boot": ("2026-11-26T00:13:53.181+01:00 ERROR 1 --- [main] c.e.App : x", "error"),
    "elasticsearch": ("[2026-11-26T00:13:53,181][ERROR][o.e.b.Bootstrap] [n1] x", "error"),
    "zap console": ("2026-11-26T00:13:53.181Z\tERROR\tcaller.go:12\tit failed", "error"),
    "zap console, lower case": ("2026-11-26T00:13:53.181Z\terror\tcaller.go:12\tx", "error"),
    "tracing": ("2026-11-26T00:13:53.181234Z  WARN app::db: slow", "warning"),
    "tracing in colour": (
        "\x1b[2m2026-11-26T00:13:53.181Z\x1b[0m \x1b[31mERROR\x1b[0m app: x", "error",
    ),
    "slog": ('time=2026-11-26T00:13:53.181Z level=ERROR msg="it failed"', "error"),
    "slog with an offset": ("time=2026-11-26T00:13:53.181Z level=ERROR+4 msg=x", "error"),
    "slog default": ("2026/11/26 00:13:53 ERROR it failed", "error"),
    "logrus": ('time="2026-11-26T00:13:53Z" level=fatal msg="down"', "critical"),
    "logrus in colour": ("\x1b[31mERRO\x1b[0m[0000] it failed", "error"),
    "winston": ("error: it failed", "error"),
    "winston in colour": ("\x1b[31merror\x1b[39m: it failed", "error"),
    "RabbitMQ": ("2026-11-26 00:16:23.449417+00:00 [error] <0.1676.0> closing", "error"),
    "RabbitMQ, notice": ("2026-11-26 00:16:23.449417+00:00 [notice] <0.44.0> x", "info"),
    "nginx": ("2026/11/26 00:13:53 [crit] 12#12: *1 open() failed", "critical"),
    "apache": ("[Thu Nov 26 00:13:53.181234 2026] [core:error] [pid 12] AH00037", "error"),
    "postgresql": ("2026-11-26 00:13:53.181 UTC [123] FATAL:  role does not exist", "critical"),
    "mysql": ("2026-11-26T00:13:53.181234Z 0 [Warning] [MY-010068] [Server] CA", "warning"),
    "klog": ("E1126 00:13:53.181234       1 controller.go:12] it failed", "error"),
    "syslog, RFC 3164": ("<11>Nov 26 00:13:53 host app: it failed", "error"),
    "syslog, RFC 5424": ("<165>1 2026-11-26T00:13:53Z host app - - - x", "info"),
    "serilog text": ("[00:13:53 ERR] it failed", "error"),
    ".NET console": ("fail: Program[0] it failed", "error"),
    "java.util.logging": ("Nov 26, 2026 12:13:53 AM c.e.App main SEVERE: it failed", "error"),
    "the tutorial": ("info: Hello World!", "info"),
    "in brackets": ("[warn] slow", "warning"),
    "hclog": ("2026-11-26T00:13:53.181Z [ERROR] shop: it failed", "error"),
    "zap console, seconds": ("1.7959820281083722e+09\terror\tcaller.go:12\tit failed", "error"),
    "zerolog console": ("7:53PM ERR it failed", "error"),
    "java.util.logging as XML": ("<record>\n  <level>SEVERE</level>\n</record>", "error"),
    "no level": ("it is 00:13:53 and all is well", None),
    "no level, a path with a word": ("2026-11-26 00:13:53 GET /error/info 200", None),
    "no level, words that are names elsewhere": ("All done", None),
    "no level, a number": ("3 items", None),
    "empty": ("", None),
}  # fmt: skip


@pytest.mark.parametrize(("line", "level"), TEXT.values(), ids=TEXT)
def test_the_level_of_a_line_of_text(line: str, level: str | None) -> None:
    assert level_of(of(line)) == level
    assert level_of(of(line + "\n")) == level


def otlp(*records: dict[str, Any]) -> dict[str, Any]:
    """An export request of OpenTelemetry."""
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": [*records]}]}]}


JSON: dict[str, tuple[dict[str, Any], str | None]] = {
    "level": ({"level": "warn"}, "warning"),
    "structlog": ({"event": "x", "level": "critical"}, "critical"),
    "python-json-logger": ({"levelname": "ERROR", "message": "x"}, "error"),
    "severity": ({"severity": "Notice"}, "info"),
    "pino 10": ({"level": 10}, "debug"), "pino 20": ({"level": 20}, "debug"),
    "pino 30": ({"level": 30}, "info"), "pino 40": ({"level": 40}, "warning"),
    "pino 50": ({"level": 50, "msg": "x"}, "error"), "pino 60": ({"level": 60}, "critical"),
    "GELF 3": ({"version": "1.1", "short_message": "x", "level": 3}, "error"),
    "GELF 0": ({"short_message": "x", "level": 0}, "critical"),
    "GELF 4": ({"short_message": "x", "level": 4}, "warning"),
    "GELF 7": ({"short_message": "x", "level": 7}, "debug"),
    "syslog-ng": ({"PRIORITY": "err", "MESSAGE": "x"}, "error"),
    "journald": ({"PRIORITY": "3", "MESSAGE": "x"}, "error"),
    "journald, debug": ({"PRIORITY": "7", "MESSAGE": "x"}, "debug"),
    "loguru": ({"text": "…", "record": {"level": {"name": "ERROR", "no": 40}}}, "error"),
    "ECS flat": ({"log.level": "error", "message": "x"}, "error"),
    "ECS nested": ({"log": {"level": "error"}, "message": "x"}, "error"),
    "OpenTelemetry": ({"severityText": "ERROR", "severityNumber": 17}, "error"),
    "OpenTelemetry, snake": ({"severity_text": "Warn", "body": "x"}, "warning"),
    "OpenTelemetry, the number": ({"severityNumber": 17, "body": "x"}, "error"),
    "OpenTelemetry, the snake's number": ({"severity_number": 21}, "critical"),
    "serilog": ({"@t": "2026-11-26T00:13:53Z", "@mt": "x", "@l": "Error"}, "error"),
    "serilog, information": ({"@t": "2026-11-26T00:13:53Z", "@mt": "x"}, "info"),
    "serilog, fatal": ({"@t": "…", "@m": "x", "@l": "Fatal"}, "critical"),
    ".NET": ({"Level": "Warning"}, "warning"),
    ".NET console as JSON": ({"LogLevel": "Error", "Message": "x"}, "error"),
    "java.util.logging": ({"level": "SEVERE"}, "error"),
    "slog with an offset": ({"level": "ERROR+4"}, "error"),
    "zap": ({"level": "dpanic"}, "critical"),
    "fatal": ({"level": "fatal"}, "critical"), "emerg": ({"level": "emerg"}, "critical"),
    "alert": ({"level": "alert"}, "critical"),
    "logstash, old": ({"@fields": {"levelname": "ERROR"}, "@message": "x"}, "error"),
    "tracing": ({"level": "WARN", "fields": {"message": "x"}}, "warning"),
    "hclog": ({"@level": "error", "@message": "x"}, "error"),
    "tslog": ({"0": "x", "_meta": {"logLevelName": "ERROR", "logLevelId": 5}}, "error"),
    "logbook": ({"level": 14, "message": "x", "heavy_initialized": True}, "error"),
    "logbook, information": ({"level": 11, "message": "x", "heavy_initialized": True}, "info"),
    "logbook, notice": ({"level": 12, "message": "x", "heavy_initialized": True}, "info"),
    "logbook, beyond": ({"level": 16, "message": "x", "heavy_initialized": True}, "debug"),
    "pino, a level of one's own": ({"level": 14, "msg": "x"}, "debug"),
    "OTLP": (otlp({"severityNumber": 17}), "error"),
    "OTLP, several records": (otlp({"severityNumber": 17}, {"severityNumber": 9}), None),
    "OTLP, no records": (otlp(), None),
    "OTLP, not a request": ({"resourceLogs": [{"scopeLogs": [[7]]}]}, None),
    "a level of another kind": ({"level": "gold"}, None),
    "of no kind": ({"level": {"deep": [1]}}, None),
    "true": ({"level": True}, None),
    "huge": ({"level": 1e300}, None), "below": ({"level": -1}, None),
    "none": ({"message": "error: in the message"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("body", "level"), JSON.values(), ids=JSON)
def test_the_level_of_a_json_body(body: dict[str, Any], level: str | None) -> None:
    assert level_of(of(body)) == level


def test_the_body_then_the_headers_then_the_routing_key() -> None:
    assert level_of(of("it failed", level="ERROR")) == "error"
    assert level_of(of("it failed", key="logback.ERROR")) == "error"
    assert level_of(of({"message": "x"}, key="kern.critical")) == "critical"
    assert level_of(of("it failed", "a.info", level="ERROR")) == "error"
    assert level_of(of("warn: slow", "a.info", level="ERROR")) == "warning"
    assert level_of(of("", "a.b", PRIORITY="err")) == "error"
    assert level_of(of("plain", "orders.created")) is None
    assert level_of(of("plain", "orders.3")) is None


def test_a_routing_key_of_an_event_names_no_level() -> None:
    assert level_of(of("", "user.authentication.failure")) is None
    assert level_of(of("", "user.authentication.success")) is None
    assert level_of(of("plain", "order.log")) is None
    assert level_of(of("plain", "order.Warn")) == "warning"


def test_bytes_that_are_no_text_have_no_level() -> None:
    assert level_of(of(b"\x80\x04\x95\x05\0level\x94ERROR\x94")) is None
    assert level_of(of(b"\0\0 ERROR: it failed", "shop.info")) == "info"
    assert level_of(of(b"\x1b[31mERROR\x1b[0m\t: caf\xe9 failed\r\n")) == "error"


def test_text_in_a_declared_character_set_has_its_level() -> None:
    text = "error: café".encode("utf-16-le")
    assert level_of(record(text, content_type="text/plain; charset=utf-16le")) == "error"
    assert level_of(record(text)) is None


def test_syslogs_numbers_are_those_of_gelf_and_journald() -> None:
    levels = ["critical"] * 3 + ["error", "warning", "info", "info", "debug"]
    for number, level in enumerate(levels):
        assert level_of(of({"short_message": "x", "level": number})) == level
        assert level_of(of({"MESSAGE": "x", "PRIORITY": str(number)})) == level
        assert level_of(of("", PRIORITY=str(number))) == level
        assert level_of(of(f"<{16 * 8 + number}>1 2026-11-26T00:13:53Z web-1 app - - - x")) == level


def test_several_of_logbooks_numbers_at_once() -> None:
    trees = [{"level": number, "heavy_initialized": True} for number in (11, 14, 15, 9)]
    levels = ["info", "error", "critical", "debug"]
    assert levels_of([of(tree) for tree in trees], trees) == levels


def test_a_byte_order_mark_is_passed_over() -> None:
    assert level_of(of(b'\xef\xbb\xbf{"level":"error"}')) == "error"
    assert level_of(of(b"\xef\xbb\xbferror: x")) == "error"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("FATAL", "critical"),
        (" Warn ", "warning"),
        ("ERROR+4", "error"),
        ("3", "error"),
        ("x", None),
    ],
)
def test_the_name_of_a_level(name: str, level: str | None) -> None:
    assert level_named(name) == level


def test_hostile_text_takes_no_time() -> None:
    for piece in ("[", "<1", "- ", "| a ", "\x1b[", "1:11:11", "level=", "A", "\t"):
        assert level_of(of(piece * 200_000)) is None


@pytest.mark.parametrize("text", ["---" + "T" * 397, "T" * 400, "1T" * 200, ",T-" * 130])
def test_no_text_takes_long(text: str) -> None:
    """A few hundred bytes, in which a time might begin at thousands of places."""
    before = time.process_time()
    for _ in range(100):
        assert level_of(of(text)) is None
    assert time.process_time() - before < 0.1
