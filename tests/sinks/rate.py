"""How fast a sink and its server are on this machine, without a broker before them.

`python -m sinks.rate [SINKS=kafka,postgres] [RECORDS=200000] [BATCH=5000]`. Beside the rate, which
falls with each other program on the machine, it shows the processor's time for a record.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.run import options_of
from logfan.record import Record
from logfan.sink import Sink
from logfan.testing import record
from logfan.testing.node import free_port
from logfan_sinks.kafka import KafkaSink
from logfan_sinks.postgres import PostgresSink
from support.kafka import Kafka
from support.postgres import Postgres


@contextmanager
def _kafka() -> Iterator[tuple[Sink, int]]:
    with Kafka() as server:
        server.create("logs")
        config = {"brokers": [server.address], "topic": "logs"}
        yield KafkaSink(KafkaSink.Config.model_validate(config)), server.pid


@contextmanager
def _postgres() -> Iterator[tuple[Sink, int]]:
    with Postgres(free_port()) as server:
        config = {"dsn": server.dsn}
        yield PostgresSink(PostgresSink.Config.model_validate(config)), server.pid


_AIMS: dict[str, tuple[Callable[[], Any], int]] = {
    "kafka": (_kafka, 60_000),
    "postgres": (_postgres, 30_000),
}


def _records(first: int, count: int) -> list[Record]:
    body = {"level": "info", "service": "checkout", "message": "an order was paid", "ms": 12}
    return [
        record({**body, "n": n}, routing_key="shop", message_id=f"m-{n}", headers={"host": "web-1"})
        for n in range(first, first + count)
    ]


@dataclass(slots=True)
class Cost:
    """Of so many records, in seconds."""

    records: int = 0
    wall: float = 0.0
    sink: float = 0.0
    """The processor's time of this process."""
    server: float = 0.0
    """That of the server."""

    def row(self, name: str, aim: int) -> str:
        """Its line of the table."""
        rate = self.records / self.wall
        microseconds = [each / self.records * 1e6 for each in (self.sink, self.server)]
        return (
            f"| `{name}` | {rate:,.0f} | {rate / aim:.2f} | {microseconds[0]:.1f} µs | "
            f"{microseconds[1]:.1f} µs |"
        )


def measure(sink: Sink, server: int, records: int, batch: int) -> Cost:
    """What records cost; `server` is a process, which counts with its children."""
    cost = Cost()
    sink.open()
    try:
        _write(sink, _records(0, batch))  # warms up both sides
        for first in range(batch, records + batch, batch):
            some = _records(first, batch)
            began = (time.monotonic(), time.process_time(), _processor_seconds(server))
            _write(sink, some)
            cost.records += len(some)
            cost.wall += time.monotonic() - began[0]
            cost.sink += time.process_time() - began[1]
            cost.server += _processor_seconds(server) - began[2]
    finally:
        sink.close()
    return cost


def _processor_seconds(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _write(sink: Sink, records: Sequence[Record]) -> None:
    sink.write(records)
    sink.flush()


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"SINKS": "kafka,postgres", "RECORDS": "200000", "BATCH": "5000"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    print(f"| sink | records/s | of the aim | sink | server |\n|{' --- |' * 5}")
    for name in options["SINKS"].split(","):
        make, aim = _AIMS[name]
        with make() as (sink, server):
            cost = measure(sink, server, int(options["RECORDS"]), int(options["BATCH"]))
        print(cost.row(name, aim), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
