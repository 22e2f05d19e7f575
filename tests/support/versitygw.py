"""A private S3 on loopback that keeps its objects on disk: Versity's gateway, built with Go."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from logfan.testing.debian import cache_folder
from logfan.testing.node import free_port
from support.server_process import ServerProcess, listens

_MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
_BUILD_SECONDS = 1800


class GoUnavailable(Exception):
    """What is built with Go cannot be had here; the text gives the reason."""


def built() -> Path:
    """The program, built at the first call, which takes some minutes."""
    if shutil.which("go") is None:
        raise GoUnavailable("this system has no go")
    program = cache_folder() / "go" / "versitygw-1.8.0"
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=program.parent, prefix=".new-") as scratch:
                done = subprocess.run(
                    ["go", "install", _MODULE], check=False, capture_output=True, text=True,
                    env={**os.environ, "GOBIN": scratch}, timeout=_BUILD_SECONDS,
                )  # fmt: skip
                if done.returncode:
                    raise GoUnavailable(f"{_MODULE} cannot be built: {done.stderr[-300:]}")
                (Path(scratch) / "versitygw").rename(program)
    return program


class VersityGateway(ServerProcess):
    """Takes the key `logfan` with the secret `s3cret`. An object is a file in `data`."""

    def __init__(self) -> None:
        self._program = built()
        super().__init__("versitygw")
        self._port = free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.data = self.folder / "data"
        self.data.mkdir()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch(
            [
                str(self._program), "--port", f"127.0.0.1:{self._port}", "--access", "logfan",
                "--secret", "s3cret", "--quiet", "posix", str(self.data),
            ]
        )  # fmt: skip

    def is_ready(self) -> bool:
        """Whether it listens."""
        return listens(self._port)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """All that a bucket holds, by its key."""
        root = self.data / bucket
        files = (path for path in root.rglob("*") if path.is_file() and ".sgwtmp" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in files}
