"""The main job on a real RabbitMQ: every message to every sink, acknowledged only then."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, channel, publish, waiting
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

from_python_on = partial(DaemonProcess, forked=False)
"""As a service starts it; most other tests take a fork (`support.forked`)."""

THREE_SINKS = """
[sinks.raw]
kind = "file"
path = "raw.log"
format = "raw"
[sinks.json]
kind = "file"
path = "out.jsonl"
[sinks.numbers]
kind = "metrics"
counters = [{ name = "seen_total", labels = { level = "level" } }]
"""

HANGING_PLUGIN = '''
import pathlib, logfan

class Gate(logfan.Sink):
    """Refuse while a file called `shut` is there."""

    def write(self, records):
        if pathlib.Path("shut").exists():
            raise logfan.SinkUnavailable("the gate is shut")
        with open("gate.log", "ab") as file:
            file.writelines(record.body + b"\\n" for record in records)

@logfan.hookimpl
def register_sinks(register):
    register("gate", Gate)
'''


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def taken(channel: Any, queue: str) -> bytes | None:
    """What the tutorial's consumer would get next."""
    body: bytes | None = channel.basic_get(queue, auto_ack=True)[2]
    return body


def test_every_message_is_in_every_sink_exactly_once(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    count = 50_000
    with from_python_on(tmp_path, node.url, names, THREE_SINKS) as daemon:
        bodies = (json.dumps({"n": n, "level": "info"}).encode() for n in range(count))
        publish(node.url, names.exchange, (next(bodies) for _ in range(count // 10)))
        wait_until(lambda: daemon.acked() == count // 10, "the first tenth is acknowledged")
        after_a_tenth = daemon.memory_kib()
        publish(node.url, names.exchange, bodies)
        wait_until(lambda: daemon.acked() == count, "all is acknowledged")
        expected = [str(n) for n in range(count)]
        raw = [str(json.loads(line)["n"]) for line in lines(tmp_path / "raw.log")]
        envelopes = [json.loads(line) for line in lines(tmp_path / "out.jsonl")]
        assert raw == expected
        assert [str(e["body"]["n"]) for e in envelopes] == expected
        assert daemon.metric('seen_total{level="info"}') == count
        assert daemon.metric("logfan_received_messages_total") == count
        assert daemon.metric("logfan_in_flight_messages") == 0
        assert node.unacked(names.queue) == 0
        assert waiting(node.url, names.queue) == 0
        # Ten times the messages in the same memory: nothing is kept of what is acknowledged.
        assert daemon.memory_kib() < after_a_tenth + 15_000
        assert daemon.stop() == 0


@pytest.fixture
def default_names(node: RabbitNode) -> Iterator[Names]:
    """The names that the tutorials use, and that logfan has by default; nothing bears them yet."""
    names = Names("logs", "logfan")

    def clear() -> None:
        with channel(node.url) as admin:
            admin.exchange_delete(names.exchange)
            admin.queue_delete(names.queue)
            admin.queue_delete(f"{names.queue}.dead")

    clear()
    yield names
    clear()


def test_the_tutorials_programs_run_unchanged_beside_it(
    node: RabbitNode, default_names: Names, tmp_path: Path
) -> None:
    with (
        channel(node.url) as before,
        from_python_on(tmp_path, node.url, default_names, THREE_SINKS) as daemon,
    ):
        # Once the daemon has made the exchange, and once more after it: either order works.
        for consumer in ("after", "again"):
            before.exchange_declare(exchange="logs", exchange_type="fanout")
            result = before.queue_declare(queue="", exclusive=True)
            before.queue_bind(exchange="logs", queue=result.method.queue)
            before.basic_publish(exchange="logs", routing_key="", body=f"info: {consumer}")
            got = wait_until(
                partial(taken, before, result.method.queue),
                "the tutorial's consumer has its copy",
            )
            assert got == f"info: {consumer}".encode()
        wait_until(lambda: daemon.acked() == 2, "the daemon has its copies")
        assert lines(tmp_path / "raw.log") == [b"info: after", b"info: again"]


def test_the_tutorials_programs_may_be_first(
    node: RabbitNode, default_names: Names, tmp_path: Path
) -> None:
    with channel(node.url) as first:
        first.exchange_declare(exchange="logs", exchange_type="fanout")
        with from_python_on(tmp_path, node.url, default_names, THREE_SINKS) as daemon:
            first.basic_publish(exchange="logs", routing_key="", body="warning: hello")
            wait_until(lambda: daemon.acked() == 1, "the message is acknowledged")
            assert lines(tmp_path / "raw.log") == [b"warning: hello"]
            assert "is used as it stands" not in daemon.log()


def test_a_blocked_sink_holds_its_window_and_nothing_else(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    prefetch, count = 50, 500
    add_drop_in(tmp_path, "gate", HANGING_PLUGIN)
    gate = '[sinks.gate]\nkind = "gate"\nretry = { initial = "20ms", max = "50ms" }\n'
    shut = tmp_path / "shut"
    shut.touch()
    with from_python_on(
        tmp_path, node.url, names, THREE_SINKS + gate, extra=f"prefetch = {prefetch}"
    ) as daemon:
        publish(node.url, names.exchange, (b"%d" % n for n in range(count)))
        wait_until(lambda: len(lines(tmp_path / "raw.log")) == prefetch, "the others have it")
        wait_until(lambda: node.unacked(names.queue) == prefetch, "the broker holds the window")
        retries = 'logfan_sink_retries_total{sink="gate"}'
        seen = daemon.metric(retries)
        wait_until(lambda: daemon.metric(retries) > seen + 3, "the sink is tried again and again")
        assert daemon.acked() == 0
        assert node.unacked(names.queue) == prefetch
        assert lines(tmp_path / "raw.log") == [b"%d" % n for n in range(prefetch)]
        status, reasons = daemon.get("/readyz")
        assert status == 503
        assert "gate" in reasons
        assert "the gate is shut" in reasons
        shut.unlink()
        wait_until(lambda: daemon.acked() == count, "all is acknowledged")
        assert lines(tmp_path / "gate.log") == [b"%d" % n for n in range(count)]
        assert lines(tmp_path / "raw.log") == [b"%d" % n for n in range(count)]
        assert daemon.get("/readyz")[0] == 200


def test_an_optional_sink_holds_nothing_back(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "gate", HANGING_PLUGIN)
    (tmp_path / "shut").touch()
    gate = '[sinks.gate]\nkind = "gate"\nrequired = false\nbatch = { max_records = 10 }\n'
    extra = "prefetch = 100"
    with from_python_on(tmp_path, node.url, names, THREE_SINKS + gate, extra=extra) as daemon:
        publish(node.url, names.exchange, (b"%d" % n for n in range(1_000)))
        wait_until(lambda: daemon.acked() == 1_000, "all is acknowledged")
        assert daemon.get("/readyz")[0] == 200
        dropped = 'logfan_sink_records_total{outcome="dropped",sink="gate"}'
        # What waits is bounded by the prefetch; all else was dropped, and counted.
        assert 900 <= daemon.metric(dropped) < 1_000
        assert "not required; dropping" in daemon.log()


def test_term_under_load_loses_and_doubles_nothing(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    count = 12_000
    # A small window makes the drain slow enough to be interrupted.
    extra = "prefetch = 10"
    with from_python_on(tmp_path, node.url, names, THREE_SINKS, extra=extra) as daemon:
        daemon.stop()  # the queue is there now, and fills while no consumer drains it
        publish(node.url, names.exchange, (b"%d" % n for n in range(count)))
        daemon.start()
        wait_until(lambda: daemon.acked() > 1_000, "it is in the middle of it")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert "everything received is acknowledged" in daemon.log()
        written = len(lines(tmp_path / "raw.log"))
        assert written + waiting(node.url, names.queue) == count
        assert written < count, "the load was over before the signal; the test shows nothing"
        daemon.start()
        wait_until(lambda: waiting(node.url, names.queue) == 0, "the rest is delivered", 120.0)
        wait_until(lambda: node.unacked(names.queue) == 0, "the rest is acknowledged")
        for file in ("raw.log", "out.jsonl"):
            assert len(lines(tmp_path / file)) == count
        assert sorted(int(n) for n in lines(tmp_path / "raw.log")) == list(range(count))


def test_kill_under_load_loses_nothing_and_doubles_at_most_the_prefetch(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    count, prefetch = 20_000, 100
    extra = f"prefetch = {prefetch}"
    with from_python_on(tmp_path, node.url, names, THREE_SINKS, extra=extra) as daemon:
        publish(node.url, names.exchange, (b"%d" % n for n in range(count)))
        wait_until(lambda: daemon.acked() > 1_000, "it is in the middle of it")
        daemon.kill()
        daemon.start()
        wait_until(lambda: waiting(node.url, names.queue) == 0, "the rest is delivered", 120.0)
        wait_until(lambda: node.unacked(names.queue) == 0, "the rest is acknowledged")
        bodies = [json.loads(line)["body"] for line in lines(tmp_path / "out.jsonl")]
        for seen in (Counter(lines(tmp_path / "raw.log")), Counter(b"%d" % n for n in bodies)):
            assert set(seen) == {b"%d" % n for n in range(count)}
            assert sum(seen.values()) - count <= prefetch


@pytest.mark.parametrize("kind", ["classic", "quorum", "exclusive"])
def test_each_type_of_queue_works(
    node: RabbitNode, names: Names, tmp_path: Path, kind: str
) -> None:
    with from_python_on(
        tmp_path, node.url, names, THREE_SINKS, environ={"LOGFAN_QUEUE__TYPE": kind}
    ) as daemon:
        publish(node.url, names.exchange, (b"%d" % n for n in range(100)))
        wait_until(lambda: daemon.acked() == 100, "all is acknowledged")
        assert daemon.stop() == 0


def test_a_drop_in_of_the_guide_works_at_the_next_start(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    guide = Path(__file__).parents[2] / "plugins/README.md"
    plugin = next(
        block.partition("```")[0]
        for block in guide.read_text().split("```python\n")[1:]
        if "register_sinks" in block.partition("```")[0]
    )
    with from_python_on(tmp_path, node.url, names, THREE_SINKS) as daemon:
        assert daemon.stop() == 0
        add_drop_in(tmp_path, "shout", plugin)
        daemon.configure(node.url, THREE_SINKS + '[sinks.loud]\nkind = "shout"\n')
        daemon.start()
        publish(node.url, names.exchange, [b"hello"])
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        assert "HELLO!" in daemon.log()


HOSTILE_BODIES = [
    b"",
    b"x" * 16 * 1024 * 1024,
    b"\xff\xfe\x00 not utf-8 \x80",
    b"[" * 100_000 + b"]" * 100_000,
    b"one\ntwo\r\nthree",
    b"\x1b]0;owned\x07\x1b[2J\x1b[31mred \xc2\x9b31m",
    b'{"message": "\\u001b[2J", "level": "error"}',
    b"<0>not an emergency",
]


def test_hostile_bodies_pass_every_sink_without_harm(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    sinks = THREE_SINKS + '[sinks.screen]\nkind = "stdout"\n'
    headers = {"\x1b[2J": "\x1b]0;x\x07", "bytes": b"\xff", "deep": {"a": [1, {"b": None}]}}
    with from_python_on(tmp_path, node.url, names, sinks) as daemon:
        for body in HOSTILE_BODIES:
            publish(node.url, names.exchange, [body, b"neighbour"], headers=headers)
        wait_until(lambda: daemon.acked() == 2 * len(HOSTILE_BODIES), "all is acknowledged")
        envelopes = [json.loads(line) for line in lines(tmp_path / "out.jsonl")]
        assert len(envelopes) == 2 * len(HOSTILE_BODIES)
        assert [e["body"] for e in envelopes[1::2]] == ["neighbour"] * len(HOSTILE_BODIES)
        raw = (tmp_path / "raw.log").read_bytes()
        assert raw == b"".join(body + b"\nneighbour\n" for body in HOSTILE_BODIES)
        shown = daemon.log().replace("\n", "")
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
        for sink in ("raw", "json", "numbers", "screen"):
            assert daemon.metric(f'logfan_sink_retries_total{{sink="{sink}"}}') == 0
