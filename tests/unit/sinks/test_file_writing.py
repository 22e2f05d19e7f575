"""The file sink's road to the disk: whole lines, durable first, nothing torn and nothing twice."""

import errno
import fcntl
import gzip
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import logfan
from logfan_sinks import formats
from logfan_sinks.file import log_file as logfile
from logfan_sinks.file import sink as file_sink
from logfan_sinks.file.log_file import Taken, _behind
from logfan_sinks.file.sink import _pieces
from support.files import NOON, deliver, file_size_limit, held_open, made, numbered, opened, record
from support.users import ordinary_user
from support.waiting import wait_until


def bodies(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the sink asks of the kernel, in order, each with the file's name. A lost fsync leaves
    no other trace: the page cache outlives the process."""
    seen: list[tuple[str, str]] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(fd: int, *rest: Any) -> Any:
            seen.append((name, Path(f"/proc/self/fd/{fd}").readlink().name))
            return real(fd, *rest)

        monkeypatch.setattr(os, name, call)

    for name in ("writev", "fdatasync", "fsync", "close", "ftruncate"):
        watched(name)
    return seen


def test_records_become_lines_in_their_order(tmp_path: Path) -> None:
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, numbered(0, 3))
        deliver(sink, numbered(3, 5))
    assert (tmp_path / "a.log").read_bytes() == b"0000\n0001\n0002\n0003\n0004\n"


def test_a_restart_appends(tmp_path: Path) -> None:
    for start in (0, 2):
        with opened(tmp_path / "a.log") as sink:
            deliver(sink, numbered(start, start + 2))
    assert bodies(tmp_path / "a.log") == ["0000", "0001", "0002", "0003"]


def test_the_file_and_its_folders_are_made_and_not_readable_by_all(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with opened(tmp_path / "x/y/a.log"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x/y/a.log").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o750


def test_a_batch_is_one_write_and_one_fdatasync_after_it(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    with opened(tmp_path / "a.log") as sink:
        del calls[:]
        sink.write(numbered(0, 1000))
        assert calls == [("writev", "a.log")]
        sink.flush()
        assert calls == [("writev", "a.log"), ("fdatasync", "a.log")]
        sink.flush()
        assert len(calls) == 2


def test_each_file_of_a_batch_is_synced_once(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with opened(tmp_path / "{routing_key}") as sink:
        batch = [record("x", routing_key=key) for key in "abab"]
        deliver(sink, batch)
        del calls[:]
        sink.write(batch)
        sink.write(batch)
        assert sorted(calls) == [("writev", "a")] * 2 + [("writev", "b")] * 2
        del calls[:]
        sink.flush()
        assert sorted(calls) == [("fdatasync", "a"), ("fdatasync", "b")]


@pytest.mark.parametrize(("fsync", "expected"), [("batch", [(3, 300_001)]), ("never", [])])
def test_the_disk_begins_with_a_large_line_before_the_batch_is_complete(
    fsync: str, expected: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, at, size, _what: asked.append((at, size)))
    with opened(tmp_path / "a.log", fsync=fsync) as sink:
        sink.write([record("ab")])
        sink.write([record("x" * 300_000)])
        sink.flush()
    assert asked == expected


def test_fsync_never_leaves_it_to_the_system(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with opened(tmp_path / "a.log", fsync="never") as sink:
        deliver(sink, numbered(0, 2))
    assert not [name for name, _ in calls if "sync" in name]


def test_a_new_files_name_is_durable_too(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with opened(tmp_path / "new/a.log"):
        assert calls[0] == ("fsync", tmp_path.name)
        assert ("fsync", "new") in calls


def test_a_short_write_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "writev", lambda fd, data: real(fd, b"".join(data[:2])[:3]))
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, numbered(0, 10))
        deliver(sink, [record(one) for one in ("", "x" * 200_000, "", "y")])
    there = [f"{number:04}" for number in range(10)]
    assert bodies(tmp_path / "a.log") == [*there, "", "x" * 200_000, "", "y"]


def test_a_write_that_fails_half_way_leaves_nothing_and_succeeds_later(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 10))
        with file_size_limit(63), pytest.raises(logfan.SinkUnavailable, match="EFBIG"):
            sink.write(numbered(10, 20))
        assert bodies(path) == [f"{number:04}" for number in range(10)]
        sink.open()
        deliver(sink, numbered(10, 20))
    assert bodies(path) == [f"{number:04}" for number in range(20)]


def test_a_file_that_fails_does_not_leave_its_neighbours_with_doubles(tmp_path: Path) -> None:
    batch = [
        record("small", routing_key="first"),
        record("x" * 5000, routing_key="large"),
        record("small", routing_key="last"),
    ]
    with opened(tmp_path / "{routing_key}") as sink:
        deliver(sink, batch)
        with file_size_limit(8000), pytest.raises(logfan.SinkUnavailable, match=r"large.*EFBIG"):
            sink.write(batch)
        sink.open()
        deliver(sink, batch)
    assert bodies(tmp_path / "first") == ["small"] * 2
    assert bodies(tmp_path / "large") == ["x" * 5000] * 2
    assert bodies(tmp_path / "last") == ["small"] * 2


def test_a_failed_fdatasync_undoes_the_batch_so_that_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that fails cannot be had here; the call that would say so can.
    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path / "{routing_key}") as sink:
        deliver(sink, [record("kept")])
        sink.write([record("lost?"), record("lost?", routing_key="other")])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fails)
            with pytest.raises(logfan.SinkUnavailable, match=r"input/output error \(EIO\)"):
                sink.flush()
        assert bodies(tmp_path / "app") == ["kept"]
        assert bodies(tmp_path / "other") == []
        sink.flush()
        sink.open()
        deliver(sink, [record("lost?"), record("lost?", routing_key="other")])
    assert bodies(tmp_path / "app") == ["kept", "lost?"]
    assert bodies(tmp_path / "other") == ["lost?"]


def test_a_full_device_is_named_in_words() -> None:
    with opened("/dev/full") as sink:
        with pytest.raises(logfan.SinkUnavailable) as caught:
            sink.write([record("x")])
        assert str(caught.value) == "/dev/full: disk full (ENOSPC)"


def test_a_device_takes_lines_without_sync_or_mending() -> None:
    with opened("/dev/null", rotate={"size": "1B"}) as sink:
        deliver(sink, numbered(0, 10))
        deliver(sink, numbered(0, 10))


def test_a_full_disk_loses_and_doubles_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = tmp_path / "fill.py"
    program.write_text(
        textwrap.dedent("""
        import os, sys, time
        import logfan
        from logfan_sinks.file import FileSink

        def batch(number):
            return [logfan.Record(b"%06d" % (number * 100 + at) + b"x" * 500, "logs", "k", False,
                    time.time(), logfan.Properties()) for at in range(100)]

        disk = sys.argv[1]
        ballast = os.path.join(disk, "ballast")
        with open(ballast, "wb") as file:
            file.write(bytes(300_000))
        path = os.path.join(disk, "a.log")
        sink = FileSink(FileSink.Config(path=path, format="raw"))
        sink.open()
        number = failures = 0
        while number < 15:
            try:
                sink.write(batch(number))
                sink.flush()
                number += 1
            except logfan.SinkUnavailable as error:
                failures += 1
                assert "disk full (ENOSPC)" in str(error), error
                with open(path, "rb") as file:
                    assert len(file.read().split(b"\\n")) == number * 100 + 1
                if failures == 3:
                    os.unlink(ballast)
                assert failures < 9
                sink.open()
        sink.close()
        with open(path, "rb") as file:
            numbers = [int(line[:6]) for line in file.read().splitlines()]
        assert failures >= 3 and numbers == list(range(1500)), (failures, len(numbers))
        print("all there, once")
        """)
    )
    ours = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", *ours, "--mount", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=1m none "$1"'
    tried = subprocess.run(
        [*unshare, mount, "sh", str(disk)], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"no small disk can be mounted here: {tried.stderr.strip()}")
    done = subprocess.run(
        [*unshare, f'{mount} && exec "$2" "$3" "$1"', "sh", str(disk), sys.executable, program],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "all there, once\n", done.stderr


def make_here(path: Path) -> None:
    """An empty file of the sink's own, known as such."""
    with opened(path):
        pass
    try:
        os.getxattr(path, "user.logfan")
    except OSError:
        pytest.skip("this file system has no such attributes")


@pytest.mark.parametrize("torn", [b"0002", b"0", b"x" * 200_000, b"\0" * 65536, b"\0" * 9 + b"2"])
def test_a_torn_line_is_mended_at_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    path = tmp_path / "a.log"
    make_here(path)
    path.write_bytes(b"0000\n0001\n" + torn)
    with caplog.at_level(logging.WARNING), opened(path) as sink:
        deliver(sink, numbered(2, 3))
    assert bodies(path) == ["0000", "0001", "0002"]
    assert f"{path}: cut off a torn last line of {len(torn)} bytes" in caplog.text


@pytest.mark.parametrize("form", ["raw", "text", "json"])
def test_zeros_that_a_crash_left_are_cut_off_whoever_made_the_file(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"0000\n" + b"\0" * 200_000)
    with opened(path, format=form):
        pass
    assert path.read_bytes() == b"0000\n"


@pytest.mark.parametrize("torn", ['{"received_at":"2026-11-', '{"received_at":"', "\0\0"])
@pytest.mark.parametrize("before", ["", "foreign\n"])
def test_a_torn_line_of_json_is_known_by_its_beginning(
    tmp_path: Path, torn: str, before: str
) -> None:
    path = tmp_path / "a.log"
    path.write_text(before + torn)
    with opened(path, format="json") as sink:
        deliver(sink, numbered(0, 1))
    assert path.read_text().startswith(f'{before}{{"received_at":"2026-11-24T12:00:00.000000Z",')


@pytest.mark.parametrize("torn", ["{", '{"rece', '{"rece\0\0\0', "\0" * 20 + '9"}'])
@pytest.mark.parametrize("before", ["", "{}\n"])
def test_a_few_bytes_of_a_line_of_json_are_known_by_the_files_mark(
    tmp_path: Path, torn: str, before: str
) -> None:
    path = tmp_path / "a.log"
    make_here(path)
    path.write_text(before + torn)
    with opened(path, format="json") as sink:
        deliver(sink, numbered(0, 1))
    assert path.read_text().startswith(f'{before}{{"received_at":"2026-11-24T12:00:00.000000Z",')


def test_a_file_that_is_one_torn_line_of_ours_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    make_here(path)
    path.write_bytes(b"x" * 70_000)
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
    assert bodies(path) == ["0000"]


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("raw", b"x" * 70_000), ("text", b"precious"), ("json", b"precious"), ("json", b"\x7fELF"),
        ("json", b'{"mine":1}'), ("json", b"a\nb"), ("json", b'a\n{"received_on":"'),
        ("raw", b"\0\0"), ("text", b"a\nno newline yet"), ("raw", b"a\nno newline yet"),
        ("json", b"a\n{"), ("json", b"{"), ("json", b"a\n" + b"\0" * 20 + b"x"),
        ("text", b"a\n" + b"\0" * 70_000 + b"x"),
    ],
)  # fmt: skip
def test_a_foreign_file_without_a_newline_is_never_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, content: bytes
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    with opened(path, format=form) as sink:
        deliver(sink, numbered(0, 1))
    assert path.read_bytes().startswith(content + b"\n")
    assert path.read_bytes().count(b"\n") == content.count(b"\n") + 2
    assert "has no end and may be another program's; it stays" in caplog.text


