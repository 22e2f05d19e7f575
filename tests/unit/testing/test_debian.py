"""Debian's packages in a cache folder of our own."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logfan.testing import debian
from logfan.testing.debian import DebianUnavailable, unpacked

SMALL = "hostname"  # a package of a few kilobytes, on every Debian


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, for programs that stand in for Debian's."""
    folder = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    program.chmod(0o755)


def stand_ins(folder: Path) -> Path:
    """An apt and a dpkg that need no network; the file that counts their downloads."""
    calls = folder / "calls"
    stand_in(
        folder,
        "apt-get",
        'case "$*" in *" update") for o in "$@"; do case "$o" in -oDir::State::Lists=*)'
        ' touch "${o#*=}/x_Packages";; esac; done;;\n'
        f'*download*) sleep 0.2; echo "$*" >> {calls}; for p in "$@"; do :; done;'
        ' touch "$p"_1_all.deb;; esac',
    )
    stand_in(folder, "dpkg", '[ $1 != -x ] || echo content > "$3/file"')
    stand_in(folder, "dpkg-query", "exit 0")
    return calls


def test_a_system_without_apt_is_named_as_the_reason(cache: Path, programs: Path) -> None:
    with pytest.raises(DebianUnavailable, match="no apt-get, dpkg, dpkg-query: it is not a Debian"):
        unpacked(SMALL)


def test_what_apt_says_is_passed_on(cache: Path, programs: Path) -> None:
    for name in ("apt-get", "dpkg", "dpkg-query"):
        stand_in(programs, name, "echo 'E: the mirror burnt down' >&2; exit 100")
    with pytest.raises(DebianUnavailable, match="apt-get failed: E: the mirror burnt down"):
        unpacked(SMALL, closure=False)
    assert [file.name for file in cache.rglob("*") if file.is_file()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(programs)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DebianUnavailable, match=r"Not a directory.*set XDG_CACHE_HOME"):
        unpacked(SMALL)


def test_a_second_call_fetches_nothing(cache: Path, programs: Path) -> None:
    calls = stand_ins(programs)
    first = unpacked(SMALL, closure=False)
    assert (first / "file").read_text() == "content\n"
    assert unpacked(SMALL, closure=False) == first
    assert len(calls.read_text().splitlines()) == 1


def test_callers_at_the_same_time_fetch_once(cache: Path, programs: Path) -> None:
    calls = stand_ins(programs)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: unpacked(SMALL, closure=False), range(4)))
    assert len(folders) == 1
    assert len(calls.read_text().splitlines()) == 1


def test_a_cache_that_was_moved_is_fetched_anew(
    cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_ins(programs)
    unpacked(SMALL, closure=False)
    (cache / "logfan").rename(cache / "elsewhere")
    (cache / "moved").mkdir()
    (cache / "elsewhere").rename(cache / "moved/logfan")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "moved"))
    unpacked(SMALL, closure=False)
    assert len(calls.read_text().splitlines()) == 2


def test_what_a_killed_process_left_behind_is_neither_used_nor_kept(
    cache: Path, programs: Path
) -> None:
    stand_ins(programs)
    root = unpacked(SMALL, closure=False)
    (root / ".complete").unlink()
    (root / "half").touch()
    abandoned = root.parent / ".new-dead"
    abandoned.mkdir()
    assert unpacked(SMALL, closure=False) == root
    assert not (root / "half").exists()
    assert not abandoned.exists()


def test_a_change_that_fails_leaves_no_package_behind(cache: Path, programs: Path) -> None:
    stand_ins(programs)

    def fail(new: Path, final: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(DebianUnavailable, match="Permission denied"):
        unpacked(SMALL, closure=False, finish=fail)
    assert not list(cache.rglob("file"))


@pytest.fixture
def asked(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian `own` whose apt knows a mirror; the file with what that apt was asked for."""
    folder, asked = programs, stand_ins(programs)
    release = {"ID": "debian", "VERSION_CODENAME": "own"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    own = "https://mirror.invalid/debian/ own main"
    stand_in(
        folder,
        "apt-get",
        f'echo "$*" >> {asked}\n'
        'for o in "$@"; do case "$o" in -oDir::Etc::SourceList=*) sources="${o#*=}";;'
        ' -oDir::State::Lists=*) lists="${o#*=}";; esac; done\n'
        'case "$*" in\n'
        f"indextargets*) echo 'https://other.invalid/ stable main'; echo '{own}';;\n"
        f'*" update") cat "$sources" >> {asked}; test ! -e {folder}/old-keys || test "$(grep -c'
        ' unpacked-keys "$sources")" = 1 || { echo "E: not signed" >&2; exit 100; };'
        ' touch "$lists/x_Packages";;\n'
        "*install*) for p in libc6 libssl3 zlib1g perl erlang-base server; do"
        " echo Inst $p; done;;\n"
        '*download*) while [ "$1" != download ]; do shift; done; shift;'
        ' for p in "$@"; do touch "$p"_1_all.deb; done;; esac',
    )
    stand_in(folder, "dpkg-query", "printf 'ii  libc6\\nii  libssl3\\n'")
    return asked


def test_another_release_comes_from_this_ones_mirror_with_all_its_libraries(
    cache: Path, asked: Path
) -> None:
    root = unpacked("server", always=("erlang-",), suite="next")
    assert root.parent.name == "next"
    lines = asked.read_text().splitlines()
    assert "URIs: https://mirror.invalid/debian/" in lines
    assert "Suites: next" in lines
    assert lines[-1].endswith("download libc6 libssl3 zlib1g erlang-base server")
    assert unpacked("server", closure=False) != root


def test_keys_that_are_younger_than_this_system_are_fetched_as_a_package(
    cache: Path, programs: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "old-keys").touch()
    monkeypatch.setattr(debian, "_KEYRING", Path("/unpacked-keys"))
    write = 'echo content > "$3/file"; echo keys > "$3/unpacked-keys"'
    stand_in(programs, "dpkg", f"[ $1 != -x ] || {{ {write}; }}")
    assert (unpacked("server", suite="next") / "file").exists()
    assert "debian-archive-keyring" in asked.read_text()
    assert f"Signed-By: {cache}/" in asked.read_text()


def test_another_release_needs_a_debian_with_a_mirror(
    cache: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for release, why in (
        ({"ID": "debian", "VERSION_CODENAME": "older"}, "no mirror for older main, so none for ne"),
        ({"ID": "ubuntu"}, "packages of next can only be fetched on a Debian"),
    ):
        monkeypatch.setattr("platform.freedesktop_os_release", lambda release=release: release)
        with pytest.raises(DebianUnavailable, match=why):
            unpacked("server", suite="next")


def test_the_script_prints_the_folder_and_ends_without_a_traceback_on_a_fault(
    cache: Path, programs: Path
) -> None:
    stand_ins(programs)
    script = [sys.executable, debian.__file__, "--no-closure", SMALL]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert (Path(done.stdout.strip()) / "file").exists()
    (programs / "apt-get").unlink()
    failed = subprocess.run([*script, "other"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr == (
        "cannot fetch hostname, other: this system has no apt-get: it is not a Debian\n"
    )


@pytest.mark.slow
def test_a_real_package_comes_from_the_real_debian(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("apt-get") is None and not os.environ.get("CI"):
        pytest.skip("this system has no apt-get")
    monkeypatch.setattr(debian, "_SYSTEM_LISTS", cache)  # so that it fetches lists of its own
    program = unpacked(SMALL, closure=False) / "bin/hostname"
    assert program.read_bytes().startswith(b"\x7fELF")
    assert subprocess.run([program, "--version"], check=True, capture_output=True)
