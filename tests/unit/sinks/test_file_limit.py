"""Files that messages bring about: none outside its folder, and no more than `max_files`."""

import logging
import os
import string
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

import logfan
from logfan_sinks.file import paths
from logfan_sinks.file.file_limit import FileLimit
from logfan_sinks.file.paths import PathTemplate, check_template
from support.files import NOON, deliver, opened, record

DAY = 86400


def keyed(*keys: str, at: float = NOON) -> list[logfan.Record]:
    """A record for each key; its body is the key."""
    return [record(key, routing_key=key, received_at=at) for key in keys]


def tree(folder: Path) -> dict[str, str]:
    """All files below the folder, with what is in them."""
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(files)}


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING):
        yield caplog


def overflowed() -> float:
    name = "logfan_file_sink_overflowed_records_total"
    return REGISTRY.get_sample_value(name, {"sink": "archive"}) or 0.0


def test_beyond_max_files_records_share_one_file_and_nothing_is_lost(
    tmp_path: Path, reported: pytest.LogCaptureFixture
) -> None:
    before = overflowed()
    with opened(tmp_path / "{routing_key}/{headers.x}.log", max_files=2) as sink:
        deliver(sink, keyed("a", "b", "c", "a", "d"))
        deliver(sink, keyed("c", "b"))
        assert overflowed() - before == 3
        files = REGISTRY.get_sample_value("logfan_file_sink_files", {"sink": "archive"})
        assert files == 2
    assert tree(tmp_path) == {
        "a/_.log": "a\na\n",
        "b/_.log": "b\nb\n",
        "_other/_other.log": "c\nd\nc\n",
    }
    assert reported.text.count("more than 2 files (max_files)") == 1
    assert f"goes to {tmp_path}/_other/_other.log" in reported.text


def test_what_a_failed_batch_sent_there_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = overflowed()

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(tmp_path / "{routing_key}", max_files=1) as sink:
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(os, "fdatasync", fails)
                sink.write(keyed("a", "b", "c"))
                with pytest.raises(logfan.SinkUnavailable):
                    sink.flush()
            sink.open()
        deliver(sink, keyed("a", "b", "c"))
    assert overflowed() - before == 2


def test_files_that_are_there_count_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "logs/{routing_key}.log"
    with opened(path, max_files=3) as sink:
        deliver(sink, keyed("a", "b"))
    stamped = tmp_path / "logs/a.20261101T000000.000000Z.log"
    for other in (stamped, tmp_path / "logs/x.txt", tmp_path / "logs/a.log.gz"):
        other.touch()  # nothing of these is a file that the path could name
    (tmp_path / "logs/folder.log").mkdir()
    with opened(path, max_files=3) as sink:
        deliver(sink, keyed("c", "d", "a", "b"))
    kept = {name: text for name, text in tree(tmp_path / "logs").items() if text}
    assert kept == {"a.log": "a\na\n", "b.log": "b\nb\n", "c.log": "c\n", "_other.log": "d\n"}


def test_removed_files_make_room_at_the_next_open(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}", max_files=1) as sink:
        deliver(sink, keyed("a"))
        (tmp_path / "a").unlink()
        deliver(sink, keyed("b"))
        sink.open()  # as SIGHUP does
        (tmp_path / "_other").unlink()
        sink.open()
        deliver(sink, keyed("b"))
    assert tree(tmp_path) == {"b": "b\n"}


def test_a_new_day_counts_anew_and_is_logged_anew(
    tmp_path: Path, reported: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path / "{date}/{routing_key}", max_files=1) as sink:
        deliver(sink, keyed("a", "b"))
        deliver(sink, [*keyed("a", "b"), *keyed("b", "a", at=NOON + DAY)])
    assert tree(tmp_path) == {
        "2026-11-24/a": "a\na\n",
        "2026-11-24/_other": "b\nb\n",
        "2026-11-25/b": "b\n",
        "2026-11-25/_other": "a\n",
    }
    assert reported.text.count("(max_files)") == 2


