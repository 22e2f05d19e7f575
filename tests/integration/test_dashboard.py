"""The dashboard's expressions, asked of a real Prometheus that scrapes a real daemon."""

import json
import math
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from logfan.cli import main
from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.daemon import DaemonProcess
from support.prometheus import Prometheus
from support.waiting import wait_until

SINKS = '[sinks.archive]\nkind = "file"\npath = "app.jsonl"\n'


def expressions(dashboard: Any) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "30s").replace("$instance", ".*") for one in found]


def test_every_expression_has_an_answer(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    made = json.loads(CliRunner().invoke(main, ["generate", "dashboard"]).stdout)
    asked = expressions(made)
    assert len(asked) > 20
    with (
        DaemonProcess(tmp_path, node.url, names, SINKS) as daemon,
        Prometheus(tmp_path, daemon.port).running() as prometheus,
    ):
        wait_until(lambda: prometheus.ask("count(up)") == [1.0], "Prometheus has scraped once")

        def all_answered() -> bool:
            publish(node.url, names.exchange, (b"{}" for _ in range(50)))
            return not empty()

        def empty() -> list[str]:
            answers = {one: prometheus.ask(one) for one in asked}
            return [
                one for one, values in answers.items() if not values or any(map(math.isnan, values))
            ]

        wait_until(all_answered, "every expression has an answer that is a number")
        assert daemon.stop() == 0


def test_it_is_what_the_builder_makes() -> None:
    from support.dashboard import FILE, built

    assert FILE.read_text() == built(), "make docs writes it anew"
