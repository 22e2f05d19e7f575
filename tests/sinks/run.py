"""`make sinks`: records from a real RabbitMQ through the real daemon into six kinds of sink at
once. In turns each of their servers is crashed and started again, so is the daemon, and each sink
gets a trouble of its own: a full disk, 429 with a pace, a server that hangs or is read-only. One
record in some hundred is refused by one of the servers. Then all is read back.

`python -m sinks.run [RECORDS=300000] [ROUNDS=2] [REPORT=sinks-report.md]`. Exits 1 where a record
is lost, or came twice where its identity forbids that.
"""

import resource
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import orjson
import pika
import psycopg

from chaos.run import options_of
from logfan.testing.node import QueueCounts, RabbitNode, free_port
from sinks.loki import Loki
from support.broker import Names, channel
from support.daemon import DaemonProcess
from support.kafka import Kafka
from support.opensearch import OpenSearch
from support.postgres import Postgres
from support.server_process import ServerProcess
from support.versitygw import VersityGateway
from support.waiting import wait_until

_PREFETCH = 5000
_PAGE = 10_000
_DONE_SECONDS = 1800.0
_STALLED_SECONDS = 2.0
_FIRST_SHARE = 0.02
_PACE_SECONDS = 3
_FILE_BYTES = 64 << 10
_REFUSED_EVERY = 499
"""One record in so many holds text where OpenSearch expects a number."""

Ids = Iterable[str]


@dataclass(frozen=True, slots=True)
class Trouble:
    """How a sink's other side comes to take nothing, and takes records again."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]


@dataclass(slots=True)
class Outlet:
    """One sink, and what is behind it."""

    name: str
    behind: str
    config: str
    """The keys of its table, as TOML."""
    crash: Trouble
    other: Trouble
    read_back: Callable[[], Ids]
    repeats_after_crash: int = 0
    """The most that a crash of the daemon leaves. 0: the identity of a record forbids a repeat."""
    repeats_after_outage: int = 0
    """The same of its server's."""
    refuses: bool = False
    """Whether it refuses each record of `_REFUSED_EVERY`."""
    outages: int = 0


def _opensearch(server: OpenSearch) -> Outlet:
    def block(value: bool | None) -> None:
        """As OpenSearch does it where its disk is full; it answers 429 then."""
        server.ask("PUT", "/logs/_settings", {"index.blocks.read_only_allow_delete": value})

    def read_back() -> Iterator[str]:
        server.ask("POST", "/logs/_refresh")
        query = {"size": _PAGE, "_source": False, "sort": ["n", "_doc"]}
        after = None
        while True:
            page = query if after is None else {**query, "search_after": after}
            hits = server.ask("POST", "/logs/_search", page)["hits"]["hits"]
            yield from (hit["_id"] for hit in hits)
            if len(hits) < _PAGE:
                return
            after = hits[-1]["sort"]

    config = f'kind = "elasticsearch"\nurl = "{server.url}"\nindex = "logs"'
    return Outlet(
        "elasticsearch", "OpenSearch 2.19", config, _crash(server),
        Trouble("full disk", lambda: block(True), lambda: block(None)), read_back, refuses=True,
    )  # fmt: skip


def _loki(server: Loki) -> Outlet:
    config = f'kind = "loki"\nurl = "{server.url}"\nlabels = {{ app = "shop" }}\nformat = "json"'
    return Outlet(
        "loki", "scripted server", config, _crash(server),
        Trouble(
            f"429, {_PACE_SECONDS} s", lambda: server.push_back(_PACE_SECONDS), server.take_again
        ),
        lambda: (_id(line) for line in server.lines()), _PREFETCH, _PREFETCH,
    )  # fmt: skip


def _kafka(server: Kafka) -> Outlet:
    config = f'kind = "kafka"\nbrokers = ["{server.address}"]\ntopic = "logs"\ntimeout = "60s"'
    return Outlet(
        "kafka", "Kafka 4.1", config, _crash(server),
        Trouble("hangs", server.freeze, server.thaw),
        lambda: (headers["id"].decode() for _, _, headers in server.messages("logs")),
        _PREFETCH, _PREFETCH,
    )  # fmt: skip


def _postgres(server: Postgres) -> Outlet:
    def read_only(value: str) -> None:
        """As a standby is, or a primary that was failed over."""
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            connection.execute("SELECT pg_reload_conf()")

    def read_back() -> Iterator[str]:
        with psycopg.connect(server.dsn) as connection:
            yield from (row[0] for row in connection.execute("SELECT id FROM logs"))

    config = f'kind = "postgres"\ndsn = "{server.dsn}"'
    return Outlet(
        "postgres", "PostgreSQL 15", config, _crash(server),
        Trouble("read-only", lambda: read_only("on"), lambda: read_only("off")), read_back,
    )  # fmt: skip


