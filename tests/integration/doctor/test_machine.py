"""Each check of this machine and of the sinks' other sides is made to fail."""

import fcntl
import http.server
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from logfan.doctor import machine
from logfan.doctor import sinks as doctor_of_sinks
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names
from support.certificates import Authority
from support.command import logfan
from support.daemon import DaemonProcess
from support.disks import on_a_disk
from support.doctor import ADVICE, DANGER, OK, SKIPPED, WARNING, examined
from support.drop_ins import add_drop_in
from support.waiting import wait_until

NOWHERE = "amqp://guest:guest@127.0.0.1:1"
HERE = tuple(one.name for one in machine.CHECKS)


def file_sink(path: Path | str, more: str = "") -> str:
    return f'[sinks.archive]\nkind = "file"\npath = "{path}"\n{more}\n'


def test_all_is_fine_and_no_file_is_made(names: Names, tmp_path: Path) -> None:
    path = tmp_path / "logs/{date}/{level}.jsonl"
    listen = f'[http]\nlisten = "127.0.0.1:{free_port()}"\n'
    report = examined(tmp_path, NOWHERE, names, listen, sinks=file_sink(path), checks=HERE)
    bad = [one for one in report.findings if one.severity is not OK and one.check != "login"]
    assert not bad, bad
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.toml"]


