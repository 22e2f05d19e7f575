"""Where sinks report what they have durably: the one object that workers and dispatcher share.

It is made before both. Workers call it on their own threads; what follows is on the I/O thread.
"""

from collections.abc import Callable, Sequence

from logfan.pipeline.in_flight import Batch, InFlightTracker


class Completions:
    """Batches that sinks have completed, on their way to the I/O thread."""

    def __init__(self, required_sinks: int, cross: Callable[[Callable[[], None]], None]) -> None:
        """`cross` has a function called on the I/O thread."""
        self.tracker = InFlightTracker(required_sinks)
        """The batches in flight. The I/O thread owns it, but for `complete` and `keep`."""
        self.on_completed: Callable[[], None] = lambda: None
        """Called on the I/O thread where there may be something to acknowledge. Set by the
        dispatcher, which is made after the workers."""
        self.on_sink_opened: Callable[[], None] = lambda: None
        """The same, where a sink has opened for the first time. Set by the consumer."""
        self._cross = cross
        self._crossing = False

    def done(self, sink: int, batches: Sequence[Batch]) -> None:
        """Required sink number `sink` has these batches durably. Called by its worker."""
        done = [self.tracker.complete(batch, sink) for batch in batches]
        if any(done) and not self._crossing:
            self._crossing = True
            self._cross(self._report_completed)

    def opened(self) -> None:
        """A sink has opened for the first time. Called by its worker."""
        self._cross(self.on_sink_opened)

    def _report_completed(self) -> None:
        # Cleared before the tracker is looked at: who completes after that schedules the next call.
        self._crossing = False
        self.on_completed()
