"""The faults. Each is done, seen to have happened, and ended; what comes after is the scene's.

A function returns once its fault is over. Where the fault did not happen it raises: a suite whose
faults do not happen would prove nothing.
"""

import random
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pika import exceptions

from chaos import bodies
from chaos.daemon import PREFETCH
from chaos.scene import Scene, emptied_and_deleted
from chaos.watcher import LOST
from support import amqp10
from support.broker import channel, metadata_to_disk, waiting
from support.waiting import wait_until

Do = Callable[[Scene, random.Random], None]
REBOUND = "logfan_rebound_total"
REQUEUED = "logfan_requeued_messages_total"
"""The daemon looks each 5 s; the rest is margin."""
_MEANWHILE = 50
"""Messages that each publisher has confirmed while the daemon is away."""
_ODD = 11
"""How many odd things `sinks/troubled.py` can raise."""
_HOME_NODE = re.compile("home node .* is down")
_UNDELIVERABLE = "the broker fails to deliver the message at its head"
_WENT_BACK = re.compile(r"reload: .*going (back to|on with) the old")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    """In words, for the report."""
    do: Do
    ends_life: bool = False
    """Whether the daemon is another process afterwards."""
    share: float = 0.0
    """How many there are for each kill."""
    needs: str = ""
    """What not every run has, and without which it is left out: see `can`."""


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
        wait_until(scene.daemon.stopped_by_signal, "it is stopped")
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
    # RabbitMQ 3 writes its queues and policies up to 2 s late. A queue declared anew by the fault
    # before would be gone with all that is confirmed in it; a limit taken away would be back.
    metadata_to_disk(scene.node)
    scene.node.kill()
    wait_until(lambda: not scene.daemon.consuming(), "it notices")
    # In turns: the daemon runs on; it is killed too, and starts before its broker is there; it is
    # away until publishers were back for a while.
    turn = scene.done[BROKER.name] % 3
    if turn:
        scene.daemon.kill()
        scene.crashes += 1
    if turn == 1:
        scene.daemon.start(ready=False)
    scene.node.start()
    after = wait_until(lambda: scene.node.pid, "it has a process")
    assert after != before
    if turn == 2:
        for load in scene.loads:
            load.wait_confirmed(load.confirmed + _MEANWHILE)
        scene.daemon.start(ready=False)


def close_connections(scene: Scene, rng: random.Random) -> None:
    with _loss(scene):
        scene.node.close_all_connections()


def delete_queue(scene: Scene, rng: random.Random) -> None:
    """Once it is empty, as what is in a queue dies with it; the broker itself sees to that. Who is
    not mandatory publishes again when the queue is back."""
    scene.drain()
    with _loss(scene), channel(scene.node.url) as admin:
        admin.queue_delete(scene.names.queue, if_empty=True)
    scene.load.resume()
    wait_until(scene.daemon.consuming, "the queue is back")
    scene.resume()


def renew_exchange(scene: Scene, rng: random.Random) -> None:
    """Deleted and declared anew: the queue and its consumer stay, their binding is gone. The
    broker itself shows when it is bound again: it confirms to the publisher that is mandatory."""
    scene.pause()
    rebound, confirmed = scene.daemon.metric(REBOUND), scene.load.confirmed
    began = time.monotonic_ns()
    with channel(scene.node.url) as admin:
        admin.exchange_delete(scene.names.exchange)
        admin.exchange_declare(scene.names.exchange, "fanout", durable=True)
    scene.resume()
    wait_until(
        lambda: scene.load.confirmed > confirmed,
        lambda: f"the queue is bound again; the daemon's log ends:\n{scene.daemon.log()[-3000:]}",
    )
    scene.unbound.append((began, time.monotonic_ns()))
    wait_until(lambda: scene.daemon.metric(REBOUND) > rebound, "it counts that")


def cut(scene: Scene, rng: random.Random) -> None:
    with _loss(scene), _a_window(scene, rng):
        assert scene.proxy.cut() >= 1


def black_hole(scene: Scene, rng: random.Random) -> None:
    held = scene.proxy.counts.held
    scene.proxy.swallow()
    try:
        wait_until(lambda: scene.proxy.counts.held > held, "something is held back")
        if rng.random() < 0.3:
            wait_until(lambda: not scene.daemon.consuming(), "heartbeats are missed")
        else:
            time.sleep(rng.random() * 3)
    finally:
        scene.proxy.heal()


def delay(scene: Scene, rng: random.Random) -> None:
    delayed = scene.proxy.counts.delayed
    scene.proxy.delay(0.05 + rng.random() * 0.3)
    try:
        wait_until(lambda: scene.proxy.counts.delayed >= delayed + 5, "it is delayed")
    finally:
        scene.proxy.heal()


