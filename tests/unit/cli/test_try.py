"""`logfan try`: real sinks without a broker, and a report of what each did."""

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.command import LOGFAN, logfan
from support.drop_ins import add_drop_in
from support.waiting import wait_until

PLUGIN = """
import logfan, threading

class Picky(logfan.Sink):
    '''Refuses, fails and takes, as the bodies demand.'''

    def write(self, records):
        if any(record.body == b"crash" for record in records):
            raise ValueError("cannot stand it")
        refused = {at: "not wanted" for at, one in enumerate(records) if one.body == b"refuse"}
        if refused:
            raise logfan.RecordsRejected(refused)

class Shut(logfan.Sink):
    '''Never opens.'''

    def open(self):
        raise logfan.SinkUnavailable("the store is away")

    def write(self, records): ...

class Stuck(logfan.Sink):
    '''Hangs in its first call.'''

    def open(self):
        threading.Event().wait()

    def write(self, records): ...

class Painter(logfan.Sink):
    '''Writes into what all sinks share.'''

    def write(self, records):
        for record in records:
            record.body = b"painted"

class Fragile(logfan.Sink):
    '''Has a thread that fails.'''

    def open(self):
        self.start_thread("mine", self.work)

    def work(self):
        raise ValueError("oh no")

    def write(self, records): ...

class Endless(logfan.Sink):
    '''Does not return from close.'''

    def write(self, records): ...

    def close(self):
        open("closing", "w").close()
        threading.Event().wait()

class Littering(logfan.Sink):
    '''Leaves what it started.'''

    def open(self):
        for name in ("first", "second"):
            threading.Thread(target=threading.Event().wait, name=name, daemon=False).start()

    def write(self, records): ...

class Answering(logfan.Sink):
    '''Returns what became of the records.'''

    def write(self, records):
        return [True] * len(records)

class Unclosed(logfan.Sink):
    '''Cannot be closed.'''

    def write(self, records): ...

    def close(self):
        raise RuntimeError("was it open?")

class Unmade(logfan.Sink):
    '''Cannot be made.'''

    def __new__(cls, *_, **__):
        raise RuntimeError("no more of them")

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    for kind in (
        Answering, Endless, Fragile, Littering, Painter, Picky, Shut, Stuck, Unclosed, Unmade
    ):
        register(kind.__name__.lower(), kind)
"""
HEAD = '[plugins]\ndirectories = ["plugins"]\n[rabbitmq]\nurl_file = "away"\n'
FILE = '[sinks.file]\nkind = "file"\npath = "out.jsonl"\n'
PICKY = '[sinks.picky]\nkind = "picky"\nretry = { initial = "10ms", max = "20ms" }\n'


def with_plugins(folder: Path) -> Path:
    add_drop_in(folder, "kinds", PLUGIN)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_plugins(tmp_path)


def tried(folder: Path, config: str, *options: str, stdin: bytes = b"") -> "CompletedProcess[str]":
    (folder / "config.toml").write_text(HEAD + config)
    return logfan("try", *options, folder=folder, stdin=stdin)


