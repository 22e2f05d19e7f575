"""The way to the dead-letter queue, against a broker that answers late or refuses one letter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pika import spec

from logfan.amqp.blocking import BlockingConnection
from logfan.amqp.publisher import Window
from logfan.config.settings import RabbitmqSettings, Settings, SinkSettings
from logfan.dead_letters import publisher
from logfan.dead_letters.letter import Refusal
from logfan.dead_letters.publisher import DeadLetters, Sending
from logfan.testing import record
from support.scripted import Peer, ScriptedBroker
from support.waiting import wait_until


def refusal(body: bytes, *, alone: bool = False, **properties: Any) -> Refusal:
    return Refusal(record(body, **properties), "archive", "too old", 1, 0.0, alone)


def settings_at(broker: ScriptedBroker) -> Settings:
    # Heartbeats, which this broker does not send, end no connection while a test waits.
    rabbitmq = {"urls": [broker.url], "reconnect": {"initial": "10ms", "max": "10ms"}}
    return Settings(
        sinks={"archive": SinkSettings(kind="stdout")},
        rabbitmq=RabbitmqSettings.model_validate({**rabbitmq, "heartbeat": "10m"}),
    )


@contextmanager
def dead_letters(broker: ScriptedBroker) -> Iterator[DeadLetters]:
    letters = DeadLetters(settings_at(broker), on_fault=lambda: None)
    letters.start()
    try:
        yield letters
    finally:
        letters.finish(5.0)


def published(broker: ScriptedBroker, number: int, *bodies: bytes) -> Peer:
    """The connection with this number, once these bodies came on it."""
    wait_until(
        lambda: len(broker.peers) > number and broker.peers[number].published == [*bodies],
        f"{bodies!r} are published on connection {number}",
    )
    return broker.peers[number]


def failures(sending: Sending) -> dict[int, tuple[str, bool]]:
    assert sending.wait(60)
    return {index: (failure.why, failure.own) for index, failure in sending.failures.items()}


def test_a_late_confirm_of_the_connection_before_settles_no_letter() -> None:
    with ScriptedBroker() as broker, dead_letters(broker) as letters:
        first = letters.send([refusal(b"first"), refusal(b"second")])
        before = published(broker, 0, b"first", b"second")
        before.keeps = True
        before.give_back()
        assert "is gone" in failures(first)[0][0]
        later = letters.send([refusal(b"later")])
        now = published(broker, 1, b"later")
        assert before.closing.wait(60)
        # The channel before is still being closed, and what it says is about its own letters.
        before.say(spec.Basic.Ack(1))
        before.say(spec.Basic.Ack(2, multiple=True))
        before.give_back()
        assert not later.wait(0.5), "confirmed by the connection before"
        before.let_go()
        now.say(spec.Basic.Ack(1))
        assert failures(later) == {}
        assert len(broker.peers) == 2, "a late return ended the connection that lives"


def test_a_return_fails_what_its_channel_has_not_confirmed_and_no_more() -> None:
    with ScriptedBroker() as broker, dead_letters(broker) as letters:
        sending = letters.send([refusal(b"one"), refusal(b"two"), refusal(b"three")])
        peer = published(broker, 0, b"one", b"two", b"three")
        peer.say(spec.Basic.Ack(1))
        peer.say(spec.Basic.Nack(2, requeue=False))
        peer.give_back()
        outcome = failures(sending)
        assert set(outcome) == {1, 2}
        assert "did not take" in outcome[1][0]
        assert "is gone" in outcome[2][0]
        assert not any(own for _, own in outcome.values())
        again = letters.send([refusal(b"again")])
        published(broker, 1, b"again").say(spec.Basic.Ack(1))
        assert failures(again) == {}


def test_of_letters_that_the_broker_closed_the_channel_for_each_is_sent_by_itself() -> None:
    refused = spec.Channel.Close(406, "PRECONDITION_FAILED - message size 9 is larger", 60, 40)
    with ScriptedBroker() as broker, dead_letters(broker) as letters:
        sending = letters.send([refusal(b"good"), refusal(b"bad"), refusal(b"fine")])
        published(broker, 0, b"good", b"bad", b"fine").say(refused)
        peer = published(broker, 1, b"good")
        peer.say(spec.Basic.Ack(1))
        published(broker, 1, b"good", b"bad").say(refused)
        peer = published(broker, 2, b"fine")
        assert not sending.wait(0)
        peer.say(spec.Basic.Ack(1))
        assert list(failures(sending)) == [1]
        why, own = failures(sending)[1]
        assert own
        assert "message size 9 is larger" in why
        again = letters.send([refusal(b"bad", alone=True), refusal(b"other")])
        peer = published(broker, 2, b"fine", b"bad")
        peer.say(refused)
        published(broker, 3, b"other").say(spec.Basic.Ack(1))
        assert list(failures(again)) == [0]


@pytest.mark.parametrize("frame_max", [4096, 8192])
def test_a_letter_fits_into_the_frame_that_was_agreed_upon(frame_max: int) -> None:
    with ScriptedBroker(frame_max) as broker, dead_letters(broker) as letters:
        headers = {"trace": "s" * (frame_max - 100)}
        sending = letters.send([refusal(b"", headers=headers)])
        wait_until(lambda: broker.peers and broker.peers[0].published, "it is published")
        assert broker.peers[0].header_bytes[0] <= frame_max
        assert broker.peers[0].published[0].endswith(b"s" * 1000)
        broker.peers[0].say(spec.Basic.Ack(1))
        assert failures(sending) == {}


def test_a_letter_that_the_broker_never_confirms_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "_SILENT_TICKS", 2)
    monkeypatch.setattr(publisher, "_TICK_SECONDS", 0.1)
    with ScriptedBroker() as broker, dead_letters(broker) as letters:
        sending = letters.send([refusal(b"one"), refusal(b"two")])
        assert "has confirmed none" in failures(sending)[1][0]
        monkeypatch.undo()
        again = letters.send([refusal(b"two")])
        published(broker, 1, b"two").say(spec.Basic.Ack(1))
        assert failures(again) == {}


def test_what_waits_in_the_queue_is_counted_while_it_is_known() -> None:
    counts: list[int | None] = []
    with ScriptedBroker() as broker:
        letters = DeadLetters(settings_at(broker), lambda: None, on_count=counts.append)
        letters.start()
        letters.begin()
        wait_until(lambda: counts == [0], "they are counted")
        broker.peers[0].cut()
        wait_until(lambda: counts[:3] == [0, None, 0], "and again by the next connection")
        letters.finish(5.0)


def test_a_queue_that_does_not_answer_is_not_known_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"_SILENT_TICKS": 2, "_TICK_SECONDS": 0.1, "_COUNT_TICKS": 1}.items():
        monkeypatch.setattr(publisher, name, value)
    monkeypatch.setattr("logfan.amqp.client._CLOSE_SECONDS", 0.2)
    counts: list[int | None] = []
    with ScriptedBroker() as broker:
        letters = DeadLetters(settings_at(broker), lambda: None, on_count=counts.append)
        letters.start()
        letters.begin()
        wait_until(lambda: counts, "they are counted")
        broker.peers[0].ignores = (spec.Queue.Declare,)
        wait_until(lambda: None in counts, "the connection is given up")
        monkeypatch.undo()
        wait_until(lambda: counts[-1] == 0 and not letters._leaving, "counted by the next one")
        letters.finish(5.0)


def test_nothing_connects_before_the_consumer_or_a_letter_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "_TICK_SECONDS", 0.1)
    monkeypatch.setattr(publisher, "_RECONNECT_MAX_SECONDS", 0.5)
    with ScriptedBroker() as broker:
        connected = False
        letters = DeadLetters(settings_at(broker), lambda: None, lambda: connected)
        letters.start()
        letters.begin()
        sending = letters.send([refusal(b"one")])
        assert not sending.wait(0.5)
        assert not broker.peers, "it went before the consumer"
        connected = True
        published(broker, 0, b"one").say(spec.Basic.Ack(1))
        assert failures(sending) == {}
        connected = False
        wait_until(broker.peers[0].closing.is_set, "the connection is given up for the consumer's")
        letters.finish(5.0)


def test_the_confirms_of_a_window_are_those_of_its_own_channel() -> None:
    with ScriptedBroker() as broker, BlockingConnection(settings_at(broker)) as link:
        before, now = Window(link.channel()), Window(link.channel())
        before.publish("", "q", b"before", spec.BasicProperties())
        now.publish("", "q", b"now", spec.BasicProperties())
        link.until(lambda: broker.peers[0].published == [b"before", b"now"])
        broker.peers[0].say(spec.Basic.Ack(1), channel=1)
        broker.peers[0].say(spec.Basic.Ack(1), channel=1)  # twice: counted once
        link.until(lambda: before.confirmed)
        assert (before.confirmed, len(before), now.confirmed, len(now)) == (1, 0, 0, 1)
        broker.peers[0].say(spec.Basic.Ack(7, multiple=True), channel=2)
        link.until(lambda: now.confirmed)