def trickle(scene: Scene, rng: random.Random) -> None:
    trickled = scene.proxy.counts.trickled
    scene.proxy.trickle()
    try:
        wait_until(lambda: scene.proxy.counts.trickled >= trickled + 40, "it trickles")
    finally:
        scene.proxy.heal()


def sink_fails(scene: Scene, rng: random.Random) -> None:
    with _ordered(scene, "fail", times=rng.randrange(1, 5)):
        wait_until(scene.daemon.sink_troubles, "the daemon reports that the sink is down")


def sink_wants_some_later(scene: Scene, rng: random.Random) -> None:
    """They stand aside, and more than a window of others goes by."""
    with _ordered(scene, "later", times=rng.randrange(1, 4)):
        acked = scene.daemon.acked()
        wait_until(lambda: scene.daemon.acked() > acked + PREFETCH, "the others are acknowledged")


def sink_hangs(scene: Scene, rng: random.Random) -> None:
    """And while everything stands still, the daemon's account is held against the broker's."""
    with _ordered(scene, "hang", times=1):
        scene.pause()
        wait_until(
            lambda: (
                scene.node.unacked(scene.names.queue)
                == scene.daemon.metric("logfan_in_flight_messages")
                > 0
            ),
            "as many are in flight here as are unacknowledged there",
        )
        scene.resume()


def sink_slows(scene: Scene, rng: random.Random) -> None:
    with _ordered(scene, "slow", times=rng.randrange(1, 6)):
        pass


def sink_crashes(scene: Scene, rng: random.Random) -> None:
    order, wanted = rng.choice((("crash", 3), ("abort", -signal.SIGABRT)))
    before = scene.daemon.deeds(order)
    scene.daemon.order(order)
    code = scene.daemon.wait()
    scene.daemon.order("")
    assert code == wanted
    assert scene.daemon.deeds(order) == before + 1
    scene.crashes += 1
    scene.daemon.start(ready=False)


def home_node_down(scene: Scene, rng: random.Random) -> None:
    """The node that has the queue is killed; the daemon goes to another one, where the queue is
    known and cannot be used. In turns it runs on, or is killed and starts there."""
    daemon = scene.daemon
    scene.pause()
    began = time.monotonic_ns()
    seen = len(daemon.log())
    scene.node.kill()
    if scene.done[HOME.name] % 2:
        daemon.kill()
        scene.crashes += 1
        daemon.start(ready=False)
        seen = 0
    scene.resume()

    def elsewhere() -> bool:
        """RabbitMQ 3 answers at once that the queue is down, 4 is silent for a minute."""
        connected = daemon.metric("logfan_connected") == 1 and not daemon.consuming()
        return connected or bool(_HOME_NODE.search(scene.living_log(), seen))

    wait_until(elsewhere, "it is at a node where the queue cannot be used")
    time.sleep(rng.random() * 3)
    scene.assert_alive()
    confirmed = scene.load.confirmed
    scene.node.start()
    wait_until(lambda: scene.load.confirmed > confirmed, "messages are routed again")
    scene.unbound.append((began, time.monotonic_ns()))


def sink_raises_oddly(scene: Scene, rng: random.Random) -> None:
    """Exceptions whose text cannot be read, and some that are made to end a thread."""
    for number in rng.sample(range(_ODD), 3):
        before = scene.daemon.deeds("odd")
        scene.daemon.order(f"odd {number}")
        scene.daemon.wait_deed("odd", before + 1)
    scene.daemon.order("")


def worker_dies(scene: Scene, rng: random.Random) -> None:
    """A sink's thread ends in the host's own code. Nothing may look alive then: exit 70."""
    before = scene.daemon.deeds("die")
    scene.daemon.order("die")
    scene.daemon.wait_deed("die", before + 1)
    scene.daemon.order("")
    scene.restart_as_systemd()


def fill_dead_letters(scene: Scene, rng: random.Random) -> None:
    """The dead-letter queue takes nothing for a while; what is in it stays."""
    queue = f"{scene.names.queue}.dead"
    wait_until(lambda: waiting(scene.node.url, queue) > 0, "there are dead letters")
    policy, pattern = f"full-{queue}", f"^{re.escape(queue)}$"
    # One after the other: a limit that comes alone would drop what is there.
    scene.node.ctl("set_policy", policy, pattern, '{"overflow": "reject-publish"}')
    full = '{"overflow": "reject-publish", "max-length": 1}'
    scene.node.ctl("set_policy", policy, pattern, full)
    try:
        wait_until(lambda: "troubled" in scene.daemon.sink_troubles(), "its sink is not ready")
        time.sleep(rng.random())
    finally:
        scene.node.ctl("clear_policy", policy)


