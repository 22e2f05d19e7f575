"""Where a server is, and how long it may be waited for: values that every library takes."""

from typing import Annotated
from urllib.parse import SplitResult

from pydantic import Field

import logfan

Timeout = Annotated[logfan.Duration, Field(ge=0.001, le=86_400)]
"""Seconds. None at all is no time in which a server could answer; and milliseconds of more than 24
days do not fit the 32 bits that some count them in."""


def is_address(parts: SplitResult) -> bool:
    """Whether the URL names a host that can be looked for, and no port that cannot be."""
    try:
        return bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:  # UnicodeError is one: a label that is empty or too long
        return False
