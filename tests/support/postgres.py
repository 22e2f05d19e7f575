"""A private PostgreSQL on loopback: the installed one, else Debian's package, unpacked."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from logfan.testing.debian import unpacked
from logfan.testing.versions import library_path
from support.waiting import wait_until

_BIN = "usr/lib/postgresql/15/bin"


class Postgres:
    """One server with the database `postgres`, in a folder of its own; removed at the end."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.dsn = f"postgresql://logfan@127.0.0.1:{port}/postgres"
        installed = Path("/", _BIN, "postgres").exists()
        root = Path("/") if installed else unpacked("postgresql-15")
        self._folder = Path(tempfile.mkdtemp(prefix="logfan-postgres-"))
        # PostgreSQL does not run as root, nor may another user look into root's cache.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
            if not installed:
                root = shutil.copytree(root, self._folder / "root", symlinks=True)
                root.chmod(0o755)
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        self._environ = {"PATH": f"{root / _BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        if not installed:
            self._environ["LD_LIBRARY_PATH"] = library_path(root)
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "logfan", "-A", "trust", "-N")
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, check=False, capture_output=True, env=self._environ, cwd=self._folder,
            **self._user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch()
        wait_until(self._answers, "PostgreSQL answers")

    def _launch(self) -> None:
        command = (
            "postgres", "-D", str(self._folder / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
        )  # fmt: skip
        with (self._folder.parent / f"{self._folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environ, cwd=self._folder, stdout=log, stderr=log, **self._user
            )

    def _answers(self) -> bool:
        import psycopg

        if self._process is not None and self._process.poll() is not None:
            self._launch()  # what it left behind when it crashed holds its memory for a moment
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGKILL has it crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder.parent / f"{self._folder.name}.log").unlink(missing_ok=True)
