"""The stretches of a message's road, each ready to be counted by itself.

Real connections, roads, workers and sinks; what is missing is the socket. Nothing waits and
nothing depends on chance: each worker begins once all its batches lie in its queue.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import logfan
from guard.counting import Counter, Counts
from guard.messages import AT, CHANNEL, RECORDS_A_READ, batches, messages, reads
from logfan import Record, Sink, SinkConfig, amqp_properties, json_format
from logfan.amqp import connection
from logfan.amqp.delivery_parser import Run, Stream
from logfan.amqp.subscription import Subscription
from logfan.amqp.topology import Declared
from logfan.amqp_properties import decode_properties
from logfan.config.settings import RabbitmqSettings, Settings, SinkSettings
from logfan.pipeline.completions import Completions
from logfan.pipeline.dispatcher import Dispatcher
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.runtime.backoff import Backoff
from logfan.runtime.clock import SYSTEM_CLOCK
from logfan.telemetry.metrics import ConsumerStats, SinkStats
from logfan_sinks.file import FileSink
from logfan_sinks.metrics import MetricsSink
from support.readers import Reader
from support.wire_bytes import Scene

MESSAGES = 4_000
_SINKS = ("a", "b", "c")
_TAG = "ctag1.0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the path."""

    what: str
    per: str
    """What it is counted by: `message` or `batch`."""
    run: Callable[[Counter, Path], int]
    """Go it once, in a new folder, counting; how many messages or batches that were."""

    def count(self, folder: Path) -> Counts:
        """The work for one message or batch; the second time, when all is loaded and known."""
        for known in (amqp_properties._templates, json_format._templates):
            known.forget()  # what the tests before this one left there
        for place in (first := folder / "first", second := folder / "second"):
            place.mkdir(parents=True)
        self.run(Counter(idle=True), first)
        counter = Counter()
        number = self.run(counter, second)
        return counter.counts.each(number)


class Nothing(Sink):
    """A sink that takes all and does nothing."""

    def write(self, records: Sequence[Record]) -> None:
        """Durable at once."""


