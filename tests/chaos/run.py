"""`make chaos`: the long form. Faults from a printed seed under load, then the verdict; first on
one node, then, shorter, on a cluster of three.

`python -m chaos.run [KILLS=200] [SECONDS=1800] [SEED=…] [MESSAGES=1000000] [REPORT=FILE]`. Exits 1
where anything broke. On a terminal it shows how far it is.
"""

import random
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from chaos import faults, report
from chaos.faults import Fault
from chaos.scene import Scene, Verdict, scene
from logfan.testing.cluster import RabbitCluster
from logfan.testing.node import RabbitNode

_REPORT = "chaos-report.md"
_BYTES_A_MESSAGE = 600
_DISK_MIN = 64 << 20
_CLUSTER_SECONDS_MIN = 120.0
REFUSE = 97
"""Every so-manieth record is refused by one sink, for good."""

Tell = Callable[[Scene, int, str], None]


def carry_out(
    scene: Scene,
    planned: Sequence[Fault],
    rng: random.Random,
    *,
    deadline: float,
    messages: int = 0,
    tell: Tell = lambda *_: None,
) -> list[Fault]:
    """Do what is planned, wait for the flow after each, and go on with the load until so many
    messages are confirmed. Returns what there was no time for."""
    for index, fault in enumerate(planned):
        if time.monotonic() > deadline:
            return list(planned[index:])
        tell(scene, index, fault.name)
        # At any moment of the traffic, not always at the same one after the last recovery.
        time.sleep(rng.random() * 0.3)
        fault.do(scene, rng)
        scene.done[fault.name] += 1
        scene.wait_flowing(fault.name)
    while scene.confirmed < messages and time.monotonic() < deadline:
        tell(scene, len(planned), "the rest of the messages")
        missing = min(messages - scene.confirmed, 2000)
        scene.load.wait_confirmed(scene.load.confirmed + missing)
    return []


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    defaults = {"KILLS": "200", "SECONDS": "1800", "MESSAGES": "1000000", "SEED": ""}
    options = options_of(arguments, {**defaults, "REPORT": _REPORT})
    if options is None:
        return 2
    kills, seconds = int(options["KILLS"]), float(options["SECONDS"])
    messages = int(options["MESSAGES"])
    seed = options["SEED"] or secrets.token_hex(4)
    print(f"seed {seed}: {kills} kills within {seconds:.0f} s; SEED={seed} draws them again")
    signal.signal(signal.SIGTERM, interrupt)
    deadline, file = time.monotonic() + seconds, Path(options["REPORT"])
    # Half of the time the broker is there and the load flows; the rest is margin.
    rate = min(4000.0, max(500.0, 2.2 * messages / seconds))
    disk_size = max(_DISK_MIN, messages * _BYTES_A_MESSAGE)
    with (
        RabbitNode() as node,
        scene(node, rate=rate, seed=seed, refuse=REFUSE, disk_size=disk_size, plain=True) as stage,
    ):
        counts = faults.counts_for(kills, faults.can(stage))
        outcomes = [_act(stage, counts, seed, deadline=deadline, messages=messages)]
    file.write_text(report.as_markdown(*outcomes[0]))
    with (
        RabbitCluster() as cluster,
        scene(
            cluster.nodes[0], rate=500, seed=seed, refuse=REFUSE, plain=True,
            other_urls=cluster.urls[1:],
        ) as stage,
    ):  # fmt: skip
        # Short as it is, it has its time whatever the first part took.
        deadline = max(deadline, time.monotonic() + _CLUSTER_SECONDS_MIN)
        outcomes.append(_act(stage, faults.of_the_cluster(kills), seed, deadline=deadline))
    file.write_text("\n".join(report.as_markdown(*each) for each in outcomes))
    print(f"the report: {file}")
    return 1 if any(verdict.faults() for _, verdict in outcomes) else 0


def _act(
    stage: Scene, counts: Mapping[str, int], seed: str, *, deadline: float, messages: int = 0
) -> tuple[report.Facts, Verdict]:
    """So many faults on one scene, and what came of it."""
    started = time.monotonic()
    rng = random.Random(seed)
    stage.wait_flowing("the first start")
    planned = faults.plan(rng, counts)
    with _progress(len(planned)) as tell:
        left = carry_out(stage, planned, rng, deadline=deadline, messages=messages, tell=tell)
    print("all faults are over; draining and comparing")
    verdict = stage.finish()
    facts = report.Facts.of(stage, seed=seed, seconds=time.monotonic() - started)
    facts.left = len(left)
    facts.broker = stage.node.version
    print(report.as_text(facts, verdict))
    return facts, verdict


def _progress(total: int) -> AbstractContextManager[Tell]:
    """Shows how far it is: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        return nullcontext(_Lines(total))
    return _Bar(total)


class _Lines:
    """For logs of CI."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._reported = -1

    def __call__(self, scene: Scene, index: int, name: str) -> None:
        if index // 10 != self._reported:
            self._reported = index // 10
            print(f"{index}/{self._total}: {scene.confirmed:,} confirmed; {name}", flush=True)


class _Bar:
    """For people."""

    def __init__(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[confirmed]:,} confirmed"), TextColumn("{task.description}"),
        )  # fmt: skip
        self._task = self._progress.add_task("", total=total, confirmed=0)

    def __enter__(self) -> Tell:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, scene: Scene, index: int, name: str) -> None:
        self._progress.update(
            self._task, completed=index, description=name, confirmed=scene.confirmed
        )


def options_of(arguments: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str] | None:
    """`NAME=VALUE` words over the defaults, or None after saying why; empty is the default."""
    options = dict(defaults)
    for word in arguments:
        key, _, value = word.partition("=")
        if key not in options:
            print(f"unknown argument {word!r}; there are {', '.join(options)}", file=sys.stderr)
            return None
        options[key] = value or options[key]
    return options


def interrupt(_number: int, _frame: FrameType | None) -> Any:
    """TERM ends the run as Ctrl-C does: everything is cleaned up."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
