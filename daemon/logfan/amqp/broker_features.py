"""What differs between versions of RabbitMQ, and what its refusals mean. Sans-I/O.

A version is a tuple such as (4, 0, 5), and empty where the broker does not report one. A refusal is
a code and a text, as AMQP has them.
"""

import re
from typing import Any

from logfan.runtime.foreign_text import text_of

ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
CONNECTION_FORCED, RESOURCE_ERROR, NOT_ALLOWED, INTERNAL_ERROR = 320, 506, 530, 541

_PASSING = {LOCKED, RESOURCE_ERROR, INTERNAL_ERROR}
_ABSENT = re.compile(
    r"is down or inaccessible|has crashed and failed to restart|process is stopped by supervisor"
    r"|failed to perform operation on queue .{0,600} due to timeout"
)
"""RabbitMQ's text for a queue that it knows and cannot reach."""
_LIMIT = re.compile(r"connection limit|connections? .{0,40}limit|number of channels opened")
_TIMED_OUT = re.compile(r"delivery acknowledgement .{0,80}timed out")
_TIMEOUT = re.compile(r"Timeout value used: (\d{1,12}) ms")


def broker_version(connection: Any) -> tuple[int, ...]:
    version = (connection.server_properties or {}).get("version", "")
    text = (
        version.decode("utf-8", "replace") if isinstance(version, bytes) else text_of(version, 100)
    )
    return tuple(int(part) for part in re.findall(r"\d{1,9}", text[:100])[:3])


def keeps_transient_exchanges(version: tuple[int, ...]) -> bool:
    """Whether an exchange that is not durable outlives a restart, as do its bindings."""
    return version >= (4, 3)


def limits_returns(version: tuple[int, ...]) -> bool:
    """Whether a quorum queue that was declared without a delivery limit has one, and -1 means none;
    before, no limit was none, and a limit below nothing was the lowest of all."""
    return not version or version >= (4,)


def cancels_on_timeout(version: tuple[int, ...]) -> bool:
    """Whether a consumer of a quorum queue that owes an acknowledgement for too long is cancelled,
    while the queue stays; before, and with other queues, its channel is closed."""
    return not version or version >= (4, 3)


def passes_by_itself(code: int, text: str) -> bool:
    """Whether the same request may be granted later though no one changes anything here: a node
    comes back, another consumer or connection goes."""
    if code == NOT_FOUND:
        return _ABSENT.search(text) is not None
    if code == ACCESS_REFUSED:
        return "in exclusive use" in text
    return code in _PASSING or is_limit(code, text)


def is_limit(code: int, text: str) -> bool:
    """Whether a limit of connections or channels is reached."""
    return code == NOT_ALLOWED and _LIMIT.search(text) is not None


def is_channel_limit(code: int, text: str) -> bool:
    """Whether it is one of channels. The broker closes the connection then."""
    return is_limit(code, text) and "channels" in text


def acknowledgement_timeout(code: int, text: str) -> float | None:
    """The broker's `consumer_timeout` in seconds, where a channel was closed by it."""
    if code != PRECONDITION_FAILED or _TIMED_OUT.search(text) is None:
        return None
    value = _TIMEOUT.search(text)
    return int(value[1]) / 1000 if value is not None else None
