"""A sink whose code forks: the copy never runs a line of logfan's."""

from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

FORKS = """
import os, logfan

class Forks(logfan.Sink):
    class Config(logfan.SinkConfig):
        how: str

    def write(self, records):
        if os.fork() == 0:
            with open("copies.log", "a") as file:
                file.write(f"{os.getpid()}\\n")
            if self.config.how == "raises":
                raise SystemExit(0)
            if self.config.how == "ends":
                os._exit(0)
            return
        os.wait()
        with open("forks.log", "ab") as file:
            file.writelines(one.body + b"\\n" for one in records)


@logfan.hookimpl
def register_sinks(register):
    register("forks", Forks)
"""


@pytest.mark.parametrize("how", ["raises", "returns", "ends"])
def test_the_copy_ends_and_everything_is_written_once(
    node: RabbitNode, names: Names, tmp_path: Path, how: str
) -> None:
    add_drop_in(tmp_path, "forks", FORKS)
    sinks = (
        '[sinks.raw]\nkind = "file"\npath = "raw.log"\nformat = "raw"\n'
        f'[sinks.forks]\nkind = "forks"\nhow = "{how}"\n'
    )
    with DaemonProcess(tmp_path, node.url, names, sinks, forked=False) as daemon:
        bodies = [b"%d" % n for n in range(5)]
        for count, body in enumerate(bodies, 1):
            publish(node.url, names.exchange, [body])
            wait_until(lambda count=count: daemon.acked() == count, "it is acknowledged")  # type: ignore[misc]
        copies = (tmp_path / "copies.log").read_text().split()
        assert len(copies) == len(bodies)
        assert not [pid for pid in copies if Path("/proc", pid).exists()]
        assert (tmp_path / "raw.log").read_bytes().split() == bodies
        assert (tmp_path / "forks.log").read_bytes().split() == bodies
        told = daemon.log().count("sink forks: its code forked, and the copy")
        assert told == (0 if how == "ends" else len(bodies))
        assert daemon.stop() == 0
