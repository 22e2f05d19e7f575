"""What a check finds. Sans-I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

GRANT = "give it with rabbitmqctl set_permissions (systemd/broker.md, Permissions)"
"""The way out where the user lacks a permission."""


class Severity(Enum):
    """Worst first."""

    DANGER = "danger"
    """`run` would fail, or messages get lost."""
    WARNING = "warning"
    """Messages may get lost, or a failure follows, when something else happens."""
    ADVICE = "advice"
    """Worth knowing."""
    OK = "ok"
    SKIPPED = "skipped"
    """Not known; never counted as fine."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    severity: Severity
    what: str
    means: str = ""
    """What follows from it."""
    do: str = ""
    """The way out."""
    check: str = ""
    """The check's name, which the runner fills in."""

    def as_json(self) -> dict[str, str]:
        """With the keys that `--json` promises."""
        return {
            "check": self.check, "severity": self.severity.value, "what": self.what,
            "means": self.means, "do": self.do,
        }  # fmt: skip


def danger(what: str, means: str, do: str) -> Finding:
    """`run` would fail, or messages get lost."""
    return Finding(Severity.DANGER, what, means, do)


def warning(what: str, means: str, do: str) -> Finding:
    """Something more must happen before it does harm."""
    return Finding(Severity.WARNING, what, means, do)


def advice(what: str, means: str, do: str) -> Finding:
    """Worth knowing."""
    return Finding(Severity.ADVICE, what, means, do)


def ok(what: str) -> Finding:
    """It was looked at, and is fine."""
    return Finding(Severity.OK, what)


def skipped(why: str) -> Finding:
    """It cannot be known."""
    return Finding(Severity.SKIPPED, why)


class Unknown(Exception):
    """The check cannot be answered; the text has the reason."""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order of their severity; within one, as they were found."""
    order = list(Severity)
    return sorted(findings, key=lambda one: order.index(one.severity))
