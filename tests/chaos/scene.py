"""All that runs together in a chaos run, and the verdict over it at the end."""

import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pika import exceptions

from chaos.checker import DeadLetter, Finding, Journal, Span, check_all
from chaos.daemon import PREFETCH, ChaosDaemon, is_late
from chaos.disk import DiskUnavailable, SmallDisk
from chaos.load import Load
from chaos.proxy import Proxy
from chaos.watcher import Watcher, starved_seconds
from logfan.testing.node import RabbitNode
from support.broker import Names, channel
from support.waiting import PATIENCE_SECONDS, wait_until

BACK_SECONDS = 30.0
_DRAIN_SECONDS = 240.0
_LOOK_SECONDS = 0.03
SHARE_PLAIN = 0.25
"""Of the load, what is published without `mandatory`."""
EXIT_INTERNAL = 70


@dataclass(slots=True)
class Scene:
    """A broker, a proxy before it, a daemon behind that, two publishers, and a watcher."""

    folder: Path
    node: RabbitNode
    proxy: Proxy
    daemon: ChaosDaemon
    load: Load
    """Mandatory: it knows when nothing is bound, and publishes again."""
    plain: Load | None
    """Not mandatory, as most programs: what it had confirmed must arrive all the same."""
    watcher: Watcher
    names: Names
    disk: SmallDisk | None
    clustered: bool = False
    """Whether the node is one of a cluster: what it has goes down with it, and the others live."""
    crashes: int = 0
    """How often the daemon ended without its drain."""
    done: Counter[str] = field(default_factory=Counter)
    """Faults that were seen to happen, by name."""
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    unbound: list[Span] = field(default_factory=list)
    """When no queue could be bound to the exchange, as that was just made anew."""
    letters: list[DeadLetter] = field(default_factory=list)
    """What a fault took out of the dead-letter queue."""
    losses_min: int = 0
    """How many losses faults brought about, at a moment when the daemon went on to live."""
    starved_max: float = 0.0
    """The most that one recovery had to wait for a core, in seconds."""

    def wait_flowing(self, fault: str) -> float:
        """Wait until messages are acknowledged again after a fault's end; the seconds it took."""
        started = time.monotonic()
        before = self.daemon.acked()
        waited = self._starved()
        # Not in a tight loop: each look costs the daemon time that it needs to come back.
        while not self.daemon.is_flowing(before):
            self.assert_alive()
            time.sleep(_LOOK_SECONDS)
            if time.monotonic() - started > PATIENCE_SECONDS:
                end = self.daemon.log()[-3000:]
                raise AssertionError(f"no flow after {fault}; the daemon's log ends:\n{end}")
        took = time.monotonic() - started
        self.recoveries.setdefault(fault, []).append(took)
        # What a machine with too much to do kept from daemon and broker is not theirs.
        starved = sum(
            max(0.0, seconds - waited.get(pid, 0.0)) for pid, seconds in self._starved().items()
        )
        self.starved_max = max(self.starved_max, starved)
        if took - starved > BACK_SECONDS:
            self.broken.append(
                f"back only {took:.1f} s after the end of: {fault} ({starved:.1f} s without a core)"
            )
        return took

    def _starved(self) -> dict[int, float]:
        return {pid: starved_seconds(pid) for pid in (self.daemon.pid, self.node.pid) if pid}

    def _blind(self) -> list[str]:
        """Where the suite itself did not look; empty where it did."""
        found = []
        watcher = self.watcher
        if watcher.scrapes < sum(self.done.values()):
            found.append(f"only {watcher.scrapes} scrapes in {sum(self.done.values())} faults")
        if watcher.losses < self.losses_min:
            found.append(f"{watcher.losses} losses were seen, {self.losses_min} were brought about")
        return found

    @property
    def loads(self) -> list[Load]:
        """The publishers."""
        return [self.load, self.plain] if self.plain is not None else [self.load]

    @property
    def confirmed(self) -> int:
        """How many messages the broker has confirmed to all publishers."""
        return sum(load.confirmed for load in self.loads)

    def pause(self) -> None:
        """Publish nothing new, and return once all that was published is confirmed."""
        for load in self.loads:
            load.hush()
        for load in self.loads:
            load.wait_quiet()

    def resume(self) -> None:
        """Publish again."""
        for load in self.loads:
            load.resume()

    def assert_alive(self) -> None:
        """Fail where the daemon has ended by itself."""
        if not self.daemon.is_running():
            end = self.daemon.log()[-3000:]
            raise AssertionError(f"it ended by itself ({self.daemon.wait(1)}); its log:\n{end}")

    def living_log(self) -> str:
        """The daemon's log. Fails where it has ended by itself."""
        self.assert_alive()
        return self.daemon.log()

    def restart_as_systemd(self) -> None:
        """Start it again after an internal fault, which its exit code must show."""
        code = self.daemon.wait()
        assert code == EXIT_INTERNAL, f"it ended with {code}; its log:\n{self.daemon.log()[-3000:]}"
        self.crashes += 1
        self.daemon.start(ready=False)

    def drain(self) -> None:
        """Pause the load and wait until every message is acknowledged."""
        self.pause()

        def is_done() -> bool:
            # What is on its way to the daemon is neither in the queue nor in flight there.
            counts = self.node.counts(self.names.queue)
            at_broker = counts.ready + counts.unacked
            return at_broker == 0 and self.daemon.metric("logfan_in_flight_messages") == 0

        try:
            wait_until(is_done, "all is acknowledged", _DRAIN_SECONDS)
        except AssertionError as late:
            status, end = self.daemon.get("/status.json")[1], self.daemon.log()[-3000:]
            queues = self.node.ctl("list_queues", "name", "messages", "policy")
            broker = self.node.ctl("list_policies") + queues
            raise AssertionError(
                f"{late}; {status}; the broker: {broker}; the daemon's log ends:\n{end}"
            ) from None

    def finish(self) -> "Verdict":
        """Drain, stop everything in order, and judge what was kept."""
        self.drain()
        counts = self.node.counts(self.names.queue)
        if counts.ready or counts.unacked:
            self.broken.append(f"the broker still holds {counts}")
        if code := self.daemon.terminate():
            self.broken.append(f"the last stop ended with {code}")
        journals = [
            self.load.finish(),
            *([self.plain.finish(self.unbound)] if self.plain is not None else []),
        ]
        refuse = self.daemon.refuse
        letters = [*self.letters, *(dead_letters(self.node.url, self.names) if refuse else [])]
        findings = check_all(
            journals,
            self.daemon.sources,
            letters,
            refuses=lambda sink, number: bool(
                refuse and sink == "troubled" and number % refuse == refuse - 1
            ),
            overtaken=is_late,
        )
        verdict = Verdict(
            journals, findings, self.crashes + self.watcher.losses, PREFETCH,
            handed_back=self.watcher.requeued,
        )  # fmt: skip
        watcher = self.watcher
        verdict.broken = [*self.broken, *watcher.broken, *watcher.not_flat(), *self._blind()]
        return verdict


