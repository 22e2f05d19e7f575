"""A transform of somebody's own before one sink, on a real broker; its neighbour gets all as it
came."""

import json
from pathlib import Path

from click.testing import CliRunner

from logfan.cli import main
from logfan.testing.node import RabbitNode
from support.broker import Names, publish
from support.daemon import RAW, DaemonProcess
from support.drop_ins import add_drop_in
from support.letters import bodies, wait_for_messages
from support.waiting import wait_until

PLUGIN = """
import json, pathlib
import logfan


class Enrich(logfan.Transform):
    '''Adds a place; filters what is of no interest; cannot do some until it is mended.'''

    class Config(logfan.TransformConfig):
        place: str

    def apply(self, records):
        if pathlib.Path("away").exists():
            raise OSError("the table of places is away")
        for record in records:
            tree = record.json()
            if tree["n"] % 10 == 7 and not pathlib.Path("mended").exists():
                raise KeyError("no such place")
            if tree["n"] % 10 == 8:
                yield None
                continue
            tree = {**tree, "place": self.config.place, "by": "ann@example.org"}
            headers = {**record.headers, "env": "test"}
            yield record.replace(body=json.dumps(tree), headers=headers)


class Picky(logfan.Sink):
    '''Refuses some until it is mended; writes bodies with their ids and headers.'''

    def write(self, records):
        mended = pathlib.Path("mended").exists()
        refused = {}
        with open("picky.log", "a") as log:
            for index, record in enumerate(records):
                if record.json()["n"] % 10 == 5 and not mended:
                    refused[index] = "not wanted"
                else:
                    line = {**record.json(), "id": record.id(), "env": record.headers["env"]}
                    log.write(json.dumps(line) + "\\n")
        if refused:
            raise logfan.RecordsRejected(refused)


@logfan.hookimpl
def register_transforms(register):
    register("enrich", Enrich)


@logfan.hookimpl
def register_sinks(register):
    register("picky", Picky)
"""
SINKS = (
    f'{RAW}[sinks.picky]\nkind = "picky"\nretry = {{ initial = "20ms", max = "200ms" }}\n'
    "where = { n = { below = 190 } }\n"
    'transforms = [{ kind = "enrich", place = "Bern" }]\nredact = { patterns = ["email"] }\n'
)


def daemon_at(folder: Path, node: RabbitNode, names: Names) -> DaemonProcess:
    add_drop_in(folder, "enrich", PLUGIN)
    return DaemonProcess(folder, node.url, names, SINKS)


def body(n: int) -> bytes:
    return b'{"n":%d}' % n


def enriched(path: Path) -> list[int]:
    """What the sink got, each checked for what the transform put in and redact took out."""
    got = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for one in got:
        assert (one["place"], one["by"], one["env"]) == ("Bern", "[redacted]", "test")
    return sorted(one["n"] for one in got)


def outcomes(daemon: DaemonProcess) -> dict[str, float]:
    return {
        outcome: daemon.metric(f'logfan_sink_records_total{{outcome="{outcome}",sink="picky"}}')
        for outcome in ("written", "rejected", "dropped", "filtered")
    }


def test_a_sink_gets_what_its_transform_gives_and_a_replay_comes_the_same_way(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    published = [*map(body, range(200))]
    chosen = range(190)
    refused = [n for n in chosen if n % 10 in (5, 7)]
    kept = [n for n in chosen if n % 10 not in (5, 7, 8)]
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, published)
        wait_until(lambda: daemon.acked() == 200, f"all is acknowledged:\n{daemon.log()}")
        assert (tmp_path / "raw.log").read_bytes().splitlines() == published
        assert enriched(tmp_path / "picky.log") == kept
        assert outcomes(daemon) == {
            "written": len(kept), "rejected": len(refused), "dropped": 0, "filtered": 10 + 19,
        }  # fmt: skip
        wait_for_messages(node.url, f"{names.queue}.dead", len(refused))
        assert "transform enrich failed: KeyError: 'no such place'" in daemon.log()

        (tmp_path / "mended").touch()
        done = CliRunner().invoke(main, ["dlq", "replay", "--config", str(daemon.config)])
        assert done.exit_code == 0, done.output
        again = 200 + len(refused)
        wait_until(lambda: daemon.acked() == again, f"they are acknowledged:\n{daemon.log()}")
        assert enriched(tmp_path / "picky.log") == sorted([*kept, *refused])
        assert sum(outcomes(daemon).values()) == again
        received = daemon.metric("logfan_received_messages_total")
        assert received == again == daemon.metric("logfan_acked_messages_total")
        assert daemon.stop() == 0


def test_a_dead_letter_holds_what_was_published(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, map(body, (1, 5, 7, 8)))
        wait_until(lambda: daemon.acked() == 4, f"all is acknowledged:\n{daemon.log()}")
        assert sorted(bodies(node.url, f"{names.queue}.dead")) == [body(5), body(7)]
        assert enriched(tmp_path / "picky.log") == [1]
        assert daemon.stop() == 0


def test_where_it_fails_over_all_the_messages_stay_until_it_works(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    (tmp_path / "away").touch()
    with daemon_at(tmp_path, node, names) as daemon:
        publish(node.url, names.exchange, map(body, range(4)))
        up, retries = 'logfan_sink_up{sink="picky"}', 'logfan_sink_retries_total{sink="picky"}'
        wait_until(lambda: daemon.metric(retries) >= 5, f"it is tried again:\n{daemon.log()}")
        assert daemon.metric(up) == 0
        assert daemon.acked() == 0
        assert daemon.metric('logfan_dead_lettered_records_total{sink="picky"}') == 0
        (tmp_path / "away").unlink()
        wait_until(lambda: daemon.acked() == 4, f"all is acknowledged:\n{daemon.log()}")
        assert enriched(tmp_path / "picky.log") == [0, 1, 2, 3]
        assert daemon.metric(up) == 1
        assert "transform enrich failed: OSError: the table of places is away" in daemon.log()
        assert daemon.stop() == 0
