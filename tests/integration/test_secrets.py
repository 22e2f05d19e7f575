"""No password is ever shown: real commands are run, and all that comes out of them is searched."""

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from logfan.config.loader import prepare
from logfan.faults import Faults
from logfan.testing.node import RabbitNode, free_port
from support import command
from support.broker import Names, add_user, delete_user
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.http_get import get
from support.waiting import PATIENCE_SECONDS, wait_until

# Each piece is looked for alone: a fault may quote what stands between two special characters.
PIECES = ("hunter2", "K0rb", "flecht", "w3rk", "sch4u")
PASSWORD = "hunter2/K0rb@flecht#w3rk:sch4u%?\uff03[]"
ENCODED = quote(PASSWORD, safe="")
USER = "bob"
SINK = '[plugins]\ndirectories = []\n[sinks.raw]\nkind = "file"\npath = "raw.log"\n'


def leaks(output: str | bytes) -> list[str]:
    """The lines that hold the password or a piece of it, in whatever form."""
    text = output if isinstance(output, str) else output.decode(errors="replace")
    plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    needles = [*PIECES, plain, base64.b64encode(PASSWORD.encode()).decode().rstrip("=")]
    return [line for line in text.splitlines() if any(needle in line for needle in needles)]


def logfan(
    folder: Path, *arguments: str, config: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    (folder / "config.toml").write_text(SINK + config)
    (folder / "config.toml").chmod(0o600)
    return command.logfan(*arguments, folder=folder, **environ)


@pytest.fixture(scope="module")
def user(node: RabbitNode) -> Iterator[str]:
    """A user with that password; its URL."""
    add_user(node, USER, password=PASSWORD)
    yield node.url.replace("guest:guest", f"{USER}:{ENCODED}")
    delete_user(node, USER)


def _read_while_it_is_there(file: Path) -> str:
    """A thread that served a request may have ended since."""
    with suppress(OSError):
        return file.read_text()
    return ""


def everything_a_daemon_shows(
    folder: Path, command: str, config: str, until: str, sink: str = SINK
) -> str:
    """Run it with the log at debug until `until` is shown; log, pages, status and /proc."""
    port = free_port()
    (folder / "config.toml").write_text(
        f'{sink}{config}\n[http]\nlisten = "127.0.0.1:{port}"\n[log]\nlevel = "debug"\n'
    )
    shown = folder / "shown"
    with notify_socket(folder / "notify") as notify, shown.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "logfan", command], cwd=folder, stdout=output, stderr=output,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(
                lambda: until in shown.read_text(errors="replace") or process.poll() is not None,
                f"it logs {until}",
            )  # fmt: skip
            pages = "".join(
                get(f"http://127.0.0.1:{port}{path}")[1]
                for path in ("/", "/metrics", "/readyz", "/healthz", "/status.json")
            )
            proc = Path(f"/proc/{process.pid}")
            names = [proc / "cmdline", proc / "comm", *proc.glob("task/*/comm")]
            titles = "\n".join(map(_read_while_it_is_there, names))
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reload" in shown.read_text(errors="replace"), "it reloads")
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        states = received(notify)
    assert pages
    assert states
    assert until in shown.read_text(errors="replace")
    return "\n".join([shown.read_text(errors="replace"), pages, titles, states])


