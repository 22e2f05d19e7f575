"""A reload never ends a healthy daemon: a new config goes on only once the broker takes it."""

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, delete_queue, publish, waiting
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.gate import Gate
from support.waiting import wait_until

OLD = '[sinks.raw]\nkind = "file"\npath = "old.log"\nformat = "raw"\n'
NEW = OLD.replace("old.log", "new.log")
BACK = "going back to the old one"
TAKEN = "the new config is taken over"
RECEIVED = "logfan_received_messages_total"


def lines(file: Path) -> set[bytes]:
    return set(file.read_bytes().splitlines()) if file.exists() else set()


def arrives(daemon: DaemonProcess, url: str, body: bytes, file: str) -> None:
    """Publish until it is written there: the binding of the very first may be on its way."""
    publish(url, daemon.names.exchange, [body])
    wait_until(lambda: body in lines(daemon.folder / file), f"{body!r} in {file}:\n{daemon.log()}")


def is_written(daemon: DaemonProcess, url: str, body: bytes, file: str) -> bool:
    """Publish once more, and look whether one of them is there."""
    publish(url, daemon.names.exchange, [body])
    return body in lines(daemon.folder / file)


def hangup(daemon: DaemonProcess, until: str) -> None:
    """SIGHUP, and wait until the log has it once more."""
    before = daemon.log().count(until)
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count(until) > before, f"{until}:\n{daemon.log()}")


