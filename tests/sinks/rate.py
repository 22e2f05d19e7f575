"""How fast a sink and its server are on this machine, without a broker before them.

`python -m sinks.rate [SINKS=kafka,http] [RECORDS=200000] [BATCH=5000]`; without `SINKS` all that it
knows. Beside the rate, which falls with each other program on the machine, it shows the processor's
time for a record. Where there is no aim, a client that only posts bodies that were made before is
measured in turns with the sink: more than that the server does not take.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from pika import BasicProperties

from chaos.run import options_of
from logfan.amqp_properties import decode_properties
from logfan.record import Origin, Record
from logfan.sink import Sink
from logfan.testing import record
from logfan.testing.node import free_port
from logfan_sinks.elasticsearch import bulk
from logfan_sinks.elasticsearch.sink import ElasticsearchSink
from logfan_sinks.http.sink import HttpSink
from logfan_sinks.kafka import KafkaSink
from logfan_sinks.postgres import PostgresSink
from sinks.loki import Loki
from support.kafka import Kafka
from support.opensearch import OpenSearch
from support.postgres import Postgres

_RECORDS_A_READ = 400

Posts = Callable[[Sequence[Record]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Side:
    """A sink, and what is behind it."""

    sink: Sink[Any]
    server: int
    """Its process, which counts with its children."""
    aim: int = 0
    """Records a second; 0 where `bodies` are compared with."""
    url: str = ""
    bodies: Posts = lambda _: []
    """What the sink posts to the URL for so many records."""


@contextmanager
def _kafka() -> Iterator[Side]:
    with Kafka() as server:
        server.create("logs")
        config = {"brokers": [server.address], "topic": "logs"}
        yield Side(KafkaSink(KafkaSink.Config.model_validate(config)), server.pid, 60_000)


@contextmanager
def _postgres() -> Iterator[Side]:
    with Postgres(free_port()) as server:
        config = {"dsn": server.dsn}
        yield Side(PostgresSink(PostgresSink.Config.model_validate(config)), server.pid, 30_000)


@contextmanager
def _elasticsearch() -> Iterator[Side]:
    with OpenSearch() as server:
        config = ElasticsearchSink.Config.model_validate({"url": server.url, "index": "logs"})

        def bodies(records: Sequence[Record]) -> list[bytes]:
            lines = [
                bulk.action("logs", bulk.identity(one, config.id)) + b"\n" + bulk.document(one)
                for one in records
            ]
            return _joined(lines, config.max_records)

        url = f"{server.url}/_bulk?filter_path={bulk.FILTER_PATH}"
        yield Side(ElasticsearchSink(config), server.pid, url=url, bodies=bodies)


@contextmanager
def _http() -> Iterator[Side]:
    with Loki() as server:  # which takes any body, and keeps it
        config = HttpSink.Config.model_validate({"url": server.url, "format": "raw"})

        def bodies(records: Sequence[Record]) -> list[bytes]:
            return _joined([one.body for one in records], config.max_records)

        yield Side(HttpSink(config), server.pid, url=server.url, bodies=bodies)


def _joined(lines: Sequence[bytes], most: int) -> list[bytes]:
    starts = range(0, len(lines), most)
    return [b"".join(line + b"\n" for line in lines[at : at + most]) for at in starts]


_SIDES: dict[str, Callable[[], AbstractContextManager[Side]]] = {
    "kafka": _kafka, "postgres": _postgres, "elasticsearch": _elasticsearch, "http": _http,
}  # fmt: skip


def _records(first: int, count: int) -> list[Record]:
    """As the consumer makes them: one origin a read, properties that are still bytes."""
    body = {"level": "info", "service": "checkout", "message": "an order was paid", "ms": 12}
    made: list[Record] = []
    for n in range(first, first + count):
        if not made or n % _RECORDS_A_READ == 0:
            origin = Origin("logs", "shop", False, time.time(), decode_properties)
        properties = BasicProperties(message_id=f"m-{n}", headers={"host": "web-1"})
        one = record({**body, "n": n})
        one.origin, one._properties = origin, b"".join(properties.encode())
        made.append(one)
    return made


@dataclass(slots=True)
class Cost:
    """Of so many records, in seconds."""

    records: int = 0
    wall: float = 0.0
    sink: float = 0.0
    """The processor's time of this process."""
    server: float = 0.0
    """That of the server."""

    bare: float = 0.0
    """The wall's time of posting as many bodies that were made before."""

    def row(self, name: str, aim: int) -> str:
        """Its line of the table."""
        rate = self.records / self.wall
        of_bare = f"{self.bare / self.wall:.2f} of bare posts"
        share = f"{rate / aim:.2f} of {aim:,}/s" if aim else of_bare
        microseconds = [each / self.records * 1e6 for each in (self.sink, self.server)]
        return (
            f"| `{name}` | {rate:,.0f} | {share} | {microseconds[0]:.1f} µs | "
            f"{microseconds[1]:.1f} µs |"
        )


def measure(side: Side, records: int, batch: int) -> Cost:
    """What records cost."""
    cost = Cost()
    pool = urllib3.PoolManager(maxsize=1, retries=False)
    side.sink.open()
    try:
        _write(side.sink, _records(0, batch))  # warms up both sides
        _post(pool, side.url, side.bodies(_records(batch, batch)))
        for first in range(2 * batch, 2 * (records + batch), 2 * batch):
            some = _records(first, batch)
            bodies = side.bodies(_records(first + batch, batch))
            began = (time.monotonic(), time.process_time(), _processor_seconds(side.server))
            _write(side.sink, some)
            cost.records += len(some)
            cost.wall += time.monotonic() - began[0]
            cost.sink += time.process_time() - began[1]
            cost.server += _processor_seconds(side.server) - began[2]
            before = time.monotonic()
            _post(pool, side.url, bodies)
            cost.bare += time.monotonic() - before
    finally:
        side.sink.close()
    return cost


def _post(pool: urllib3.PoolManager, url: str, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        answer = pool.request("POST", url, body, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status < 300, answer.data[:300]


def _processor_seconds(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _write(sink: Sink[Any], records: Sequence[Record]) -> None:
    sink.write(records)
    sink.flush()


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"SINKS": ",".join(_SIDES), "RECORDS": "200000", "BATCH": "5000"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    print(f"| sink | records/s | share | sink | server |\n|{' --- |' * 5}")
    for name in options["SINKS"].split(","):
        with _SIDES[name]() as side:
            cost = measure(side, int(options["RECORDS"]), int(options["BATCH"]))
        print(cost.row(name, side.aim), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
