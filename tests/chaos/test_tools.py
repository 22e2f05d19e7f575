"""The suite's own tools work as documented: proxy, watch over growth, plan, report."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos import faults, report, soak
from chaos.checker import Finding, Journal
from chaos.proxy import Proxy
from chaos.run import options_of
from chaos.scene import Verdict
from chaos.soak import Period
from chaos.watcher import Vitals, added
from support.waiting import wait_until

ACK = struct.pack(">BHIHHQBB", 1, 1, 13, 60, 80, 77, 1, 0xCE)


@contextmanager
def echo() -> Iterator[Proxy]:
    """A proxy before a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=answer, args=(client,), daemon=True).start()

        def answer(client: socket.socket) -> None:
            with client:
                try:
                    while data := client.recv(65536):
                        client.sendall(data)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        try:
            with Proxy(server.getsockname()[1]) as proxy:
                yield proxy
        finally:
            server.shutdown(socket.SHUT_RDWR)


def received(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = client.recv(count - len(data))
        assert chunk, "the connection ended"
        data += chunk
    return data


def test_the_proxy_forwards_and_notes_acknowledgements() -> None:
    with echo() as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        client.sendall(b"x" * 300_000)
        assert received(client, 300_000) == b"x" * 300_000
        client.sendall(b"y" + ACK)
        received(client, 22)
        assert [tag for _, tag in proxy.acks] == [77]
        assert abs(proxy.acks[0][0] - time.monotonic()) < 5
        assert (proxy.counts.connections, proxy.counts.held, proxy.counts.reset) == (1, 0, 0)


def test_the_proxy_lets_a_message_that_is_forbidden_end_its_connection() -> None:
    with echo() as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        proxy.forbid(b"mark")
        client.sendall(b"before, then the ma")
        assert received(client, 19) == b"before, then the ma"
        client.sendall(b"rk and more")
        assert client.recv(100) == b""
        assert proxy.counts.refused == 1
        proxy.heal()
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as other:
            other.sendall(b"a mark")
            assert received(other, 6) == b"a mark"


def test_the_proxy_resets_connections() -> None:
    with echo() as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        client.sendall(b"hello")
        received(client, 5)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            received(client, 1)
        assert proxy.counts.reset == 1


def test_a_black_hole_keeps_everything_back_until_it_is_healed() -> None:
    with echo() as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        client.sendall(b"before")
        received(client, 6)
        proxy.swallow()
        client.settimeout(0.2)
        client.sendall(b"after")
        with pytest.raises(TimeoutError):
            client.recv(1)
        wait_until(lambda: proxy.counts.held, "it is held")
        proxy.heal()
        client.settimeout(10)
        assert received(client, 5) == b"after"


def test_delayed_and_trickled_bytes_arrive_whole_and_in_order() -> None:
    data = random.Random(1).randbytes(1000)
    with echo() as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        proxy.delay(0.1)
        started = time.monotonic()
        client.sendall(b"late")
        assert received(client, 4) == b"late"
        assert time.monotonic() - started >= 0.2
        assert proxy.counts.delayed >= 2
        proxy.heal()
        proxy.trickle()
        client.sendall(data)
        assert received(client, 1000) == data
        assert proxy.counts.trickled >= 5


def test_a_leak_is_growth_and_noise_is_none() -> None:
    noise = random.Random(3)
    assert added([11, 11, 12, 11, 12, 11, 11, 12, 11]) == 0
    assert added([10 + n for n in range(30)]) > 10
    assert added([50 + noise.random() for _ in range(300)]) == 0


def period(number: int, *, memory: float = 50, files: int = 11, latency: float = 0.005) -> Period:
    return Period(number, [latency] * 100, Vitals(files, 9, memory * 1024))


def test_a_soak_tells_what_grew() -> None:
    assert not soak.not_flat([period(n) for n in range(30)])
    assert "memory" in soak.not_flat([period(n, memory=50 + n) for n in range(30)])[0]
    assert "descriptors" in soak.not_flat([period(n, files=11 + n) for n in range(30)])[0]
    assert "latency" in soak.not_flat([period(n, latency=0.005 * (n + 1)) for n in range(30)])[0]


def test_a_seed_draws_the_same_plan_again_and_all_of_it() -> None:
    counts = faults.counts_for(200, {fault.needs for fault in faults.ALL})
    planned = faults.plan(random.Random("seed"), counts)
    assert planned == faults.plan(random.Random("seed"), counts)
    assert planned != faults.plan(random.Random("another"), counts)
    done = Counter(fault.name for fault in planned)
    assert done == counts
    assert done[faults.KILL.name] == 200
    assert done[faults.BROKER.name] >= 30
    assert done[faults.CUT.name] >= 50
    assert set(done) == {fault.name for fault in faults.ALL}
    assert {faults.DISK.name, faults.HOME.name}.isdisjoint(faults.counts_for(200, set()))
    assert faults.of_the_cluster(20)[faults.HOME.name] == 2


def test_the_report_shows_what_was_done_and_what_broke() -> None:
    journal = Journal(run="r", confirmed=bytearray(b"\1\1\1"))
    verdict = Verdict([journal], [Finding("raw", distinct=2, lost=[1])], losses=2, prefetch=10)
    facts = report.Facts(
        seed="5eed", seconds=61.0, crashes=1, losses=1, scrapes=7, lives=2,
        growth={"descriptors": 0, "threads": 0, "memory_kib": 2048}, long_lives=1,
        done={"kill": 2}, recoveries={"kill": [1.0, 3.0]}, proxy={"connections": 4}, left=3,
    )  # fmt: skip
    for shown in (report.as_text(facts, verdict), report.as_markdown(facts, verdict)):
        for words in (
            "5eed", "3 confirmed, 1 lost", "1 invariants BROKE", "raw: 1 lost (1)", "3.00 s",
            "3 faults not done", "2.0 MiB",
        ):  # fmt: skip
            assert words in shown
    assert "| kill | 2 |" in report.as_markdown(facts, verdict)
    verdict.findings = [Finding("raw", distinct=3)]
    assert "every invariant held" in report.as_text(facts, verdict)


def test_arguments_are_words_and_empty_ones_are_the_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert options_of(["A=2", "B="], {"A": "1", "B": "3"}) == {"A": "2", "B": "3"}
    assert options_of(["C=2"], {"A": "1"}) is None
    assert "C=2" in capsys.readouterr().err
