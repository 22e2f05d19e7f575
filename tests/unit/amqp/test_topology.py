"""What is declared, and what is made of the broker's answers."""

from collections.abc import Sequence
from typing import Any

import pytest

from logfan.amqp.queue_kinds import Difference, Shape
from logfan.amqp.topology import (
    Answer,
    Bind,
    Declared,
    DeclareExchange,
    DeclareQueue,
    Step,
    Steps,
    TopologyMismatch,
    dead_letter_queue,
    declare,
)
from logfan.config.settings import ExchangeSettings, QueueSettings


def played(
    answers: Sequence[Answer],
    exchange: ExchangeSettings | None = None,
    queue: QueueSettings | None = None,
    *,
    known: Declared | None = None,
    version: tuple[int, ...] = (),
) -> tuple[list[Step], Declared]:
    """The steps asked for, given these answers (then yes to all), and the result."""
    steps: list[Step] = []
    waiting = list(answers)
    road = declare(
        exchange or ExchangeSettings(), queue or QueueSettings(), known=known, version=version
    )
    step = next(road)
    while True:
        steps.append(step)
        named = step.queue if isinstance(step, DeclareQueue) else ""
        answer = waiting.pop(0) if waiting else Answer(queue=named or "amq.gen-1")
        try:
            step = road.send(answer)
        except StopIteration as end:
            return steps, end.value


BOUND = Bind("logfan", "logs", "")
GONE = Answer(404, "NOT_FOUND - no exchange 'logs' in vhost '/'")
DIFFERS = (
    "PRECONDITION_FAILED - inequivalent arg '{}' for {} in vhost '/': received {} but current is {}"
)
TEN = "the value '10' of type 'signedint'"


def test_what_is_not_there_is_made_and_bound() -> None:
    steps, declared = played([GONE, Answer(), GONE])
    assert [getattr(step, "passive", None) for step in steps] == [True, False, True, False, None]
    assert steps[-1] == Bind("logfan", "logs", "")
    # The type is sent: a virtual host may have another default.
    assert declared.shape == Shape(arguments={"x-queue-type": "classic"})
    assert declared.bindings == (BOUND,)
    assert (declared.made_exchange, declared.made_queue) == (True, True)


def test_a_queue_that_was_there_without_its_exchange_is_distinguished_from_a_new_one() -> None:
    _, declared = played([GONE, Answer()])
    assert (declared.made_exchange, declared.made_queue) == (True, False)


@pytest.mark.parametrize("durable", [True, False])
def test_an_exchange_that_is_not_durable_is_reported_with_the_way_out(durable: bool) -> None:
    differs = DIFFERS.format("durable", "exchange 'logs'", f"'{not durable}'", f"'{durable}'")
    settings = ExchangeSettings(durable=not durable)
    _, declared = played([Answer(), Answer(406, differs.lower())], settings)
    assert declared.durable is durable
    assert durable or "is not durable: a restart of the broker removes it" in declared.remarks[0]
    assert durable or "exchange.durable = true here" in declared.remarks[0]
    assert len(declared.remarks) == (not durable)


def test_the_brokers_own_exchange_is_not_compared() -> None:
    """RabbitMQ would log an error for its own log's exchange, which is internal."""
    settings = ExchangeSettings(name="amq.rabbitmq.log", type="topic")
    steps, declared = played([Answer(), Answer()], settings)
    exchanges = [step for step in steps if isinstance(step, DeclareExchange)]
    assert [step.passive for step in exchanges] == [True]
    assert declared.durable is True
    assert not declared.remarks


def test_what_is_there_is_only_asked_for_after_the_first_time() -> None:
    steps, _ = played([], known=Declared("logfan"))
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
        (
            DIFFERS.format("type", "exchange 'h'", "'fanout'", "''x-consistent-hash''"),
            ("type", "fanout", "x-consistent-hash"),
        ),
        (
            DIFFERS.format("type", "exchange 'h'", "''x-consistent-hash''", "'fanout'"),
            ("type", "x-consistent-hash", "fanout"),
        ),
    ],
)  # fmt: skip
def test_the_argument_that_differs_is_read_out_of_the_brokers_words(
    text: str, expected: tuple[str, str, str]
) -> None:
    difference = Difference.of(text)
    assert difference is not None
    assert (difference.argument, difference.ours, difference.theirs) == expected


