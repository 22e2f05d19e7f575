"""`logfan` as a process that has its imports behind it.

The start of Python and the imports of a daemon take 0.4 s of processor time, some hundreds of times
in a run. So each process that runs tests starts one Python, the template, which imports logfan and
waits. A call of `logfan` is a fork of it: a process of its own, with its own arguments, folder,
environment, descriptors and signals, that runs `python -m logfan` from there to the exit.
What Python or the C library reads at its start cannot be changed in a fork (`read_at_start`).
"""

import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NoReturn

import logfan_sinks

_AT_START = ("PYTHON", "LC_", "LANG", "MALLOC_", "LD_", "COVERAGE_", "TZ", "NO_COLOR")
_IMPORTS = (
    "logfan.daemon",
    "logfan.doctor",
    *(
        f"logfan.cli.{name}"
        for name in ("check", "dlq", "doctor_view", "emit", "run", "tap", "try_")
    ),
    *(f"logfan_sinks.{one.name}" for one in iter_modules(logfan_sinks.__path__)),
)
_CALL_BYTES = 128 << 10
_NUMBER = b"%8d"
"""How a template tells a process' id, and then its exit code."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Have this process killed when its parent ends: however a suite ends, it leaves no daemon."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def own_session() -> None:
    """Standard input is a terminal: have it for one's own, as a shell has it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_at_start(environ: Mapping[str, str]) -> bool:
    """Whether it differs from this process's in what is read once, at the start of a process."""
    names = (name for name in {*environ, *os.environ} if name.startswith(_AT_START))
    return any(environ.get(name) != os.environ.get(name) for name in names)


class Forked:
    """A running `logfan ARGUMENTS`, as far as `subprocess.Popen` has it."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path | None,
        environ: Mapping[str, str],
        streams: Sequence[int],
        *,
        session: bool,
        constants: Mapping[str, float],
    ) -> None:
        """`streams`: the descriptors that are to be its standard ones. `session`: of its own, with
        the terminal that standard input is. `constants`: what has another value in it, by its full
        name: a time that it waits for."""
        self.args = ["logfan", *arguments]
        self.returncode: int | None = None
        self._ended, tell = os.pipe()
        call = json.dumps(
            [[*arguments], str(folder or Path.cwd()), {**environ}, session, {**constants}]
        ).encode()
        _template().send(call, [*streams, tell])
        os.close(tell)
        self.pid = int(self._answer() or 0)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            self.returncode = int(self._answer() or -signal.SIGKILL)
            os.close(self._ended)
        return self.returncode

    def _answer(self) -> bytes:
        return os.read(self._ended, len(_NUMBER % 0))


class _Template:
    """The process that is forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._calls.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CALL_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        atexit.register(self._end)

    def send(self, call: bytes, descriptors: list[int]) -> None:
        with self._lock:
            socket.send_fds(self._calls, [call], descriptors)

    def _end(self) -> None:
        self._calls.close()
        self._process.wait()


@cache
def _template() -> _Template:
    return _Template()


# In the template


def _serve(calls: socket.socket) -> None:
    """Fork at each call. Returns in the forks alone, each of which is about to be a `logfan`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        call, descriptors, *_ = socket.recv_fds(calls, _CALL_BYTES, 4)
        if not call:
            sys.exit()
        if os.fork() == 0:
            break
        for number in descriptors:
            os.close(number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    calls.close()
    die_with_parent()
    *streams, tell = descriptors
    pid = os.fork()
    if pid:
        _watch(pid, tell)
    die_with_parent()
    os.close(tell)
    _become(call, streams)


def _watch(pid: int, tell: int) -> NoReturn:
    """The parent of a `logfan` waits for its end, and passes on how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(tell, _NUMBER % pid)
    _, status = os.waitpid(pid, 0)
    os.write(tell, _NUMBER % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(call: bytes, streams: Sequence[int]) -> None:
    """What a start of Python would do."""
    arguments, folder, environ, session, constants = json.loads(call)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if session:
        own_session()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        assert hasattr(sys.modules[module], constant), name
        setattr(sys.modules[module], constant, value)
    sys.path.insert(0, folder)
    sys.argv = ["logfan", *arguments]
    encoding = sys.stdout.encoding
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        buffering = 1 if name == "stderr" else -1
        stream = open(  # noqa: SIM115 - to the end
            number, "w" if number else "r", buffering, encoding=encoding, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    import_module("logfan.cli.descriptors").take_standard_ones()


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    for name in _IMPORTS:
        import_module(name)
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("logfan", run_name="__main__", alter_sys=True)
