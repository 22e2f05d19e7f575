"""Each check over the management API is made to fail, on a real broker."""

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from logfan.doctor import management
from logfan.testing import debian
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, channel, publish
from support.certificates import Authority, Pair
from support.command import logfan
from support.doctor import ADVICE, DANGER, OK, SCREEN, SKIPPED, WARNING, Report, examined
from support.needed import needed
from support.waiting import wait_until

CHECKS = tuple(one.name for one in management.CHECKS)
API_PORT, TLS_PORT = free_port(), free_port()
KEY = f'management_url = "http://guest:guest@127.0.0.1:{API_PORT}"'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def managed(authority: Authority) -> Iterator[RabbitNode]:
    served = authority.issue("server", "localhost", "127.0.0.1")
    config = [
        f"management.ssl.port = {TLS_PORT}", "management.ssl.ip = 127.0.0.1",
        f"management.ssl.cacertfile = {authority.file}",
        f"management.ssl.certfile = {served.cert}", f"management.ssl.keyfile = {served.key}",
        f"management.tcp.port = {API_PORT}", "management.tcp.ip = 127.0.0.1",
        "collect_statistics_interval = 200",
    ]  # fmt: skip
    with needed(), RabbitNode(plugins=["rabbitmq_management"], config=config) as node:
        yield node


def report_of(
    managed: RabbitNode, names: Names, folder: Path, more: str = "", **how: Any
) -> Report:
    return examined(folder, managed.url, names, more, **{"checks": CHECKS, "rabbitmq": KEY, **how})


def until(managed: RabbitNode, names: Names, folder: Path, check: str, severity: Any) -> None:
    """The API's figures are a moment old."""
    last: list[Any] = []

    def is_found() -> bool:
        last[:] = report_of(managed, names, folder, checks=(check,)).of(check)
        return any(one.severity is severity for one in last)

    wait_until(is_found, f"{check} is {severity}: {last}")


def test_a_sound_queue(managed: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(managed.url) as admin:
        admin.exchange_declare(names.exchange, "fanout", durable=True)
        admin.queue_declare(names.queue, durable=True)
        admin.queue_bind(names.queue, names.exchange)
        publish(managed.url, names.exchange, [b"one"])
        until(managed, names, tmp_path, "publishers", OK)
        report = report_of(managed, names, tmp_path)
    bad = {one.check: one for one in report.findings if one.severity is not OK}
    assert bad.keys() <= {"consumer-timeout"}, bad
    assert bad["consumer-timeout"].severity is SKIPPED


def test_without_a_url_all_is_skipped(managed: RabbitNode, names: Names, tmp_path: Path) -> None:
    report = report_of(managed, names, tmp_path, rabbitmq="")
    assert {report.one(check).severity for check in CHECKS} == {SKIPPED}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://guest:Not-The-One@127.0.0.1:{port}", "401"),
        ("http://guest:Not-The-One@127.0.0.1:1", "does not answer"),
    ],
)
def test_an_api_that_cannot_be_asked(
    managed: RabbitNode, names: Names, tmp_path: Path, url: str, words: str
) -> None:
    report = report_of(
        managed, names, tmp_path, rabbitmq=f'management_url = "{url.format(port=API_PORT)}"'
    )
    assert report.one("management").severity is WARNING
    assert words in report.one("management").what
    assert "Not-The-One" not in json.dumps([one.as_json() for one in report.findings])
    assert report.one("node-alarms").severity is SKIPPED


def over_tls(url: str, ca_file: Path | None = None) -> str:
    trusted = "" if ca_file is None else f'\n[rabbitmq.tls]\nca_file = "{ca_file}"'
    return f'management_url = "{url}"{trusted}'


def test_the_api_over_tls(
    managed: RabbitNode, names: Names, tmp_path: Path, authority: Authority
) -> None:
    for url, ca_file, words in (
        (f"https://127.0.0.1:{TLS_PORT}", authority.file, ""),
        (f"https://127.0.0.1:{TLS_PORT}", None, "name the file of that CA in rabbitmq.tls.ca_file"),
        (f"https://127.0.0.1:{TLS_PORT}", Authority(tmp_path, "other").file, "is not trusted here"),
        (f"https://127.0.0.1:{API_PORT}", None, "does not speak TLS; is it the one for https://"),
        (f"http://127.0.0.1:{TLS_PORT}", None, "does that port speak HTTPS?"),
    ):
        key = over_tls(url, ca_file)
        found = report_of(managed, names, tmp_path, rabbitmq=key).one("management")
        assert found.severity is (WARNING if words else OK), (url, found)
        assert words in found.what
        # Not an invitation to go without TLS.
        assert "http://HOST" not in found.do or url.startswith("http:")


