"""`logfan tap` on a real broker: it shows, takes nothing, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

import pika
import pytest

from logfan.testing.node import RabbitNode
from support.broker import (
    Names,
    add_user,
    add_vhost,
    channel,
    delete_user,
    delete_vhost,
    publish,
    waiting,
)
from support.command import LOGFAN, logfan
from support.daemon import DaemonProcess
from support.gate import Gate
from support.waiting import PATIENCE_SECONDS, wait_until

BEGUN = "Ctrl-C ends"
SINKS = (
    '[sinks.alerts]\nkind = "file"\npath = "alerts.log"\nformat = "raw"\n'
    'where = { level = ["error", "critical"] }\n'
    'redact = { paths = ["user"], patterns = ["card"] }\n'
)


class Tap:
    """A tap as a process, its output in files."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        stdout: "IO[bytes] | int | None" = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._out, self._err = folder / "tap.out", folder / "tap.err"
        self._err.write_bytes(b"")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*LOGFAN, "tap", *arguments], cwd=folder, stderr=err,
                stdout=out if stdout is None else stdout, env={**os.environ, **(environ or {})},
            )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            wait_until(lambda: BEGUN in self.err() or self.process.poll() is not None, "tap begins")
            assert self.process.poll() is None, self.err()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def out(self) -> bytes:
        return self._out.read_bytes()

    def lines(self) -> list[bytes]:
        return self.out().splitlines()

    def err(self) -> str:
        return self._err.read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])


