"""A `/status.json` as a daemon gives it, and a server for it, to be looked at with the commands."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from logfan.telemetry.http_server import HttpServer
from support.certificates import Pair

NOW = 1_764_000_100.0


def sink(name: str, **changes: Any) -> dict[str, Any]:
    """One that is up."""
    return {
        "name": name, "kind": "file", "required": True, "state": "up", "since": NOW - 7000.0,
        "until": None, "failure": None, "written": 5, "filtered": 0, "rejected": 0, "dropped": 0,
        "dead_lettered": 0, "retries": 0, "held": 0, "rate": 1203.4, "batch_seconds": 0.0042,
        **changes,
    }  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    """A daemon that is well."""
    return {
        "version": "9.9", "instance": "blue", "pid": 4711, "config": "/etc/logfan/config.toml",
        "started_at": NOW - 7500.0, "now": NOW, "state": "consuming", "since": NOW - 740.0,
        "detail": "consuming queue logfan at 127.0.0.1:5672", "ready": True, "reasons": [],
        "received": 100_000, "acknowledged": 99_000, "redelivered": 12, "requeued": 0,
        "abandoned": 0, "in_flight": 1000, "in_flight_bytes": 1_234_567, "prefetch": 1000,
        "oldest_unacknowledged_seconds": 741.0, "queue": "logfan", "queue_ready": 12_345,
        "dead_letters_waiting": 3,
        "rate": {"received": 1203.2, "acknowledged": 1190.0, "published": 1003.0},
        "time_to_drain_seconds": 65.0,
        "sinks": [sink("archive"), sink("metrics", required=False)],
        "history": {
            "interval": 5.0, "until": NOW, "received": [float(n) for n in range(120)],
            "acknowledged": [float(n) for n in range(120)], "queue_ready": [None] * 60 + [7] * 60,
            "sinks": {"archive": [None] * 60 + [8.0] * 60, "metrics": []},
        },
        "troubles": [{"at": NOW - 740.0, "text": "it was bad", "level": "warning", "count": 3}],
        "dead_letters": [{"sink": "archive", "reason": "not JSON", "count": 3}],
        "plugins": [], "config_keys": {}, **changes,
    }  # fmt: skip


@contextmanager
def served(
    status: Mapping[str, Any], *, port: int = 0, pair: Pair | None = None
) -> Iterator[HttpServer]:
    """The HTTP side of a daemon with this status, which may change meanwhile."""
    server = HttpServer(
        host="127.0.0.1", port=port, registry=CollectorRegistry(), unhealthy=list, unready=list,
        status=lambda: status, cert_file=pair.cert if pair else None,
        key_file=pair.key if pair else None,
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()