def _s3(server: VersityGateway, folder: Path) -> Outlet:
    def read_back() -> Iterator[str]:
        for content in server.objects("logs").values():
            yield from (_id(line) for line in content.splitlines())

    (server.data / "logs").mkdir()
    secret = folder / "secret"
    secret.write_text("s3cret")
    config = (
        f'kind = "s3"\nbucket = "logs"\nendpoint = "{server.endpoint}"\nregion = "us-east-1"\n'
        f'access_key_id = "logfan"\nsecret_access_key_file = "{secret}"'
    )
    return Outlet(
        "s3", "Versity gateway 1.8", config, _crash(server),
        Trouble("hangs", server.freeze, server.thaw), read_back, _PREFETCH,
    )  # fmt: skip


def _sqlite(path: Path, limit_files: Callable[[int], None]) -> Outlet:
    """It has no server: another program locks the file, or it may not grow."""
    locks: list[sqlite3.Connection] = []

    def lock() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        connection.execute("BEGIN EXCLUSIVE")
        locks.append(connection)

    def read_back() -> Iterator[str]:
        with closing(sqlite3.connect(path)) as database:
            yield from (row[0] for row in database.execute("SELECT id FROM logs"))

    locked = Trouble("locked", lock, lambda: locks.pop().close())
    other = Trouble(
        "ulimit -f", lambda: limit_files(_FILE_BYTES), lambda: limit_files(resource.RLIM_INFINITY)
    )
    config = f'kind = "sqlite"\npath = "{path}"'
    return Outlet("sqlite", "a file", config, locked, other, read_back)


def _crash(server: ServerProcess | Postgres) -> Trouble:
    return Trouble("crash", server.kill, server.start)


def _is_refused(n: int) -> bool:
    return n % _REFUSED_EVERY == _REFUSED_EVERY - 1


def _id(line: str | bytes) -> str:
    return str(orjson.loads(line)["message_id"])


def _publish(url: str, exchange: str, count: int) -> None:
    with channel(url) as open_channel:
        for n in range(count):
            number = f"number {n}" if _is_refused(n) else n
            body = orjson.dumps({"n": number, "level": "info", "message": f"order {n} was paid"})
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"m-{n}")
            open_channel.basic_publish(exchange, "shop", body, properties)
        # An answer to a later request on the channel means that all before it is in the queue.
        open_channel.exchange_declare(exchange, passive=True)


class _Progress:
    """How many messages are acknowledged, over the daemon's crashes."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._before = 0
        self.crashes = 0

    def acked(self) -> int:
        """At least so many."""
        return self._before + self._daemon.acked()

    def wait_acked(self, due: int) -> None:
        """Until so many are."""
        wait_until(lambda: self.acked() >= due, f"{due} are acknowledged", _DONE_SECONDS)

    def crash(self) -> None:
        """kill -9 in the middle, and start it again."""
        self._before = self.acked()
        self._daemon.kill()
        self.crashes += 1
        self._daemon.start()

    def wait_stalled(self) -> None:
        """Until nothing is acknowledged any more: the window waits for the one that is away."""
        seen, since = self.acked(), time.monotonic()

        def stalled() -> bool:
            nonlocal seen, since
            now = self.acked()
            if now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since > _STALLED_SECONDS

        wait_until(stalled, "the window waits for the sink that is away", 300)


def _turns(outlets: Sequence[Outlet], rounds: int) -> Iterator[tuple[Outlet, Trouble] | None]:
    """Each server's crash and one of the daemon (None) in each round; once the other troubles."""
    for _ in range(rounds):
        yield from ((outlet, outlet.crash) for outlet in outlets)
        yield None
    yield from ((outlet, outlet.other) for outlet in reversed(outlets))


def _disturb(progress: _Progress, outlets: Sequence[Outlet], rounds: int, records: int) -> None:
    """In turns, spread over the whole of the load."""
    turns = list(_turns(outlets, rounds))
    for number, turn in enumerate(turns):
        due = round(records * (_FIRST_SHARE + (0.9 - _FIRST_SHARE) * number / len(turns)))
        progress.wait_acked(due)
        print(f"  at {progress.acked():,}: ", end="", flush=True)
        if turn is None:
            print("the daemon crashes", flush=True)
            progress.crash()
            continue
        outlet, trouble = turn
        print(f"{outlet.name}: {trouble.name}", flush=True)
        trouble.begin()
        progress.wait_stalled()
        assert progress.acked() < records, "more records are needed for so many outages"
        trouble.end()
        outlet.outages += 1


