"""The table of all checks, in the order in which they run."""

from logfan.doctor import (
    connection,
    exchange,
    machine,
    management,
    permissions,
    queues,
    sample,
    sinks,
)
from logfan.doctor.examination import Check

CHECKS: tuple[Check, ...] = (
    *connection.CHECKS, *exchange.CHECKS, *queues.CHECKS, *permissions.CHECKS,
    *management.CHECKS, *sample.CHECKS, *machine.CHECKS, *sinks.CHECKS,
)  # fmt: skip
SHORT: tuple[Check, ...] = tuple(check for check in CHECKS if check.short)
"""Those of `logfan check --connect`."""


def page() -> str:
    """The table, as Markdown for the docs."""
    lines = ["| check | asks | by | at worst |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{check.name}` | {check.asks} | {check.by} | {check.worst.value} |" for check in CHECKS
    ]
    return "\n".join(lines) + "\n"
