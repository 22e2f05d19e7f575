"""A private RabbitMQ node: a real one, on loopback, in a temporary folder, gone when we are.

Serves `logfan demo`, the tests, the benchmarks, and plugin authors through `logfan.testing`.
Standard library only. The node listens on 127.0.0.1 alone, has a port mapper (epmd) of its own,
and ends with everything it started when this process ends, however that ends (see `guard`).
"""

import atexit
import json
import os
import random
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from logfan.testing import debian, guard, versions
from logfan.testing.started import Started

_CHOICE = "PRIVATE_RABBITMQ"
_SERVER = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
_START_SECONDS = 90.0
_CTL_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 2.0
_LOG_LINES = 15
_PORTS_FIRST, _PORTS_BLOCK = 10_000, 64
_PORTS: list[int] = []
"""Ports of these blocks that were not given out yet."""
_EVALUATED = "{ok, ok}"
"""What `erl_call` prints last where an expression had a value: the one of our `io:format`."""
_COUNTS = """
case rabbit_amqqueue:lookup(rabbit_misc:r(%s, queue, %s)) of
    {ok, Queue} ->
        Columns = [messages_ready, messages_unacknowledged, consumers],
        list_to_tuple([Count || {_, Count} <- rabbit_amqqueue:info(Queue, Columns)]);
    {error, not_found} -> none
end.
"""
_CLOSE_ALL = """
[catch rabbit_networking:close_connection(Pid, <<"closed by an operator">>)
 || [{pid, Pid}, {vhost, Vhost}] <- rabbit_networking:connection_info_all([pid, vhost]),
    Vhost =:= %s].
"""
_APPLICATIONS = re.compile(r"\{applications,\s*\[(.*?)\]", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TIME_AND_PROCESS = re.compile(r"^\d{4}-\S+ \S+ (\[\w+\]) <[\d.]+>")
# Erlang's own traffic stays on loopback, too; and idle schedulers do not spin, as the node shares
# its cores with what it serves.
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
_ERL = f"{_LOOPBACK} +sbwt none +sbwtdcpu none +sbwtdio none"


class NodeUnavailable(Exception):
    """No RabbitMQ can be run here; the text gives the reason and what to do instead."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """A queue, as the broker counts it: messages that wait, messages delivered and not yet
    acknowledged, and consumers."""

    ready: int
    unacked: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Membership:
    """What the nodes of one cluster share: Erlang's secret, and the port of one port mapper."""

    cookie: str
    epmd_port: int


class RabbitNode(Started):
    """One node. Use it as a context manager, or call `start` and, at last, `close`."""

    def __init__(
        self,
        *,
        port: int | None = None,
        config: Sequence[str] = (),
        plugins: Sequence[str] = (),
        version: str = "",
        root: Path | None = None,
        member: Membership | None = None,
    ) -> None:
        """Find a RabbitMQ and prepare its folder; nothing runs yet.

        `port`: for AMQP, by default a free one. `config`: further lines of rabbitmq.conf.
        `plugins`: RabbitMQ's plugins to enable, such as `rabbitmq_management`. `version`: one of
        `versions.SUITES`, fetched from that release of Debian; by default what the environment
        variable PRIVATE_RABBITMQ names, else the installed one, else this Debian's. `root`: a
        folder of unpacked Debian packages to run in place of all these. `member`: of a cluster,
        whose port mapper the cluster keeps (see `cluster`). Raises NodeUnavailable.
        """
        self._server, self._root = _find_server(version or os.environ.get(_CHOICE, ""), root)
        self.port = port or free_port()
        self.url = self.url_of("/")
        """Where to connect, as guest, to the default virtual host."""
        self._dist_port = free_port()
        self._epmd_port = member.epmd_port if member else free_port()
        self.name = name_of(self.port)
        """What Erlang calls the node."""
        self._folder = Path(tempfile.mkdtemp(prefix="logfan-rabbitmq-"))
        self._logged = 0
        try:
            self._link_plugins(plugins)
            self._write_config(config, plugins, member.cookie if member else secrets.token_hex(16))
            epmd = "" if member else self._mapper()
            self._guard = _start_guard(self._folder, self._environment(), epmd, self._server)
        except BaseException:  # Ctrl-C, too
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    @property
    def version(self) -> str:
        """RabbitMQ's version."""
        return self._server.parent.parent.name.partition("-")[2]

    @property
    def pid(self) -> int | None:
        """The process id of the broker (Erlang's virtual machine) while it runs."""
        answer = self._ask("pid")
        return int(answer) or None if answer.isdecimal() else None

    def url_of(self, vhost: str) -> str:
        """Where to connect, as guest, to this virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def start(self) -> None:
        """Start the node and wait until it speaks AMQP. Raises NodeUnavailable with its log."""
        if self._ask("state") != "ended":
            raise RuntimeError("the private RabbitMQ runs already")
        if not _is_free(self.port):
            raise NodeUnavailable(f"port {self.port} of 127.0.0.1 is in use")
        log = self._folder / "node.log"
        self._logged = log.stat().st_size if log.exists() else 0
        answer = self._ask("start")
        if answer != "started":
            raise NodeUnavailable(f"the private RabbitMQ cannot be started: {answer}")
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self.port):
            if self._ask("state") == "ended":
                raise NodeUnavailable(f"the private RabbitMQ ended at its start:\n{self._why()}")
            if time.monotonic() > deadline:
                raise NodeUnavailable(
                    f"the private RabbitMQ is not up after {_START_SECONDS:.0f} s:\n{self._why()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the node in order; its data stays for the next `start`."""
        self._ask("stop")

    def kill(self) -> None:
        """SIGKILL for the node and all it started; its data stays for the next `start`."""
        self._ask("kill")

    def restart(self) -> None:
        """`stop`, then `start` on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the node and remove its folder; nothing of it remains when this returns."""
        self._guard.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints for these arguments. Raises CalledProcessError."""
        done = subprocess.run(
            [self._server.with_name("rabbitmqctl"), "-q", "-n", self.name, *arguments],
            env=self._environment(), check=True, timeout=_CTL_SECONDS,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    def eval(self, code: str) -> str:
        """What Erlang prints of these expressions in the broker, then their value, as
        `rabbitmqctl eval` does, at a hundredth of its cost. Raises CalledProcessError."""
        program = shutil.which("erl_call", path=f"{self._root}/usr/lib/erlang/bin")
        if program is None:
            return self.ctl("eval", code)
        # -R: under a name that the node gives. Without it all have one, and refuse each other.
        done = subprocess.run(
            [program, "-R", "-address", f"127.0.0.1:{self._dist_port}", "-fetch_stdout", "-e"],
            env=self._environment(), check=True, timeout=_CTL_SECONDS,
            input=f'io:format("~p~n", [begin {code.strip().removesuffix(".")} end]).\n',
            capture_output=True, text=True,
        )  # fmt: skip
        if not done.stdout.endswith(_EVALUATED):
            raise subprocess.CalledProcessError(1, done.args, done.stdout, done.stderr)
        return done.stdout.removesuffix(_EVALUATED)

    def queues(self, *columns: str, vhost: str = "/") -> dict[str, dict[str, Any]]:
        """These columns of `rabbitmqctl list_queues`, by the queue's name."""
        listing = self.ctl("list_queues", "--formatter", "json", "-p", vhost, "name", *columns)
        return {row["name"]: row for row in json.loads(listing)}

    def counts(self, queue: str, *, vhost: str = "/") -> QueueCounts:
        """The queue's messages and consumers at this moment. Raises LookupError without it."""
        listed = self.eval(_COUNTS % (erlang_binary(vhost), erlang_binary(queue)))
        counts = re.findall(r"\d+", listed)
        if not counts:
            raise LookupError(f"the node has no queue {queue!r} in virtual host {vhost!r}")
        return QueueCounts(*map(int, counts))

    def ready(self, queue: str, *, vhost: str = "/") -> int:
        """How many messages wait in the queue."""
        return self.counts(queue, vhost=vhost).ready

    def unacked(self, queue: str, *, vhost: str = "/") -> int:
        """How many messages of the queue are delivered and not yet acknowledged."""
        return self.counts(queue, vhost=vhost).unacked

    def close_all_connections(self, *, vhost: str = "/") -> None:
        """Close every client's connection to the virtual host, as an operator would."""
        self.eval(_CLOSE_ALL % erlang_binary(vhost))

    def start_mapper(self) -> Callable[[], object]:
        """Start a port mapper alone, for the nodes of a cluster; returns what ends it."""
        folder = Path(tempfile.mkdtemp(prefix="logfan-epmd-"))
        keeper = _start_guard(folder, self._environment(), self._mapper(), "")
        _ask_guard(keeper, "start")
        return keeper.communicate

    def _mapper(self) -> str:
        return shutil.which("epmd", path=self._environment()["PATH"]) or "epmd"

    def _link_plugins(self, plugins: Sequence[str]) -> None:
        """Give the node those of RabbitMQ's libraries that it needs: Erlang looks for each module
        in all of them, which with the 70 of a release is a fifth of the start."""
        all_of_them = {
            folder.name.rpartition("-")[0]: folder
            for folder in self._server.parent.parent.glob("plugins/*-*/")
        }
        wanted = ["rabbit", *plugins]
        if not all_of_them.keys() >= set(wanted):
            return  # packed otherwise, or no such plugin: RabbitMQ knows best
        (linked := self._folder / "plugins").mkdir()
        while wanted:
            folder = all_of_them.pop(wanted.pop(), None)
            if folder is not None:
                (linked / folder.name).symlink_to(folder)
                for described in folder.glob("ebin/*.app"):
                    for names in _APPLICATIONS.findall(described.read_text()):
                        wanted += re.findall(r"\w+", names)

    def _write_config(self, config: Sequence[str], plugins: Sequence[str], secret: str) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(secret)
        cookie.chmod(stat.S_IRUSR)
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.console = true",
            "log.console.level = info",
            "log.file = false",
            *config,
        ]
        (self._folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines))
        (self._folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        # What the machine's administrator set for an installed broker is not for this one.
        (self._folder / "rabbitmq-env.conf").touch()
        (self._folder / "advanced.config").write_text("[].\n")

    def _environment(self) -> Mapping[str, str]:
        folder = self._folder
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERL,
            "RABBITMQ_CTL_ERL_ARGS": _ERL,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
        }
        if (folder / "plugins").exists():
            environment["RABBITMQ_PLUGINS_DIR"] = f"{folder}/plugins"
        if self._root != versions.INSTALLED:
            environment["PATH"] = f"{self._root}/usr/lib/erlang/bin:{environment['PATH']}"
        if libraries := versions.library_path(self._root):
            environment["LD_LIBRARY_PATH"] = libraries
        return environment

    def _ask(self, command: str) -> str:
        return _ask_guard(self._guard, command)

    def _why(self) -> str:
        """What the broker wrote since its start: its first errors, or else its last lines."""
        try:
            text = (self._folder / "node.log").read_bytes()[self._logged :].decode(errors="replace")
        except OSError:
            return "it wrote no log"
        lines = [_TIME_AND_PROCESS.sub(r"\1", line) for line in _COLOURS.sub("", text).splitlines()]
        errors = [line for line in lines if line.startswith("[error]")][:_LOG_LINES]
        return "\n".join(errors or lines[-_LOG_LINES:])


