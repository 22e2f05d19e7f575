"""The dashboard's expressions, asked of a real Prometheus that scrapes a real daemon."""

import json
import math
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from logfan.cli import main
from logfan.testing import debian
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, publish
from support.daemon import DaemonProcess, die_with_parent
from support.waiting import wait_until

SINKS = '[sinks.archive]\nkind = "file"\npath = "app.jsonl"\n'


class Prometheus:
    """Scrapes one daemon each second, and answers questions."""

    def __init__(self, program: Path, folder: Path, target: int) -> None:
        self.port = free_port()
        self._folder = folder
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "scrape_configs:\n  - job_name: logfan\n    static_configs:\n"
            f'      - targets: ["127.0.0.1:{target}"]\n'
        )
        self._command = [
            str(program), f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip

    @contextmanager
    def running(self) -> Iterator["Prometheus"]:
        with (self._folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                self._command, stdout=log, stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        try:
            yield self
        finally:
            process.kill()
            process.wait()

    def ask(self, expression: str) -> list[float]:
        """The values now; none where it does not answer yet."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=30
            ) as answer:
                found: Any = json.load(answer)
        except ConnectionError:
            return []
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it is starting
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        except urllib.error.URLError:
            return []
        return [float(one["value"][1]) for one in found["data"]["result"]]


def expressions(dashboard: Any) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "30s").replace("$instance", ".*") for one in found]


def test_every_expression_has_an_answer(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    try:
        program = debian.tool("prometheus", "usr/bin/prometheus")
    except debian.DebianUnavailable as error:
        pytest.skip(str(error))
    made = json.loads(CliRunner().invoke(main, ["generate", "dashboard"]).stdout)
    asked = expressions(made)
    assert len(asked) > 20
    with (
        DaemonProcess(tmp_path, node.url, names, SINKS) as daemon,
        Prometheus(program, tmp_path, daemon.port).running() as prometheus,
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
