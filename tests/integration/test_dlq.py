"""`logfan dlq` as an operator types it, interrupted at any moment."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from click.testing import CliRunner, Result

from logfan.amqp import connection
from logfan.amqp.blocking import BlockingConnection
from logfan.amqp.publisher import IsolatingWindow
from logfan.cli import main
from logfan.config.settings import Settings
from logfan.dead_letters import header_overflow
from logfan.dead_letters.browser import DeadQueue
from logfan.dead_letters.letter import Letter, replayed
from logfan.dead_letters.survey import Found
from logfan.testing import hostile_records, record
from logfan.testing.node import RabbitNode
from support.broker import (
    Names,
    channel,
    delete_queue,
    granting,
    impatient,
    memory_alarm,
    waiting,
)
from support.command import LOGFAN
from support.letters import bodies, bury
from support.relay import Relay
from support.waiting import PATIENCE_SECONDS, wait_until


def count(opened: Any, queue: str) -> int:
    """How many messages wait, asked on a channel that is open."""
    return int(opened.queue_declare(queue, passive=True).method.message_count)


class Operator:
    """Types `logfan dlq …` in a folder with a config."""

    def __init__(self, folder: Path, url: str, names: Names) -> None:
        self.folder = folder
        self.url = url
        self.names = names
        self.dead = f"{names.queue}.dead"
        self.configure(url)

    def configure(self, url: str, extra: str = "") -> None:
        (self.folder / "config.toml").write_text(
            f'[exchange]\nname = "{self.names.exchange}"\n[queue]\nname = "{self.names.queue}"\n'
            f"{extra}\n"
            '[sinks.archive]\nkind = "stdout"\n[sinks.mail]\nkind = "stdout"\n'
            f'[rabbitmq]\nurls = ["{url}"]\n'
        )

    def types(self, *arguments: str) -> Result:
        """In this process: each start of Python would cost more than the command."""
        config = ["--config", str(self.folder / "config.toml")]
        result = CliRunner().invoke(main, ["dlq", *arguments, *config])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def starts(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*LOGFAN, "dlq", *arguments], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
def operator(tmp_path: Path, node: RabbitNode, names: Names) -> Operator:
    return Operator(tmp_path, node.url, names)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%05d" % number for number in range(start, start + count)]


def fill(operator: Operator, count: int, *, start: int = 0, sink: str = "archive") -> None:
    bury(operator.url, operator.names, map(record, numbered(count, start)), sink=sink)


def test_without_a_queue_there_are_no_dead_letters(operator: Operator) -> None:
    for command in (("list",), ("show",), ("replay",), ("purge", "--yes")):
        done = operator.types(*command)
        assert done.exit_code == 0
        assert done.stdout == f"no dead letters: queue {operator.dead} does not exist yet\n"


def test_a_list_counts_by_sink_and_reason_and_takes_nothing(operator: Operator) -> None:
    url, names = operator.url, operator.names
    bury(url, names, map(record, numbered(5)))
    bury(url, names, map(record, numbered(2, 5)), sink="mail", reason="no \x1b[2J address", at=1e9)
    bury(url, names, [record(b"00007")], sink="mail", reason="no \x1b[2J address")
    with channel(url) as opened:
        opened.basic_publish("", operator.dead, b"00008")
    done = operator.types("list")
    assert done.exit_code == 0
    lines = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    assert lines[0] == [f"queue {operator.dead}: 9 dead letters, 45 B"]
    noon = "2026-11-24T12:00:00.000Z"
    assert lines[2] == ["5", noon, noon, "25 B", "archive", "too old"]
    assert lines[3] == [
        "3", "2001-09-09T01:46:40.000Z", noon, "15 B", "mail", r"no \x1b[2J address",
    ]  # fmt: skip
    assert lines[4] == ["1", "-", "-", "5 B", "-", "(not put there by logfan)"]
    found = json.loads(operator.types("list", "--json").stdout)
    assert (found["messages"], found["read"], found["foreign"]["count"]) == (9, 9, 1)
    assert found["rows"][1]["reason"] == "no \x1b[2J address"
    assert bodies(url, operator.dead) == numbered(9)


def test_a_list_stops_at_its_limit_and_says_so(operator: Operator) -> None:
    fill(operator, 8)
    done = operator.types("list", "--limit", "3")
    assert f"queue {operator.dead}: 3 dead letters" in done.stdout
    assert "these are 3 of 8" in done.stderr
    assert bodies(operator.url, operator.dead) == numbered(8)


def test_a_letter_is_shown_whole_and_safely(operator: Operator) -> None:
    hostile = hostile_records()
    bury(operator.url, operator.names, hostile.values(), sink="mail", reason="no\x1b[2J \u202e")
    fill(operator, 1)
    text = operator.types("show", "--limit", "0").stdout
    assert all(char.isprintable() or char == "\n" for char in text)
    assert len(text) < 40_000
    assert "16,773,216 bytes more" in text
    lines = operator.types("show", "--json", "--sink", "mail", "--limit", "0").stdout.splitlines()
    assert len(lines) == len(hostile)
    for line, one in zip(map(json.loads, lines), hostile.values(), strict=True):
        assert line["sink"] == "mail"
        assert line["exchange"] == one.exchange
        assert line["routing_key"] == one.routing_key
        assert set(line["headers"]) == set(one.headers)
    assert json.loads(lines[1])["body"] == "x" * (16 << 20)
    assert json.loads(lines[2])["body"] == {"base64": "//6AIGJ5dGVzIAA="}
    done = operator.types("show", "--sink", "archive")
    assert "1. refused by sink archive after 3 attempts" in done.stdout
    assert done.stdout.count("refused by") == 1
    assert waiting(operator.url, operator.dead) == len(hostile) + 1


def test_what_was_looked_at_goes_back_in_its_order(operator: Operator) -> None:
    fill(operator, 300)
    assert operator.types("list").exit_code == 0
    assert operator.types("show", "--limit", "40").exit_code == 0
    assert operator.types("replay", "--sink", "mail").stdout.startswith("0 replayed\n300 left")
    wait_until(lambda: waiting(operator.url, operator.dead) == 300, "all are back")
    assert bodies(operator.url, operator.dead) == numbered(300)


LIMITS = [
    ("set_policy", 1),
    ("", 0),
    pytest.param("set_policy", 3, marks=pytest.mark.long),
    pytest.param("set_operator_policy", 3, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("policy", "limit"), LIMITS)
def test_looking_costs_no_letter_of_a_quorum_queue_whatever_its_limit(
    operator: Operator, node: RabbitNode, policy: str, limit: int
) -> None:
    url, names = operator.url, operator.names
    operator.configure(url, 'type = "quorum"')
    if policy:
        definition = json.dumps({"delivery-limit": limit})
        node.ctl(policy, "--apply-to", "queues", operator.dead, f"^{operator.dead}$", definition)
    bury(url, names, map(record, numbered(300)), kind="quorum")
    bury(url, names, map(record, numbered(20, 300)), sink="mail", kind=None)
    warned = ""
    for left in range(320, 316, -1):
        done = operator.types("list")
        warned += done.stderr
        assert f"{operator.dead}: {left} dead letters" in done.stdout
        shown = operator.types("show", "--limit", "40")
        assert shown.exit_code == 0
        warned += shown.stderr
        assert operator.types("replay", "--sink", "none-of-ours").exit_code == 2
        assert operator.types("replay", "--sink", "mail", "--limit", "1").exit_code == 0
        wait_until(lambda left=left: waiting(url, operator.dead) == left - 1, "all are back")  # type: ignore[misc]
    # From 4.3 on what is handed back does not count.
    counts = int(node.version.split(".")[0]) < 4 or node.version.startswith("4.0.")
    assert ("a fresh copy, at the end" in warned + operator.types("list").stderr) == counts
    assert operator.types("replay", "--limit", "100").stdout.startswith("100 replayed")
    wait_until(lambda: waiting(url, operator.dead) == 216, "all are back")
    wait_until(lambda: waiting(url, names.queue) == 104, "they are there")
    again = bodies(url, names.queue)
    assert sorted(again + bodies(url, operator.dead)) == numbered(320)


def test_a_copy_of_a_letter_is_the_letter(operator: Operator) -> None:
    url, names = operator.url, operator.names
    operator.configure(url, 'type = "quorum"')
    hostile = hostile_records()
    bury(url, names, hostile.values(), kind="quorum")
    with channel(url) as opened:
        odd = pika.BasicProperties(headers={"CC": ["elsewhere"]}, delivery_mode=2)
        opened.basic_publish("", operator.dead, b"odd", odd)

    def letters(shown: Result) -> list[str]:
        # A broker may give the headers in another order.
        return sorted(json.dumps(json.loads(line), sort_keys=True) for line in
                      shown.stdout.splitlines())  # fmt: skip

    first = letters(operator.types("show", "--json", "--limit", "0"))
    for _ in range(3):
        shown = operator.types("show", "--json", "--limit", "0")
        assert letters(shown) == first
    if "a fresh copy" in shown.stderr:
        assert "no copy can be made of them" in shown.stderr


def test_where_no_copy_can_be_made_looking_ends_with_the_reason(
    operator: Operator, node: RabbitNode
) -> None:
    if node.version.startswith("4.3"):
        pytest.skip("from 4.3 on what is handed back does not count, and no copy is needed")
    url, names = operator.url, operator.names
    operator.configure(url, 'type = "quorum"')
    bury(url, names, map(record, numbered(5)), kind="quorum")
    assert operator.types("list").exit_code == 0
    full = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    node.ctl("set_policy", "--apply-to", "queues", "full", f"^{operator.dead}$", full)

    def refused() -> Result | None:
        done = operator.types("list")
        return done if done.exit_code == 77 else None

    done = wait_until(refused, "the broker takes no copy")
    assert done is not None
    assert "is not looked at any further" in done.stderr
    assert "is it full?" in done.stderr
    wait_until(lambda: waiting(url, operator.dead) == 5, "all are back")
    assert operator.types("replay").stdout.startswith("5 replayed")


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({"auto_delete": True}, "auto-delete"),
        ({"arguments": {"x-queue-type": "stream"}}, "it is a stream"),
    ],
    ids=["auto-delete", "stream"],
)  # fmt: skip
@pytest.mark.parametrize("command", [("list",), ("show",), ("replay",), ("purge", "--yes")])
def test_a_queue_that_a_look_would_harm_is_left_alone(
    operator: Operator, properties: dict[str, Any], why: str, command: tuple[str, ...]
) -> None:
    with channel(operator.url) as admin:
        admin.queue_declare(operator.dead, durable=True, **properties)
        admin.basic_publish("", operator.dead, b"kept")
    done = operator.types(*command)
    assert done.exit_code == 77
    assert f"is not looked at: {why}" in done.stderr or f"({why})" in done.stderr
    if why == "auto-delete":
        assert waiting(operator.url, operator.dead) == 1


def test_a_replay_goes_whole_to_the_daemons_queue_for_its_sink_alone(operator: Operator) -> None:
    hostile = hostile_records()
    large = {f"h{number}": "v" * 1000 for number in range(125)}
    records = [*hostile.values(), record("packed", headers=large, message_id="m", expiration="9")]
    bury(operator.url, operator.names, records)
    fill(operator, 2, sink="mail")
    done = operator.types("replay", "--sink", "archive")
    count = len(records)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{count} replayed: archive {count}",
        f"2 left in queue {operator.dead}; passed over: 2 of other sinks",
    ]
    assert "nothing consumes queue" in done.stderr
    parameters = pika.URLParameters(operator.url)
    opened = pika.BlockingConnection(parameters, _impl_class=connection.Connection)
    try:
        reader = opened.channel()
        for one in records:
            method, raw, body = reader.basic_get(operator.names.queue, auto_ack=True)
            letter = header_overflow.unpacked(Letter(body, connection.to_properties(raw)))
            arrived = record(
                letter.body, exchange=method.exchange,
                headers=letter.properties.headers,
            )  # fmt: skip
            found = replayed(arrived)
            assert found is not None
            assert found[0] == "archive"
            assert (found[1].body, found[1].routing_key) == (one.body, one.routing_key)
            assert set(found[1].headers) == set(one.headers)
            original = letter.original()
            assert original.message_id == one.message_id
            assert (original.expiration, original.timestamp) == (
                one.properties.expiration, one.properties.timestamp,
            )  # fmt: skip
            assert connection.to_properties(raw).delivery_mode == 2
    finally:
        opened.close()
    assert bodies(operator.url, operator.dead) == numbered(2)


def test_a_replay_leaves_what_has_no_place_to_go(operator: Operator) -> None:
    url, names = operator.url, operator.names
    fill(operator, 5)
    bury(url, names, [record("gone")], sink="printer")
    bury(url, names, [record("elsewhere")], queue="another")
    with channel(url) as opened:
        opened.basic_publish("", operator.dead, b"foreign")
    done = operator.types("replay", "--limit", "2")
    assert "2 replayed: archive 2\n6 left" in done.stdout
    done = operator.types("replay")
    assert done.stdout.startswith("3 replayed: archive 3\n3 left")
    assert "1 of sink 'printer', which is not in the config" in done.stdout
    assert "1 of queue 'another', which --any-queue would replay" in done.stdout
    assert "1 that logfan did not put there" in done.stdout
    done = operator.types("replay", "--any-queue")
    assert done.stdout.startswith("1 replayed: archive 1\n2 left")
    assert bodies(url, operator.dead) == [b"gone", b"foreign"]
    assert bodies(url, names.queue) == [*numbered(5), b"elsewhere"]


def test_a_replay_that_cannot_be_is_explained_and_moves_nothing(operator: Operator) -> None:
    fill(operator, 3)
    done = operator.types("replay", "--sink", "archiv")
    assert done.exit_code == 2
    assert 'did you mean "archive"?' in done.stderr
    done = operator.types("replay", "--sink", "zzz")
    assert "sinks: archive, mail" in done.stderr
    delete_queue(operator.url, operator.names.queue)
    done = operator.types("replay")
    assert done.exit_code == 69
    assert f"queue '{operator.names.queue}' does not exist; start the daemon" in done.stderr
    operator.configure(operator.url, 'type = "exclusive"')
    done = operator.types("replay")
    assert done.exit_code == 2
    assert "exclusive" in done.stderr
    operator.configure("amqp://127.0.0.1:1")
    done = operator.types("replay")
    assert done.exit_code == 69
    assert "connection refused" in done.stderr
    assert bodies(operator.url, operator.dead) == numbered(3)


def test_a_full_queue_of_the_daemon_costs_no_letter(operator: Operator) -> None:
    arguments = {"x-max-length": 100, "x-overflow": "reject-publish"}
    with channel(operator.url) as opened:
        opened.queue_declare(operator.names.queue, durable=True, arguments=arguments)
        opened.queue_declare(operator.dead, durable=True)
    bury(operator.url, operator.names, map(record, numbered(300)), kind=None)
    done = operator.types("replay")
    assert done.exit_code == 69
    assert "is it full?" in done.stderr

    def total() -> int:
        return waiting(operator.url, operator.names.queue) + waiting(operator.url, operator.dead)

    wait_until(lambda: total() == 300, "what was read is handed back")


def test_what_is_refused_again_meanwhile_is_not_replayed_again(operator: Operator) -> None:
    fill(operator, 400)
    with channel(operator.url) as refuser:

        def refuse(_channel: object, method: Any, properties: Any, body: bytes) -> None:
            refuser.basic_publish("", operator.dead, body, properties)
            refuser.basic_ack(method.delivery_tag)

        refuser.basic_consume(operator.names.queue, refuse)
        process = operator.starts("replay")
        while process.poll() is None:
            refuser.connection.process_data_events(0.05)
        output = process.communicate()[0].decode()
        assert output == "400 replayed: archive 400\n"
        refuser.connection.process_data_events(1)
    wait_until(lambda: waiting(operator.url, operator.dead) == 400, "all are refused again")


LETTERS = 2000
ROUND = 200


def outcome(operator: Operator) -> tuple[list[bytes], list[bytes]]:
    """What is among the dead letters and what was replayed, once the broker has all of it back."""
    seen = [-1, -1]

    def all_found() -> bool:
        before = list(seen)
        seen[:] = [waiting(operator.url, q) for q in (operator.dead, operator.names.queue)]
        return sum(seen) >= LETTERS and before == seen

    wait_until(all_found, f"all letters are somewhere: {seen}")
    return bodies(operator.url, operator.dead), bodies(operator.url, operator.names.queue)


def interrupted_in_the_middle(operator: Operator, number: signal.Signals) -> tuple[int, str]:
    """Exit code and output of a replay that a signal ended."""
    code, output = interrupted(operator, number)
    while code == 0:  # on a busy machine it may be over before the signal comes
        bodies(operator.url, operator.names.queue)
        code, output = interrupted(operator, number)
    return code, output


def interrupted(operator: Operator, number: signal.Signals) -> tuple[int, str]:
    fill(operator, LETTERS)
    with channel(operator.url) as watcher:
        process = operator.starts("replay")
        try:
            while process.poll() is None and not count(watcher, operator.names.queue):
                pass
            process.send_signal(number)
            words = process.communicate(timeout=PATIENCE_SECONDS)[1].decode()
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in words
    return process.returncode, words


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_replay_that_a_signal_ends_loses_no_letter(
    operator: Operator, number: signal.Signals
) -> None:
    code, words = interrupted_in_the_middle(operator, number)
    left, again = outcome(operator)
    assert set(left) | set(again) == set(numbered(LETTERS))
    assert len(left) == len(set(left))
    assert len(again) == len(set(again))
    both = len(set(left) & set(again))
    if number is signal.SIGKILL:
        assert code == -number
        assert both <= ROUND
    else:
        assert code == 128 + number
        found = re.search(r"^([\d,]+) replayed", words, re.MULTILINE)
        assert found, words
        assert int(found[1].replace(",", "")) == len(again)
        assert both == 0


@pytest.mark.parametrize("sent", [3_000, 60_000, 200_000])
def test_a_connection_lost_in_the_middle_loses_no_letter(operator: Operator, sent: int) -> None:
    fill(operator, LETTERS)
    port = int(re.search(r":(\d+)/", operator.url)[1])  # type: ignore[index]
    with Relay(port, cut_after=sent) as relay:
        operator.configure(operator.url.replace(f":{port}/", f":{relay.port}/"))
        done = operator.types("replay")
    assert done.exit_code == 69
    left, again = outcome(operator)
    assert set(left) | set(again) == set(numbered(LETTERS))
    both = len(set(left) & set(again))
    found = re.search(r"; (\d+) more may have been replayed and are still here", done.stderr)
    assert both <= (int(found[1]) if found else 0), done.stderr
    assert "lost" in done.stderr


class Terminal:
    """A command at a terminal."""

    def __init__(self, operator: Operator, *arguments: str) -> None:
        self._outside, inside = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [*LOGFAN, "dlq", *arguments], cwd=operator.folder, stdin=inside, stdout=inside,
            stderr=inside, start_new_session=True, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(inside)
        os.set_blocking(self._outside, False)

    def shows(self, text: str) -> None:
        def shown() -> bool:
            with suppress(OSError):
                self.seen += os.read(self._outside, 65536).decode()
            return text in " ".join(self.seen.split()) or text in self.seen  # lines are folded

        wait_until(shown, f"{text} in {self.seen}")

    def type(self, text: str) -> None:
        os.write(self._outside, text.encode())

    def end(self) -> int:
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
            os.close(self._outside)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("replay",), "7 replayed: archive 7\n"),
        (("purge", "--yes"), "7 dead letters removed; 0 left in queue"),
        (("list", "--limit", "0"), "7 dead letters, 35 B"),
    ],
    ids=["replay", "purge", "list"],
)
def test_what_others_take_meanwhile_is_not_said_to_be_left(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], says: str
) -> None:
    fill(operator, 10)
    take = DeadQueue.take

    def late(dead: DeadQueue, most: int) -> Generator[Found, None, None]:
        """Before its first letter three are taken by someone else."""
        if waiting(operator.url, operator.dead) == 10:
            with channel(operator.url) as other:
                for _ in range(3):
                    other.basic_get(operator.dead, auto_ack=True)
        return take(dead, most)

    monkeypatch.setattr(DeadQueue, "take", late)
    done = operator.types(*command)
    assert done.exit_code == 0
    assert says in done.stdout
    assert re.search(r"[1-9]\d* left", done.stdout) is None
    assert "3 dead letters of queue" in done.stderr
    assert "went meanwhile" in done.stderr
    assert "--limit 0" not in done.stderr


def test_what_passes_by_itself_is_no_lack_of_permission(operator: Operator) -> None:
    """Another consumer has the queue for itself, or another connection the queue."""
    fill(operator, 2)
    with channel(operator.url) as other:
        other.basic_qos(prefetch_count=1)
        other.basic_consume(operator.dead, lambda *_: None, exclusive=True)
        done = operator.types("list")
    assert done.exit_code == os.EX_UNAVAILABLE
    assert "in exclusive use" in done.stderr
    delete_queue(operator.url, operator.dead)
    with channel(operator.url) as other:
        other.queue_declare(operator.dead, exclusive=True)
        assert operator.types("list").exit_code == os.EX_UNAVAILABLE


@pytest.mark.parametrize("command", ["replay", "list"])
def test_a_signal_ends_it_also_while_the_broker_blocks_publishers(
    operator: Operator, node: RabbitNode, command: str
) -> None:
    """A broker that does so does not even read. The copies of letters are published, too."""
    if command == "list" and node.version.startswith("4.3."):
        pytest.skip("RabbitMQ 4.3 does not count such looks, so that there are no copies")
    operator.configure(operator.url, 'type = "quorum"')
    bury(operator.url, operator.names, map(record, numbered(10)), kind="quorum")
    assert operator.types("list").exit_code == 0  # the next look makes copies
    with memory_alarm(node):
        process = operator.starts(command)
        assert process.stderr is not None
        assert b"blocks all publishers" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGINT
        assert b"interrupted" in process.communicate()[1]
    wait_until(lambda: count_of(operator) >= 10, "all are there")


def count_of(operator: Operator) -> int:
    """Of the letters, and of those that were replayed."""
    return waiting(operator.url, operator.dead) + waiting(operator.url, operator.names.queue)


def test_a_purge_asks_and_removes_what_it_asked_for(operator: Operator) -> None:
    fill(operator, 3)
    fill(operator, 2, start=3, sink="mail")
    terminal = Terminal(operator, "purge", "--sink", "archive")
    terminal.shows("too old")
    terminal.shows(f"remove 3 dead letters of queue {operator.dead} for good? type yes: ")
    fill(operator, 1, start=5)
    terminal.type("yes\n")
    terminal.shows("3 dead letters of sink archive removed; 2 left")
    assert terminal.end() == 0
    assert bodies(operator.url, operator.dead) == numbered(3, 3)


@pytest.mark.parametrize("answer", ["no\n", "\x04", signal.SIGINT])
def test_a_purge_without_a_yes_removes_nothing(
    operator: Operator, answer: str | signal.Signals
) -> None:
    fill(operator, 3)
    terminal = Terminal(operator, "purge")
    terminal.shows("type yes: ")
    if isinstance(answer, str):
        terminal.type(answer)
        terminal.shows("nothing was removed")
        assert terminal.end() == 0
    else:
        terminal.process.send_signal(answer)
        terminal.shows("interrupted")
        assert terminal.end() == 130
    assert bodies(operator.url, operator.dead) == numbered(3)


def test_a_purge_without_a_terminal_needs_a_yes(operator: Operator) -> None:
    fill(operator, 3)
    done = operator.types("purge")
    assert done.exit_code == 2
    assert "--yes removes without asking" in done.stderr
    assert waiting(operator.url, operator.dead) == 3
    assert "2 dead letters removed; 1 left" in operator.types("purge", "--yes", "-n", "2").stdout
    assert bodies(operator.url, operator.dead) == numbered(1, 2)


def test_long_work_shows_how_far_it_is_at_a_terminal_alone(operator: Operator) -> None:
    fill(operator, 1000)
    terminal = Terminal(operator, "replay")
    terminal.shows("replaying")
    terminal.shows("1,000 replayed: archive 1,000")
    assert terminal.end() == 0
    fill(operator, 1000)
    done = operator.types("replay")
    assert (done.stdout, "replaying" in done.stderr) == ("1,000 replayed: archive 1,000\n", False)


SMALL, LARGE = 100_000, 200_000
"""Bytes: what the broker takes for now, and what it took before."""


def mixed() -> list[bytes]:
    """Bodies of which the broker takes all but two."""
    return [*numbered(4), b"L" * LARGE, *numbered(3, 5), b"M" * LARGE, *numbered(8)]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_letter_that_the_broker_takes_no_longer_holds_up_no_other_one(
    operator: Operator, node: RabbitNode, kind: str
) -> None:
    url, names = operator.url, operator.names
    operator.configure(url, f'type = "{kind}"')
    bury(url, names, map(record, mixed()), kind=kind)
    wait_until(lambda: waiting(url, operator.dead) == 17, "all are there")
    with granting(node, max_message_size=SMALL):
        done = operator.types("replay")
        again = operator.types("replay")
    assert (done.exit_code, again.exit_code) == (0, 0), done.stderr + again.stderr
    passed_over = "2 too large for the broker (its max_message_size)"
    left = f"2 left in queue {operator.dead}; passed over: {passed_over}"
    assert done.stdout.splitlines() == ["15 replayed: archive 15", left]
    assert again.stdout.splitlines() == ["0 replayed", left]
    wait_until(lambda: waiting(url, names.queue) == 15, "they are there")
    wait_until(lambda: waiting(url, operator.dead) == 2, "they are back")
    assert bodies(url, names.queue) == [one for one in mixed() if len(one) < SMALL]
    assert operator.types("replay").stdout.startswith("2 replayed")


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_counts_only_what_was_replayed(
    operator: Operator, node: RabbitNode, limit: int
) -> None:
    url, names = operator.url, operator.names
    bury(url, names, map(record, [b"L" * LARGE, *numbered(5)]))
    with granting(node, max_message_size=SMALL):
        done = operator.types("replay", "--limit", str(limit))
    assert done.stdout.startswith(f"{limit} replayed")
    assert bodies(url, names.queue) == numbered(limit)


def test_a_letter_with_the_name_of_another_user_holds_up_no_other_one(
    operator: Operator, node: RabbitNode
) -> None:
    url, names = operator.url, operator.names
    node.ctl("add_user", f"else-{names.queue}", "secret")
    node.ctl("set_permissions", f"else-{names.queue}", ".*", ".*", ".*")
    fill(operator, 3)
    theirs = re.sub("//[^@/]*@", f"//else-{names.queue}:secret@", url)
    theirs = theirs if "@" in theirs else theirs.replace("//", f"//else-{names.queue}:secret@")
    with channel(theirs) as opened:
        headers = {"x-logfan-sink": "archive", "x-logfan-reason": "odd"}
        headers |= {"x-logfan-queue": names.queue}
        odd = pika.BasicProperties(headers=headers, user_id=f"else-{names.queue}")
        opened.basic_publish("", operator.dead, b"odd", odd)
        opened.queue_declare(operator.dead, passive=True)
    fill(operator, 3, start=3)
    done = operator.types("replay")
    assert done.stdout.startswith("6 replayed"), done.stderr
    assert "passed over: 1 refused: PRECONDITION_FAILED - user_id" in done.stdout
    assert bodies(url, names.queue) == numbered(6)
    assert bodies(url, operator.dead) == [b"odd"]


def test_a_refusal_that_nothing_announces_is_found_one_by_one(operator: Operator) -> None:
    url, names = operator.url, operator.names
    fill(operator, 0)
    settings = {"rabbitmq": {"urls": [url]}, "exchange": {"name": names.exchange}}
    settings |= {"queue": {"name": names.queue}, "sinks": {"archive": {"kind": "stdout"}}}
    refused: list[int] = []
    with BlockingConnection(Settings.model_validate(settings)) as link:
        window = IsolatingWindow(link.channel, lambda token, _: refused.append(token))
        for number, body in enumerate(numbered(8)):
            user = "no-one" if number in (3, 6) else None
            window.publish("", names.queue, body, pika.BasicProperties(user_id=user), number)
        window.drain()
        assert refused == [3, 6]
        assert sorted(window.taken()) == [0, 1, 2, 4, 5, 7]
        assert (window.rejected, window.returned) == (0, 0)
    good = [one for number, one in enumerate(numbered(8)) if number not in (3, 6)]
    assert sorted(set(bodies(url, names.queue))) == good


def limited_queues(operator: Operator) -> None:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 100}
    with channel(operator.url) as opened:
        for queue in (operator.names.queue, operator.dead):
            opened.queue_declare(queue, durable=True, arguments=arguments)


def test_a_letter_too_large_for_a_copy_keeps_no_one_from_looking(
    operator: Operator, node: RabbitNode
) -> None:
    url, names = operator.url, operator.names
    operator.configure(url, 'type = "quorum"')
    limited_queues(operator)
    bury(url, names, map(record, mixed()), kind=None)
    bury(url, names, map(record, numbered(3, 20)), sink="mail", kind=None)
    wait_until(lambda: waiting(url, operator.dead) == 20, "all are there")
    warned = ""
    with granting(node, max_message_size=SMALL):
        for _ in range(3):
            for command in (("list",), ("show", "--limit", "0")):
                done = operator.types(*command)
                assert done.exit_code == 0, done.stderr
                warned += done.stderr
                wait_until(lambda: waiting(url, operator.dead) == 20, "all are back")
        done = operator.types("purge", "--sink", "mail", "--yes")
        assert "3 dead letters of sink mail removed; 17 left" in done.stdout
        wait_until(lambda: waiting(url, operator.dead) == 17, "all others are back")
        if "a fresh copy" in warned:
            assert "2 dead letters are larger than the broker takes now" in warned
            assert "2 dead letters are larger than the broker takes now" in done.stderr
    assert sorted(bodies(url, operator.dead)) == sorted(mixed())


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_purge_that_asks_for_too_long_ends_with_the_reason(
    operator: Operator, node: RabbitNode, kind: str
) -> None:
    newer = node.version.startswith("4.3")
    if newer and kind == "classic":
        pytest.skip("from 4.3 on the timeout is one of quorum queues alone")
    operator.configure(operator.url, f'type = "{kind}"')
    bury(operator.url, operator.names, map(record, numbered(3)), kind=kind)
    wait_until(lambda: waiting(operator.url, operator.dead) == 3, "all are there")
    with impatient(node):
        terminal = Terminal(operator, "purge")
        terminal.shows("type yes: ")
        timeout = "consumer_timeout" if newer else "consumer_timeout (1 s)"
        terminal.shows(f"longer than its {timeout}; call it again; nothing was removed")
        assert terminal.end() == 69
    assert bodies(operator.url, operator.dead) == numbered(3)


def test_letters_shown_of_a_queue_that_counts_looks_are_said_to_move(operator: Operator) -> None:
    url, names = operator.url, operator.names
    operator.configure(url, 'type = "quorum"')
    limited_queues(operator)
    bury(url, names, map(record, numbered(10)), kind=None)
    wait_until(lambda: waiting(url, operator.dead) == 10, "all are there")
    for _ in range(2):
        shown = operator.types("show", "--limit", "5")
        wait_until(lambda: waiting(url, operator.dead) == 10, "all are back")
    moved = "5 dead letters got a fresh copy, at the end of the queue now" in shown.stderr
    order = [*numbered(5, 5), *numbered(5)] if moved else numbered(10)
    assert bodies(url, operator.dead) == order
