"""The publisher as a process: started, paused, asked, ended."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from chaos.checker import Journal, Span
from support.waiting import wait_until

TESTS = Path(__file__).parents[1]
_QUIET_SECONDS = 120.0


class Load:
    """A running publisher. As a context manager it is killed at the end."""

    def __init__(
        self,
        url: str,
        exchange: str,
        folder: Path,
        *,
        run: str,
        rate: float,
        seed: str,
        plain: bool,
    ) -> None:
        """`plain`: without `mandatory`, and beside one that has it."""
        self.run = run
        self.name = "plain" if plain else ""
        mark = "-plain" if plain else ""
        self.journal_path = folder / f"published{mark}.journal"
        self._command = [
            sys.executable, "-m", "chaos.publisher", url, exchange, str(self.journal_path),
            "--run", run, "--rate", str(rate), "--seed", seed,
            *(["--plain"] if plain else []),
        ]  # fmt: skip
        self._log = folder / f"publisher{mark}.log"
        self.numbers: dict[str, Any] = {}
        """The publisher's own, a moment old."""
        self._orders = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=TESTS, text=True, stderr=log,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self._running()
        process.kill()
        process.wait()
        assert self._reader is not None
        self._reader.join(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    @property
    def confirmed(self) -> int:
        return int(self.numbers.get("confirmed", 0))

    def pause(self) -> None:
        """Publish nothing new, and return once all that was published is confirmed."""
        self.hush()
        self.wait_quiet()

    def hush(self) -> None:
        """Publish nothing new from now on; `wait_quiet` waits for the rest."""
        self._order("pause")

    def resume(self) -> None:
        self._order("resume")

    def wait_confirmed(self, count: int) -> None:
        """Wait until so many are confirmed."""
        wait_until(
            lambda: self._alive() and self.confirmed >= count, "it is confirmed", _QUIET_SECONDS
        )

    def finish(self, unbound: Sequence[Span] = ()) -> Journal:
        """Wait until all is confirmed, end it, and read its journal. `unbound`: see there."""
        self._order("stop")
        process = self._running()
        if process.wait(_QUIET_SECONDS) != 0:
            raise AssertionError(f"not all was confirmed; the publisher's log:\n{self._log_text()}")
        return Journal.read(self.journal_path, name=self.name, unbound=unbound)

    def wait_quiet(self) -> None:
        """Wait until all that was published is confirmed."""

        def is_quiet() -> bool:
            # What it reported before it read the order does not count.
            return self.numbers.get("orders") == self._orders and bool(self.numbers["quiet"])

        wait_until(
            lambda: self._alive() and is_quiet(), "all published is confirmed", _QUIET_SECONDS
        )

    def _read(self) -> None:
        process = self._running()
        assert process.stdout is not None
        for line in process.stdout:
            self.numbers = json.loads(line)

    def _order(self, word: str) -> None:
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        self._orders += 1

    def _alive(self) -> bool:
        code = self._running().poll()
        if code:
            raise AssertionError(f"the publisher ended ({code}); its log:\n{self._log_text()}")
        return True

    def _log_text(self) -> str:
        return self._log.read_text()[-3000:]

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None
        return self._process
