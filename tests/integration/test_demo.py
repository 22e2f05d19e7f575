"""`logfan demo` as users see it: on a node of its own, or as a guest that leaves nothing behind."""

import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import EXCHANGES, QUEUES, Names, listed
from support.waiting import PATIENCE_SECONDS, wait_until

SINKS = (
    '[sinks.screen]\nkind = "stdout"\n'
    '[sinks.file]\nkind = "file"\npath = "out.jsonl"\nformat = "raw"\n'
)
LOGFAN = str(Path(sys.executable).with_name("logfan"))


class Demo:
    """A running demo on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self._terminal, inside = pty.openpty()
        self.process = subprocess.Popen(
            [LOGFAN, "demo", "--rate", "50", *arguments], cwd=folder,
            stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "TMPDIR": str(folder), **environ},
        )  # fmt: skip
        os.close(inside)
        os.set_blocking(self._terminal, False)
        self.seen = ""

    def shows(self, pattern: str) -> bool:
        """Whether it has printed this by now; fails where it ended without."""
        with suppress(OSError):
            while piece := os.read(self._terminal, 65536):
                self.seen += re.sub(r"\x1b\[[\d;]*m", "", piece.decode(errors="replace"))
        if re.search(pattern, self.seen) is not None:
            return True
        assert self.process.poll() is None, self.seen
        return False

    def wait(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> "re.Match[str]":
        wait_until(lambda: self.shows(pattern), f"the demo shows {pattern}", seconds)
        found = re.search(pattern, self.seen)
        assert found is not None
        return found

    def stop(self) -> str:
        """Ctrl-C; all that it showed."""
        self.process.send_signal(signal.SIGINT)
        self.wait("to go on, call")
        assert self.process.wait(PATIENCE_SECONDS) == 0
        assert "Traceback" not in self.seen
        return self.seen

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@contextmanager
def running(folder: Path, *arguments: str, **environ: str) -> Iterator[Demo]:
    demo = Demo(folder, *arguments, **environ)
    try:
        yield demo
    finally:
        demo.kill()


@pytest.fixture
def folder(tmp_path: Path, node: RabbitNode, names: Names) -> Path:
    """A config that leads to a broker which answers, under names that are in use there."""
    (tmp_path / "config.toml").write_text(
        f'[rabbitmq]\nurls = ["{node.url}"]\n[exchange]\nname = "{names.exchange}"\n'
        f'[queue]\nname = "{names.queue}"\n[plugins]\ndirectories = []\n'
        f'[http]\nlisten = "127.0.0.1:0"\n{SINKS}'
    )
    return tmp_path


def declared(node: RabbitNode) -> list[str]:
    """The name of every exchange and queue of the broker."""
    lines = listed(node, EXCHANGES, QUEUES)
    return [re.findall(r'<<(?:"([^"]*)")?>>', line)[1] for line in lines]


def test_the_demo_shows_the_main_job_on_a_node_of_its_own_and_leaves_nothing(
    folder: Path, node: RabbitNode
) -> None:
    before = declared(node)
    with running(folder) as demo:
        demo.wait(r"RabbitMQ [\d.]+ is up: amqp://guest:guest@127\.0\.0\.1:\d+/\S* \(user guest, p")
        emit = demo.wait(r"from a second terminal: (.*) hello")[1]
        demo.wait(r"metrics and status page: http://127\.0\.0\.1:\d+/")
        demo.wait(r"service=\w+ duration_ms=")
        subprocess.run(
            f"{emit} from-a-second-terminal", shell=True, cwd=folder, check=True,
            timeout=PATIENCE_SECONDS, capture_output=True,
        )  # fmt: skip
        demo.wait(r"\d\d:\d\d .*from-a-second-terminal")
        assert declared(node) == before
        demo.wait(r"\d+ published, \d+ received, \d+ acknowledged")
        seen = demo.stop()
        assert seen.index("the private RabbitMQ is removed") < seen.index("to go on, call")
        assert f"call {shlex.quote(LOGFAN)}" in seen
        counts = re.findall(r"([\d,]+) published, ([\d,]+) received, ([\d,]+) acknowl", seen)[-1]
        published, received, acknowledged = (int(count.replace(",", "")) for count in counts)
        assert received == acknowledged == published + 1, "each sample, and what was emitted"
    assert "from-a-second-terminal" in (folder / "out.jsonl").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["config.toml", "out.jsonl"]


def test_on_a_broker_of_somebody_the_names_are_the_demos_and_go_with_it(
    folder: Path, node: RabbitNode
) -> None:
    before = declared(node)
    with running(folder, "--broker") as demo:
        demo.wait(rf"using the broker at 127\.0\.0\.1:{node.port}: exchange and queue logfan-demo-")
        demo.wait(r"service=\w+ duration_ms=")
        added = set(declared(node)) - set(before)
        assert added
        assert all(name.startswith("logfan-demo-") for name in added), added
        seen = demo.stop()
    assert re.search(r"removed from 127\.0\.0\.1:\d+: exchange logfan-demo-\w+, queues", seen)
    assert "private RabbitMQ" not in seen
    assert declared(node) == before


def test_a_broker_that_is_away_or_refuses_is_reported_with_the_way_out(
    folder: Path, node: RabbitNode
) -> None:
    refused = node.url.replace("guest:guest", "guest:wr0ngPassw")
    for url, code, words in (
        ("amqp://127.0.0.1:1", 69, "connection refused"),
        (refused, 77, "refused the credentials"),
    ):
        done = subprocess.run(
            [LOGFAN, "demo", "--broker"], cwd=folder, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS,
            check=False, env={**os.environ, "LOGFAN_RABBITMQ__URLS": f'["{url}"]'},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "without --broker the demo starts a RabbitMQ of its own" in done.stderr
        assert "wr0ngPassw" not in done.stderr


def test_what_belongs_to_others_is_left_alone_and_what_leads_to_their_broker_is_not_needed(
    tmp_path: Path,
) -> None:
    """Files that are there and a port in use are left alone; neither a credential of the service's
    nor sound drop-ins are needed; and `emit` finds the way."""
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "broken.py").write_text("def broken(:\n")
    (tmp_path / "out.jsonl").write_text("somebody's\n")
    (tmp_path / "own.toml").write_text(
        f'[rabbitmq]\nurl_file = "nowhere"\n[plugins]\ndirectories = ["{plugins}"]\n{SINKS}'
        '[exchange]\nname = "other"\ndeclare = "passive"\n[queue]\ndeclare = "never"\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = f"0.0.0.0:{port}"
        with running(tmp_path, "--config", "own.toml", LOGFAN_HTTP__LISTEN=listen) as demo:
            demo.wait("warning.*broken.py: cannot be imported")
            demo.wait("what out.jsonl names is left alone")
            demo.wait(rf"port {port} of 127\.0\.0\.1: Address already in use; taking a free one")
            demo.wait("sink file writes logfan-demo/out.jsonl")
            emit = demo.wait(r"from a second terminal: (.*) hello")[1]
            demo.wait(r"service=\w+ duration_ms=")
            subprocess.run(
                f"{emit} from-a-second-terminal", shell=True, cwd=tmp_path, check=True,
                timeout=PATIENCE_SECONDS, capture_output=True,
            )  # fmt: skip
            demo.wait(r"\d\d:\d\d .*from-a-second-terminal")
            demo.stop()
    assert (tmp_path / "out.jsonl").read_text() == "somebody's\n"
    assert (tmp_path / "logfan-demo/out.jsonl").stat().st_size > 0


@pytest.mark.parametrize("samples", [pytest.param(0, marks=pytest.mark.long), 3])
def test_it_ends_with_the_program_that_reads_its_output(samples: int, folder: Path) -> None:
    """As `logfan demo | head`: while its broker starts, and while it shows samples."""
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace(SINKS, SINKS.partition("[sinks.file]")[0]))
    with subprocess.Popen(
        [LOGFAN, "demo"], cwd=folder, env={**os.environ, "TMPDIR": str(folder)}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert "starting a private RabbitMQ" in process.stderr.readline()
            wait_until(lambda: [*folder.glob("logfan-rabbitmq-*/node.log")], "the node starts")
            for _ in range(samples):
                assert process.stdout.readline()
            process.stdout.close()
            shown = process.stderr.read()
            assert process.wait(PATIENCE_SECONDS) == 0, shown
        finally:
            process.kill()
    assert "the private RabbitMQ is removed" in shown
    assert "Traceback" not in shown
    assert [one.name for one in folder.iterdir()] == ["config.toml"]
