"""TLS against a broker's real TLS listener: what is refused, in which words, and what works."""

import socket
from functools import partial
from pathlib import Path

import pytest

from support.broker import Names, channel, publish
from support.certificates import Authority
from support.command import logfan
from support.daemon import RAW, DaemonProcess
from support.tls_node import TlsNode
from support.waiting import wait_until

FAIL = 'startup = "fail"\n'


def table(*lines: str) -> str:
    return "[rabbitmq.tls]\n" + "\n".join(lines)


def ca(authority: Authority) -> str:
    return f'ca_file = "{authority.file}"\n'


def is_shown(daemon: DaemonProcess, words: str) -> bool:
    return words in daemon.get("/readyz")[1]


def is_logged(daemon: DaemonProcess, words: str) -> bool:
    return words in daemon.log()


def ended(daemon: DaemonProcess) -> tuple[int, str]:
    """Exit code and log of a daemon that must not start."""
    daemon.start(ready=False)
    code = daemon.wait()
    assert "Traceback" not in daemon.log()
    return code, daemon.log()


def test_a_message_arrives_by_a_client_certificate_alone(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    url = f"amqps://localhost:{tls.port}"
    with DaemonProcess(
        tmp_path, url, names, RAW, extra=table(ca(tls.authority), tls.client.toml)
    ) as daemon:
        publish(tls.node.url, names.exchange, [b"by certificate"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        assert (tmp_path / "raw.log").read_bytes() == b"by certificate\n"
        users = tls.node.ctl("list_connections", "user", "auth_mechanism", "ssl")
        assert "logfan\tEXTERNAL\ttrue" in users
        assert daemon.stop() == 0


def test_a_password_over_tls_works_with_a_private_ca(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    url = f"amqps://guest:guest@localhost:{tls.open_port}"
    with DaemonProcess(tmp_path, url, names, RAW, extra=table(ca(tls.authority))) as daemon:
        assert "rabbitmq.tls" not in daemon.log()
        assert daemon.stop() == 0


def test_without_verification_it_works_and_warns(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    url = f"amqps://guest:guest@127.0.0.1:{tls.open_port}"
    with DaemonProcess(tmp_path, url, names, RAW, extra=table("verify = false")) as daemon:
        assert "rabbitmq.tls.verify = false: " in daemon.log()
        assert daemon.stop() == 0


REFUSED = {
    # what: (URL, which CA, which client, exit code, words)
    "unknown CA": ("amqps://localhost:{port}", "other", "good", 69, "name the file of that CA in"),
    "system's CAs": ("amqps://localhost:{port}", "", "good", 69, "rabbitmq.tls.ca_file"),
    "no client certificate": (
        "amqps://guest:guest@localhost:{port}", "own", "", 77, "it wants a client certificate",
    ),
    "client certificate of a wrong CA": (
        "amqps://localhost:{port}", "own", "other", 77, "it does not know the CA of rabbitmq.tls.c",
    ),
    "no user of that name": (
        "amqps://localhost:{port}", "own", "stranger", 77, "refused to log in by certificate",
    ),
    "AMQP to a TLS port": ("amqp://localhost:{port}", "", "", 69, "A port with TLS needs amqps://"),
    "TLS to an AMQP port": ("amqps://localhost:{plain}", "own", "", 69, "does not speak TLS"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_right_is_refused_in_words(
    tls: TlsNode, names: Names, tmp_path: Path, what: str
) -> None:
    url, ca_name, client, wanted, words = REFUSED[what]
    other = Authority(tmp_path, "other-ca")
    authorities = {"own": ca(tls.authority), "other": ca(other), "": ""}
    clients = {
        "good": tls.client.toml,
        "other": other.issue("client", "logfan", common_name="logfan").toml,
        "stranger": tls.authority.issue("stranger", "s", common_name="s").toml,
        "": "",
    }
    daemon = DaemonProcess(
        tmp_path, url.format(port=tls.port, plain=tls.node.port), names, RAW,
        extra=FAIL + table(authorities[ca_name], clients[client]),
    )  # fmt: skip
    code, log = ended(daemon)
    assert words in log
    assert code == wanted, log


def test_it_comes_by_itself_once_the_brokers_certificate_is_right(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    wrong: dict[str, tuple[tuple[str, ...], int, int]] = {
        "has expired; renew it on the broker": (("localhost",), -9, -2),
        "is not yet valid; are the clocks right": (("localhost",), 2, 9),
        "is for another host": (("rabbit.example",), -1, 9),
    }
    daemon = DaemonProcess(
        tmp_path, f"amqps://guest:guest@localhost:{tls.open_port}", names, RAW,
        extra=table(ca(tls.authority)),
    )  # fmt: skip
    try:
        for number, (words, (identities, begin, end)) in enumerate(wrong.items()):
            tls.show(*identities, valid_from_day=begin, valid_to_day=end)
            if number == 0:
                daemon.start(ready=False)
            wait_until(partial(is_shown, daemon, words), f"the status shows: {words}")
            wait_until(partial(is_logged, daemon, words), f"the log shows: {words}")
            assert daemon.get("/healthz")[0] == 200
        tls.show("localhost", "127.0.0.1")
        daemon.wait_ready()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        tls.show("localhost", "127.0.0.1")


def test_emit_speaks_tls_as_the_daemon_does(tls: TlsNode, names: Names, tmp_path: Path) -> None:
    with channel(tls.node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_declare(names.queue)
        admin.queue_bind(names.queue, names.exchange)
    daemon = DaemonProcess(
        tmp_path, f"amqps://localhost:{tls.port}", names, RAW,
        extra=table(ca(tls.authority), tls.client.toml),
    )  # fmt: skip
    done = logfan("emit", "one", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "1 confirmed\n")
    daemon.configure(f"amqps://guest:guest@localhost:{tls.port}", RAW, table(ca(tls.authority)))
    done = logfan("emit", "one", folder=tmp_path)
    assert done.returncode == 77
    assert "it wants a client certificate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_intermediate_certificate_that_is_not_sent_is_named(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    daemon = DaemonProcess(
        tmp_path, f"amqps://guest:guest@localhost:{tls.open_port}", names, RAW,
        extra=table(ca(tls.authority)),
    )  # fmt: skip
    try:
        tls.show("localhost", chain="torn")
        daemon.start(ready=False)
        words = "the broker does not send the intermediate certificate that leads there"
        wait_until(partial(is_shown, daemon, words), "the status shows it")
        wait_until(partial(is_logged, daemon, words), "the log shows it")
        tls.show("localhost", chain="whole")
        daemon.wait_ready()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        tls.show("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        pytest.param(
            "amqps", "took the connection and did not finish the TLS handshake within 15 s",
            marks=pytest.mark.long,
        ),
        ("amqp", "took the connection and did not finish the AMQP handshake within 15 s"),
    ],
)  # fmt: skip
def test_a_server_that_takes_the_connection_and_says_nothing_is_named(
    tmp_path: Path, scheme: str, words: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        done = logfan("emit", "one", folder=tmp_path, LOGFAN_RABBITMQ__URLS=f'["{url}"]')
    assert done.returncode == 69
    assert words in done.stderr
    assert "0x" not in done.stderr
    assert "AddressFamily" not in done.stderr
