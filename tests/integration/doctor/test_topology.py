"""Each check of exchange, queues and permissions is made to fail, on a real broker."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from logfan.doctor import exchange, permissions, queues
from logfan.testing.node import RabbitNode, erlang_binary
from support.broker import (
    BINDINGS,
    EXCHANGES,
    QUEUES,
    Names,
    add_user,
    channel,
    delete_user,
    listed,
    publish,
    resume,
    suspend,
    waiting,
)
from support.daemon import RAW, DaemonProcess
from support.doctor import ADVICE, DANGER, OK, SKIPPED, WARNING, Report, examined
from support.waiting import wait_until

EXCHANGE = tuple(one.name for one in exchange.CHECKS)
QUEUE = tuple(one.name for one in queues.CHECKS)
MAY = tuple(one.name for one in permissions.CHECKS)


def topology(node: RabbitNode, names: Names) -> str:
    """All that this test's names have on the broker: queues, exchanges, bindings, messages."""
    lines = listed(node, QUEUES, EXCHANGES, BINDINGS)
    return "\n".join(line for line in lines if names.queue in line or names.exchange in line)


def test_nothing_is_there_yet_and_nothing_is_made(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    report = examined(tmp_path, node.url, names, checks=(*EXCHANGE, *QUEUE, *MAY))
    assert report.one("exchange").severity is ADVICE
    assert report.one("queue").severity is ADVICE
    assert not [one for one in report.findings if one.severity in (DANGER, SKIPPED)]
    assert topology(node, names) == ""


def test_a_queue_that_does_not_answer(
    node: RabbitNode, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan.doctor.examination._PATIENCE_SECONDS", 2.0)
    with channel(node.url) as admin:
        admin.queue_declare(names.queue, durable=True)
    suspend(node, names.queue)
    report = examined(tmp_path, node.url, names, checks=("queue", "exchange", "queue-state"))
    resume(node, names.queue)
    assert report.one("queue").severity is DANGER
    assert "did not answer in time" in report.one("queue").what
    assert report.one("exchange").severity is ADVICE


def test_it_must_be_there_and_is_not(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    must = '[exchange]\ndeclare = "passive"\n[queue]\ndeclare = "passive"\n'
    report = examined(tmp_path, node.url, names, must, checks=("exchange", "queue"))
    assert report.one("exchange").severity is DANGER
    assert report.one("queue").severity is DANGER


def test_a_sound_topology_is_fine_and_stays_as_it_is(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    config = "[exchange]\ndurable = true\n"
    daemon = DaemonProcess(
        tmp_path, node.url, names, RAW, environ={"LOGFAN_EXCHANGE__DURABLE": "1"}
    )
    with daemon, channel(node.url) as admin:
        wait_until(lambda: _exists(admin, f"{names.queue}.binding"), "the mark is there")
        letters = f"{names.queue}.dead"
        wait_until(lambda: letters in topology(node, names), "the dead-letter queue is there")
        before = topology(node, names)
        report = examined(tmp_path, node.url, names, config, checks=(*EXCHANGE, *QUEUE, *MAY))
        assert topology(node, names) == before
    bad = [one for one in report.findings if one.severity is not OK]
    assert not bad, bad


def _exists(admin: Any, mark: str) -> bool:
    try:
        with admin.connection.channel() as probe:
            probe.exchange_declare(mark, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    return True


@pytest.mark.parametrize(
    ("check", "severity", "declared", "config"),
    [
        ("exchange-type", DANGER, {"exchange_type": "topic"}, ""),
        ("exchange-auto-delete", WARNING, {"auto_delete": True}, ""),
        ("exchange-internal", ADVICE, {"internal": True}, ""),
        ("alternate-exchange", ADVICE, {"exchange_type": "topic"}, '[exchange]\ntype = "topic"\n'),
    ],
)
def test_an_exchange_of_others(
    node: RabbitNode, names: Names, tmp_path: Path,
    check: str, severity: Any, declared: dict[str, Any], config: str,
) -> None:  # fmt: skip
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, **{"exchange_type": "fanout", **declared})
        report = examined(tmp_path, node.url, names, config, checks=EXCHANGE)
        admin.exchange_delete(names.exchange)
    assert report.one(check).severity is severity, report.of(check)


def test_an_exchange_that_is_not_durable(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_declare(names.queue, durable=True)
        report = examined(tmp_path, node.url, names, checks=EXCHANGE)
    keeps = tuple(map(int, node.version.split(".")[:2])) >= (4, 3)
    assert report.one("exchange-durable").severity is (OK if keeps else WARNING)
    assert report.one("binding").severity is SKIPPED


def test_an_alternate_exchange_is_seen(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    topic = '[exchange]\ntype = "topic"\n'
    with channel(node.url) as admin:
        other = {"alternate-exchange": "amq.fanout"}
        admin.exchange_declare(names.exchange, "topic", arguments=other)
        report = examined(tmp_path, node.url, names, topic, checks=EXCHANGE)
    assert report.one("alternate-exchange").severity is OK
    assert "amq.fanout" in report.one("alternate-exchange").what


HARMS = [
    ("auto-delete", DANGER, {"auto_delete": True}),
    ("expires", DANGER, {"arguments": {"x-expires": 600_000}}),
    ("ttl", DANGER, {"arguments": {"x-message-ttl": 600_000}}),
    ("length", DANGER, {"arguments": {"x-max-length": 10}}),
    ("length", DANGER, {"arguments": {"x-max-length-bytes": 10_000}}),
    ("delivery-limit", WARNING, {"arguments": {"x-queue-type": "quorum", "x-delivery-limit": 3}}),
]


@pytest.mark.parametrize(("check", "severity", "declared"), HARMS)
def test_queues_of_others(
    node: RabbitNode, names: Names, tmp_path: Path,
    check: str, severity: Any, declared: dict[str, Any],
) -> None:  # fmt: skip
    with channel(node.url) as admin:
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_declare(queue, **{"durable": True, **declared})
        report = examined(tmp_path, node.url, names, checks=QUEUE)
    assert report.one(f"queue-{check}").severity is severity, report.of(f"queue-{check}")
    letters = report.one(f"dead-letters-{check}")
    assert letters.severity is severity, letters
    assert letters.means
    assert letters.do


def test_queues_that_are_not_durable(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    if node.version.startswith("4.3"):
        pytest.skip("RabbitMQ 4.3 takes no such queue")
    with channel(node.url) as admin:
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_declare(queue)
        report = examined(tmp_path, node.url, names, checks=QUEUE)
    assert report.one("queue-durable").severity is DANGER
    assert report.one("dead-letters-durable").severity is DANGER


def test_a_full_queue_that_refuses_is_a_warning_where_it_is_wished_advice(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as admin:
        full = {"x-max-length": 10, "x-overflow": "reject-publish"}
        admin.queue_declare(names.queue, durable=True, arguments=full)
        wished = "[queue]\narguments = { x-max-length = 10, x-overflow = 'reject-publish' }\n"
        report = examined(tmp_path, node.url, names, wished, checks=QUEUE)
        other = examined(tmp_path, node.url, names, checks=QUEUE)
    assert report.one("queue-length").severity is ADVICE
    assert other.one("queue-length").severity is WARNING


def test_streams(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(node.url) as admin:
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"})
        report = examined(tmp_path, node.url, names, checks=QUEUE)
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_delete(queue)
    assert report.one("queue-type").severity is DANGER
    assert report.one("dead-letters-type").severity is DANGER


def test_what_the_config_asks_for_is_not_in_force(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as admin:
        single = {"x-single-active-consumer": True}
        admin.queue_declare(names.queue, durable=True, arguments=single)
        config = '[queue]\ntype = "quorum"\narguments = { x-max-length = 1000 }\n'
        report = examined(tmp_path, node.url, names, config, checks=QUEUE)
    assert report.one("queue-type").severity is WARNING
    assert report.one("queue-arguments").severity is WARNING
    assert report.one("queue-single-active").severity is ADVICE


def test_a_queue_that_another_connection_has_alone(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as admin:
        admin.queue_declare(names.queue, exclusive=True)
        admin.queue_declare(f"{names.queue}.dead", exclusive=True)
        report = examined(tmp_path, node.url, names, checks=QUEUE)
    assert report.one("queue").severity is DANGER
    assert report.one("dead-letters").severity is DANGER
    assert report.one("queue-ttl").severity is SKIPPED


def test_an_exclusive_queue_by_config_and_no_dead_letters(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    config = '[queue]\ntype = "exclusive"\n[dead_letter]\nenabled = false\n'
    report = examined(tmp_path, node.url, names, config, checks=(*EXCHANGE, *QUEUE))
    assert report.one("queue").severity is ADVICE
    assert report.one("dead-letters").severity is WARNING


def test_messages_that_wait_and_consumers(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            admin.queue_bind(queue, names.exchange)
        publish(node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: waiting(node.url, names.queue) == 2, "both wait")
        report = examined(tmp_path, node.url, names, checks=(*QUEUE, *MAY))
        assert report.one("backlog").severity is ADVICE
        assert report.one("dead-letters").severity is ADVICE
        # No life of theirs was spent: nothing was delivered.
        frame, properties, _ = admin.basic_get(names.queue)
        assert not frame.redelivered
        assert not (properties.headers or {}).get("x-delivery-count")
        for _ in range(2):
            admin.basic_consume(names.queue, lambda *_: None)
        report = examined(tmp_path, node.url, names, checks=QUEUE)
    assert report.one("consumers").severity is ADVICE


@contextmanager
def user(node: RabbitNode, names: Names, *patterns: str) -> Iterator[str]:
    """The URL of a user who may configure, write and read what these match."""
    name = f"u{names.queue[-6:]}"
    add_user(node, name, patterns)
    yield node.url.replace("guest:guest", f"{name}:secret")
    delete_user(node, name)


def severities(report: Report) -> dict[str, str]:
    return {check: report.one(check).severity.value for check in MAY}


def test_a_user_who_may_do_nothing(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with user(node, names, "^$", "^$", "^$") as url:
        report = examined(tmp_path, url, names, checks=(*EXCHANGE, *QUEUE, *MAY))
    assert severities(report) == {
        "may-configure-exchange": "danger", "may-configure-queue": "danger",
        "may-read-queue": "danger", "may-write-queue": "danger", "may-read-exchange": "skipped",
        "may-read-topics": "skipped", "may-write-exchange": "advice", "may-write-default": "danger",
        "may-configure-dead-letters": "danger", "may-read-dead-letters": "advice",
    }  # fmt: skip
    if tuple(map(int, node.version.split(".")[:2])) >= (4, 3):  # there it may not even ask
        assert report.one("exchange").severity is DANGER
        assert report.one("queue").severity is DANGER
        assert report.one("consumers").severity is SKIPPED
    assert topology(node, names) == ""


def test_a_user_who_may_not_read_the_exchange(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with user(node, names, ".*", ".*", f"^{names.queue}.*$") as url:
        report = examined(tmp_path, url, names, checks=MAY)
    assert report.one("may-read-exchange").severity is DANGER
    assert report.one("may-write-queue").severity is OK


def test_topic_permissions(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    """Two of three keys may not be bound with: doctor names them, and `run` ends with 77."""
    config = '[exchange]\ntype = "topic"\n[queue]\nrouting_keys = ["shop.#", "bank.#", "#"]\n'
    with user(node, names, ".*", ".*", ".*") as url:
        name, host, of, *patterns = map(
            erlang_binary, (re.findall(r"//(\w+)", url)[0], "/", names.exchange, ".*", "^shop")
        )
        before = examined(tmp_path, url, names, config, checks=MAY)
        with channel(node.url) as admin:
            admin.exchange_declare(names.exchange, "topic")
            node.eval(
                "ok = rabbit_auth_backend_internal:set_topic_permissions("
                f'{name}, {host}, {of}, {", ".join(patterns)}, <<"test">>).'
            )
            report = examined(tmp_path, url, names, config, checks=MAY)
            found = report.one("may-read-topics")
            passive = config.replace("routing_keys", 'declare = "passive"\nrouting_keys')
            relies = examined(tmp_path, url, names, passive, checks=MAY)
            environ = {
                "LOGFAN_EXCHANGE__TYPE": "topic",
                "LOGFAN_QUEUE__ROUTING_KEYS": '["shop.#", "bank.#", "#"]',
            }
            daemon = DaemonProcess(tmp_path, url, names, RAW, environ=environ)
            daemon.start(ready=False)
            assert daemon.wait() == 77, daemon.log()
            admin.queue_delete(names.queue)
    assert before.one("may-read-topics").severity is SKIPPED
    assert found.severity is DANGER
    assert "'bank.#', '#'" in found.what
    assert "shop" not in found.what
    assert relies.one("may-read-topics").severity is ADVICE
    assert {report.one(check).severity for check in MAY if check != "may-read-topics"} == {OK}


def test_a_user_who_only_consumes(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        for queue in (names.queue, f"{names.queue}.dead"):
            admin.queue_declare(queue, durable=True)
        passive = '[exchange]\ndeclare = "passive"\n[queue]\ndeclare = "passive"\n'
        with user(
            node, names, "^$", "^amq.default$", f"^({names.queue}.*|{names.exchange})$"
        ) as url:
            report = examined(tmp_path, url, names, passive, checks=(*EXCHANGE, *QUEUE, *MAY))
    assert not [one for one in report.findings if one.severity is DANGER]
    assert report.one("may-configure-queue").severity is ADVICE
    assert report.one("may-write-queue").severity is ADVICE
    assert report.one("queue-ttl").severity is SKIPPED
    assert report.one("exchange-durable").severity is SKIPPED
