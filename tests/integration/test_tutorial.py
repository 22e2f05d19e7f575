"""The tutorial, step by step as a reader takes it, on a broker that is there."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode, free_port
from support.broker import add_vhost, delete_vhost
from support.forked import die_with_parent
from support.waiting import PATIENCE_SECONDS, wait_until

PAGE = (Path(__file__).parents[2] / "daemon/docs/tutorial.md").read_text()
BLOCKS = re.findall(r"(?:Write `(\S+)`:\n\n)?^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DONE_BY_THE_TEST = ("make run", ". .venv/bin/activate", "export ")
ACKNOWLEDGED = "logfan_acked_messages_total 2.0"


class Reader:
    """Types what the page shows, and starts and stops the daemon of the second terminal."""

    def __init__(self, home: Path, url: str) -> None:
        self.folder = home / "first"
        self.printed: dict[str, str] = {}
        self.log = home / "second-terminal"
        self._port = free_port()
        self._environ = {
            **os.environ, "HOME": str(home), "LOGFAN_RABBITMQ__URLS": f'["{url}"]',
            "LOGFAN_HTTP__LISTEN": f"127.0.0.1:{self._port}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self._daemon: subprocess.Popen[bytes] | None = None

    def follow(self, file: str, language: str, text: str) -> None:
        if language == "console":
            for line in text.splitlines():
                self._type(line.removeprefix("$ "))
        else:
            with (self.folder / (file or "config.toml")).open("a") as written:
                written.write(text)

    def _type(self, line: str) -> None:
        if line.startswith(DONE_BY_THE_TEST):
            return
        if line == "logfan run":
            self._start()
        elif line.startswith("curl"):
            wait_until(lambda: ACKNOWLEDGED in self._get("/metrics"), "both are acknowledged")
            self.printed[line] = self._get("/metrics")
        elif line.startswith("grep"):
            self.printed[line] = wait_until(lambda: self._shell(f"{line} || true"), line)
        else:
            if " critical " in line:
                self.stop()
            self.printed[line] = self._shell(line)

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                ["logfan", "run"], cwd=self.folder, env=self._environ, stdout=log, stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        wait_until(lambda: "consuming queue first" in self._status(), "it consumes")

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGINT)
            assert self._daemon.wait(PATIENCE_SECONDS) == 0, self.log.read_text()

    def kill(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    def _status(self) -> str:
        try:
            return self._get("/status.json")
        except OSError:
            return ""

    def _get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._port}{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())

    def _shell(self, line: str) -> str:
        folder = self.folder if self.folder.exists() else self.folder.parent
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder, env=self._environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(node: RabbitNode, tmp_path: Path) -> Iterator[Reader]:
    add_vhost(node, "tutorial")
    one = Reader(tmp_path, node.url_of("tutorial"))
    yield one
    one.kill()
    delete_vhost(node, "tutorial")


def test_the_tutorial_leads_where_it_says(reader: Reader) -> None:
    for file, language, text in BLOCKS:
        reader.follow(file, language, text)
    printed = {line: text for line, text in reader.printed.items() if text}
    check, mine, status, metrics, gone = (
        next(text for line, text in printed.items() if line.startswith(start))
        for start in ("logfan check", "grep mine", "logfan status", "curl", "grep gone")
    )
    assert "config.toml: ok" in check
    assert mine.count("\n") == mine.count('"message": "the disk is full"') == 1
    assert "READY" in status
    for outcome in ("written", "filtered"):
        assert f'logfan_sink_records_total{{outcome="{outcome}",sink="errors"}} 1.0' in metrics
    assert gone.count("the disk is gone") == 1
    wait_until(lambda: "{'critical': 1}" in reader.log.read_text(), "the tally counts it")
    reader.stop()
