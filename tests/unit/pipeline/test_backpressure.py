"""Reading waits while the budget is nearly full, and never for long."""

from logfan.pipeline.flow_control import HOLD_SECONDS, BackpressureGate


class Wire:
    """What is held, or cannot be."""

    def __init__(self, *, able: bool = True) -> None:
        self.able, self.told = able, ""

    def hold(self) -> bool:
        self.told += "hold " if self.able else ""
        return self.able

    def go_on(self) -> None:
        self.told += "on "


def test_it_holds_shortly_before_the_budget_is_full_and_goes_on_at_half_of_it() -> None:
    gate, wire = BackpressureGate(100), Wire()
    for held in (10, 74, 75, 90, 51, 50, 74, 80, 100, 0):
        gate.look(held, 1.0, wire)
    assert wire.told == "hold on hold on "


def test_a_sink_that_does_not_go_on_is_waited_for_once_and_not_again_before_half_is_written() -> (
    None
):
    gate, wire = BackpressureGate(100), Wire()
    gate.look(80, 1.0, wire)
    gate.look(80, 1.0 + HOLD_SECONDS - 0.1, wire)
    assert wire.told == "hold "
    for held in (80, 90, 60, 90):
        gate.look(held, 1.0 + HOLD_SECONDS, wire)
    assert wire.told == "hold on "
    for held in (50, 80):
        gate.look(held, 9.0, wire)
    assert wire.told == "hold on hold "


def test_another_connection_begins_anew_and_none_is_no_trouble() -> None:
    gate, wire, later = BackpressureGate(100), Wire(), Wire()
    gate.look(80, 1.0, wire)
    gate.look(0, 1.0, None)
    gate.look(80, 9.0, later)
    assert (wire.told, later.told) == ("hold ", "hold ")


def test_where_it_cannot_be_held_nothing_happens() -> None:
    gate, wire = BackpressureGate(100), Wire(able=False)
    for held in (80, 100, 0):
        gate.look(held, 1.0, wire)
    assert wire.told == ""
