"""One way back from every failure of the broker; what forbids to go on is reported."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pika
import pytest

from logfan.testing.node import RabbitNode, answers
from support.broker import (
    Names,
    add_user,
    add_vhost,
    channel,
    delete_queue,
    limit_user,
    publish,
    resume,
    suspend,
    waiting,
)
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

LOST = 'logfan_connections_total{outcome="lost"}'
FAILED = 'logfan_connections_total{outcome="failed"}'
WALL = """
import logfan

class Wall(logfan.Sink):
    def write(self, records):
        raise logfan.SinkUnavailable("never")

@logfan.hookimpl
def register_sinks(register):
    register("wall", Wall)
"""
WALLED = '[sinks.wall]\nkind = "wall"\n'


def written(folder: Path) -> set[bytes]:
    return set((folder / "raw.log").read_bytes().splitlines())


def is_consuming(daemon: DaemonProcess) -> bool:
    return daemon.metric("logfan_consuming") == 1


def has_come_back(daemon: DaemonProcess, losses: int) -> bool:
    return daemon.metric(LOST) == losses and is_consuming(daemon)


def test_it_is_back_after_the_broker_which_kept_what_is_durable(
    own_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The node stops in order and starts again, then it is killed and starts again."""
    with channel(own_node.url, confirms=True) as other:
        other.queue_declare("kept", durable=True)
        other.basic_publish("", "kept", b"x", pika.BasicProperties(delivery_mode=2))
    with DaemonProcess(tmp_path, own_node.url, names, RAW) as daemon:
        publish(own_node.url, names.exchange, (b"%d" % n for n in range(1_000)))
        wait_until(lambda: daemon.acked() == 1_000, "all is acknowledged")
        first = own_node.pid
        own_node.restart()
        wait_until(lambda: daemon.metric(LOST) and is_consuming(daemon), "it is back")
        second = own_node.pid
        assert waiting(own_node.url, "kept") == 1
        own_node.kill()
        killed = own_node.pid
        assert killed is None
        assert not answers(own_node.port)
        wait_until(lambda: not is_consuming(daemon), "it notices")
        assert daemon.get("/healthz")[0] == 200
        assert daemon.get("/readyz")[0] == 503
        own_node.start()
        wait_until(lambda: is_consuming(daemon), "it is back")
        assert waiting(own_node.url, "kept") == 1
        assert len({first, second, own_node.pid, None}) == 4
        publish(own_node.url, names.exchange, (b"%d" % n for n in range(1_000, 2_000)))
        wait_until(lambda: waiting(own_node.url, names.queue) == 0, "all is delivered")
        wait_until(lambda: len(written(tmp_path)) == 2_000, "nothing is missing")
        assert daemon.metric(LOST) >= 2
        assert daemon.stop() == 0