def delete_dead_letters(scene: Scene, rng: random.Random) -> None:
    """The dead-letter queue is deleted, once somebody has taken out all that was in it. None is on
    its way meanwhile: what arrives in the moment of the deletion the broker confirms, and drops."""
    queue = f"{scene.names.queue}.dead"

    def is_back() -> bool:
        with suppress(exceptions.ChannelClosedByBroker):
            return waiting(scene.node.url, queue) > 0
        return False

    scene.drain()
    scene.letters += emptied_and_deleted(scene.node.url, scene.names)
    scene.resume()
    wait_until(is_back, "it is declared anew, and takes letters")


def shorten_timeout(scene: Scene, rng: random.Random) -> None:
    """The broker ends a channel that owes an acknowledgement for 3 s, and one sink hangs."""
    _set_timeout(scene, timeout_ms=3_000, look_ms=500)
    try:
        daemon = scene.daemon
        before = daemon.metric(LOST) + daemon.metric(REQUEUED)
        with _ordered(scene, "hang", times=1):
            wait_until(
                lambda: daemon.metric(LOST) + daemon.metric(REQUEUED) > before,
                "the channel is lost, or the window handed back in time",
            )  # fmt: skip
    finally:
        _set_timeout(scene, timeout_ms=1_800_000, look_ms=60_000)


def _set_timeout(scene: Scene, *, timeout_ms: int, look_ms: int) -> None:
    settings = {"consumer_timeout": timeout_ms, "channel_tick_interval": look_ms}
    calls = [f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items()]
    scene.node.eval(f"{', '.join(calls)}.")
    # A channel takes it up when it opens. Of a connection that is lost already there is no loss.
    wait_until(scene.daemon.consuming, "it has a channel")
    with _loss(scene):
        scene.node.close_all_connections()
    wait_until(scene.daemon.consuming, "it has another channel")


def forbid_message(scene: Scene, rng: random.Random) -> None:
    """Each time that a certain message is to be delivered the connection ends, as RabbitMQ 4 ends
    it for what it cannot convert to AMQP 0-9-1."""
    scene.pause()  # so that it is forbidden before it is published
    number = int(scene.load.numbers["published"]) + 200
    mark = bodies.make_id(scene.load.run, number).encode() + b"\5chaos"
    refused = scene.proxy.counts.refused
    scene.proxy.forbid(mark)
    scene.resume()
    try:
        wait_until(lambda: scene.proxy.counts.refused >= refused + 4, "it is refused")
    finally:
        scene.proxy.heal()


def publish_undeliverable(scene: Scene, rng: random.Random) -> None:
    """Over AMQP 1.0, with a property that has no form in AMQP 0-9-1, until an operator takes it."""
    daemon, poison = scene.daemon, b"no body of the load"
    seen = len(daemon.log())
    amqp10.publish_undeliverable(scene.node.url, scene.names.exchange, poison)
    wait_until(
        lambda: daemon.log().find(_UNDELIVERABLE, seen) >= 0,
        lambda: f"it logs what stands at the queue's head; its log ends:\n{daemon.log()[-3000:]}",
    )  # fmt: skip
    # While no other client consumes, so that it is this one.
    assert daemon.terminate() == 0
    wait_until(
        lambda: amqp10.take_one(scene.node.url, scene.names.queue, poison), "it is taken away"
    )
    daemon.start(ready=False)


def refuse_config(scene: Scene, rng: random.Random) -> None:
    """HUP with a config that is sound by itself and that the broker refuses."""
    daemon, pid = scene.daemon, scene.daemon.pid
    queue = scene.names.queue
    with channel(scene.node.url) as admin:
        admin.queue_declare(f"{queue}-stream", durable=True, arguments={"x-queue-type": "stream"})
    differences = {
        "another type": ("[exchange]\n", '[exchange]\ntype = "direct"\n'),
        "a stream": (f'name = "{queue}"', f'name = "{queue}-stream"'),
        "no such virtual host": ("/%2F", "/nowhere"),
    }
    # In turns, so that each of them comes.
    turn = list(differences)[scene.done[REFUSED_CONFIG.name] % len(differences)]
    seen = len(daemon.log())
    with daemon.configured(*differences[turn]):
        daemon.signal(signal.SIGHUP)
        wait_until(
            lambda: _WENT_BACK.search(scene.living_log(), seen),
            lambda: f"it goes back to the config before ({turn}); its log:\n{daemon.log()[-3000:]}",
        )  # fmt: skip
    with channel(scene.node.url) as admin:
        admin.queue_delete(f"{queue}-stream")
    assert daemon.pid == pid