class _Wired(Reader):
    """A connection without a socket whose consumer is a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        super().__init__(connection.Connection, Scene(CHANNEL, _TAG, "plain", company=False))
        dispatcher.begin(cast(Subscription, self), Declared("q"))

    @property
    def channel(self) -> Any:
        """What a dispatcher asks of its subscription."""
        return self._channel

    def pause_reading_for(self, seconds: float) -> None:
        """There is no socket to leave alone."""

    @property
    def acks(self) -> int:
        """How many went out."""
        return sum(one[0] == "sent" for one in self.story)

    def _receiver(self, _tag: str) -> Dispatcher:
        return self._dispatcher


class _Whole:
    """From the bytes to the ack: a road with three required sinks that do nothing."""

    def __init__(self) -> None:
        settings = Settings(
            sinks={name: SinkSettings(kind="nothing") for name in _SINKS},
            rabbitmq=RabbitmqSettings(prefetch=MESSAGES),
        )
        self.crossing: list[Callable[[], None]] = []
        self.completions = Completions(len(_SINKS), self.crossing.append)
        self.workers = [self._worker(number, name) for number, name in enumerate(_SINKS)]
        self.stats = ConsumerStats()
        self.dispatcher = Dispatcher(
            settings=settings, stats=self.stats, clock=SYSTEM_CLOCK, workers=self.workers,
            completions=self.completions, events=self,
        )  # fmt: skip
        self.reader = _Wired(self.dispatcher)

    def _worker(self, number: int, name: str) -> SinkWorker:
        return SinkWorker(
            sink=Nothing(SinkConfig(), name=name),
            limits=Limits(max_records=1_000, max_bytes=8 << 20, window=MESSAGES),
            backoff=Backoff(0.2, 30.0, jitter=False),
            stats=SinkStats(),
            completions=self.completions,
            number=number,
        )

    def on_pause(self, why: str) -> None:
        """See `dispatcher.Events`, here and below."""
        raise AssertionError(why)

    def on_drained(self) -> None:
        raise AssertionError("it is not to stop")

    def read(self) -> int:
        """All messages come in. How many reads that takes."""
        parts = reads(b"".join(messages(MESSAGES, _TAG)))
        for data in parts:
            self.reader.connection._proto_data_received(data)
        return len(parts)

    def work(self) -> None:
        """The workers do theirs, one after the other."""
        for worker in self.workers:
            worker.stop()
            worker.start()
            assert worker.join(30.0)

    def complete(self) -> None:
        """What the workers handed over crosses to the I/O thread."""
        for call in self.crossing:
            call()


def calls_a_read(*, cut: bool) -> int:
    """How many functions of ours one read calls: of whole messages, or with one that is cut."""
    whole, block = _Whole(), messages(3 * RECORDS_A_READ, _TAG)
    data, a_read = b"".join(block), len(b"".join(block[:RECORDS_A_READ]))
    begin = len(block[0]) // 2 if cut else 0
    parts = [data[: a_read + begin], data[a_read + begin : 2 * a_read + begin]]
    ours = str(Path(logfan.__file__).parent)
    calls = 0

    def note(frame: FrameType, event: str, _value: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(ours)

    whole.reader.connection._proto_data_received(parts[0])
    before = sys.getprofile()
    sys.setprofile(note)
    whole.reader.connection._proto_data_received(parts[1])
    sys.setprofile(before)
    return calls


def _scan(counter: Counter, _folder: Path) -> int:
    block = messages(MESSAGES, _TAG)
    cuts = range(0, MESSAGES, RECORDS_A_READ)
    parts = [b"".join(block[at : at + RECORDS_A_READ]) for at in cuts]
    stream = Stream(CHANNEL, _TAG, decode_properties, apart=b"x-nobody")
    runs: list[Run | None] = []
    with counter.here():
        for data in parts:
            runs.append(stream.scan(data, 0, AT))  # noqa: PERF401 - a call of its own
    return _taken(sum(len(run.records) for run in runs if run is not None))


def _read(counter: Counter, _folder: Path) -> int:
    whole = _Whole()
    parts = reads(b"".join(messages(MESSAGES, _TAG)))
    with counter.here():
        for data in parts:
            whole.reader.connection._proto_data_received(data)
    return _taken(whole.stats.received_messages)


def _work(counter: Counter, _folder: Path) -> int:
    whole = _Whole()
    count = whole.read()
    with counter.new_threads():
        whole.work()
    for worker in whole.workers:
        _taken(worker.stats.written)
    return count * len(_SINKS)


def _settle(counter: Counter, _folder: Path) -> int:
    whole = _Whole()
    count = whole.read()
    whole.work()
    with counter.here():
        whole.complete()
    _taken(whole.stats.acked)
    assert whole.reader.acks == 1, "one cumulative ack for all that was settled"
    return count


def _written(sink: Sink, counter: Counter) -> int:
    """Batch by batch, each of them durable."""
    parts = batches(MESSAGES)
    sink.open()
    with counter.here():
        for records in parts:
            sink.write(records)
            sink.flush()
    sink.close()
    return MESSAGES


def _file(form: str, counter: Counter, folder: Path) -> int:
    path = folder / "a.log"
    config = FileSink.Config.model_validate({"path": str(path), "format": form})
    _written(FileSink(config, name="a"), counter)
    return _taken(path.read_bytes().count(b"\n"))


def _metrics(counter: Counter, _folder: Path) -> int:
    config = MetricsSink.Config.model_validate(
        {
            "counters": [
                {"name": "guard_lines", "labels": {"level": "level", "service": "service"}},
                {"name": "guard_status", "labels": {"status": "status"}},
            ],
            "histograms": [{"name": "guard_ms", "value": "ms"}],
        }
    )
    return _written(MetricsSink(config, name="guard"), counter)


def _properties(counter: Counter, _folder: Path) -> int:
    raw = [record._properties for records in batches(MESSAGES) for record in records]
    with counter.here():
        for one in raw:
            decode_properties(one)
    return len(raw)


def _json(counter: Counter, _folder: Path) -> int:
    records = [record for part in batches(MESSAGES) for record in part]
    with counter.here():
        for record in records:
            record.json()
    return len(records)


def _where(counter: Counter, _folder: Path) -> int:
    settings = SinkSettings.model_validate(
        {"kind": "nothing", "where": {"level": ["info", "error"], "ms": {"below": 1_000_000}}}
    )
    stage = settings.stage()
    assert stage is not None
    parts = batches(MESSAGES)
    with counter.here():
        for records in parts:
            stage.apply(records)
    return sum(map(len, parts))


def _taken(count: int) -> int:
    assert count == MESSAGES, f"{count} of {MESSAGES} messages came through"
    return count


STRETCHES = {
    "scan": Stretch("`Stream.scan`: the bytes of a read into records", "message", _scan),
    "read": Stretch("a read of the socket, to the queues of three workers", "message", _read),
    "worker": Stretch("a worker: collect, offer, complete", "batch", _work),
    "settlement": Stretch("completions of three sinks, watermark and ack", "batch", _settle),
    "file raw": Stretch("the sink file, format raw", "message", partial(_file, "raw")),
    "file json": Stretch("the sink file, format json", "message", partial(_file, "json")),
    "metrics": Stretch("the sink metrics: two counters, a histogram", "message", _metrics),
    "where": Stretch("the stage of a sink: where with two matchers", "message", _where),
    "properties": Stretch("`amqp_properties.decode_properties`", "message", _properties),
    "json": Stretch("`Record.json`", "message", _json),
}
