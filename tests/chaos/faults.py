"""The faults. Each is done, seen to have happened, and ended; what comes after is the scene's.

A function returns once its fault is over. Where the fault did not happen it raises: a suite whose
faults do not happen would prove nothing.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from chaos.scene import Scene
from chaos.watcher import LOST
from support.broker import channel
from support.waiting import wait_until

Do = Callable[[Scene, random.Random], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble."""

    name: str
    """In words, for the report."""
    do: Do
    ends_life: bool = False
    """Whether the daemon is another process afterwards."""
    share: float = 0.0
    """How many there are for each kill."""
    needs_disk: bool = False


def kill(scene: Scene, rng: random.Random) -> None:
    before = scene.daemon.pid
    with _a_window(scene, rng):
        scene.daemon.kill()
    scene.crashes += 1
    scene.daemon.start(ready=False)
    if rng.random() < 0.1:
        # Once more, at any moment of its start.
        time.sleep(rng.random() * 0.8)
        scene.daemon.kill()
        scene.crashes += 1
        scene.daemon.start(ready=False)
    assert scene.daemon.pid != before


def stop_and_continue(scene: Scene, rng: random.Random) -> None:
    scene.daemon.signal(signal.SIGSTOP)
    try:
        wait_until(scene.daemon.stopped_by_signal, "it is stopped", 5)
        time.sleep(rng.choice((0.1, 0.5, 2.0)))
    finally:
        scene.daemon.signal(signal.SIGCONT)
    assert not scene.daemon.stopped_by_signal()


def terminate(scene: Scene, rng: random.Random) -> None:
    order = rng.choice(("", "slow", "hang"))
    _order_and_see(scene, order)
    code = scene.daemon.terminate()
    scene.daemon.order("")
    # A sink that hangs lets the deadline of the drain pass: the window goes back to the broker.
    assert code == (75 if order == "hang" else 0), f"TERM ended with {code} (sink: {order})"
    scene.crashes += code == 75
    scene.daemon.start(ready=False)


def kill_broker(scene: Scene, rng: random.Random) -> None:
    before = scene.node.pid
    scene.node.kill()
    wait_until(lambda: not scene.daemon.consuming(), "it notices", 10)
    if rng.random() < 0.2:
        # The daemon, too, and it starts before its broker is there.
        scene.daemon.kill()
        scene.crashes += 1
        scene.daemon.start(ready=False)
    scene.node.start()
    after = wait_until(lambda: scene.node.pid, "it has a process", 10)
    assert after != before


def close_connections(scene: Scene, rng: random.Random) -> None:
    with _loss(scene):
        scene.node.close_all_connections()


def delete_queue(scene: Scene, rng: random.Random) -> None:
    """Once it is empty, as what is in a queue dies with it; the broker itself sees to that."""
    scene.drain()
    with _loss(scene), channel(scene.node.url) as admin:
        admin.queue_delete(scene.names.queue, if_empty=True)
    scene.load.resume()


def cut(scene: Scene, rng: random.Random) -> None:
    with _loss(scene), _a_window(scene, rng):
        assert scene.proxy.cut() >= 1


def black_hole(scene: Scene, rng: random.Random) -> None:
    held = scene.proxy.counts.held
    scene.proxy.swallow()
    try:
        wait_until(lambda: scene.proxy.counts.held > held, "something is held back", 5)
        if rng.random() < 0.3:
            wait_until(lambda: not scene.daemon.consuming(), "heartbeats are missed", 20)
        else:
            time.sleep(rng.random() * 3)
    finally:
        scene.proxy.heal()


def delay(scene: Scene, rng: random.Random) -> None:
    delayed = scene.proxy.counts.delayed
    scene.proxy.delay(0.05 + rng.random() * 0.3)
    try:
        wait_until(lambda: scene.proxy.counts.delayed >= delayed + 5, "it is delayed", 10)
    finally:
        scene.proxy.heal()


def trickle(scene: Scene, rng: random.Random) -> None:
    trickled = scene.proxy.counts.trickled
    scene.proxy.trickle()
    try:
        wait_until(lambda: scene.proxy.counts.trickled >= trickled + 40, "it trickles", 10)
    finally:
        scene.proxy.heal()


def sink_fails(scene: Scene, rng: random.Random) -> None:
    with _ordered(scene, "fail", times=rng.randrange(1, 5)):
        wait_until(scene.daemon.sink_troubles, "the daemon says that the sink is down", 10)


def sink_hangs(scene: Scene, rng: random.Random) -> None:
    """And while everything stands still, the daemon's account is held against the broker's."""
    with _ordered(scene, "hang", times=1):
        scene.load.pause()
        wait_until(
            lambda: (
                scene.node.unacked(scene.names.queue)
                == scene.daemon.metric("logfan_in_flight_messages")
                > 0
            ),
            "as many are in flight here as are unacknowledged there",
            20,
        )
        scene.load.resume()


def sink_slows(scene: Scene, rng: random.Random) -> None:
    with _ordered(scene, "slow", times=rng.randrange(1, 6)):
        pass


def sink_crashes(scene: Scene, rng: random.Random) -> None:
    order, wanted = rng.choice((("crash", 3), ("abort", -signal.SIGABRT)))
    before = scene.daemon.deeds(order)
    scene.daemon.order(order)
    code = scene.daemon.wait(20)
    scene.daemon.order("")
    assert code == wanted
    assert scene.daemon.deeds(order) == before + 1
    scene.crashes += 1
    scene.daemon.start(ready=False)


