"""What differs between versions of RabbitMQ. A version is a tuple such as (4, 0, 5), and empty
where the broker does not report one."""

import re
from typing import Any

from logfan.runtime.foreign_text import text_of


def broker_version(connection: Any) -> tuple[int, ...]:
    """RabbitMQ's version."""
    version = (connection.server_properties or {}).get("version", "")
    text = (
        version.decode("utf-8", "replace") if isinstance(version, bytes) else text_of(version, 100)
    )
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text[:100])[:3])


def keeps_transient_exchanges(version: tuple[int, ...]) -> bool:
    """Whether an exchange that is not durable outlives a restart, as do its bindings."""
    return version >= (4, 3)