@dataclass(frozen=True, slots=True)
class Result:
    """What came out for one sink."""

    outlet: Outlet
    held: int
    lost: int
    repeats: int
    crashes: int
    """Of the daemon."""

    @property
    def most_repeats(self) -> int:
        outlet = self.outlet
        after_outages = outlet.repeats_after_outage * outlet.outages
        return outlet.repeats_after_crash * self.crashes + after_outages

    @property
    def is_good(self) -> bool:
        return not self.lost and self.repeats <= self.most_repeats

    def row(self) -> str:
        """Its line of the table."""
        outlet = self.outlet
        return (
            f"| `{outlet.name}` | {outlet.behind} | {outlet.crash.name}, {outlet.other.name} "
            f"| {outlet.outages} | {self.held:,} | {self.lost} | {self.repeats} |"
        )


def result_of(outlet: Outlet, records: int, crashes: int = 0, dead: Collection[str] = ()) -> Result:
    """Compare what is behind it, and in the dead letters, with what was published."""
    counts = Counter(outlet.read_back())
    letters = dead if outlet.refuses else ()
    lost = sum(f"m-{n}" not in counts and f"m-{n}" not in letters for n in range(records))
    return Result(outlet, counts.total(), lost, counts.total() - len(counts), crashes)


def _is_empty(counts: QueueCounts) -> bool:
    return counts.ready + counts.unacked == 0


def _dead_letters(url: str, queue: str) -> Counter[str]:
    """The ids of all dead letters, each of which is of the sink that refuses."""
    found: Counter[str] = Counter()
    with channel(url) as opened:
        while True:
            method, properties, _ = opened.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            assert properties.headers["x-logfan-sink"] == "elasticsearch", properties.headers
            found[properties.message_id] += 1


def run(records: int, rounds: int) -> tuple[list[Result], str]:
    """The results, and a sentence on the run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logfan-sinks-")))
        node = stack.enter_context(RabbitNode())
        kafka = stack.enter_context(Kafka())
        kafka.create("logs")
        outlets = [
            _opensearch(stack.enter_context(OpenSearch())), _loki(stack.enter_context(Loki())),
            _kafka(kafka), _postgres(stack.enter_context(Postgres(free_port()))),
            _s3(stack.enter_context(VersityGateway()), folder),
            _sqlite(folder / "logs.db", lambda size: daemon.limit_files(size)),  # noqa: PLW0108 - made below
        ]  # fmt: skip
        sinks = "\n".join(f'[sinks.{one.name}]\n{one.config}\nretry.max = "1s"' for one in outlets)
        names = Names.unique("sinks")
        daemon = stack.enter_context(
            DaemonProcess(folder, node.url, names, sinks, extra=f"prefetch = {_PREFETCH}")
        )
        print(f"{records:,} records into {', '.join(one.name for one in outlets)}", flush=True)
        began = time.monotonic()
        publisher = threading.Thread(target=_publish, args=(node.url, names.exchange, records))
        publisher.start()
        progress = _Progress(daemon)
        _disturb(progress, outlets, rounds, records)
        publisher.join()
        wait_until(
            lambda: _is_empty(node.counts(names.queue)),
            "all is acknowledged", _DONE_SECONDS,
        )  # fmt: skip
        seconds = time.monotonic() - began
        memory = daemon.memory_kib() / 1024
        dead = _dead_letters(node.url, f"{names.queue}.dead")
        assert dead.keys() == {f"m-{n}" for n in range(records) if _is_refused(n)}
        results = [result_of(outlet, records, progress.crashes, dead) for outlet in outlets]
    sentence = (
        f"{records:,} records in {seconds:.0f} s, and {progress.crashes} crashes of the daemon; "
        f"{len(dead)} refused, {dead.total()} dead letters; the daemon held {memory:.0f} MiB at "
        "the most."
    )
    return results, sentence


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"RECORDS": "300000", "ROUNDS": "2", "REPORT": "sinks-report.md"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    results, sentence = run(int(options["RECORDS"]), int(options["ROUNDS"]))
    head = [
        "| sink | behind it | troubles | outages | held | lost | repeats |", f"|{' --- |' * 7}",
    ]  # fmt: skip
    report = "\n".join([*head, *(one.row() for one in results), "", sentence, ""])
    print(f"\n{report}")
    Path(options["REPORT"]).write_text(report)
    return 0 if all(one.is_good for one in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
