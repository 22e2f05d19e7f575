"""One way to connect: the brokers in turn, and an end that is reported once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pika import spec
from pika.adapters.select_connection import IOLoop

from logfan.amqp.blocking import BlockingConnection, Refused
from logfan.amqp.client import Brokers, Client, Declaring
from logfan.amqp.failures import BrokerError, Cause, ConnectionFailure
from logfan.amqp.publisher import Publisher
from logfan.amqp.topology import publish_to
from logfan.config.settings import ExchangeSettings, RabbitmqSettings, Settings, SinkSettings
from support.scripted import ScriptedBroker
from support.waiting import wait_until

NOWHERE = [f"amqp://user:secret@127.0.0.1:{port}/" for port in (1, 2, 3)]


def settings_of(**rabbitmq: object) -> Settings:
    return Settings(
        sinks={"none": SinkSettings(kind="none")},
        rabbitmq=RabbitmqSettings.model_validate(rabbitmq),
    )


class Seen:
    """What a client reported."""

    def __init__(self) -> None:
        self.opened: list[Client] = []
        self.ends: list[ConnectionFailure] = []

    def connect(self, brokers: Brokers) -> Client:
        return brokers.connect(self.opened.append, lambda _client, why: self.ends.append(why))


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    ioloop = IOLoop()
    ioloop.activate_poller()
    yield ioloop
    ioloop.deactivate_poller()
    ioloop.close()


def turned(loop: IOLoop, done: Callable[[], object], what: str) -> None:
    def turn() -> object:
        loop.call_later(0.05, lambda: None)
        loop.poll()
        loop.process_timeouts()
        return done()

    wait_until(turn, what)


def test_the_brokers_are_asked_in_turn(loop: IOLoop) -> None:
    brokers, seen = Brokers(settings_of(urls=NOWHERE), loop), Seen()
    ports = [seen.connect(brokers).address.rpartition(":")[2] for _ in range(5)]
    assert ports == ["1", "2", "3", "1", "2"]
    assert brokers.count == 3
    turned(loop, lambda: len(seen.ends) == 5, "each end is reported")
    assert {end.cause for end in seen.ends} == {Cause.UNREACHABLE}
    assert not seen.opened


def test_a_client_that_was_closed_reports_no_end(loop: IOLoop) -> None:
    with ScriptedBroker() as broker:
        seen, closed = Seen(), list[bool]()
        early = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        early.close(lambda: closed.append(True))
        turned(loop, lambda: closed, "one that is not open yet is closed")
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        client.close(lambda: closed.append(True))
        turned(loop, lambda: len(closed) == 2, "it is closed")
        client.close(lambda: closed.append(True))
    assert (len(closed), seen.opened, seen.ends) == (3, [client], [])


def test_who_waits_for_the_close_is_called_though_another_closes_too(loop: IOLoop) -> None:
    """A start that gives up closes in its report, and the subscription closes behind it."""
    with ScriptedBroker() as broker:
        seen, closed = Seen(), list[bool]()
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        client.close(lambda: closed.append(True))
        client.close()
        turned(loop, lambda: closed, "it is closed")


def test_a_connection_that_is_lost_is_reported_once(loop: IOLoop) -> None:
    with ScriptedBroker() as broker:
        seen = Seen()
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        broker.peers[0].cut()
        turned(loop, lambda: seen.ends, "it is lost")
        closed: list[bool] = []
        client.close(lambda: closed.append(True))
    assert closed
    assert [end.cause for end in seen.ends] == [Cause.LOST]


@pytest.mark.slow
def test_a_request_without_an_answer_ends_the_connection(
    loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a queue's process hangs in the broker, whose heartbeats go on."""
    monkeypatch.setattr("logfan.amqp.client._ANSWER_SECONDS", 0.5)
    with ScriptedBroker() as broker:
        seen = Seen()
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        (peer,) = broker.peers
        peer.ignores, done = (spec.Exchange.Declare,), list[Any]()
        client.declare(
            publish_to(ExchangeSettings()),
            on_done=lambda *result: done.append(result),
            on_mismatch=done.append,
        )
        until = time.monotonic() + 1.5

        def came() -> bool:
            peer.say(spec.Connection.Unblocked(), 0)
            return time.monotonic() > until

        turned(loop, came, "while something comes, it is waited for")
        assert not seen.ends

        def lost() -> bool:
            peer.beat()
            return bool(seen.ends)

        turned(loop, lost, "with nothing but heartbeats it is lost")
        turned(loop, lambda: client.connection.is_closed, "nothing is left open")
        assert ([end.cause for end in seen.ends], done) == ([Cause.LOST], [])
        assert "has not answered exchange.declare of exchange 'logs'" in seen.ends[0].why


