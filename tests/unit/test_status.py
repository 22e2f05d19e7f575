"""`/status.json` of a daemon without a broker: the agreed keys, and what they hold."""

import json
import os
import re
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan.config.loader import prepare
from logfan.daemon import Daemon, _Signal
from support.drop_ins import add_drop_in
from support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "daemon/docs/status.md").read_text()
TROUBLED = '''
import threading, logfan

class Troubled(logfan.Sink):
    """Cannot be opened until it is let, and hangs in its first open."""
    returns, opens = threading.Event(), threading.Event()

    def open(self):
        self.returns.wait(60)
        if not self.opens.is_set():
            raise logfan.SinkUnavailable("the disk at amqp://bob:s3cret@host/ is \\x1b[2Jfull")

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("troubled", Troubled)
'''

KEYS: dict[str, Any] = {
    "version": str, "instance": str, "pid": int, "config": str, "started_at": float, "now": float,
    "state": str, "since": float, "ready": bool, "reasons": list, "received": int,
    "acknowledged": int, "redelivered": int, "requeued": int, "in_flight": int,
    "in_flight_bytes": int, "prefetch": int, "oldest_unacknowledged_seconds": float, "queue": str,
    "queue_ready": int | None, "dead_letters_waiting": int | None,
    "rate": {"received": float, "acknowledged": float, "published": float | None},
    "time_to_drain_seconds": float | None,
    "sinks": [{
        "name": str, "kind": str, "required": bool, "state": str, "since": float,
        "until": float | None, "failure": str | None,
        "written": int, "filtered": int, "rejected": int, "dropped": int,
        "dead_lettered": int, "retries": int, "held": int, "rate": float, "batch_seconds": float,
    }],
    "history": {
        "interval": float, "until": float, "received": list, "acknowledged": list,
        "queue_ready": list, "sinks": {"one": list, "two": list},
    },
    "troubles": [{"at": float, "text": str}],
    "dead_letters": [{"sink": str, "reason": str, "count": int}],
    "plugins": [{"kind": str, "origin": str}],
    "config_keys": dict,
}  # fmt: skip
"""As agreed; keys may be added, none is renamed."""


class Running:
    """A daemon on a thread, without a broker."""

    def __init__(self, folder: Path) -> None:
        plugins = add_drop_in(folder, "troubled", TROUBLED)
        self.config = folder / "config.toml"
        self.config.write_text(
            'instance = "blue"\nshutdown_timeout = "1s"\n'
            '[rabbitmq]\nurls = ["amqp://bob:s3cret@127.0.0.1:1"]\nprefetch = 77\n'
            '[http]\nlisten = "127.0.0.1:0"\n'
            f'[plugins]\ndirectories = ["{plugins}"]\n'
            '[sinks.one]\nkind = "troubled"\n[sinks.one.retry]\nmax = "250ms"\n'
            '[sinks.two]\nkind = "stdout"\nrequired = false\n'
        )
        prepared = prepare(self.config, environ={})
        self.daemon = Daemon(prepared, lambda: prepare(self.config, environ={}), environ={})
        self.sink: Any = self.daemon._pipeline.workers[0]._runner._sink
        self._thread = threading.Thread(target=self.daemon.run)
        self._thread.start()
        wait_until(lambda: self.daemon.metrics_port > 0, "it serves")

    def status(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.daemon.metrics_port}/status.json"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            found: dict[str, Any] = json.load(answer)
        return found

    def sink_status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["sinks"][0]
        return found

    def stop(self) -> None:
        self.sink.returns.set()
        self.daemon.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    yield one
    one.stop()


def check(value: Any, form: Any, place: str = "") -> None:
    if isinstance(form, dict):
        assert form.keys() <= value.keys(), place
        for key, inner in form.items():
            check(value[key], inner, f"{place}.{key}")
    elif isinstance(form, list):
        for one in value:
            check(one, form[0], f"{place}[]")
    else:
        assert isinstance(form, type | types.UnionType)
        assert isinstance(value, form), (place, value)


def test_it_has_the_agreed_keys(running: Running) -> None:
    wait_until(lambda: "connection refused" in running.status()["detail"], "it was refused")
    status = running.status()
    check(status, KEYS)
    assert (status["instance"], status["pid"]) == ("blue", os.getpid())
    assert (status["config"], status["prefetch"]) == (str(running.config), 77)
    assert (status["state"], status["ready"]) == ("connecting", False)
    assert any("connection refused" in one for one in status["reasons"])
    assert any("connection refused" in one["text"] for one in status["troubles"])
    assert [one["kind"] for one in status["plugins"]] == ["stdout", "troubled"]
    assert [one["origin"] for one in status["plugins"]][1].endswith("troubled.py")
    assert status["config_keys"]["sinks.two.required"] is False
    assert abs(status["now"] - time.time()) < 60
    assert status["started_at"] <= status["since"] <= status["now"]
    assert "s3cret" not in json.dumps(status)


def test_a_sink_is_opening_then_down_then_up_each_since_it_is(running: Running) -> None:
    opening = running.sink_status()
    assert (opening["state"], opening["failure"]) == ("opening", "not opened yet")
    running.sink.returns.set()
    wait_until(lambda: running.sink_status()["state"] == "down", "it is down")
    wait_until(lambda: running.sink_status()["retries"] > 1, "it is tried again")
    down = running.sink_status()
    assert (down["state"], down["required"]) == ("down", True)
    assert down["failure"] == "the disk at amqp://***@host/ is \\x1b[2Jfull"
    assert opening["since"] == pytest.approx(down["since"], abs=0.01), "it was never up"
    before = time.time()
    running.sink.opens.set()
    wait_until(lambda: running.sink_status()["state"] == "up", "it is up")
    up = running.sink_status()
    assert up["failure"] is None
    assert before - 0.01 < up["since"] < time.time()


def test_troubles_are_kept_over_a_reload(running: Running) -> None:
    text = running.config.read_text()
    wait_until(lambda: running.status()["troubles"], "the broker is away")
    running.sink.returns.set()
    running.config.write_text(text.replace("prefetch = 77", "prefetch = 78"))
    running.daemon._events.put(_Signal.RELOAD)
    wait_until(lambda: running.status()["prefetch"] == 78, "the new config is taken over")
    at = time.time()
    wait_until(
        lambda: any(one["at"] > at for one in running.status()["troubles"]),
        "what is logged after the reload is kept, too",
    )
    assert running.status()["config_keys"]["rabbitmq.prefetch"] == 78


def test_the_page_has_each_key(running: Running) -> None:
    wait_until(lambda: running.status()["troubles"], "the broker is away")
    status = {**running.status(), "dead_letters": KEYS["dead_letters"]}
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(.+?)`", " ".join(cells))) == sorted(leaves(status))


def leaves(value: Any, place: str = "") -> Iterator[str]:
    """The key of each value; what the config and the sinks name is one."""
    if isinstance(value, dict) and place not in ("config_keys", "history.sinks"):
        for key, inner in value.items():
            yield from leaves(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from leaves(value[0], f"{place}[]")
    else:
        yield place
