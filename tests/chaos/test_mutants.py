"""The suite is not blind: a defect that is put in on purpose is caught, with the right verdict.

Each scenario is the shortest that the defect cannot survive. It runs twice: the sound daemon
passes it, the mutant does not, and the checker's verdict is the defect's own mark.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chaos.checker import DeadLetter, Finding, check
from chaos.daemon import LATE, PREFETCH, ChaosDaemon, is_late
from chaos.deck import Deck
from chaos.mutated import DEFECTS
from chaos.proxy import Proxy
from chaos.scene import EXIT_INTERNAL, dead_letters, emptied_and_deleted
from logfan.testing.node import RabbitNode
from support.broker import QUEUES, Names, channel, delete_queue, listed, waiting
from support.waiting import PATIENCE_SECONDS, wait_until

RECEIVED = "logfan_received_messages_total"
OPENED = 'logfan_connections_total{outcome="opened"}'
REFUSE = 5
NOT_NOTICED = "a daemon with a dead thread ends"


@dataclass(slots=True)
class Stage:
    """What a scenario has to play with."""

    node: RabbitNode
    proxy: Proxy
    daemon: ChaosDaemon
    deck: Deck
    letters: list[DeadLetter] = field(default_factory=list)
    """What a scenario took out of the dead-letter queue."""
    losses: int = 0
    """Crashes and losses that the scenario brought about: each explains a window of copies."""

    def wait_received(self, count: int) -> None:
        wait_until(lambda: self.daemon.metric(RECEIVED) >= count, f"{count} are delivered")

    def kill_and_go_on(self) -> None:
        """kill -9, and a sound daemon that takes all that the broker still has."""
        self.daemon.kill()
        self.losses += 1
        self.daemon.order("")
        self.daemon.mutant = ""
        self.daemon.start()

    def finish(self) -> tuple[Finding, ...]:
        """Drain, stop, compare."""
        daemon = self.daemon
        wait_until(
            lambda: (
                waiting(self.node.url, daemon.names.queue) == 0
                and daemon.consuming()
                and daemon.metric("logfan_in_flight_messages") == 0
            ),
            "all is acknowledged",
        )
        assert daemon.terminate() == 0
        refuse = daemon.refuse
        letters = [*self.letters, *dead_letters(self.node.url, daemon.names)]
        return tuple(
            check(
                self.deck.journal,
                daemon.sources,
                letters,
                refuses=lambda sink, number: bool(
                    refuse and sink == "troubled" and number % refuse == refuse - 1
                ),
                overtaken=is_late,
            )
        )


@contextmanager
def staged(
    node: RabbitNode, names: Names, folder: Path, mutant: str, refuse: int = 0
) -> Iterator[Stage]:
    with Proxy(node.port) as proxy:
        url = node.url.replace(f":{node.port}/", f":{proxy.port}/")
        with ChaosDaemon(folder, url, names, mutant=mutant, refuse=refuse) as daemon:
            yield Stage(node, proxy, daemon, Deck(node.url, names))


def killed_while_a_sink_writes(stage: Stage) -> None:
    stage.daemon.order("hang")
    stage.deck.publish(50)
    stage.daemon.wait_deed("hang", 1)
    stage.wait_received(50)
    # The others have it all; only what every sink completed may be gone from the broker.
    kept = stage.daemon.folder / "out.jsonl"
    wait_until(lambda: kept.read_bytes().count(b"\n") == 50, "the others have it")
    stage.kill_and_go_on()


def killed_with_one_batch_settled_and_one_open(stage: Stage) -> None:
    stage.daemon.order("hang 1")
    stage.deck.publish(10)
    stage.daemon.wait_deed("hang", 1)
    stage.deck.publish(10)
    stage.wait_received(20)
    stage.daemon.order("hang 2")  # the first write returns, the second hangs
    stage.daemon.wait_deed("hang", 2)
    wait_until(lambda: stage.daemon.acked() > 0, "the first batch is acknowledged")
    stage.kill_and_go_on()


def killed_after_a_settlement_of_the_channel_before(stage: Stage) -> None:
    stage.deck.publish(10)
    wait_until(lambda: stage.daemon.acked() == 10, "tags 1 to 10 are acknowledged")
    stage.daemon.order("hang 1")
    stage.deck.publish(1)
    stage.daemon.wait_deed("hang", 1)  # tag 11 is in the sink's hands
    delete_queue(stage.node.url, stage.daemon.names.queue)
    stage.losses += 1
    wait_until(lambda: stage.daemon.metric(OPENED) == 2, "it is connected again")
    wait_until(stage.daemon.consuming, "its queue is there")
    stage.deck.publish(20)
    stage.wait_received(31)  # as tags 1 to 20 of the new channel
    stage.daemon.order("hang 2")  # the old write returns, the next hangs
    stage.daemon.wait_deed("hang", 2)
    stage.deck.publish(1)
    stage.wait_received(32)  # the I/O thread has been through all that was completed before
    stage.kill_and_go_on()


def dead_letter_queue_gone(stage: Stage) -> None:
    stage.deck.publish(REFUSE)
    wait_until(lambda: stage.daemon.acked() == REFUSE, "the first refused one is dead-lettered")
    # More than once: every 5 s the daemon looks whether the queue is there, and declares it.
    for turn in range(2, 6):
        stage.letters += emptied_and_deleted(stage.node.url, stage.daemon.names)
        stage.deck.publish(REFUSE)
        wait_until(lambda turn=turn: stage.daemon.acked() == turn * REFUSE, "the next as well")  # type: ignore[misc]


@contextmanager
def dead_letter_queue_full(stage: Stage) -> Iterator[None]:
    """Meanwhile one refused record waits, and all before and after it is acknowledged."""
    daemon, url = stage.daemon, stage.node.url
    stage.deck.publish(REFUSE)
    wait_until(lambda: daemon.acked() == REFUSE, "one is dead-lettered")
    stage.letters += emptied_and_deleted(url, daemon.names)
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    with channel(url) as admin:
        admin.queue_declare(f"{daemon.names.queue}.dead", durable=True, arguments=full)
    daemon.signal(signal.SIGSTOP)
    stage.deck.publish(REFUSE + 3)  # so that they arrive together, and are one write
    together = REFUSE + 3
    wait_until(lambda: stage.node.unacked(daemon.names.queue) == together, "all are on their way")
    daemon.signal(signal.SIGCONT)
    wait_until(lambda: daemon.acked() == 2 * REFUSE + 2, "all but one is acknowledged")
    wait_until(lambda: "troubled" in daemon.sink_troubles(), "its sink is not ready")
    yield
    daemon.signal(signal.SIGSTOP)  # so that none is on its way
    stage.letters += emptied_and_deleted(url, daemon.names)
    daemon.signal(signal.SIGCONT)


def held_by_a_sink_while_a_letter_waits(stage: Stage) -> None:
    with dead_letter_queue_full(stage):
        stage.daemon.order("hang")
        stage.deck.publish(1)
        stage.daemon.wait_deed("hang", 1)
        # The others have these, and it would take a handing back to write them again.
        handed_back = "logfan_requeued_messages_total"
        with suppress(AssertionError):
            wait_until(lambda: stage.daemon.metric(handed_back), "never where it is sound", 5)
        stage.daemon.order("")


def killed_while_a_letter_waits(stage: Stage) -> None:
    with dead_letter_queue_full(stage):
        stage.daemon.kill()
    stage.kill_and_go_on()


def late_confirm_of_the_connection_before(stage: Stage) -> None:
    dead, proxy = f"{stage.daemon.names.queue}.dead", stage.proxy
    wait_until(lambda: dead in "".join(listed(stage.node, QUEUES)), "its queue is declared")
    delete_queue(stage.node.url, dead)
    proxy.withhold_confirms()
    stage.deck.publish(REFUSE)
    wait_until(lambda: proxy.counts.withheld == 1, "the letter came back, its confirm is under way")
    wait_until(lambda: proxy.counts.withheld == 2, "it is sent on the next connection")
    connections = proxy.counts.open
    proxy.let_first_pass()
    wait_until(lambda: proxy.counts.open == connections - 1, "the connection before is closed")
    # The letter on its way now does not arrive.
    delete_queue(stage.node.url, dead)
    proxy.cut_withheld()
    proxy.heal()
    wait_until(lambda: stage.daemon.acked() == REFUSE, "the refused one is dead-lettered")


def exchange_made_anew(stage: Stage) -> None:
    names = stage.daemon.names
    stage.deck.publish(10)
    wait_until(lambda: stage.daemon.acked() == 10, "the queue is bound")
    with channel(stage.node.url) as admin:
        admin.exchange_delete(names.exchange)
        admin.exchange_declare(names.exchange, "fanout", durable=True)
    wait_until(lambda: stage.daemon.metric("logfan_rebound_total"), "it counts the binding")
    # As most programs publish: what reaches no queue is confirmed all the same.
    stage.deck.publish(10, mandatory=False)


def a_sinks_thread_ends(stage: Stage) -> None:
    daemon = stage.daemon
    daemon.order("die")
    stage.deck.publish(10)
    daemon.wait_deed("die", 1)
    daemon.order("")
    stage.deck.publish(10)
    wait_until(
        lambda: not daemon.is_running(), NOT_NOTICED, 4 if daemon.mutant else PATIENCE_SECONDS
    )
    assert daemon.wait() == EXIT_INTERNAL
    stage.losses += 1
    daemon.start()


def started_on_a_torn_line(stage: Stage) -> None:
    stage.deck.publish(10)
    wait_until(lambda: stage.daemon.acked() == 10, "there is something")
    stage.daemon.kill()
    stage.losses += 1
    body = stage.deck.body()
    with (stage.daemon.disk / "raw.log").open("ab") as file:
        file.write(body[: len(body) // 2])
    stage.daemon.start()
    stage.deck.publish(10)


def disk_full_in_the_middle_of_a_batch(stage: Stage) -> None:
    stage.deck.publish(10)
    wait_until(lambda: stage.daemon.acked() == 10, "there is something")
    raw = stage.daemon.disk / "raw.log"
    with stage.daemon.files_limited(raw.stat().st_size + 2_000):
        stage.daemon.signal(signal.SIGSTOP)
        stage.deck.publish(100)  # so that they arrive together, and are one write
        stage.daemon.signal(signal.SIGCONT)
        wait_until(lambda: "raw" in stage.daemon.sink_troubles(), "the disk is full")


def a_sink_fails_for_a_while(stage: Stage) -> None:
    stage.daemon.order("fail")
    stage.deck.publish(20)
    stage.daemon.wait_deed("fail", 1)
    stage.daemon.order("")


def killed_while_a_record_is_wanted_later(stage: Stage) -> None:
    stage.daemon.order("later")
    stage.deck.publish(2 * LATE)
    stage.daemon.wait_deed("later", 1)
    wait_until(lambda: stage.daemon.acked() >= 2 * LATE - 2, "all others are acknowledged")
    stage.kill_and_go_on()


SCENARIOS: dict[str, tuple[Callable[[Stage], None], str, str]] = {
    "ack-before-flush": (killed_while_a_sink_writes, "troubled", "lost"),
    "watermark-past-an-open-batch": (
        killed_with_one_batch_settled_and_one_open, "troubled", "lost",
    ),
    "old-generation-acked": (
        killed_after_a_settlement_of_the_channel_before, "troubled", "lost",
    ),
    "dead-letter-without-confirm": (dead_letter_queue_gone, "troubled", "lost"),
    "dead-letter-trouble-hands-back": (held_by_a_sink_while_a_letter_waits, "raw", "duplicated"),
    "dead-letter-trouble-writes-again": (
        held_by_a_sink_while_a_letter_waits, "troubled", "duplicated",
    ),
    "ack-past-what-stands-aside": (killed_while_a_letter_waits, "troubled", "lost"),
    "late-confirm-counted": (late_confirm_of_the_connection_before, "troubled", "lost"),
    "not-bound-again": (exchange_made_anew, "raw", "lost"),
    "dead-thread-unnoticed": (a_sinks_thread_ends, "", NOT_NOTICED),
    "torn-line-not-mended": (started_on_a_torn_line, "raw", "corrupt"),
    "half-write-not-taken-back": (disk_full_in_the_middle_of_a_batch, "raw", "duplicated"),
    "failed-batch-dropped": (a_sink_fails_for_a_while, "troubled", "lost"),
    "wanted-later-forgotten": (killed_while_a_record_is_wanted_later, "troubled", "lost"),
}  # fmt: skip


def runs() -> list[Any]:
    """Each defect, and before it the sound daemon in a scenario that is new."""
    found, scenarios = [], set()
    for defect, (scenario, _, _) in SCENARIOS.items():
        if scenario not in scenarios:
            scenarios.add(scenario)
            found.append(pytest.param(defect, False, id=f"{defect}-sound"))
        found.append(pytest.param(defect, True, id=f"{defect}-mutant"))
    return found


REFUSING = {
    dead_letter_queue_gone, held_by_a_sink_while_a_letter_waits, killed_while_a_letter_waits,
    late_confirm_of_the_connection_before,
}  # fmt: skip
"""Scenarios in which the troubled sink refuses each fifth record."""


@pytest.mark.parametrize(("defect", "mutated"), runs())
def test_the_checker_tells_the_mutant_from_the_sound_daemon(
    node: RabbitNode, names: Names, tmp_path: Path, defect: str, mutated: bool
) -> None:
    scenario, sink, verdict = SCENARIOS[defect]
    refuse = REFUSE if scenario in REFUSING else 0
    with staged(node, names, tmp_path, defect if mutated else "", refuse) as stage:
        if mutated and verdict == NOT_NOTICED:
            with pytest.raises(AssertionError, match=NOT_NOTICED):
                scenario(stage)
            # It looks alive, and nothing moves.
            assert (stage.daemon.is_ready(), stage.daemon.acked()) == (True, 0)
            return
        scenario(stage)
        found = {finding.sink: finding for finding in stage.finish()}
        faults = [
            fault for finding in found.values() for fault in finding.faults(stage.losses * PREFETCH)
        ]
        if not mutated:
            assert not faults
            return
        assert faults
        assert any(verdict in fault for fault in faults if fault.startswith(f"{sink}:"))
        assert getattr(found[sink], verdict)


def test_every_defect_has_its_scenario() -> None:
    assert set(SCENARIOS) == set(DEFECTS)