def run(folder: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return logfan("tap", *arguments, folder=folder, **environ)


@pytest.fixture
def folder(tmp_path: Path, node: RabbitNode, names: Names) -> Path:
    """A config, and the exchange as a publisher declares it. No daemon runs."""
    DaemonProcess(tmp_path, node.url, names, SINKS)
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
    return tmp_path


def queues_of(node: RabbitNode, names: Names) -> list[str]:
    """The queues that are bound to the exchange."""
    found = node.eval(
        f'[Q || {{binding, {{resource, _, exchange, <<"{names.exchange}">>}}, _, '
        '{resource, _, queue, Q}, _} <- rabbit_binding:list(<<"/">>)].'
    )
    return [part for part in found.split('"') if part.startswith(("amq.gen", names.queue))]


def body(n: int) -> bytes:
    level = "error" if n % 10 == 0 else "info"
    message = f"paid with 4111 1111 1111 1111, number {n}"
    return json.dumps({"n": n, "level": level, "user": "ann", "message": message}).encode()


def test_it_shows_what_is_published_without_a_daemon_and_leaves_nothing(
    node: RabbitNode, names: Names, folder: Path
) -> None:
    with Tap(folder, "--format", "raw") as tap:
        assert len(queues_of(node, names)) == 1
        publish(node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: tap.lines() == [b"one", b"two"], "both are shown")
        assert tap.stop() == 0
        assert "2 received: 2 shown" in tap.err()
        assert "Traceback" not in tap.err()
    assert queues_of(node, names) == []
    with channel(node.url) as admin, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        admin.queue_declare(names.queue, passive=True)  # no queue of the daemon's was made


def test_killed_it_leaves_nothing(node: RabbitNode, names: Names, folder: Path) -> None:
    with Tap(folder) as tap:
        assert len(queues_of(node, names)) == 1
        tap.process.kill()
    wait_until(lambda: queues_of(node, names) == [], "the queue is gone")


def test_where_limit_and_json(node: RabbitNode, names: Names, folder: Path) -> None:
    where = "{ n = { above = 10 } }"
    with Tap(folder, "--where", where, "--limit", "3", "--format", "json") as tap:
        publish(node.url, names.exchange, [b"no JSON", *map(body, range(100))])
        assert tap.wait() == 0
        assert [json.loads(line)["body"]["n"] for line in tap.lines()] == [11, 12, 13]
        assert "3 shown" in tap.err()
        assert "1 undecided" in tap.err()
    assert queues_of(node, names) == []


def test_a_sink_s_stage_with_its_redaction(node: RabbitNode, names: Names, folder: Path) -> None:
    with Tap(folder, "--sink", "alerts", "--format", "raw") as tap:
        publish(node.url, names.exchange, map(body, range(91)))  # the last one is shown
        wait_until(lambda: len(tap.lines()) == 10, "all of its share")
        assert tap.stop() == 0
    shown = [json.loads(line) for line in tap.lines()]
    assert [one["n"] for one in shown] == [*range(0, 91, 10)]
    assert {one["user"] for one in shown} == {"[redacted]"}
    assert b"4111" not in tap.out()
    assert "91 received: 10 shown, 81 not chosen" in tap.err()


def test_rate_shows_no_more_and_counts_the_rest(
    node: RabbitNode, names: Names, folder: Path
) -> None:
    with Tap(folder, "--rate", "5", "--format", "raw") as tap:
        publish(node.url, names.exchange, map(body, range(1000)))
        wait_until(lambda: "… " in tap.err(), "it reports while it runs")
        assert tap.stop() == 0
    seconds = 10  # the messages are there much sooner
    assert 5 <= len(tap.lines()) <= 5 * seconds
    skipped = 1000 - len(tap.lines())
    assert f"1,000 received: {len(tap.lines())} shown, {skipped} skipped for --rate" in tap.err()


def test_a_reader_that_goes_ends_it_at_once(folder: Path) -> None:
    reading, writing = os.pipe()
    with Tap(folder, stdout=writing) as tap:
        os.close(writing)
        os.close(reading)  # and no message ever comes
        assert tap.wait() == 0
        assert "Traceback" not in tap.err()


def test_head(node: RabbitNode, names: Names, folder: Path) -> None:
    command = f"{sys.executable} -m logfan tap --format raw | head -n 2"
    with subprocess.Popen(
        ["sh", "-c", command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shell:
        wait_until(lambda: queues_of(node, names), "tap listens")
        publish(node.url, names.exchange, map(body, range(1000)))
        out, err = shell.communicate(timeout=PATIENCE_SECONDS)
    assert out.splitlines() == [body(0), body(1)]
    assert b"Traceback" not in err
    assert shell.returncode == 0


def test_a_slow_reader_costs_messages_not_memory_and_not_the_connection(
    node: RabbitNode, names: Names, folder: Path
) -> None:
    reading, writing = os.pipe()
    large = b"x" * 10_000
    environ = {"LOGFAN_RABBITMQ__HEARTBEAT": "1s"}
    with Tap(folder, "--format", "raw", stdout=writing, environ=environ) as tap:
        os.close(writing)
        before = tap.memory_kib()
        publish(node.url, names.exchange, (large for _ in range(20_000)))
        wait_until(lambda: "skipped" in tap.err(), "it reports what it skips")
        assert tap.process.poll() is None
        assert tap.memory_kib() - before < 100 << 10  # of 200 MB that came
        assert tap.stop() == 0
        os.close(reading)
    assert "faster than they were shown" in tap.err()


def frames(exchange: str, channel_number: int, bodies: list[bytes]) -> bytes:
    """Messages as they go over the wire: made once, as pika takes longer for it than a load may."""
    publish = pika.spec.Basic.Publish(exchange=exchange)
    parts = []
    for one in bodies:
        parts += [
            pika.frame.Method(channel_number, publish).marshal(),
            pika.frame.Header(channel_number, len(one), pika.BasicProperties()).marshal(),
            pika.frame.Body(channel_number, one).marshal(),
        ]
    return b"".join(parts)


def load(url: str, exchange: str, rate: int, count: int) -> float:
    """Publish so many, so many a second; the seconds that it took."""
    with channel(url) as out:
        many = frames(exchange, out.channel_number, [*map(body, range(500))])
        began = time.monotonic()
        for sent in range(0, count, 500):
            out.connection._impl._output_marshaled_frames([many])
            out.connection.process_data_events(max(0.0, began + sent / rate - time.monotonic()))
        out.exchange_declare(exchange, passive=True)
        return time.monotonic() - began


def test_under_load_the_daemon_gets_all_and_tap_stays_small(
    node: RabbitNode, names: Names, folder: Path
) -> None:
    count = 100_000
    with DaemonProcess(folder, node.url, names, SINKS) as daemon:
        with Tap(folder, "--where", '{ level = ["error"] }', "--format", "raw") as tap:
            seconds = load(node.url, names.exchange, 50_000, count)
            wait_until(lambda: daemon.acked() == count, "the daemon acknowledged all")
            assert tap.memory_kib() < 150 << 10
            assert tap.stop() == 0
        assert daemon.stop() == 0
    print(f"{count / seconds:,.0f}/s; {tap.err()}")
    received = int(tap.err().split(" received:")[0].split()[-1].replace(",", ""))
    assert received == count or "the broker may have dropped" in tap.err()
    assert 0 < len(tap.lines()) <= count // 10
    assert waiting(node.url, names.queue) == 0


def test_a_lost_connection_ends_it_with_69(node: RabbitNode, names: Names, folder: Path) -> None:
    with Gate(node.port) as gate:
        url = f"amqp://guest:guest@127.0.0.1:{gate.port}/%2F"
        DaemonProcess(folder, url, names, SINKS)
        with Tap(folder, "--format", "raw") as tap:
            publish(node.url, names.exchange, [b"one"])
            wait_until(lambda: tap.lines() == [b"one"], "it is shown")
            gate.shut()
            assert tap.wait() == 69
            assert "tap does not connect again; 1 received: 1 shown" in tap.err()


def test_a_deleted_queue_ends_it_with_69(node: RabbitNode, names: Names, folder: Path) -> None:
    with Tap(folder) as tap:
        (queue,) = queues_of(node, names)
        node.eval(
            'rabbit_amqqueue:with(rabbit_misc:r(<<"/">>, queue, <<"' + queue + '">>), fun(Q) -> '
            'rabbit_amqqueue:delete(Q, false, false, <<"test">>) end).'
        )
        assert tap.wait() == 69
        assert "its queue was deleted" in tap.err()


PAGE = Path(__file__).parents[2] / "systemd/broker.md"
COMMAND = re.compile(r"^\$ rabbitmqctl set_permissions tap '(.*)' '(.*)' '(.*)'$", re.MULTILINE)


@pytest.mark.parametrize("lacking", [None, 0, 1, 2])
def test_the_least_permissions_in_a_virtual_host_of_its_own(
    lacking: int | None, node: RabbitNode, names: Names, folder: Path
) -> None:
    user = vhost = f"v{names.queue[-6:]}"
    add_vhost(node, vhost)
    (on_page,) = COMMAND.findall(PAGE.read_text())
    patterns = [one.replace("logs", names.exchange) for one in on_page]
    if lacking is not None:
        patterns[lacking] = "^$"
    add_user(node, user, patterns, vhost=vhost)
    url = node.url.replace("guest:guest", f"{user}:secret").replace("%2F", vhost)
    own = node.url.replace("%2F", vhost)
    try:
        DaemonProcess(folder, url, names, SINKS)
        with channel(own) as admin:
            admin.exchange_declare(names.exchange, "fanout")
        if lacking is not None:
            # As for a daemon's user that only consumes, whose queue is bound already.
            done = run(folder, "--limit", "1", LOGFAN_QUEUE__DECLARE="passive")
            assert done.returncode == 77
            assert "ACCESS_REFUSED" in done.stderr
            assert "tap needs configure, write and read on ^amq\\.gen.*" in done.stderr
            return
        with Tap(folder, "--limit", "1", "--format", "raw") as tap:
            publish(own, names.exchange, [b"one"])
            assert tap.wait() == 0
            assert tap.lines() == [b"one"]
    finally:
        delete_user(node, user)
        delete_vhost(node, vhost)


def test_it_makes_no_exchange(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    DaemonProcess(tmp_path, node.url, names, SINKS)
    done = run(tmp_path)
    assert done.returncode == 77
    assert "does not exist, and tap makes none" in done.stderr
    with channel(node.url) as admin, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        admin.exchange_declare(names.exchange, passive=True)


def test_an_exchange_of_another_type_is_named(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    DaemonProcess(tmp_path, node.url, names, SINKS)
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "topic")
    done = run(tmp_path)
    assert done.returncode == 77
    assert 'set exchange.type = "topic"' in done.stderr


def test_wrong_options_are_explained(folder: Path) -> None:
    for arguments, code, text in (
        (["--where", "level = error"], 2, "no TOML"),
        (["--where", f"{{ n = {'9' * 5000} }}"], 2, "no TOML"),
        (["--where", "[" * 5000], 2, "no TOML"),
        (["--where", "{ level = [ 1 ] }\n[x]"], 2, "one value of TOML"),
        (["--where", "3"], 2, "no table of matchers"),
        (["--sink", "alert"], 2, 'did you mean "alerts"'),
        (["--config", "none.toml"], 78, "cannot be read"),
    ):
        done = run(folder, *arguments)
        assert done.returncode == code, done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
