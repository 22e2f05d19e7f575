"""`python -m bench.desk [RATE=1000] [SECONDS=20] [TURNS=5]`: does who looks slow the road down?

In turns a message's time from publish to acknowledged is measured alone, and with a status page,
`logfan top`, a scrape a second and `logfan tap` open. Medians of the turns, and their ratios.
"""

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from statistics import median

from bench import latency
from bench.entrants import LOGFAN, Start
from bench.results import Latency
from bench.run import stage
from bench.stage import FANOUT
from chaos.run import options_of

_LOOK_SECONDS = 1.0
_TAP_RATE = 50


@contextmanager
def _desk(start: Start) -> Iterator[None]:
    """All that an operator may have open, each at its own pace."""
    listen = start.environ["LOGFAN_HTTP__LISTEN"]
    config = start.command[-1]
    with ExitStack() as stack:
        for command in (
            ["top", f"http://{listen}"],
            ["tap", "--config", config, "--rate", str(_TAP_RATE)],
        ):
            process = subprocess.Popen(
                [str(LOGFAN), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=start.environ,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline()  # it has begun
            threading.Thread(target=process.stdout.read, daemon=True).start()
        over = threading.Event()
        stack.callback(over.set)
        for path in ("/status.json", "/metrics"):
            threading.Thread(target=_look, args=(f"http://{listen}{path}", over)).start()
        yield


def _look(url: str, over: threading.Event) -> None:
    while not over.wait(_LOOK_SECONDS):
        with urllib.request.urlopen(url, timeout=30) as answer:
            answer.read()


def _row(name: str, found: list[Latency]) -> str:
    return (
        f"| {name} | {median(one.p50 for one in found):.1f} ms "
        f"| {median(one.p99 for one in found):.1f} ms |"
    )


def main(arguments: list[str]) -> int:
    """The command line."""
    options = options_of(arguments, {"RATE": "1000", "SECONDS": "20", "TURNS": "5"})
    if options is None:
        return 2
    rate, seconds = int(options["RATE"]), int(options["SECONDS"])
    alone: list[Latency] = []
    watched: list[Latency] = []
    with stage() as scene:
        for _ in range(int(options["TURNS"])):
            for label, beside, found in (("alone", nullcontext, alone), ("desk", _desk, watched)):
                found.append(
                    latency.measure(scene, rate, seconds, label, beside=beside, exchange=FANOUT)
                )
    print(f"| {rate:,} messages a second | p50 | p99 |\n|{' --- |' * 3}")
    print(_row("alone", alone), _row("page, top, scrape and tap open", watched), sep="\n")
    ratio = median(one.p99 for one in watched) / median(one.p99 for one in alone)
    print(f"\np99 with all open is {ratio:.2f} of that alone.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