def fill_disk(scene: Scene, rng: random.Random) -> None:
    assert scene.disk is not None
    with scene.disk.full() as fill:

        def trouble() -> str:
            fill()
            return scene.daemon.sink_troubles().get("raw", "")

        assert "ENOSPC" in wait_until(trouble, "the raw sink is down", 20)
        if rng.random() < 0.3:
            # In the middle of a write, perhaps, of which half is in the file.
            scene.daemon.kill()
            scene.crashes += 1
            scene.daemon.start(ready=False)
            wait_until(trouble, "it is down again", 20)


def limit_files(scene: Scene, rng: random.Random) -> None:
    # Room for the longest line of the load: one that no file could ever hold is rightly refused.
    size = scene.daemon.log_path.stat().st_size + 320_000 + rng.randrange(100_000)
    with scene.daemon.files_limited(size):
        wait_until(scene.daemon.sink_troubles, "a sink cannot write on", 20)
        time.sleep(rng.random() * 0.5)


def alarm(scene: Scene, rng: random.Random) -> None:
    """A memory alarm: the broker stops all who publish, and the daemon goes on consuming."""
    scene.node.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        wait_until(lambda: scene.load.numbers.get("blocked"), "the publisher is blocked", 20)
        assert scene.daemon.consuming()
    finally:
        scene.node.ctl("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: not scene.load.numbers["blocked"], "the alarm is over", 20)


KILL = Fault("kill -9 of the daemon", kill, ends_life=True, share=1)
BROKER = Fault("SIGKILL of the broker, and its restart", kill_broker, share=0.15)
CUT = Fault("proxy: connection reset", cut, share=0.25)
DISK = Fault("disk full (ENOSPC on a tmpfs)", fill_disk, share=0.03, needs_disk=True)
LIMIT = Fault("no file may grow (RLIMIT_FSIZE)", limit_files, share=0.03)
ALL = (
    KILL,
    BROKER,
    CUT,
    DISK,
    LIMIT,
    Fault("TERM under load, and a start", terminate, ends_life=True, share=0.05),
    Fault("a sink crashes the process", sink_crashes, ends_life=True, share=0.05),
    Fault("SIGSTOP, then SIGCONT", stop_and_continue, share=0.06),
    Fault("all connections closed by an operator", close_connections, share=0.05),
    Fault("queue deleted", delete_queue, share=0.03),
    Fault("proxy: black hole", black_hole, share=0.05),
    Fault("proxy: delay", delay, share=0.03),
    Fault("proxy: trickle", trickle, share=0.03),
    Fault("a sink fails", sink_fails, share=0.05),
    Fault("a sink hangs", sink_hangs, share=0.05),
    Fault("a sink is slow", sink_slows, share=0.05),
    Fault("memory alarm at the broker", alarm, share=0.025),
)


def plan(rng: random.Random, counts: Mapping[str, int]) -> list[Fault]:
    """So many of each, in an order drawn by `rng`. Faults that the daemon survives come in
    streaks of twelve, so that some lives are long enough to show a leak."""
    deadly = [f for f in ALL for _ in range(counts.get(f.name, 0)) if f.ends_life]
    others = [f for f in ALL for _ in range(counts.get(f.name, 0)) if not f.ends_life]
    rng.shuffle(deadly)
    rng.shuffle(others)
    streaks = [others[i : i + 12] for i in range(0, len(others), 12)]
    groups: list[list[Fault]] = [[] for _ in range(len(streaks) + 1)]
    for fault in deadly:
        rng.choice(groups).append(fault)
    planned = list(groups[0])
    for streak, group in zip(streaks, groups[1:], strict=True):
        planned += [*streak, *group]
    return planned


def counts_for(kills: int, *, has_disk: bool) -> dict[str, int]:
    """How many of each kind go with so many kills: one at least."""
    return {
        fault.name: max(1, round(kills * fault.share))
        for fault in ALL
        if has_disk or not fault.needs_disk
    }


class _loss:  # noqa: N801 - reads as a statement: with _loss(scene)
    """What happens inside must cost the daemon its connection, channel or consumer."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._before = 0.0

    def __enter__(self) -> None:
        self._before = self._scene.daemon.metric(LOST)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            daemon = self._scene.daemon
            wait_until(lambda: daemon.metric(LOST) > self._before, "the loss is noticed", 20)
            self._scene.losses_min += 1


@contextmanager
def _a_window(scene: Scene, rng: random.Random) -> Iterator[None]:
    """In half of the cases: at a moment when one sink hangs, the others have what it has not, and
    messages pile up unacknowledged."""
    order = rng.choice(("", "", "hang", "slow"))
    _order_and_see(scene, order)
    time.sleep(rng.random() * 0.5 if order else 0)
    try:
        yield
    finally:
        scene.daemon.order("")


@contextmanager
def _ordered(scene: Scene, order: str, *, times: int) -> Iterator[None]:
    """The sink does so, and has done so many times before the block begins."""
    _order_and_see(scene, order, times)
    try:
        yield
    finally:
        scene.daemon.order("")


def _order_and_see(scene: Scene, order: str, times: int = 1) -> None:
    before = scene.daemon.deeds(order) if order else 0
    scene.daemon.order(order)
    if order:
        scene.daemon.wait_deed(order, before + times)
