"""Every built-in sink through the suite that authors of sinks are given."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from logfan.plugins.discovery import discover
from logfan.sink import Sink
from logfan.testing.conformance import SinkConformance

KINDS = {kind: found.cls for kind, found in discover([], []).kinds.items()}


def test_every_built_in_is_tested_here() -> None:
    tested = {suite.sink_class for suite in SinkConformance.__subclasses__()}
    assert set(KINDS.values()) == tested


class TestRawFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "out/raw.log"), "format": "raw"}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        raw = (folder / "out/raw.log").read_bytes()
        # A raw body may hold line breaks of its own: then only the whole can be compared.
        return (
            raw.splitlines() if raw.isascii() and b"\r" not in raw and b"\n  " not in raw else None
        )


class TestJsonFile(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["file"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "{date}/{routing_key}.jsonl"), "rotate": {"size": "1GiB"}}


class TestStdout(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["stdout"]

    @pytest.fixture(autouse=True)
    def _into_nothing(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with Path(os.devnull).open("w") as nothing:
            monkeypatch.setattr("sys.__stdout__", nothing)
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {"colour": "always"}


class TestMetrics(SinkConformance):
    sink_class: ClassVar[type[Sink]] = KINDS["metrics"]

    def options(self, folder: Path) -> dict[str, Any]:
        return {
            "counters": [{"name": "conformance_total", "labels": {"level": "level"}}],
            "histograms": [{"name": "conformance_n", "value": "n"}],
        }
