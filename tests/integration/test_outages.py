"""What an operator sees of a sink that hangs: metrics, /readyz and journal agree, to the second."""

import re
from pathlib import Path

from logfan import __version__
from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.waiting import wait_until

PLUGIN = """
import logfan, pathlib, time

class Slow(logfan.Sink):
    '''Does not return while a file is there.'''

    def write(self, records):
        while pathlib.Path("hang").exists():
            time.sleep(0.05)

@logfan.hookimpl
def register_sinks(register):
    register("slow", Slow)
"""
HANGS_AFTER_SECONDS = 10.0
"""Instead of 30."""
CONSTANTS = {
    f"logfan.{module}.HANGS_AFTER_SECONDS": HANGS_AFTER_SECONDS
    for module in ("telemetry.sink_health", "pipeline.sink_runner")
}
UP, DOWN = 'logfan_sink_up{sink="slow"}', 'logfan_sink_down_seconds{sink="slow"}'


def test_a_sink_that_hangs_is_down_everywhere_after_its_time_and_up_again_when_it_returns(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "slow", PLUGIN)
    sinks = '[sinks.slow]\nkind = "slow"\n'
    with DaemonProcess(tmp_path, node.url, names, sinks, constants=CONSTANTS) as daemon:
        assert f"logfan {__version__} starts; config {daemon.config}; sinks: slow (slow)" in (
            daemon.log()
        )
        assert (daemon.metric(UP), daemon.metric(DOWN)) == (1, 0)
        (tmp_path / "hang").touch()
        publish(node.url, names.exchange, [b"one"])
        wait_until(lambda: daemon.metric("logfan_in_flight_messages") == 1, "it is held")
        wait_until(lambda: daemon.metric("logfan_oldest_unacknowledged_seconds") > 1, "its age")
        assert (daemon.metric(UP), daemon.metric(DOWN)) == (1, 0)
        assert daemon.is_ready()
        wait_until(lambda: daemon.metric(UP) == 0, "it is down")
        assert daemon.metric("logfan_oldest_unacknowledged_seconds") >= HANGS_AFTER_SECONDS
        status, reasons = daemon.get("/readyz")
        assert status == 503
        assert re.search(r"sink slow is down: has not returned for \d\d s", reasons)
        assert daemon.metric(DOWN) > 0
        wait_until(lambda: "sink slow: has not returned" in daemon.log(), "the journal has it")
        assert "1 message held" in daemon.log()
        (tmp_path / "hang").unlink()
        wait_until(daemon.is_ready, "it is up again")
        wait_until(lambda: daemon.acked() == 1, "it is acknowledged")
        assert (daemon.metric(UP), daemon.metric(DOWN)) == (1, 0)
        assert re.search(r"sink slow: up again; it was down for \d+ s \(had not", daemon.log())
        assert daemon.stop() == 0
