"""The check of the sinks' other sides: `open`, then `close`; nothing is written."""

import threading
from collections.abc import Iterator

from logfan.config.loader import SinkSpec
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import Finding, Severity, danger, ok, skipped, warning
from logfan.runtime.foreign_text import describe, line_of
from logfan.sink import SinkUnavailable

_SECONDS = 15.0
_HERE = {"stdout", "metrics"}
_NOT_OPENED = {
    "file": "to open it would create or lock the file; the disk checks look at its path",
    "sqlite": "to open it would create the database; the disk checks look at its path",
    "postgres": "to open it may create the table; `logfan try --sink` does it for real",
}
"""Kinds whose `open` leaves something behind, with the reason why they are not opened."""


def other_sides(exam: Examination) -> Iterator[Finding]:
    """Each sink's other side takes us: `open`, then `close`."""
    for spec in exam.prepared.sinks:
        kind = spec.kind.kind
        if kind in _HERE:
            yield ok(f"sink {spec.name} ({kind}) has no other side")
        elif kind in _NOT_OPENED:
            yield skipped(f"sink {spec.name} ({kind}): {_NOT_OPENED[kind]}")
        else:
            yield _opened(spec, exam.settings.instance)


def _opened(spec: SinkSpec, instance: str) -> Finding:
    why: list[str] = []
    done = threading.Event()

    def visit() -> None:
        # A plugin's own code, which may raise anything and may hang.
        sink = None
        try:
            sink = spec.kind.cls(spec.config, name=spec.name, instance=instance)
            sink.open()
        except SinkUnavailable as error:
            why.append(line_of(error) or "unavailable")
        except BaseException as error:  # noqa: BLE001
            why.append(describe(error))
        done.set()
        if sink is not None:
            try:
                sink.close()
            except BaseException as error:  # noqa: BLE001
                why.append(f"close failed: {describe(error)}")

    thread = threading.Thread(target=visit, name=f"doctor-{spec.name}", daemon=True)
    thread.start()
    if not done.wait(_SECONDS):
        why.append(f"it did not open within {_SECONDS:.0f} s")
    thread.join(1.0)
    if not why:
        return ok(f"sink {spec.name} ({spec.kind.kind}) opens")
    what = f"sink {spec.name} ({spec.kind.kind}) does not open: {why[0]}"
    do = f"see to the other side, or correct its options (`logfan sinks {spec.kind.kind}`)"
    if spec.settings.required:
        return danger(what, "`run` consumes nothing before it has opened once", do)
    return warning(what, "what it misses is lost to it, and counted", do)


CHECKS = (Check("sink", "sinks", Severity.DANGER, other_sides),)
