"""A private S3 on loopback: moto's server, which holds all of it in memory."""

import signal
import subprocess
import sys
import urllib.request
from typing import Self

import obstore
from obstore.store import S3Store

from logfan.testing.node import free_port
from support.daemon import die_with_parent
from support.waiting import wait_until


class Moto:
    """Takes any credentials. What it holds is gone with it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1",
            "-p", str(self.port),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
        )  # fmt: skip
        wait_until(self._answers, "moto answers")

    def _answers(self) -> bool:
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

    def signal(self, how: signal.Signals) -> None:
        """SIGSTOP has it hang, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(how)

    def kill(self) -> None:
        """SIGKILL: a crash, by which it loses all it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
