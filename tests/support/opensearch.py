"""A private OpenSearch on loopback: one node, from Maven, with `OpenSearch.java` for a main."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import orjson

from logfan.testing.node import free_port
from support.java import JavaServer, jars

_ARTIFACTS = (
    "org.opensearch:opensearch:2.19.6",
    "org.opensearch.plugin:transport-netty4-client:2.19.6",
    "org.apache.logging.log4j:log4j-core:2.25.4",
)
_MAIN = Path(__file__).with_name("OpenSearch.java")


class OpenSearch(JavaServer):
    """Its data survives a crash: each request is durable before it is answered."""

    def __init__(self) -> None:
        super().__init__("opensearch", jars("opensearch-2.19.6", *_ARTIFACTS), heap="512m")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "path.home": self.folder / "home", "network.host": "127.0.0.1", "http.port": port,
            "transport.port": free_port(), "http.type": "netty4", "transport.type": "netty4",
            "discovery.type": "single-node", "node.name": "logfan",
            # The disk of a machine that tests is often nearly full.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }  # fmt: skip
        self._settings = [f"{name}={value}" for name, value in settings.items()]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch(self.java(str(_MAIN), *self._settings))

    def is_ready(self) -> bool:
        """Whether what it holds can be written to."""
        try:
            health = self.ask("GET", "/_cluster/health", timeout=5)
        except OSError:
            return False
        return health["status"] in ("yellow", "green") and not health["initializing_shards"]

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 60) -> Any:
        """The answer. Raises `urllib.error.HTTPError` where its status is none of success."""
        request = urllib.request.Request(
            self.url + path, None if body is None else orjson.dumps(body),
            {"Content-Type": "application/json"}, method=method,
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return orjson.loads(answer.read() or b"null")

    def documents(self, index: str) -> list[Any]:
        """All sources of an index, some thousands at the most; none where there is no index."""
        try:
            self.ask("POST", f"/{index}/_refresh")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        found = self.ask("POST", f"/{index}/_search", {"size": 10_000, "sort": ["_doc"]})
        return [hit["_source"] for hit in found["hits"]["hits"]]
