"""A server that speaks Loki's push protocol, as a process that can crash."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from logfan.testing.node import free_port
from support.server_process import ServerProcess, listens

_SERVER = Path(__file__).with_name("loki_server.py")


class Loki(ServerProcess):
    """What it kept is read from its file."""

    def __init__(self) -> None:
        super().__init__("loki")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._pushes = self.folder / "pushes"
        self._pace = self.folder / "pushes.pace"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch([sys.executable, str(_SERVER), str(self._port), str(self._pushes)])

    def is_ready(self) -> bool:
        """Whether it listens."""
        return listens(self._port)

    def push_back(self, seconds: int) -> None:
        """From now on it answers 429, come again in so many seconds."""
        new = self._pace.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._pace)

    def take_again(self) -> None:
        """It takes what comes."""
        self._pace.unlink()

    def lines(self) -> Iterator[str]:
        """All lines that were pushed and kept."""
        with self._pushes.open("rb") as file:
            for push in file:
                with suppress(orjson.JSONDecodeError):  # torn by a crash, so never answered
                    for stream in orjson.loads(push)["streams"]:
                        yield from (entry[1] for entry in stream["values"])
