"""Queues of any nature, made by others or by a virtual host's default, on a real RabbitMQ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from logfan.testing.node import RabbitNode
from support.broker import (
    Names,
    add_user,
    channel,
    declare_bound,
    delete_queue,
    delete_user,
    publish,
    waiting,
)
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.letters import bodies
from support.waiting import wait_until

STREAM = {"x-queue-type": "stream"}
QUORUM = {"x-queue-type": "quorum"}


def lines(folder: Path, name: str = "raw.log") -> list[bytes]:
    path = folder / name
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    "environ",
    [
        {}, {"LOGFAN_QUEUE__TYPE": "quorum"}, {"LOGFAN_QUEUE__DECLARE": "passive"},
    ],
    ids=["classic", "quorum", "passive"],
)  # fmt: skip
def test_a_stream_is_refused_with_the_reason(
    node: RabbitNode, names: Names, tmp_path: Path, environ: Mapping[str, str]
) -> None:
    declare_bound(node.url, names, arguments={**STREAM, "x-max-age": "1h"})
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
    daemon.start(ready=False)
    assert daemon.wait() == 77
    assert f"queue {names.queue!r} is a stream" in daemon.log()
    assert "bind a classic or a quorum queue" in daemon.log()
    assert "did not end" not in daemon.log()


@pytest.mark.parametrize("declare", ["passive", "never"])
def test_a_queue_that_is_not_there_and_may_not_be_declared_is_a_refusal(
    node: RabbitNode, names: Names, tmp_path: Path, declare: str
) -> None:
    environ = {"LOGFAN_QUEUE__DECLARE": declare}
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
    daemon.start(ready=False)
    assert daemon.wait() == 77
    assert f"queue {names.queue!r} does not exist" in daemon.log()
    assert 'set queue.declare = "auto"' in daemon.log()


@pytest.mark.parametrize("fast", ["true", "false"])
def test_a_stream_that_may_not_be_asked_for_is_found_out_before_a_message_is_taken(
    node: RabbitNode, names: Names, tmp_path: Path, fast: str
) -> None:
    declare_bound(node.url, names, arguments=STREAM)
    environ = {"LOGFAN_QUEUE__DECLARE": "never", "LOGFAN_RABBITMQ__FAST_PATH": fast}
    with DaemonProcess(tmp_path, node.url, names, RAW, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"one", b"two"])
        assert daemon.wait() == 77
        assert "is a stream" in daemon.log()
        assert "went back" not in daemon.log()
        assert "handed back" not in daemon.log()
    assert lines(tmp_path) == []


def test_without_permission_to_ask_a_stream_is_found_out_too(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    declare_bound(node.url, names, arguments=STREAM)
    with channel(node.url) as admin:
        admin.queue_declare(f"{names.queue}.dead", durable=True)
    add_user(node, "reader", ("^$", ".*", ".*"), password="reader")
    try:
        url = node.url.replace("guest:guest", "reader:reader")
        with DaemonProcess(tmp_path, url, names, RAW) as daemon:
            publish(node.url, names.exchange, [b"one"])
            assert daemon.wait() == 77
            assert "is a stream" in daemon.log()
    finally:
        delete_user(node, "reader")


@pytest.mark.parametrize("default", ["stream", "quorum"])
def test_our_queues_are_what_the_config_says_whatever_the_virtual_hosts_default(
    node: RabbitNode, names: Names, tmp_path: Path, default: str
) -> None:
    vhost = f"of-{default}s"
    node.ctl("add_vhost", vhost, "--default-queue-type", default)
    node.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    url = node.url_of(vhost)
    with DaemonProcess(tmp_path, url, names, RAW) as daemon:
        publish(url, names.exchange, [b"hello"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        listed = node.ctl("list_queues", "--no-table-headers", "-p", vhost, "name", "type")
        assert dict(line.split("\t") for line in listed.splitlines() if "\t" in line) == {
            names.queue: "classic", f"{names.queue}.dead": "classic",
        }  # fmt: skip
        # Once more on the same queues: nothing differs.
        assert daemon.stop() == 0
        daemon.start()
        assert "is used as it stands" not in daemon.log()


def test_a_queue_from_before_the_type_was_sent_is_used_without_a_word(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    declare_bound(node.url, names)
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        publish(node.url, names.exchange, [b"hello"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        assert "is used as it stands" not in daemon.log()


GATE = '''
import pathlib, time, logfan

class Gate(logfan.Sink):
    """Hang while a file called `shut` is there."""

    def write(self, records):
        pathlib.Path("entered").touch()
        while pathlib.Path("shut").exists():
            time.sleep(0.01)
        with open("gate.log", "ab") as file:
            file.writelines(record.body + b"\\n" for record in records)

@logfan.hookimpl
def register_sinks(register):
    register("gate", Gate)
'''
GATED = '[sinks.gate]\nkind = "gate"\n'
MESSAGES = [b"%d" % number for number in range(50)]


def killed(folder: Path, url: str, names: Names, times: int, environ: Mapping[str, str]) -> str:
    """A daemon whose sink hangs is killed so often while it holds messages; then the sink works,
    and all is taken out of the queue. Returns the daemon's log."""
    add_drop_in(folder, "gate", GATE)
    (folder / "shut").touch()
    daemon = DaemonProcess(folder, url, names, GATED, environ=environ)

    def letters() -> float:
        return daemon.metric('logfan_dead_lettered_records_total{sink="gate"}')

    for _ in range(times):
        with daemon:
            wait_until(
                lambda: (
                    daemon.metric("logfan_received_messages_total") == len(MESSAGES)
                    and ((folder / "entered").exists() or letters() == len(MESSAGES))
                ),
                "the sink holds what there is, or it is a dead letter",
            )
            if letters():
                break
        (folder / "entered").unlink()
    (folder / "shut").unlink()
    with daemon:
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 0, "nothing is held")
        wait_until(lambda: waiting(url, names.queue) == 0, "the queue is empty")
        assert daemon.stop() == 0
    return daemon.log()


