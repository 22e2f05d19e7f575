"""`python -m bench.desk [RATE=1000] [SECONDS=20] [TURNS=5] [ROWS=alone,all]`: does who looks slow
the road down?

In turns a message's time from publish to acknowledged is measured with nothing open, and with what
an operator may have open: a status page, `logfan top`, a scrape a second, `logfan tap`, or all of
them. `other` is the control: all of them look at another daemon, which has no messages, so that
they take the same from the machine and nothing from the daemon that is measured. Medians of the
turns.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import entrants, latency
from bench.clocks import CpuClock
from bench.entrants import LOGFAN, Start
from bench.results import Latency
from bench.run import stage
from bench.stage import FANOUT, Stage
from chaos.run import options_of
from support.waiting import wait_until

_LOOK_SECONDS = 1.0
_TAP_RATE = 50
_ALL = ("page", "top", "scrape", "tap")
_ROWS = {
    "alone": ("nothing open", ()),
    **{name: (name, (name,)) for name in _ALL},
    "all": ("page, top, scrape and tap", _ALL),
    "other": ("the same, of another daemon", _ALL),
}


@dataclass(frozen=True, slots=True)
class _Turn:
    """One measurement. Processor time is in milliseconds a second."""

    latency: Latency
    daemon: float
    broker: float
    viewers: float


@contextmanager
def _open(names: Sequence[str], start: Start) -> Iterator[list[int]]:
    """What an operator may have open of this daemon, each at its own pace; the processes."""
    listen = start.environ["LOGFAN_HTTP__LISTEN"]
    commands = {
        "top": ["top", f"http://{listen}"],
        "tap": ["tap", "--config", start.command[-1], "--rate", str(_TAP_RATE)],
    }
    paths = {"page": "/status.json", "scrape": "/metrics"}
    with ExitStack() as stack:
        pids = []
        for name in commands.keys() & names:
            process = subprocess.Popen(
                [str(LOGFAN), *commands[name]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=start.environ,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline()  # it has begun
            threading.Thread(target=process.stdout.read, daemon=True).start()
            pids.append(process.pid)
        over = threading.Event()
        stack.callback(over.set)
        for name in paths.keys() & names:
            threading.Thread(target=_look, args=(f"http://{listen}{paths[name]}", over)).start()
        yield pids


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def _look(url: str, over: threading.Event) -> None:
    while not over.wait(_LOOK_SECONDS):
        _get(url)


def _pid(start: Start) -> int:
    return int(
        json.loads(_get(f"http://{start.environ['LOGFAN_HTTP__LISTEN']}/status.json"))["pid"]
    )


@contextmanager
def _other(scene: Stage) -> Iterator[Start]:
    """Another daemon, whose exchange gets no messages."""
    with TemporaryDirectory(dir=scene.folder) as folder, ExitStack() as stack:
        start = entrants.logfan(entrants.ONE, scene.node.url, Path(folder), 4000)
        environ = {**start.environ, "LOGFAN_QUEUE__NAME": "other"}
        environ["LOGFAN_EXCHANGE__NAME"] = "other-logs"
        process = subprocess.Popen(
            start.command, env=environ, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.terminate)
        ready = partial(_is_ready, f"http://{environ['LOGFAN_HTTP__LISTEN']}/readyz")
        wait_until(ready, "the other daemon is ready")
        yield Start(start.command, start.environ, [])


def _is_ready(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return False
    return True


def _measured(scene: Stage, row: str, rate: int, seconds: int) -> _Turn:
    spent: list[float] = []

    @contextmanager
    def beside(start: Start) -> Iterator[None]:
        with ExitStack() as stack:
            seen = stack.enter_context(_other(scene)) if row == "other" else start
            viewers = stack.enter_context(_open(_ROWS[row][1], seen))
            clocks = [
                [CpuClock(pid) for pid in pids]
                for pids in ([_pid(start)], [scene.observer.broker_pid], viewers)
            ]
            began = time.monotonic()
            _sample(clocks)
            yield
            _sample(clocks)
            took = time.monotonic() - began
            spent.extend(sum(clock.whole for clock in part) * 1000 / took for part in clocks)

    found = latency.measure(scene, rate, seconds, row, beside=beside, exchange=FANOUT)
    return _Turn(found, *spent)


def _sample(clocks: Sequence[Sequence[CpuClock]]) -> None:
    for part in clocks:
        for clock in part:
            clock.sample()


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"RATE": "1000", "SECONDS": "20", "TURNS": "5", "ROWS": "alone,all"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    rate, seconds = int(options["RATE"]), int(options["SECONDS"])
    rows: dict[str, list[_Turn]] = {row: [] for row in options["ROWS"].split(",")}
    if unknown := rows.keys() - _ROWS.keys():
        print(f"no such rows: {', '.join(unknown)}; there are {', '.join(_ROWS)}", file=sys.stderr)
        return 2
    with stage() as scene:
        for _ in range(int(options["TURNS"])):
            for row, turns in rows.items():
                turns.append(_measured(scene, row, rate, seconds))
    print("Processor: milliseconds a second.\n")
    print(f"| open at {rate:,} messages a second | p50 | p99 | daemon | broker | top and tap |")
    print(f"|{' --- |' * 6}")
    for row, turns in rows.items():
        print(_line(_ROWS[row][0], turns))
    return 0


def _line(title: str, turns: Sequence[_Turn]) -> str:
    def middle(value: Callable[[_Turn], float]) -> float:
        return median(map(value, turns))

    return (
        f"| {title} | {middle(lambda one: one.latency.p50):.1f} ms "
        f"| {middle(lambda one: one.latency.p99):.1f} ms "
        f"| {middle(lambda one: one.daemon):.0f} | {middle(lambda one: one.broker):.0f} "
        f"| {middle(lambda one: one.viewers):.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
