"""`logfan` as people call it, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from support.forked import Forked, die_with_parent, read_at_start
from support.waiting import PATIENCE_SECONDS

LOGFAN = [sys.executable, "-m", "logfan"]


def start(
    arguments: Sequence[str], *, folder: Path | None, environ: Mapping[str, str], stdout: int,
    stderr: int, stdin: int | None = None, forked: bool = True, session: bool = False,
    constants: Mapping[str, float] | None = None,
) -> "subprocess.Popen[bytes] | Forked":  # fmt: skip
    """A call of it, which ends with this process. `forked`: as `support.forked` says, but where
    the environment forbids it."""
    with Path(os.devnull).open("rb") as nothing:
        given = nothing.fileno() if stdin is None else stdin
        if forked and not read_at_start(environ):
            return Forked(
                arguments,
                folder,
                environ,
                (given, stdout, stderr),
                session=session,
                constants=constants or {},
            )
        assert not constants
        return subprocess.Popen(
            [*LOGFAN, *arguments], cwd=folder, env=environ,
            stdin=given, stdout=stdout, stderr=stderr,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
        )  # fmt: skip


def logfan(
    *arguments: str, folder: Path | None = None, stdin: str | bytes = b"", **environ: str
) -> "subprocess.CompletedProcess[str]":
    """What it printed, and its exit code."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as error:
        given.write(stdin.encode() if isinstance(stdin, str) else stdin)
        given.seek(0)
        process = start(
            arguments, folder=folder, environ={**os.environ, **environ}, stdin=given.fileno(),
            stdout=out.fileno(), stderr=error.fileno(),
        )  # fmt: skip
        try:
            code = process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        printed = [Path(f"/proc/self/fd/{one.fileno()}").read_text() for one in (out, error)]
    return subprocess.CompletedProcess([*LOGFAN, *arguments], code, *printed)
