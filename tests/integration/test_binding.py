"""The queue's binding goes with its exchange: it is made again, logged and counted."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, add_user, channel, declare_bound, publish, waiting
from support.daemon import RAW, DaemonProcess
from support.waiting import wait_until

REBOUND = "logfan_rebound_total"
Daemon = partial(DaemonProcess, constants={"logfan.amqp.queue_monitor.LOOK_SECONDS": 0.5})
"""It looks at its queue ten times as often as it does."""


def delete_exchange(url: str, names: Names) -> None:
    with channel(url) as other:
        other.exchange_delete(names.exchange)


def make_anew(
    daemon: DaemonProcess, url: str, *, kind: str = "fanout", durable: bool = False
) -> None:
    """Delete the exchange and declare it again; no look of the daemon's falls between the two."""
    name = daemon.names.exchange
    with channel(url) as other:
        daemon.signal(signal.SIGSTOP)
        other.exchange_delete(name)
        other.exchange_declare(name, kind, durable=durable)
        daemon.signal(signal.SIGCONT)


def has_looked(daemon: DaemonProcess) -> bool:
    """Whether its first look at the queue is over: the mark is there."""
    return daemon.metric("logfan_queue_ready_messages") == 0


def arrives(daemon: DaemonProcess, url: str, names: Names, body: bytes, key: str = "") -> bool:
    with channel(url) as other:
        other.basic_publish(names.exchange, key, body)
    return body in (daemon.folder / "raw.log").read_bytes().splitlines()


@pytest.mark.parametrize("durable", [True, False], ids=["now durable", "as before"])
def test_an_exchange_made_anew_is_bound_again_within_a_look(
    node: RabbitNode, names: Names, tmp_path: Path, durable: bool
) -> None:
    with Daemon(tmp_path, node.url, names, RAW) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        wait_until(lambda: arrives(daemon, node.url, names, b"before"), "it is bound")
        for number in (1, 2):
            make_anew(daemon, node.url, durable=durable)
            body = b"after %d" % number
            wait_until(
                lambda body=body: arrives(daemon, node.url, names, body),  # type: ignore[misc]
                "it is bound again",
            )  # fmt: skip
            wait_until(lambda number=number: daemon.metric(REBOUND) == number, "counted")  # type: ignore[misc]
        words = f"exchange '{names.exchange}' had been deleted and made anew; queue"
        assert daemon.log().count(words) == 2
        assert daemon.metric('logfan_connections_total{outcome="lost"}') == 0
        assert daemon.stop() == 0


def test_an_exchange_made_anew_with_another_type_is_not_bound_to(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Its bindings mean something else, so nothing would arrive, and nobody would know."""
    with Daemon(tmp_path, node.url, names, RAW) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        make_anew(daemon, node.url, kind="topic")
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "it is not ready")
        why = daemon.get("/readyz")[1]
        assert "exchange.type is 'fanout' here but 'topic' on the broker" in why
        assert 'set exchange.type = \\"topic\\"' in why
        node.close_all_connections()
        wait_until(lambda: daemon.metric('logfan_connections_total{outcome="lost"}'), "lost")
        wait_until(lambda: daemon.get("/readyz")[1].count("on the broker"), "it says so again")
        assert daemon.metric(REBOUND) == 0
        assert "bound to it again" not in daemon.log()
        make_anew(daemon, node.url)
        wait_until(lambda: arrives(daemon, node.url, names, b"after"), "it is bound again")
        wait_until(lambda: daemon.metric(REBOUND) == 1, "counted")
        wait_until(daemon.is_ready, "it is ready again")


def test_an_exchange_that_is_gone_is_declared_again(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with Daemon(tmp_path, node.url, names, RAW) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        delete_exchange(node.url, names)
        wait_until(lambda: daemon.metric(REBOUND) == 1, "it is made and bound")
        publish(node.url, names.exchange, [b"after"])
        wait_until(lambda: daemon.acked() == 1, "what comes arrives")
        assert daemon.is_ready()
        assert "had gone and was made again" in daemon.log()


@pytest.mark.parametrize("declare", ["passive", "never"])
def test_where_it_may_not_be_declared_it_is_not_ready_until_others_have(
    node: RabbitNode, names: Names, tmp_path: Path, declare: str
) -> None:
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "fanout")
    environ = {"LOGFAN_EXCHANGE__DECLARE": declare}
    with Daemon(tmp_path, node.url, names, RAW, environ=environ) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        delete_exchange(node.url, names)
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "it is not ready")
        assert "nothing arrives" in daemon.get("/readyz")[1]
        assert daemon.get("/healthz")[0] == 200
        with channel(node.url) as other:
            other.exchange_declare(names.exchange, "fanout")
        wait_until(daemon.is_ready, "it is bound again")
        publish(node.url, names.exchange, [b"after"])
        wait_until(lambda: daemon.acked() == 1, "what comes arrives")
        assert daemon.metric(REBOUND) == 1


def test_every_routing_key_is_bound_again(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    environ = {
        "LOGFAN_EXCHANGE__TYPE": "direct", "LOGFAN_QUEUE__ROUTING_KEYS": '["info", "error"]',
    }  # fmt: skip
    with Daemon(tmp_path, node.url, names, RAW, environ=environ) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        make_anew(daemon, node.url, kind="direct")
        for key in ("info", "error"):
            wait_until(
                lambda key=key: arrives(daemon, node.url, names, key.encode(), key),  # type: ignore[misc]
                f"{key} is bound again",
            )  # fmt: skip
        wait_until(lambda: daemon.metric(REBOUND) == 1, "once")


def test_one_who_may_make_no_mark_is_bound_again_all_the_same(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Read on the exchange, write on its queue, nothing else: it cannot know, but it binds."""
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "fanout")
        other.queue_declare(names.queue, durable=True)
    user = names.queue[-6:]
    queues = f"^{names.queue}(\\.dead)?$"
    add_user(node, user, (queues, queues, f"^({names.exchange}|{names.queue}.*)$"))
    url = node.url.replace("guest:guest", f"{user}:secret")
    with Daemon(tmp_path, url, names, RAW) as daemon:
        wait_until(lambda: has_looked(daemon), "it has looked")
        make_anew(daemon, node.url)
        wait_until(lambda: arrives(daemon, node.url, names, b"after"), "bound")
        delete_exchange(node.url, names)
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "it is not ready")
        assert "it may not be declared" in daemon.get("/readyz")[1]
        make_anew(daemon, node.url)
        wait_until(daemon.is_ready, "it is ready again")
        assert daemon.metric(REBOUND) == 1
        assert "ACCESS_REFUSED" not in daemon.log().split("made again")[-1]