def test_closed_connections_and_deleted_queues_are_no_end(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    failures: list[Callable[[], None]] = [
        node.close_all_connections, partial(delete_queue, node.url, names.queue),
    ]  # fmt: skip
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        for number, failure in enumerate(failures, 1):
            failure()
            wait_until(
                partial(has_come_back, daemon, number),
                lambda: f"it is back; its log:\n{daemon.log()}",
            )  # fmt: skip
            publish(node.url, names.exchange, [b"after %d" % number])
        wait_until(lambda: daemon.acked() == 2, "what came after is acknowledged")
        assert written(tmp_path) == {b"after 1", b"after 2"}
        assert "closed by" in daemon.log()
        assert "was queue" in daemon.log()


@pytest.mark.long
def test_a_queue_that_hangs_in_the_broker_is_reported_and_it_comes_back(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """The broker's heartbeats go on, and no answer comes."""
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        suspend(node, names.queue)
        wait_until(lambda: not daemon.is_ready(), "it is not ready", 200)
        assert "has not answered queue.declare" in daemon.log()
        resume(node, names.queue)
        publish(node.url, names.exchange, [b"two"])
        wait_until(lambda: daemon.acked() == 2, "it is back", 200)
        assert daemon.stop() == 0


def test_received_is_acked_and_requeued_and_abandoned_and_in_flight(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, RAW, extra="prefetch = 200") as daemon:
        publish(node.url, names.exchange, (b"%d" % n for n in range(20_000)))
        node.close_all_connections()
        wait_until(lambda: waiting(node.url, names.queue) == 0, "all is delivered")
        wait_until(lambda: node.unacked(names.queue) == 0, "all is acknowledged")
        values = {
            name: daemon.metric(f"logfan_{name}")
            for name in (
                "received_messages_total", "acked_messages_total", "requeued_messages_total",
                "abandoned_messages_total", "in_flight_messages",
            )
        }  # fmt: skip
        received = values.pop("received_messages_total")
        assert received == sum(values.values())
        # An acknowledgement on its way when the connection was cut is counted, and comes again.
        assert 20_000 <= values["acked_messages_total"] <= 20_000 + 200
        assert len(written(tmp_path)) == 20_000


def test_it_waits_for_a_broker_and_takes_the_next_url(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    dead = "amqp://guest:guest@127.0.0.1:1/%2F"
    with DaemonProcess(tmp_path, f'{dead}", "{node.url}', names, RAW) as daemon:
        assert "connection refused; is the broker running there?" in daemon.log()
        assert daemon.metric(FAILED) == 1


def test_wrong_credentials_are_reported_and_tried_again_until_they_are_right(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.write_text(node.url.replace("guest:guest", "guest:hunter2") + "\n")
    secret.chmod(0o600)
    daemon = DaemonProcess(tmp_path, node.url, names, RAW)
    daemon.config.write_text(
        daemon.config.read_text().replace(f'urls = ["{node.url}"]', f'url_file = "{secret}"')
    )
    with daemon.unready():
        wait_until(lambda: daemon.metric(FAILED) >= 1, "it was refused")
        assert "refused the credentials" in daemon.get("/readyz")[1]
        secret.write_text(node.url + "\n")
        daemon.wait_ready()
        assert "refused the credentials" in daemon.log()
        assert "hunter2" not in daemon.log()


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("amqp://guest:guest@127.0.0.1:1/%2F", 69, "connection refused"),
        ("{node}/nowhere", 77, "refused the virtual host"),
        ("{wrong}", 77, "refused the credentials"),
    ],
    ids=["away", "no such vhost", "wrong password"],
)
def test_startup_fail_ends_at_once_with_its_code(
    node: RabbitNode, names: Names, tmp_path: Path, url: str, code: int, words: str
) -> None:
    base = node.url.removesuffix("/%2F")
    url = url.format(node=base, wrong=node.url.replace("guest:guest", "guest:wrong"))
    daemon = DaemonProcess(tmp_path, url, names, RAW, extra='startup = "fail"')
    daemon.start(ready=False)
    assert daemon.wait() == code
    assert words in daemon.log()
    assert "Traceback" not in daemon.log()


def test_an_exchange_of_another_type_is_refused_in_words(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "direct")
    daemon = DaemonProcess(tmp_path, node.url, names, RAW)
    daemon.start(ready=False)
    assert daemon.wait() == 77
    assert "exchange.type is 'fanout' here but 'direct' on the broker" in daemon.log()


def test_what_others_declared_differently_is_used_as_it_stands(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as other:
        other.exchange_declare(names.exchange, "fanout", durable=True)
        other.queue_declare(names.queue, durable=True, arguments={"x-max-length": 1000})
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        publish(node.url, names.exchange, [b"hello"])
        wait_until(lambda: daemon.acked() == 1, "it works all the same")
        assert f"exchange '{names.exchange}'" not in daemon.log()
        assert "x-max-length is '1000' on the broker, 'none' in the config" in daemon.log()


@pytest.mark.parametrize("what", ["exchange", "queue"])
def test_passive_asks_and_does_not_make(
    node: RabbitNode, names: Names, tmp_path: Path, what: str
) -> None:
    environ = {f"LOGFAN_{what.upper()}__DECLARE": "passive"}
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
    daemon.start(ready=False)
    assert daemon.wait() == 77
    assert f'{what}.declare = "passive" says that it must' in daemon.log()
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_declare(names.queue, durable=True)
    daemon.start()
    assert daemon.stop() == 0


@pytest.mark.parametrize("startup", ["retry", "fail"])
def test_a_queue_that_somebody_else_has_is_waited_for(
    node: RabbitNode, names: Names, tmp_path: Path, startup: str
) -> None:
    """Owned by another connection (405), then consumed by it exclusively (403)."""
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, extra=f'startup = "{startup}"')
    with channel(node.url) as owner:
        owner.queue_declare(names.queue, exclusive=True)
        daemon.start(ready=False)
        try:
            if startup == "fail":
                assert daemon.wait() == 69
                return
            wait_until(lambda: "is exclusive to another connection" in daemon.log(), "it is logged")
            owner.connection.close()
        finally:
            if startup == "fail":
                daemon.kill()
    try:
        daemon.wait_ready()
        assert daemon.stop() == 0
        with channel(node.url) as other:
            other.basic_consume(names.queue, lambda *_: None, exclusive=True)
            daemon.start(ready=False)
            wait_until(lambda: "for now: ACCESS_REFUSED" in daemon.log(), "it is logged")
            assert "in exclusive use" in daemon.get("/readyz")[1]
        daemon.wait_ready()
    finally:
        daemon.kill()


@pytest.mark.parametrize("of", ["user", "vhost", "channels"])
def test_a_limit_is_reported_as_what_it_is_and_waited_for(
    node: RabbitNode, names: Names, tmp_path: Path, of: str
) -> None:
    user, vhost = f"u{names.queue[-6:]}", f"v{names.queue[-6:]}"
    add_vhost(node, vhost)
    add_user(node, user, vhost=vhost)
    key = "max-channels" if of == "channels" else "max-connections"

    def limit(most: int) -> None:
        if of == "vhost":
            node.ctl("set_vhost_limits", "-p", vhost, f'{{"{key}": {most}}}')
        else:
            limit_user(node, user, key, most)

    limit(0)
    url = node.url_of(vhost).replace("guest:guest", f"{user}:secret")
    with DaemonProcess(tmp_path, url, names, RAW).unready() as daemon:
        wait_until(lambda: "allows no more: NOT_ALLOWED" in daemon.log(), "it is logged")
        assert "refused the virtual host" not in daemon.log()
        limit(10)
        daemon.wait_ready()


def test_a_limit_of_connections_is_no_refusal_for_a_start_that_may_fail(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    user = f"u{names.queue[-6:]}"
    add_user(node, user)
    limit_user(node, user, "max-connections", 0)
    url = node.url.replace("guest:guest", f"{user}:secret")
    daemon = DaemonProcess(tmp_path, url, names, RAW, extra='startup = "fail"')
    daemon.start(ready=False)
    assert daemon.wait() == 69
    assert "user connection limit" in daemon.log()


def test_a_second_signal_ends_it_at_once(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    add_drop_in(tmp_path, "wall", WALL)
    with DaemonProcess(tmp_path, node.url, names, WALLED) as daemon:
        publish(node.url, names.exchange, [b"kept"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 1, "it is held")
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: draining" in daemon.log(), "the drain has begun")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(25) == 75  # sooner than the shutdown_timeout of 30 s
        assert waiting(node.url, names.queue) == 1


def test_term_while_it_is_still_connecting_ends_it_cleanly(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    publish_to = names.exchange
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:
        publish(node.url, publish_to, (b"%d" % n for n in range(100)))
        wait_until(lambda: daemon.acked() == 100, "all is acknowledged")
        for _ in range(4):
            assert daemon.stop() == 0
            publish(node.url, publish_to, [b"later"])
            daemon.start(ready=False)
            # The first answer comes while the connection is being made.
            wait_until(lambda: daemon.get("/healthz")[0] == 200, "it serves")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log()
        daemon.start()
        wait_until(lambda: waiting(node.url, names.queue) == 0, "the rest is delivered")
        wait_until(lambda: node.unacked(names.queue) == 0, "the rest is acknowledged")
        assert (tmp_path / "raw.log").read_bytes().splitlines()[100:] == [b"later"] * 4


def test_past_the_deadline_messages_go_back_and_it_says_so(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "wall", WALL)
    environ = {"LOGFAN_SHUTDOWN_TIMEOUT": "500ms"}
    with DaemonProcess(tmp_path, node.url, names, WALLED, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 2, "they are held")
        assert daemon.stop() == 75
        assert "2 messages went back to the broker" in daemon.log()
        assert waiting(node.url, names.queue) == 2


def test_hangup_reopens_files_and_takes_a_new_config_and_keeps_the_old_one_where_it_is_wrong(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.log"
    with DaemonProcess(tmp_path, node.url, names, RAW) as daemon:

        def send(body: bytes) -> None:
            before = daemon.acked()
            publish(node.url, names.exchange, [body])
            wait_until(lambda: daemon.acked() == before + 1, f"{body!r} is acknowledged")

        send(b"one")
        raw.rename(tmp_path / "raw.log.1")
        daemon.signal(signal.SIGHUP)
        wait_until(raw.exists, "the file is there again")
        send(b"two")
        assert raw.read_bytes() == b"two\n"
        assert (tmp_path / "raw.log.1").read_bytes() == b"one\n"
        daemon.configure(node.url, RAW.replace("kind", "knid"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "going on with the old one" in daemon.log(), "it is seen")
        send(b"three")
        daemon.configure(node.url, RAW.replace("raw.log", "new.log"))
        daemon.signal(signal.SIGHUP)
        wait_until((tmp_path / "new.log").exists, "the new file is opened")
        daemon.wait_ready()
        send(b"four")
        assert raw.read_bytes() == b"two\nthree\n"
        assert (tmp_path / "new.log").read_bytes() == b"four\n"
        assert daemon.stop() == 0


def test_a_port_in_use_is_reported_in_words(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    environ = {"LOGFAN_HTTP__LISTEN": f"127.0.0.1:{node.port}"}
    daemon = DaemonProcess(tmp_path, node.url, names, RAW, environ=environ)
    daemon.start(ready=False)
    assert daemon.wait() == 78
    assert f"http.listen: 127.0.0.1:{node.port} is in use" in daemon.log()
    assert "Traceback" not in daemon.log()


def test_a_stopped_process_comes_back_when_its_heartbeats_were_missed(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = 'heartbeat = "1s"'
    with DaemonProcess(tmp_path, node.url, names, RAW, extra=extra) as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            wait_until(
                lambda: node.eval("rabbit_networking:connections().") == "[]\n",
                "the broker gives the connection up",
            )  # fmt: skip
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        publish(node.url, names.exchange, [b"hello"])
        wait_until(lambda: daemon.acked() == 1, "it is back")
