"""The suite for authors of sinks: what it cannot prove it says, and the test's own is no leak."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

import logfan
from logfan.testing import SinkConformance, record, same_json
from logfan.testing.conformance import ConformanceWarning
from logfan.testing.sink_steps import SinkSteps, descriptors, left_open

SUITE = '''
import logfan
from logfan.testing import SinkConformance

class Memory(logfan.Sink):
    """Keeps what it gets."""

    def open(self):
        self.taken = getattr(self, "taken", [])

    def write(self, records):
        self.taken += [record.body for record in records]

class TestBare(SinkConformance):
    sink_class = Memory

class TestReasoned(SinkConformance):
    sink_class = Memory
    cannot = {
        "read_back": "it is a test", "away": "so", "slow": "so", "refuses": "so",
    }
'''


def run(folder: Path, name: str, *options: str) -> str:
    (folder / "test_memory.py").write_text(SUITE)
    command = [
        sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options,
        f"test_memory.py::{name}",
    ]  # fmt: skip
    environ = {**os.environ, "COLUMNS": "1000"}
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.slow
def test_what_the_suite_cannot_prove_is_a_skip_and_a_warning_with_the_way_out(
    tmp_path: Path,
) -> None:
    shown = run(tmp_path, "TestBare")
    for what, claim in {
        "read_back": "that what flush returned for is there; write read_back in TestBare",
        "away": "where the other side goes away; write break_it for 'away' in TestBare",
        "slow": "where the other side takes a connection and answers nothing; write break_it for",
        "refuses": "what it does where the other side refuses single records; write break_it for",
    }.items():
        lines = [line for line in shown.splitlines() if claim in line]
        assert any(line.startswith("SKIPPED") for line in lines), (what, shown)
        assert any("ConformanceWarning: not proven for Memory" in line for line in lines), what
        assert all(f"or say why not: cannot = {{{what!r}: …}}" in line for line in lines)
    assert re.search(r"^\d+ passed, 3\d skipped, 3\d warnings", shown, re.MULTILINE), shown


@pytest.mark.slow
def test_what_cannot_be_proven_for_a_reason_is_not_shown_as_passed(tmp_path: Path) -> None:
    shown = run(tmp_path, "TestReasoned", "-v")
    assert "skipped" not in shown
    assert "warning" not in shown
    assert "outage" not in shown
    assert "refused_records" not in shown


class Base(SinkConformance):
    __test__ = False
    sink_class: ClassVar[type[logfan.Sink]] = logfan.Sink
    cannot: ClassVar = {"slow": "it is fast"}


def test_a_suite_below_another_has_reasons_of_its_own() -> None:
    class Below(Base):
        cannot: ClassVar = {}

    name = "test_it_does_not_wait_for_ever"
    assert getattr(Base, name) is None
    assert getattr(Below, name) is getattr(SinkConformance, name)


def test_a_reason_for_nothing_is_an_error() -> None:
    with pytest.raises(TypeError, match="names 'fast'; it may name read_back, away, slow, refuses"):

        class Wrong(SinkConformance):
            cannot: ClassVar = {"fast": "no"}


@pytest.mark.parametrize(
    ("held", "expected", "same"),
    [
        (b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True), (b"x", b"x", True), (b"x", b"y", False),
        (b"[1]", b"[2]", False), ("[1]", b"[ 1 ]", True), (b"[1]", b"x", False),
    ],
)  # fmt: skip
def test_json_is_compared_by_its_value(held: bytes, expected: bytes, same: bool) -> None:
    assert same_json(held, expected) is same


class Pool(logfan.Sink):
    """Works on threads of its own."""

    def open(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="own")

    def write(self, records: Sequence[logfan.Record]) -> None:
        self.pool.submit(self._start_another).result()

    def _start_another(self) -> None:
        self.over = threading.Event()
        threading.Thread(target=self.over.wait, name="grandchild", daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.pool.shutdown()


def test_threads_are_distinguished_by_who_started_them() -> None:
    start = threading.Thread.start
    over = threading.Event()
    with SinkSteps(Pool(Pool.Config()), 30.0) as steps:
        steps.must("open")
        steps.take([record("a")])
        ours = threading.Thread(target=over.wait, name="the test's own")
        ours.start()
        assert steps.threads() != []
        assert {name.split("_")[0] for name in steps.threads()} == {"own", "grandchild"}
    over.set()
    ours.join()
    assert threading.Thread.start is start


class Fragile(logfan.Sink):
    """Has a thread that fails."""

    def open(self) -> None:
        self.start_thread("mine", self._fail).join()

    def _fail(self) -> None:
        raise ValueError("oh no")


class Paced(logfan.Sink):
    """Takes a date for a number of seconds."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        why: tuple[Any, ...] = ("busy", "Wed, 21 Oct 2026 07:28:00 GMT")
        raise logfan.SinkUnavailable(*why)


class Named(logfan.Sink):
    """Names records by text."""

    def write(self, records: Sequence[logfan.Record]) -> None:
        reasons: Any = {"0": "no"}
        raise logfan.RecordsRejected(reasons)


@pytest.mark.parametrize(
    ("sink", "words"),
    [
        (Paced, "write asks for retry_after = 'Wed, 21 .*, which is no number of seconds"),
        (Named, "RecordsRejected of write names record '0', a str: an index is an int"),
    ],
)
def test_what_a_sink_raises_is_looked_at(sink: type[logfan.Sink], words: str) -> None:
    with pytest.raises(AssertionError, match=words), SinkSteps(sink(sink.Config()), 30.0) as steps:
        steps.offer([record("a")])


def test_a_thread_of_the_sink_that_fails_is_a_failure() -> None:
    words = "thread mine of sink sink ended: ValueError: oh no: in the daemon this ends the process"
    with (
        pytest.raises(AssertionError, match=words),
        SinkSteps(Fragile(Fragile.Config()), 30.0) as steps,
    ):
        steps.must("open")


def test_a_connection_that_a_server_of_the_test_took_in_is_not_the_sinks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = descriptors()
        address = server.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = server.accept()
            with accepted:
                assert left_open(before) == [f"a connection to 127.0.0.1:{address[1]}"]
                client.shutdown(socket.SHUT_RDWR)
                assert len(left_open(before)) == 1
        assert left_open(before) == []


class Shout(logfan.Sink):
    """Print each record in capitals."""

    class Config(logfan.SinkConfig):
        suffix: str = "!"

    def write(self, records: Sequence[logfan.Record]) -> None:
        for one in records:
            print(one.text.upper() + self.config.suffix)


class Shouts(SinkConformance):
    sink_class = Shout


def test_an_option_without_a_docstring_is_a_warning() -> None:
    with pytest.warns(ConformanceWarning, match="docstring below the option suffix"):
        Shouts().test_each_option_says_what_it_means()