@pytest.mark.parametrize("what", ["exchange", "queue", "login"])
def test_a_config_that_the_broker_refuses_gives_way_to_the_old_one(
    what: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        arrives(daemon, node.url, b"one", "old.log")
        daemon.configure(node.url, NEW)
        good = daemon.config.read_text()
        exchange, queue = f'name = "{names.exchange}"', f'name = "{names.queue}"'
        daemon.config.write_text({
            "exchange": good.replace(exchange, f'{exchange}\ntype = "topic"'),
            "queue": good.replace(queue, 'name = "no-such-queue"\ndeclare = "passive"'),
            "login": good.replace("guest:guest@", "guest:s3cret-wrong@"),
        }[what])  # fmt: skip
        hangup(daemon, BACK)
        line = next(line for line in daemon.log().splitlines() if BACK in line)
        assert "error" in line
        assert {"exchange": "topic", "queue": "no-such-queue", "login": "refused"}[what] in line
        assert "s3cret" not in daemon.log()
        daemon.wait_ready()
        arrives(daemon, node.url, b"two", "old.log")
        assert not lines(tmp_path / "new.log")
        daemon.config.write_text(good)
        hangup(daemon, TAKEN)
        arrives(daemon, node.url, b"three", "new.log")
        assert daemon.stop() == 0
        assert waiting(node.url, names.queue) == 0


def test_one_refused_config_after_the_other_ends_at_the_one_that_worked(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        good = daemon.config.read_text()
        for kind in ("topic", "direct", "headers"):
            daemon.config.write_text(
                good.replace(f'"{names.exchange}"', f'"{names.exchange}"\ntype = "{kind}"')
            )
            hangup(daemon, "changed: exchange.type")
        wait_until(lambda: BACK in daemon.log(), f"it goes back:\n{daemon.log()}")
        daemon.wait_ready()
        arrives(daemon, node.url, b"one", "old.log")
        assert daemon.stop() == 0


@pytest.mark.parametrize("startup", ["retry", "fail"])
def test_a_broker_that_is_away_just_then_ends_nothing(
    startup: str, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    extra = f'startup = "{startup}"\nreconnect = {{ max = "500ms" }}'
    with Gate(node.port) as gate:
        url = f"amqp://guest:guest@127.0.0.1:{gate.port}/%2F"
        with DaemonProcess(tmp_path, url, names, OLD, extra=extra) as daemon:
            arrives(daemon, node.url, b"one", "old.log")
            gate.shut()
            daemon.configure(url, NEW, extra)
            hangup(daemon, "starting anew")
            wait_until(lambda: "connection refused" in daemon.log(), "it logs the cause")
            if startup == "fail":
                wait_until(lambda: BACK in daemon.log(), f"it goes back:\n{daemon.log()}")
            publish(node.url, names.exchange, [b"two"])
            gate.open()
            daemon.wait_ready()
            file = "new.log" if startup == "retry" else "old.log"
            arrives(daemon, node.url, b"three", file)
            assert b"two" in lines(tmp_path / file)
            if startup == "fail":
                hangup(daemon, TAKEN)
                arrives(daemon, node.url, b"four", "new.log")
            assert daemon.stop() == 0


def test_a_url_that_nothing_answers_at_gives_way_to_the_one_that_worked(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        arrives(daemon, node.url, b"one", "old.log")
        good = daemon.config.read_text()
        daemon.configure("amqp://guest:guest@127.0.0.1:1", NEW)
        hangup(daemon, BACK)
        assert "127.0.0.1:1: connection refused" in daemon.log()
        assert "delete_queue" not in daemon.log(), "the old queue is the one it goes back to"
        daemon.wait_ready()
        # The first of several that does not answer is no reason: each is tried.
        daemon.config.write_text(
            good.replace('urls = ["', 'urls = ["amqp://guest:guest@127.0.0.1:1", "')
        )
        hangup(daemon, TAKEN)
        assert daemon.stop() == 0


def test_another_reload_while_a_broker_is_silent_goes_back_all_the_same(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with Gate(node.port) as gate, DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        gate.freeze()
        arrives(daemon, node.url, b"one", "old.log")
        daemon.configure(f"amqp://guest:guest@127.0.0.1:{gate.port}/%2F", NEW)
        hangup(daemon, "starting anew")
        wait_until(lambda: gate.connections >= 1, "it connects")
        daemon.config.write_text(f'shutdown_timeout = "7s"\n{daemon.config.read_text()}')
        hangup(daemon, "starting anew")
        gate.shut()
        wait_until(lambda: BACK in daemon.log(), f"it goes back:\n{daemon.log()}", 30.0)
        arrives(daemon, node.url, b"two", "old.log")
        assert daemon.stop() == 0


def test_a_url_that_nothing_answers_at_gives_way_though_nothing_was_consumed_just_then(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    """A sink was down, so there was no consumer; the connection was there."""
    down = OLD.replace("old.log", "missing/old.log")
    (tmp_path / "missing").touch()
    with DaemonProcess(tmp_path, node.url, names, down).unready() as daemon:
        wait_until(lambda: "waiting for sink raw to open" in daemon.get("/readyz")[1], "waits")
        daemon.configure("amqp://guest:guest@127.0.0.1:1", NEW)
        hangup(daemon, "starting anew")
        wait_until(lambda: BACK in daemon.log(), f"it goes back:\n{daemon.log()}", 30.0)
        daemon.configure(node.url, NEW)
        hangup(daemon, TAKEN)
        arrives(daemon, node.url, b"one", "new.log")
        assert daemon.stop() == 0


def test_what_the_old_config_names_need_not_be_there_any_more_to_go_back_to_it(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    key.chmod(0o600)
    redact = f'[sinks.raw.redact]\npaths = ["user"]\nhash = true\nkey_file = "{key}"\n'
    with DaemonProcess(tmp_path, node.url, names, OLD + redact) as daemon:
        arrives(daemon, node.url, b'{"n": 1}', "old.log")
        daemon.configure(node.url, NEW)
        text = daemon.config.read_text()
        daemon.config.write_text(
            text.replace(f'"{names.exchange}"', f'"{names.exchange}"\ntype = "topic"')
        )
        key.unlink()
        hangup(daemon, BACK)
        daemon.wait_ready(30.0)
        arrives(daemon, node.url, b'{"n": 2}', "old.log")
        assert daemon.stop() == 0


def test_a_wrong_url_is_mended_by_a_reload_before_the_first_subscription(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, "amqp://guest:guest@127.0.0.1:1", names, OLD).unready() as daemon:
        wait_until(lambda: "connection refused" in daemon.log(), "it tries")
        daemon.configure(node.url, NEW)
        hangup(daemon, TAKEN)
        arrives(daemon, node.url, b"one", "new.log")
        assert daemon.stop() == 0


STALLS = {"nothing": 0, "half of the broker's greeting": 100, "before the last answer": 520}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("stall", STALLS)
def test_a_signal_during_the_handshake_is_served(
    stall: str, number: signal.Signals, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with Gate(node.port) as gate:
        gate.stall_after = STALLS[stall]
        url = f"amqp://guest:guest@127.0.0.1:{gate.port}/%2F"
        with DaemonProcess(tmp_path, url, names, OLD).unready() as daemon:
            wait_until(lambda: gate.connections >= 1, "the connection is on its way")
            gate.stall_after = None
            daemon.configure(url, NEW)
            daemon.signal(number)
            if number == signal.SIGHUP:
                daemon.wait_ready()
                assert "handshake within" not in daemon.log()
                arrives(daemon, node.url, b"one", "new.log")
                daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            assert "fault" not in daemon.log()
            assert "Traceback" not in daemon.log()


def test_hangups_in_a_row_and_a_term_among_them(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        for turn in range(12):
            daemon.configure(node.url, NEW if turn % 2 else OLD)
            daemon.signal(signal.SIGHUP)
            time.sleep(0.03 * (turn % 4))  # at any moment of the one before
        # Which of them is served last is not known: signals that wait become one.
        wait_until(lambda: is_written(daemon, node.url, b"one", "new.log"), "the last is served")
        wait_until(lambda: waiting(node.url, names.queue) == 0, "what came last is written, too")
        daemon.configure(node.url, OLD)
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGHUP)
        assert daemon.wait() == 0
        assert waiting(node.url, names.queue) == 0


def test_a_hangup_at_any_moment_of_start_and_stop_ends_nothing(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    # A child of ours: it stays a zombie, and its number its own, until it is waited for.
    with DaemonProcess(tmp_path, node.url, names, OLD, forked=False).unready() as daemon:
        # From the moment that the command runs: Python's own start cannot be covered.
        status = Path(f"/proc/{daemon.pid}/status")
        wait_until(lambda: catches_hangup(status), "HUP is not deadly any more")
        while not daemon.is_ready():
            daemon.signal(signal.SIGHUP)
            time.sleep(0.02)
        daemon.signal(signal.SIGTERM)
        ended: Callable[[], bool] = lambda: "State:\tZ" in status.read_text()  # noqa: E731
        while not ended():
            os.kill(daemon.pid, signal.SIGHUP)
            time.sleep(0.005)
        assert daemon.wait() == 0


def catches_hangup(status: Path) -> bool:
    """Whether HUP is blocked or caught."""
    masks = re.findall(r"Sig(?:Blk|Cgt):\s+([0-9a-f]+)", status.read_text())
    return any(int(mask, 16) & 1 for mask in masks)


def test_a_term_during_a_reloads_drain_ends_it_in_the_same_drain(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    full = OLD.replace("old.log", "/dev/full")
    with DaemonProcess(tmp_path, node.url, names, full) as daemon:
        daemon.config.write_text('shutdown_timeout = "3s"\n' + daemon.config.read_text())
        hangup(daemon, TAKEN)
        publish(node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 2, "they are held")
        daemon.config.write_text(daemon.config.read_text().replace("/dev/full", "new.log"))
        hangup(daemon, "starting anew")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 75
        assert not (tmp_path / "new.log").exists()
        assert waiting(node.url, names.queue) == 2


def test_a_file_that_appears_later_is_never_picked_up(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        pass
    first, other = tmp_path / "first.toml", daemon.config
    text = other.read_text()
    other.unlink()
    first.write_text(text)
    daemon = DaemonProcess(
        tmp_path, node.url, names, OLD, environ={"LOGFAN_CONFIG": "first.toml"}, command=["run"]
    )
    other.unlink()
    with daemon:
        other.write_text(text.replace("old.log", "new.log"))
        hangup(daemon, "unchanged")
        first.unlink()
        hangup(daemon, "going on with the old one")
        assert f"{first} (from LOGFAN_CONFIG): cannot be read" in daemon.log()
        arrives(daemon, node.url, b"one", "old.log")
        assert daemon.stop() == 0
    assert not (tmp_path / "new.log").exists()


def test_without_a_file_none_is_picked_up(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    environ = {
        "LOGFAN_RABBITMQ__URLS": f'["{node.url}"]',
        "LOGFAN_EXCHANGE__NAME": names.exchange,
        "LOGFAN_QUEUE__NAME": names.queue,
        "LOGFAN_SINKS__RAW": '{"kind": "file", "path": "old.log", "format": "raw"}',
    }
    daemon = DaemonProcess(tmp_path, node.url, names, OLD, environ=environ, command=["run"])
    daemon.config.unlink()
    with daemon:
        daemon.configure(node.url, NEW)
        hangup(daemon, "unchanged")
        arrives(daemon, node.url, b"one", "old.log")
        assert daemon.stop() == 0
    assert not (tmp_path / "new.log").exists()


def test_it_says_which_keys_changed_and_what_stays_behind(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    url_file = tmp_path / "url"
    url_file.write_text(node.url)
    url_file.chmod(0o600)
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        text = daemon.config.read_text().replace(
            f'urls = ["{node.url}"]', f'url_file = "{url_file}"'
        )
        daemon.config.write_text(f'{text}prefetch = 7\n[log]\nlevel = "debug"\n')
        hangup(daemon, TAKEN)
        changed = next(line for line in daemon.log().splitlines() if "reload: changed: " in line)
        for key in ("rabbitmq.url_file", "rabbitmq.urls", "rabbitmq.prefetch", "log.level"):
            assert key in changed
        assert "guest:guest" not in daemon.log()
        url_file.write_text(f"# the same\n{node.url}\n")
        hangup(daemon, TAKEN)
        assert "rabbitmq.url_file (the file's content)" in daemon.log()
        new = f"{names.queue}-new"
        daemon.config.write_text(daemon.config.read_text().replace(names.queue, new))
        hangup(daemon, f"the dead-letter queue was '{names.queue}.dead'")
        log = daemon.log()
        assert f"the old queue {names.queue!r} stays bound to exchange {names.exchange!r}" in log
        assert f"rabbitmqctl delete_queue {names.queue}" in log
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: waiting(node.url, names.queue) == 1, "the old queue fills")
        assert daemon.stop() == 0
        delete_queue(node.url, names.queue)


def test_counters_go_on_through_a_reload_that_is_gone_back_from(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    written = 'logfan_sink_records_total{outcome="written",sink="raw"}'
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        arrives(daemon, node.url, b"one", "old.log")
        good = daemon.config.read_text()
        bad = good.replace(f'"{names.exchange}"', f'"{names.exchange}"\ntype = "topic"')
        daemon.config.write_text(bad.replace("sinks.raw", "sinks.other"))
        hangup(daemon, BACK)
        daemon.wait_ready()
        arrives(daemon, node.url, b"two", "old.log")
        wait_until(lambda: daemon.acked() == 2, "both are acknowledged")
        assert daemon.metric(written) == 2
        assert daemon.stop() == 0


TWICE = '''
import os
import logfan

class Twice(logfan.Sink):
    """Cannot be made where it is called bad, or while a file is there."""

    def __new__(cls, config, *, name, **more):
        if name == "bad" or os.path.exists("worn"):
            raise RuntimeError("no more of them")
        return super().__new__(cls)

    def write(self, records):
        pass

@logfan.hookimpl
def register_sinks(register):
    register("twice", Twice)
'''


def test_a_sink_that_cannot_be_made_gives_way_to_those_that_were(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    plugins = add_drop_in(tmp_path, "twice", TWICE)
    with DaemonProcess(tmp_path, node.url, names, OLD) as daemon:
        arrives(daemon, node.url, b"one", "old.log")
        daemon.configure(node.url, f'{NEW}[sinks.bad]\nkind = "twice"\n')
        hangup(daemon, BACK)
        what = f"sinks.bad: Twice of {plugins / 'twice.py'} cannot be made: RuntimeError: no more"
        assert f"cannot be started ({what} of them)" in daemon.log()
        daemon.wait_ready()
        arrives(daemon, node.url, b"two", "old.log")
        # A plugin's new code takes a new start, and that is logged.
        (plugins / "twice.py").write_text(TWICE.replace("no more", "none"))
        hangup(daemon, "takes effect at the next start")
        assert daemon.stop() == 0


@pytest.mark.parametrize("way", ["it can be made again", "a reload", "a stop"])
def test_sinks_that_were_and_cannot_be_made_again_end_no_daemon(
    node: RabbitNode, names: Names, tmp_path: Path, way: str
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "twice.py").write_text(TWICE)
    old = f'{OLD}[sinks.once]\nkind = "twice"\n'
    with DaemonProcess(tmp_path, node.url, names, old) as daemon:
        arrives(daemon, node.url, b"one", "old.log")
        (tmp_path / "worn").touch()
        daemon.configure(node.url, f'{NEW}[sinks.bad]\nkind = "twice"\n')
        hangup(daemon, "nor can the old config be started (sinks.once: Twice of ")
        assert "twice.py cannot be made: RuntimeError: no more of them)" in daemon.log()
        assert daemon.get("/readyz")[0] == 503
        assert "please report" not in daemon.log()
        publish(node.url, names.exchange, [b"kept"])
        if way == "a reload":
            daemon.configure(node.url, NEW)
            hangup(daemon, TAKEN)
            arrives(daemon, node.url, b"two", "new.log")
            assert b"kept" in lines(tmp_path / "new.log")
        elif way == "it can be made again":
            (tmp_path / "worn").unlink()
            daemon.wait_ready()
            arrives(daemon, node.url, b"two", "old.log")
            assert b"kept" in lines(tmp_path / "old.log")
        assert daemon.stop() == 0


def refused_to_open(daemon: DaemonProcess, times: int) -> bool:
    """By the log: the status may still be that of the thread before."""
    return daemon.log().count("since before the reload, and is not opened") == times


HANGS = """
import pathlib, time, logfan

class Hangs(logfan.Sink):
    class Config(logfan.SinkConfig):
        hangs: bool = True

    def open(self):
        with open("opened.log", "ab") as file:
            file.write(b"once\\n")

    def write(self, records):
        while self.config.hangs and not pathlib.Path("go").exists():
            time.sleep(0.01)

@logfan.hookimpl
def register_sinks(register):
    register("hangs", Hangs)
"""


@pytest.mark.parametrize("required", ["true", "false"])
def test_a_sink_that_hangs_through_reloads_is_opened_once_and_gets_no_further_window(
    node: RabbitNode, names: Names, tmp_path: Path, required: str
) -> None:
    """Each of them would leave a thread behind with a window in its hands, and its sink would be in
    use twice at a time."""
    add_drop_in(tmp_path, "hangs", HANGS)
    environ = {"LOGFAN_SHUTDOWN_TIMEOUT": "100ms"}
    sinks = f'[sinks.h]\nkind = "hangs"\nrequired = {required}\nretry = {{ initial = "1s" }}\n'
    opened = tmp_path / "opened.log"
    with DaemonProcess(tmp_path, node.url, names, sinks, environ=environ) as daemon:
        publish(node.url, names.exchange, [b"%d" % number for number in range(50)])
        wait_until(lambda: daemon.metric(RECEIVED) == 50, "it has a window")
        opens = len(opened.read_bytes().splitlines())
        for turn in range(2, 5):
            daemon.config.write_text(sinks_anew(daemon.config.read_text(), turn))
            daemon.signal(signal.SIGHUP)
            wait_until(partial(left_behind, daemon, turn - 1), "it is reloaded")
            wait_until(partial(refused_to_open, daemon, turn - 1), "the sink's new thread waits")
        assert "since before the reload" in daemon.get("/status.json")[1]
        waits = "waiting for sink h to open"
        wait_until(
            lambda: daemon.is_ready() or waits in daemon.get("/readyz")[1], "it has connected"
        )
        assert daemon.is_ready() == (required == "false")
        assert daemon.metric(RECEIVED) == 50
        assert len(opened.read_bytes().splitlines()) == opens
        (tmp_path / "go").touch()
        wait_until(lambda: "up again" in daemon.log(), "it goes on")
        wait_until(daemon.is_ready, "it is ready")
        wait_until(lambda: daemon.acked() == 50, "all is written")
        assert daemon.stop() == 0


@pytest.mark.parametrize("way_out", ["taken out", "other options", "not required"])
def test_a_sink_that_hangs_holds_up_nothing_once_the_config_has_another_in_its_place(
    node: RabbitNode, names: Names, tmp_path: Path, way_out: str
) -> None:
    add_drop_in(tmp_path, "hangs", HANGS)
    environ = {"LOGFAN_SHUTDOWN_TIMEOUT": "100ms"}
    hanging = '[sinks.h]\nkind = "hangs"\n'
    with DaemonProcess(tmp_path, node.url, names, f"{OLD}{hanging}", environ=environ) as daemon:
        publish(node.url, names.exchange, [b"%d" % number for number in range(50)])
        wait_until(lambda: daemon.metric(RECEIVED) == 50, "it has a window")
        new = {
            "taken out": "",
            "other options": f"{hanging}hangs = false\n",
            "not required": f"{hanging}required = false\n",
        }[way_out]
        daemon.config.write_text(daemon.config.read_text().replace(hanging, new))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.acked() == 50, "all is written")
        assert daemon.stop() == 0


def sinks_anew(config: str, turn: int) -> str:
    return config.replace(f'initial = "{turn - 1}s"', f'initial = "{turn}s"')


def left_behind(daemon: DaemonProcess, reloads: int) -> bool:
    return daemon.log().count("draining, then starting anew") == reloads
