"""Code of ours that fails while pika calls it is an internal fault, and no lost connection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pika import exceptions

from guard.flood import Flood
from logfan.amqp import connection as wire
from logfan.amqp.pika_internals import InternalFault
from support.readers import Reader, listening
from support.wire_bytes import Scene, body, deliver, frame, header, heartbeat

EXIT_INTERNAL = 70
SCRIPT = """
import pkgutil, sys
from logfan.cli import main

def fail(*_, **__):
    raise KeyError("ours")

def amiss(_consumer, subscription, _declared):
    subscription.channel.basic_ack("no number")

part, how, config = sys.argv[1:]
owner, _, name = part.rpartition(".")
setattr(pkgutil.resolve_name(owner), name, {"fail": fail, "amiss": amiss}[how])
main(["run", "--config", config])
"""
PARTS = {
    "the parser": ("logfan.amqp.delivery_parser.Stream.scan", True),
    "a run is handed over": ("logfan.pipeline.dispatcher.Dispatcher.on_deliveries", True),
    "a message that pika hands over": ("logfan.amqp.connection.to_record", False),
    "the end of a read": ("logfan.pipeline.dispatcher.Dispatcher.on_read_end", True),
    "an answer of the broker": ("logfan.pipeline.consumer.Consumer.on_subscribed", True),
}
"""What fails, and whether deliveries take the fast path."""


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_it_ends_the_daemon_with_70(part: str, tmp_path: Path) -> None:
    code, log = run(*PARTS[part], "fail", tmp_path)
    assert code == EXIT_INTERNAL, log
    assert "internal fault: thread consumer ended: InternalFault: KeyError: 'ours'" in log


def test_pika_called_amiss_is_a_fault_of_ours_too(tmp_path: Path) -> None:
    code, log = run(*PARTS["an answer of the broker"], "amiss", tmp_path)
    assert code == EXIT_INTERNAL, log
    assert "internal fault: thread consumer ended: InternalFault: " in log


def test_a_channel_that_closes_meanwhile_is_no_fault() -> None:
    reader = Reader(wire.Connection, Scene(1, "x", "plain", company=False))

    def acknowledge_late() -> None:
        reader._channel.close()
        reader._channel.basic_ack(1)

    reader.connection._consumer.receiver.on_read_end = acknowledge_late
    with listening(), pytest.raises(exceptions.ChannelWrongStateError):
        reader.connection._proto_data_received(heartbeat())


def run(part: str, fast: bool, how: str, folder: Path) -> tuple[int, str]:
    """The daemon with a broken part, at a broker that floods it: its exit code and its log."""
    with Flood(2_000).running() as flood:
        config = folder / "config.toml"
        config.write_text(
            f'shutdown_timeout = "1s"\n[rabbitmq]\nfast_path = {str(fast).lower()}\n'
            f'urls = ["amqp://guest:guest@127.0.0.1:{flood.port}/%2F"]\n'
            '[dead_letter]\nenabled = false\n[http]\nlisten = "127.0.0.1:0"\n'
            "[plugins]\ndirectories = []\n"
            f'[sinks.a]\nkind = "file"\npath = "{folder}/a.log"\nformat = "raw"\n'
        )
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, part, how, str(config)],
            env={name: value for name, value in os.environ.items() if "LOGFAN" not in name},
            check=False, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
    return done.returncode, done.stderr


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
    with listening(), pytest.raises(BaseException) as raised:  # noqa: PT011 - whatever pika raises
        reader.connection._proto_data_received(malformed)
    assert not isinstance(raised.value, InternalFault)
