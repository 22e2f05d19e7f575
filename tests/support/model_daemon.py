"""A daemon without a broker: the real dispatcher and workers, put together on strands."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import filterfalse
from typing import Any

from logfan.amqp.delivery_parser import Run
from logfan.amqp.topology import Declared
from logfan.config.settings import RabbitmqSettings, Settings, SinkSettings
from logfan.pipeline.completions import Completions
from logfan.pipeline.dispatcher import Dispatcher
from logfan.pipeline.flow_control import _TAKES_NOTHING, HOLD_SECONDS
from logfan.pipeline.worker import Limits, SinkWorker
from logfan.runtime.backoff import Backoff
from logfan.telemetry.metrics import ConsumerStats, SinkStats
from support.model import (
    BUDGET,
    REQUIRED,
    SINKS,
    Channel,
    Message,
    ModelSubscription,
    Post,
    Store,
    Truth,
)  # fmt: skip
from support.strands import Strand, StrandClock, StrandInbox

PREFETCH = 6
THIRD = 600.0
"""Of the acknowledgement timeout, in seconds."""


def settings_of(prefetch: int, budget: int) -> Settings:
    """A daemon's, with all sinks of the model. `budget`: bytes."""
    return Settings(
        sinks={name: SinkSettings(kind="model") for name in SINKS},
        rabbitmq=RabbitmqSettings.model_validate(
            {
                "prefetch": prefetch,
                "max_in_flight_bytes": f"{budget}B",
                "acknowledgement_timeout": "30m",
            }
        ),
    )


SETTINGS = settings_of(PREFETCH, BUDGET)
PAUSING = SETTINGS.model_copy(
    update={"dead_letter": SETTINGS.dead_letter.model_copy(update={"max_ratio": 0.002})}
)
"""A sink may refuse two of its last 1,000 records."""


