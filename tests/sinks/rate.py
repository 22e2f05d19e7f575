"""How fast a sink and its server are on this machine, without a broker before them.

`python -m sinks.rate [SINKS=kafka,postgres] [RECORDS=200000] [BATCH=5000]`. The processor's time is
that of the sink's own process: what is left over is the server's.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
def _kafka() -> Iterator[Sink]:
    with Kafka() as server:
        server.create("logs")
        config = {"brokers": [server.address], "topic": "logs"}
        yield KafkaSink(KafkaSink.Config.model_validate(config))


@contextmanager
def _postgres() -> Iterator[Sink]:
    with Postgres(free_port()) as server:
        yield PostgresSink(PostgresSink.Config.model_validate({"dsn": server.dsn}))


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


def measure(sink: Sink, records: int, batch: int) -> tuple[float, float]:
    """Records a second, and the share of a core that the sink's own process takes for it."""
    sink.open()
    try:
        _write(sink, _records(0, batch))  # warms up both sides
        wall = processor = 0.0
        for first in range(batch, records, batch):
            some = _records(first, batch)
            began, used = time.monotonic(), time.process_time()
            _write(sink, some)
            wall += time.monotonic() - began
            processor += time.process_time() - used
    finally:
        sink.close()
    return (records - batch) / wall, processor / wall


def _write(sink: Sink, records: Sequence[Record]) -> None:
    sink.write(records)
    sink.flush()


def main(arguments: list[str]) -> int:
    """The command line."""
    defaults = {"SINKS": "kafka,postgres", "RECORDS": "200000", "BATCH": "5000"}
    options = options_of(arguments, defaults)
    if options is None:
        return 2
    print("| sink | records/s | of the aim | of a core |\n| --- | --- | --- | --- |")
    for name in options["SINKS"].split(","):
        make, aim = _AIMS[name]
        with make() as sink:
            rate, share = measure(sink, int(options["RECORDS"]), int(options["BATCH"]))
        print(f"| `{name}` | {rate:,.0f} | {rate / aim:.2f} | {share:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
