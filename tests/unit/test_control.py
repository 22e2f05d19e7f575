"""The daemon's local socket: found by the config, closed to all but root and its own user."""

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logfan.control import (
    ControlServer,
    NoDaemon,
    NotPermitted,
    ask,
    folder_of_daemon,
    instance_of,
    name_of_socket,
    sockets,
)
from support.users import NOBODY, ordinary_user

CONFIG = Path("/etc/logfan/config.toml")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket, and open to those who may pass."""
    with tempfile.TemporaryDirectory(prefix="logfan-run-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "own"


@contextmanager
def serving(path: Path) -> Iterator[None]:
    server = ControlServer(path, lambda request: {"asked": request}, lambda: None)
    server.start()
    try:
        assert server.thread is None or server.thread.fault is None
        yield
    finally:
        server.stop()


def test_it_answers_its_own_user_and_leaves_nothing_behind(folder: Path) -> None:
    path = folder / name_of_socket(CONFIG, "")
    with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert ask(path, {"do": "x"}) == {"asked": {"do": "x"}}
    assert [*folder.iterdir()] == []
    with pytest.raises(NoDaemon, match="no such file"):
        ask(path, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_folder_and_by_the_daemon(folder: Path) -> None:
    path = folder / name_of_socket(CONFIG, "")
    script = (
        "import os, sys; from pathlib import Path; from logfan import control\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: print(control.ask(Path(sys.argv[1]), {}))\n"
        "except control.NotPermitted: print('refused')\n"
    )

    def as_nobody() -> str:
        command = [sys.executable, "-c", script, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    with serving(path):
        assert as_nobody() == "refused\n"
        folder.chmod(0o755)
        path.chmod(0o666)
        assert as_nobody() == "refused\n"
    # Who became nobody can ask at all: where nobody listens, the outcome is another.
    assert as_nobody() == ""


def test_one_that_a_killed_daemon_left_is_replaced_and_a_live_one_is_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / name_of_socket(CONFIG, "")
    with serving(path):
        left = folder / "left.sock"
        path.rename(left)
        path.hardlink_to(left)
        with caplog.at_level(logging.WARNING), serving(path):
            assert "no control socket at" in caplog.text
            assert "address already in use" in caplog.text
        assert ask(path, {}) == {"asked": {}}
    with pytest.raises(NoDaemon, match="connection refused"):
        ask(left, {})
    left.rename(path)
    with serving(path):
        assert ask(path, {}) == {"asked": {}}


def test_it_is_found_by_config_and_instance(folder: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{folder}:/other"}
    folder.mkdir()
    for config, instance in ((CONFIG, "a"), (CONFIG, "b"), (Path("/x.toml"), ""), (None, "")):
        (folder / name_of_socket(config, instance)).touch()
    assert folder_of_daemon(environ) == folder
    assert folder_of_daemon({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/logfan")

    def found(config: Path | None, instance: str | None = None) -> list[str]:
        return [instance_of(one) for one in sockets(config, instance, environ)]

    assert found(CONFIG) == ["a", "b"]
    of_user = {"XDG_RUNTIME_DIR": str(folder.parent)}
    folder.rename(folder.with_name("logfan"))
    assert [instance_of(one) for one in sockets(CONFIG, "a", of_user)] == ["a"]
    folder.with_name("logfan").rename(folder)
    assert found(CONFIG, "b") == ["b"]
    assert found(CONFIG, "c") == found(Path("/y.toml")) == []
    assert found(Path("/x.toml")) == found(None) == ["logfan"]


def test_a_folder_that_may_not_be_looked_into_is_named(folder: Path) -> None:
    folder.mkdir(mode=0)
    with ordinary_user(), pytest.raises(NotPermitted, match=str(folder)):
        sockets(CONFIG, None, {"RUNTIME_DIRECTORY": str(folder)})
