"""A short form of `make sinks`."""

import os

import pytest

from sinks.run import Outlet, result_of, run
from support.java import JavaUnavailable
from support.versitygw import GoUnavailable


@pytest.mark.long
def test_servers_that_crash_in_turns_lose_nothing() -> None:
    try:
        results, sentence = run(records=40_000, rounds=1)
    except (JavaUnavailable, GoUnavailable) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert len(results) == 6
    assert [one.row() for one in results if not one.is_good] == []
    assert " 0 dead letters" in sentence


@pytest.mark.parametrize(
    ("held", "is_exact", "lost", "repeats", "is_good"),
    [
        (["m-0", "m-1", "m-2"], True, 0, 0, True), (["m-0", "m-2"], False, 1, 0, False),
        (["m-0", "m-1", "m-1", "m-2"], True, 0, 1, False),
        (["m-0", "m-1", "m-1", "m-2"], False, 0, 1, True),
    ],
)  # fmt: skip
def test_what_is_missing_and_what_is_doubled_is_found(
    held: list[str], is_exact: bool, lost: int, repeats: int, is_good: bool
) -> None:
    outlet = Outlet("x", "y", "", list, list, lambda: held, is_exact)
    result = result_of(outlet, 3)
    assert (result.lost, result.repeats, result.is_good) == (lost, repeats, is_good)
