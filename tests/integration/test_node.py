"""The private RabbitMQ node: real, on loopback, and gone without a trace."""

import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pika
import pytest

from logfan.testing import versions
from logfan.testing.debian import DebianUnavailable
from logfan.testing.node import NodeUnavailable, QueueCounts, RabbitNode, free_port
from support.broker import channel
from support.waiting import wait_until


def family_of(folder: Path) -> set[int]:
    """Processes that live and were started with this folder in their command or environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in text and int(process.name) != os.getpid():
            found.add(int(process.name))
    return found


def folder_of(node: RabbitNode) -> Path:
    return Path(node.eval('io:format("~s", [os:getenv("HOME")]).').removesuffix("ok\n"))


def listening_addresses(pids: set[int]) -> set[str]:
    """Local addresses (in the kernel's hexadecimal) on which these processes listen."""
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(fd.readlink()))
            except OSError:
                continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                addresses.add(fields[1].rpartition(":")[0])
    return addresses


def test_several_may_ask_a_node_at_once(node: RabbitNode) -> None:
    with ThreadPoolExecutor(8) as askers:
        assert {*askers.map(lambda _: node.eval("1 + 1."), range(40))} == {"2\n"}


def test_it_counts_what_is_ready_unacked_and_consumed(node: RabbitNode) -> None:
    with channel(node.url) as one:
        queue = one.queue_declare("", exclusive=False, auto_delete=True).method.queue
        for _ in range(5):
            one.basic_publish("", queue, b"x")
        one.basic_qos(prefetch_count=2)
        one.basic_consume(queue, lambda *_: None)
        wait_until(
            lambda: node.counts(queue) == QueueCounts(ready=3, unacked=2, consumers=1),
            "two of five messages are held by one consumer",
        )
        assert (node.ready(queue), node.unacked(queue)) == (3, 2)


def test_it_says_that_a_queue_is_not_there(node: RabbitNode) -> None:
    with pytest.raises(LookupError, match="no queue 'nowhere' in virtual host '/'"):
        node.counts("nowhere")


EXPRESSIONS = """
io:format("~ts,~n", [[9786, 10, 228]]),
[<<"bytes">>, "text", {ok, 7}].
"""


def test_it_evaluates_as_rabbitmqctl_does(
    node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = node.eval(EXPRESSIONS)
    assert evaluated == '☺\nä,\n[<<"bytes">>,"text",{ok,7}]\n'
    for wrong in ("exit(oops).", "no expression.", "1 / 0."):
        with pytest.raises(subprocess.CalledProcessError):
            node.eval(wrong)
    monkeypatch.setattr("logfan.testing.node.shutil.which", lambda *_, **__: None)
    assert node.eval(EXPRESSIONS) == evaluated, "a release without erl_call"


def test_it_closes_all_connections(node: RabbitNode) -> None:
    with channel(node.url) as one:
        node.close_all_connections()
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
            one.connection.process_data_events(time_limit=20)


def test_everything_listens_on_loopback_only(node: RabbitNode) -> None:
    addresses = listening_addresses(family_of(folder_of(node)))
    loopback = {"0100007F", "00000000000000000000000001000000"}
    assert "0100007F" in addresses
    assert addresses <= loopback


def test_its_folder_is_nobody_elses_business(node: RabbitNode) -> None:
    assert stat.S_IMODE(folder_of(node).stat().st_mode) == stat.S_IRWXU


def test_one_that_runs_is_not_started_again(node: RabbitNode) -> None:
    """That it keeps what is durable through a stop, a kill and a restart is in `test_way_back`."""
    before = node.pid
    with pytest.raises(RuntimeError, match="runs already"):
        node.start()
    assert node.pid == before


def test_it_takes_plugins_and_further_config_and_leaves_neither_process_nor_folder() -> None:
    plugins, config = ["rabbitmq_consistent_hash_exchange"], ["heartbeat = 7"]
    with RabbitNode(plugins=plugins, config=config) as node:
        assert node.eval("application:get_env(rabbit, heartbeat).") == "{ok,7}\n"
        with channel(node.url) as one:
            one.exchange_declare("spread", "x-consistent-hash")
        folder = folder_of(node)
        assert family_of(folder)
    assert not folder.exists()
    assert not family_of(folder)
    with pytest.raises(RuntimeError, match="is closed"):
        node.start()


OWNER = """
import sys, time
from logfan.testing.node import RabbitNode
node = RabbitNode()
node.start()
print(node.eval('io:format("~s", [os:getenv("HOME")]).').removesuffix("ok\\n"), flush=True)
time.sleep(600)
"""


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert family_of(folder)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not family_of(folder), "all processes of the node are gone")
    wait_until(lambda: not folder.exists(), "the node's folder is gone")


def test_a_broken_config_ends_in_the_brokers_own_words() -> None:
    with (
        pytest.raises(NodeUnavailable, match=r"(?s)ended at its start:.*no_such_key"),
        RabbitNode(config=["no_such_key = 1"]),
    ):
        pass


def test_a_port_in_use_is_reported_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NodeUnavailable, match=f"port {port} of 127.0.0.1 is in use"):
            RabbitNode(port=port).__enter__()


def test_a_folder_without_rabbitmq_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeUnavailable, match=f"{tmp_path} holds no rabbitmq-server"):
        RabbitNode(root=tmp_path)


def test_where_nothing_can_be_fetched_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise DebianUnavailable("this system has no apt-get")

    monkeypatch.setattr(versions, "INSTALLED", tmp_path)
    monkeypatch.delenv("PRIVATE_RABBITMQ", raising=False)
    monkeypatch.setattr("logfan.testing.debian.unpacked", refuse)
    with pytest.raises(NodeUnavailable, match=r"no apt-get\); install RabbitMQ.* --broker"):
        RabbitNode()


PORTS = "from logfan.testing.node import free_port; print(*(free_port() for _ in range(200)))"


def test_no_two_processes_get_the_same_port() -> None:
    """A daemon that is down for a moment finds its port free again; a node has three."""
    ports = [free_port() for _ in range(600)]
    other = subprocess.run(
        [sys.executable, "-W", "default", "-c", PORTS], check=True, capture_output=True, text=True
    )
    assert other.stderr == "", "no socket is left open at the end"
    ports += map(int, other.stdout.split())
    assert len(set(ports)) == len(ports) == 800
