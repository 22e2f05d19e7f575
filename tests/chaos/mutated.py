"""The daemon with one deliberate defect, to see that the suite catches it: a test build.

`python -m chaos.mutated DEFECT run --config FILE` patches logfan's classes in memory and then
runs the command. Nothing of this is in the product. A defect whose seams are gone fails at once
rather than run a sound daemon under a wrong name.
"""

import importlib
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

DEFECTS: dict[str, Callable[[], None]] = {}


def _defect(install: Callable[[], None]) -> Callable[[], None]:
    DEFECTS[install.__name__.replace("_", "-")] = install
    return install


def _patch(module: str, name: str, make: Callable[[Any], Any]) -> None:
    """Replace `module.Class.method` by what `make` gives for the original."""
    klass, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), klass)
    setattr(owner, method, make(getattr(owner, method)))


@_defect
def ack_before_flush() -> None:
    """A batch counts as complete as soon as it is handed to the sink's thread."""

    def make(submit: Any) -> Any:
        def early(worker: Any, batch: Any) -> None:
            if worker.required:
                worker._completions.done(worker._number, [batch])
            submit(worker, batch)

        return early

    _patch("logfan.pipeline.worker", "SinkWorker.submit", make)


@_defect
def watermark_past_an_open_batch() -> None:
    """The ack names the newest tag that was delivered, whatever is still owed."""
    from logfan.pipeline.in_flight import Ack

    def make(advance: Any) -> Any:
        def past(tracker: Any) -> Any:
            ack = advance(tracker)
            if ack is None or not tracker._open:
                return ack
            return Ack(tracker._open[-1].last_tag, ack.batches)

        return past

    _patch("logfan.pipeline.in_flight", "InFlightTracker.advance", make)


@_defect
def old_generation_acked() -> None:
    """A settlement that comes after its channel was lost is acknowledged on the new channel."""
    from logfan.pipeline.in_flight import Ack

    stale: list[Any] = []

    def make_settle(complete: Any) -> Any:
        def late(tracker: Any, batch: Any, sink: int) -> Any:
            done = complete(tracker, batch, sink)
            if done and (batch.abandoned or batch in tracker._last_copies):
                stale.append(batch)
            return done

        return late

    def make_advance(advance: Any) -> Any:
        def acked(tracker: Any) -> Any:
            return Ack(stale.pop().last_tag, ()) if stale else advance(tracker)

        return acked

    _patch("logfan.pipeline.in_flight", "InFlightTracker.complete", make_settle)
    _patch("logfan.pipeline.in_flight", "InFlightTracker.advance", make_advance)


@_defect
def dead_letter_without_confirm() -> None:
    """A refused record counts as complete once its dead letter is sent, confirmed or not."""

    def make(send: Any) -> Any:
        def trusting(letters: Any, refusals: Any) -> Any:
            sending = send(letters, refusals)
            for index in range(len(refusals)):
                sending.end(index, None)
            sending.end = lambda *_: None
            return sending

        return trusting

    _patch("logfan.dead_letters.publisher", "DeadLetters.send", make)


@_defect
def late_confirm_counted() -> None:
    """A confirm that comes on a channel that was left counts for the one that is used now."""
    newest: list[Any] = []

    def make_begin(begin: Any) -> Any:
        def noted(confirms: Any, **keywords: Any) -> None:
            newest[:] = [confirms]
            begin(confirms, **keywords)

        return noted

    _patch("logfan.amqp.confirms", "Confirms.confirm_select", make_begin)
    _patch(
        "logfan.amqp.confirms", "Confirms._confirmed",
        lambda confirmed: lambda _, frame: confirmed(newest[0], frame),
    )  # fmt: skip


@_defect
def dead_letter_trouble_hands_back() -> None:
    """What waits for its dead letter is a reason to hand the window back."""

    def make(_: Any) -> Any:
        def hands_back(dispatcher: Any, _now: float) -> None:
            dispatcher._hand_window_back(at_end=True)

        return hands_back

    _patch("logfan.pipeline.dispatcher", "Dispatcher._look_at_aside", make)


@_defect
def dead_letter_trouble_writes_again() -> None:
    """Where a dead letter cannot be sent, the good records of its batch are offered again."""

    def make(put_aside: Any) -> Any:
        def offered_again(recovery: Any, entries: Any) -> Any:
            kept = put_aside(recovery, entries)
            places = {(entry.batch, entry.place) for entry in entries}
            recovery._runner.offer(
                [
                    record
                    for batch in {entry.batch for entry in entries}
                    for place, record in enumerate(batch.records)
                    if (batch, place) not in places
                ]
            )
            return kept

        return offered_again

    _patch("logfan.pipeline.set_aside", "RefusedRecords._set_aside", make)


@_defect
def ack_past_what_stands_aside() -> None:
    """A cumulative acknowledgement covers a record that waits for its dead letter."""
    from logfan.pipeline.in_flight import Ack

    def make(advance: Any) -> Any:
        def past(tracker: Any) -> Any:
            ack = advance(tracker)
            if ack is None or not ack.singles:
                return ack
            return Ack(max(ack.tag, *ack.singles), ack.batches)

        return past

    _patch("logfan.pipeline.in_flight", "InFlightTracker.advance", make)


@_defect
def not_bound_again() -> None:
    """A lost binding is noticed and logged, and not made again."""

    def make(_: Any) -> Any:
        def idle(_binding: Any, _bindings: Any) -> Generator[Any, Any, str]:
            yield from ()
            return ""

        return idle

    _patch("logfan.amqp.binding", "Binding._bind", make)


@_defect
def dead_thread_unnoticed() -> None:
    """A sink's thread that ends unasked is no fault: the rest looks alive."""
    _patch("logfan.runtime.threads", "OwnThread.fault", lambda _: property(lambda _: None))
    _patch("logfan.runtime.threads", "OwnThread._end", lambda _: lambda *_: None)


@_defect
def torn_line_not_mended() -> None:
    """What a crash left of a line stays, and the next line is glued to it."""
    _patch("logfan_sinks.file.log_file", "LogFile._mend", lambda _: lambda *_: None)


@_defect
def half_write_not_taken_back() -> None:
    """What a failed write left in the file stays, and the retry writes all of it again."""
    _patch("logfan_sinks.file.log_file", "LogFile.take_back", lambda _: lambda *_: None)


@_defect
def failed_batch_dropped() -> None:
    """A batch whose write failed counts as written."""

    def make(offer: Any) -> Any:
        def careless(runner: Any, records: Any) -> Any:
            failure = offer(runner, records)
            return None if records else failure

        return careless

    _patch("logfan.pipeline.sink_runner", "SinkRunner.offer", make)


@_defect
def wanted_later_forgotten() -> None:
    """A record that its sink wants later counts as written."""

    def make(put: Any) -> Any:
        def careless(later: Any, *given: Any) -> None:
            put(later, *given)
            later._done([*later.held.values()])

        return careless

    _patch("logfan.pipeline.wanted_later", "WantedLater.put", make)


def main(arguments: Sequence[str]) -> None:
    """Install the defect, then do what `logfan` does."""
    DEFECTS[arguments[0]]()
    sys.argv = ["logfan", *arguments[1:]]
    importlib.import_module("logfan.cli").main()


if __name__ == "__main__":
    main(sys.argv[1:])
