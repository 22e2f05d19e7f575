"""The status page in each state, and its pictures, which `make screenshots` takes anew."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from logfan.testing.debian import unpacked
from logfan.testing.versions import library_path
from support.browser import Browser, browsing
from support.status import NOW, document, served, sink
from support.waiting import wait_until

FOLDER = Path(__file__).parents[2] / "systemd"
_WHY = "search.example:9200: connection refused; attempt 14, next in 8.2 s"
_AWAY = "connection to rabbit1.example:5672 refused; next attempt in 4.1 s"
_FIELD = "400 mapper_parsing_exception: failed to parse field [duration_ms] of type [long]"


def _wave(until: int = 120, *, mean: float = 1200.0) -> list[float]:
    """Ten minutes of traffic, which ends after so many points."""
    wave = [mean * (1 + math.sin(n / 9) / 8 + math.sin(n / 2.3) / 25) for n in range(until)]
    return [*(round(value, 1) for value in wave), *[0.0] * (120 - until)]


def _history(until: int, waiting: Sequence[int | None]) -> dict[str, Any]:
    flow = _wave(until)
    few = _wave(until, mean=1.3)
    return {
        "interval": 5.0, "until": NOW, "received": flow, "acknowledged": flow,
        "queue_ready": list(waiting),
        "sinks": {"archive": flow, "numbers": flow, "search": flow, "pager": few},
    }  # fmt: skip


def _sinks(**search: Any) -> list[dict[str, Any]]:
    still = {"rate": 0.0, "batch_seconds": 0.0} if search else {}
    return [
        sink("archive", **{"rate": 1241.0, "written": 8_412_377, **still}),
        sink("numbers", **{
            "kind": "metrics", "required": False, "rate": 1241.0, "written": 8_412_377,
            "batch_seconds": 0.0021, **still,
        }),
        sink("search", **{
            "kind": "elasticsearch", "rate": 1241.0, "written": 8_411_363, "rejected": 14,
            "dead_lettered": 14, "batch_seconds": 0.041, **still, **search,
        }),
        sink("pager", **{
            "kind": "http", "rate": 1.4, "written": 8_911, "filtered": 8_403_466,
            "batch_seconds": 0.112, **still,
        }),
    ]  # fmt: skip


def _whole(**changes: Any) -> dict[str, Any]:
    return document(**{
        "instance": "", "version": "0.1.0",
        "detail": "consuming queue logfan at rabbit1.example:5672",
        "received": 8_413_377, "acknowledged": 8_412_377, "dead_letters_waiting": 14,
        "dead_letters": [
            {"sink": "search", "reason": _FIELD, "count": 12},
            {"sink": "search", "reason": "413: larger than http.max_content_length", "count": 2},
        ],
        "troubles": [
            {"at": NOW - 5300.0, "level": "warning", "count": 3,
             "text": "connection to rabbit1.example:5672 lost; next attempt in 0.5 s"},
            {"at": NOW - 1260.0, "level": "warning", "count": 1,
             "text": f"sink search refuses 12 records, which are dead-lettered: {_FIELD}"},
        ],
        "plugins": [
            {"kind": "elasticsearch", "origin": "logfan 0.1.0 (logfan_sinks.elasticsearch)"},
            {"kind": "file", "origin": "logfan 0.1.0 (logfan_sinks.file)"},
        ],
        "config_keys": {
            "rabbitmq.urls": "***", "rabbitmq.prefetch": 1000, "queue.name": "logfan",
            "sinks.archive.kind": "file", "sinks.archive.path": "logs/app.jsonl",
            "sinks.search.password_file": None,
        }, **changes,
    })  # fmt: skip


def up() -> dict[str, Any]:
    """All is well."""
    return _whole(
        in_flight=214, in_flight_bytes=61_234, oldest_unacknowledged_seconds=0.1, queue_ready=0,
        rate={"received": 1241.3, "acknowledged": 1240.8, "published": 1241.0},
        time_to_drain_seconds=0.0, sinks=_sinks(), history=_history(120, [0] * 120),
    )  # fmt: skip


def sink_down() -> dict[str, Any]:
    """A required sink is down, and holds the window."""
    lasts = 68
    news = f"sink search is down: {_WHY}"
    whole = _whole(
        ready=False, reasons=[news], in_flight=1000, in_flight_bytes=291_234,
        oldest_unacknowledged_seconds=lasts, queue_ready=81_204,
        rate={"received": 0.0, "acknowledged": 0.0, "published": 1196.4},
        time_to_drain_seconds=None,
        sinks=_sinks(state="down", since=NOW - lasts, failure=_WHY, held=1000, retries=14),
        history=_history(106, [*[0] * 106, *range(0, 84_000, 6_000)]),
    )  # fmt: skip
    whole["troubles"].append(
        {"at": NOW - lasts, "level": "error", "count": 1, "text": f"{news}; 1,000 messages wait"}
    )
    return whole


def broker_away() -> dict[str, Any]:
    """Nothing arrives."""
    return _whole(
        state="connecting", since=NOW - 95.0, detail=_AWAY, ready=False,
        reasons=[f"not consuming: {_AWAY}"], in_flight=0, in_flight_bytes=0, queue_ready=None,
        oldest_unacknowledged_seconds=0.0, dead_letters_waiting=None,
        rate={"received": 0.0, "acknowledged": 0.0, "published": None},
        time_to_drain_seconds=None, sinks=_sinks(rate=0.0),
        history=_history(101, [*[0] * 101, *[None] * 19]),
    )  # fmt: skip


def draining() -> dict[str, Any]:
    """It was asked to stop, and finishes what it holds."""
    return _whole(
        state="draining", since=NOW - 3.0, detail="draining", ready=False, reasons=["stopping"],
        in_flight=312, in_flight_bytes=80_000, queue_ready=0, time_to_drain_seconds=0.0,
        sinks=_sinks(held=312), history=_history(119, [0] * 120),
    )  # fmt: skip


STATES: dict[str, Callable[[], dict[str, Any]]] = {
    "up": up, "sink-down": sink_down, "broker-away": broker_away, "draining": draining,
}  # fmt: skip
_PICTURES = {
    "status-page.png": ("sink-down", 1280, False),
    "status-page-dark.png": ("up", 1280, True),
    "status-page-phone.png": ("broker-away", 390, False),
}


def show(browser: Browser, state: str, **how: Any) -> bytes:
    """The page in this state, and its picture once the script has filled it."""
    with served(STATES[state]()) as server:
        browser.open(f"{server.url}/", **how)
        wait_until(lambda: browser.text("#updated").startswith("As of"), "the page is filled")
        return browser.picture()


def _small(picture: bytes) -> bytes:
    """With 256 colours, a third of its size."""
    root = unpacked("pngquant")
    environ = {"LD_LIBRARY_PATH": library_path(root)}
    program = [str(root / "usr/bin/pngquant"), "--strip", "--nofs", "256", "-"]
    return subprocess.check_output(program, input=picture, env=environ)


def main() -> None:
    """Take them anew."""
    with browsing() as browser:
        for name, (state, width, dark) in _PICTURES.items():
            (FOLDER / name).write_bytes(_small(show(browser, state, width=width, dark=dark)))
            sys.stdout.write(f"systemd/{name}\n")


if __name__ == "__main__":
    main()
