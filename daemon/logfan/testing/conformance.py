"""What every sink must do, as a pytest class to subclass."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from logfan.config.option_docs import meanings_of
from logfan.plugins.validation import why_unusable
from logfan.record import Record
from logfan.sink import RecordsRejected, Sink
from logfan.testing.pipeline import Pipeline
from logfan.testing.records import hostile_records, record

_PATIENCE_SECONDS = 5.0
_OPENS = 20


class SinkConformance:
    """Subclass it in a test module, name the sink, and pytest runs the suite on it.

    Override `options` for a sink that needs some, and `read_back` where what was written can be
    read again: then the suite also looks for lost, doubled and disordered records.
    """

    sink_class: ClassVar[type[Sink]]

    def options(self, folder: Path) -> dict[str, Any]:
        """The keys of the sink's table; `folder` is an empty one for its files."""
        del folder
        return {}

    def read_back(self, sink: Sink, folder: Path) -> list[bytes] | None:
        """The bodies that the sink durably holds, in order; None where that is unknown."""
        del sink, folder
        return None

    @pytest.fixture
    def sink(self, tmp_path: Path) -> Iterator[Sink]:
        """The sink, opened; closed at the end."""
        sink = self._build(tmp_path)
        sink.open()
        yield sink
        sink.close()

    def _build(self, folder: Path) -> Sink:
        config = self.sink_class.Config.model_validate(self.options(folder))
        return self.sink_class(config, name="conformance")

    def test_it_says_what_it_is(self) -> None:
        docstring = vars(self.sink_class).get("__doc__") or ""
        assert docstring.strip(), "the class needs a docstring: `logfan sinks` shows its first line"

    def test_each_option_says_what_it_means(self) -> None:
        meanings = meanings_of(self.sink_class.Config)
        for option in self.sink_class.Config.model_fields:
            words = f"the option {option} needs a docstring below it: `logfan sinks KIND` shows it"
            assert meanings.get(option), words

    def test_the_host_takes_it(self) -> None:
        unusable = why_unusable(self.sink_class)
        assert unusable is None, unusable

    def test_an_unknown_key_is_a_fault(self, tmp_path: Path) -> None:
        wrong = {**self.options(tmp_path), "no_such_key_in_any_sink": 1}
        with pytest.raises(ValidationError):
            self.sink_class.Config.model_validate(wrong)

    @pytest.mark.parametrize("count", [1, 2, 1000])
    def test_it_takes_batches_of_any_size(self, sink: Sink, tmp_path: Path, count: int) -> None:
        records = tuple(record({"n": n, "level": "info"}) for n in range(count))
        sink.write(records)
        sink.flush()
        self._expect(sink, tmp_path, records)

    def test_it_keeps_the_order_over_batches(self, sink: Sink, tmp_path: Path) -> None:
        records = tuple(record({"n": n}) for n in range(30))
        for start in range(0, 30, 10):
            sink.write(records[start : start + 10])
            sink.flush()
        self._expect(sink, tmp_path, records)

    @pytest.mark.parametrize("kind", list(hostile_records()))
    def test_a_hostile_record_harms_no_neighbour(
        self, sink: Sink, tmp_path: Path, kind: str
    ) -> None:
        neighbours = (record({"n": 1}), record({"n": 2}))
        records = (neighbours[0], hostile_records()[kind], neighbours[1])
        try:
            sink.write(records)
        except RecordsRejected as rejected:
            assert set(rejected.reasons) == {1}, "only the hostile record may be refused"
            sink.flush()
            self._expect(sink, tmp_path, neighbours)
        else:
            sink.flush()
            self._expect(sink, tmp_path, records)

    def test_opened_again_it_lets_go_and_goes_on(self, sink: Sink, tmp_path: Path) -> None:
        first, second = record({"n": 1}), record({"n": 2})
        sink.write((first,))
        sink.flush()
        sink.open()
        before = _descriptors()
        for _ in range(_OPENS):
            sink.open()
        # A server of the test's own in this process may not have taken the first one in yet.
        left = _in_the_end(lambda: _descriptors() < before + _OPENS)
        assert left, "open must let go of what an earlier open acquired"
        sink.write((second,))
        sink.flush()
        self._expect(sink, tmp_path, (first, second))

    def test_in_a_pipeline_all_is_acknowledged(self, tmp_path: Path) -> None:
        records = tuple(record({"n": n}) for n in range(100))
        sink = self._build(tmp_path)
        with Pipeline(sink, max_records=7) as pipeline:
            for start in range(0, 100, 10):
                pipeline.deliver(*records[start : start + 10])
            pipeline.wait_acked(100)
        assert pipeline.numbers[sink.name].retries == 0, "the sink failed; see the log"
        self._expect(sink, tmp_path, records)

    def test_flush_without_a_write_returns(self, sink: Sink) -> None:
        sink.flush()

    def test_closed_it_leaves_no_thread_and_no_file(self, tmp_path: Path) -> None:
        threads, files = set(threading.enumerate()), _descriptors()
        sink = self._build(tmp_path)
        sink.open()
        sink.write((record({"n": 1}),))
        sink.flush()
        sink.close()
        # A server of the test's own in this process lets go a moment later.
        left = _in_the_end(lambda: not set(threading.enumerate()) - threads)
        assert left, "close must end the sink's threads"
        assert _in_the_end(lambda: _descriptors() <= files), "close must close the sink's files"

    def test_records_are_left_as_they_were(self, sink: Sink) -> None:
        one = record({"a": {"b": [1, 2]}}, headers={"h": "v"})
        sink.write((one,))
        sink.flush()
        assert one.json() == {"a": {"b": [1, 2]}}
        assert dict(one.headers) == {"h": "v"}

    def _expect(self, sink: Sink, folder: Path, records: tuple[Record, ...]) -> None:
        held = self.read_back(sink, folder)
        if held is None:
            return
        bodies = [one.body for one in records]
        # Not assert ==: the difference of two lists of 16 MiB bodies is of no use.
        assert len(held) == len(bodies), f"wrote {len(bodies)} records, holds {len(held)}"
        wrong = [n for n, (one, other) in enumerate(zip(held, bodies, strict=True)) if one != other]
        assert not wrong, f"holds another body, or another order, from record {wrong[0]} on"


def _in_the_end(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a few seconds."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
