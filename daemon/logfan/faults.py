"""A fault in what people wrote: where it is, what is wrong, what would be right. Sans-I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `place` is a key path (`sinks.archive.path`), a file or a distribution."""

    place: str
    problem: str
    value: str | None = None
    """The offending value as it would be written in TOML; None where there is none to show
    or where it is a secret."""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value}"
        return f"{self.place}{shown}: {self.problem}"


class Faults(Exception):
    """Every fault that was found, in the order of the places. The command line exits 78."""

    def __init__(
        self, faults: Iterable[Fault], states: Mapping[Path, object] = MappingProxyType({})
    ) -> None:
        """`states`: what the files that the config names were like, as far as they are known."""
        self.faults = tuple(faults)
        self.states = states
        super().__init__("\n".join(str(fault) for fault in self.faults))


def did_you_mean(wrong: str, right: Iterable[str], what: str = "") -> str:
    """`; did you mean …?` for a near miss, else all that would be right, after what they are; an
    empty string where that is not given."""
    known = list(right)
    if near := get_close_matches(wrong[:_NAME_LENGTH], known, 1, 0.6):
        return f'; did you mean "{near[0]}"?'
    return f"; {what}: {', '.join(known)}" if what else ""
