"""`decode`, `where`, `sample`, `redact` of one sink, on a real broker; its neighbour gets all."""

import gzip
import json
import signal
from pathlib import Path

import pika
from click.testing import CliRunner

from logfan.cli import main
from logfan.stage.sample import is_sampled
from logfan.testing import record
from logfan.testing.node import RabbitNode
from support.broker import Names, channel, publish
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.letters import bodies, wait_for_messages
from support.waiting import wait_until

CHOSEN = (
    'where = [{ level = ["error", "critical"] }, { n = { above = 390 }, always = true }]\n'
    'sample = 0.5\nredact = { paths = ["user.email"], patterns = ["card"] }\n'
)
PICKY = """
import logfan, pathlib


class Picky(logfan.Sink):
    '''Refuses some until it is mended; writes bodies.'''

    def write(self, records):
        mended = pathlib.Path("mended").exists()
        refused = {}
        with open("picky.log", "ab") as log:
            for index, record in enumerate(records):
                if b'"odd"' in record.body and not mended:
                    refused[index] = "not wanted"
                else:
                    log.write(record.body + b"\\n")
        if refused:
            raise logfan.RecordsRejected(refused)


@logfan.hookimpl
def register_sinks(register):
    register("picky", Picky)
"""


def sinks(stage: str) -> str:
    return (
        f'{RAW}[sinks.picky]\nkind = "picky"\n{stage}'
        'retry = { initial = "20ms", max = "200ms" }\n'
    )


def daemon_at(folder: Path, node: RabbitNode, names: Names, stage: str) -> DaemonProcess:
    add_drop_in(folder, "picky", PICKY)
    return DaemonProcess(folder, node.url, names, sinks(stage))


def body(n: int) -> bytes:
    """Every other is an error; every tenth of these is one that the sink refuses."""
    level = "error" if n % 2 else "info"
    kind = "odd" if n % 20 == 1 else "even"
    email, text = f"user{n}@example.org", "paid with 4111 1111 1111 1111"
    return json.dumps(
        {"n": n, "level": level, "kind": kind, "user": {"email": email}, "text": text}
    ).encode()


def redacted(plain: bytes) -> bytes:
    parsed = json.loads(plain)
    parsed["user"]["email"] = "[redacted]"
    parsed["text"] = "paid with [redacted]"
    return json.dumps(parsed).encode()


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def outcomes(daemon: DaemonProcess, sink: str) -> dict[str, float]:
    return {
        outcome: daemon.metric(f'logfan_sink_records_total{{outcome="{outcome}",sink="{sink}"}}')
        for outcome in ("written", "rejected", "dropped", "filtered")
    }


def every_message_is_accounted_for(daemon: DaemonProcess, received: int) -> None:
    names = ("acked", "requeued", "abandoned")
    done = sum(daemon.metric(f"logfan_{name}_messages_total") for name in names)
    assert daemon.metric("logfan_received_messages_total") == received
    assert done + daemon.metric("logfan_in_flight_messages") == received


