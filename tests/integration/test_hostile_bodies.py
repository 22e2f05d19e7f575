"""The most memory that bodies of any shape take, whatever they would become; none is lost."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pika
import pytest
import zstandard

from logfan.testing.node import RabbitNode
from support.broker import Names, channel
from support.daemon import DaemonProcess
from support.waiting import wait_until

MOST_KIB = 512 << 10
MIB = 1 << 20
LARGE = 57 * MIB
SINKS = """
[sinks.json]
kind = "file"
path = "json.log"
decode = true
[sinks.text]
kind = "file"
path = "text-{json.a}.log"
format = "text"
[sinks.out]
kind = "stdout"
format = "json"
[sinks.count]
kind = "metrics"
decode = true
[[sinks.count.counters]]
name = "hostile"
labels = { a = "a" }
"""
NESTED = b'{"a":' * 1000 + b"1" + b"}" * 1000 + b","
NOISE = random.Random(1).randbytes(80_000).hex().encode()
Body = Callable[[], Iterator[tuple[bytes, str | None]]]


def filled(unit: bytes, size: int = LARGE, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    """So many bytes of it."""
    return begin + (unit * (size // len(unit))).removesuffix(b",") + end


def once(body: bytes) -> Iterator[tuple[bytes, str | None]]:
    yield body, None


def packed(body: bytes, times: int) -> Iterator[tuple[bytes, str | None]]:
    """The same message so often, as small as it gets."""
    for encoding, small in (("gzip", gzip.compress(body)), ("zstd", zstandard.compress(body))):
        for _ in range(times // 2):
            yield small, encoding


SHAPES: dict[str, Body] = {
    "empty lists": lambda: once(filled(b"[],")),
    "objects in objects": lambda: once(filled(NESTED)),
    "one wide string": lambda: once(filled(b"x", begin='["😀'.encode(), end=b'"]')),
    "lines": lambda: once(filled(b"[\n],\r\n", end=b"1]")),
    "NUL": lambda: once(filled(b"\0", begin=b"", end=b"")),
    "many lists of 60 KiB": lambda: iter([(filled(b"[],", 60_000), None)] * 1000),
    "many objects of 2 KiB": lambda: iter([(filled(b'{"a":{}},', 2000), None)] * 3000),
    "bombs of lists": lambda: packed(filled(b"[],", MIB - 2), 60),
    "bombs of large lists": lambda: packed(filled(b"[],", 8 * MIB, end=b'"%b"]' % NOISE), 20),
}


DAILY = ("empty lists", "bombs of lists")


@pytest.mark.parametrize(
    "shape",
    [pytest.param(one, marks=[] if one in DAILY else [pytest.mark.long]) for one in SHAPES],
)
def test_a_daemon_holds_a_bounded_amount_of_memory(
    node: RabbitNode, names: Names, tmp_path: Path, shape: str
) -> None:
    with DaemonProcess(tmp_path, node.url, names, SINKS) as daemon:
        count = 0
        with channel(node.url, confirms=True) as publisher:
            for body, encoding in SHAPES[shape]():
                properties = pika.BasicProperties(content_encoding=encoding, message_id=str(count))
                publisher.basic_publish(names.exchange, "", body, properties)
                count += 1
            del body
        wait_until(lambda: daemon.acked() == count, f"all {count} are acknowledged", 300)
        assert daemon.metric("logfan_dead_letters_total") == 0
        held = daemon.memory_kib()
        assert daemon.stop() == 0
    print(f"{shape}: {held >> 10} MiB")
    seen = set()
    with (tmp_path / "json.log").open("rb") as file:
        for line in file:
            at = line.index(b'"message_id":"') + len(b'"message_id":"')
            seen.add(int(line[at : line.index(b'"', at)]))
            assert line.endswith(b"}\n")
    assert seen == set(range(count))
    assert held < MOST_KIB
    if count == 1:
        assert json.loads(line)["body"] is not None


class Encoded(pika.BasicProperties):  # type: ignore[misc]
    """Properties that are encoded once, as often as they are published."""

    @cached_property
    def _encoded(self) -> list[bytes]:
        return [*super().encode()]

    def encode(self) -> list[bytes]:
        return list(self._encoded)  # pika puts the length before them


def test_tables_of_headers_are_not_kept_as_what_they_become(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    properties = Encoded(headers={"x": [[] for _ in range(24_000)]})
    with DaemonProcess(tmp_path, node.url, names, SINKS) as daemon:
        with channel(node.url, confirms=True) as publisher:
            for _ in range(60):
                publisher.basic_publish(names.exchange, "", b"{}", properties)
        wait_until(lambda: daemon.acked() == 60, "all are acknowledged", 300)
        held = daemon.memory_kib()
        assert daemon.stop() == 0
    print(f"headers: {held >> 10} MiB")
    assert held < MOST_KIB // 4  # as trees they would take 120 MiB
