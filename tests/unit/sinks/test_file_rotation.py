"""Rotation of the file sink: when, under which name, compressed how, and what is pruned."""

import errno
import gzip
import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import logfan
from logfan_sinks.file import FileSink, rotation
from logfan_sinks.file.directories import folder_of
from logfan_sinks.file.rotation import rotated_files, rotated_name
from support.files import NOON, Watch, deliver, held_open, made, numbered, opened, record
from support.waiting import wait_until

DAY = 86400
MIDNIGHT = NOON + DAY / 2


def content(file: Path) -> bytes:
    """What is in a file, whether compressed or not."""
    raw = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(raw)
    if file.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    return raw


def rotated(path: Path) -> list[Path]:
    with folder_of(str(path), 0) as folder:
        return [path.with_name(found.name) for found in rotated_files(folder, path.name)]


def everything(path: Path) -> list[str]:
    """The lines of all rotated files and of the present one, in the order of the names."""
    return b"".join(content(file) for file in [*rotated(path), path]).decode().splitlines()


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def leave(path: Path, *stamps: str) -> None:
    """Files as an earlier run left them."""
    for stamp in stamps:
        path.with_name(f"{path.name}.{stamp}").write_bytes(b"old\n")


def test_a_file_is_rotated_before_it_grows_beyond_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "50B", "keep": 1000}) as sink:
        for start in range(0, 100, 4):
            deliver(sink, numbered(start, start + 4))
    assert len(rotated(path)) == 12
    assert {file.stat().st_size for file in rotated(path)} == {40}
    assert everything(path) == [f"{number:04}" for number in range(100)]


def test_a_batch_larger_than_the_size_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "50B"}) as sink:
        deliver(sink, numbered(0, 100))
        deliver(sink, numbered(100, 101))
    assert [len(content(file)) for file in rotated(path)] == [500]
    assert content(path) == b"0100\n"


def test_the_size_counts_what_an_earlier_run_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for start in (0, 8):
        with opened(path, rotate={"size": "50B"}) as sink:
            deliver(sink, numbered(start, start + 8))
    assert len(rotated(path)) == 1


def test_a_file_is_rotated_with_the_first_record_of_a_new_day(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"every": "1d"}) as sink:
        deliver(sink, numbered(0, 1))
        sink.time = MIDNIGHT - 1
        deliver(sink, numbered(1, 2))
        assert names(path) == ["a.log"]
        sink.time = MIDNIGHT + 5
        deliver(sink, numbered(2, 3))
        deliver(sink, numbered(3, 4))
    assert names(path) == ["a.log", "a.log.20261125T000005.000000Z"]
    assert content(rotated(path)[0]) == b"0000\n0001\n"
    assert content(path) == b"0002\n0003\n"


def test_a_file_that_the_last_run_left_belongs_to_the_day_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"old\n")
    os.utime(path, (NOON - DAY, NOON - DAY))
    with opened(path, rotate={"every": "1d"}) as sink:
        deliver(sink, numbered(0, 1))
    assert [content(file) for file in rotated(path)] == [b"old\n"]
    os.utime(path, (NOON, NOON))
    with opened(path, rotate={"every": "1d"}) as sink:
        deliver(sink, numbered(1, 2))
    assert len(rotated(path)) == 1


