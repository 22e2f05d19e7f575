"""The file sink as a store, seen by its victims: what is taken away or put in its way."""

import errno
import fcntl
import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import logfan
from logfan_sinks.file.directories import folder_of
from logfan_sinks.file.rotation import rotated_files
from support.disks import on_a_disk
from support.files import deliver, file_size_limit, held_open, made, numbered, opened, record
from support.users import ordinary_user
from support.waiting import wait_until

PROGRAM = """
    import errno, os, subprocess, sys, time
    import logfan
    from logfan_sinks.file import FileSink

    def record(body, key="k"):
        return logfan.Record(body, "logs", key, False, time.time(), logfan.Properties())

    def made(path, **options):
        return FileSink(FileSink.Config(path=path, format="raw", **options))

    def why(deed):
        try:
            deed()
        except logfan.SinkUnavailable as error:
            return str(error)

    disk = sys.argv[1]
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the ordinary user owns, where tmp_path is root's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        yield folder


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "logs/deep/a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
        shutil.rmtree(tmp_path / "logs")
        deliver(sink, numbered(1, 2))
        sink.write(numbered(2, 3))
        shutil.rmtree(tmp_path / "logs")
        with pytest.raises(logfan.SinkUnavailable, match="was moved or deleted"):
            sink.flush()
        sink.open()
        deliver(sink, numbered(2, 3))
    assert lines(path) == ["0002"]


def test_a_folder_that_was_moved_away_takes_its_file_along(tmp_path: Path) -> None:
    with opened(tmp_path / "logs/a.log") as sink:
        deliver(sink, numbered(0, 1))
        (tmp_path / "logs").rename(tmp_path / "moved")
        deliver(sink, numbered(1, 2))
    assert lines(tmp_path / "moved/a.log") == ["0000"]
    assert lines(tmp_path / "logs/a.log") == ["0001"]


def test_a_folder_made_read_only_takes_lines_but_no_new_file(open_folder: Path) -> None:
    path = open_folder / "a.log"
    with ordinary_user(), opened(path, rotate={"size": "8B"}) as sink:
        deliver(sink, numbered(0, 1))
        open_folder.chmod(0o555)
        with pytest.raises(logfan.SinkUnavailable) as caught:
            sink.write(numbered(1, 2))
        assert str(caught.value) == f"{path}: permission denied (EACCES)"
        sink.open()
        open_folder.chmod(0o755)
        deliver(sink, numbered(1, 2))
    assert lines(path) == ["0001"]
    assert sum(1 for _ in open_folder.iterdir()) == 2


def test_a_read_only_file_system_is_named_and_waited_for(tmp_path: Path) -> None:
    program = f"""{PROGRAM}
    path = f"{{disk}}/a.log"
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    sink = made(path)
    assert why(sink.open) == f"{{path}}: the file system is read-only (EROFS)", why(sink.open)
    subprocess.run(["mount", "-o", "remount,bind,rw", disk], check=True)
    sink.open()
    sink.write([record(b"x")])
    sink.flush()
    sink.close()
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
    assert "read-only (EROFS)" in why(made(path).open)
    print(open(path).read())
    """
    assert on_a_disk(tmp_path / "disk", program) == "x\n\n"


def test_a_full_disk_is_named_also_where_the_file_itself_cannot_be_made(tmp_path: Path) -> None:
    program = f"""{PROGRAM}
    open(f"{{disk}}/1", "w"), open(f"{{disk}}/2", "w")  # no inode is left
    path = f"{{disk}}/{{{{routing_key}}}}/a.log"
    sink = made(path)
    sink.open()
    print(why(lambda: sink.write([record(b"x")])).removeprefix(disk))
    os.unlink(f"{{disk}}/1"), os.unlink(f"{{disk}}/2")
    sink.open()
    sink.write([record(b"x")])
    sink.flush()
    sink.close()
    """
    reported = on_a_disk(tmp_path / "disk", program, options="size=1m,nr_inodes=3")
    assert reported == (
        "/k/a.log: no free inodes, though there is room for bytes: remove files, or have messages "
        "bring about fewer (max_files) (ENOSPC)\n"
    )


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    # Bound by way of the folder's descriptor: such a name may have 108 bytes at most.
    with folder_of(str(path), 0) as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")


@pytest.mark.parametrize(
    ("plant", "reported"),
    [
        (Path.mkdir, "is a directory (EISDIR)"),
        (a_pipe, "is neither a regular file nor a device"),
        (a_socket, "no such device or address (ENXIO)"),
    ],
)
def test_what_takes_the_files_place_is_refused_until_it_is_gone(
    tmp_path: Path, plant: Callable[[Path], None], reported: str
) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
        path.unlink()
        plant(path)
        with pytest.raises(logfan.SinkUnavailable) as caught:
            sink.write(numbered(1, 2))
        assert str(caught.value) == f"{path}: {reported}"
        with pytest.raises(logfan.SinkUnavailable, match=re.escape(reported)):
            sink.open()
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        sink.open()
        deliver(sink, numbered(1, 2))
    assert lines(path) == ["0001"]


def test_a_link_of_the_operators_that_leads_nowhere_has_its_file_made(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("elsewhere")
    with opened(tmp_path / "a.log") as sink:
        deliver(sink, numbered(0, 1))
    assert lines(tmp_path / "elsewhere") == ["0000"]
    (tmp_path / "b.log").symlink_to("disk/that/is/not/mounted")
    with pytest.raises(logfan.SinkUnavailable, match=r"b.log: no such file.*ENOENT"):
        made(tmp_path / "b.log").open()


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to("/dev/null")


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_device(path: Path) -> None:
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))


TAKEN = [a_folder, a_pipe, a_socket, a_link, a_loop]
if os.geteuid() == 0:
    TAKEN.append(a_device)


@pytest.mark.parametrize(
    ("take", "as_a_folder"),
    # A folder is just what is needed where the name shall be one.
    [(take, as_a) for take in TAKEN for as_a in (False, True) if not (as_a and take is a_folder)],
)
def test_a_name_that_is_taken_sends_its_messages_to_the_path_for_all_others(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    take: Callable[[Path], None],
    as_a_folder: bool,
) -> None:
    end = "/a.log" if as_a_folder else ""
    take(tmp_path / "taken")
    with opened(f"{tmp_path}/{{routing_key}}{end}") as sink:
        for number in range(3):
            keys = ("good", "taken", "better", "taken")
            deliver(sink, [record(f"{key} {number}", routing_key=key) for key in keys])
    assert lines(tmp_path / f"good{end}") == ["good 0", "good 1", "good 2"]
    assert lines(tmp_path / f"better{end}") == ["better 0", "better 1", "better 2"]
    assert lines(tmp_path / f"_other{end}") == [f"taken {number // 2}" for number in range(6)]
    (reported,) = [one.getMessage() for one in caplog.records if "messages that decide" in one.msg]
    assert f"{tmp_path}/taken{end}: " in reported
    assert f"go to {tmp_path}/_other{end}" in reported


@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("end", ["/a.log", "/deep/a.log"])
def test_a_folder_that_messages_name_and_that_may_not_be_used_holds_up_no_other(
    open_folder: Path, mode: int, end: str
) -> None:
    closed = open_folder / "closed"
    with ordinary_user(), opened(f"{open_folder}/{{routing_key}}{end}") as sink:
        closed.mkdir()
        closed.chmod(mode)
        deliver(sink, [record(key, routing_key=key) for key in ("good", "closed", "better")])
        closed.chmod(0o755)
        deliver(sink, [record("again", routing_key="closed")])
    assert lines(open_folder / f"_other{end}") == ["closed"]
    assert lines(open_folder / f"better{end}") == ["better"]
    assert lines(closed / end[1:]) == ["again"]


def test_a_folder_that_takes_no_new_one_is_the_sinks_trouble(open_folder: Path) -> None:
    with ordinary_user(), opened(f"{open_folder}/{{routing_key}}/a.log") as sink:
        open_folder.chmod(0o555)
        with pytest.raises(logfan.SinkUnavailable, match="EACCES") as caught:
            sink.write([record("x", routing_key="new")])
        assert not isinstance(caught.value, logfan.RecordsRejected)
        open_folder.chmod(0o777)


def test_where_the_path_for_all_others_is_taken_too_just_these_are_refused(tmp_path: Path) -> None:
    for name in ("taken", "_other"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "{routing_key}") as sink:
        batch = [record(key, routing_key=key) for key in ("a", "taken", "b", "taken")]
        for _ in range(2):
            with pytest.raises(logfan.RecordsRejected) as refused:
                sink.write(batch)
            assert dict(refused.value.reasons) == dict.fromkeys(
                (1, 3), f"{tmp_path}/_other: is a directory (EISDIR)"
            )
            sink.flush()
    assert lines(tmp_path / "a") == ["a", "a"]
    assert lines(tmp_path / "b") == ["b", "b"]


def test_what_is_wrong_above_the_messages_part_is_the_sinks_trouble(tmp_path: Path) -> None:
    with opened(tmp_path / "logs/{routing_key}/{headers.x}") as sink:
        deliver(sink, [record("0")])
        shutil.rmtree(tmp_path / "logs")
        (tmp_path / "logs").touch()
        with pytest.raises(logfan.SinkUnavailable, match="no directory"):
            sink.write([record("1", routing_key="new")])
        (tmp_path / "logs").unlink()
        sink.open()
        deliver(sink, [record("1")])
    assert lines(tmp_path / "logs/app/_") == ["1"]


@pytest.mark.parametrize("opened_first", [True, False])
@pytest.mark.parametrize("path", ["errors.log", "errors-{date}.log"])
def test_no_message_decides_on_the_path_of_another_sink(
    tmp_path: Path, opened_first: bool, path: str
) -> None:
    day = path.replace("{date}", "2026-11-24")
    with opened(tmp_path / path) as fixed:
        deliver(fixed, [record("fixed 0")])
        if not opened_first:
            fixed._files.close()
        with opened(tmp_path / "{routing_key}") as sink:
            deliver(sink, [record("other", routing_key=day), record("x", routing_key="x")])
            deliver(fixed, [record("fixed 1")])
    assert lines(tmp_path / day) == ["fixed 0", "fixed 1"]
    assert lines(tmp_path / "_other") == ["other"]
    assert lines(tmp_path / "x") == ["x"]


def test_two_sinks_whose_messages_decide_on_one_file_hold_each_other_not_up(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}") as one, opened(tmp_path / "{headers.to}") as two:
        deliver(one, [record("one", routing_key="a")])
        deliver(two, [record("two", headers={"to": "a"}), record("b", headers={"to": "b"})])
    assert lines(tmp_path / "a") == ["one"]
    assert lines(tmp_path / "_other") == ["two"]
    assert lines(tmp_path / "b") == ["b"]


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}") as sink, (tmp_path / "a").open("w") as file:
        program = "import fcntl, sys; fcntl.flock(0, fcntl.LOCK_EX); print(1, flush=True); input()"
        holder = subprocess.Popen(
            [sys.executable, "-c", program.replace("input()", "sys.stdout.close(); import time; "
             "time.sleep(60)")], stdin=file, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(logfan.SinkUnavailable, match=f"process {holder.pid} writes to it"):
            sink.write([record("x", routing_key="a")])
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_file_system_without_locks_says_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_none(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", has_none)
    with pytest.raises(logfan.SinkUnavailable, match=r"has no locks.* take a path on .*ENOLCK"):
        made(tmp_path / "a.log").open()


def test_the_operators_link_for_the_file_stays_and_its_target_rotates(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.log").symlink_to("disk/real.log")
    rotate = {"size": "5B", "compress": "gzip"}
    with opened(tmp_path / "a.log", rotate=rotate) as sink:
        for number in range(3):
            deliver(sink, numbered(number, number + 1))
        wait_until(lambda: len(list((tmp_path / "disk").glob("*.gz"))) == 2, "both are compressed")
    assert (tmp_path / "a.log").is_symlink()
    assert lines(tmp_path / "disk/real.log") == ["0002"]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["a.log"]


def test_a_new_file_that_a_crash_left_empty_has_its_name_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        real(fd)

    (tmp_path / "a.log").touch()
    (tmp_path / "b.log").write_text("x\n")
    monkeypatch.setattr(os, "fsync", watched)
    with opened(tmp_path / "b.log"):
        assert synced == []
    with opened(tmp_path / "a.log"):
        assert synced == [str(tmp_path)]


@pytest.mark.parametrize("path", ["new/deep/a.log", "{routing_key}/deep/a.log"])
def test_a_folder_whose_name_could_not_be_synced_is_synced_before_a_line_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        real(fd)

    (tmp_path / "logs").mkdir()
    sink = made(tmp_path / "logs" / path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(logfan.SinkUnavailable, match="EIO"):  # noqa: PT012 - one or the other
        sink.open()
        sink.write([record("x", routing_key="new")])
    monkeypatch.setattr(os, "fsync", watched)
    try:
        sink.open()
        deliver(sink, [record("x", routing_key="new")])
    finally:
        sink.close()
    folders = [str(tmp_path / name) for name in ("logs", "logs/new", "logs/new/deep")]
    assert [folder for folder in synced if folder in folders] == folders


def test_a_line_that_can_never_fit_is_refused_and_the_others_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    batch = [record("first"), record("x" * 5000), record("last")]
    with opened(path) as sink:
        with (
            file_size_limit(4000),
            pytest.raises(logfan.RecordsRejected) as caught,
        ):
            sink.write(batch)
        assert caught.value.reasons == {
            1: "its line of 5001 bytes is longer than a file may become here (4000)"
        }
        sink.flush()
        assert lines(path) == ["first", "last"]
        # What only has no room now is kept and tried again.
        with file_size_limit(4000), pytest.raises(logfan.SinkUnavailable, match="EFBIG"):
            sink.write([record("y" * 3995)])
        sink.open()
        deliver(sink, [record("y" * 3995)])
    assert [len(line) for line in lines(path)] == [5, 4, 3995]


def test_a_line_longer_than_the_whole_disk_is_refused(tmp_path: Path) -> None:
    program = f"""{PROGRAM}
    sink = made(f"{{disk}}/a.log")
    sink.open()
    try:
        sink.write([record(b"first"), record(b"x" * 2_000_000), record(b"last")])
    except logfan.RecordsRejected as rejected:
        print(dict(rejected.reasons))
    sink.flush()
    assert "disk full (ENOSPC)" in why(lambda: sink.write([record(b"x" * 1_048_000)] * 2))
    print(open(f"{{disk}}/a.log").read().split())
    """
    reported = on_a_disk(tmp_path / "disk", program)
    assert reported == (
        "{1: 'its line of 2000001 bytes is longer than a file may become here (1048576)'}\n"
        "['first', 'last']\n"
    )


def test_two_instances_on_one_path_that_rotates_lose_and_tear_nothing(tmp_path: Path) -> None:
    """By mistake, and neither gives up: one writes at a time, the other reports it held."""
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import logfan
        from logfan_sinks.file import FileSink

        path, mine, other = sys.argv[1:]
        name = mine[-1:]
        rotate = {"size": "200B", "keep": 100_000}
        sink = FileSink(FileSink.Config(path=path, format="raw", fsync="never", rotate=rotate))
        refused = number = 0
        opened = False
        until = time.monotonic() + 60
        # Each goes on until both were refused, however late one of them starts.
        while time.monotonic() < until and not (Path(mine).exists() and Path(other).exists()):
            if refused and number > 200:
                Path(mine).touch()
            try:
                if not opened:
                    sink.open()
                    opened = True
                sink.write([logfan.Record(b"%s-%06d" % (name.encode(), number), "logs", "k", False,
                            time.time(), logfan.Properties())])
                sink.flush()
                number += 1
                if number % 100 == 0:
                    sink._files.close()  # as a restart would: the other may have it
                    opened = False
            except logfan.SinkUnavailable as error:
                assert "writes to it" in str(error), error
                refused += 1
                opened = False
        sink._files.close()
        print(number, refused)
    """)
    path, done = tmp_path / "logs/a.log", tmp_path
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", program, path, done / mine, done / other],
            stdout=subprocess.PIPE, text=True,
        )
        for mine, other in ("ab", "ba")
    ]  # fmt: skip
    counts = [twin.communicate(timeout=300)[0].split() for twin in twins]
    assert [twin.returncode for twin in twins] == [0, 0]
    written = b"".join(file.read_bytes() for file in path.parent.iterdir()).decode().splitlines()
    expected = [
        f"{name}-{number:06}"
        for name, count in zip("ab", counts, strict=True)
        for number in range(int(count[0]))
    ]
    assert sorted(written) == expected
    assert sum(int(refused) for _, refused in counts) > 0, counts