def test_a_sink_gets_what_it_chose_redacted_and_its_dead_letters_are_whole(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    published = [*map(body, range(400)), b"no json", b"none either"]
    errors = [one for one in published if b'"error"' in one and is_sampled(record(one), 0.5)]
    undecided = [one for one in published[-2:] if is_sampled(record(one), 0.5)]
    always = [*map(body, range(391, 400))]
    chosen = [one for one in published if one in errors or one in always]
    odd = [one for one in chosen if b'"odd"' in one]
    taken = [redacted(one) for one in chosen if one not in odd] + undecided
    with daemon_at(tmp_path, node, names, CHOSEN) as daemon:
        publish(node.url, names.exchange, published)
        wait_until(lambda: daemon.acked() == 402, f"all is acknowledged:\n{daemon.log()}")
        assert lines(tmp_path / "raw.log") == published
        assert sorted(lines(tmp_path / "picky.log")) == sorted(taken)
        left_out = 402 - len(taken) - len(odd)
        counts = outcomes(daemon, "picky")
        assert counts == {
            "written": len(taken), "rejected": len(odd), "dropped": 0, "filtered": left_out,
        }  # fmt: skip
        assert sum(counts.values()) == 402
        assert outcomes(daemon, "raw")["written"] == sum(outcomes(daemon, "raw").values()) == 402
        assert daemon.metric('logfan_sink_undecided_records_total{sink="picky"}') == 2
        every_message_is_accounted_for(daemon, 402)

        wait_for_messages(node.url, f"{names.queue}.dead", len(odd))
        (tmp_path / "mended").touch()
        done = CliRunner().invoke(main, ["dlq", "replay", "--config", str(daemon.config)])
        assert done.exit_code == 0, done.output
        again = 402 + len(odd)
        wait_until(lambda: daemon.acked() == again, f"they are acknowledged:\n{daemon.log()}")
        assert sorted(lines(tmp_path / "picky.log")) == sorted([*taken, *map(redacted, odd)])
        assert lines(tmp_path / "raw.log") == published
        assert outcomes(daemon, "picky") == {**counts, "written": len(taken) + len(odd)}
        every_message_is_accounted_for(daemon, again)
        assert daemon.stop() == 0


def test_a_dead_letter_holds_what_was_published(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    odd = [body(n) for n in range(1, 100, 20)]
    with daemon_at(tmp_path, node, names, 'redact = { paths = ["user"] }\n') as daemon:
        publish(node.url, names.exchange, odd)
        wait_until(lambda: daemon.acked() == 5, f"all is acknowledged:\n{daemon.log()}")
        assert bodies(node.url, f"{names.queue}.dead") == odd
        assert daemon.stop() == 0


def test_a_reload_changes_what_a_sink_gets(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    def picky() -> list[int]:
        return [json.loads(line)["n"] for line in lines(tmp_path / "picky.log")]

    def reloads(stage: str, until: str) -> None:
        before = daemon.log().count(until)
        daemon.configure(node.url, sinks(stage))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.log().count(until) > before, f"{until}:\n{daemon.log()}")
        daemon.wait_ready()

    def publishes(count: int) -> None:
        done = daemon.acked()
        publish(node.url, names.exchange, map(body, range(2, 2 + count)))
        wait_until(lambda: daemon.acked() == done + count, f"acknowledged:\n{daemon.log()}")

    with daemon_at(tmp_path, node, names, 'where = { level = "error" }\n') as daemon:
        publishes(4)
        assert picky() == [3, 5]
        reloads('where = { level = "errr" }\n', "going on with the old one")
        publishes(4)
        assert picky() == [3, 5] * 2
        reloads('where = { level = "info" }\n', "the new config is taken over")
        assert "sinks.picky.where" in daemon.log()
        publishes(4)
        assert picky() == [*[3, 5] * 2, 2, 4]
        assert outcomes(daemon, "picky")["filtered"] == 6
        assert daemon.stop() == 0


def test_a_sink_gets_what_was_packed_and_its_dead_letters_hold_what_was_published(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """Of any kind of sink; and what becomes large comes in pieces."""
    stage = CHOSEN.replace("0.5", "1.0") + 'decode = true\nbatch = { max_bytes = "64KiB" }\n'
    plain = [body(n).replace(b"}", b', "pad": "%b"}' % (b"x" * 5000), 1) for n in range(100)]
    published = [gzip.compress(one) for one in plain]
    torn = b"\x1f\x8b torn"
    chosen = [one for one in plain if b'"error"' in one]
    odd = [one for one in chosen if b'"odd"' in one]
    taken = sorted([*(redacted(one) for one in chosen if one not in odd), torn])
    with daemon_at(tmp_path, node, names, stage) as daemon:
        with channel(node.url, confirms=True) as publisher:
            for one in [*published, torn]:
                properties = pika.BasicProperties(content_encoding="gzip")
                publisher.basic_publish(names.exchange, "", one, properties)
        wait_until(lambda: daemon.acked() == 101, f"all is acknowledged:\n{daemon.log()}")
        assert sorted((tmp_path / "picky.log").read_bytes().split(b"\n")[:-1]) == taken
        counts = outcomes(daemon, "picky")
        assert counts == {
            "written": len(taken), "rejected": len(odd), "dropped": 0, "filtered": 50,
        }  # fmt: skip
        assert daemon.metric('logfan_sink_undecided_records_total{sink="picky"}') == 1
        assert "sink picky: the body cannot be decoded: gzip: the stream is" in daemon.log()
        assert sorted(map(gzip.decompress, bodies(node.url, f"{names.queue}.dead"))) == sorted(odd)
        every_message_is_accounted_for(daemon, 101)
        assert daemon.stop() == 0
