"""RabbitMQ by version: what is fetched from where, and programs run by a loader lent to them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from logfan.testing import versions
from logfan.testing.debian import DebianUnavailable
from logfan.testing.node import NodeUnavailable, RabbitNode


def loader_of_this_system() -> Path:
    found = next(Path("/").glob("lib*/ld-linux*.so*"), None)
    if found is None:
        pytest.skip("this system's programs have no loader of glibc's")
    return found.resolve()


def test_a_programs_own_loader_and_libraries_run_it_under_its_own_name(tmp_path: Path) -> None:
    """The loader here is this system's, but the program gets to it by the lent one only."""
    new, final = tmp_path / "new", tmp_path / "a 'quoted' place"
    libraries = new / "usr/lib/some-linux-gnu"
    programs = new / "usr/lib/erlang/erts/bin"
    for folder in (libraries, programs, new / "usr/lib/erlang/bin"):
        folder.mkdir(parents=True)
    shutil.copy(loader_of_this_system(), libraries / "ld-linux-some.so.2")
    shutil.copy(os.path.realpath("/bin/cat"), programs / "beam.smp")
    (programs / "start").write_text("#!/bin/sh\n")
    (new / "usr/lib/erlang/bin/erl").write_text("ROOTDIR=/usr/lib/erlang\n")

    versions._borrow_loader(new, final)
    new.rename(final)

    program = final / "usr/lib/erlang/erts/bin/beam.smp"
    done = subprocess.run(
        [program, "/proc/self/comm", "/proc/self/cmdline"], check=True, capture_output=True
    )
    name, _, command = done.stdout.partition(b"\n")
    assert name == b"beam.smp"
    assert f"{final}/usr/lib/some-linux-gnu".encode() in command.split(b"\0")
    assert (program.parent / "start").read_text() == "#!/bin/sh\n"
    assert f"{final}/usr/lib/erlang" in (final / "usr/lib/erlang/bin/erl").read_text()
    assert not versions.library_path(final)


def test_a_version_that_no_release_has_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DebianUnavailable, match=r"RabbitMQ 2\.8 is not .* known: 3\.10, 4\.0, 4"):
        versions.fetched("2.8")
    with pytest.raises(NodeUnavailable, match=r"RabbitMQ 2\.8 cannot be fetched \(RabbitMQ 2\.8"):
        RabbitNode(version="2.8")


def test_the_environment_chooses_for_nodes_that_name_no_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRIVATE_RABBITMQ", "2.8")
    with pytest.raises(NodeUnavailable, match=r"RabbitMQ 2\.8"):
        RabbitNode()
    with pytest.raises(NodeUnavailable, match="holds no rabbitmq-server"):
        RabbitNode(root=tmp_path)


def test_packages_of_this_very_release_are_not_fetched_as_anothers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def unpacked(*_: str, suite: str, **__: object) -> Path:
        asked.append(suite)
        return tmp_path

    monkeypatch.setattr("logfan.testing.debian.unpacked", unpacked)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    for version in ("", "3.10", "4.0", "4.3"):
        versions.fetched(version)
    assert asked == ["", "", "trixie", "sid"]