def fill_disk(scene: Scene, rng: random.Random) -> None:
    assert scene.disk is not None
    with scene.disk.full() as fill:

        def failure() -> str:
            fill()
            return scene.daemon.sink_troubles().get("raw", "")

        assert "ENOSPC" in wait_until(failure, "the raw sink is down")
        if rng.random() < 0.3:
            # In the middle of a write, perhaps, of which half is in the file.
            scene.daemon.kill()
            scene.crashes += 1
            scene.daemon.start(ready=False)
            wait_until(failure, "it is down again")


def limit_files(scene: Scene, rng: random.Random) -> None:
    # Room for the longest line of the load: one that no file could ever hold is rightly refused.
    size = scene.daemon.log_path.stat().st_size + 320_000 + rng.randrange(100_000)
    with scene.daemon.files_limited(size):
        wait_until(scene.daemon.sink_troubles, "a sink cannot write on")
        time.sleep(rng.random() * 0.5)


def alarm(scene: Scene, rng: random.Random) -> None:
    """A memory alarm: the broker stops all who publish, and the daemon goes on consuming."""
    scene.node.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        wait_until(lambda: scene.load.numbers.get("blocked"), "the publisher is blocked")
        assert scene.daemon.consuming()
    finally:
        scene.node.ctl("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: not scene.load.numbers["blocked"], "the alarm is over")


KILL = Fault("kill -9 of the daemon", kill, ends_life=True, share=1)
BROKER = Fault("SIGKILL of the broker, and its restart", kill_broker, share=0.15)
CLOSE = Fault("all connections closed by an operator", close_connections, share=0.05)
CUT = Fault("proxy: connection reset", cut, share=0.25)
DISK = Fault("disk full (ENOSPC on a tmpfs)", fill_disk, share=0.03, needs="disk")
REFUSED_CONFIG = Fault("HUP with a config that the broker refuses", refuse_config, share=0.03)
HOME = Fault("the queue's node down, another one up", home_node_down, share=0.05, needs="cluster")
LIMIT = Fault("no file may grow (RLIMIT_FSIZE)", limit_files, share=0.03)
ALL = (
    KILL,
    BROKER,
    CUT,
    DISK,
    HOME,
    LIMIT,
    Fault("TERM under load, and a start", terminate, ends_life=True, share=0.05),
    Fault("a sink crashes the process", sink_crashes, ends_life=True, share=0.05),
    Fault("SIGSTOP, then SIGCONT", stop_and_continue, share=0.06),
    CLOSE,
    Fault("queue deleted", delete_queue, share=0.03),
    Fault("exchange made anew", renew_exchange, share=0.05),
    Fault(
        "a message that the broker cannot deliver",
        publish_undeliverable,
        ends_life=True,
        share=0.03,
        needs="amqp 1.0",
    ),
    REFUSED_CONFIG,
    Fault("dead-letter queue deleted", delete_dead_letters, share=0.03),
    Fault("a sink raises what has no text", sink_raises_oddly, share=0.05),
    Fault("a sink's thread dies", worker_dies, ends_life=True, share=0.05),
    Fault("dead-letter queue full", fill_dead_letters, share=0.05),
    Fault("a short consumer_timeout", shorten_timeout, share=0.03, needs="consumer_timeout"),
    Fault("a message that ends the connection", forbid_message, share=0.03),
    Fault("proxy: black hole", black_hole, share=0.05),
    Fault("proxy: delay", delay, share=0.03),
    Fault("proxy: trickle", trickle, share=0.03),
    Fault("a sink fails", sink_fails, share=0.05),
    Fault("a sink hangs", sink_hangs, share=0.05),
    Fault("a sink is slow", sink_slows, share=0.05),
    Fault("a sink wants some later", sink_wants_some_later, share=0.05),
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


def of_the_cluster(kills: int) -> dict[str, int]:
    """What goes with so many kills in the second, short part of the long form."""
    turns = max(2, round(kills * HOME.share))
    return {HOME.name: turns, KILL.name: turns, CLOSE.name: turns}


def counts_for(kills: int, can: Collection[str]) -> dict[str, int]:
    """How many of each kind go with so many kills: one at least. `can`: see there."""
    return {
        fault.name: max(1, round(kills * fault.share))
        for fault in ALL
        if not fault.needs or fault.needs in can
    }


def can(scene: Scene) -> set[str]:
    """What this run has of all that faults may need."""
    version = tuple(int(part) for part in scene.node.version.split(".")[:2])
    has = {
        "amqp 1.0": version >= (4,),
        "cluster": scene.clustered,
        "disk": scene.disk is not None,
        "consumer_timeout": version < (4, 3),
    }
    return {name for name, yes in has.items() if yes}


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
            wait_until(lambda: daemon.metric(LOST) > self._before, "the loss is noticed")
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