@pytest.mark.parametrize(
    ("theirs", "way_out"),
    [
        ("'topic'", 'set exchange.type = "topic", or'),
        ("''x-consistent-hash''", 'set exchange.type = "x-consistent-hash", or'),
        ("''x-random''", 'set exchange.declare = "never", or'),
    ],
)
def test_the_way_out_of_another_type_of_exchange_is_what_the_config_takes(
    theirs: str, way_out: str
) -> None:
    text = DIFFERS.format("type", "exchange 'logs'", "'fanout'", theirs)
    with pytest.raises(TopologyMismatch) as mismatch:
        played([Answer(), Answer(406, text)])
    assert way_out in str(mismatch.value)
    assert f"but {theirs.replace(chr(39) * 2, chr(39))} on the broker" in str(mismatch.value)


def test_a_broker_that_may_not_be_asked_is_used_as_it_stands() -> None:
    refused = Answer(403, "ACCESS_REFUSED - access to exchange 'logs' refused")
    _, declared = played([Answer(), refused, Answer(), refused], version=(3, 10, 8))
    assert declared == Declared("logfan", bindings=(BOUND,))
    _, declared = played([Answer(), refused, Answer(), refused], version=(4, 0, 5))
    assert declared.delivery_limit == 20
    assert "queue.delivery_limit names the limit in force" in declared.remarks[0]
    settings = QueueSettings(delivery_limit="none")
    _, declared = played([Answer(), refused, Answer(), refused], queue=settings, version=(4, 0, 5))
    assert declared == Declared("logfan", bindings=(BOUND,))


def test_a_topic_exchange_is_bound_with_everything() -> None:
    steps, _ = played([], ExchangeSettings(type="topic"))
    assert steps[-1] == Bind("logfan", "logs", "#")


def test_bindings_can_be_chosen() -> None:
    steps, _ = played([], queue=QueueSettings(routing_keys=("a", "b")))
    assert steps[-2:] == [Bind("logfan", "logs", "a"), Bind("logfan", "logs", "b")]


def test_never_declares_nothing_at_all() -> None:
    exchange, queue = ExchangeSettings(declare="never"), QueueSettings(declare="never")
    road = declare(exchange, queue, version=(3, 10, 8))
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
    assert ("drops a message" in "".join(declared.remarks)) == (limit is not None)


def test_the_dead_letter_queue_is_durable_and_of_the_same_kind() -> None:
    road = dead_letter_queue("logfan.dead", "quorum")
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
    with pytest.raises(TopologyMismatch) as mismatch:
        played(answers)
    assert words in str(mismatch.value)


class Broker:
    """A queue that others declared; answers declarations as RabbitMQ does, one at a time."""

    def __init__(self, **properties: Any) -> None:
        self.properties = {"durable": True, "auto_delete": False, **properties}
        self.refusals = 0

    def answer(self, step: Step) -> Answer:
        if not isinstance(step, DeclareQueue) or step.passive:
            return Answer()
        asked: dict[str, Any] = {
            "durable": step.durable, "auto_delete": step.auto_delete, **step.arguments
        }  # fmt: skip
        for name in sorted({*self.properties, *asked}, key=lambda name: (name[:2] == "x-", name)):
            ours, theirs = asked.get(name), self.properties.get(name)
            if name == "x-queue-type":
                ours, theirs = ours or "classic", theirs or "classic"
            if ours != theirs:
                self.refusals += 1
                text = f"PRECONDITION_FAILED - inequivalent arg '{name}' for queue '{step.queue}' "
                text += f"in vhost '/': received {self.shown(ours, theirs)} but current is "
                text += self.shown(theirs, ours)
                return Answer(406, text[:255])
        return Answer(queue=step.queue)

    @staticmethod
    def shown(value: Any, other: Any) -> str:
        text = f"'{str(value).lower() if isinstance(value, bool) else value}'"
        if value is None or other is not None:
            return "none" if value is None else text
        names = {int: "signedint", bool: "bool", str: "longstr", list: "array"}
        return f"the value {text} of type '{names[type(value)]}'"


def settled(
    broker: Broker, queue: QueueSettings | None = None, version: tuple[int, ...] = (3, 10, 8)
) -> Declared:
    """What comes of declaring against this broker."""
    return walked(
        declare(ExchangeSettings(durable=True), queue or QueueSettings(), version=version), broker
    )