def restart_and_publish_first(node: RabbitNode, names: Names) -> None:
    node.stop()
    node.start()
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "fanout")
        other.basic_publish(names.exchange, "", b"lost")


def test_a_restart_of_the_broker_with_a_publisher_that_is_back_first(
    own_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """What it publishes before is lost; that is logged at each start, and when it happened."""
    with Daemon(tmp_path, own_node.url, names, RAW) as daemon:
        # RabbitMQ 4.3 keeps exchange and binding over a restart, durable or not.
        keeps = own_node.version.startswith("4.3.")
        assert (f"exchange '{names.exchange}' is not durable" in daemon.log()) is not keeps
        assert ("exchange.durable = true here" in daemon.log()) is not keeps
        assert "was made anew" not in daemon.log()
        wait_until(lambda: arrives(daemon, own_node.url, names, b"before"), "it is bound")
        wait_until(lambda: has_looked(daemon), "it has looked")
        daemon.signal(signal.SIGSTOP)  # so that it is not back first
        restart_and_publish_first(own_node, names)
        daemon.signal(signal.SIGCONT)
        if keeps:
            raw = tmp_path / "raw.log"
            wait_until(lambda: b"lost" in raw.read_bytes(), "it was bound all along")
            assert daemon.metric(REBOUND) == 0
            return
        wait_until(lambda: daemon.metric(REBOUND) == 1, "bound again, and counted")
        publish(own_node.url, names.exchange, [b"after"])
        wait_until(lambda: b"after" in (tmp_path / "raw.log").read_bytes(), "it arrives")
        assert daemon.stop() == 0
        restart_and_publish_first(own_node, names)
        daemon.start()
        wait_until(lambda: "was made anew meanwhile" in daemon.log(), "logged")
        assert waiting(own_node.url, names.queue) == 0
        assert b"lost" not in (tmp_path / "raw.log").read_bytes()
        assert daemon.stop() == 0
        delete_exchange(own_node.url, names)
        daemon.start()
        wait_until(lambda: daemon.metric(REBOUND) == 1, "it had gone while it was stopped")


def test_a_durable_exchange_is_no_warning_and_outlives_a_restart_of_the_broker(
    own_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    declare_bound(own_node.url, names)
    looked: Callable[[], bool]
    with Daemon(tmp_path, own_node.url, names, RAW) as daemon:
        looked = lambda: daemon.metric("logfan_queue_ready_messages") == 0  # noqa: E731
        wait_until(looked, "it has looked")
        assert " warning " not in daemon.log()
        own_node.restart()
        wait_until(lambda: daemon.metric('logfan_connections_total{outcome="lost"}'), "lost")
        wait_until(lambda: arrives(daemon, own_node.url, names, b"after"), "it is bound")
        wait_until(looked, "it has looked again")
        assert daemon.metric(REBOUND) == 0
        assert "binding" not in daemon.log().split("connection", 1)[-1]
        assert daemon.stop() == 0
