"""`/status.json`, `logfan status` and `logfan top` over an outage, on a real broker."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish, waiting
from support.command import LOGFAN, logfan
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.steady import SteadyPublisher
from support.waiting import wait_until

STEADY = """
import logfan, pathlib, time


class Steady(logfan.Sink):
    '''Takes 1,500 records a second while it is up, and refuses what is bad.'''

    def open(self):
        self.look()

    def write(self, records):
        self.look()
        time.sleep(len(records) / 1500)
        bad = {n: "too old" for n, one in enumerate(records) if one.body == b"bad"}
        if bad:
            raise logfan.RecordsRejected(bad)

    def look(self):
        if pathlib.Path("down").exists():
            raise logfan.SinkUnavailable("the store is away")


@logfan.hookimpl
def register_sinks(register):
    register("steady", Steady)
"""
SINKS = (
    '[sinks.store]\nkind = "steady"\nretry = { initial = "50ms", max = "200ms" }\n'
    "batch = { max_records = 100 }\n"
)
BACKLOG = 40_000
SETTLED_SECONDS = 17.0
"""The rates of the last 10 s, and looks at the queue that are as old, are all of the drain."""


class Desk:
    """A daemon, and what the operator sees of it."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self._down = daemon.folder / "down"

    def outage(self) -> None:
        self._down.touch()

    def over(self) -> None:
        self._down.unlink()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.daemon.get("/status.json")[1])
        return found

    @property
    def sink(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["sinks"][0]
        return found

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return logfan(*arguments, f"127.0.0.1:{self.daemon.port}")


@pytest.fixture
def desk(tmp_path: Path, node: RabbitNode, names: Names) -> Iterator[Desk]:
    add_drop_in(tmp_path, "steady", STEADY)
    daemon = DaemonProcess(tmp_path, node.url, names, SINKS)
    try:
        yield Desk(daemon)
    finally:
        daemon.kill()


def test_an_outage_since_when_how_much_and_how_long_until_it_is_drained(
    desk: Desk, node: RabbitNode, names: Names
) -> None:
    desk.daemon.start()
    publish(node.url, names.exchange, [b"first"])
    wait_until(lambda: desk.daemon.acked() == 1, "all is well")
    calm = desk.status()
    assert (calm["state"], calm["ready"], calm["sinks"][0]["state"]) == ("consuming", True, "up")
    assert desk.command("status").returncode == 0

    began = time.time()
    desk.outage()
    publish(node.url, names.exchange, [b"x" * 100] * BACKLOG)
    wait_until(lambda: desk.sink["state"] == "down", "the outage is seen")
    wait_until(lambda: (desk.status()["queue_ready"] or 0) >= BACKLOG - 1000, "the backlog is seen")
    stuck = desk.status()
    sink = stuck["sinks"][0]
    assert began - 0.1 < sink["since"] < time.time()
    assert (sink["held"], sink["failure"]) == (stuck["in_flight"], "the store is away")
    assert (stuck["ready"], stuck["time_to_drain_seconds"]) == (False, None)
    assert stuck["reasons"] == ["sink store is down: the store is away"]
    assert any("the store is away" in one["text"] for one in stuck["troubles"])
    shown = desk.command("status")
    assert shown.returncode == 1
    assert "NOT READY" in shown.stdout
    assert "the store is away" in shown.stdout
    assert " down=store\n" in first_line_of_top(desk)

    with SteadyPublisher([node.url], names.exchange, rate=200.0):
        over = time.time()
        desk.over()
        wait_until(lambda: desk.sink["state"] == "up", "it is up again")
        assert over - 0.1 < desk.sink["since"] < time.time()
        wait_until(lambda: lasting(desk) > SETTLED_SECONDS, "the rates are those of the drain")
        draining, asked = desk.status(), time.monotonic()
        predicted = draining["time_to_drain_seconds"]
        wait_until(lambda: waiting(node.url, names.queue) == 0, "it is drained")
        took = time.monotonic() - asked
    assert predicted == pytest.approx(took, rel=0.2)
    assert draining["sinks"][0]["rate"] == pytest.approx(1500.0, rel=0.3)
    assert draining["sinks"][0]["batch_seconds"] == pytest.approx(100 / 1500, rel=0.3)
    assert max(draining["history"]["acknowledged"]) == pytest.approx(1500.0, rel=0.3)


def lasting(desk: Desk) -> float:
    """For how long the sink is up."""
    status = desk.status()
    return float(status["now"] - status["sinks"][0]["since"])


def first_line_of_top(desk: Desk) -> str:
    process = subprocess.Popen(
        [*LOGFAN, "top", f"127.0.0.1:{desk.daemon.port}"],
        stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    process.kill()
    process.communicate()
    return line


def test_before_a_sink_opens_it_waits_and_while_it_stops_it_drains(
    desk: Desk, node: RabbitNode, names: Names
) -> None:
    desk.outage()
    desk.daemon.start(ready=False)
    wait_until(lambda: desk.daemon.get("/healthz")[0], "it serves")
    wait_until(lambda: desk.status()["state"] == "waiting", "it waits for the sink")
    waits = desk.status()
    assert (waits["sinks"][0]["state"], waits["received"]) == ("down", 0)
    assert "waiting for sink store to open" in waits["detail"]
    desk.over()
    wait_until(lambda: desk.status()["state"] == "consuming", "it consumes")
    assert desk.status()["since"] >= waits["since"]
    desk.outage()
    publish(node.url, names.exchange, [b"held"])
    wait_until(lambda: desk.sink["held"] == 1, "a message is held")
    desk.daemon.signal(signal.SIGTERM)
    wait_until(lambda: desk.status()["state"] == "draining", "it drains")
    assert desk.status()["reasons"][0] == "stopping"
    desk.over()
    assert desk.daemon.wait() == 0


def test_dead_letters_by_sink_and_reason(desk: Desk, node: RabbitNode, names: Names) -> None:
    desk.daemon.start()
    publish(node.url, names.exchange, [b"bad", b"good", b"bad", b"bad"])
    wait_until(lambda: desk.daemon.acked() == 4, "all is settled")
    status = desk.status()
    assert status["dead_letters"] == [{"sink": "store", "reason": "too old", "count": 3}]
    assert (status["sinks"][0]["dead_lettered"], status["sinks"][0]["written"]) == (3, 1)
    wait_until(lambda: desk.status()["dead_letters_waiting"] == 3, "they are counted")
