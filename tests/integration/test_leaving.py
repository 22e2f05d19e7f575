"""After the stop the process ends, whatever a plugin has left running."""

import signal
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.command import logfan
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

PLUGIN = '''
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor

import logfan

def hang():
    while True:
        time.sleep(3600)

class Hang(logfan.Sink):
    """Leaves something running that never ends."""

    class Config(logfan.SinkConfig):
        what: str

    def open(self):
        if self.config.what == "executor":
            self.pool = ThreadPoolExecutor(1, "uploads")
            self.pool.submit(hang)
        elif self.config.what == "thread":
            threading.Thread(target=hang, name="uploads", daemon=False).start()
        elif self.config.what == "atexit":
            atexit.register(hang)

    def write(self, records):
        pass

@logfan.hookimpl
def register_sinks(register):
    register("hang", Hang)
'''


@pytest.mark.parametrize("what", ["executor", "thread", "atexit", "nothing"])
def test_what_a_plugin_left_running_does_not_hold_the_process(
    what: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "hang", PLUGIN)
    sinks = f'[sinks.h]\nkind = "hang"\nwhat = "{what}"\n'
    with DaemonProcess(tmp_path, node.url, names, sinks) as daemon:
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        log = daemon.log()
        assert "stopped; everything received is acknowledged" in log
        assert ("left behind" in log) is (what != "nothing")
        assert ("uploads" in log) is (what in ("executor", "thread"))


@pytest.mark.parametrize("command", ["doctor", "try"])
@pytest.mark.parametrize("what", ["executor", "thread"])
def test_it_holds_no_command_that_opens_sinks_either(
    command: str, what: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    plugins = add_drop_in(tmp_path, "hang", PLUGIN)
    (tmp_path / "config.toml").write_text(
        f'[plugins]\ndirectories = ["{plugins}"]\n[rabbitmq]\nurls = ["{node.url}"]\n'
        f'[queue]\nname = "{names.queue}"\n[exchange]\nname = "{names.exchange}"\n'
        f'[http]\nlisten = "127.0.0.1:0"\n[sinks.h]\nkind = "hang"\nwhat = "{what}"\n'
    )
    done = logfan(command, folder=tmp_path)
    assert "uploads" in done.stderr
    assert "it is left behind" in done.stderr
    assert done.returncode == int(command == "try" and what == "thread")