def test_each_line_reaches_each_sink_as_a_message_would(folder: Path) -> None:
    screen = '[sinks.screen]\nkind = "stdout"\nwhere = { n = { above = 1 } }\n'
    done = tried(
        folder, FILE + screen, "-k", "shop", "-H", "host=a", "--content-type", "text/plain",
        stdin=b'{"n": 1}\r\n{"n": 2}\nno json',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"n": 2}\nno json\n'
    assert done.stderr.splitlines() == [
        "ok  sink file (file): 3 written",
        "ok  sink screen (stdout): 2 written, 1 filtered",
        "    undecided: 1, as where needs their bodies, which are no JSON; kept (on_error)",
    ]
    written = [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    assert [one["body"] for one in written] == [{"n": 1}, {"n": 2}, "no json"]
    assert {one["routing_key"] for one in written} == {"shop"}
    assert {one["exchange"] for one in written} == {"logs"}
    assert [one["headers"] for one in written] == [{"host": "a"}] * 3
    assert {one["content_type"] for one in written} == {"text/plain"}
    assert [one["message_id"].rpartition("-")[2] for one in written] == ["1", "2", "3"]


def test_what_is_refused_is_shown_by_line_with_the_reason(folder: Path) -> None:
    done = tried(folder, PICKY + FILE, stdin=b"one\nrefuse\ntwo\ncrash\nthree\n")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "failed  sink picky (picky): 3 written, 2 refused"
    assert sorted(lines[1:3]) == [
        "    line 2: not wanted", "    line 4: ValueError: cannot stand it",
    ]  # fmt: skip
    assert lines[3:] == ["ok  sink file (file): 5 written"]


def test_many_refusals_are_counted(folder: Path) -> None:
    done = tried(folder, PICKY, stdin=b"refuse\n" * 2500)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "failed  sink picky (picky): 2,500 refused"
    assert lines[-1] == "    and 2,490 more"
    assert len(lines) == 12


def test_one_sink_alone(folder: Path) -> None:
    done = tried(folder, PICKY + FILE, "--sink", "file", stdin=b"refuse\n" * 30_000)
    assert done.returncode == 0
    assert done.stderr == "ok  sink file (file): 30,000 written\n"
    assert len((folder / "out.jsonl").read_bytes().splitlines()) == 30_000
    done = tried(folder, PICKY + FILE, "--sink", "fiel")
    assert done.returncode == 2
    assert "the config has no sink 'fiel'; did you mean \"file\"?" in done.stderr


@pytest.mark.parametrize("given", ["soon", "nan", "inf", "3 parsecs", ""])
def test_a_time_that_is_none_is_named_with_what_would_be_right(folder: Path, given: str) -> None:
    done = tried(folder, FILE, "--timeout", given)
    assert done.returncode == 2
    assert "write a duration with its unit" in done.stderr


@pytest.mark.parametrize("given", ["0.5", "500ms"])
def test_a_time_is_a_duration_or_seconds(folder: Path, given: str) -> None:
    done = tried(folder, '[sinks.a]\nkind = "shut"\n', "--timeout", given)
    assert done.returncode == 1
    assert "given up after 0.5 s" in done.stderr


GIVEN_UP = {
    # a sink, what it is given, and what stands there after its time
    "shut": ("shut", b"one\ntwo", "2 not taken", "it did not open: the store is away"),
    "shut, without a record": ("shut", b"", "no records", "it did not open: the store is away"),
    "stuck": (
        "stuck", b"one\ntwo", "2 not taken",
        "it did not open: it does not return from a call of its own code",
    ),
    # Where no other record is taken, a failure is no evidence against this one.
    "picky": (
        "picky", b"crash\n", "1 not taken",
        "ValueError: cannot stand it (line 9 of kinds.py)",
    ),
}  # fmt: skip


@pytest.mark.slow
def test_a_sink_that_takes_nothing_is_given_up_after_its_time(tmp_path: Path) -> None:
    def tried_out(name: str) -> "CompletedProcess[str]":
        kind, stdin, *_ = GIVEN_UP[name]
        (tmp_path / name).mkdir()
        sink = PICKY if kind == "picky" else f'{FILE}[sinks.{kind}]\nkind = "{kind}"\n'
        return tried(with_plugins(tmp_path / name), sink, "--timeout", "3", stdin=stdin)

    with ThreadPoolExecutor(len(GIVEN_UP)) as pool:  # at the same time, as all of them wait
        ended = dict(zip(GIVEN_UP, pool.map(tried_out, GIVEN_UP), strict=True))
    for name, done in ended.items():
        kind, stdin, outcome, why = GIVEN_UP[name]
        beside = f"ok  sink file (file): {'2 written' if stdin else 'no records'}"
        assert done.returncode == 1, name
        assert done.stderr.splitlines() == [
            *([] if kind == "picky" else [beside]),
            f"failed  sink {kind} ({kind}): {outcome}",
            f"    given up after 3 s: {why}",
        ]


def test_a_sink_that_cannot_be_made_is_reported(folder: Path) -> None:
    done = tried(folder, '[sinks.a]\nkind = "unmade"\n', stdin=b"one")
    assert done.returncode == 78
    why = "Unmade of plugins/kinds.py cannot be made: RuntimeError: no more of them"
    assert done.stderr.splitlines()[0] == f"fault  sinks.a: {why}"


def test_a_sink_that_changes_a_record_is_named_and_changes_no_other_sinks(folder: Path) -> None:
    done = tried(folder, '[sinks.paint]\nkind = "painter"\n' + FILE, stdin=b"one\ntwo\n")
    assert done.returncode == 1
    way_out = (
        "a record is read-only, as all sinks share it: copy what you change, or make another: "
        "record.replace(body=…)"
    )
    assert done.stderr.splitlines() == [
        "failed  sink paint (painter): 2 written",
        f"    changes the body of record 0 itself; {way_out}",
        "ok  sink file (file): 2 written",
    ]
    lines = (folder / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["body"] for line in lines] == ["one", "two"]


WRONG = {
    "answering": (
        "write returned a list; it must return None where all is taken, else raise SinkUnavailable "
        "or RecordsRejected"
    ),
    "unclosed": "close raised RuntimeError: was it open? (line 78 of kinds.py)",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_beside_the_records_is_named(folder: Path, kind: str) -> None:
    done = tried(folder, f'[sinks.a]\nkind = "{kind}"\n', stdin=b"one")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"failed  sink a ({kind}): 1 written", f"    {WRONG[kind]}",
    ]  # fmt: skip


def test_a_sink_whose_own_thread_fails_is_named(folder: Path) -> None:
    done = tried(folder, '[sinks.a]\nkind = "fragile"\n' + FILE, stdin=b"one")
    assert done.returncode == 1
    assert (
        f"sink a (Fragile in {folder.resolve()}/plugins/kinds.py): its thread mine" in done.stderr
    )
    assert "please report it" not in done.stderr
    failed, why, beside = done.stderr.splitlines()[-3:]
    assert failed.startswith("failed  sink a (fragile): ")
    assert why == "    thread mine of sink a ended: ValueError: oh no"
    assert beside == "ok  sink file (file): 1 written"


LASTING = {
    "endless": "does not return from close for 2 s",
    "littering": "leaves 2 threads behind, which hold the process: end them in close (",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LASTING)
def test_a_sink_that_does_not_end_is_named(folder: Path, kind: str) -> None:
    config = f'[sinks.a]\nkind = "{kind}"\n{FILE}'
    done = tried(folder, config, "--timeout", "2", stdin=b"one")
    assert done.returncode == 1
    failed, why, beside, *left = done.stderr.splitlines()
    assert all("it is left behind" in line for line in left)
    assert failed == f"failed  sink a ({kind}): 1 written"
    assert why.startswith(f"    {LASTING[kind]}")
    assert beside == "ok  sink file (file): 1 written"


def interrupted(folder: Path, more: str = "", *, twice: bool = False) -> bytes:
    """What is shown where Ctrl-C comes after a line was written, and again in a sink's close."""
    (folder / "config.toml").write_text(HEAD + FILE + more)
    process = subprocess.Popen(
        [*LOGFAN, "try"], cwd=folder, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        out = folder / "out.jsonl"
        wait_until(lambda: out.exists() and out.read_bytes(), "it is written")
        process.send_signal(signal.SIGINT)
        if twice:
            wait_until((folder / "closing").exists, "it waits for the sink")
            process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, shown
    return shown


def test_an_interrupt_ends_it_with_the_report(folder: Path) -> None:
    assert interrupted(folder) == b"ok  sink file (file): 1 written\nerror  interrupted\n"


def test_a_second_interrupt_waits_for_no_sink(folder: Path) -> None:
    assert interrupted(folder, '[sinks.a]\nkind = "endless"\n', twice=True) == (
        b"error  interrupted\n"
    )


@pytest.mark.slow
def test_an_interrupt_ends_it_although_a_sink_holds_the_process(folder: Path) -> None:
    shown = interrupted(folder, '[sinks.a]\nkind = "littering"\n').decode()
    assert "leaves 2 threads behind" in shown
    assert "error  interrupted\n" in shown
    assert shown.splitlines()[-1].endswith("it is left behind")


def test_a_fault_of_the_config_is_78_and_nothing_is_opened(folder: Path) -> None:
    done = tried(folder, FILE + "sample = 2\n", stdin=b"one")
    assert done.returncode == 78
    assert "sinks.file.sample = 2: must be at most 1.0" in done.stderr
    assert not (folder / "out.jsonl").exists()