class Watched:
    """The dispatcher as a receiver: while it is closed to deliveries it keeps none of them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.read_bytes, self.now = dispatcher.read_bytes, dispatcher.now

    def deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        with self._all_handed_back_where_closed(channel, 1):
            self._dispatcher.deliver(channel, method, properties, body)

    def on_deliveries(self, channel: Any, run: Run) -> None:
        with self._all_handed_back_where_closed(channel, len(run.records)):
            self._dispatcher.on_deliveries(channel, run)

    def on_read_end(self) -> None:
        self._dispatcher.on_read_end()

    @contextmanager
    def _all_handed_back_where_closed(self, channel: Channel, count: int) -> Iterator[None]:
        reason, read = self._dispatcher.flow._reason, len(channel.read)
        yield
        kept = count - (read - len(channel.read))
        assert reason not in _TAKES_NOTHING or not kept, f"{kept} taken in a pause: {reason}"


class Daemon:
    """A dispatcher and its workers, as `Consumer` and `Pipeline` put them together."""

    def __init__(self, truth: Truth, queue: list[Message], settings: Settings = SETTINGS) -> None:
        self._rabbitmq = settings.rabbitmq
        self.truth, self.queue = truth, queue
        self.can_be_held = True
        """Whether reading can stop, as without TLS."""
        self.stats = ConsumerStats()
        self.calls: list[Callable[[], None]] = []
        self.channel: Channel | None = None
        self.acks = self.nacks = self.reads = 0
        """On the channels before the present one."""
        self.rests: list[float] = []
        """For how long nothing should be read after a read, in seconds."""
        self.stopping = self.drained = self._began = False
        self.post = Post(truth)
        self.strands = [Strand() for _ in SINKS]
        self.stores = [Store(n, truth, s) for n, s in zip(SINKS, self.strands, strict=True)]
        self.completions = Completions(len(REQUIRED), self.calls.append)
        self.workers = [self._worker(n, store) for n, store in enumerate(self.stores)]
        self.dispatcher = Dispatcher(
            settings=settings, stats=self.stats, clock=StrandClock(truth.time, Strand()),
            workers=self.workers, completions=self.completions, events=self,
        )  # fmt: skip
        for worker, strand in zip(self.workers, self.strands, strict=True):
            strand.start(worker._run)

    def _worker(self, number: int, store: Store) -> SinkWorker:
        strand, required = self.strands[number], store.name in REQUIRED
        worker = SinkWorker(
            sink=store,
            limits=Limits(
                max_records=3, max_bytes=300, window=self._rabbitmq.prefetch,
                waiting_records=None if required else self._rabbitmq.prefetch,
                waiting_bytes=None if required else self._rabbitmq.max_in_flight_bytes,
            ),
            backoff=Backoff(0.2, 30.0, jitter=False),
            stats=SinkStats(),
            completions=self.completions,
            number=number if required else None,
            send=partial(self.post.send, store, strand),
            clock=StrandClock(self.truth.time, strand),
        )  # fmt: skip
        worker._inbox = StrandInbox(self.truth.time, strand)  # type: ignore[assignment]
        return worker

    def on_pause(self, why: str) -> None:
        pass

    def on_drained(self) -> None:
        self.drained = True

    # The I/O thread

    def connect(self) -> None:
        self._began = False
        self.channel = Channel(self.queue, self.truth, can_be_held=self.can_be_held)
        ModelSubscription(self.channel, self._begin, self.rests).consume(
            self.dispatcher.flow.window.prefetch
        )

    def _begin(self, subscription: Any, declared: Declared) -> None:
        self._began = True
        self.dispatcher.begin(subscription, declared)

    def read(self, frames: int, longest: int = PREFETCH) -> None:
        """One read of the socket. `longest`: of a run; with 0 all messages come one by one."""
        self._take(frames, longest)
        self.dispatcher.on_read_end()

    def _take(self, frames: int, longest: int) -> None:
        if self.channel is not None:
            self.channel.send()
            if not self.channel.held:
                self.channel.read_frames(frames, Watched(self.dispatcher), longest)

    def turn(self) -> None:
        """What the dispatcher does once a second."""
        self.dispatcher.turn(self.truth.time.now)
        self._look_at_what_is_held()

    def _look_at_what_is_held(self) -> None:
        """Reading stops for a moment, and not where the broker's answer is waited for."""
        if self.channel is not None and self.channel.held:
            assert self.truth.time.now - self.channel.held_at < HOLD_SECONDS
            assert self.dispatcher.flow._reason is None
            assert not self.stopping

    def loop(self) -> None:
        """What came from other threads."""
        calls = self.calls[:]
        self.calls.clear()
        for call in calls:
            call()

    def lose(self, unseen: int, frames: int, longest: int, *, queue_gone: bool = False) -> None:
        """The channel is gone in the middle of a read, after `unseen` frames of it; with
        `queue_gone` its queue as well. Some frames may still come after that was reported."""
        self._take(unseen, longest)
        channel, self.channel = self.channel, None
        assert channel is not None
        frames_left = [f for f in list(channel.frames)[:frames] if isinstance(f, Message)]
        self._count(channel)
        if queue_gone:
            self._take_over(channel.unacked[tag][0].number for tag in channel.read)
            channel.close(queue_gone=True)
        self.dispatcher.end(requeue=False, gone="the queue is gone" * queue_gone)
        channel.frames.clear()
        channel.frames += () if channel.held or queue_gone else frames_left
        channel.read_frames(len(channel.frames), Watched(self.dispatcher), longest)
        channel.close()
        self.dispatcher.on_read_end()

    def _take_over(self, numbers: Iterable[int]) -> None:
        """No queue has these any more. Of two such windows the daemon holds the first alone, unless
        both are no more than one."""
        if self.last_copies and not self.dispatcher.may_keep_last_copies:
            self.truth.lose(numbers)
        else:
            new = {*numbers}
            before = filterfalse(self.truth.is_everywhere, self.truth.last_copies)
            self.truth.last_copies = {*before} | new
            self.truth.taken_over |= new

    @property
    def last_copies(self) -> int:
        """How many the daemon knows of that some sink has not written. It forgets none."""
        left = self.dispatcher._tracker.last_copies
        forgotten = [*filterfalse(self.truth.is_everywhere, self.truth.last_copies)]
        assert left or not forgotten, f"last copies that no sink is at any more: {forgotten}"
        return left

    def _count(self, channel: Channel) -> None:
        self.acks, self.nacks = self.acks + channel.acks, self.nacks + channel.nacks
        channel.acks = channel.nacks = 0
        self.reads += channel.messages_read

    # The workers

    def work(self) -> bool:
        """Let all that can run, run, but for time. Whether anything did."""
        ran = False
        while ready := [strand for strand in self.strands if strand.is_ready]:
            ran = True
            for strand in ready:
                strand.resume()
        return ran

    # The end

    def stop(self) -> None:
        self.stopping = True
        if self.channel is not None and not self._began:
            self.channel.close()  # still on its way: it need not arrive
            self.channel = None
            self.dispatcher.end(requeue=False)
        self.dispatcher.stop()
        self._look_at_what_is_held()
        for worker in self.workers:
            worker.retry_now()

    def finish(self) -> None:
        """In the order of `Pipeline.stop`, with the deadline passed where not all is drained."""
        for worker in self.workers:
            worker.stop()
        self.work()
        for worker in self.workers:
            worker.give_up()
        self._end_strands()
        if self.channel is not None:
            self.dispatcher.end(requeue=True)
            self._count(self.channel)
            self.channel.close()
        self.channel = None

    def kill(self) -> None:
        """As kill -9 does: nothing more is sent."""
        if self.channel is not None:
            self.channel.close()
        for store in self.stores:
            store.dead = True
        for worker in self.workers:
            worker.give_up()
        self._end_strands()
        self.calls.clear()

    def _end_strands(self) -> None:
        self.post.resolve(works=False)
        for strand in self.strands:
            while not strand.over:
                strand.resume()
        self.truth.lose(self.truth.last_copies)
        self.truth.last_copies.clear()