def test_a_file_moved_aside_before_it_could_be_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    real = fcntl.flock
    moved = False

    def slow(fd: int, operation: int) -> None:
        nonlocal moved
        if os.path.isfile(f"/proc/self/fd/{fd}") and not moved:  # noqa: PTH113
            moved = True  # the other instance rotates, and lets go of what it moved aside
            path.rename(tmp_path / "aside")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
    assert lines(tmp_path / "aside") == ["old"]
    assert lines(path) == ["0000"]


@pytest.mark.slow
def test_a_lock_on_the_folder_that_somebody_keeps_holds_nobody_for_long(tmp_path: Path) -> None:
    with folder_of(str(tmp_path / "a.log"), 0) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with opened(tmp_path / "a.log", rotate={"size": "5B"}) as sink:
            deliver(sink, numbered(0, 1))
            deliver(sink, numbered(1, 2))
    assert lines(tmp_path / "a.log") == ["0001"]


def test_two_names_for_one_file_share_it(tmp_path: Path) -> None:
    """As a file system that takes A for a would have it; a second lock would hold the stream."""
    (tmp_path / "app.log").touch()
    os.link(tmp_path / "app.log", tmp_path / "APP.log")
    path = tmp_path / "{routing_key}.log"
    with opened(path, max_open_files=3) as sink:
        for turn in range(3):
            keys = ("app", "APP", "x", "app", "y", "z", "APP")
            deliver(sink, [record(f"{turn} {key}", routing_key=key) for key in keys])
        assert len(held_open(tmp_path)) <= 3
    assert len(lines(tmp_path / "app.log")) == 12
    assert held_open(tmp_path) == []