def kept(folder: Path, url: str, names: Names) -> set[bytes]:
    """What is written, or a dead letter."""
    return {*lines(folder, "gate.log"), *bodies(url, f"{names.queue}.dead")}


@pytest.mark.parametrize("kind", ["quorum", pytest.param("classic", marks=pytest.mark.long)])
def test_a_limit_beside_other_differences_is_found_and_costs_no_message(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    arguments = {**QUORUM, "x-delivery-limit": 3, "x-max-length": 1000}
    declare_bound(node.url, names, arguments=arguments)
    publish(node.url, names.exchange, MESSAGES)
    log = killed(tmp_path, node.url, names, 5, {"LOGFAN_QUEUE__TYPE": kind})
    assert kept(tmp_path, node.url, names) == set(MESSAGES)
    assert "x-delivery-limit is '3' on the broker" in log
    assert "its queue drops a message after 3 returns" in log


@pytest.mark.parametrize(
    "policy", ["set_policy", pytest.param("set_operator_policy", marks=pytest.mark.long)]
)
def test_a_policys_limit_that_the_operator_names_costs_no_message(
    node: RabbitNode, names: Names, tmp_path: Path, policy: str
) -> None:
    environ = {"LOGFAN_QUEUE__TYPE": "quorum", "LOGFAN_QUEUE__DELIVERY_LIMIT": "3"}
    definition = '{"delivery-limit": 3}'
    node.ctl(policy, "--apply-to", "queues", names.queue, f"^{names.queue}$", definition)
    with DaemonProcess(tmp_path, node.url, names, RAW, environ=environ):
        pass  # it makes the queue
    publish(node.url, names.exchange, MESSAGES)
    killed(tmp_path, node.url, names, 5, environ)
    assert kept(tmp_path, node.url, names) == set(MESSAGES)


def test_rising_counts_are_reported_early_where_no_limit_is_named(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    environ = {"LOGFAN_QUEUE__TYPE": "quorum"}
    with DaemonProcess(tmp_path, node.url, names, RAW, environ=environ):
        pass
    publish(node.url, names.exchange, MESSAGES)
    log = killed(tmp_path, node.url, names, 3, environ)
    assert log.count("came back 2 times") == 1
    assert log.count("came back 3 times") == 1
    assert "set queue.delivery_limit to the limit in force" in log
    assert set(lines(tmp_path, "gate.log")) == set(MESSAGES)


def test_a_publishers_delivery_count_means_nothing_where_the_queue_counts_none(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Also a message that was dead-lettered from a quorum queue before has the header."""
    declare_bound(node.url, names, arguments={"x-queue-type": "classic"})
    publish(node.url, names.exchange, MESSAGES, headers={"x-delivery-count": 1000})
    log = killed(tmp_path, node.url, names, 1, {})
    assert set(lines(tmp_path, "gate.log")) == set(MESSAGES)
    assert "came back" not in log


REFUSING = '''
import logfan

class Picky(logfan.Sink):
    """Refuse what begins with `bad`."""

    def write(self, records):
        with open("picky.log", "ab") as file:
            file.writelines(r.body + b"\\n" for r in records if not r.body.startswith(b"bad"))
        refused = {i: "bad" for i, r in enumerate(records) if r.body.startswith(b"bad")}
        if refused:
            raise logfan.RecordsRejected(refused)

@logfan.hookimpl
def register_sinks(register):
    register("picky", Picky)
'''
PICKY = '[sinks.picky]\nkind = "picky"\n'


def picky(folder: Path, url: str, names: Names) -> DaemonProcess:
    add_drop_in(folder, "picky", REFUSING)
    return DaemonProcess(folder, url, names, PICKY)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"arguments": STREAM}, "it is a stream"),
        ({"arguments": {"x-message-ttl": 1000}}, "letters would be gone after 1000 ms"),
        ({"arguments": {"x-max-length": 0}}, "it keeps no letter"),
        ({"arguments": {"x-expires": 50_000}}, "letters would be gone after 50000 ms"),
    ],
    ids=["stream", "ttl", "length", "expires"],
)
def test_a_dead_letter_queue_that_loses_letters_at_once_gets_none(
    node: RabbitNode, names: Names, tmp_path: Path, properties: Mapping[str, Any], words: str
) -> None:
    with channel(node.url) as admin:
        admin.queue_declare(f"{names.queue}.dead", **{"durable": True, **properties})
    with picky(tmp_path, node.url, names) as daemon:
        publish(node.url, names.exchange, [b"bad"])
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "the sink counts as not ready")
        wait_until(lambda: words in daemon.log(), "the reason is in the log")
        assert "dead_letter.queue" in daemon.log()
        assert daemon.acked() == 0
        # Mended: the queue is made anew, as it should be.
        delete_queue(node.url, f"{names.queue}.dead")
        wait_until(lambda: daemon.acked() == 1, "the letter is where it belongs")
    assert bodies(node.url, f"{names.queue}.dead") == [b"bad"]


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"durable": False}, "its letters do not survive a restart"),
        ({"arguments": {"x-message-ttl": 3_600_000}}, "letters are dropped after 3,600,000 ms"),
        ({"arguments": {"x-max-length": 10}}, "once it is full the oldest letters are dropped"),
        ({"auto_delete": True}, "it is deleted, with its letters"),
    ],
    ids=["transient", "ttl", "length", "auto-delete"],
)
def test_a_dead_letter_queue_that_may_lose_letters_is_reported_with_the_way_out(
    node: RabbitNode, names: Names, tmp_path: Path, properties: Mapping[str, Any], words: str
) -> None:
    with channel(node.url) as admin:
        admin.queue_declare(f"{names.queue}.dead", **{"durable": True, **properties})
    with picky(tmp_path, node.url, names) as daemon:
        publish(node.url, names.exchange, [b"bad", b"good"])
        wait_until(lambda: daemon.acked() == 2, "the letter is taken")
        assert words in daemon.log()
        assert "delete it once it is empty and logfan makes it anew" in daemon.log()
    assert bodies(node.url, f"{names.queue}.dead") == [b"bad"]
