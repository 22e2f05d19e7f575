"""The commands as people type them."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logfan.testing import record
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, channel, granting, memory_alarm, publish
from support.command import LOGFAN, logfan
from support.http_get import get
from support.letters import bodies, bury
from support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def folder(tmp_path: Path, node: RabbitNode, names: Names) -> Path:
    (tmp_path / "config.toml").write_text(
        f'[rabbitmq]\nurls = ["{node.url}"]\n[exchange]\nname = "{names.exchange}"\n'
        f'[queue]\nname = "{names.queue}"\n[plugins]\ndirectories = []\n'
        '[sinks.screen]\nkind = "stdout"\n'
    )
    return tmp_path


def test_help_answers_at_once(tmp_path: Path) -> None:
    def seconds() -> float:
        """Of processor time: a busy machine is not the command's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "Commands:" in logfan("--help", folder=tmp_path).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.4


def test_a_mistyped_command_is_understood(tmp_path: Path) -> None:
    done = logfan("chekc", folder=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'check'?" in done.stderr


@pytest.mark.parametrize("command", ["check", "dlq list", "doctor", "emit x", "status", "test x"])
def test_ctrl_c_ends_a_command_with_130_also_before_its_work_begins(
    command: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    process = subprocess.Popen([*LOGFAN, *command.split()], cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        with config.open("wb"):  # returns once it waits for the config
            process.send_signal(signal.SIGINT)
            shown = process.communicate(timeout=PATIENCE_SECONDS)[1]
    finally:
        process.kill()
        process.wait()
    assert shown == b"error  interrupted\n"
    assert process.returncode == 130


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("command", ["run", "check", "status"])
def test_a_standard_error_on_a_full_disk_leaves_the_exit_code(command: str, folder: Path) -> None:
    (folder / "config.toml").write_text('unknown = "a fault"\n')
    code = logfan(*command.split(), folder=folder).returncode
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*LOGFAN, *command.split()], cwd=folder, stdout=subprocess.DEVNULL, stderr=full,
            check=False, timeout=PATIENCE_SECONDS, env=BUFFERED,
        )  # fmt: skip
    assert done.returncode == code


@pytest.mark.parametrize("command", ["generate unit", "sinks", "test cases.toml"])
def test_output_that_cannot_be_written_is_70_as_1_would_be_a_verdict(
    command: str, folder: Path
) -> None:
    (folder / "cases.toml").write_text(
        '[[cases]]\nname = "a"\nrecord = { text = "a" }\nsinks = { screen = "kept" }\n'
    )
    assert logfan(*command.split(), folder=folder).returncode == 0
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*LOGFAN, *command.split()], cwd=folder, stdout=full, stderr=subprocess.PIPE,
            check=False, timeout=PATIENCE_SECONDS,
            env=BUFFERED,
        )  # fmt: skip
    assert done.stderr == b"error  the output cannot be written: no space left on device\n"
    assert done.returncode == 70


READERS = (
    "check",
    "run",
    "sinks",
    "sinks file",
    "emit x",
    "tap",
    "dlq list",
    "demo",
    "test x",
    "try",
)
# Root's right to read what it may not is taken away.
POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


