"""`tls` of a sink: which file cannot be used, and why. Nothing is asked for on a terminal."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from logfan.sink import SinkUnavailable
from logfan_sinks.kafka import KafkaSink
from logfan_sinks.s3 import S3Sink
from logfan_sinks.tls_options import TlsOptions
from support.certificates import Authority, encrypted
from support.opener import open_one


def fault(**options: Path) -> str:
    with pytest.raises(SinkUnavailable) as caught:
        TlsOptions(**options).context()
    return str(caught.value)


def test_files_that_can_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("client", "client")
    TlsOptions(ca_file=authority.file, cert_file=pair.cert, key_file=pair.key).context()


def _nothing(_: Path) -> None:
    """There is none."""


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize(
    ("make", "why"),
    [(_nothing, "No such file"), (_folder, "no regular file"), (os.mkfifo, "no regular file")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, key: str, make: Callable[[Path], None], why: str
) -> None:
    pair = Authority(tmp_path).issue("client", "client")
    make(tmp_path / "odd")
    options = {"cert_file": pair.cert, "key_file": pair.key, key: tmp_path / "odd"}
    assert fault(**options).startswith(f"tls.{key}: {tmp_path}/odd: ")
    assert why in fault(**options)


def test_files_that_hold_something_else_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("client", "client"), authority.issue("other", "other")
    text = tmp_path / "text"
    text.write_text("nothing of that kind")
    assert fault(ca_file=text) == f"tls.ca_file: {text}: holds no certificate in PEM form"
    mismatch = fault(cert_file=pair.cert, key_file=other.key)
    assert mismatch.startswith(f"tls.key_file: {other.key}: cannot be used with {pair.cert} (")
    assert fault(cert_file=text, key_file=pair.key).startswith(f"tls.key_file: {pair.key}: cannot")


def test_a_pipe_is_not_waited_for_by_sinks_whose_library_reads_the_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    kafka = {"brokers": ["127.0.0.1:1"], "topic": "logs", "tls": {"ca_file": str(pipe)}}
    with pytest.raises(SinkUnavailable, match=f"^tls.ca_file: {pipe}: it is no regular file"):
        open_one(KafkaSink, "kafka", kafka)
    store = {"bucket": "logs", "endpoint": "https://127.0.0.1:1", "ca_file": str(pipe)}
    with pytest.raises(SinkUnavailable, match=f"^ca_file: {pipe}: it is no regular file"):
        open_one(S3Sink, "s3", store)


_ON_A_TERMINAL = """
import os, pty, sys
from pathlib import Path
pid, fd = pty.fork()
if not pid:
    from logfan_sinks.tls_options import TlsOptions
    TlsOptions(cert_file=Path(sys.argv[1]), key_file=Path(sys.argv[2])).context()
shown = b""
while b"phrase" not in shown and len(shown) < 4096:
    shown += os.read(fd, 4096)
print(shown.decode())
"""


def test_nobody_is_asked_for_a_pass_phrase(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("client", "client")
    shown = subprocess.run(
        [sys.executable, "-c", _ON_A_TERMINAL, pair.cert, encrypted(pair.key, "geheim")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert "Enter" not in shown.stdout.decode()
    assert "the key is encrypted" in shown.stdout.decode()