@contextmanager
def notify_socket(path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        yield listener


def received(listener: socket.socket) -> str:
    states = []
    with suppress(BlockingIOError):
        while True:
            states.append(listener.recv(65536).decode())
    return "\n".join(states)


def test_a_daemon_that_is_refused_keeps_the_password_to_itself(
    node: RabbitNode, tmp_path: Path
) -> None:
    url = node.url.replace("guest:guest", f"nobody:{ENCODED}")
    shown = everything_a_daemon_shows(
        tmp_path, "run", f'[rabbitmq]\nurls = ["{url}"]\n', "refused the credentials"
    )
    assert leaks(shown) == []


def test_a_demo_that_is_refused_keeps_the_password_to_itself(
    node: RabbitNode, tmp_path: Path
) -> None:
    url = node.url.replace("guest:guest", f"nobody:{ENCODED}")
    done = logfan(tmp_path, "demo", "--broker", config=f'[rabbitmq]\nurls = ["{url}"]\n')
    assert done.returncode == 77
    assert "refused the credentials" in done.stderr
    assert leaks(done.stdout + done.stderr) == []


def test_a_daemon_that_is_let_in_keeps_the_password_to_itself(user: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"# the way in\n{user}\n")
    config = f'[rabbitmq]\nurl_file = "{tmp_path}/url"\n[queue]\ntype = "exclusive"\n'
    shown = everything_a_daemon_shows(tmp_path, "run", config, "consuming queue")
    assert "debug" in shown
    assert leaks(shown) == []


def test_a_daemon_without_its_broker_keeps_the_password_to_itself(tmp_path: Path) -> None:
    config = f'[rabbitmq]\nurls = ["amqp://{USER}:{ENCODED}@127.0.0.1:1"]\n'
    shown = everything_a_daemon_shows(tmp_path, "run", config, "connection refused")
    assert leaks(shown) == []


QUOTING = '''
import logfan

class Quoting(logfan.Sink):
    """Reports all that it knows."""

    class Config(logfan.SinkConfig):
        url: str
        password: str

    def open(self):
        known = {"url": self.config.url, "password": self.config.password}
        logfan_log.warning("opening %s", known)
        raise OSError(5, f"login refused at {self.config.url}: {self.config.password!r} ({known})")

    def write(self, records): ...

import logging
logfan_log = logging.getLogger("quoting")

@logfan.hookimpl
def register_sinks(register):
    register("quoting", Quoting)
'''


def test_a_sink_that_quotes_its_password_is_shown_without_it(user: str, tmp_path: Path) -> None:
    add_drop_in(tmp_path, "quoting", QUOTING)
    config = SINK.replace("directories = []", f'directories = ["{tmp_path}/plugins"]') + (
        f'[rabbitmq]\nurls = ["{user}"]\n[queue]\ntype = "exclusive"\n'
        f'[sinks.b]\nkind = "quoting"\nurl = "http://{USER}:{PASSWORD} {PASSWORD}@host"\n'
        f'password = "{PASSWORD}"\n'
    )
    shown = everything_a_daemon_shows(tmp_path, "run", config, "login refused", sink="")
    assert "login refused" in shown
    assert leaks(shown) == []


def test_a_file_of_urls_that_is_spoilt_while_the_daemon_runs(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    file.write_text(node.url)
    daemon = DaemonProcess(tmp_path, node.url, names, '[sinks.screen]\nkind = "stdout"\n')
    daemon.config.write_text(
        daemon.config.read_text().replace(f'urls = ["{node.url}"]', f'url_file = "{file}"')
    )
    with daemon:
        for spoilt in (f"amqp://{RAW}@host", f"ampq://{RAW}@host", PASSWORD, f"amqp://{RAW}"):
            file.write_text(f"{spoilt}\n")
            node.ctl("close_all_connections", "a test")
            wait_until(lambda: "rabbitmq.url_file" in daemon.get("/readyz")[1], "it is shown")
            assert leaks(daemon.get("/readyz")[1] + daemon.get("/")[1] + daemon.log()) == []
        file.write_text(node.url)
        daemon.wait_ready(60)
    assert leaks(daemon.log()) == []


RAW = f"{USER}:{PASSWORD}"
URLS = {
    "as it is": f"amqp://{RAW}@host",
    "encoded, wrong scheme": f"http://{USER}:{ENCODED}@host",
    "no scheme": f"{USER}:{PASSWORD}@host",
    "a slash short": f"amqp:/{USER}:{ENCODED}@host",
    "no host": f"amqp://{USER}:{ENCODED}@",
    "wild port": f"amqp://{USER}:{ENCODED}@host:99999",
    "slash alone": "amqp://bob:hunter2/K0rb@host",
    "hash alone": "amqp://bob:hunter2#K0rb@host",
    "at alone": "amqp://bob:hunter2@K0rb@host",
    "colon alone": "amqp://bob:hunter2:K0rb@host:x",
    "question alone": "amqp://bob:hunter2?K0rb@host",
    "bracket": "amqp://bob:hunter2[K0rb@host",
    "percent alone": "amqp://bob:hunter2%K0rb%zz@host",
    "not UTF-8": "amqp://bob:hunter2%FF@host",
    "space": "amqp://bob:hunter2 K0rb@host",
    "query": f"amqp://{USER}:{ENCODED}@host/?heartbeat=often",
    "unknown query": f"amqp://{USER}:{ENCODED}@host/?verify=verify_none",
    "two in one": f"amqp://{USER}:{ENCODED}@host amqp://{USER}:{ENCODED}@host",
    "newline": f"amqp://{USER}:{ENCODED}@ho\\nst",
    "only a password": PASSWORD,
}


EVERYWHERE = ("as it is", "no scheme", "a slash short")
"""Those that are tried in the places of other things, too."""
PLACES = {
    "rabbitmq.urls": '[rabbitmq]\nurls = ["{url}"]\n',
    "no list": '[rabbitmq]\nurls = "{url}"\n',
    "url_file": '[rabbitmq]\nurl_file = "{folder}/url"\n',
    "no path": '[rabbitmq]\nurl_file = "{url}"\n',
    "a wrong key": '[rabbitmq]\nurl = "{url}"\n',
    "a table": '[rabbitmq.urls]\nfirst = "{url}"\n',
    "another key": '[http]\nlisten = "{url}"\n',
    "without quotes": "[rabbitmq]\nurls = [{url}]\n",
    "a choice": '[exchange]\ntype = "{url}"\n',
    "a kind": '[sinks.b]\nkind = "{url}"\n',
}


@pytest.mark.parametrize("what", URLS)
def test_a_fault_in_a_url_does_not_quote_the_password(tmp_path: Path, what: str) -> None:
    config = tmp_path / "config.toml"
    (tmp_path / "url").write_text(URLS[what].replace("\\n", "\n") + "\n")
    for place, text in PLACES.items():
        url = URLS[what]
        if what not in EVERYWHERE and place not in ("rabbitmq.urls", "no list", "url_file"):
            continue
        config.write_text(SINK + text.replace("{url}", url).replace("{folder}", str(tmp_path)))
        config.chmod(0o600)
        assert leaks(reported(config, {})) == [], place
    config.write_text(SINK)
    assert leaks(reported(config, {"LOGFAN_RABBITMQ__URLS": URLS[what]})) == []
    assert leaks(reported(config, {"LOGFAN_RABBITMQ__URLS": f'["{URLS[what]}"]'})) == []


def reported(config: Path, environ: dict[str, str]) -> str:
    """The faults, or the warnings, of this config."""
    try:
        prepared = prepare(config, environ=environ)
    except Faults as faults:
        return str(faults)
    return "\n".join([*prepared.warnings, repr(prepared)])


@pytest.mark.parametrize(
    "key", ["password", "secret", "api_key", "token", "passphrase", "credentials", "dsn"]
)
def test_a_key_that_is_named_like_a_secret_is_not_quoted(tmp_path: Path, key: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'{key} = "{PASSWORD}"\n{SINK}[queue]\n{key} = "{PASSWORD}"\n')
    shown = reported(config, {})
    assert f"queue.{key}: unknown key" in shown
    assert leaks(shown) == []


@pytest.mark.parametrize("command", [("emit", "x"), ("run",), ("check",)], ids=lambda c: c[0])
def test_a_url_that_pika_alone_refuses_is_reported_without_the_password(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    url = f"amqp://{USER}:{ENCODED}@127.0.0.1:1/?heartbeat=often"
    done = logfan(tmp_path, *command, config=f'[rabbitmq]\nurls = ["{url}"]\nstartup = "fail"\n')
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    assert leaks(done.stdout + done.stderr) == []


def test_an_internal_fault_is_reported_without_the_password(tmp_path: Path) -> None:
    program = (
        "import sys, logfan.amqp.client as c\n"
        "def broken(self, loop, url, wanted, *rest): raise RuntimeError(f'{wanted} {url}')\n"
        "c.Client.__init__ = broken\n"
        "from logfan.cli import main; main(['run'])\n"
    )
    (tmp_path / "config.toml").write_text(
        f'{SINK}[rabbitmq]\nurls = ["amqp://{USER}:{ENCODED}@h"]\n[http]\nlisten = "127.0.0.1:0"\n'
        '[log]\nlevel = "debug"\n'
    )
    for form in ("text", "json"):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, check=False, env={**os.environ, "LOGFAN_LOG__FORMAT": form},
        )  # fmt: skip
        assert done.returncode == 70, done.stderr
        assert "RuntimeError" in done.stderr
        assert leaks(done.stdout + done.stderr) == []
