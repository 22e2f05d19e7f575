"""`decode = true` before the built-in sinks: bodies undone, and never a failure of the batch."""

import base64
import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

import logfan
from logfan.config.settings import SinkSettings
from logfan.testing import record
from logfan_sinks.metrics import MetricsSink
from logfan_sinks.stdout import StdoutSink
from support.files import opened

BODY = b'{"service":"shop","n":5}'
PACKED = gzip.compress(BODY)
TORN = PACKED[:-1]


def batch() -> list[logfan.Record]:
    """Good ones around what cannot be decoded."""
    return [
        record(PACKED, content_encoding="gzip"),
        record(TORN, content_encoding="gzip"),
        record(gzip.compress(bytes(2 << 20)), content_encoding="gzip"),
        record(BODY, content_encoding="br"),
        record(BODY, content_encoding="utf-8"),
        record(PACKED, content_encoding="gzip"),
    ]


def deliver(sink: logfan.Sink, records: Sequence[logfan.Record], *, decode: bool = True) -> None:
    """What the host does with a batch: its stage, write and flush, piece by piece."""
    stage = SinkSettings(kind="a", decode=decode).stage()
    while records:
        staged = None if stage is None else stage.apply(records)
        sink.write(records if staged is None else staged.records)
        sink.flush()
        records = records[len(records) - staged.left :] if staged is not None else ()


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "out"
    with path.open("w") as file:
        monkeypatch.setattr("sys.__stdout__", file)
        yield path


def test_a_json_file_holds_the_decoded_body_or_the_raw_one(tmp_path: Path) -> None:
    with opened(tmp_path / "{json.service}.log", format="json") as sink:
        deliver(sink, batch())
    good = [json.loads(line) for line in (tmp_path / "shop.log").read_text().splitlines()]
    assert [line["body"] for line in good] == [{"service": "shop", "n": 5}] * 4
    # What says gzip is gzip: a line that was decoded does not say it any more.
    assert [line.get("content_encoding") for line in good] == [None, "br", "utf-8", None]
    torn, bomb = [json.loads(line) for line in (tmp_path / "_.log").read_text().splitlines()]
    assert base64.b64decode(torn["body"]["base64"]) == TORN
    assert len(base64.b64decode(bomb["body"]["base64"])) < 5000
    assert torn["content_encoding"] == bomb["content_encoding"] == "gzip"


def test_a_raw_file_holds_the_decoded_bytes(tmp_path: Path) -> None:
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, [record(PACKED, content_encoding="gzip")])
    assert (tmp_path / "a.log").read_bytes() == BODY + b"\n"


def test_without_it_the_body_is_left_as_it_came(tmp_path: Path) -> None:
    with opened(tmp_path / "a.log", format="json") as sink:
        deliver(sink, [record(PACKED, content_encoding="gzip")], decode=False)
    line = json.loads((tmp_path / "a.log").read_text())
    assert base64.b64decode(line["body"]["base64"]) == PACKED
    assert line["content_encoding"] == "gzip"


def test_lines_much_longer_than_their_bodies_are_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = os.writev

    def counted(fd: int, data: list[bytes]) -> int:
        sizes.append(sum(map(len, data)))
        return real(fd, data)

    monkeypatch.setattr(os, "writev", counted)
    large = gzip.compress(b"x" * (1 << 20))
    many = [record(large, content_encoding="gzip") for _ in range(40)]
    assert sum(one.size for one in many) < 100_000
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, many)
    assert (tmp_path / "a.log").stat().st_size == 40 * ((1 << 20) + 1)
    assert max(sizes) < 18 << 20


def test_stdout_shows_the_decoded_body_or_the_raw_one(out: Path) -> None:
    sink = StdoutSink(StdoutSink.Config(format="json"))
    sink.open()
    deliver(sink, batch())
    bodies = [json.loads(line)["body"] for line in out.read_text().splitlines()]
    assert [body for body in bodies if "base64" not in body] == [{"service": "shop", "n": 5}] * 4
    assert base64.b64decode(bodies[1]["base64"]) == TORN


def test_what_stdout_decoded_is_as_harmless_as_the_rest(out: Path) -> None:
    sink = StdoutSink(StdoutSink.Config())
    sink.open()
    deliver(sink, [record(gzip.compress(b"\x1b[2J\n<0>"), content_encoding="gzip")])
    assert out.read_text() == "\\x1b[2J\\n<0>\n"


@pytest.fixture
def counting() -> Iterator[Any]:
    sinks: list[MetricsSink] = []

    def build() -> MetricsSink:
        counters = [{"name": "n_total", "value": "n"}, {"name": "seen_total"}]
        config = MetricsSink.Config.model_validate({"counters": counters})
        sinks.append(MetricsSink(config, name="m"))
        sinks[-1].open()
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close()


@pytest.mark.parametrize(("decode", "n", "not_json"), [(True, 20, 2), (False, 10, 4)])
def test_metrics_count_what_is_decoded_and_the_rest_as_no_json(
    counting: Any, decode: bool, n: int, not_json: int
) -> None:
    sink = counting()
    deliver(sink, batch(), decode=decode)
    assert REGISTRY.get_sample_value("n_total") == n
    assert REGISTRY.get_sample_value("seen_total") == 6
    name = "logfan_metrics_sink_not_json_records_total"
    assert REGISTRY.get_sample_value(name, {"sink": "m"}) == not_json
