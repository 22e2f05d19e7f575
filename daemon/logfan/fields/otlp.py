"""OpenTelemetry's protocol as JSON: a log record within `resourceLogs`. Sans-I/O."""

from collections.abc import Mapping
from typing import Any

_LISTS = ("resourceLogs", "scopeLogs", "logRecords")


def otlp_record(tree: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The one log record of an export request; None where that holds several, or is none."""
    found: Any = tree
    for name in _LISTS:
        items = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(items, list) or len(items) != 1:
            return None
        found = items[0]
    return found if isinstance(found, Mapping) else None