def test_a_command_waits_no_longer_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logfan.amqp.client._ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("logfan.amqp.client._CLOSE_SECONDS", 0.2)
    with ScriptedBroker() as broker:
        connection = BlockingConnection(settings_of(urls=[broker.url]))
        broker.peers[0].ignores = (spec.Queue.Declare, spec.Channel.Close, spec.Connection.Close)
        channel = connection.channel()
        with pytest.raises(BrokerError, match=r"has not answered queue\.declare for 0 s"):
            channel.ask(channel.pika.queue_declare, "logfan.dead", passive=True)
        connection.close()


def test_a_command_waits_for_a_broker_that_takes_nothing_for_now_and_not_for_a_silent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logfan.amqp.client._ANSWER_SECONDS", 0.3)
    with ScriptedBroker() as broker, Publisher(settings_of(urls=[broker.url])) as publisher:
        (peer,) = broker.peers
        peer.say(spec.Connection.Blocked("memory"), 0)
        publisher.send(b"one")
        publisher.drain(1.0)
        assert publisher.unconfirmed == 1
        peer.say(spec.Connection.Unblocked(), 0)
        with pytest.raises(BrokerError, match=r"has not answered basic\.publish"):
            publisher.drain()


def test_a_broker_that_does_not_agree_to_the_end_is_left(
    loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logfan.amqp.client._CLOSE_SECONDS", 0.2)
    with ScriptedBroker() as broker:
        seen, closed = Seen(), list[bool]()
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        broker.peers[0].ignores = (spec.Connection.Close,)
        client.close(lambda: closed.append(True))
        turned(loop, lambda: closed, "who closes it goes on")
        turned(loop, lambda: client.connection.is_closed, "no connection is left behind")


def test_nothing_is_asked_on_a_channel_that_is_being_closed(loop: IOLoop) -> None:
    """Its answer would be an error of pika's in the middle of a read."""
    with ScriptedBroker() as broker:
        seen, channels, done = Seen(), list[Any](), list[Any]()
        client = seen.connect(Brokers(settings_of(urls=[broker.url]), loop))
        turned(loop, lambda: seen.opened, "it is open")
        client.channel(channels.append)
        turned(loop, lambda: channels, "so is a channel")
        declaring: Declaring[None] = Declaring(
            client, channel=channels[0], on_done=lambda *result: done.append(result),
            on_mismatch=done.append,
        )  # fmt: skip
        declaring.begin(publish_to(ExchangeSettings()))
        turned(loop, lambda: done, "the exchange is there")
        channels[0].close()
        declaring.begin(publish_to(ExchangeSettings()))
        turned(loop, lambda: channels[0].is_closed, "the channel is closed")
        closed: list[bool] = []
        client.close(lambda: closed.append(True))
        turned(loop, lambda: closed, "so is the connection")
    assert done == [(channels[0], None)]


def test_a_file_of_urls_that_is_gone_is_no_connection(loop: IOLoop, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(NOWHERE[0])
    brokers, seen = Brokers(settings_of(url_file=str(file)), loop), Seen()
    file.unlink()
    with pytest.raises(BrokerError, match=r"rabbitmq\.url_file"):
        seen.connect(brokers)


def test_a_command_takes_the_first_broker_that_answers() -> None:
    with (
        ScriptedBroker() as broker,
        BlockingConnection(settings_of(urls=[*NOWHERE, broker.url])) as connection,
    ):
        assert connection.address.endswith(f":{broker.port}")
    with pytest.raises(BrokerError, match=":3: connection refused"):
        BlockingConnection(settings_of(urls=NOWHERE))


def test_a_channel_that_the_broker_closes_is_named() -> None:
    with (
        ScriptedBroker() as broker,
        BlockingConnection(settings_of(urls=[broker.url])) as connection,
    ):
        channel = connection.channel("queue 'q'")
        broker.peers[0].say(spec.Channel.Close(404, "NOT_FOUND - no queue 'q'", 50, 10))
        with pytest.raises(Refused, match=r"queue 'q': NOT_FOUND - no queue 'q' \(404\)") as error:
            channel.until(lambda: False)
        assert (error.value.code, error.value.failure.cause) == (404, Cause.REFUSED)
