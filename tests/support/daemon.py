"""A real `logfan run` as a process: configured, started, watched over HTTP, signalled, killed."""

import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from logfan.testing.node import free_port
from logfan.testing.started import Started
from support.broker import Names
from support.command import start
from support.forked import Forked
from support.http_get import get
from support.waiting import PATIENCE_SECONDS, wait_until

RAW = '[sinks.raw]\nkind = "file"\npath = "raw.log"\nformat = "raw"\n'
"""The sink of most tests."""


class DaemonProcess(Started):
    """One daemon in a folder of its own. As a context manager it is killed at the end."""

    def __init__(
        self,
        folder: Path,
        url: str,
        names: Names,
        sinks: str,
        *,
        extra: str = "",
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        forked: bool = True,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        """`sinks` and `extra` are TOML; `extra` may begin with keys of `[rabbitmq]`. `command`:
        other arguments than `run --config FILE`. `forked`, `constants`: see `support.forked`."""
        self.folder = folder
        self.port = free_port()
        self.names = names
        self.config = folder / "config.toml"
        self._command = command or ["run", "--config", str(self.config)]
        self._environ = {**os.environ, "LOGFAN_HTTP__LISTEN": f"127.0.0.1:{self.port}"}
        self._environ.update(environ or {})
        self._forked, self._constants = forked, constants
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self.log_path = folder / "daemon.log"
        self.configure(url, sinks, extra)

    def configure(self, url: str, sinks: str, extra: str = "") -> None:
        """Write the config file."""
        self.config.write_text(
            f'[exchange]\nname = "{self.names.exchange}"\n'
            f'[queue]\nname = "{self.names.queue}"\n'
            f'[plugins]\ndirectories = ["{self.folder}/plugins"]\n'
            f"{sinks}\n"
            f'[rabbitmq]\nurls = ["{url}"]\n{extra}\n'
        )

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it is ready."""
        with self.log_path.open("ab") as log:
            self._process = start(
                self._command, folder=self.folder, environ=self._environ,
                stdout=log.fileno(), stderr=log.fileno(), forked=self._forked,
                constants=self._constants,
            )  # fmt: skip
        if ready:
            self.wait_ready()

    @contextmanager
    def unready(self) -> Iterator[Self]:
        """Start it without waiting until it is ready; it is killed at the end."""
        self.start(ready=False)
        try:
            yield self
        finally:
            self.kill()

    def wait_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until /readyz answers 200."""
        wait_until(self.is_ready, lambda: f"the daemon is ready; its log:\n{self.log()}", seconds)

    def is_ready(self) -> bool:
        """Whether /readyz answers 200; fails where the daemon has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"the daemon ended ({self._process.returncode}):\n{self.log()}")
        return self.get("/readyz")[0] == 200

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def limit_files(self, size: int) -> None:
        """`ulimit -f` of the running process: no file grows beyond `size` bytes."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def log(self) -> str:
        """What it wrote to standard output and standard error."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET; status 0 where nothing listens."""
        return get(f"http://127.0.0.1:{self.port}{path}")

    def metric(self, name: str) -> float:
        """The value of one series, such as `logfan_acked_messages_total`; 0 where there is none."""
        match = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(match[1]) if match else 0.0

    def acked(self) -> int:
        """Messages acknowledged since its start."""
        return int(self.metric("logfan_acked_messages_total"))

    def memory_kib(self) -> int:
        """The most memory it ever held."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+)", status)
        assert match is not None
        return int(match[1])
