"""A private Prometheus on loopback: Debian's, unpacked."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from logfan.testing import debian
from logfan.testing.node import free_port
from support.forked import die_with_parent
from support.needed import needed


class Prometheus:
    """Scrapes one daemon each second, and answers questions."""

    def __init__(self, folder: Path, target: int, rules: str = "") -> None:
        """`target`: the port of the daemon. `rules`: alert rules, as YAML. Skips the test where
        there is no Prometheus."""
        with needed():
            program = debian.tool("prometheus", "usr/bin/prometheus")
        self.port = free_port()
        self._folder = folder
        config = folder / "prometheus.yml"
        (folder / "rules.yml").write_text(rules or "groups: []\n")
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yml]\n"
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
        found = self._get("query", {"query": expression})
        return [float(one["value"][1]) for one in found.get("result", ())]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self._get("alerts", {}).get("alerts", ())
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=30
            ) as answer:
                return json.load(answer)["data"]
        except ConnectionError:
            return {}
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it is starting
                return {}
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        except urllib.error.URLError:
            return {}
