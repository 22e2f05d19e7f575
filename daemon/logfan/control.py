"""The local socket of a running daemon, by which `logfan pause` and `logfan resume` reach it.

A request and its answer are a line of JSON each. Only root and the daemon's own user may connect:
the folder and the socket are closed to others, and the daemon looks besides who it is.
"""

import contextlib
import hashlib
import logging
import os
import socket
import socketserver
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from logfan.runtime.threads import ServerThread

log = logging.getLogger(__name__)

_SYSTEM = Path("/run")
_LINE_BYTES = 64 * 1024
_SECONDS = 5.0
_PEER = struct.Struct("3i")

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NoDaemon(Exception):
    """None answers; the text gives the reason."""


class NotPermitted(Exception):
    """This user may not ask; the text has the folder or the socket."""


def folder_of_daemon(environ: Mapping[str, str]) -> Path | None:
    """Where a daemon with this environment has its socket; None where it has no place for it."""
    if under_systemd := environ.get("RUNTIME_DIRECTORY"):
        return Path(under_systemd.split(":")[0])
    if of_user := environ.get("XDG_RUNTIME_DIR"):
        return Path(of_user) / "logfan"
    return _SYSTEM / "logfan" if os.geteuid() == 0 else None


def name_of_socket(config: Path | None, instance: str) -> str:
    """The same for the daemon and for who looks for it. `config` is absolute."""
    digest = hashlib.sha256(os.fsencode(config or "")).hexdigest()
    return f"{instance or 'logfan'}-{digest[:12]}.sock"


def sockets(config: Path | None, instance: str | None, environ: Mapping[str, str]) -> list[Path]:
    """Those of daemons of this config; of any instance where that is None. Where $RUNTIME_DIRECTORY
    is set it is the one place. Raises NotPermitted where there is none, but a folder that may not
    be looked into."""
    own, pattern = folder_of_daemon(environ), name_of_socket(config, "*")
    if instance is not None:
        pattern = name_of_socket(config, instance)
    folders = {own} if own else set()
    if "RUNTIME_DIRECTORY" not in environ:
        folders |= {_SYSTEM / "logfan", *_SYSTEM.glob("logfan@*")}
    found, denied = [], []
    for folder in sorted(folders):
        try:
            present = [*folder.iterdir()]
        except PermissionError:
            denied.append(folder)
        except OSError:
            continue
        else:
            found += sorted(one for one in present if one.match(pattern))
    if denied and not found:
        raise NotPermitted(str(denied[0]))
    return found


def instance_of(path: Path) -> str:
    """The instance whose socket this is, `logfan` where it has no name."""
    return path.name.rpartition("-")[0]


def is_alive(path: Path) -> bool:
    """Whether a daemon is behind this socket. True where that may not be known."""
    try:
        with _connected(path):
            return True
    except OSError as error:
        return isinstance(error, PermissionError)


def ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the daemon behind this socket answers. Raises NoDaemon, NotPermitted."""
    try:
        with _connected(path) as sock:
            sock.sendall(orjson.dumps(request) + b"\n")
            line = sock.makefile("rb").readline(_LINE_BYTES)
        answer: dict[str, Any] = orjson.loads(line)
    except PermissionError:
        raise NotPermitted(str(path)) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise NoDaemon(f"no daemon answers at {path}: {why}") from None
    except orjson.JSONDecodeError:
        raise NoDaemon(f"the daemon at {path} ended before it answered") from None
    if answer.get("denied"):
        raise NotPermitted(str(path))
    return answer


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect(str(path))
        yield sock


class ControlServer:
    """Listens from `start` to `stop`, and answers one request at a time."""

    def __init__(self, path: Path | None, answer: Answer, on_fault: Callable[[], None]) -> None:
        """`answer` is called on the server's thread; `on_fault` where that has ended and should
        not have. Without a path there is none."""
        self._path = path
        self._answer = answer
        self._on_fault = on_fault
        self._server: _Server | None = None
        self.thread: ServerThread | None = None

    def start(self) -> None:
        """Listen. Where that fails, a warning is logged, and the daemon works without."""
        if self._path is None:
            log.info(
                "no control socket: neither $RUNTIME_DIRECTORY nor $XDG_RUNTIME_DIR is set, so "
                "`logfan pause` does not reach this daemon"
            )
            return
        try:
            self._server = _Server(self._path, self._answer)
        except OSError as error:
            log.warning(
                "no control socket at %s (%s): `logfan pause` does not reach this daemon; set "
                "$RUNTIME_DIRECTORY to a folder that it may write to",
                self._path, (error.strerror or str(error)).lower(),
            )  # fmt: skip
            return
        self.thread = ServerThread("control", self._server, self._on_fault, poll_seconds=0.2)
        self.thread.start()

    def stop(self) -> None:
        if self._server is not None and self.thread is not None:
            self.thread.stop()
            with contextlib.suppress(OSError):
                self._server.path.unlink()
            self._server = self.thread = None


class _Server(socketserver.UnixStreamServer):
    def __init__(self, path: Path, answer: Answer) -> None:
        self.path, self.answer = path, answer
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # Left behind by a daemon that was killed. Where one answers, binding fails.
        if not is_alive(path):
            path.unlink(missing_ok=True)
        super().__init__(str(path), _Request)

    def server_bind(self) -> None:
        super().server_bind()
        self.path.chmod(0o600)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        log.warning("a request to the control socket failed", exc_info=True)  # noqa: LOG014 - called inside one


class _Request(socketserver.StreamRequestHandler):
    timeout = _SECONDS
    server: _Server

    def handle(self) -> None:
        peer = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, user, _ = _PEER.unpack(peer)
        try:
            request = orjson.loads(self.rfile.readline(_LINE_BYTES))
        except (orjson.JSONDecodeError, OSError):
            return  # who only looked whether a daemon answers
        if user in (0, os.geteuid()):
            self._send(self.server.answer(request))
        else:
            log.warning("the control socket refuses a request of user %d", user)
            self._send({"denied": True})

    def _send(self, answer: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it went away
            self.wfile.write(orjson.dumps(answer) + b"\n")