def walked(road: Steps[Declared], broker: Broker) -> Declared:
    step = next(road)
    while True:
        try:
            step = road.send(broker.answer(step))
        except StopIteration as end:
            declared: Declared = end.value
            return declared


LIMITED: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 3}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize(
    "further",
    [
        {}, {"x-max-length": 100, "x-overflow": "reject-publish"},
        {"x-expires": 3_600_000, "x-single-active-consumer": True, "x-a": "b", "x-max-length": 5},
    ],
)  # fmt: skip
def test_the_limit_is_found_behind_all_other_differences(
    kind: Any, further: dict[str, Any]
) -> None:
    broker = Broker(**LIMITED, **further)
    declared = settled(broker, QueueSettings(type=kind))
    assert declared.delivery_limit == 3
    assert declared.shape == Shape(arguments={**LIMITED, **further})
    assert "x-delivery-limit is '3' on the broker" in "".join(declared.remarks)


def test_a_queue_without_a_limit_gets_the_brokers_default() -> None:
    assert settled(Broker(**{"x-queue-type": "quorum", "x-max-length": 9})).delivery_limit is None
    declared = settled(Broker(**{"x-queue-type": "quorum", "x-max-length": 9}), version=(4, 0, 5))
    assert declared.delivery_limit == 20
    assert settled(Broker(**{"x-max-length": 9}), version=(4, 0, 5)).delivery_limit is None


def test_what_cannot_be_taken_over_leaves_a_careful_guess() -> None:
    broker = Broker(**LIMITED, **{"x-array": [1, 2]})
    declared = settled(broker, QueueSettings(type="quorum"), version=(4, 0, 5))
    assert declared.kind == ""
    assert declared.delivery_limit == 20
    assert broker.refusals == 1


def test_a_long_name_cuts_the_brokers_text_and_flags_and_type_are_found_all_the_same() -> None:
    queue = QueueSettings(name="q" * 200)
    broker = Broker(durable=False, **{"x-queue-type": "quorum"})
    assert settled(broker, queue).kind == "quorum"
    with pytest.raises(TopologyMismatch, match="is a stream"):
        settled(Broker(**{"x-queue-type": "stream"}), queue)
    declared = settled(Broker(**LIMITED), queue, version=(4, 0, 5))
    assert (declared.kind, declared.delivery_limit) == ("", 20)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_stream_is_refused_with_a_way_out(kind: Any) -> None:
    with pytest.raises(TopologyMismatch, match=r"is a stream.*bind a classic or a quorum queue"):
        settled(Broker(**{"x-queue-type": "stream"}), QueueSettings(type=kind))


@pytest.mark.parametrize(
    ("named", "declared_with", "version", "limit"),
    [
        (3, None, (3, 10, 8), 3), (3, None, (4, 0, 5), 3), (30, None, (4, 0, 5), 30),
        ("none", None, (4, 0, 5), None), (30, 5, (4, 0, 5), 5), ("none", 5, (3, 10, 8), 5),
        (3, 2**31 - 1, (4, 3, 6), 3), ("none", 2**31 - 1, (3, 10, 8), None),
    ],
)  # fmt: skip
def test_the_named_limit_is_the_one_in_force_but_for_a_lower_one_of_the_declaration(
    named: Any, declared_with: int | None, version: tuple[int, ...], limit: int | None
) -> None:
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if declared_with is not None:
        arguments["x-delivery-limit"] = declared_with
    queue = QueueSettings(type="quorum", delivery_limit=named)
    assert settled(Broker(**arguments), queue, version).delivery_limit == limit