@dataclass(slots=True)
class Verdict:
    """What came out."""

    journals: list[Journal]
    """One a publisher."""
    findings: list[Finding]
    losses: int
    """Crashes, and lost connections, channels and consumers."""
    prefetch: int
    handed_back: int = 0
    """Messages that the daemon gave back to the broker by itself."""
    broken: list[str] = field(default_factory=list)

    @property
    def duplicates_max(self) -> int:
        """As many copies as can be explained: a window for each crash or loss, and each message
        that was handed back."""
        return self.losses * self.prefetch + self.handed_back

    @property
    def confirmed(self) -> int:
        """How many messages were confirmed."""
        return sum(journal.count for journal in self.journals)

    @property
    def resent(self) -> int:
        """How many publishings were repetitions."""
        return sum(journal.resent for journal in self.journals)

    def faults(self) -> list[str]:
        """Everything that broke, in words; empty where all held."""
        found = [fault for f in self.findings for fault in f.faults(self.duplicates_max)]
        return [*found, *self.broken]


@contextmanager
def scene(
    node: RabbitNode,
    *,
    rate: float = 1000.0,
    seed: str = "0",
    refuse: int = 0,
    disk_size: int = 0,
    plain: bool = False,
    other_urls: Sequence[str] = (),
) -> Iterator[Scene]:
    """Everything up, messages flowing. `disk_size`: of a small disk for the raw file, where one
    can be had; 0 puts it beside the others. `plain`: a part of the `rate` is published without
    mandatory. `other_urls`: of further nodes of a cluster, where the daemon may go, and where the
    load is published. The folder is gone afterwards."""
    names = Names.unique("chaos")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="logfan-chaos-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_remove, node, names)
        disk = None
        if disk_size:
            try:
                disk = stack.enter_context(SmallDisk(disk_size))
            except DiskUnavailable:
                disk = None
        proxy = stack.enter_context(Proxy(node.port))
        url = node.url.replace(f":{node.port}/", f":{proxy.port}/")
        daemon = ChaosDaemon(
            folder, url, names, disk=disk.path if disk else None, refuse=refuse,
            other_urls=other_urls,
        )  # fmt: skip
        stack.enter_context(daemon)

        def publisher(rate: float, *, plain: bool) -> Load:
            load = Load(
                other_urls[0] if other_urls else node.url, names.exchange, folder,
                run=secrets.token_hex(4), rate=rate, seed=seed, plain=plain,
            )  # fmt: skip
            return stack.enter_context(load)

        share = SHARE_PLAIN if plain else 0.0
        load = publisher(rate * (1 - share), plain=False)
        unsure = publisher(rate * share, plain=True) if plain else None
        watcher = stack.enter_context(Watcher(daemon))
        yield Scene(
            folder, node, proxy, daemon, load, unsure, watcher, names, disk,
            clustered=bool(other_urls),
        )  # fmt: skip


def dead_letters(url: str, names: Names) -> list[DeadLetter]:
    """Takes all out of the dead-letter queue. One that is gone holds nothing."""
    found: list[DeadLetter] = []
    with suppress(exceptions.ChannelClosedByBroker), channel(url) as open_channel:
        while True:
            method, properties, body = open_channel.basic_get(f"{names.queue}.dead")
            if method is None:
                return found
            open_channel.basic_ack(method.delivery_tag)
            headers: dict[str, Any] = properties.headers
            found.append(DeadLetter(headers["x-logfan-sink"], headers["x-logfan-reason"], body))
    return found


def emptied_and_deleted(url: str, names: Names) -> list[DeadLetter]:
    """Takes all out of the dead-letter queue and deletes it at a moment when it is empty."""
    found: list[DeadLetter] = []

    def deleted() -> bool:
        found.extend(dead_letters(url, names))
        with suppress(exceptions.ChannelClosedByBroker), channel(url) as open_channel:
            open_channel.queue_delete(f"{names.queue}.dead", if_empty=True)
            return True
        return False  # another letter came meanwhile

    wait_until(deleted, "it is empty for a moment")
    return found


def _remove(node: RabbitNode, names: Names) -> None:
    # A broker that a fault left dead takes its queues along.
    with suppress(exceptions.AMQPError), channel(node.url) as open_channel:
        open_channel.queue_delete(names.queue)
        open_channel.queue_delete(f"{names.queue}.dead")
        open_channel.exchange_delete(names.exchange)
