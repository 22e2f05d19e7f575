"""A change of a file counts once, and only when it stays as it is."""

import os
from pathlib import Path

import pytest

from logfan.config.file_watch import FileWatch, states_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text("one")
    return file


def watch(*files: Path) -> FileWatch:
    return FileWatch(states_of(files))


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def test_without_a_change_there_is_none(file: Path) -> None:
    one = watch(file)
    assert [one.look() for _ in range(3)] == [[], [], []]


def test_a_change_is_reported_once_at_the_second_look(file: Path) -> None:
    one = watch(file)
    replace(file, "two")
    assert [one.look() for _ in range(4)] == [[], [file], [], []]


def test_a_file_that_is_being_written_is_left_alone(file: Path) -> None:
    one = watch(file)
    with file.open("w") as writer:
        for piece in ("o", "n", "e"):
            writer.write(piece)
            writer.flush()
            assert one.look() == []
    assert one.look() == [file]


def test_what_is_put_back_before_it_counted_is_no_change(tmp_path: Path) -> None:
    other = tmp_path / "away"
    one = watch(other)
    other.write_text("x")
    assert one.look() == []
    other.unlink()
    assert [one.look(), one.look()] == [[], []]


def test_the_same_size_and_time_in_another_file_is_a_change(file: Path) -> None:
    one = watch(file)
    status = file.stat()
    replace(file, "two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [one.look(), one.look()] == [[], [file]]


def test_a_symbolic_link_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes does: config.toml -> ..data/config.toml, ..data -> a folder of one version."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.toml").write_text("same")
    data, file = tmp_path / "..data", tmp_path / "config.toml"
    data.symlink_to("v1")
    file.symlink_to("..data/config.toml")
    one = watch(file)
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(data)
    assert [one.look(), one.look()] == [[], [file]]


def test_a_file_that_goes_and_comes_is_a_change_each(file: Path) -> None:
    one = watch(file)
    file.unlink()
    assert [one.look(), one.look()] == [[], [file]]
    file.write_text("one")
    assert [one.look(), one.look()] == [[], [file]]


def test_what_was_read_meanwhile_is_no_news(file: Path) -> None:
    one = watch(file)
    replace(file, "two")
    assert one.look() == []
    one.renew()
    assert [one.look(), one.look()] == [[], []]
