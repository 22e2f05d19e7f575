"""The order of calls to the kernel: write, fdatasync, and only then the ack on the socket.

A kill cannot show a missing fsync, as the page cache outlives the process: so a tracer looks.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.daemon import DaemonProcess
from support.tracer import tracer
from support.waiting import wait_until

CALLS = "writev,pwrite64,fdatasync,fsync,openat,rename,renameat,renameat2,sendto"
ACK = r"\x00\x3c\x00\x50"  # class basic, method ack


@contextmanager
def traced(pid: int, into: Path) -> Iterator[None]:
    """All threads of the process, each call as `name(fd<path>, "bytes in hex")`."""
    program, environ = tracer()
    command = [program, "-f", "-y", "-xx", "-s", "64", "-e", f"trace={CALLS}", "-o", str(into)]
    with subprocess.Popen(
        [*command, "-p", str(pid)], env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        attached = process.stderr.readline()
        if "attached" not in attached:
            process.kill()
            assert os.geteuid() != 0, attached
            pytest.skip(f"an ordinary user may not look into a process here: {attached.strip()}")
        yield
        process.send_signal(signal.SIGINT)


def plain(line: str) -> str:
    """The line with its paths readable; bytes stay hex."""

    def readable(match: re.Match[str]) -> str:
        digits = (match[1] or match[2]).replace("\\x", "")
        return f"<{bytes.fromhex(digits).decode()}>"

    return re.sub(r'<(\\x[^>]*)>|"((?:\\x2f|\\x2e|\\x[2-7][0-9a-f])+)"', readable, line)


def test_each_message_is_written_then_durable_then_acknowledged(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    sinks = '[sinks.a]\nkind = "file"\npath = "logs/a.log"\nrotate = { size = "1B" }'
    trace = tmp_path / "trace"
    with DaemonProcess(tmp_path, node.url, names, sinks) as daemon, traced(daemon.pid, trace):
        for number in range(1, 4):
            publish(node.url, names.exchange, [b"%d" % number])
            wait_until(lambda: daemon.acked() == number, "acknowledged")  # noqa: B023
        # To the end: an acknowledgement counts before the loop's next turn sends it.
        assert daemon.stop() == 0
    file, folder = "logs/a.log>", "logs>"
    seen_calls: list[str] = []
    for line in map(plain, trace.read_text().splitlines()):
        name = line.split(maxsplit=1)[1].split("(")[0]
        if name == "sendto" and ACK in line:
            seen_calls.append("ack")
        elif name == "writev" and file in line:
            seen_calls.append("write")
        elif name == "fdatasync" and file in line:
            seen_calls.append("fdatasync")
        elif name == "fsync" and folder in line:
            seen_calls.append("fsync of the folder")
        elif name.startswith("rename") and "a.log" in line:
            seen_calls.append("rename")
    first = ["write", "fdatasync", "ack"]
    rotated = ["rename", "fsync of the folder", "write", "fdatasync", "ack"]
    assert seen_calls == [*first, *rotated, *rotated], "\n".join(seen_calls)
