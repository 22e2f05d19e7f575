"""Any value at any place of a config gives a clear fault, or is taken: never a traceback."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from logfan.config.loader import prepare
from logfan.faults import Faults

Place = tuple[str | int, ...]
CONFIG: dict[str, Any] = {
    "instance": "a", "shutdown_timeout": "3s", "watch": True,
    "rabbitmq": {
        "urls": ["amqp://guest:guest@localhost/%2F"], "prefetch": 100, "heartbeat": "30s",
        "tls": {"verify": True}, "reconnect": {"initial": "1s", "max": "3s"},
        "management_url": "http://localhost:1",
    },
    "exchange": {"name": "logs", "type": "fanout", "durable": True, "declare": "auto"},
    "queue": {
        "name": "q", "type": "quorum", "arguments": {"x-max-length": 3}, "delivery_limit": 3,
        "routing_keys": ["a"],
    },
    "dead_letter": {"queue": "d", "enabled": True, "max_ratio": 0.5},
    "http": {"listen": "127.0.0.1:0"}, "log": {"level": "info", "format": "text"},
    "plugins": {"directories": [], "disabled": []},
    "sinks": {
        "file": {
            "kind": "file", "path": "{routing_key}.log", "format": "json", "linger": "1s",
            "rotate": {"size": "1MB"}, "sample": 0.1, "required": False, "max_records": 3,
            "where": {"level": ["error"], "ms": {"above": 3}, "m": {"matches": "a.*"}},
            "redact": {"paths": ["a.b"], "patterns": ["email", "(?i)x"], "with": "[x]"},
        },
        "stdout": {"kind": "stdout", "format": "text", "decode": "auto"},
        "metrics": {
            "kind": "metrics", "gauges": [{"name": "g", "value": "x"}],
            "counters": [{"name": "a_total", "labels": {"l": "level"}}],
            "histograms": [{"name": "h", "value": "ms", "buckets": [1, 2]}],
        },
        "http": {"kind": "http", "url": "http://localhost:1/{routing_key}", "headers": {"a": "b"}},
        "elasticsearch": {"kind": "elasticsearch", "url": "http://localhost:1", "index": "a"},
        "loki": {"kind": "loki", "url": "http://localhost:1", "labels": {"a": "level"}},
        "otlp": {"kind": "otlp", "url": "http://localhost:1"},
        "kafka": {"kind": "kafka", "brokers": ["a:1"], "topic": "t", "key": "{routing_key}"},
        "s3": {"kind": "s3", "bucket": "b", "prefix": "p/"},
        "postgres": {"kind": "postgres", "dsn": "host=x", "table": "t"},
        "amqp": {"kind": "amqp", "url": "amqp://a:b@h/", "exchange": "e"},
        "syslog": {"kind": "syslog", "address": "udp://localhost:514"},
        "sqlite": {"kind": "sqlite", "path": "x.db", "table": "t"},
    },
}  # fmt: skip
ODD: list[Any] = [
    "", " ", "x" * 70_000, "\0", "é\u202e", "{", "{}", "{a..b}", ".", "a..b", "(?P<", "%", "/", "~",
    "~nobody", "../..", "http://[", "http://a:99999", "amqp://[::1", "1e999s", "9" * 30 + "d",
    "1PB", "{date:%Q}", -1, 0, 2**63, 2**70, 1.5, float("nan"), float("inf"), True, [], [[]], [{}],
    {}, {"": 1}, {"a": {}}, ["a", "a"],
]  # fmt: skip


def places(table: Any, above: Place = ()) -> Iterator[Place]:
    """Where a value stands, tables and lists among them."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table)
    for key, value in pairs:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def toml(value: Any) -> str:
    """As TOML writes it."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)


@settings(max_examples=int(os.environ.get("LOGFAN_MACHINE_EXAMPLES", "40")), deadline=None)
@example([(("sinks", "s3", "kind"), "x" * 70_000)])
@given(
    st.lists(
        st.tuples(st.sampled_from([*places(CONFIG)]), st.sampled_from(ODD)), min_size=1, max_size=3
    )
)
def test_any_value_at_any_place_is_taken_or_named(changes: list[tuple[Place, Any]]) -> None:
    config = deepcopy(CONFIG)
    for (*above, key), value in changes:
        inner: Any = config
        for one in above:
            inner = inner.get(one) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[key] = deepcopy(value)
    with TemporaryDirectory() as folder:
        file = Path(folder, "config.toml")
        file.write_text("\n".join(f"{key} = {toml(value)}" for key, value in config.items()))
        with suppress(Faults):
            assert prepare(file).sinks