EACH_READER = """
import json, sys
from click.testing import CliRunner
from logfan.cli import main

commands, given = map(json.loads, sys.argv[1:])
results = [CliRunner().invoke(main, [*command.split(), *given]) for command in commands]
print(json.dumps([[result.exit_code, result.stderr] for result in results]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights away")
@pytest.mark.parametrize("how", ["--config", "LOGFAN_CONFIG", "./config.toml", "its folder"])
def test_a_config_that_may_not_be_read_is_78(how: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    environ = dict(os.environ)
    if how == "its folder":
        config = tmp_path / "etc" / "config.toml"
        config.parent.mkdir(mode=0)
    config.write_text('[sinks.screen]\nkind = "stdout"\n')
    config.chmod(0)
    if how == "LOGFAN_CONFIG":
        environ["LOGFAN_CONFIG"] = str(config)
    given = [] if how in ("LOGFAN_CONFIG", "./config.toml") else ["--config", str(config)]
    done = subprocess.run(
        [*POWERLESS, sys.executable, "-c", EACH_READER, json.dumps(READERS), json.dumps(given)],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
        stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    for command, (code, errors) in zip(READERS, json.loads(done.stdout), strict=True):
        assert (command, code) == (command, 78), errors
        assert "cannot be read: permission denied: root may not " in errors
        assert ("chgrp" if how == "its folder" else "chmod") in errors


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("how", ["--config", "LOGFAN_CONFIG", "nothing"])
def test_a_working_directory_that_is_gone_is_78(how: str, command: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    given = " --config x.toml" if how == "--config" else ""
    # Python itself does not start there with a relative path in it.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["sh", "-c", f'rmdir "$PWD" && exec "$@" {command}{given}', "sh", *LOGFAN], cwd=gone,
        env={**environ, **({"LOGFAN_CONFIG": "x.toml"} if how == "LOGFAN_CONFIG" else {})},
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr


CLOSED = {"all": ">&- 2>&- <&-", "output": ">&-", "errors": "2>&-", "input": "<&-"}


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_standard_descriptors_become_nobodys_socket(
    closed: str, folder: Path, names: Names, node: RabbitNode
) -> None:
    port = free_port()
    with (folder / "config.toml").open("a") as config:
        config.write(
            'required = false\n[sinks.raw]\nkind = "file"\npath = "raw.log"\nformat = "raw"\n'
            f'[http]\nlisten = "127.0.0.1:{port}"\n'
        )
    daemon = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {CLOSED[closed]}', "sh", *LOGFAN, "run"], cwd=folder,
        env={**os.environ, "LOGFAN_SHUTDOWN_TIMEOUT": "1s"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: "not consuming" not in (page(port, "/readyz") or "not consuming"), "up")
        publish(node.url, names.exchange, [b"hello"])
        raw = folder / "raw.log"
        wait_until(lambda: raw.exists() and raw.read_bytes() == b"hello\n", "it is written")
        standard = [str(Path(f"/proc/{daemon.pid}/fd/{number}").readlink()) for number in range(3)]
        assert standard == [os.devnull] * 3
        # What goes to a standard output that is closed must not count as written.
        up = f'logfan_sink_up{{sink="screen"}} {float(closed not in ("all", "output"))}'
        wait_until(lambda: up in page(port, "/metrics"), up)
        assert daemon.poll() is None
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


def page(port: int, path: str) -> str:
    return get(f"http://127.0.0.1:{port}{path}")[1]


@pytest.mark.parametrize("closed", CLOSED.values())
def test_short_commands_take_closed_descriptors(closed: str, folder: Path) -> None:
    for command, code in (("check", 0), ("nonsense", 2)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *LOGFAN, command], cwd=folder,
            timeout=PATIENCE_SECONDS, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert (command, done.returncode) == (command, code)


def test_emit_says_when_messages_reach_no_queue(folder: Path, names: Names) -> None:
    done = logfan("emit", "hello", "world", folder=folder)
    assert done.returncode == 69
    assert "2 of 2 messages reached no queue" in done.stderr
    assert names.exchange in done.stderr


def test_emit_publishes_its_arguments_and_the_lines_of_its_input(
    folder: Path, names: Names, node: RabbitNode
) -> None:
    with channel(node.url) as reader:
        reader.exchange_declare(names.exchange, "fanout")
        reader.queue_declare(names.queue)
        reader.queue_bind(names.queue, names.exchange)
        done = logfan(
            "emit", "-H", "host=a", "-k", "shop", "--content-type", "text/plain", "one", "two",
            folder=folder,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "2 confirmed\n")
        done = logfan("emit", folder=folder, stdin=b"three\n\r\n\xff\xfe\nlast")
        assert (done.returncode, done.stderr) == (0, "4 confirmed\n")
        got = [reader.basic_get(names.queue, auto_ack=True) for _ in range(6)]
        assert [body for _, _, body in got] == [b"one", b"two", b"three", b"", b"\xff\xfe", b"last"]
        method, properties, _ = got[0]
        assert method.routing_key == "shop"
        assert properties.headers == {"host": "a"}
        assert properties.content_type == "text/plain"
        assert properties.delivery_mode == 2
        ids = [properties.message_id for _, properties, _ in got]
        assert len(set(ids)) == 6
        assert [given.rpartition("-")[2] for given in ids] == ["1", "2", "1", "2", "3", "4"]


def test_emit_names_the_line_that_is_larger_than_the_broker_takes(
    folder: Path, names: Names, node: RabbitNode
) -> None:
    with channel(node.url) as reader:
        reader.exchange_declare(names.exchange, "fanout")
        reader.queue_declare(names.queue)
        reader.queue_bind(names.queue, names.exchange)
        with granting(node, max_message_size=1000):
            large = b"x" * 1001
            done = logfan("emit", folder=folder, stdin=b"one\nto\n" + large + b"\nlast\n")
        assert bodies(node.url, names.queue) == [b"one", b"to"]
    assert done.returncode == 77
    assert "2 messages were confirmed; message 3 has not arrived, nor has what" in done.stderr


@pytest.mark.parametrize("command", ["emit", "try"])
def test_a_line_that_no_broker_takes_ends_the_command_and_not_the_memory(
    command: str, folder: Path
) -> None:
    limited = ["prlimit", f"--as={3 << 30}", *LOGFAN, command]
    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run(
            limited, cwd=folder, stdin=zeros, stderr=subprocess.PIPE, text=True, check=False,
            timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    assert done.returncode == (77 if command == "emit" else 1), done.stderr
    assert "more than 512 MiB" in done.stderr
    assert "newlines" in done.stderr


@pytest.mark.parametrize("command", ["emit", "replay"])
def test_under_a_memory_alarm_it_says_that_the_broker_blocks_it_and_goes_on_after(
    command: str, folder: Path, node: RabbitNode, names: Names
) -> None:
    bury(node.url, names, [record("one", exchange=names.exchange)], sink="screen")
    with channel(node.url) as admin:
        admin.exchange_declare(names.exchange, "fanout")
        admin.queue_bind(names.queue, names.exchange)
    arguments = ["emit", "hello"] if command == "emit" else ["dlq", "replay"]
    heard = folder / "heard"
    with heard.open("wb") as error, memory_alarm(node):
        process = subprocess.Popen([*LOGFAN, *arguments], cwd=folder, stderr=error)
        wait_until(lambda: "blocks all publishers" in heard.read_text(), "it reports that")
        text = heard.read_text()
        assert "low on memory" in text
        assert "vm_memory_high_watermark" in text
        assert "Ctrl-C" in text
        assert process.poll() is None
    assert process.wait(PATIENCE_SECONDS) == 0
    assert "takes messages again" in heard.read_text()
    assert bodies(node.url, names.queue) == [b"hello" if command == "emit" else b"one"]


def test_emit_without_a_broker_exits_69(folder: Path) -> None:
    done = logfan("emit", "x", folder=folder, LOGFAN_RABBITMQ__URLS='["amqp://127.0.0.1:1"]')
    assert done.returncode == 69
    assert "127.0.0.1:1: connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_emit_to_an_exchange_that_must_exist_exits_77(folder: Path, names: Names) -> None:
    done = logfan("emit", "x", folder=folder, LOGFAN_EXCHANGE__DECLARE="passive")
    assert done.returncode == 77
    assert f"exchange '{names.exchange}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_config_passes_check(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "config.toml"
    done = logfan(
        "check", "--config", str(shipped), folder=tmp_path, LOGFAN_PLUGINS__DIRECTORIES="[]"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "screen (stdout), archive (file), numbers (metrics)" in done.stdout