def test_compressing_does_not_follow_links_that_were_planted(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "k.20260101T000000.000000Z"
    secret.write_text("theirs\n")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "evil").symlink_to(outside)
    (logs / "a").mkdir()
    (logs / "a/k.20260101T000000.000000Z").symlink_to(secret)
    path = logs / "{headers.x}/{routing_key}"
    rotate = {"size": "1B", "compress": "gzip", "keep": 1000}
    with opened(path, rotate=rotate) as sink:
        for number in range(2):
            deliver(sink, [record(str(number), routing_key="k", headers={"x": "a"})])
        archivist = sink._archivist
        assert archivist is not None
        archivist.tend(f"{logs}/evil/k", 2, sink.now())
    assert secret.read_text() == "theirs\n"
    assert list(outside.iterdir()) == [secret]
    with pytest.raises(OSError, match="symbolic link") as caught, folder_of(f"{logs}/evil/k", 2):
        pass
    assert caught.value.errno == errno.ELOOP
    with folder_of(f"{logs}/a/k", 2) as folder:
        assert [rotated.name for rotated in rotated_files(folder, "k")] != []
    assert (logs / "a/k.20260101T000000.000000Z").is_symlink()


def test_rotated_files_can_be_read_after_all_that(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "5B", "compress": "gzip"}) as sink:
        deliver(sink, numbered(0, 1))
        shutil.rmtree(tmp_path)
        deliver(sink, numbered(1, 2))
        deliver(sink, numbered(2, 3))
        wait_until(lambda: list(tmp_path.glob("*.gz")) != [], "it is compressed")
    assert [gzip.decompress(file.read_bytes()) for file in tmp_path.glob("*.gz")] == [b"0001\n"]


def test_closing_what_was_never_opened_is_no_trouble(tmp_path: Path) -> None:
    made(tmp_path / "a.log").close()


def test_what_was_written_and_not_flushed_is_not_there_twice_after_an_open(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path) as sink:
        deliver(sink, numbered(0, 1))
        with file_size_limit(4000), pytest.raises(logfan.RecordsRejected):
            sink.write([record("first"), record("x" * 5000)])
        sink.open()  # the host writes again what was not flushed
        deliver(sink, [record("first")])
    assert lines(path) == ["0000", "first"]
