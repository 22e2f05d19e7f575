"""The daemon under test: `logfan run`, or its mutant, through many lives in one folder."""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaos.checker import Kind, Source
from chaos.load import TESTS
from support.broker import Names
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.forked import die_with_parent
from support.waiting import wait_until

_SINKS = Path(__file__).parent / "sinks"
SHUTDOWN_SECONDS = 3
_FILES_MAX = 100_000

PREFETCH = 1000
SETTINGS = f"""
reconnect = {{ initial = "100ms", max = "2s" }}
heartbeat = "3s"
prefetch = {PREFETCH}
"""

SINKS = """
[sinks.raw]
kind = "file"
path = "{disk}/raw.log"
format = "raw"
rotate = {{ size = "2MiB", keep = {keep}, compress = "zstd" }}
retry = {{ initial = "50ms", max = "1s" }}
[sinks.json]
kind = "file"
path = "out.jsonl"
rotate = {{ size = "2MiB", keep = {keep}, compress = "gzip" }}
retry = {{ initial = "50ms", max = "1s" }}
[sinks.troubled]
kind = "troubled"
path = "troubled.log"
orders = "orders"
deeds = "deeds"
refuse = {refuse}
late = {late}
retry = {{ initial = "50ms", max = "1s" }}
[sinks.numbers]
kind = "metrics"
counters = [{{ name = "seen_total", labels = {{ level = "level" }} }}]
"""

LATE = 53
"""Every so-manieth record may be wanted later by the troubled sink."""


def is_late(sink: str, number: int) -> bool:
    """Whether the record of this number is one of those."""
    return sink == "troubled" and number % LATE == LATE - 1


class ChaosDaemon(DaemonProcess):
    """Three sinks that keep what they get, one that counts it, and a way to make one ill."""

    def __init__(
        self,
        folder: Path,
        url: str,
        names: Names,
        *,
        disk: Path | None = None,
        mutant: str = "",
        refuse: int = 0,
        other_urls: Sequence[str] = (),
    ) -> None:
        """`disk`: the folder of the raw file, else the daemon's own. `refuse`: see `Troubled`.
        `mutant`: the name of a defect of `chaos.mutated`; empty is the real daemon."""
        self.refuse = refuse
        self.disk = disk or folder
        self.mutant = mutant
        self.lives = 0
        sinks = SINKS.format(disk=self.disk, keep=_FILES_MAX, refuse=refuse, late=LATE)
        # Durable, as all that is to outlive the broker: without it a restart drops the binding.
        environ = {
            "LOGFAN_SHUTDOWN_TIMEOUT": f"{SHUTDOWN_SECONDS}s", "LOGFAN_EXCHANGE__DURABLE": "true",
        }  # fmt: skip
        urls = '", "'.join([url, *other_urls])
        super().__init__(folder, urls, names, sinks, extra=SETTINGS, environ=environ)
        add_drop_in(folder, "troubled", (_SINKS / "troubled.py").read_text())
        self.order("")

    @property
    def sources(self) -> list[Source]:
        """Where each sink keeps what it got."""
        kinds: list[tuple[str, Kind, Path]] = [
            ("raw", "raw", self.disk / "raw.log"),
            ("json", "json", self.folder / "out.jsonl"),
            ("troubled", "raw", self.folder / "troubled.log"),
        ]
        return [Source(*kind) for kind in kinds]

    def start(self, *, ready: bool = True) -> None:
        """Start it; each life has a log of its own."""
        self.lives += 1
        self.log_path = self.folder / f"daemon-{self.lives}.log"
        module = ["chaos.mutated", self.mutant] if self.mutant else ["logfan"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module, "run", "--config", str(self.config)],
                cwd=self.folder, env={**self._environ, "PYTHONPATH": str(TESTS)},
                stdout=log, stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        if ready:
            self.wait_ready()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def consuming(self) -> bool:
        return self.metric("logfan_consuming") == 1

    def is_flowing(self, acked_before: int) -> bool:
        """Whether it consumes and has acknowledged more than so many messages."""
        text = self.get("/metrics")[1]
        acked = re.search(r"^logfan_acked_messages_total (\S+)$", text, re.MULTILINE)
        consuming = "\nlogfan_consuming 1.0\n" in text
        return consuming and acked is not None and float(acked[1]) > acked_before

    @contextmanager
    def configured(self, old: str, new: str) -> Iterator[None]:
        """Change the file; the daemon is not asked to read it."""
        before = self.config.read_text()
        assert old in before
        self.config.write_text(before.replace(old, new, 1))
        try:
            yield
        finally:
            self.config.write_text(before)

    # Orders for the sink

    def order(self, word: str) -> None:
        """What the troubled sink is to do from its next write on."""
        new = self.folder / "orders.new"
        new.write_text(word)
        new.rename(self.folder / "orders")

    def deeds(self, deed: str) -> int:
        """How often it did so."""
        path = self.folder / "deeds"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(line.split()[0] == deed for line in lines)

    def wait_deed(self, deed: str, count: int) -> None:
        """Wait until it was done so often: a fault that did not happen proves nothing."""
        wait_until(lambda: self.deeds(deed) >= count, f"the sink did {deed!r}")

    # What the system may do to a process

    def stopped_by_signal(self) -> bool:
        """Whether SIGSTOP has it."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    @contextmanager
    def files_limited(self, size: int) -> Iterator[None]:
        """No file of it may grow past this size (RLIMIT_FSIZE): a full disk for any user."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))

    def sink_troubles(self) -> dict[str, str]:
        """What the status page shows of the sinks that are down."""
        code, text = self.get("/readyz")
        if code != 503:
            return {}
        reasons = " ".join(json.loads(text).get("reasons", [text]))
        return {name: reasons for name in ("raw", "json", "troubled") if f"sink {name} " in reasons}

    def terminate(self) -> int:
        """TERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()
