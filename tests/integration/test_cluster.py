"""A cluster of three nodes and a quorum queue: nodes are killed under load, and nothing is lost.

Two kills; with `ROUNDS=N` in the environment, as `make cluster` sets it, N times two.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logfan.testing.cluster import RabbitCluster
from logfan.testing.node import RabbitNode
from support.broker import Names, channel
from support.daemon import RAW, DaemonProcess
from support.needed import needed
from support.steady import SteadyPublisher
from support.waiting import wait_until

ROUNDS = int(os.environ.get("ROUNDS", "1"))
PREFETCH = 200
# What a user of a cluster sets: all that must outlive a node is durable, and waits are short.
CLUSTERED = {"LOGFAN_EXCHANGE__DURABLE": "true", "LOGFAN_QUEUE__TYPE": "quorum"}
AT_HOME = [Names(f"logs-at-{number}", f"queue-at-{number}") for number in range(3)]
"""A classic queue on each node."""
LATE_SECONDS = 180.0
"""RabbitMQ 4.3 gives out what a lost node had delivered only a minute later."""
LOST = 'logfan_connections_total{outcome="lost"}'


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitCluster]:
    with needed(), RabbitCluster() as cluster:
        for node, names in zip(cluster.nodes, AT_HOME, strict=True):
            with channel(node.url) as admin:
                admin.exchange_declare(names.exchange, "fanout", durable=True)
                admin.queue_declare(names.queue, durable=True)
        yield cluster


def ports_of(pid: int) -> set[int]:
    """The ports of this machine that a process is connected to."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(descriptor.readlink()))
        except OSError:
            continue
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and f"socket:[{fields[9]}]" in inodes:
            ports.add(int(fields[2].rpartition(":")[2], 16))
    return ports


def node_of(cluster: RabbitCluster, daemon: DaemonProcess) -> RabbitNode:
    """The node that the daemon is connected to."""

    def connected() -> RabbitNode | None:
        ports = ports_of(daemon.pid)
        return next((node for node in cluster.nodes if node.port in ports), None)

    found = wait_until(connected, "the daemon is connected to a node")
    assert found is not None
    return found


def written(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "raw.log").read_bytes().splitlines()]


def has(folder: Path, number: int) -> bool:
    """Whether the sink holds this number, or one after it."""
    return any(one >= number for one in written(folder)[-3 * PREFETCH :])


def kill_and_go_on(
    victim: RabbitNode,
    daemon: DaemonProcess,
    publisher: SteadyPublisher,
    what: str,
) -> float:
    """Seconds until what was published after the kill is in the sink, the node being down still."""
    killed_at = time.monotonic()
    victim.kill()
    first_after = publisher.attempted + 1
    wait_until(
        lambda: has(daemon.folder, first_after),
        f"what is published after the kill of {what} arrives; the log:\n{daemon.log()}",
    )
    took = time.monotonic() - killed_at
    assert victim.pid is None
    return took


@pytest.mark.timeout(600 + 90 * ROUNDS)
def test_the_leader_and_the_connected_node_are_killed_and_nothing_confirmed_is_lost(
    cluster: RabbitCluster, names: Names, tmp_path: Path
) -> None:
    daemon = DaemonProcess(
        tmp_path, '", "'.join(cluster.urls), names, RAW,
        extra=f"prefetch = {PREFETCH}", environ=CLUSTERED,
    )  # fmt: skip
    victims: dict[str, Callable[[], RabbitNode]] = {
        "the queue's leader": lambda: cluster.leader(names.queue),
        "the node it is connected to": lambda: node_of(cluster, daemon),
    }
    took: list[float] = []
    with daemon, SteadyPublisher(cluster.urls, names.exchange) as publisher:
        for what, choose in list(victims.items()) * ROUNDS:
            cluster.bring_back()
            wait_until(lambda: has(tmp_path, publisher.attempted - PREFETCH), "it keeps up")
            took.append(kill_and_go_on(choose(), daemon, publisher, what))
        publisher.finish()
        confirmed = set(publisher.confirmed)
        wait_until(
            lambda: confirmed <= set(written(tmp_path)),
            f"all that was confirmed is in the sink; the log:\n{daemon.log()}", LATE_SECONDS,
        )  # fmt: skip
        losses = int(daemon.metric(LOST))
        stopped = daemon.stop()
    numbers = Counter(written(tmp_path))
    doubled = sum(numbers.values()) - len(numbers)
    sys.stdout.write(
        f"{2 * ROUNDS} kills, back after at most {max(took):.1f} s; {len(confirmed)} confirmed, "
        f"0 lost; {losses} connections lost, {doubled} doubled, {publisher.failures} publishings "
        "failed over\n"
    )
    assert stopped == 0
    assert set(numbers) <= set(range(1, publisher.attempted + 1))
    assert len(confirmed) >= 100
    assert losses >= ROUNDS
    assert doubled <= PREFETCH * losses


def test_a_queue_whose_node_is_down_is_waited_for(cluster: RabbitCluster, tmp_path: Path) -> None:
    """A classic queue lives on one node: 404, and no reason to end."""
    # The test before leaves a node dead; alone, this one kills one.
    number = next((n for n, node in enumerate(cluster.nodes) if node.pid is None), 1)
    there, here = cluster.nodes[number], cluster.nodes[number - 1]
    there.kill()
    daemon = DaemonProcess(
        tmp_path, here.url, AT_HOME[number], RAW,
        extra='reconnect = { max = "1s" }', environ={"LOGFAN_EXCHANGE__DURABLE": "true"},
    )  # fmt: skip
    with daemon.unready():
        # RabbitMQ 4 answers only after some 73 s, that the operation on the queue failed.
        wait_until(lambda: "(404); next attempt in" in daemon.log(), "it is logged", 240)
        there.start()
        daemon.wait_ready()
        assert daemon.stop() == 0
        if there.pid is None:
            there.start()
