"""What doctor finds in a real cluster: a node that is down, and one that is cut off."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from logfan.testing.cluster import RabbitCluster
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, channel
from support.doctor import DANGER, OK, WARNING, Report, examined
from support.needed import needed
from support.waiting import wait_until

API_PORT = free_port()
CHECKS = ("node-alarms", "queue-state")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitCluster]:
    with needed(), RabbitCluster(management_port=API_PORT) as cluster:
        yield cluster


def report_until(cluster: RabbitCluster, names: Names, folder: Path, **wanted: object) -> Report:
    """The report once each of these checks, `-` written `_`, has its severity: the API's answers
    are a moment old."""
    last: list[Report] = []

    def is_found() -> bool:
        last[:] = [
            examined(
                folder, cluster.nodes[0].url, names, checks=CHECKS,
                rabbitmq=f'management_url = "http://127.0.0.1:{API_PORT}"',
            )
        ]  # fmt: skip
        return all(
            last[0].one(check.replace("_", "-")).severity is severity
            for check, severity in wanted.items()
        )

    wait_until(is_found, f"doctor finds {wanted}: {last and last[0].findings}")
    return last[0]


def whats(report: Report) -> list[str]:
    return [one.what for one in report.of("node-alarms")]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_node_that_is_down(cluster: RabbitCluster, names: Names, tmp_path: Path) -> None:
    first, other, _ = cluster.nodes
    with channel(first.url) as admin:
        quorum = {"x-queue-type": "quorum"}
        admin.queue_declare(names.queue, durable=True, arguments=quorum)
    report_until(cluster, names, tmp_path, node_alarms=OK, queue_state=OK)
    other.kill()
    report = report_until(cluster, names, tmp_path, node_alarms=DANGER, queue_state=WARNING)
    assert f"node {other.name} is down" in whats(report)
    assert report.one("queue-state").what.startswith("2 of 3 copies of queue")
    cluster.bring_back()
    report_until(cluster, names, tmp_path, node_alarms=OK, queue_state=OK)


def holds(node: RabbitNode, code: str) -> bool:
    """Whether this matches in the node."""
    try:
        node.eval(code)
    except subprocess.CalledProcessError:
        return False
    return True


def cookie(node: RabbitNode, others: list[RabbitNode], secret: str) -> None:
    """What this node shows to others as its secret, and asks of them."""
    for other in others:
        node.eval(f"true = erlang:set_cookie('{other.name}', {secret}).")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_node_that_is_cut_off(cluster: RabbitCluster, names: Names, tmp_path: Path) -> None:
    """With another secret for a moment no node of the cluster can connect to it."""
    first, *others = cluster.nodes
    cookie(first, others, "another")
    for other in others:
        # A node that has noticed the other secret may be gone already.
        first.eval(f"erlang:disconnect_node('{other.name}').")
    report = report_until(cluster, names, tmp_path, node_alarms=DANGER)
    assert {f"node {other.name} is down" for other in others} <= set(whats(report))
    if tuple(map(int, first.version.split(".")[:2])) >= (4, 3):
        return  # Raft keeps what the nodes share: no side goes on without a majority
    alone = f"false = lists:member('{first.name}', rabbit_mnesia:cluster_nodes(running))."
    wait_until(
        lambda: all(holds(other, alone) for other in others), f"{first.name} is gone for others"
    )
    cookie(first, others, "erlang:get_cookie()")
    for other in others:
        first.eval(f"net_kernel:connect_node('{other.name}').")
    wait_until(
        lambda: (
            f"node {first.name} is cut off from others of its cluster"
            in whats(report_until(cluster, names, tmp_path, node_alarms=DANGER))
        ),
        "doctor finds the partition",
    )
