"""Nothing is read for a moment where much comes in small reads, and never else."""

from logfan.pipeline.flow_control import LEAST_ROOM, MOST_SECONDS
from support.model import Message, Truth, body_of
from support.model_daemon import Daemon, settings_of

PREFETCH = 4 * LEAST_ROOM
FAST, SLOW = 0.0001, 0.001
"""Seconds from one message to the next."""


class Traffic:
    """A daemon to which messages come one by one."""

    def __init__(self, prefetch: int = PREFETCH) -> None:
        self._truth, self._queue = Truth(), list[Message]()
        self.daemon = Daemon(self._truth, self._queue, settings_of(prefetch, 1 << 20))
        self.daemon.connect()
        self.daemon.read(1)

    def publish(self) -> None:
        """A message that waits in the queue."""
        number = self._truth.published
        self._truth.published += 1
        self._queue.append(Message(number, body_of(number, "", 12)))

    def flow(self, count: int, gap: float, *, work: bool = True) -> int:
        """So many messages, each `gap` seconds after the other. How often it read nothing for a
        moment."""
        before = len(self.daemon.rests)
        for _ in range(count):
            self._truth.time.now += gap
            self.publish()
            self.daemon.read(1)
            if work:
                self.daemon.work()
                self.daemon.loop()
        return len(self.daemon.rests) - before


def test_it_rests_after_the_small_reads_of_a_rush() -> None:
    traffic = Traffic()
    assert traffic.flow(1_000, FAST) > 800
    assert 0 < min(traffic.daemon.rests) <= max(traffic.daemon.rests) <= MOST_SECONDS
    traffic.daemon.kill()


def test_light_traffic_is_not_kept_waiting() -> None:
    traffic = Traffic()
    assert traffic.flow(1_000, SLOW) == 0
    traffic.daemon.kill()


def test_it_rests_only_while_less_than_half_of_the_prefetch_is_in_flight() -> None:
    """Else the broker would wait for an acknowledgement, and we for the broker."""
    traffic = Traffic()
    traffic.flow(1_000, FAST)
    most = PREFETCH // 2 - LEAST_ROOM
    assert traffic.flow(most, FAST, work=False) == most
    assert traffic.flow(PREFETCH - most, FAST, work=False) == 0
    traffic.daemon.kill()


def test_a_small_window_is_not_kept_waiting() -> None:
    traffic = Traffic(2 * LEAST_ROOM - 2)
    assert traffic.flow(1_000, FAST) == 0
    traffic.daemon.kill()


def test_it_does_not_rest_once_it_is_to_stop() -> None:
    traffic = Traffic()
    traffic.flow(1_000, FAST)
    daemon, before = traffic.daemon, len(traffic.daemon.rests)
    traffic.publish()
    assert daemon.channel is not None
    daemon.channel.send()  # on its way already
    daemon.stop()
    daemon.read(1)
    assert daemon.stats.in_flight_messages == 1
    assert len(daemon.rests) == before
    daemon.kill()
