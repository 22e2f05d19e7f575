"""How long deliveries gather before the next read."""

from logfan.pace import WAIT_SECONDS, Pace


def read(pace: Pace, rate: float, seconds: float, *, each: int = 10, roomy: bool = True) -> float:
    """The waits of that many seconds of reads that bring `each` messages, summed up."""
    waits, at, gap = 0.0, 100.0, each / rate
    while at < 100.0 + seconds:
        waits += pace.wait(at, each, roomy=roomy)
        at += gap
    return waits


def test_light_traffic_never_waits() -> None:
    assert read(Pace(100.0), rate=1_000, seconds=1, each=1) == 0
    assert read(Pace(100.0), rate=4_000, seconds=1) == 0


def test_a_burst_of_a_few_messages_does_not_wait() -> None:
    pace = Pace(100.0)
    assert [pace.wait(100.0 + n / 100_000, 1, roomy=True) for n in range(40)] == [0.0] * 40
    assert pace.wait(101.0, 1, roomy=True) == 0


def test_many_small_reads_wait_once_it_is_known_that_much_comes() -> None:
    assert read(Pace(100.0), rate=40_000, seconds=1) > 0.9 * WAIT_SECONDS * 4_000
    assert read(Pace(100.0), rate=40_000, seconds=0.01) == 0


def test_a_large_read_goes_on_at_once() -> None:
    assert read(Pace(100.0), rate=40_000, seconds=1, each=400) == 0


def test_where_the_broker_waits_for_an_acknowledgement_nobody_waits_for_the_broker() -> None:
    assert read(Pace(100.0), rate=40_000, seconds=1, roomy=False) == 0


def test_it_ends_with_the_rush() -> None:
    pace = Pace(100.0)
    read(pace, rate=40_000, seconds=1)
    assert pace.wait(105.0, 1, roomy=True) == 0
