"""How many connections and channels an instance needs, and which permissions. `systemd/broker.md`
has them to paste, and this test runs what it finds there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import (
    Names,
    add_user,
    channel,
    delete_user,
    granting,
    limit_user,
    publish,
    waiting,
)
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

PICKY = """
import logfan


class Picky(logfan.Sink):
    def write(self, records):
        raise logfan.RecordsRejected({n: "never" for n in range(len(records))})


@logfan.hookimpl
def register_sinks(register):
    register("picky", Picky)
"""
PAGE = Path(__file__).parents[2] / "systemd/broker.md"
COMMAND = re.compile(r"^\$ rabbitmqctl set_permissions logfan '(.*)' '(.*)' '(.*)'$", re.MULTILINE)


@contextmanager
def user_of(node: RabbitNode, names: Names, permissions: tuple[str, str, str]) -> Iterator[str]:
    """A user with these permissions, for the names of this test; the URL."""
    user = f"u{names.queue[-6:]}"
    patterns = [
        p.replace("logfan", names.queue).replace("logs", names.exchange) for p in permissions
    ]
    add_user(node, user, patterns)
    yield node.url.replace("guest:guest", f"{user}:secret")
    delete_user(node, user)


def numbers_of(node: RabbitNode, user: str) -> tuple[int, int]:
    """Its connections and channels."""
    connections = node.eval("rabbit_networking:connection_info_all([user]).").count(f'"{user}"')
    channels = node.eval("rabbit_channel:info_all([user]).").count(f'"{user}"')
    return connections, channels


@pytest.mark.parametrize("number", [0, 1], ids=["declares", "consumes only"])
def test_the_permissions_on_the_page_suffice_for_all_that_it_says(
    node: RabbitNode, names: Names, tmp_path: Path, number: int
) -> None:
    permissions = COMMAND.findall(PAGE.read_text())
    assert len(permissions) == 2
    add_drop_in(tmp_path, "picky", PICKY)
    sinks = RAW + '[sinks.picky]\nkind = "picky"\n[dead_letter]\nmax_ratio = 1.0\n'
    environ = {}
    if number:
        environ = {"LOGFAN_EXCHANGE__DECLARE": "passive", "LOGFAN_QUEUE__DECLARE": "passive"}
        with channel(node.url) as admin:
            admin.exchange_declare(names.exchange, "fanout")
            admin.queue_declare(names.queue, durable=True)
            admin.queue_bind(names.queue, names.exchange)
            admin.queue_declare(f"{names.queue}.dead", durable=True)
    with user_of(node, names, permissions[number]) as url:
        daemon = DaemonProcess(tmp_path, url, names, sinks, environ=environ)
        with daemon:
            publish(node.url, names.exchange, [b"one", b"two"])
            wait_until(lambda: daemon.acked() == 2, "all is acknowledged")
            assert waiting(node.url, f"{names.queue}.dead") == 2
            assert daemon.metric("logfan_queue_ready_messages") == 0
            if not number:
                with channel(node.url) as admin:
                    admin.exchange_delete(names.exchange)
                    admin.exchange_declare(names.exchange, "fanout")
                wait_until(lambda: daemon.metric("logfan_rebound_total") == 1, "bound again")
                assert "ACCESS_REFUSED" not in daemon.log()
            assert daemon.stop() == 0


def test_an_instance_has_as_many_connections_and_channels_as_the_page_says(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "picky", PICKY)
    sinks = RAW + '[sinks.picky]\nkind = "picky"\n[dead_letter]\nmax_ratio = 1.0\n'
    with user_of(node, names, (".*", ".*", ".*")) as url:
        user = f"u{names.queue[-6:]}"
        with DaemonProcess(tmp_path, url, names, sinks) as daemon:
            publish(node.url, names.exchange, [b"one"])
            wait_until(lambda: daemon.acked() == 1, "a dead letter is sent")
            wait_until(lambda: numbers_of(node, user) == (2, 3), "two connections, three channels")


def test_without_a_second_channel_it_goes_without_its_looks(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with user_of(node, names, (".*", ".*", ".*")) as url:
        user = f"u{names.queue[-6:]}"
        with channel(node.url) as admin:
            admin.exchange_declare(names.exchange, "fanout", durable=True)
            admin.queue_declare(names.queue, durable=True)
        limit_user(node, user, "max-channels", 1)
        extra = "[dead_letter]\nenabled = false"
        # As it is on the broker: a difference costs a channel, which may count on for a moment.
        environ = {"LOGFAN_EXCHANGE__DURABLE": "true"}
        with DaemonProcess(tmp_path, url, names, RAW, extra=extra, environ=environ) as daemon:
            publish(node.url, names.exchange, (b"%d" % n for n in range(500)))
            wait_until(lambda: daemon.acked() == 500, "all is acknowledged")
            assert daemon.log().count("no second channel") == 1
            assert "max-channels" in daemon.log() or "number of channels" in daemon.log()
            assert daemon.metric("logfan_redelivered_messages_total") == 0
            assert "logfan_queue_ready_messages NaN" in daemon.get("/metrics")[1]
            lost = daemon.metric('logfan_connections_total{outcome="lost"}')
            node.eval("timer:sleep(6000).")
            assert daemon.metric('logfan_connections_total{outcome="lost"}') == lost
            assert daemon.is_ready()
            assert daemon.stop() == 0


def test_a_channel_max_of_one_is_enough(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with (
        granting(node, channel_max=1),
        DaemonProcess(tmp_path, node.url, names, RAW) as daemon,
    ):
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "all is acknowledged")
        assert daemon.log().count("no second channel") == 1
        assert daemon.metric('logfan_connections_total{outcome="failed"}') == 0
        assert daemon.stop() == 0
