"""What differs between versions of RabbitMQ."""

import re
from typing import Any

from logfan.runtime.foreign_text import text_of


def broker_version(connection: Any) -> tuple[int, ...]:
    """RabbitMQ's version, such as (4, 0, 5); empty where the broker does not tell."""
    told = (connection.server_properties or {}).get("version", "")
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else text_of(told, 100)
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text[:100])[:3])
