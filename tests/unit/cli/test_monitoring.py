"""The alert rules fire when they should, by promtool's own rule tests; not while all is well."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from logfan.cli import main
from logfan.testing import debian

ROOT = Path(__file__).parents[3]
RULES = ROOT / "daemon/logfan/cli/generate/files/alerts.yml"
OF = 'job="logfan",instance="web-1:9464"'
SINK = f'{OF},sink="archive"'


@dataclass(frozen=True)
class Fires:
    """Series as promtool writes them, a value a minute, by which an alert fires."""

    series: dict[str, str]
    after: str
    """The moment at which it fires."""
    before: str | None = None
    """One at which it does not yet."""
    value: str = ""
    """As the annotations show it."""
    labels: dict[str, str] = field(default_factory=dict)


CASES = {
    "LogfanDown": Fires({f"up{{{OF}}}": "1 1 0x30"}, "5m", "3m"),
    "LogfanNotConsuming": Fires({f"logfan_consuming{{{OF}}}": "1 0x30"}, "7m", "5m"),
    "LogfanSinkDown": Fires(
        {f"logfan_sink_down_seconds{{{SINK}}}": "0 60+60x30"}, "6m", "5m", "6m 0s"
    ),
    "LogfanSinkPaused": Fires({f"logfan_sink_paused{{{SINK}}}": "0 1x30"}, "3m", "1m"),
    "LogfanStuck": Fires(
        {f"logfan_oldest_unacknowledged_seconds{{{OF}}}": "0+60x30"}, "11m", "10m", "11m 0s"
    ),
    "LogfanBindingLost": Fires({f"logfan_rebound_total{{{OF}}}": "0x5 1x90"}, "10m", "4m"),
    "LogfanDropsRecords": Fires(
        {f'logfan_sink_records_total{{{SINK},outcome="dropped"}}': "0x15 30x60"}, "20m", "10m",
        "30", {"outcome": "dropped"},
    ),
    "LogfanSinkPausedByHand": Fires(
        {
            f"logfan_sink_pause_seconds{{{SINK}}}": "0+60x30",
            f"logfan_sink_down_seconds{{{SINK}}}": "0+60x30",
        }, "21m", "20m", "21m 0s",
    ),
    "LogfanDeadLetters": Fires(
        {f"logfan_dead_letters_waiting{{{OF}}}": "0 12x30"}, "20m", "10m", "12"
    ),
    "LogfanBehind": Fires(
        {f"logfan_queue_ready_messages{{{OF}}}": "9000+1000x60"}, "40m", "10m", "49k"
    ),
    "LogfanReconnects": Fires(
        {
            f'logfan_connections_total{{{OF},outcome="lost"}}': "0+1x60",
            f'logfan_connections_total{{{OF},outcome="opened"}}': "1+1x60",
        }, "40m", "4m", "30",
    ),
    "LogfanRedeliveries": Fires(
        {
            f"logfan_redelivered_messages_total{{{OF}}}": "0+20x90",
            f"logfan_received_messages_total{{{OF}}}": "0+100x90",
        }, "60m", "10m",
    ),
}  # fmt: skip
WELL = {
    f"up{{{OF}}}": "1x120",
    f"logfan_consuming{{{OF}}}": "1x120",
    f"logfan_sink_down_seconds{{{SINK}}}": "0x120",
    f"logfan_sink_paused{{{SINK}}}": "0x120",
    f"logfan_sink_pause_seconds{{{SINK}}}": "0x120",
    f"logfan_oldest_unacknowledged_seconds{{{OF}}}": "0.2x120",
    f"logfan_rebound_total{{{OF}}}": "1x120",
    f'logfan_sink_records_total{{{SINK},outcome="dropped"}}': "7x120",
    f"logfan_dead_letters_waiting{{{OF}}}": "0x120",
    f"logfan_queue_ready_messages{{{OF}}}": "20000-100x120",
    f'logfan_connections_total{{{OF},outcome="lost"}}': "1x120",
    f"logfan_redelivered_messages_total{{{OF}}}": "0+1x120",
    f"logfan_received_messages_total{{{OF}}}": "0+100x120",
}


def rules() -> dict[str, Any]:
    [group] = YAML(typ="safe").load(RULES)["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def promtool(folder: Path, cases: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """`promtool test rules` on these cases."""
    try:
        program = debian.tool("prometheus", "usr/bin/promtool")
    except debian.DebianUnavailable as error:
        pytest.skip(str(error))
    result = CliRunner().invoke(main, ["generate", "alerts"])
    assert result.exit_code == 0
    (folder / "alerts.yml").write_text(result.stdout)
    with (folder / "test.yml").open("w") as file:
        YAML(typ="safe").dump(
            {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}, file
        )
    return subprocess.run(
        [str(program), "test", "rules", "test.yml"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def case(series: dict[str, str], *looks: dict[str, Any]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "1m", "input_series": inputs, "alert_rule_test": [*looks]}


def quiet(alert: str, moment: str) -> dict[str, Any]:
    return {"eval_time": moment, "alertname": alert, "exp_alerts": []}


def fires(alert: str, of: Fires) -> dict[str, Any]:
    """The look at which it fires, with the texts that its reader gets."""
    labels = {"job": "logfan", "instance": "web-1:9464", **of.labels}
    if any("sink=" in series for series in of.series):
        labels["sink"] = "archive"
    rule = rules()[alert]

    def filled(text: str) -> str:
        text = re.sub(r"{{ \$labels\.(\w+) }}", lambda match: labels[match[1]], text)
        return re.sub(r"{{ \$value \| \w+ }}", of.value, text)

    expected = {
        "exp_labels": {**labels, **rule["labels"]},
        "exp_annotations": {name: filled(text) for name, text in rule["annotations"].items()},
    }
    return {"eval_time": of.after, "alertname": alert, "exp_alerts": [expected]}


def test_every_alert_has_a_case() -> None:
    assert [*CASES] == [*rules()]


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_in_its_case_and_not_before(alert: str, tmp_path: Path) -> None:
    of = CASES[alert]
    looks = [fires(alert, of), *([quiet(alert, of.before)] if of.before else [])]
    done = promtool(tmp_path, [case(of.series, *looks)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_none_fires_while_all_is_well(tmp_path: Path) -> None:
    looks = [quiet(alert, moment) for alert in CASES for moment in ("1m", "30m", "90m")]
    done = promtool(tmp_path, [case(WELL, *looks)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sink_that_is_paused_by_hand_is_no_page(tmp_path: Path) -> None:
    series = dict(CASES["LogfanSinkPausedByHand"].series)
    done = promtool(tmp_path, [case(series, quiet("LogfanSinkDown", "10m"))])
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_has_a_level_and_a_runbook_that_there_is() -> None:
    for alert, rule in rules().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), alert
        page, heading = rule["annotations"]["runbook"].split(", ")
        assert re.search(rf"^#+ {heading}$", (ROOT / page).read_text(), re.MULTILINE), alert
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