@pytest.mark.parametrize(
    ("path", "words"), [("config.toml/a.log", "no folder"), ("folder", "is a folder")]
)
def test_paths_that_cannot_be(names: Names, tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    sinks = file_sink(tmp_path / path)
    report = examined(tmp_path, NOWHERE, names, sinks=sinks, checks=HERE)
    assert report.one("disk-path").severity is DANGER
    assert words in report.one("disk-path").what
    optional = file_sink(tmp_path / path, "required = false")
    report = examined(tmp_path, NOWHERE, names, sinks=optional, checks=HERE)
    assert report.one("disk-path").severity is WARNING


def test_relative_paths_of_the_service_begin_where_it_works(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (works := tmp_path / "works").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/logs").touch()  # a file in the place of the folder
    monkeypatch.chdir(tmp_path / "here")
    sinks = file_sink("logs/app.jsonl")
    report = examined(tmp_path, NOWHERE, names, sinks=sinks, checks=HERE)
    assert report.one("disk-path").severity is DANGER
    monkeypatch.setattr(machine, "_SERVICE", (tmp_path / "config.toml", works))
    report = examined(tmp_path, NOWHERE, names, sinks=sinks, checks=HERE)
    assert report.one("disk-path").what == f"{works} may be written to"


READ_ONLY = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from support.broker import Names
from support.doctor import examined
sinks = '[sinks.a]\\nkind = "file"\\npath = "' + sys.argv[1] + '/new.log"\\n'
names = Names("logs-x", "queue-x")
report = examined(Path(sys.argv[0]).parent, {nowhere!r}, names, sinks=sinks, checks=("disk-path",))
print(report.one("disk-path").what)
"""


def test_a_read_only_disk_is_called_so(tmp_path: Path) -> None:
    program = READ_ONLY.format(path=sys.path, nowhere=NOWHERE)
    found = on_a_disk(tmp_path / "disk", program, options="ro")
    assert found.strip().endswith("its file system is read-only"), found
    assert "chmod" not in found  # 640 would lock all out of a folder


ON_DISK = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from support.broker import Names
from support.doctor import examined
disk = Path(sys.argv[1])
for number in range({files}):
    (disk / str(number)).touch()
names = Names("logs-x", "queue-x")
sinks = '[sinks.a]\\nkind = "file"\\npath = "' + str(disk / "new.log") + '"\\n'
folder = Path(sys.argv[0]).parent
checks = ("disk-space", "disk-inodes", "disk-path")
report = examined(folder, {nowhere!r}, names, sinks=sinks, checks=checks)
print(*[report.one(check).severity.value for check in checks])
"""


@pytest.mark.parametrize(
    ("options", "files", "found"),
    [
        ("size=1m", 0, "danger ok ok"),
        ("size=100m,nr_inodes=10", 9, "ok danger ok"),
        ("size=100m,nr_inodes=100", 97, "ok warning ok"),
    ],
)
def test_disks_that_are_full(tmp_path: Path, options: str, files: int, found: str) -> None:
    program = ON_DISK.format(path=sys.path, files=files, nowhere=NOWHERE)
    assert on_a_disk(tmp_path / "disk", program, options=options).split() == found.split()


def test_a_file_that_another_process_has_locked(names: Names, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        listen = f'[http]\nlisten = "127.0.0.1:{free_port()}"\n'
        report = examined(tmp_path, NOWHERE, names, listen, sinks=file_sink(path), checks=HERE)
    assert report.one("disk-lock").severity is DANGER
    assert str(os.getpid()) in report.one("disk-lock").what


LOCKED = """
import fcntl, subprocess, sys
sys.path[:0] = {path!r}
from pathlib import Path
from support.broker import Names
from support.doctor import examined
folder = Path(sys.argv[0]).parent
(folder / "other").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "other")], check=True)
ours, theirs = Path(sys.argv[1]) / "a.log", folder / "other/a.log"
for path in (ours, theirs):
    path.touch()
assert ours.stat().st_ino == theirs.stat().st_ino
held = theirs.open("w")
fcntl.flock(held, fcntl.LOCK_EX)
for path in (ours, theirs):
    sinks = '[http]\\nlisten = "127.0.0.1:0"\\n[sinks.a]\\nkind = "file"\\n'
    sinks += 'path = "' + str(path) + '"\\n'
    report = examined(folder, {nowhere!r}, Names("x", "q"), sinks=sinks, checks=("disk-lock",))
    print(report.one("disk-lock").severity.value)
"""


def test_a_lock_of_a_file_with_the_same_number_on_another_disk_is_none(tmp_path: Path) -> None:
    program = LOCKED.format(path=sys.path, nowhere=NOWHERE)
    found = on_a_disk(tmp_path / "disk", program, options="size=1m")
    assert found.split() == ["ok", "danger"]


def test_a_file_of_another_user(names: Names, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to others")
    path = tmp_path / "a.log"
    path.touch()
    os.chown(path, 12345, 12345)
    report = examined(tmp_path, NOWHERE, names, sinks=file_sink(path), checks=HERE)
    assert report.one("disk-owner").severity is ADVICE


def test_a_port_that_something_else_has(names: Names, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f'[http]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        checks = ("http-port",)

        def hang_up() -> None:
            connection, _ = taken.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        report = examined(tmp_path, NOWHERE, names, listen, checks=checks)
        thread.join()
    assert report.one("http-port").severity is DANGER


def test_a_logfan_that_runs_here(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with DaemonProcess(tmp_path, node.url, names, file_sink(path)) as daemon:
        (tmp_path / "doctor").mkdir()
        listen = f'[http]\nlisten = "127.0.0.1:{daemon.port}"\n'
        sinks = file_sink(path)
        report = examined(tmp_path / "doctor", node.url, names, listen, sinks=sinks, checks=HERE)
        assert report.one("http-port").severity is ADVICE
        assert report.one("disk-lock").severity is OK
        assert daemon.is_ready()


def test_a_logfan_that_runs_here_over_tls(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server", "logs.example.org")
    path, port = tmp_path / "a.log", free_port()
    sinks = file_sink(path, f"[http.tls]\n{pair.toml}")
    config = f'[http]\nlisten = "127.0.0.1:{port}"\n[http.tls]\n{pair.toml}'
    environ = {"LOGFAN_HTTP__LISTEN": f"127.0.0.1:{port}"}
    daemon = DaemonProcess(tmp_path, node.url, names, sinks, environ=environ)
    (tmp_path / "doctor").mkdir()
    try:
        daemon.start(ready=False)
        wait_until(lambda: "consuming queue" in daemon.log(), "it consumes")
        report = examined(
            tmp_path / "doctor", node.url, names, config, sinks=file_sink(path), checks=HERE
        )
        assert report.one("http-port").severity is ADVICE, report.one("http-port")
        assert report.one("disk-lock").severity is OK, report.one("disk-lock")
        second = logfan("run", "--config", str(daemon.config), folder=tmp_path, **environ)
        assert f"a logfan listens at 127.0.0.1:{port} already" in second.stderr
    finally:
        assert daemon.stop() == 0, daemon.log()


def test_a_broken_plugin_and_what_check_warns_of(names: Names, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text("import no_such_module\n")
    more = f'[plugins]\ndirectories = ["{folder}"]\n'
    sinks = (
        '[sinks.screen]\nkind = "stdout"\n'
        'redact = { paths = ["user"], hash = true }\n'
    )  # fmt: skip
    report = examined(tmp_path, NOWHERE, names, more, sinks=sinks, checks=HERE)
    assert report.one("plugins").severity is DANGER
    assert "broken.py" in report.one("plugins").what
    assert report.one("config").severity is WARNING
    assert not [one for one in report.of("config") if "broken.py" in one.what]


HANGING = """
import threading

import logfan


class Hanging(logfan.Sink):
    def open(self):
        threading.Event().wait()

    def write(self, records):
        raise NotImplementedError


@logfan.hookimpl
def register_sinks(register):
    register("hanging", Hanging)
"""


def test_other_sides(names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_of_sinks, "_SECONDS", 5.0)
    plugins = add_drop_in(tmp_path, "hanging", HANGING)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sinks = (
            f'[sinks.up]\nkind = "loki"\nurl = "http://127.0.0.1:{server.server_port}"\n'
            f'[sinks.down]\nkind = "syslog"\naddress = "tcp://127.0.0.1:{free_port()}"\n'
            '[sinks.optional]\nkind = "syslog"\nrequired = false\n'
            f'address = "tcp://127.0.0.1:{free_port()}"\n'
            '[sinks.hangs]\nkind = "hanging"\n'
            f"{file_sink(tmp_path / 'a.log')}"
        )
        more = f'[plugins]\ndirectories = ["{plugins}"]\n'
        report = examined(tmp_path, NOWHERE, names, more, sinks=sinks, checks=("sink",))
        server.shutdown()
    found = {one.what.split()[1]: one.severity for one in report.of("sink")}
    assert found == {
        "up": OK, "down": DANGER, "optional": WARNING, "hangs": DANGER, "archive": SKIPPED
    }  # fmt: skip
    assert any("did not open within 5 s" in one.what for one in report.of("sink"))
    assert not (tmp_path / "a.log").exists()
