"""The alert rules in a real Prometheus that scrapes a real daemon, through a scripted outage of
each part. Its clock runs sixty times as fast: a minute of the rules is a second here."""

import re
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.amqp.broker_features import keeps_transient_exchanges
from logfan.cli import main
from logfan.testing.node import RabbitNode
from support.broker import Names, channel, publish
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.prometheus import Prometheus
from support.waiting import wait_until

SINKS = """
[sinks.archive]
kind = "file"
path = "app.jsonl"

[sinks.switched]
kind = "switched"
retry = { initial = "100ms", max = "200ms" }

[sinks.optional]
kind = "switched"
required = false
batch.max_records = 10
retry = { initial = "100ms", max = "200ms" }
"""
SWITCHED = """
import pathlib

import logfan


class Switched(logfan.Sink):
    def write(self, records):
        if pathlib.Path(f"{self.name}-down").exists():
            raise logfan.SinkUnavailable("it is down")
        refused = {n: "refused" for n, one in enumerate(records) if one.body == b"bad"}
        if refused and self.name == "switched":
            raise logfan.RecordsRejected(refused)


@logfan.hookimpl
def register_sinks(register):
    register("switched", Switched)
"""


def sixty_times_as_fast(rules: str) -> str:
    """Minutes and hours become seconds, and so do the thresholds that are seconds."""
    rules = re.sub(r"\b(\d+)m\b", r"\1s", rules).replace("[1h]", "[60s]")
    assert rules.count("> 300") == rules.count("> 600") == 1
    return rules.replace("> 300", "> 5").replace("> 600", "> 10")


class Watch:
    """When which alert fires, in a table."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.rows: list[str] = []

    def expect(self, cause: str, *expected: str, among: Collection[str] = ()) -> None:
        """Wait until all of these fire, and note when each did. No other fires meanwhile, but for
        those of `among`."""
        began = time.monotonic()
        seen: dict[str, float] = {}
        fire_already = self._prometheus.firing()

        def all_fire() -> bool:
            for name in self._prometheus.firing() - seen.keys():
                assert name in {*expected, *among}, f"{cause}: {name} fires"
                seen[name] = time.monotonic() - began
            return seen.keys() >= set(expected)

        wait_until(all_fire, f"{cause}: {expected} fire, not only {seen}")
        self.rows += [
            f"| {cause} | `{name}` | {seconds:.0f} s |"
            for name, seconds in seen.items()
            if name not in fire_already
        ]

    def quiet(self, but: Collection[str] = ()) -> None:
        """Wait until none fires, but those of which the window is not over."""
        wait_until(lambda: self._prometheus.firing() <= set(but), f"none fires but {but}")


@pytest.mark.long
def test_which_alert_fires_when(own_node: RabbitNode, names: Names, tmp_path: Path) -> None:
    add_drop_in(tmp_path, "switched", SWITCHED)
    rules = sixty_times_as_fast(CliRunner().invoke(main, ["generate", "alerts"]).stdout)
    daemon = DaemonProcess(tmp_path, own_node.url, names, SINKS, extra="prefetch = 10")
    prometheus = Prometheus(tmp_path, daemon.port, rules)
    with daemon, prometheus.running():
        watch = Watch(prometheus)
        wait_until(lambda: prometheus.ask("count(up)") == [1.0], "Prometheus has scraped once")

        def send(body: bytes) -> None:
            publish(own_node.url, names.exchange, [body])

        send(b"good")
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")

        (tmp_path / "optional-down").touch()
        for _ in range(20):
            send(b"good")
        watch.expect(
            "an optional sink is down", "LogfanDropsRecords", "LogfanSinkDown",
        )  # fmt: skip
        (tmp_path / "optional-down").unlink()
        watch.quiet()

        (tmp_path / "switched-down").touch()
        send(b"good")
        watch.expect(
            "a sink is down", "LogfanSinkDown", "LogfanStuck", among=["LogfanNotConsuming"]
        )
        (tmp_path / "switched-down").unlink()
        wait_until(lambda: daemon.acked() == 22, "all is acknowledged")
        watch.quiet()

        send(b"bad")
        watch.expect("a record is refused", "LogfanDeadLetters")
        with channel(own_node.url) as admin:
            admin.queue_purge(f"{names.queue}.dead")
        watch.quiet()

        own_node.stop()
        watch.expect("the broker is away", "LogfanNotConsuming", "LogfanReconnects")
        own_node.start()
        if keeps_transient_exchanges(tuple(map(int, own_node.version.split(".")[:2]))):
            with channel(own_node.url) as admin:
                admin.exchange_delete(names.exchange)
        # Others forget it by themselves, as it is not durable, and the binding with it.
        watch.expect(
            "the broker is back, without the exchange", "LogfanBindingLost",
            among=["LogfanNotConsuming", "LogfanReconnects"],
        )  # fmt: skip
        lasting = ["LogfanBindingLost", "LogfanReconnects"]  # of the last hour, and half of one
        watch.quiet(but=lasting)

        daemon.kill()
        watch.expect("the daemon is away", "LogfanDown", among=lasting)
    print("", *watch.rows, sep="\n")
