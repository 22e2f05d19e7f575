"""Where pika's internals are not as the fast path needs them, pika reads, and one line warns."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pika
import pytest
from pika import connection, frame
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from logfan.amqp import pika_internals
from logfan.amqp.client import Brokers
from logfan.amqp.subscription import Subscription
from logfan.config.settings import (
    ExchangeSettings,
    QueueSettings,
    RabbitmqSettings,
    Settings,
    SinkSettings,
)
from support.readers import Pair, listening
from support.wire_chance import draw, draw_scene

CASES = 150


@pytest.fixture(autouse=True)
def _warned_of_nothing() -> Iterator[None]:
    pika_internals._warn_once.cache_clear()
    yield
    pika_internals._warn_once.cache_clear()


def bytearray_buffer(patch: pytest.MonkeyPatch) -> None:
    """As on pika's main branch."""
    begin = connection.Connection._init_connection_state

    def begin_with_a_bytearray(self: Any) -> None:
        begin(self)
        self._frame_buffer = bytearray()

    patch.setattr(connection.Connection, "_init_connection_state", begin_with_a_bytearray)


def no_read_frame(patch: pytest.MonkeyPatch) -> None:
    """As on pika's main branch: one loop decodes and processes."""

    def read(self: Any, data_in: bytes) -> None:
        self._frame_buffer += data_in
        while self._frame_buffer:
            taken, value = frame.decode_frame(self._frame_buffer)
            if not value:
                return
            self._trim_frame_buffer(taken)
            self._process_frame(value)

    patch.delattr(connection.Connection, "_read_frame")
    patch.setattr(connection.Connection, "_on_data_available", read)


def no_content_assembler(patch: pytest.MonkeyPatch) -> None:
    begin, handle = Channel.__init__, Channel._handle_content_frame

    def begin_renamed(self: Any, *arguments: Any, **keywords: Any) -> None:
        begin(self, *arguments, **keywords)
        self._assembler = self.__dict__.pop("_content_assembler")

    def handle_renamed(self: Any, value: Any) -> None:
        self._content_assembler = self._assembler
        try:
            handle(self, value)
        finally:
            del self._content_assembler

    patch.setattr(Channel, "__init__", begin_renamed)
    patch.setattr(Channel, "_handle_content_frame", handle_renamed)


def other_channels(patch: pytest.MonkeyPatch) -> None:
    begin = connection.Connection._init_connection_state

    def begin_with_others(self: Any) -> None:
        begin(self)
        self._channels = OrderedDict()

    patch.setattr(connection.Connection, "_init_connection_state", begin_with_others)


@pytest.mark.parametrize(
    ("change", "name"),
    [(no_content_assembler, "_content_assembler"), (other_channels, "_channels")],
)
def test_it_stands_down_with_one_warning_and_reads_as_pika_does(
    change: Callable[[pytest.MonkeyPatch], None],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    change(monkeypatch)
    in_runs, messages = read_some()
    assert in_runs == 0
    assert messages > CASES
    assert warnings_in(caplog) == [
        (
            f"this pika ({pika.__version__}) has another {name} than expected; "
            "it reads by itself, which is right but slower"
        )
    ]


def test_pika_as_on_its_main_branch_is_read_in_the_fast_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bytearray_buffer(monkeypatch)
    no_read_frame(monkeypatch)
    in_runs, _ = read_some()
    assert in_runs > CASES / 3
    assert not warnings_in(caplog)
    in_runs, messages = read_some(fast=False, raw=False)
    assert in_runs == 0
    assert messages > CASES


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "logfan.amqp.pika_internals"
    ]


def test_stood_down_by_configuration_it_reads_as_pika_does_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_runs, messages = read_some(fast=False)
    assert in_runs == 0
    assert messages > CASES
    assert not warnings_in(caplog)


def test_with_pika_as_it_is_the_fast_way_is_taken_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_runs, _ = read_some()
    assert in_runs > CASES / 3
    assert not warnings_in(caplog)


def read_some(*, fast: bool = True, raw: bool = True) -> tuple[int, int]:
    """How many messages came in runs, and how many at all. Both read alike all the time."""
    in_runs = messages = 0
    with listening():
        for seed in range(CASES):
            chance = Random(seed)
            pair = Pair(draw_scene(chance), fast=fast, raw=raw)
            case = draw(chance, pair.scene)
            assert pair.read(case), case
            in_runs += sum(pair.logfan.in_runs)
            messages += sum(one[0] == "message" for one in pair.logfan.story)
    return in_runs, messages


class _Nobody:
    """Neither an event nor a message comes: the connection never comes about."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize("fast", [True, False])
def test_the_configuration_decides(fast: bool) -> None:
    rabbitmq = RabbitmqSettings(fast_path=fast)
    settings = Settings(sinks={"none": SinkSettings(kind="none")}, rabbitmq=rabbitmq)
    nobody: Any = _Nobody()
    ioloop = IOLoop()
    subscription = Subscription(
        brokers=Brokers(settings, ioloop), exchange=ExchangeSettings(),
        queue=QueueSettings(), known=None, binding=None, events=nobody,
        receiver=nobody,
    )  # fmt: skip
    assert subscription.connection.fast is fast
    ioloop.close()
