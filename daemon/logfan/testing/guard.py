"""The guard of a private node: starts it, and ends it and all that it started.

A program of its own, run by its path with the standard library alone: `guard.py FOLDER EPMD
SERVER`; one of the two programs may be empty, as the nodes of a cluster share one EPMD. It reads
commands from its standard input, one a line (`start`, `stop`, `kill`, `state`, `pid`), and answers
each with one line. When that input closes, because the owner is done or was killed, it kills
everything that it started and removes FOLDER.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36


class Guard:
    """Keeps the broker and its port mapper (epmd), and knows every process they start."""

    def __init__(self, folder: str, epmd: str, server: str) -> None:
        self._folder = folder
        self._commands: list[list[str]] = []
        if epmd:
            port = os.environ["ERL_EPMD_PORT"]
            self._commands.append([epmd, "-port", port, "-address", "127.0.0.1"])
        if server:
            self._commands.append([server])
        self._running: subprocess.Popen[bytes] | None = None

    def serve(self) -> None:
        """Answer commands until the input ends, then clean up."""
        commands = {
            "start": self.start, "stop": self.stop, "kill": self.kill, "state": self.state,
            "pid": self.pid,
        }  # fmt: skip
        try:
            for line in sys.stdin:
                print(commands[line.strip()](), flush=True)  # noqa: T201 - the answer
        finally:
            self.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> str:
        """Start what is there to start; `started`, or why not."""
        log = os.open(f"{self._folder}/node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for command in self._commands:
                self._running = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        finally:
            os.close(log)
        return "started"

    def stop(self) -> str:
        """Let the broker close its files in order, within a deadline; then end the rest."""
        pid = _beam()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while pid is not None and _lives(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self.kill()

    def kill(self) -> str:
        """Kill our children until none is left: what they leave behind becomes our child."""
        while True:
            for pid in _family(direct=True):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return "ended"

    def state(self) -> str:
        """`running` or `ended`; far cheaper than a look at all processes."""
        if self._running is None or self._running.poll() is not None:
            return "ended"
        return "running"

    def pid(self) -> str:
        """The process id of Erlang's machine, 0 before it has one, or `ended`."""
        state = self.state()
        return state if state == "ended" else str(_beam() or 0)


def _beam() -> int | None:
    """The process of Erlang's virtual machine, once it is there."""
    return next((pid for pid, name in _family().items() if name.startswith("beam")), None)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] != "Z"
    return False


def _family(*, direct: bool = False) -> dict[int, str]:
    """Our descendants that live, or our children alone: their names by process id."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            head, _, tail = path.read_text(errors="replace").rpartition(")")
            state, parent = tail.split()[:2]
            if state != "Z":
                pid = int(path.parent.name)
                parents[pid], names[pid] = int(parent), head.partition("(")[2]
    ours: set[int] = set()
    found = {os.getpid()}
    while found:
        found = {pid for pid, parent in parents.items() if parent in found}
        ours |= found
        if direct:
            break
    return {pid: names[pid] for pid in sorted(ours)}


def main() -> None:
    """Take over as a guard; only ever run by its path."""
    # Orphans of ours become our children rather than init's, so that none is ever lost.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The owner ends us by closing our input; a stray signal must not end us before the node.
    # (Handled rather than ignored: what is ignored stays so in the programs that we start.)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    Guard(*sys.argv[1:]).serve()


if __name__ == "__main__":
    main()