def erlang_binary(text: str) -> str:
    """The text as Erlang's binary, in its source form."""
    return f"<<{','.join(map(str, text.encode()))}>>"


def name_of(port: int) -> str:
    """What Erlang calls the node with this port."""
    return f"logfan-{port}@localhost"


def answers(port: int) -> bool:
    """Whether something at this port of 127.0.0.1 answers the AMQP 0-9-1 protocol header."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def free_port() -> int:
    """A free port of 127.0.0.1, below those that the kernel gives to outgoing connections; never
    the same one twice, neither in a process nor in two that live at the same time.

    So no other takes the port of a node or a daemon that is down for a moment, and a client that
    reconnects again and again to a port where nothing listens is not connected to itself.
    """
    while True:
        if not _PORTS:
            _reserve_ports()
        port = _PORTS.pop()
        # Erlang looks at all addresses before it listens for other nodes on one of them.
        if _is_free(port, "0.0.0.0"):  # noqa: S104 - it never listens
            return port


def _reserve_ports() -> None:
    """Take a block of ports that no other process of this machine has."""
    lowest_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    firsts = range(_PORTS_FIRST, max(lowest_of_kernel, 11_000) - _PORTS_BLOCK, _PORTS_BLOCK)
    for first in random.sample(firsts, k=len(firsts)):
        # A name without a file, taken while this process lives: free again however that ends.
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0logfan-ports-{first}")
        except OSError:
            reservation.close()
            continue
        atexit.register(reservation.close)
        _PORTS.extend(range(first, first + _PORTS_BLOCK))
        return
    raise NodeUnavailable(f"other processes have all ports of 127.0.0.1 from {firsts[0]} on")


def _is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        # As the broker does: connections that are about to be forgotten are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _start_guard(
    folder: Path, environment: Mapping[str, str], epmd: str, server: Path | str
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, folder, epmd, server],
        env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def _ask_guard(keeper: "subprocess.Popen[str]", command: str) -> str:
    """The guard's answer to one of its commands."""
    if keeper.stdin is None or keeper.stdout is None or keeper.stdin.closed:
        raise RuntimeError("the private RabbitMQ is closed")
    try:
        keeper.stdin.write(f"{command}\n")
        keeper.stdin.flush()
    except BrokenPipeError as error:
        raise NodeUnavailable("the private RabbitMQ's guard was ended by someone") from error
    return keeper.stdout.readline().strip()


def _find_server(version: str, root: Path | None) -> tuple[Path, Path]:
    """The server below `root`; else of the version; else the installed one; else Debian's."""
    if root is None and not version and any(versions.INSTALLED.glob(_SERVER)):
        root = versions.INSTALLED
    try:
        where = root or versions.fetched(version)
    except debian.DebianUnavailable as error:
        raise NodeUnavailable(_why_none(version, error)) from error
    for server in sorted(where.glob(_SERVER)):
        return server, where
    raise NodeUnavailable(f"{where} holds no rabbitmq-server; remove that folder and try again")


def _why_none(version: str, error: debian.DebianUnavailable) -> str:
    if version:
        return f"RabbitMQ {version} cannot be fetched ({error})"
    return (
        f"no RabbitMQ is installed and none can be fetched ({error}); install RabbitMQ "
        "(the package is mostly called rabbitmq-server), or use a broker of yours "
        "(logfan demo --broker)"
    )
