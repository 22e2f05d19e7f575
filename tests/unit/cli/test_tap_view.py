"""What tap shows, and that all it does not show is counted."""

import re
from collections.abc import Sequence

import pytest

import logfan
from logfan.cli import tap_view
from logfan.cli.tap_view import TapView
from logfan.stage.stage import Stage
from logfan.stage.where import Where
from logfan.testing import record
from support.waiting import wait_until


class Shown(logfan.Sink):
    """Keeps what it gets."""

    def open(self) -> None:
        self.bodies: list[bytes] = []

    def write(self, records: Sequence[logfan.Record]) -> None:
        self.bodies += [one.body for one in records]


class Full(logfan.Sink):
    """Standard output on a full disk."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        raise logfan.SinkUnavailable("standard output: No space left on device")


class Picky(logfan.Transform):
    """Fails over some."""

    def apply(self, records: Sequence[logfan.Record]) -> Sequence[logfan.Record | None]:
        for one in records:
            if b"odd" in one.body:
                raise ValueError("odd")
        return records


def output() -> Shown:
    shown = Shown(Shown.Config(), name="tap", instance="")
    shown.open()
    return shown


def numbered(count: int) -> list[logfan.Record]:
    return [record(b'{"n": %d}' % n) for n in range(count)]


def shown_all(view: TapView, *runs: Sequence[logfan.Record]) -> None:
    for run in runs:
        view.offer(run)
    view.start()
    view.end(60.0)
    assert view.is_over


def counts(view: TapView) -> list[int]:
    return [int(one.replace(",", "")) for one in re.findall(r"\b[\d,]*\d\b(?= )", view.summary())]


def test_the_summary_accounts_for_all() -> None:
    out = output()
    view = TapView(out, where=Where.of({"n": {"below": 10}}), limit=5)
    shown_all(view, [record(b"no JSON")], numbered(1000), numbered(1000))
    assert len(out.bodies) == view.shown == 5
    received, *rest = counts(view)
    assert received == 2001 == sum(rest)
    assert "5 shown, 990 not chosen, 1 undecided" in view.summary()


def test_a_rate_is_for_each_second() -> None:
    now = [100.0]
    out = output()
    view = TapView(out, rate=3, clock=lambda: now[0])
    view.start()
    for second in range(1, 4):
        view.offer(numbered(10))
        wait_until(lambda second=second: view.skipped == 7 * second, "the rest is skipped")  # type: ignore[misc]
        now[0] += 1.0
    view.end(60.0)
    assert len(out.bodies) == 9
    assert view.summary() == "30 received: 9 shown, 21 skipped for --rate"


@pytest.mark.parametrize("bound", ["_HELD_RECORDS", "_HELD_BYTES"])
def test_what_waits_is_bounded_and_the_rest_is_counted(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_view, bound, 20)
    view = TapView(output())
    shown_all(view, *(numbered(20) for _ in range(10)))
    assert (view.received, view.shown, view.skipped) == (200, 20, 180)
    assert "180 skipped, as they came faster" in view.summary()


def test_a_record_that_fails_before_the_sink_is_counted_with_the_reason() -> None:
    transforms = [("picky", Picky(Picky.Config(), name="x", instance=""))]
    out = output()
    view = TapView(out, stage=Stage(transforms=transforms))
    shown_all(view, [record(b"one"), record(b"odd"), record(b"two")])
    assert out.bodies == [b"one", b"two"]
    assert "1 failed before the sink (transform picky failed: ValueError: odd)" in view.summary()


def test_large_bodies_are_decoded_some_at_a_time() -> None:
    out = output()
    view = TapView(out, stage=Stage(decode_bytes=10))
    shown_all(view, numbered(100))
    assert len(out.bodies) == 100


def test_an_output_that_fails_ends_it() -> None:
    view = TapView(Full(Full.Config(), name="tap", instance=""))
    shown_all(view, numbered(1))
    assert view.failure == "standard output: No space left on device"
    assert view.shown == 0