@contextmanager
def https(pair: Pair, clients: Path | None = None) -> Iterator[int]:
    """An API with this certificate, which takes only clients of this CA; gives its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(pair.cert, pair.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        # The handshake in the handler's thread: one that fails ends no listener.
        server.socket = context.wrap_socket(server.socket, True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_certificates_that_do_not_hold_are_told_in_words(
    managed: RabbitNode, names: Names, tmp_path: Path, authority: Authority
) -> None:
    expired = authority.issue("expired", "127.0.0.1", valid_from_day=-9, valid_to_day=-2)
    elsewhere = authority.issue("elsewhere", "rabbit.example")
    good = authority.issue("good", "127.0.0.1")
    for pair, clients, words in (
        (expired, None, "has expired"),
        (elsewhere, None, "write the host in rabbitmq.management_url as the certificate has it"),
        (good, authority.file, "it wants a client certificate"),
    ):
        with https(pair, clients) as port:
            key = over_tls(f"https://127.0.0.1:{port}", authority.file)
            found = report_of(managed, names, tmp_path, rabbitmq=key).one("management")
        assert found.severity is WARNING
        assert words in found.what
        assert "ssl_options" not in found.what


def test_a_node_with_an_alarm_and_near_its_limits(
    managed: RabbitNode, names: Names, tmp_path: Path
) -> None:
    managed.eval("rabbit_disk_monitor:set_disk_free_limit(1000000000000000).")
    try:
        until(managed, names, tmp_path, "node-alarms", DANGER)
    finally:
        managed.eval("rabbit_disk_monitor:set_disk_free_limit(1000).")
    until(managed, names, tmp_path, "node-alarms", OK)
    free = int(
        managed.eval('io:format("~p", [rabbit_disk_monitor:get_disk_free()]), ok.').split("o")[0]
    )
    managed.eval(f"rabbit_disk_monitor:set_disk_free_limit({free * 2 // 3}).")
    try:
        until(managed, names, tmp_path, "node-limits", WARNING)
    finally:
        managed.eval("rabbit_disk_monitor:set_disk_free_limit(1000).")


def test_bindings(managed: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(managed.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_declare(names.queue, durable=True)
        admin.queue_bind(names.queue, "amq.topic", "a.#")
        report = report_of(managed, names, tmp_path)
        assert report.one("bindings").severity is WARNING
        assert report.one("foreign-bindings").severity is ADVICE
        never = report_of(managed, names, tmp_path, '[queue]\ndeclare = "never"\n')
        assert never.one("bindings").severity is DANGER
        assert report.one("publishers").severity is ADVICE


def test_policies_and_timeouts(managed: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(managed.url) as admin:
        admin.queue_declare(names.queue, durable=True)
        admin.queue_declare(f"{names.queue}.dead", durable=True)
        limits = {"max-length": 10, "message-ttl": 60_000}
        waits = tuple(map(int, managed.version.split(".")[:2])) >= (3, 12)
        if waits:
            limits["consumer-timeout"] = 60_000
        managed.ctl(
            "set_policy", names.queue, f"^{names.queue}", json.dumps(limits), "--apply-to", "queues"
        )
        until(managed, names, tmp_path, "policies", DANGER)
        report = report_of(managed, names, tmp_path)
        assert len([one for one in report.of("policies") if one.severity is DANGER]) == 4
        assert report.one("consumer-timeout").severity is (WARNING if waits else SKIPPED)
        longer = report_of(
            managed, names, tmp_path, rabbitmq=f'{KEY}\nacknowledgement_timeout = "60s"'
        )
        assert longer.one("consumer-timeout").severity is (OK if waits else SKIPPED)
        managed.ctl("clear_policy", names.queue)


def test_another_program_on_the_queue(managed: RabbitNode, names: Names, tmp_path: Path) -> None:
    with channel(managed.url) as admin:
        admin.queue_declare(names.queue, durable=True)
        admin.basic_consume(names.queue, lambda *_: None)
        until(managed, names, tmp_path, "programs", WARNING)


@pytest.mark.parametrize(("ours", "theirs"), [("-3700s", "ahead"), ("+3700s", "behind")])
def test_clocks_that_disagree(
    managed: RabbitNode, names: Names, tmp_path: Path, ours: str, theirs: str
) -> None:
    """The doctor's own is set wrong, by libfaketime."""
    with needed():
        libfaketime = debian.unpacked("libfaketime", closure=False)
    (tmp_path / "config.toml").write_text(
        f'[rabbitmq]\nurls = ["{managed.url}"]\n{KEY}\n[queue]\nname = "{names.queue}"\n{SCREEN}'
    )
    done = logfan(
        "doctor", "--json", "--config", "config.toml", folder=tmp_path, FAKETIME=ours,
        DONT_FAKE_MONOTONIC="1", LD_PRELOAD=str(next(libfaketime.rglob("libfaketimeMT.so.1"))),
    )  # fmt: skip
    assert done.stdout, done.stderr
    (found,) = [one for one in json.loads(done.stdout) if one["check"] == "clock"]
    assert found["severity"] == "warning"
    seconds = re.fullmatch(rf"the broker's clock is (\d+) s {theirs}", found["what"])
    assert seconds is not None, found
    assert 3600 < int(seconds[1]) < 3800


class _Answers(BaseHTTPRequestHandler):
    """An API with a queue that has lost two of its three copies, and a consumer timeout."""

    def do_GET(self) -> None:
        queue = {
            "state": self.server.state,  # type: ignore[attr-defined]
            "members": ["a", "b", "c"], "online": ["a"],
            "effective_policy_definition": {"consumer-timeout": 60_000},
        }  # fmt: skip
        body = json.dumps(queue if "/queues/" in self.path else {"rabbitmq_version": "4"}).encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("state", "severity"), [("running", WARNING), ("down", DANGER)])
def test_what_a_cluster_and_a_policy_of_rabbitmq_3_12_show(
    managed: RabbitNode, names: Names, tmp_path: Path, state: str, severity: Any
) -> None:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.state = state  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        key = f'management_url = "http://127.0.0.1:{server.server_port}"'
        with channel(managed.url) as admin:
            admin.queue_declare(names.queue, durable=True)
            checks = ("queue-state", "consumer-timeout")
            report = report_of(managed, names, tmp_path, rabbitmq=key, checks=checks)
        server.shutdown()
        thread.join()
    assert report.one("consumer-timeout").severity is WARNING
    assert report.one("queue-state").severity is severity
