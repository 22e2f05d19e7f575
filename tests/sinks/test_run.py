"""A short form of `make sinks`."""

import pytest

from sinks.run import Outlet, Trouble, result_of, run
from support.needed import needed


@pytest.mark.long
def test_servers_that_crash_in_turns_lose_nothing() -> None:
    with needed():
        results, sentence = run(records=80_000, rounds=1)
    assert len(results) == 6
    assert [one.row() for one in results if not one.is_good] == []
    assert "160 refused" in sentence


NEVER = Trouble("never", list, list)


@pytest.mark.parametrize(
    ("held", "dead", "most", "lost", "repeats", "is_good"),
    [
        (["m-0", "m-1", "m-2"], [], 0, 0, 0, True), (["m-0", "m-2"], [], 0, 1, 0, False),
        (["m-0", "m-2"], ["m-1"], 0, 0, 0, True), (["m-0"], ["m-1"], 0, 1, 0, False),
        (["m-0", "m-1", "m-1", "m-2"], [], 0, 0, 1, False),
        (["m-0", "m-1", "m-1", "m-2"], [], 1, 0, 1, True),
        (["m-0", "m-1", "m-1", "m-2", "m-2"], [], 1, 0, 2, False),
    ],
)  # fmt: skip
def test_what_is_missing_and_what_is_doubled_is_found(
    held: list[str], dead: list[str], most: int, lost: int, repeats: int, is_good: bool
) -> None:
    outlet = Outlet("x", "y", "", NEVER, NEVER, lambda: held, most, refuses=True)
    result = result_of(outlet, 3, 1, dead)
    assert (result.lost, result.repeats, result.is_good) == (lost, repeats, is_good)
