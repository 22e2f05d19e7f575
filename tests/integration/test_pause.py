"""`logfan pause` and `logfan resume`: a sink is left alone for a moment, and nothing is lost."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from logfan.testing.node import RabbitNode
from support.broker import Names, publish, waiting
from support.daemon import DaemonProcess
from support.waiting import wait_until

SINKS = (
    'shutdown_timeout = "1s"\n'
    '[sinks.archive]\nkind = "file"\npath = "archive.log"\nformat = "raw"\n'
    '[sinks.copy]\nkind = "file"\npath = "copy.log"\nformat = "raw"\n'
)
WINDOW = 20
PREFETCH = f"prefetch = {WINDOW}\n"
MESSAGES = [b"%03d" % number for number in range(100)]
ONCE = Counter(MESSAGES)


class Desk:
    """A daemon with two sinks, and who pauses one of them."""

    def __init__(self, folder: Path, node: RabbitNode, names: Names, extra: str = PREFETCH) -> None:
        self.daemon = DaemonProcess(folder, node.url, names, "", extra=extra)
        self.node, self.names = node, names
        self.configure(extra)

    def configure(self, extra: str) -> None:
        self.daemon.configure(self.node.url, "", extra)
        text = self.daemon.config.read_text()
        self.daemon.config.write_text(SINKS + text)

    def ask(self, *command: str, config: Path | None = None) -> Result:
        return CliRunner().invoke(main, [*command, "--config", str(config or self.daemon.config)])

    def pause(self, *options: str) -> str:
        result = self.ask("pause", "archive", *options)
        assert result.exit_code == 0, result.output
        return result.output

    def resume(self) -> str:
        result = self.ask("resume", "archive")
        assert result.exit_code == 0, result.output
        return result.output

    def publish(self, bodies: list[bytes]) -> None:
        publish(self.node.url, self.names.exchange, bodies)

    def lines(self, sink: str) -> Counter[bytes]:
        file = self.daemon.folder / f"{sink}.log"
        return Counter(file.read_bytes().splitlines()) if file.exists() else Counter()

    def archive(self) -> dict[str, Any]:
        status = json.loads(self.daemon.get("/status.json")[1])
        found: dict[str, Any] = status["sinks"][0]
        return found

    def wait_until_the_window_is_full(self) -> None:
        wait_until(lambda: self.lines("copy").total() == WINDOW, "the other sink has the window")
        rest = len(MESSAGES) - WINDOW
        wait_until(lambda: waiting(self.node.url, self.names.queue) == rest, "the rest waits")

    def wait_until_all_is_acknowledged(self) -> None:
        wait_until(
            lambda: self.daemon.acked() == len(MESSAGES), f"all goes on:\n{self.daemon.log()}"
        )


@pytest.fixture
def desk(tmp_path: Path, node: RabbitNode, names: Names) -> Iterator[Desk]:
    one = Desk(tmp_path, node, names)
    with one.daemon:
        yield one


def test_a_paused_sink_gets_nothing_until_it_is_resumed_and_then_everything_once(
    desk: Desk,
) -> None:
    daemon = desk.daemon
    shown = desk.pause("--for", "5m")
    assert shown.startswith("sink archive is paused by `logfan pause` until ")
    desk.publish(MESSAGES)
    desk.wait_until_the_window_is_full()
    sink, (code, why) = desk.archive(), daemon.get("/readyz")
    assert (sink["state"], sink["held"], sink["retries"]) == ("paused", WINDOW, 0)
    assert 0 < sink["until"] - sink["since"] < 301
    assert sink["failure"] in shown
    assert (code, json.loads(why)["reasons"]) == (503, [f"sink archive is down: {sink['failure']}"])
    assert 0 < daemon.metric('logfan_sink_pause_seconds{sink="archive"}') < 300
    assert daemon.metric('logfan_sink_up{sink="archive"}') == 0
    assert (desk.lines("archive").total(), daemon.acked()) == (0, 0)

    assert "was paused before" in desk.pause("--for", "10m")
    assert desk.archive()["until"] > sink["until"] + 200
    assert desk.archive()["since"] == pytest.approx(sink["since"], abs=0.5)
    assert f"held: {WINDOW}" in desk.resume()
    desk.wait_until_all_is_acknowledged()
    assert desk.lines("archive") == desk.lines("copy") == ONCE
    assert (desk.archive()["state"], desk.archive()["until"]) == ("up", None)
    assert desk.archive()["retries"] == daemon.metric("logfan_requeued_messages_total") == 0
    assert "archive: goes on after a pause of" in daemon.log()
    assert "archive: paused by `logfan pause` until" in daemon.log()
    assert desk.resume() == "sink archive was not paused\n"


def test_a_pause_ends_by_itself_and_what_is_asked_wrongly_is_explained(desk: Desk) -> None:
    unknown = desk.ask("pause", "archiv")
    assert (unknown.exit_code, "there are: archive, copy" in unknown.output) == (2, True)
    too_long = desk.ask("pause", "archive", "--for", "11m")
    assert (too_long.exit_code, "not more than 10m" in too_long.output) == (2, True)
    assert desk.ask("pause", "archive", "--for", "5").exit_code == 2
    none = desk.ask("pause", "archive", "--for", "0s")
    assert (none.exit_code, "no time at all" in none.output) == (2, True)
    assert desk.archive()["state"] == "up"

    link = desk.daemon.folder / "link.toml"
    link.symlink_to(desk.daemon.config)
    assert desk.ask("pause", "archive", "--for", "1s", config=link).exit_code == 0
    desk.publish(MESSAGES)
    desk.wait_until_all_is_acknowledged()
    assert desk.lines("archive") == ONCE
    wait_until(lambda: "after a pause of 1 s, its limit" in desk.daemon.log(), "the log has it")


def test_a_pause_stays_over_a_reload_and_ends_with_the_daemon(desk: Desk) -> None:
    daemon = desk.daemon
    desk.pause()
    desk.publish(MESSAGES)
    desk.wait_until_the_window_is_full()
    until = desk.archive()["until"]
    desk.configure(PREFETCH.replace("20", "30"))
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "draining, then starting anew" in daemon.log(), "it reloads")
    wait_until(lambda: "waiting for sink archive to open" in daemon.get("/readyz")[1], "it waits")
    assert desk.archive()["state"] == "paused"
    assert desk.archive()["until"] == pytest.approx(until, abs=0.5)
    assert desk.lines("archive").total() == 0
    assert daemon.stop() == 0  # nothing is held: it was not subscribed again
    daemon.start()
    desk.wait_until_all_is_acknowledged()
    assert desk.lines("archive") == ONCE


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_while_a_sink_is_paused_loses_nothing(
    desk: Desk, how: signal.Signals
) -> None:
    daemon = desk.daemon
    desk.pause()
    desk.publish(MESSAGES)
    desk.wait_until_the_window_is_full()
    daemon.signal(how)
    assert daemon.wait() == (75 if how is signal.SIGTERM else -9)
    gone = desk.ask("pause", "archive")
    assert (gone.exit_code, "no daemon" in gone.output) == (69, True)
    assert desk.lines("archive").total() == 0
    daemon.start()
    desk.wait_until_all_is_acknowledged()
    assert desk.lines("archive") == ONCE
    assert desk.lines("copy").keys() == ONCE.keys()
    assert desk.pause("--for", "1s")


@pytest.mark.long
def test_before_the_broker_takes_the_window_back_it_is_handed_back(
    tmp_path: Path, node: RabbitNode, names: Names
) -> None:
    desk = Desk(tmp_path, node, names, PREFETCH + 'acknowledgement_timeout = "15s"\n')
    with desk.daemon as daemon:
        assert desk.ask("pause", "archive", "--for", "6s").exit_code == 2
        desk.pause()
        desk.publish(MESSAGES)

        def is_handed_back() -> bool:
            desk.pause()
            return daemon.metric("logfan_requeued_messages_total") == WINDOW

        wait_until(is_handed_back, f"the window is handed back:\n{daemon.log()}")
        assert "unsubscribed until it is up" in daemon.log()
        desk.resume()
        desk.wait_until_all_is_acknowledged()
        assert desk.lines("archive") == ONCE
