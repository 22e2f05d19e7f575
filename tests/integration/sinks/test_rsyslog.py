"""The sink `syslog` against a real rsyslog, which is read back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logfan.sink import SinkUnavailable
from logfan.testing import record
from logfan_sinks.syslog import SyslogSink
from support.certificates import Authority
from support.needed import needed
from support.opener import opener
from support.rsyslog import Rsyslog
from support.waiting import wait_until

Open = Callable[..., SyslogSink]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def rsyslog(authority: Authority) -> Iterator[Rsyslog]:
    certificate = authority.issue("rsyslog", "127.0.0.1")
    with needed(), Rsyslog(authority.file, certificate.cert, certificate.key) as server:
        yield server


@pytest.fixture
def opened(rsyslog: Rsyslog) -> Iterator[Open]:
    """Opens a sink, and closes it at the end."""
    with opener(SyslogSink, "old", address=rsyslog.tcp) as opened:
        yield opened


def kept(rsyslog: Rsyslog, count: int) -> list[dict[str, Any]]:
    wait_until(lambda: len(rsyslog.messages()) >= count, f"{count} messages are kept")
    return rsyslog.messages()


def test_a_message_is_understood_as_it_was_meant(opened: Open, rsyslog: Rsyslog) -> None:
    sink = opened(facility="local3", format="raw")
    sink.write(
        [
            record(
                b'{"level":"error",\n "msg":"it failed"}', app_id="shop", message_id="m-1",
                headers={"host": "web-1"}, timestamp=1_795_651_200,
            )
        ]
    )  # fmt: skip
    (message,) = kept(rsyslog, 1)
    assert message["msg"] == '{"level":"error",\n "msg":"it failed"}'
    assert (message["syslogfacility"], message["syslogseverity"]) == ("19", "3")  # local3, err
    assert (message["hostname"], message["programname"]) == ("web-1", "shop")
    assert message["msgid"] == "m-1"
    assert message["timereported"].startswith("2026-11-26T00:00:00")
    assert message["protocol-version"] == "1"


def test_many_messages_of_all_lengths_keep_their_order(opened: Open, rsyslog: Rsyslog) -> None:
    sink = opened()
    texts = [f"{n} {'x' * (n * 7 % 9000)}" for n in range(2000)]
    for at in range(0, 2000, 250):
        sink.write([record(text) for text in texts[at : at + 250]])
    assert [message["msg"] for message in kept(rsyslog, 2000)] == texts


def test_tls_is_spoken_with_whom_the_authority_vouches_for(
    opened: Open, rsyslog: Rsyslog, authority: Authority
) -> None:
    sink = opened(address=rsyslog.tls, tls={"ca_file": str(authority.file)})
    sink.write([record(f"secret {n}") for n in range(500)])
    assert [one["msg"] for one in kept(rsyslog, 500)] == [f"secret {n}" for n in range(500)]
    with pytest.raises(SinkUnavailable, match="certificate verify failed"):
        opened(address=rsyslog.tls)


def test_a_crash_is_noticed_and_the_next_messages_arrive(opened: Open, rsyslog: Rsyslog) -> None:
    sink = opened()
    sink.write([record("before")])
    kept(rsyslog, 1)
    rsyslog.kill()
    with pytest.raises(SinkUnavailable):
        sink.write([record("lost")])
    with pytest.raises(SinkUnavailable, match="refused"):
        sink.open()
    rsyslog.start()
    sink.open()
    sink.write([record("after")])
    assert [one["msg"] for one in kept(rsyslog, 2)] == ["before", "after"]
