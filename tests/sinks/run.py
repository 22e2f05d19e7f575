"""`make sinks`: records from a real RabbitMQ through the real daemon into six kinds of sink at
once, while each of their servers is crashed and started again, in turns. Then all is read back.

`python -m sinks.run [RECORDS=300000] [ROUNDS=2] [REPORT=sinks-report.md]`. Exits 1 where a record
is lost, or came twice where its identity forbids that.
"""

import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import orjson
import pika
import psycopg

from chaos.run import options_of
from logfan.testing.node import RabbitNode, free_port
from sinks.loki import Loki
from support.broker import Names, channel
from support.daemon import DaemonProcess
from support.kafka import Kafka
from support.opensearch import OpenSearch
from support.postgres import Postgres
from support.versitygw import VersityGateway
from support.waiting import wait_until

_PREFETCH = 5000
_PAGE = 10_000
_DONE_SECONDS = 1800.0
_STALLED_SECONDS = 2.0
_FIRST_SHARE = 0.02

Ids = Iterable[str]


@dataclass(slots=True)
class Outlet:
    """One sink, and what is behind it."""

    name: str
    behind: str
    config: str
    """The keys of its table, as TOML."""
    go_away: Callable[[], object]
    come_back: Callable[[], object]
    read_back: Callable[[], Ids]
    is_exact: bool
    """Whether the identity of a record leaves no room for a repeat."""
    outages: int = 0


def _opensearch(server: OpenSearch) -> Outlet:
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
        "elasticsearch", "OpenSearch 2.19", config, server.kill, server.start, read_back, True
    )


def _loki(server: Loki) -> Outlet:
    config = f'kind = "loki"\nurl = "{server.url}"\nlabels = {{ app = "shop" }}\nformat = "json"'
    return Outlet(
        "loki", "scripted server", config, server.kill, server.start,
        lambda: (_id(line) for line in server.lines()), False,
    )  # fmt: skip


def _kafka(server: Kafka) -> Outlet:
    config = f'kind = "kafka"\nbrokers = ["{server.address}"]\ntopic = "logs"\ntimeout = "60s"'
    return Outlet(
        "kafka", "Kafka 4.1", config, server.kill, server.start,
        lambda: (headers["id"].decode() for _, _, headers in server.messages("logs")), False,
    )  # fmt: skip


def _postgres(server: Postgres) -> Outlet:
    def read_back() -> Iterator[str]:
        with psycopg.connect(server.dsn) as connection:
            yield from (row[0] for row in connection.execute("SELECT id FROM logs"))

    config = f'kind = "postgres"\ndsn = "{server.dsn}"'
    return Outlet("postgres", "PostgreSQL 15", config, server.kill, server.start, read_back, True)


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
    return Outlet("s3", "Versity gateway 1.8", config, server.kill, server.start, read_back, True)


def _sqlite(path: Path) -> Outlet:
    """It has no server: another program locks the file."""
    locks: list[sqlite3.Connection] = []

    def lock() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        connection.execute("BEGIN EXCLUSIVE")
        locks.append(connection)

    def read_back() -> Iterator[str]:
        with closing(sqlite3.connect(path)) as database:
            yield from (row[0] for row in database.execute("SELECT id FROM logs"))

    return Outlet(
        "sqlite", "a file, locked", f'kind = "sqlite"\npath = "{path}"', lock,
        lambda: locks.pop().close(), read_back, True,
    )  # fmt: skip


def _id(line: str | bytes) -> str:
    return str(orjson.loads(line)["message_id"])


def _publish(url: str, exchange: str, count: int) -> None:
    with channel(url) as open_channel:
        for n in range(count):
            body = orjson.dumps({"n": n, "level": "info", "message": f"order {n} was paid"})
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"m-{n}")
            open_channel.basic_publish(exchange, "shop", body, properties)
        # An answer to a later request on the channel means that all before it is in the queue.
        open_channel.exchange_declare(exchange, passive=True)


def _wait_stalled(daemon: DaemonProcess) -> None:
    """Until nothing is acknowledged any more: the window waits for the one that is away."""
    seen, since = daemon.acked(), time.monotonic()

    def stalled() -> bool:
        nonlocal seen, since
        now = daemon.acked()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > _STALLED_SECONDS

    wait_until(stalled, "the window waits for the sink that is away", 300)


def _crash_all(daemon: DaemonProcess, outlets: list[Outlet], rounds: int, records: int) -> None:
    """In turns, spread over the whole of the load."""
    turns = [outlet for _ in range(rounds) for outlet in outlets]
    for turn, outlet in enumerate(turns):
        due = round(records * (_FIRST_SHARE + (0.9 - _FIRST_SHARE) * turn / len(turns)))
        wait_until(lambda due=due: daemon.acked() >= due, f"{due} are acknowledged", _DONE_SECONDS)  # type: ignore[misc]
        print(f"  at {daemon.acked():,}: {outlet.name} goes away", flush=True)
        outlet.go_away()
        _wait_stalled(daemon)
        assert daemon.acked() < records, "more records are needed for so many outages"
        outlet.come_back()
        outlet.outages += 1


@dataclass(frozen=True, slots=True)
class Result:
    """What came out for one sink."""

    outlet: Outlet
    held: int
    lost: int
    repeats: int

    @property
    def is_good(self) -> bool:
        return not self.lost and not (self.outlet.is_exact and self.repeats)

    def row(self) -> str:
        """Its line of the table."""
        outlet = self.outlet
        return (
            f"| `{outlet.name}` | {outlet.behind} | {outlet.outages} | {self.held:,} | {self.lost} "
            f"| {self.repeats} |"
        )


def result_of(outlet: Outlet, records: int) -> Result:
    """Compare what is behind it with what was published."""
    counts = Counter(outlet.read_back())
    lost = sum(f"m-{n}" not in counts for n in range(records))
    return Result(outlet, counts.total(), lost, counts.total() - len(counts))


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
            _s3(stack.enter_context(VersityGateway()), folder), _sqlite(folder / "logs.db"),
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
        _crash_all(daemon, outlets, rounds, records)
        publisher.join()
        wait_until(lambda: daemon.acked() >= records, "all is acknowledged", _DONE_SECONDS)
        seconds = time.monotonic() - began
        counts = node.counts(names.queue)
        assert (counts.ready, counts.unacked) == (0, 0), counts
        memory = daemon.memory_kib() / 1024
        results = [result_of(outlet, records) for outlet in outlets]
        dead = node.ready(f"{names.queue}.dead")
    sentence = (
        f"{records:,} records in {seconds:.0f} s; {dead} dead letters; the daemon held "
        f"{memory:.0f} MiB at the most."
    )
    return results, sentence


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"RECORDS": "300000", "ROUNDS": "2", "REPORT": "sinks-report.md"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    results, sentence = run(int(options["RECORDS"]), int(options["ROUNDS"]))
    head = ["| sink | behind it | outages | held | lost | repeats |", f"|{' --- |' * 6}"]
    report = "\n".join([*head, *(one.row() for one in results), "", sentence, ""])
    print(f"\n{report}")
    Path(options["REPORT"]).write_text(report)
    return 0 if all(one.is_good for one in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
