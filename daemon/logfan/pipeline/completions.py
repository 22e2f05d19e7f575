"""Where sinks report what they have durably: the one object that workers and dispatcher share.

It is made before both. Workers call it on their own threads; what follows is on the I/O thread.
"""

from collections.abc import Callable, Sequence

from logfan.pipeline.in_flight import Batch, InFlightTracker


def _nothing() -> None:
    """Before there is somebody to call."""


class Completions:
    """Batches that sinks have completed, on their way to the I/O thread."""

    def __init__(self, required_sinks: int, cross: Callable[[Callable[[], None]], None]) -> None:
        """`cross` has a function called on the I/O thread."""
        self.tracker = InFlightTracker(required_sinks)
        """The batches in flight. The I/O thread owns it, but for what is called here."""
        self.acknowledge: Callable[[], None] = _nothing
        """Called on the I/O thread once there may be something to acknowledge."""
        self.look_at_sinks: Callable[[], None] = _nothing
        """Called on the I/O thread once a sink has opened for the first time."""
        self._cross = cross
        self._crossing = False

    def done(self, sink: int, batches: Sequence[Batch]) -> None:
        """Required sink number `sink` has these batches durably. Called by its worker."""
        done = [self.tracker.complete(batch, sink) for batch in batches]
        if any(done) and not self._crossing:
            self._crossing = True
            self._cross(self._arrive)

    def keep(self, sink: int, batch: Batch, places: Sequence[int]) -> Sequence[Batch]:
        """Required sink number `sink` cannot be rid of these records: see `InFlightTracker`. Called
        by its worker, before it completes the batch."""
        return self.tracker.keep(batch, places, sink)

    def opened(self) -> None:
        """A sink has opened for the first time. Called by its worker."""
        self._cross(self.look_at_sinks)

    def _arrive(self) -> None:
        # Cleared before the tracker is looked at: who completes after that schedules the next call.
        self._crossing = False
        self.acknowledge()
