"""What is declared, and what is made of the broker's answers."""

from collections.abc import Sequence

import pytest

from logfan.config import ExchangeSettings, QueueSettings
from logfan.topology import (
    Answer,
    Bind,
    Declared,
    DeclareQueue,
    Difference,
    Step,
    Unfit,
    dead_letter_queue,
    declare,
)


def played(
    answers: Sequence[Answer],
    exchange: ExchangeSettings | None = None,
    queue: QueueSettings | None = None,
    *,
    compare: bool = True,
    version: tuple[int, ...] = (),
) -> tuple[list[Step], Declared]:
    """The steps asked for, given these answers (then yes to all), and the result."""
    steps: list[Step] = []
    waiting = list(answers)
    road = declare(
        exchange or ExchangeSettings(), queue or QueueSettings(), compare=compare, version=version
    )
    step = next(road)
    while True:
        steps.append(step)
        named = step.name if isinstance(step, DeclareQueue) else ""
        answer = waiting.pop(0) if waiting else Answer(queue=named or "amq.gen-1")
        try:
            step = road.send(answer)
        except StopIteration as end:
            return steps, end.value


GONE = Answer(404, "NOT_FOUND - no exchange 'logs' in vhost '/'")
DIFFERS = (
    "PRECONDITION_FAILED - inequivalent arg '{}' for {} in vhost '/': received {} but current is {}"
)
TEN = "the value '10' of type 'signedint'"


def test_what_is_not_there_is_made_and_bound() -> None:
    steps, declared = played([GONE, Answer(), GONE])
    assert [getattr(step, "passive", None) for step in steps] == [True, False, True, False, None]
    assert steps[-1] == Bind("logfan", "logs", "")
    assert declared == Declared("logfan")


def test_what_is_there_is_only_asked_for_after_the_first_time() -> None:
    steps, _ = played([], compare=False)
    assert [getattr(step, "passive", None) for step in steps] == [True, True, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            DIFFERS.format("durable", "exchange 'logs'", "'false'", "'true'"),
            ("durable", "false", "true"),
        ),
        (
            DIFFERS.format("x-max-length", "queue 'q'", "none", TEN),
            ("x-max-length", "none", "10"),
        ),
        (
            DIFFERS.format("x-max-length", "queue 'q'", TEN, "none"),
            ("x-max-length", "10", "none"),
        ),
    ],
)  # fmt: skip
def test_the_argument_that_differs_is_read_out_of_the_brokers_words(
    text: str, expected: tuple[str, str, str]
) -> None:
    difference = Difference.of(Answer(406, text))
    assert difference is not None
    assert (difference.argument, difference.ours, difference.theirs) == expected


def test_a_broker_that_may_not_be_asked_is_used_as_it_stands() -> None:
    refused = Answer(403, "ACCESS_REFUSED - access to exchange 'logs' refused")
    _, declared = played([Answer(), refused])
    assert declared == Declared("logfan")


def test_a_topic_exchange_is_bound_with_everything() -> None:
    steps, _ = played([], ExchangeSettings(type="topic"))
    assert steps[-1] == Bind("logfan", "logs", "#")


def test_bindings_can_be_chosen() -> None:
    steps, _ = played([], queue=QueueSettings(routing_keys=("a", "b")))
    assert steps[-2:] == [Bind("logfan", "logs", "a"), Bind("logfan", "logs", "b")]


def test_never_declares_nothing_at_all() -> None:
    road = declare(ExchangeSettings(declare="never"), QueueSettings(declare="never"), compare=True)
    with pytest.raises(StopIteration) as end:
        next(road)
    assert end.value.value == Declared("logfan")


def test_an_exclusive_queue_gets_its_name_from_the_broker() -> None:
    steps, declared = played([], queue=QueueSettings(type="exclusive"))
    assert declared.queue == "amq.gen-1"
    assert steps[-1] == Bind("amq.gen-1", "logs", "")


def test_a_quorum_queue_is_asked_for_as_one() -> None:
    steps, _ = played([Answer(), Answer(), GONE], queue=QueueSettings(type="quorum"))
    made = steps[3]
    assert isinstance(made, DeclareQueue)
    # None, as on RabbitMQ before 4, and -1, as since, each lose messages on the other.
    assert made.arguments == {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}


@pytest.mark.parametrize(
    ("current", "version", "limit"),
    [
        ("none", (3, 10, 8), None), ("none", (4, 0, 5), 20), ("'5'", (3, 10, 8), 5),
        ("'5'", (4, 3, 6), 5), ("the value '-1' of type 'signedint'", (4, 3, 6), None),
        ("the value '-1' of type 'signedint'", (3, 10, 8), 0),
    ],
)  # fmt: skip
def test_the_limit_of_a_queue_that_others_declared_is_read(
    current: str, version: tuple[int, ...], limit: int | None
) -> None:
    text = DIFFERS.format("x-delivery-limit", "queue 'logfan'", "'2147483647'", current)
    answers = [Answer(), Answer(), Answer(), Answer(406, text)]
    _, declared = played(answers, queue=QueueSettings(type="quorum"), version=version)
    assert declared.delivery_limit == limit
    assert ("drops a message" in declared.remarks[0]) == (limit is not None)


def test_the_dead_letter_queue_is_durable_and_of_the_same_kind() -> None:
    road = dead_letter_queue("logfan.dead", quorum=True)
    assert next(road) == DeclareQueue("logfan.dead", passive=True)
    made = road.send(Answer(404, "NOT_FOUND"))
    assert isinstance(made, DeclareQueue)
    assert made.durable
    assert made.arguments["x-queue-type"] == "quorum"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Answer(403, "ACCESS_REFUSED")], "exchange 'logs': ACCESS_REFUSED (403)"),
        ([GONE, Answer(403, "ACCESS_REFUSED")], "exchange 'logs' may not be declared"),
        ([Answer(), Answer(), Answer(405, "RESOURCE_LOCKED")], "exclusive to another connection"),
        ([Answer(), Answer(), GONE, Answer(403, "NO")], "queue 'logfan' may not be declared"),
        (
            [Answer(), Answer(), Answer(), Answer(), Answer(404, "no exchange")],
            "queue 'logfan' may not be bound to exchange 'logs': no exchange (404)",
        ),
    ],
)
def test_a_refusal_names_the_thing(answers: list[Answer], words: str) -> None:
    with pytest.raises(Unfit) as unfit:
        played(answers)
    assert words in str(unfit.value)
