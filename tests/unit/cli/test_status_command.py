"""`logfan status`, and `logfan top` as a process, against the HTTP side of a daemon."""

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main, status_client
from support.certificates import Authority
from support.command import LOGFAN, start
from support.forked import own_session
from support.status import document, served, sink
from support.waiting import PATIENCE_SECONDS, wait_until


def status_of(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["status", *arguments], env=environ, catch_exceptions=False)


@pytest.fixture
def closed() -> Iterator[int]:
    """A port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_where_the_config_says_it_asks_and_a_daemon_that_is_ready_is_0(tmp_path: Path) -> None:
    with served(document()) as server:
        config = tmp_path / "config.toml"
        # Faults elsewhere in it, and a file that this user may not read, are no matter here.
        config.write_text(
            f'[http]\nlisten = "0.0.0.0:{server.port}"\n[sinks.a]\nkind = "none"\npath = 3\n'
            '[rabbitmq]\nurl_file = "/nowhere"\n'
        )
        found = status_of("--config", str(config))
        assert (found.exit_code, found.stderr) == (0, "")
        assert found.stdout.startswith(f"logfan 9.9 blue  http://127.0.0.1:{server.port}  pid 4711")
        again = status_of(LOGFAN_HTTP__LISTEN=f"127.0.0.1:{server.port}")
        assert again.stdout == found.stdout


def test_a_daemon_that_is_not_ready_is_1() -> None:
    with served(document(ready=False, reasons=["not consuming: paused"])) as server:
        found = status_of(f"127.0.0.1:{server.port}")
    assert (found.exit_code, found.stderr) == (1, "")
    assert "NOT READY" in found.stdout


def test_json_is_what_the_daemon_answers_one_object_or_a_list() -> None:
    blue, red = document(), document(instance="red", ready=False)
    with served(blue) as one, served(red) as two:
        urls = [f"http://127.0.0.1:{server.port}" for server in (one, two)]
        found = status_of("--json", urls[0])
        assert (found.exit_code, json.loads(found.stdout)) == (0, {"url": urls[0], **blue})
        both = status_of("--json", *urls)
        assert both.exit_code == 1
        assert json.loads(both.stdout) == [{"url": urls[0], **blue}, {"url": urls[1], **red}]


def test_where_nothing_answers_is_69_and_the_others_are_shown(closed: int) -> None:
    with served(document()) as server:
        urls = [f"http://127.0.0.1:{closed}", f"http://127.0.0.1:{server.port}"]
        found = status_of(*urls)
        assert found.exit_code == 69
        assert found.stderr == f"error  {urls[0]}: connection refused\n"
        assert "logfan 9.9 blue" in found.stdout
        as_json = json.loads(status_of("--json", *urls).stdout)
        assert as_json[0] == {"url": urls[0], "error": "connection refused"}


def test_what_answers_and_is_no_logfan_is_named_so() -> None:
    for answer, why in (
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "what answers there is no logfan"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "/status.json is answered with 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP answer"),
        (b"", "remote end closed connection"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def once(listener: socket.socket = listener, answer: bytes = answer) -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)

            thread = threading.Thread(target=once)
            thread.start()
            found = status_of(f"127.0.0.1:{listener.getsockname()[1]}")
            thread.join()
        assert found.exit_code == 69
        assert why in found.stderr, answer


def test_over_https_the_configs_certificate_is_trusted_and_no_other(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair, foreign = (
        authority.issue("server", "logs.example.org"),
        other.issue("foreign", "a.example"),
    )
    with served(document(), pair=pair) as server:
        listen = f'[http]\nlisten = "127.0.0.1:{server.port}"\n[http.tls]\n'
        config = tmp_path / "config.toml"
        config.write_text(listen + pair.toml)
        found = status_of("--config", str(config))
        assert (found.exit_code, found.stderr) == (0, "")
        assert f"https://127.0.0.1:{server.port}" in found.stdout
        config.write_text(listen + foreign.toml)
        refused = status_of("--config", str(config))
        assert refused.exit_code == 69
        assert "its certificate does not hold" in refused.stderr


def test_over_https_a_url_needs_the_ca_and_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    with served(document(), pair=authority.issue("server", "127.0.0.1")) as server:
        url = f"https://127.0.0.1:{server.port}"
        assert status_of("--ca-file", str(authority.file), url).exit_code == 0
        without = status_of(url)
        assert without.exit_code == 69
        assert "--ca-file names the CA to trust" in without.stderr
        monkeypatch.setattr(status_client, "_SECONDS", 0.5)  # from here on each waits for the other
        plain = status_of(f"http://127.0.0.1:{server.port}")
        assert plain.exit_code == 69
        other_host = status_of("--ca-file", str(authority.file), f"https://localhost:{server.port}")
        assert "write the host as the certificate has it" in other_host.stderr
        assert "--ca-file" not in other_host.stderr
    expired = authority.issue("old", "127.0.0.1", valid_from_day=-9, valid_to_day=-2)
    with served(document(), pair=expired) as server:
        old = status_of("--ca-file", str(authority.file), f"https://127.0.0.1:{server.port}")
        assert "has expired; renew http.tls.cert_file there" in old.stderr
    with served(document()) as server:
        assert "does that port speak HTTPS?" in status_of(f"https://127.0.0.1:{server.port}").stderr


def test_what_is_no_url_is_2_and_a_config_without_a_port_is_78(tmp_path: Path) -> None:
    assert status_of("ftp://127.0.0.1").exit_code == 2
    assert status_of("http://bob:s3cret@127.0.0.1").exit_code == 2
    config = tmp_path / "config.toml"
    config.write_text('[http]\nlisten = "127.0.0.1:0"\n')
    found = status_of("--config", str(config))
    assert (found.exit_code, "name the URL" in found.stderr) == (78, True)
    config.write_text("[http]\nlisten = 3\n")
    assert status_of("--config", str(config)).exit_code == 78


# top


class Top:
    """`logfan top` on a terminal of 80 columns and 24 rows."""

    def __init__(self, *arguments: str, command: Sequence[str] = ()) -> None:
        self._terminal, self._inside = pty.openpty()
        fcntl.ioctl(self._inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self._inside)
        environ = {**os.environ, "TERM": "xterm-256color"}
        inside = self._inside
        self.process = (
            subprocess.Popen(
                command, stdin=inside, stdout=inside, stderr=inside, env=environ,
                preexec_fn=own_session,  # noqa: PLW1509 - no thread of ours holds a lock there
            )
            if command
            else start(
                ["top", "--interval", "0.2", *arguments], folder=None, environ=environ,
                stdin=inside, stdout=inside, stderr=inside, session=True,
            )
        )  # fmt: skip
        os.set_blocking(self._terminal, False)
        self.seen = ""

    def read(self) -> str:
        """What came since the last call, without colours and moves of the cursor."""
        new = ""
        with suppress(BlockingIOError):
            while piece := os.read(self._terminal, 65536):
                new += piece.decode()
        self.seen += new
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", new)

    def wait(self, text: str) -> None:
        wait_until(lambda: text in self.read(), f"the screen shows {text!r}")

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def ended(self) -> int:
        """Its exit code. The terminal is as it was."""
        code = self.process.wait(PATIENCE_SECONDS)
        self.read()
        assert termios.tcgetattr(self._inside) == self.before
        self.is_left()
        return code

    def is_left(self) -> None:
        assert self.seen.rfind("\x1b[?1049l") > self.seen.rfind("\x1b[?1049h") >= 0, "the screen"
        assert self.seen.rfind("\x1b[?25h") > self.seen.rfind("\x1b[?25l") >= 0, "the cursor"
        assert "Traceback" not in self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)
        os.close(self._inside)


@pytest.fixture
def status() -> dict[str, Any]:
    return document()


@pytest.fixture
def top(status: dict[str, Any]) -> Iterator[Top]:
    with served(status) as server:
        one = Top(f"http://127.0.0.1:{server.port}")
        try:
            one.wait("READY  consuming")
            yield one
        finally:
            one.close()


def test_q_quits_and_leaves_the_terminal_as_it_was(top: Top) -> None:
    top.wait("archive")
    top.press("q")
    assert top.ended() == 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name
)
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(
    top: Top, number: signal.Signals
) -> None:
    top.process.send_signal(number)
    assert top.ended() == 128 + number


def test_ctrl_c_is_a_key_that_ends_it(top: Top) -> None:
    top.press("\x03")
    assert top.ended() == 130


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(status: dict[str, Any]) -> None:
    with served(status) as server:
        # A shell with job control, as one types in.
        called = f"{shlex.join(LOGFAN)} top 127.0.0.1:{server.port}"
        one = Top(command=["bash", "-m", "-c", f"{called}; echo is-stopped; fg; echo is-over $?"])
        try:
            one.wait("READY  consuming")
            one.press("\x1a")
            one.wait("is-stopped")
            assert one.seen.index("\x1b[?1049l") < one.seen.index("is-stopped")
            one.wait("READY  consuming")
            one.press("q")
            one.wait("is-over 0")
            assert one.ended() == 0
        finally:
            one.close()


def test_it_follows_the_daemon_and_pauses(top: Top, status: dict[str, Any]) -> None:
    status["sinks"] = [sink("archive", state="down", failure="the disk is full")]
    status["ready"] = False
    top.wait("the disk is full")
    top.press(" ")
    top.wait("PAUSED")
    status["sinks"] = [sink("archive", state="down", failure="it is another trouble")]
    for _ in range(3):
        top.press("n")
        top.press("x")
        wait_until(top.read, "it is drawn again")
    assert "another trouble" not in top.seen
    top.press(" ")
    top.wait("it is another trouble")


def test_keys_sort_the_sinks(top: Top, status: dict[str, Any]) -> None:
    status["sinks"] = [sink("a", rate=1.0), sink("b", rate=2.0)]
    wait_until(lambda: re.search(r"\na  .*\nb  ", top.read().replace("\r", "")), "by state")
    top.press("r")
    wait_until(lambda: re.search(r"\nb  .*\na  ", top.read().replace("\r", "")), "by rate")
    top.press("\x1b[A")
    top.press("n")
    wait_until(lambda: re.search(r"\na  .*\nb  ", top.read().replace("\r", "")), "by name")


def test_a_daemon_that_goes_away_is_shown_as_such_and_comes_back(status: dict[str, Any]) -> None:
    with served(status) as server, served(document(instance="red")) as other:
        port = server.port
        one = Top(f"127.0.0.1:{port}", f"127.0.0.1:{other.port}")
        try:
            one.wait("blue")
            server.stop()
            one.wait("away       connection refused")
            with served(status, port=port):
                wait_until(lambda: re.search(r"blue +consuming", one.read()), "it is back")
            one.press("q")
            assert one.ended() == 0
        finally:
            one.close()


def test_it_redraws_where_the_terminal_changes_its_size(top: Top) -> None:
    fcntl.ioctl(top._inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    top.wait("dropped")


def test_piped_it_is_a_line_an_interval(status: dict[str, Any], closed: int) -> None:
    with served(status) as server:
        process = subprocess.Popen(
            [*LOGFAN, "top", "--interval", "0.2", f"127.0.0.1:{server.port}", f"[::1]:{closed}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (143, "")
    assert [" state=consuming ready=yes in=1203.2 " in line for line in lines] == [True, False] * 2
    assert lines[1].endswith(f"http://[::1]:{closed} state=away why=connection refused\n")
