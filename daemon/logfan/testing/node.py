"""A private RabbitMQ node: a real one, on loopback, in a temporary folder, gone when we are.

Serves `logfan demo`, the tests, the benchmarks, and plugin authors through `logfan.testing`.
Standard library only. The node listens on 127.0.0.1, has a port mapper (epmd) of its own, and is
killed with everything it started when this process ends, however it ends.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from logfan.testing import debian

_INSTALLED = Path("/")
_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_CTL_SECONDS = 60.0
_POLL_SECONDS = 0.05

# Kills all that the node started when its standard input closes: when we say so, or die. Where we
# died without a word it removes the folder, too.
_GUARD = """
import os, shutil, signal, subprocess, sys
folder, epmd, server = sys.argv[1:]
log = os.open(folder + "/node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
mapper = subprocess.Popen([epmd, "-port", os.environ["ERL_EPMD_PORT"], "-address", "127.0.0.1"],
                          stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
node = subprocess.Popen([server], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        process_group=mapper.pid)
keep = sys.stdin.buffer.read()
os.killpg(mapper.pid, signal.SIGKILL)
node.wait()
mapper.wait()
if not keep:
    shutil.rmtree(folder, ignore_errors=True)
"""


class NodeUnavailable(Exception):
    """No RabbitMQ can be run here; the text says why and what to do instead."""


class RabbitNode:
    """One node. Use it as a context manager, or call `start` and `close`."""

    def __init__(self, *, port: int | None = None, config: Sequence[str] = ()) -> None:
        """`port`: for AMQP, a free one by default. `config`: further lines of rabbitmq.conf."""
        self.port = port or _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        """Where to connect, as guest."""
        self._config = config
        self._dist_port = _free_port()
        self._epmd_port = _free_port()
        self._name = f"logfan-{self.port}@localhost"
        self._server, self._root = _find_server()
        self._folder = Path(tempfile.mkdtemp(prefix="logfan-rabbitmq-"))
        self._log = self._folder / "node.log"
        self._guard: subprocess.Popen[bytes] | None = None
        self._prepare()

    @property
    def version(self) -> str:
        """RabbitMQ's version."""
        match = re.search(r"rabbitmq_server-([^/]+)", str(self._server.resolve()))
        return match[1] if match else "unknown"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the node and wait until it speaks AMQP. Raises NodeUnavailable with its log."""
        self._spawn()
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if not self._beam_lives() and time.monotonic() > deadline - _START_SECONDS + 10:
                raise NodeUnavailable(f"the private RabbitMQ did not start: {self._tail()}")
            if time.monotonic() > deadline:
                raise NodeUnavailable(f"the private RabbitMQ is not up in time: {self._tail()}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the node in order; its data stays for the next `start`."""
        pid = self._beam_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_SECONDS
            while _lives(pid) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for the node and all it started; its data stays for the next `start`."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        with contextlib.suppress(BrokenPipeError):
            guard.communicate(b"keep")
        pid = self._beam_pid()
        while pid is not None and _lives(pid):
            time.sleep(_POLL_SECONDS)
        (self._folder / "pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """`stop`, then `start` on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the node and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def answers(self) -> bool:
        """Whether it speaks AMQP."""
        return answers("127.0.0.1", self.port)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints for these arguments. Raises CalledProcessError."""
        tool = self._server.with_name("rabbitmqctl")
        done = subprocess.run(
            [str(tool), "-q", "-n", self._name, *arguments], env=self._environment(), check=True,
            timeout=_CTL_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    def unacked(self, queue: str) -> int:
        """How many messages of the queue the broker holds as delivered and not acknowledged."""
        return self._count(queue, "messages_unacknowledged")

    def ready(self, queue: str) -> int:
        """How many messages wait in the queue."""
        return self._count(queue, "messages_ready")

    def close_all_connections(self) -> None:
        """Close every client's connection, as an operator would."""
        self.ctl("close_all_connections", "closed by a test")

    def _count(self, queue: str, column: str) -> int:
        for line in self.ctl("list_queues", "--no-table-headers", "name", column).splitlines():
            name, _, count = line.rpartition("\t")
            if name == queue:
                return int(count)
        raise LookupError(f"the node has no queue {queue!r}")

    def _prepare(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(stat.S_IRUSR)
        (self._folder / "rabbitmq.conf").write_text(
            "\n".join(
                [
                    f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                    "log.console = true",
                    "log.console.level = info",
                    "log.file = false",
                    *self._config,
                    "",
                ]
            )
        )
        (self._folder / "enabled_plugins").write_text("[].\n")

    def _environment(self) -> Mapping[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            # No spinning schedulers: the node shares its cores with what is tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
        }
        if self._root != _INSTALLED:
            environment["PATH"] = f"{self._root}/usr/lib/erlang/bin:{environment['PATH']}"
            libraries = sorted({str(p.parent) for p in self._root.glob("usr/lib/*-linux-*/*.so*")})
            if libraries:
                environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        return environment

    def _spawn(self) -> None:
        if self._guard is not None:
            raise RuntimeError("the node runs already")
        environment = self._environment()
        epmd = shutil.which("epmd", path=environment["PATH"]) or "epmd"
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(self._folder), epmd, str(self._server)],
            env=environment, cwd=self._folder, stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def _beam_pid(self) -> int | None:
        try:
            return int((self._folder / "pid").read_text())
        except (OSError, ValueError):
            return None

    def _beam_lives(self) -> bool:
        pid = self._beam_pid()
        return pid is not None and _lives(pid)

    def _tail(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return "\n" + "\n".join(lines[-15:])


def answers(host: str, port: int, seconds: float = 2.0) -> bool:
    """Whether something at the address answers the AMQP 0-9-1 protocol header."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _find_server() -> tuple[Path, Path]:
    """The installed `rabbitmq-server`, else Debian's unpacked one; with its root."""
    for candidate in _INSTALLED.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"):
        return candidate, _INSTALLED
    try:
        root = debian.unpacked("rabbitmq-server", always=("erlang-",), finish=_relocate)
    except debian.DebianUnavailable as error:
        raise NodeUnavailable(
            f"no RabbitMQ is installed and none can be fetched ({error}); install RabbitMQ (the "
            "package is mostly called rabbitmq-server), or set rabbitmq.urls to a broker that runs"
        ) from error
    for candidate in root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"):
        return candidate, root
    raise NodeUnavailable(f"the package in {root} holds no rabbitmq-server; remove that folder")


def _relocate(new: Path, final: Path) -> None:
    """Erlang's start script holds the path that it was built for."""
    script = new / "usr/lib/erlang/bin/erl"
    text = script.read_text()
    script.write_text(text.replace("/usr/lib/erlang", f"{final}/usr/lib/erlang"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
