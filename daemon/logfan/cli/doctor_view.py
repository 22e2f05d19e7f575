"""What the doctor found, for the eye and for machines."""

import shutil
import sys
from collections.abc import Iterable, Sequence

import click
import orjson

from logfan.doctor.findings import Finding, Severity, worst_first
from logfan.telemetry.log_output import one_line

_COLOURS = {Severity.DANGER: "red", Severity.WARNING: "yellow", Severity.ADVICE: "cyan"}
_COLUMNS = 80
_INDENT = 9


def as_text(findings: Sequence[Finding]) -> str:
    """Worst first, each with what it means and what to do; then the counts of what is fine and of
    what could not be known. A word stands for each colour."""
    lines: list[str] = []
    for finding in worst_first(findings):
        if colour := _COLOURS.get(finding.severity):
            what = f"{finding.what} [{finding.check}]"
            lines += _wrapped(finding.severity.value, what, colour)
            lines += [*_wrapped("", finding.means), *_wrapped("do", finding.do), ""]
    unknown = [one for one in findings if one.severity is Severity.SKIPPED]
    reasons = {
        one.what: [other.check for other in unknown if other.what == one.what] for one in unknown
    }
    for why, checks in reasons.items():
        lines += _wrapped("skipped", f"{', '.join(checks)}: {why}")
    fine = sum(one.severity is Severity.OK for one in findings)
    counts = [f"{fine} fine"]
    for severity in Severity:
        count = sum(one.severity is severity for one in findings)
        if count and severity is not Severity.OK:
            counts += [f"{count} {severity.value}"]
    return "\n".join([*lines, ", ".join(counts)])


def json_list(findings: Iterable[Finding]) -> str:
    """All of them, worst first."""
    listed = [one.as_json() for one in worst_first(findings)]
    return orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode()


def _wrapped(word: str, text: str, colour: str | None = None) -> list[str]:
    """The text, wrapped, with the word in front of its first line."""
    from rich.console import Console
    from rich.text import Text

    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns if sys.stdout.isatty() else _COLUMNS
    width = max(40, min(columns, 100)) - _INDENT
    console = Console(width=width, force_terminal=False)
    shown = [line.plain.rstrip() for line in Text(one_line(text)).wrap(console, width)]
    head = f"{word:<{_INDENT}}"
    first = click.style(head, fg=colour, bold=True) if colour else head
    return [f"{first}{shown[0]}", *(" " * _INDENT + line for line in shown[1:])]