def test_a_queue_that_goes_without_consumers_is_not_left_alone() -> None:
    assert not settled(Broker()).needs_stand_in
    assert not settled(Broker(**{"x-single-active-consumer": True})).needs_stand_in
    assert settled(Broker(auto_delete=True)).needs_stand_in
    assert settled(Broker(**{"x-expires": 1000})).needs_stand_in
    limited = settled(Broker(**{"x-expires": 9000, "x-queue-type": "quorum"}), version=(4, 0, 5))
    assert limited.delivery_limit == 20
    assert limited.needs_stand_in
    assert limited.spare_seconds == 4.5
    assert settled(Broker(auto_delete=True, **{"x-expires": 9000})).spare_seconds == 0


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"durable": False}, "do not survive a restart"), ({"auto_delete": True}, "is deleted"),
        ({"x-expires": 9000}, "no consumer for 9,000 ms"), ({"x-message-ttl": 9}, "drops what"),
        ({"x-max-length": 9}, "drops the oldest"), ({"x-single-active-consumer": True}, "stand by"),
        ({"x-max-length": 9, "x-overflow": "reject-publish"}, "takes no more"),
    ],
)  # fmt: skip
def test_a_remark_names_the_property_the_consequence_and_the_way_out(
    properties: dict[str, Any], words: str
) -> None:
    (remark,) = settled(Broker(**properties)).remarks
    assert f"queue 'logfan' is used as it stands: {next(iter(properties))} is" in remark
    assert words in remark
    assert len(remark.split("; ")) == 3


@pytest.mark.parametrize(
    "properties",
    [
        {"x-max-priority": 5}, {"x-queue-mode": "lazy"}, {"x-queue-version": 2},
        {"x-queue-type": "quorum"}, {"x-dead-letter-exchange": "dlx"},
    ],
)  # fmt: skip
def test_what_does_no_harm_is_no_warning(properties: dict[str, Any]) -> None:
    assert settled(Broker(**properties)).remarks == ()


def test_a_wish_of_the_config_that_is_not_in_force_is_reported() -> None:
    queue = QueueSettings(arguments={"x-max-length": 1000})
    (remark,) = settled(Broker(), queue).remarks
    assert "x-max-length is 'none' on the broker, '1000' in the config; what the config" in remark
    (remark,) = settled(Broker(), QueueSettings(type="quorum")).remarks
    assert "x-queue-type is 'classic' on the broker" in remark


def test_a_durable_exchange_is_no_warning() -> None:
    text = DIFFERS.format("durable", "exchange 'logs'", "'false'", "'true'")
    _, declared = played([Answer(), Answer(406, text)])
    assert declared.remarks == ()
    text = DIFFERS.format("durable", "exchange 'logs'", "'true'", "'false'")
    _, declared = played([Answer(), Answer(406, text)], ExchangeSettings(durable=True))
    assert "is not durable: a restart of the broker removes it" in declared.remarks[0]


def test_a_queue_made_anew_by_others_is_looked_at_again() -> None:
    known = settled(Broker(**LIMITED))
    broker = Broker(**{**LIMITED, "x-delivery-limit": 7})
    anew = walked(declare(ExchangeSettings(), QueueSettings(), known=known), broker)
    assert anew.delivery_limit == 7
    assert len(anew.remarks) == 1
    broker.refusals = 0
    again = walked(declare(ExchangeSettings(), QueueSettings(), known=anew), broker)
    # The broker logs each refusal: what is as it was causes none, and no remark.
    assert (broker.refusals, again.remarks) == (0, ())


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"x-queue-type": "stream"}, "a stream"), ({"x-message-ttl": 1000}, "after 1000 ms"),
        ({"x-expires": 59_999}, "after 59999 ms"), ({"x-max-length": 0}, "keeps no letter"),
        ({"x-max-length-bytes": 0}, "keeps no letter"),
    ],
)  # fmt: skip
def test_a_dead_letter_queue_that_loses_letters_at_once_is_refused(
    properties: dict[str, Any], words: str
) -> None:
    road = dead_letter_queue("logfan.dead", "classic")
    with pytest.raises(TopologyMismatch, match=words) as mismatch:
        walked(road, Broker(**properties))
    assert "name another one in dead_letter.queue" in str(mismatch.value)
    assert mismatch.value.shape is not None


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"durable": False}, "do not survive a restart"), ({"auto_delete": True}, "is deleted"),
        ({"x-expires": 60_000}, "after the last use"), ({"x-message-ttl": 60_000}, "are dropped"),
        ({"x-max-length": 9}, "the oldest letters are dropped"), (LIMITED, "after 3 the broker"),
        ({"x-max-length": 9, "x-overflow": "reject-publish"}, "no letter is taken"),
    ],
)  # fmt: skip
def test_a_dead_letter_queue_that_may_lose_letters_is_reported(
    properties: dict[str, Any], words: str
) -> None:
    (remark,) = walked(dead_letter_queue("logfan.dead", "classic"), Broker(**properties)).remarks
    assert words in remark
    assert "; delete it once it is empty" in remark
