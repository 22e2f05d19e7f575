"""What the broker's refusals mean. The texts are RabbitMQ's, of 3.10, 4.0 and 4.3."""

import pytest

from logfan.amqp import broker_features as features

HOME = "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible"
# The same on RabbitMQ 4.0, after 74 seconds.
UNANSWERED = "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout"
TIMED_OUT = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: "
    "5000 ms. This timeout value can be configured, see consumers doc guide to learn more"
)
REACHED = "connection limit (0) is reached"
CHANNELS = (
    "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user "
    "limit of (1)"
)


@pytest.mark.parametrize(
    ("code", "text", "passes"),
    [
        (404, HOME, True),
        (404, UNANSWERED, True),
        (404, "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart", True),
        (404, "NOT_FOUND - no queue 'q' in vhost '/'", False),
        (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", True),
        (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'", False),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", True),
        (406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'logs'", False),
        (530, f"NOT_ALLOWED - access to vhost '/' refused for user 'u': {REACHED}", True),
        (530, f"NOT_ALLOWED - connection refused for user 'u': user {REACHED}", True),
        (530, CHANNELS, True),
        (530, "NOT_ALLOWED - vhost nowhere not found", False),
        (541, "INTERNAL_ERROR", True),
    ],
)  # fmt: skip
def test_what_passes_by_itself(code: int, text: str, passes: bool) -> None:
    assert features.passes_by_itself(code, text) is passes


def test_a_channel_too_many_is_distinguished_from_a_connection_too_many() -> None:
    assert features.is_channel_limit(530, CHANNELS)
    assert not features.is_channel_limit(530, "NOT_ALLOWED - user connection limit (0) is reached")


def test_the_consumer_timeout_is_read_from_the_reply() -> None:
    assert features.acknowledgement_timeout(406, TIMED_OUT) == 5.0
    assert features.acknowledgement_timeout(406, "PRECONDITION_FAILED - unknown tag 7") is None
    assert features.acknowledgement_timeout(541, TIMED_OUT) is None
