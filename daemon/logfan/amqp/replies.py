"""What the broker's refusals mean: a code and a text, as AMQP has them. Sans-I/O."""

import re

ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
RESOURCE_ERROR, NOT_ALLOWED, INTERNAL_ERROR = 506, 530, 541

_PASSING = {LOCKED, RESOURCE_ERROR, INTERNAL_ERROR}
_ABSENT = re.compile(
    r"is down or inaccessible|has crashed and failed to restart|process is stopped by supervisor"
    r"|failed to perform operation on queue .{0,600} due to timeout"
)
"""RabbitMQ's words for a queue that it knows and cannot reach."""
_LIMIT = re.compile(r"connection limit|connections? .{0,40}limit|number of channels opened")
_TIMED_OUT = re.compile(r"delivery acknowledgement .{0,80}timed out")
_TIMEOUT = re.compile(r"Timeout value used: (\d{1,12}) ms")


def passes_by_itself(code: int, text: str) -> bool:
    """Whether the same request may be granted later though nobody changes anything here: a node
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
