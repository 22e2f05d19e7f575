"""A private S3 on loopback: moto's server, which holds all of it in memory."""

import sys
import urllib.request

import obstore
from obstore.store import S3Store

from logfan.testing.node import free_port
from support.server_process import ServerProcess


class Moto(ServerProcess):
    """Takes any credentials. What it holds is gone with it."""

    def __init__(self) -> None:
        super().__init__("moto")
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        server = ("-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self.launch([sys.executable, "-W", "ignore", *server])

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except OSError:
            return False
        return True

    def create(self, bucket: str) -> None:
        """Make a bucket."""
        request = urllib.request.Request(f"{self.endpoint}/{bucket}", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def store(self, bucket: str) -> S3Store:
        """A client of the bucket."""
        return S3Store(
            bucket, endpoint=self.endpoint, access_key_id="a", secret_access_key="b",
            region="us-east-1", client_options={"allow_http": True},
        )  # fmt: skip

    def objects(self, bucket: str) -> dict[str, bytes]:
        """All that the bucket holds, by its key."""
        store = self.store(bucket)
        keys = [one["path"] for some in obstore.list(store) for one in some]
        return {key: bytes(obstore.get(store, key).bytes()) for key in keys}
