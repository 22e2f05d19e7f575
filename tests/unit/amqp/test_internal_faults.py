"""Code of ours that fails while pika calls it is an internal fault, and no lost connection."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard.flood import Flood
from logfan.amqp import connection as wire
from logfan.amqp.pika_internals import InternalFault
from logfan.config.loader import prepare
from logfan.daemon import EXIT_INTERNAL, Daemon
from support.readers import Reader, listening
from support.wire_bytes import Scene, body, deliver, frame, header

# A consumer that ends so leaves pika's socket to the process's end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PARTS = {
    "the parser": ("logfan.amqp.delivery_parser.Stream.scan", True),
    "a run is handed over": ("logfan.pipeline.batching.BatchBuilder.add_run", True),
    "a message that pika hands over": ("logfan.amqp.connection.to_record", False),
    "the end of a read": ("logfan.pipeline.dispatcher.Dispatcher.on_read_end", True),
    "an acknowledgement": ("logfan.amqp.subscription.Subscription.ack", True),
    "an answer of the broker": ("logfan.pipeline.consumer.Consumer.on_subscribed", True),
}
"""What fails, and whether deliveries take the fast path."""


def fail(*_: Any, **__: Any) -> None:
    raise KeyError("ours")


def amiss(subscription: Any, _tag: int) -> None:
    """As if an acknowledgement were sent on a channel that is closed."""
    subscription.channel._set_state(subscription.channel.CLOSED)
    subscription.channel.basic_ack(1)


@pytest.mark.parametrize("part", PARTS)
def test_it_ends_the_daemon_with_70(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code, log = run(*PARTS[part], fail, tmp_path, monkeypatch, caplog)
    assert code == EXIT_INTERNAL
    assert "internal fault: thread consumer ended: InternalFault: KeyError: 'ours'" in log


def test_pika_called_amiss_is_a_fault_of_ours_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code, log = run(PARTS["an acknowledgement"][0], True, amiss, tmp_path, monkeypatch, caplog)
    assert code == EXIT_INTERNAL
    assert "ChannelWrongStateError" in log


def run(
    name: str,
    fast: bool,
    broken: Callable[..., Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> tuple[int | None, str]:
    """The daemon with a broken part, at a broker that floods it: its exit code and its log."""
    monkeypatch.setattr(name, broken)
    with Flood(2_000).running() as flood:
        config = folder / "config.toml"
        config.write_text(
            f'shutdown_timeout = "1s"\n[rabbitmq]\nfast_path = {str(fast).lower()}\n'
            f'urls = ["amqp://guest:guest@127.0.0.1:{flood.port}/%2F"]\n'
            '[dead_letter]\nenabled = false\n[http]\nlisten = "127.0.0.1:0"\n'
            "[plugins]\ndirectories = []\n"
            f'[sinks.a]\nkind = "file"\npath = "{folder}/a.log"\nformat = "raw"\n'
        )
        daemon = Daemon(prepare(config, environ={}), lambda: prepare(config, environ={}))
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(daemon.run()), daemon=True)
        thread.start()
        thread.join(60.0)
        assert not thread.is_alive(), "it goes on"
    return codes[0], caplog.text


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "malformed",
    [
        frame(9, 1, b""),
        body(1, b"without a header"),
        deliver(1, "x", 1) + header(1, 3) + body(1, b"too long"),
        header(1, 0),
    ],
)
def test_what_the_broker_sends_amiss_is_a_failure_of_the_connection(
    malformed: bytes, fast: bool
) -> None:
    reader = Reader(wire.Connection, Scene(1, "x", "plain", company=False), fast=fast)
    with listening(), pytest.raises(Exception):  # noqa: B017 - pika raises whatever it comes to
        reader.connection._proto_data_received(malformed)
    assert not issubclass(InternalFault, Exception)
