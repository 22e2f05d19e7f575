"""Private RabbitMQ nodes that form one cluster on this machine, to kill and bring back one by one.

Like a single node: on loopback, in temporary folders, without root, and gone when we are.
"""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from logfan.testing.node import Membership, RabbitNode, free_port, name_of
from logfan.testing.started import Started

_NODES = 3
_JOIN_SECONDS = 60
_ELECTION_SECONDS = 20.0


class RabbitCluster(Started):
    """Three nodes. Use it as a context manager.

    Each of `nodes` is a RabbitNode: `stop`, `kill` and `start` it; its data stays meanwhile.
    """

    def __init__(self, *, management_port: int = 0) -> None:
        """Prepare the nodes; nothing runs yet. `management_port`: where the first node has the
        management API; 0 for none."""
        ports = [free_port() for _ in range(_NODES)]
        formed = ["cluster_formation.peer_discovery_backend = classic_config"]
        formed += [
            f"cluster_formation.classic_config.nodes.{number} = {name_of(port)}"
            for number, port in enumerate(ports, 1)
        ]
        member = Membership(secrets.token_hex(16), free_port())
        first: dict[int, tuple[str, ...]] = {}
        if management_port:
            first[ports[0]] = (
                "management.tcp.ip = 127.0.0.1", f"management.tcp.port = {management_port}",
                "collect_statistics_interval = 200",
            )  # fmt: skip
        self.nodes = tuple(
            RabbitNode(
                port=port,
                member=member,
                config=[*formed, *first.get(port, ())],
                plugins=["rabbitmq_management"] if port in first else (),
            )
            for port in ports
        )
        self._mapper = ExitStack()

    @property
    def urls(self) -> list[str]:
        """Where to connect, a URL a node."""
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Start all nodes and wait until they are one cluster. Raises NodeUnavailable."""
        self._mapper.callback(self.nodes[0].start_mapper())
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(RabbitNode.start, self.nodes))
        self.wait_whole()

    def close(self) -> None:
        """Kill all nodes and remove their folders; nothing of them remains when this returns."""
        for node in self.nodes:
            node.close()
        self._mapper.close()

    def wait_whole(self) -> None:
        """Wait until all nodes are in the cluster and run. Raises CalledProcessError."""
        size = str(len(self.nodes))
        self.nodes[0].ctl("await_online_nodes", size, "-t", str(_JOIN_SECONDS))

    def bring_back(self) -> None:
        """Start the nodes that are down, and wait until the cluster is whole."""
        down = [node for node in self.nodes if node.pid is None]
        for node in down:
            node.start()
        if down:
            self.wait_whole()

    def running(self) -> list[RabbitNode]:
        """The nodes that run at this moment."""
        return [node for node in self.nodes if node.pid is not None]

    def leader(self, queue: str) -> RabbitNode:
        """The node that leads a quorum queue of the default virtual host. Raises LookupError."""
        deadline = time.monotonic() + _ELECTION_SECONDS
        while True:
            leader = self.running()[0].queues("leader").get(queue, {}).get("leader")
            for node in self.nodes:
                if node.name == leader:
                    return node
            # There may be none for a moment: the others are choosing.
            if time.monotonic() > deadline:
                raise LookupError(f"no queue {queue!r} of the cluster has a leader")
