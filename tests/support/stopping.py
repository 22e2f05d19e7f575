"""A program: writes with the file sink, and is killed before its first call to the system, before
its second, and so on, each time in a folder of its own, until one run comes to its end.

`python stopping.py FOLDER` prints for each run the call at which it was killed. A run writes the
numbers of what was acknowledged into `acked`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import logfan
from logfan_sinks.file import FileSink

CALLS = ("open", "mkdir", "writev", "fdatasync", "fsync", "rename", "unlink", "fchmod", "ftruncate")
BATCHES, LINES = 4, 5


def stop_at(step: int, marker: int) -> None:
    """Kill this process before its call number `step`; a write is done by half."""
    count = 0

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            nonlocal count
            if marker in args:
                return real(*args, **named)
            count += 1
            if count > step:
                if name == "writev":
                    whole = b"".join(args[1])
                    real(args[0], [whole[: len(whole) // 2]])
                os.pwrite(marker, name.encode(), 0)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        setattr(os, name, call)

    for name in CALLS:
        watch(name)


def run(folder: Path, step: int) -> None:
    """Four batches, each of which rotates the file, and all rotated files compressed."""
    acked = os.open(folder / "acked", os.O_WRONLY | os.O_CREAT)
    marker = os.open(folder / "killed-at", os.O_WRONLY | os.O_CREAT)
    stop_at(step, marker)
    logs = folder / "logs"
    rotate = {"size": "20B", "keep": 100, "compress": "gzip"}
    sink = FileSink(FileSink.Config(path=f"{logs}/a.log", format="raw", rotate=rotate))
    sink.open()
    for batch in range(BATCHES):
        numbers = range(batch * LINES, (batch + 1) * LINES)
        sink.write([record(b"%04d" % number) for number in numbers])
        sink.flush()
        os.pwrite(acked, b"%04d" % numbers.stop, 0)
        until = time.monotonic() + 20
        while not_compressed(logs):  # one call after the other, the same in each run
            assert time.monotonic() < until
            time.sleep(0.001)
    sink.close()


def not_compressed(logs: Path) -> list[Path]:
    return [file for file in logs.glob("a.log.*") if file.suffix != ".gz"]


def record(body: bytes) -> logfan.Record:
    return logfan.Record(body, "logs", "k", False, time.time(), logfan.Properties())


def main(folder: Path) -> None:
    step, status = 0, -1
    while status != 0:
        place = folder / f"{step:03}"
        place.mkdir()
        # This process has no thread but this one, so a fork is safe, and costs no second start.
        child = os.fork()
        if child == 0:
            try:
                run(place, step)
            except BaseException as error:  # noqa: BLE001 - it must not go on as its parent would
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