def test_without_a_date_a_new_day_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "{routing_key}", max_files=1) as sink:
        deliver(sink, [*keyed("a"), *keyed("b", at=NOON + DAY)])
    assert set(tree(tmp_path)) == {"a", "_other"}


def test_what_is_remembered_of_any_number_of_paths_is_bounded() -> None:
    template = PathTemplate("logs/{headers.x}/{headers.y}", instance="")
    cap = FileLimit(template, 500, logging.getLogger("silent"))
    cap._log.setLevel(logging.ERROR)
    tracemalloc.start()
    try:
        for number in range(5_000):
            cap.of(record("x", headers={"x": "x" * 80, "y": f"{number:080}"}))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cap.files == 500
    assert cap.overflowed == 4_500
    assert held < 3 << 20, f"{held:,} bytes"


def test_long_values_are_not_kept() -> None:
    paths._short_safe_text.cache_clear()
    tracemalloc.start()
    try:
        for number in range(50):
            paths.safe_name(f"{number}" + "x" * (1 << 20))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20


@pytest.mark.parametrize(
    ("written", "meant", "untrusted"),
    [
        ("logs//{routing_key}//a.log", "logs/app/a.log", 2),
        ("./logs/{routing_key}/./a.log", "./logs/app/a.log", 2),
        ("//logs/{routing_key}", "/logs/app", 1),
        ("{routing_key}", "app", 1),
    ],
)
def test_slashes_and_dots_that_say_nothing_are_left_out(
    written: str, meant: str, untrusted: int
) -> None:
    template = PathTemplate(check_template(written), instance="")
    assert (template.of(record("x")), template.untrusted) == (meant, untrusted)


WILD = st.text(max_size=300) | st.binary(max_size=300) | st.none() | st.integers()
DOTS = st.text(alphabet="./\\ \0\n~é\u0301\u202e" + string.ascii_letters, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=DOTS, x=WILD | DOTS, y=WILD | DOTS)
def test_whatever_the_fields_the_file_lies_below_the_fixed_part(
    tmp_path: Path, key: str, x: Any, y: Any
) -> None:
    fixed = tmp_path / "fixed"
    with opened(fixed / "{routing_key}/{headers.x}{headers.y}/{headers.y}.log") as sink:
        deliver(sink, [record("x", routing_key=key, headers={"x": x, "y": y})])
        (open_file,) = sink._files.paths
    assert os.listdir(tmp_path) in ([], ["fixed"])  # noqa: PTH208
    file = Path(open_file)
    assert file.is_file()
    assert not file.is_symlink()
    assert file.resolve().relative_to(fixed.resolve()).parts == file.parts[-3:]


def test_a_folder_swapped_for_a_link_at_any_moment_leads_nowhere(tmp_path: Path) -> None:
    """Somebody who may write to the folder swaps a link in and out as fast as they can."""
    logs, outside = tmp_path / "logs", tmp_path / "outside"
    outside.mkdir()
    stop = threading.Event()

    def swap() -> None:
        for turn in count():
            if stop.is_set():
                return
            with suppress(OSError):
                (logs / "k").rename(tmp_path / f"aside-{turn}")
            with suppress(OSError):
                (logs / "k").symlink_to(outside)
                (logs / "k").unlink()

    swapper = threading.Thread(target=swap)
    refused = taken = 0
    path = logs / "{routing_key}/{headers.n}/{headers.n}"
    with opened(path, fsync="never", rotate={"size": "1B", "compress": "gzip"}) as sink:
        swapper.start()
        until = time.monotonic() + 20
        try:
            while (taken < 100 or refused < 50) and time.monotonic() < until:
                headers = {"n": str((taken + refused) % 3)}
                try:
                    deliver(sink, [record("x", routing_key="k", headers=headers)])
                    taken += 1
                except logfan.SinkUnavailable:
                    refused += 1
                    sink.open()
        finally:
            stop.set()
            swapper.join(60)
    assert refused
    assert list(outside.iterdir()) == []
