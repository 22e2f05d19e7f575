"""What is wrong with TLS files is a fault at `check`, never a retry at run or a prompt."""

import os
import pty
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from logfan.config.loader import prepare
from logfan.faults import Faults
from logfan.runtime import tls
from support.certificates import Authority, Pair, encrypted
from support.command import start
from support.users import ordinary_user

SINK = '[plugins]\ndirectories = []\n[sinks.a]\nkind = "stdout"\n'


@dataclass(frozen=True)
class Files:
    """Good ones; a test spoils them."""

    folder: Path
    ca: Path
    pair: Pair
    other: Pair

    def write(self, data: bytes) -> Path:
        path = self.folder / "spoilt.pem"
        path.write_bytes(data)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = Authority(tmp_path)
    return Files(
        tmp_path, authority.file, authority.issue("a", "localhost"), authority.issue("b", "other")
    )


Spoil = Callable[[Files], tuple[Path, Path | None]]
SPOILT: dict[str, tuple[Spoil, str, str]] = {
    # what: (certificate and key, the key of the config that is named, words)
    "encrypted key": (
        lambda f: (f.pair.cert, encrypted(f.pair.key, "hunter2")), "key_file", "is encrypted",
    ),
    "key of another certificate": (
        lambda f: (f.pair.cert, f.other.key), "key_file", "is not the key of the certificate",
    ),
    "key is junk": (lambda f: (f.pair.cert, f.write(b"junk")), "key_file", "holds no private key"),
    "key is empty": (lambda f: (f.pair.cert, f.write(b"")), "key_file", "holds no private key"),
    "key is the certificate": (
        lambda f: (f.pair.cert, f.pair.cert), "key_file", "holds no private key",
    ),
    "key is away": (lambda f: (f.pair.cert, f.folder / "no"), "key_file", "does not exist"),
    "key is a folder": (lambda f: (f.pair.cert, f.folder), "key_file", "is a directory"),
    "no key": (lambda f: (f.pair.cert, None), "cert_file", "name it in key_file"),
    "certificate is junk": (
        lambda f: (f.write(b"junk"), f.pair.key), "cert_file", "holds no certificate",
    ),
    "certificate is cut": (
        lambda f: (f.write(f.pair.cert.read_bytes()[:300]), f.pair.key), "cert_file",
        "holds no certificate",
    ),
    "certificate is the key": (
        lambda f: (f.pair.key, f.pair.key), "cert_file", "holds no certificate",
    ),
    "certificate is away": (
        lambda f: (f.folder / "no", f.pair.key), "cert_file", "does not exist",
    ),
    "certificate is a folder": (lambda f: (f.folder, f.pair.key), "cert_file", "is a directory"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_pair_is_reported_by_the_key_that_names_the_file(files: Files, what: str) -> None:
    spoil, key, words = SPOILT[what]
    cert, private = spoil(files)
    with pytest.raises(tls.TlsFileError, match=words) as error:
        tls.server_context(cert, private)
    assert error.value.key == key
    (fault,) = tls.faults_of_files(files.ca, cert, private)
    assert (fault.key, words in fault.problem) == (key, True)


@pytest.mark.parametrize(
    ("data", "words"), [(b"junk", "holds no certificate"), (b"", "holds no certificate")]
)
def test_a_spoilt_ca_is_reported_beside_a_spoilt_pair(
    files: Files, data: bytes, words: str
) -> None:
    ca = files.write(data)
    faults = list(tls.faults_of_files(ca, files.pair.cert, files.other.key))
    assert [fault.key for fault in faults] == ["ca_file", "key_file"]
    assert words in faults[0].problem


@pytest.mark.parametrize("table", ["rabbitmq.tls", "http.tls"])
@pytest.mark.parametrize("mode", [0o000, 0o111])
def test_a_file_that_we_may_not_look_at_is_a_fault_with_the_way_out(table: str, mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:  # where anybody may look in, unlike tmp_path
        config, closed = Path(name) / "config.toml", Path(name) / "closed"
        config.write_text(f'{SINK}[{table}]\ncert_file = "{closed}/a.pem"\n')
        Path(name).chmod(0o755)
        with pytest.raises(Faults, match="does not exist"):
            prepare(config, environ={})  # also so that all is imported that may not be read below
        closed.mkdir()
        (closed / "a.pem").touch(0)
        closed.chmod(mode)
        with ordinary_user(), pytest.raises(Faults) as raised:
            prepare(config, environ={})
        closed.chmod(0o700)
    (fault,) = raised.value.faults
    assert fault.place == f"{table}.cert_file"
    assert "cannot be read: permission denied: " in fault.problem
    assert ("may not enter" in fault.problem) == (mode == 0)
    assert "chgrp" in fault.problem or "chmod" in fault.problem


def test_one_file_may_hold_certificate_and_key(files: Files) -> None:
    both = files.write(files.pair.cert.read_bytes() + files.pair.key.read_bytes())
    tls.server_context(both, None)
    assert list(tls.faults_of_files(files.ca, both, None)) == []


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("table", ["rabbitmq.tls", "http.tls"])
def test_an_encrypted_key_is_a_fault_and_asks_nobody(
    files: Files, table: str, command: str
) -> None:
    key = encrypted(files.pair.key, "hunter2")
    (files.folder / "config.toml").write_text(
        f'{SINK}[{table}]\ncert_file = "{files.pair.cert}"\nkey_file = "{key}"\n'
    )
    terminal, inside = pty.openpty()
    log = files.folder / "log"
    try:
        # In a session of its own whose terminal answers nothing: a prompt would wait for ever.
        with log.open("wb") as out:
            process = start(
                [command], folder=files.folder, environ=os.environ, session=True,
                stdin=inside, stdout=out.fileno(), stderr=out.fileno(),
            )  # fmt: skip
        try:
            assert process.wait(30) == 78
        finally:
            process.kill()
    finally:
        os.close(terminal)
        os.close(inside)
    shown = log.read_text()
    assert f'{table}.key_file = "{key}": is encrypted' in shown
    assert "Traceback" not in shown