def test_an_empty_file_is_not_rotated(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    os.utime(path, (NOON - DAY, NOON - DAY))
    with opened(path, rotate={"every": "1h", "size": "1B"}) as sink:
        sink.time += 7200
        deliver(sink, numbered(0, 1))
    assert names(path) == ["a.log"]


def test_two_rotations_at_one_moment_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1B", "keep": 1000}) as sink:
        for number in range(20):
            deliver(sink, numbered(number, number + 1))
    assert everything(path) == [f"{number:04}" for number in range(20)]


def test_a_rotated_file_comes_after_the_others_even_where_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261231T235959.999999Z.gz")
    with folder_of(str(path), 0) as folder:
        assert rotated_name(folder, path.name, NOON) == "a.log.20270101T000000.000000Z"


def test_everything_is_durable_before_the_file_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **named: Any) -> Any:
            calls.append(name)
            return real(*args, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("fdatasync", "rename", "fsync"):
        watched(name)
    with opened(tmp_path / "a.log", rotate={"size": "1B"}) as sink:
        sink.write(numbered(0, 1))
        del calls[:]
        sink.write(numbered(1, 2))
        assert calls == ["fdatasync", "rename", "fsync"]
        sink.flush()
        assert calls[3:] == ["fdatasync"]


@pytest.mark.parametrize(("compress", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_rotated_files_are_compressed_whole(tmp_path: Path, compress: str, suffix: str) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1KiB", "compress": compress, "keep": 100}) as sink:
        for start in range(0, 1000, 100):
            deliver(sink, numbered(start, start + 100))
        wait_until(lambda: {file.suffix for file in rotated(path)} == {suffix}, "all compressed")
        wait_until(lambda: len(names(path)) == 5, "the originals are gone")
    assert everything(path) == [f"{number:04}" for number in range(1000)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in rotated(path)} == {0o640}


def test_a_file_of_many_chunks_is_compressed_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    large = os.urandom(3_500_000).replace(b"\n", b"_")
    with opened(path, rotate={"size": "1MiB", "compress": "zstd"}) as sink:
        deliver(sink, [record(large)])
        deliver(sink, [record("next")])
        wait_until(lambda: len(names(path)) == 2 and names(path)[1].endswith(".zst"), "compressed")
    assert content(rotated(path)[0]) == large + b"\n"


def test_what_a_crash_left_of_a_compression_is_finished_at_the_next_open(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261123T000000.000000Z", "20261122T000000.000000Z")
    path.with_name("a.log.20261123T000000.000000Z.zst.part").write_bytes(b"half")
    path.with_name("a.log.20261122T000000.000000Z.zst").write_bytes(
        zstandard.ZstdCompressor().compress(b"old\n")
    )
    with opened(path, rotate={"every": "1d", "compress": "zstd"}):
        wait_until(
            lambda: (
                names(path)
                == [
                    "a.log",
                    "a.log.20261122T000000.000000Z.zst",
                    "a.log.20261123T000000.000000Z.zst",
                ]
            ),
            "one compressed file for each, and no part",
        )
    assert [content(file) for file in rotated(path)] == [b"old\n"] * 2


def test_half_a_compression_is_removed_also_where_nothing_is_compressed_any_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261123T000000.000000Z", "20261123T000000.000000Z.gz.part")
    with opened(path, rotate={"every": "1d"}):
        wait_until(lambda: names(path) == ["a.log", "a.log.20261123T000000.000000Z"], "one is left")


def test_the_stream_goes_on_while_a_file_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    real = rotation.Archivist._compress

    def slow(self: rotation.Archivist, folder: int, name: str) -> None:
        may_go_on.wait(60)
        real(self, folder, name)

    monkeypatch.setattr(rotation.Archivist, "_compress", slow)
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1B", "compress": "gzip", "keep": 50}) as sink:
        for number in range(40):
            deliver(sink, numbered(number, number + 1))
        assert not [file for file in rotated(path) if file.suffix == ".gz"]
        may_go_on.set()
        wait_until(lambda: {file.suffix for file in rotated(path)} == {".gz"}, "all compressed")
    assert everything(path) == [f"{number:04}" for number in range(40)]


def test_closing_does_not_wait_for_a_long_compression_and_the_next_run_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261123T000000.000000Z")
    begun = threading.Event()
    real = rotation.Archivist._compress_to

    def asked_to_stop(self: rotation.Archivist, folder: int, part: str, name: str) -> bool:
        begun.set()
        self._stop.wait(60)
        return real(self, folder, part, name)

    with monkeypatch.context() as patch:
        patch.setattr(rotation.Archivist, "_compress_to", asked_to_stop)
        with opened(path, rotate={"every": "1d", "compress": "gzip"}):
            assert begun.wait(60)
    assert names(path) == ["a.log", "a.log.20261123T000000.000000Z"]
    assert not [thread for thread in threading.enumerate() if thread.name == "archivist"]
    with opened(path, rotate={"every": "1d", "compress": "gzip"}):
        wait_until(lambda: names(path)[1].endswith("Z.gz") and len(names(path)) == 2, "compressed")


def test_opening_anew_does_not_begin_a_compression_anew(tmp_path: Path) -> None:
    with opened(tmp_path / "a.log", rotate={"every": "1d", "compress": "gzip"}) as sink:
        archivist = sink._archivist
        sink.open()
        assert sink._archivist is archivist


def test_a_compression_that_fails_is_logged_and_leaves_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261123T000000.000000Z")
    path.with_name("a.log.20261123T000000.000000Z.gz").mkdir()
    with (
        caplog.at_level(logging.WARNING),
        opened(path, rotate={"every": "1d", "compress": "gzip"}) as sink,
    ):
        wait_until(lambda: "could not be compressed or removed" in caplog.text, "the warning")
        deliver(sink, numbered(0, 1))
    assert content(path.with_name("a.log.20261123T000000.000000Z")) == b"old\n"
    assert not [name for name in names(path) if name.endswith(".part")]


def a_folder(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [a_folder, a_dangling_link, a_pipe])
def test_what_is_no_file_ends_neither_pruning_nor_compressing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.log"
    foreign = [f"a.log.{stamp}.000000Z" for stamp in ("20200101T000000", "20261124T120000")]
    for name in foreign:
        make(tmp_path / name)
    with opened(path, rotate={"size": "1B", "keep": 3, "compress": "gzip"}) as sink:
        for number in range(10):
            deliver(sink, numbered(number, number + 1))
        wait_until(
            lambda: [file.suffix for file in rotated(path)] == [".gz"] * 3, "three, compressed"
        )
        wait_until(lambda: len(names(path)) == 6, "nothing else is left")
    assert everything(path) == ["0006", "0007", "0008", "0009"]
    assert set(foreign) < set(names(path))
    assert caplog.text == ""


@pytest.mark.parametrize("call", ["unlink", "open"])
def test_a_file_that_can_not_be_tended_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    # As with `chattr +i`, a folder's sticky bit, or a bad sector.
    path = tmp_path / "a.log"
    bad = "a.log.20261120T000000.000000Z"
    leave(path, "20261120T000000.000000Z")
    real = getattr(os, call)
    refused: list[str] = []

    def refuses(name: Any, *args: Any, **named: Any) -> Any:
        if name == bad:
            refused.append(name)
            raise PermissionError(errno.EPERM, "Operation not permitted", name)
        return real(name, *args, **named)

    monkeypatch.setattr(os, call, refuses)
    keep = 3 if call == "unlink" else 30
    with opened(path, rotate={"size": "1B", "keep": keep, "compress": "gzip"}) as sink:
        for number in range(10):
            deliver(sink, numbered(number, number + 1))
        left = min(keep, 9)
        wait_until(
            lambda: [file.suffix for file in rotated(path) if file.name != bad] == [".gz"] * left,
            "all others are compressed, and no more than should be",
        )
    assert (tmp_path / bad).read_bytes() == b"old\n"
    assert everything(path)[-left - 1 :] == [f"{number:04}" for number in range(9 - left, 10)]
    assert caplog.text.count(f"the rotated file {bad} could not be compressed or removed") == 1
    assert "Operation not permitted" in caplog.text
    if call == "open":
        assert len(refused) == 1  # not with each rotation


def test_a_file_that_fails_leaves_no_descriptor_open(tmp_path: Path) -> None:
    sink = made(tmp_path / "a.log")
    archivist = rotation.Archivist(
        compress="gzip", keep=rotation.Keep(count=3), now=0.0, log=sink.log,
        start_thread=sink.start_thread,
    )  # fmt: skip
    (tmp_path / "folder").mkdir()
    with folder_of(str(tmp_path / "a.log"), 0) as folder:
        before = held_open(tmp_path)
        with pytest.raises(OSError, match=r"is no regular file|Is a directory"):
            archivist._compress_to(folder, "folder.part", "folder")
        assert held_open(tmp_path) == before
    archivist.close()


def test_keep_is_a_number_of_files_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1B", "keep": 3}) as sink:
        for number in range(10):
            sink.time += 60
            deliver(sink, numbered(number, number + 1))
        wait_until(lambda: len(rotated(path)) == 3, "three are left")
        assert everything(path) == ["0006", "0007", "0008", "0009"]


def test_keep_nothing_keeps_the_present_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1B", "keep": 0}) as sink:
        for number in range(3):
            deliver(sink, numbered(number, number + 1))
        wait_until(lambda: names(path) == ["a.log"], "no rotated file is left")
    assert content(path) == b"0002\n"


def test_keep_is_an_age(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    leave(path, "20261121T120000.000000Z", "20261122T115959.000000Z", "20261122T120001.000000Z.gz")
    with opened(path, rotate={"every": "1d", "keep": "2d"}):
        wait_until(lambda: len(names(path)) == 2, "the older two are gone")
    assert names(path) == ["a.log", "a.log.20261122T120001.000000Z.gz"]


@pytest.mark.parametrize("days", [400, 5000])
def test_one_start_with_a_clock_far_ahead_removes_nothing_by_age(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    path = tmp_path / "a.log"
    old = ["20261022T000000.000000Z", "20261122T000000.000000Z", "20261123T000000.000000Z"]
    leave(path, *old)
    rotate = {"every": "1d", "keep": "30d", "compress": "gzip"}
    wrong = made(path, rotate=rotate)
    wrong.time += days * 86400
    wrong.open()
    for number in range(2):  # it rotates, and so stamps files of the wrong time
        wrong.time += 86400
        deliver(wrong, numbered(number, number + 1))
    wait_until(lambda: {file.suffix for file in rotated(path)} == {".gz"}, "all are compressed")
    wrong.close()
    assert {f"a.log.{stamp}.gz" for stamp in old} <= set(names(path))
    assert "it may be wrong, so no file is removed by its age for a day" in caplog.text
    with opened(path, rotate=rotate):  # the clock is right again: what is old goes
        wait_until(lambda: f"a.log.{old[0]}.gz" not in names(path), "the oldest is gone")
    assert {f"a.log.{stamp}.gz" for stamp in old[1:]} <= set(names(path))


@pytest.mark.parametrize("step", [0.0, 0.001])
def test_a_clock_that_jumps_while_it_runs_removes_nothing_by_age(
    step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now(sink: Watch) -> float:
        sink.time += step  # between the stamp of a rotated file and the look at its age
        return sink.time

    monkeypatch.setattr(Watch, "now", now)
    path = tmp_path / "a.log"
    leave(path, "20261122T000000.000000Z")
    with opened(path, rotate={"size": "1B", "keep": "7d", "compress": "gzip"}) as sink:
        for number, days in enumerate((0.1, 0.1, 2000, 2000, 2000, 2000)):
            sink.time += days * 86400
            deliver(sink, numbered(number, number + 1))
        wait_until(lambda: {file.suffix for file in rotated(path)} == {".gz"}, "compressed")
    assert f"{path.name}.20261122T000000.000000Z.gz" in names(path)
    assert len(rotated(path)) == 6


def test_a_file_and_its_compressed_copy_count_as_one(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    leave(path, *(f"2026112{day}T000000.000000Z{end}" for day in (1, 2, 3) for end in ("", ".gz")))
    with opened(path, rotate={"every": "1d", "keep": 2, "compress": "gzip"}):
        wait_until(
            lambda: (
                names(path)
                == ["a.log", "a.log.20261122T000000.000000Z.gz", "a.log.20261123T000000.000000Z.gz"]
            ),
            "the newest two are left",
        )


def test_only_files_that_this_sink_could_have_made_are_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    foreign = [
        "a.log.1", "a.log.2026-11-20", "a.log.20261120", "a.log.gz", "a.log.part",
        "b.log.20261120T000000.000000Z", "xa.log.20261120T000000.000000Z", "a.log.bak",
        "a.log.20261120T000000.000000Z.bak", "a.log.20261120T000000Z", "a.logs",
        "a.log.20269920T000000.000000Z", "a.log.x.20261120T000000.000000Z", "a.log.zst.part",
    ]  # fmt: skip
    for name in foreign:
        (tmp_path / name).write_bytes(b"not ours\n")
    leave(path, "20261120T000000.000000Z")
    with opened(path, rotate={"every": "1d", "keep": 0, "compress": "gzip"}):
        wait_until(lambda: len(names(path)) == len(foreign) + 1, "ours is gone")
    assert names(path) == sorted(["a.log", *foreign])


def test_files_that_messages_name_are_rotated_each_for_itself(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}", rotate={"size": "1B", "keep": 2}) as sink:
        for number in range(6):
            deliver(sink, [record(str(number), routing_key=key) for key in ("a", "a.b")])
        newest = [f"{key}.20261124T120000.00000{at}Z" for key in ("a", "a.b") for at in (3, 4)]
        wait_until(lambda: names(tmp_path / "a") == sorted(["a", "a.b", *newest]), "two of each")
    for key in ("a", "a.b"):
        assert everything(tmp_path / key) == ["3", "4", "5"]


def test_a_rename_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.log"

    def refuses(name: str, aside: str, **folders: int) -> None:
        raise PermissionError(13, "Permission denied")

    with opened(path, rotate={"size": "1B"}) as sink:
        deliver(sink, numbered(0, 1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuses)
            with pytest.raises(logfan.SinkUnavailable, match="permission denied"):
                sink.write(numbered(1, 2))
        sink.open()
        deliver(sink, numbered(1, 2))
    assert everything(path) == ["0000", "0001"]


def test_the_lock_holds_while_files_rotate(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with opened(path, rotate={"size": "1B", "keep": 100}) as sink:
        for number in range(3):
            deliver(sink, numbered(number, number + 1))
            with pytest.raises(logfan.SinkUnavailable, match="writes to it"):
                Watch(sink.config).open()
        assert held_open(tmp_path) == [str(path)]


def test_one_files_trouble_of_any_kind_does_not_end_the_archivist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tended: list[str] = []

    def tend(self: rotation.Archivist, folder: int, path: str, now: float) -> None:
        tended.append(Path(path).name)
        if path.endswith("bad.log"):
            raise ValueError("a compressor's own kind of error")

    monkeypatch.setattr(rotation.Archivist, "_tend", tend)
    sink = FileSink(FileSink.Config(path="unused.log"), name="archive")
    archivist = rotation.Archivist(
        compress="gzip", keep=rotation.Keep(count=3), now=0.0, log=sink.log,
        start_thread=sink.start_thread,
    )  # fmt: skip
    archivist.tend(str(tmp_path / "bad.log"), 0, 0.0)
    archivist.tend(str(tmp_path / "good.log"), 0, 0.0)
    wait_until(lambda: tended == ["bad.log", "good.log"], "the next one is tended")
    assert "bad.log: rotated files were not tended; it is tried again" in caplog.text
    archivist.close()