def test_whole_lines_are_left_alone_at_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    content = b"".join(b"%d\n" % number for number in range(50_000)) + b"\n\n"
    path.write_bytes(content)
    with opened(path):
        pass
    assert path.read_bytes() == content
    assert caplog.text == ""


def test_what_was_flushed_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    program = textwrap.dedent("""
        import sys, time
        import logfan
        from logfan_sinks.file import FileSink

        sink = FileSink(FileSink.Config(path=sys.argv[1], format="raw"))
        sink.open()
        for number in range(10_000_000):
            sink.write([logfan.Record(b"%08d" % number * 2000, "logs", "k", False, time.time(),
                        logfan.Properties())] * 20)
            sink.flush()
            print(number, flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        flushed = -1
        while flushed < 30:
            flushed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        flushed = max([flushed, *(int(line) for line in process.stdout if line.endswith("\n"))])
    with opened(path):
        pass
    lines = bodies(path)
    assert {len(line) for line in lines} == {16_000}
    numbers = [int(line[:8]) for line in lines]
    assert numbers == sorted(numbers)
    assert all(numbers.count(number) == 20 for number in range(flushed + 1))
    assert numbers[-1] <= flushed + 1


def test_two_processes_on_one_path_is_refused_with_the_others_pid(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    program = (
        "import sys; from logfan_sinks.file import FileSink\n"
        "sink = FileSink(FileSink.Config(path=sys.argv[1])); sink.open()\n"
        "print('open', flush=True); sys.stdin.read(); sink.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        sink = made(path)
        with pytest.raises(logfan.SinkUnavailable, match=f"process {process.pid} writes to it"):
            sink.open()
        process.stdin.close()
        process.wait(60)
    sink.open()
    deliver(sink, numbered(0, 1))
    sink.close()
    assert bodies(path) == ["0000"]


def test_two_sinks_on_one_file_by_two_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.log").symlink_to(tmp_path / "a.log")
    with (
        opened(tmp_path / "a.log"),
        pytest.raises(logfan.SinkUnavailable, match="another sink of this daemon writes to it"),
    ):
        made(tmp_path / "b.log").open()


@pytest.mark.parametrize(
    ("path", "reported"),
    [
        ("folder", "is a directory (EISDIR)"),
        ("file/a.log", "a part of the path is no directory (ENOTDIR)"),
        ("pipe", "neither a regular file nor a device"),
        ("x" * 300, "the name is too long (ENAMETOOLONG)"),
        ("loop", "symbolic link"),
        ("file/{routing_key}", "no directory"),
    ],
)
def test_a_path_that_cannot_be_shows_at_open(tmp_path: Path, path: str, reported: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    sink = made(tmp_path / path)
    with pytest.raises(logfan.SinkUnavailable) as caught:
        sink.open()
    assert reported in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert held_open(tmp_path) == []
    sink.close()


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_permission_is_named(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # where anybody may look in, unlike tmp_path
        Path(folder).chmod(0o755)
        closed = Path(folder) / "closed"
        closed.mkdir()
        closed.chmod(mode)
        for path in ("closed/a.log", "closed/new/a.log", "closed/new/{routing_key}"):
            with (
                ordinary_user(),
                pytest.raises(logfan.SinkUnavailable, match=r"permission denied \(EACCES\)"),
            ):
                made(Path(folder) / path).open()
        closed.chmod(0o755)


def test_a_folder_that_is_closed_above_what_messages_name_is_the_sinks_trouble() -> None:
    with tempfile.TemporaryDirectory() as folder:  # where anybody may look in, unlike tmp_path
        closed = Path(folder) / "closed"
        (closed / "in").mkdir(parents=True)
        sink = made(closed / "in/{routing_key}/a.log")
        sink.open()
        Path(folder).chmod(0o755)
        closed.chmod(0)
        with ordinary_user(), pytest.raises(logfan.SinkUnavailable, match="EACCES") as caught:
            sink.write([record("x")])
        assert not isinstance(caught.value, Taken)
        closed.chmod(0o755)


def test_logrotate_may_rename_the_file_and_send_a_hup(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 2))
        path.rename(tmp_path / "a.log.1")
        sink.open()
        deliver(sink, numbered(2, 3))
    assert bodies(tmp_path / "a.log.1") == ["0000", "0001"]
    assert bodies(path) == ["0002"]


def test_a_renamed_or_removed_file_is_noticed_even_without_a_hup(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
        path.rename(tmp_path / "a.log.1")
        deliver(sink, numbered(1, 2))
        path.unlink()
        deliver(sink, numbered(2, 3))
        assert len(held_open(tmp_path)) == 1
    assert bodies(tmp_path / "a.log.1") == ["0000"]
    assert bodies(path) == ["0002"]


def test_a_file_removed_between_write_and_flush_is_not_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        sink.write(numbered(0, 1))
        path.unlink()
        with pytest.raises(logfan.SinkUnavailable, match="was moved or deleted"):
            sink.flush()
        sink.open()
        deliver(sink, numbered(0, 1))
    assert bodies(path) == ["0000"]


def test_a_file_moved_between_write_and_flush_has_the_batch_in_the_new_one(tmp_path: Path) -> None:
    # What moved it may have compressed it already, without this batch, and may remove it.
    path, aside = tmp_path / "a.log", tmp_path / "a.log.1"
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
        sink.write(numbered(1, 2))
        path.rename(aside)
        with pytest.raises(logfan.SinkUnavailable, match="was moved or deleted"):
            sink.flush()
        sink.open()
        deliver(sink, numbered(1, 2))
    assert bodies(aside) == ["0000"]
    assert bodies(path) == ["0001"]


def test_a_quota_that_is_used_up_is_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev

    def quota(fd: int, buffers: Any) -> int:
        if sum(map(len, buffers)) > 1000:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", quota)
    monkeypatch.setattr(logfile.LogFile, "_most_bytes", lambda self: 1000)
    with opened(tmp_path / "a.log") as sink:
        with pytest.raises(logfan.RecordsRejected, match="1 record rejected"):
            sink.write([record("x" * 2000), record("small")])
        sink.flush()
    assert bodies(tmp_path / "a.log") == ["small"]


def test_copytruncate_is_survived_also_by_a_failing_write(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 100))
        os.truncate(path, 0)
        deliver(sink, numbered(100, 101))
        assert bodies(path) == ["0100"]
        with file_size_limit(12), pytest.raises(logfan.SinkUnavailable):
            sink.write(numbered(101, 110))
        assert path.read_bytes() == b"0100\n"


def test_no_more_files_are_open_than_allowed_and_each_is_durable_before_it_is_closed(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    keys = [f"key-{number}" for number in range(10)]
    with opened(tmp_path / "{routing_key}", max_open_files=3) as sink:
        del calls[:]
        for turn in range(3):
            batch = [record(f"{turn}", routing_key=key) for key in keys]
            deliver(sink, batch)
            assert len(held_open(tmp_path)) == 3
    for key in keys:
        assert bodies(tmp_path / key) == ["0", "1", "2"]
        mine = [name for name, file in calls if file == key]
        assert mine == ["writev", "fdatasync", "close"] * 3
    assert held_open(tmp_path) == []


@pytest.mark.parametrize("most", [1, 2, 3, 64])
@pytest.mark.parametrize("rotate", [None, {"size": "4B"}, {"size": "30B", "compress": "gzip"}])
def test_a_path_that_fails_makes_no_copies_on_the_others(
    tmp_path: Path, most: int, rotate: Any
) -> None:
    """Whatever was closed, rotated and opened again within the batch."""
    keys = ["a", "b", "c", "a", "d", "b"]
    large = "x" * 1_100_000
    with opened(tmp_path / "{routing_key}", max_open_files=most, rotate=rotate) as sink:
        deliver(sink, [record("0", routing_key=key) for key in keys])
        batch = [record(text, routing_key=key) for text in ("1", large, "2") for key in keys]
        with (tmp_path / "held").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            sink_held = f"{tmp_path}/held: .* writes to it"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(logfile, "_holder", lambda _: "process 1")
                for _ in range(4):
                    with pytest.raises(logfan.SinkUnavailable, match=sink_held):
                        sink.write([*batch, record("x", routing_key="held")])
                    sink.open()
        deliver(sink, batch)
    for key in "abcd":
        count = keys.count(key)
        expected = ["0"] * count + ["1"] * count + [large] * count + ["2"] * count
        found = [text for file in sorted(tmp_path.glob(f"{key}.*")) for text in content_of(file)]
        assert found + content_of(tmp_path / key) == expected


def content_of(file: Path) -> list[str]:
    raw = file.read_bytes()
    return (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode().splitlines()


def test_the_file_used_last_is_closed_last(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}", max_open_files=2) as sink:
        for key in "abac":
            deliver(sink, [record("x", routing_key=key)])
        assert held_open(tmp_path) == [str(tmp_path / "a"), str(tmp_path / "c")]


def test_a_batch_over_midnight_goes_into_both_days_and_the_old_file_is_closed(
    tmp_path: Path,
) -> None:
    midnight = NOON + 12 * 3600
    with opened(tmp_path / "{date}.log") as sink:
        deliver(sink, [record(str(at), received_at=midnight + at) for at in (-2, -1, 0, 1)])
        deliver(sink, [record("2", received_at=midnight + 2)])
        deliver(sink, [record("later", received_at=midnight + 3601)])
        assert held_open(tmp_path) == [str(tmp_path / "2026-11-25.log")]
    assert bodies(tmp_path / "2026-11-24.log") == ["-2", "-1"]
    assert bodies(tmp_path / "2026-11-25.log") == ["0", "1", "2", "later"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "text", "raw"])
def test_a_body_of_4_mib_and_hostile_neighbours_are_a_line_each(tmp_path: Path, form: str) -> None:
    batch = [
        record("first"), record(b"\xff" * (4 << 20)), record(b""), record(b"[" * 100_000),
        record("\x1b]0;x\x07\u202e\u2028"), record("last"),
    ]  # fmt: skip
    with opened(tmp_path / "a.log", format=form) as sink:
        deliver(sink, batch)
    lines = (tmp_path / "a.log").read_bytes().split(b"\n")
    assert len(lines) == len(batch) + 1
    assert b"first" in lines[0]
    assert b"last" in lines[-2]
    assert lines[-1] == b""


@pytest.mark.parametrize("form", ["raw", "text", "json"])
@pytest.mark.parametrize("path", ["a.log", "{routing_key}.log"])
def test_a_long_line_is_the_same_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, path: str
) -> None:
    batch = [
        record(body, routing_key=key)
        for body in (
            b"",
            b"a\nb\n",
            b"\xff",
            b'{"a":1}',
            b"[\n1,\r\n 2]\n",
            b"\xef\xbb\xbf[1]",
            b"\0",
        )
        for key in ("x", "y")
    ]
    with opened(tmp_path / "whole" / path, format=form) as sink:
        deliver(sink, batch)
    for module in (file_sink, formats):
        monkeypatch.setattr(module, "LONG_BODY_BYTES", -1)
    monkeypatch.setattr(file_sink, "_PIECE_BYTES", 5)
    rotate = {"size": "1GiB"} if "{" in path else None
    with opened(tmp_path / "pieces" / path, format=form, rotate=rotate) as sink:
        deliver(sink, batch)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert whole == {file.name: file.read_bytes() for file in (tmp_path / "pieces").iterdir()}


def test_a_long_line_that_no_room_would_ever_be_enough_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (file_sink, formats):
        monkeypatch.setattr(module, "LONG_BODY_BYTES", -1)
    with opened(tmp_path / "a.log") as sink, file_size_limit(12):
        with pytest.raises(logfan.RecordsRejected) as refused:
            sink.write([record("0"), record("x" * 50), record("1")])
        sink.flush()
    assert dict(refused.value.reasons) == {
        1: "its line of 51 bytes is longer than a file may become here (12)"
    }
    assert bodies(tmp_path / "a.log") == ["0", "1"]


def test_close_after_a_failed_open_and_close_twice_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    sink = made(tmp_path / "folder", rotate={"every": "1d"})
    with pytest.raises(logfan.SinkUnavailable):
        sink.open()
    sink.close()
    sink.close()
    wait_until(lambda: not held_open(tmp_path), "nothing is held open")


@given(
    st.lists(st.sampled_from([0, 1, 65_535, 65_536, 200_000]), min_size=1, max_size=6),
    st.integers(0, 600_000),
)
def test_lines_of_all_sizes_are_written_as_they_are(sizes: list[int], count: int) -> None:
    lines = [bytes([97 + at]) * size for at, size in enumerate(sizes)]
    whole = b"".join(line + b"\n" for line in lines)
    buffers = [one for piece in _pieces(lines, len(whole)) for one in piece]
    assert b"".join(buffers) == whole
    assert len(whole) < 200_000 or all(any(one is line for one in buffers) for line in lines)
    assert b"".join(_behind(buffers, count)) == whole[count:]


def test_a_batch_of_more_lines_than_one_call_takes(tmp_path: Path) -> None:
    words = [f"{number:0100}" for number in range(3000)]
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, [record(word) for word in words])
    assert bodies(tmp_path / "a.log") == words
