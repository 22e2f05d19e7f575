"""The Grafana dashboard, built with Grafana's own library. `make docs` writes it anew."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

ROOT = Path(__file__).parents[2]
FILE = ROOT / "daemon/logfan/cli/generate/files/dashboard.json"
_OF = '{instance=~"$instance"}'
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


class Graph(NamedTuple):
    """One panel: what it is called, its unit, and each line as expression and legend."""

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]
    meaning: str = ""


def _rate(name: str, by: str = "instance") -> str:
    return f"sum by ({by}) (rate({name}{_OF}[$__rate_interval]))"


def _share(name: str, share: float, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', by=f'{by}, le')})"


ROWS: dict[str, Sequence[Graph]] = {
    "What flows": (
        Graph("Messages a second", "short", (
            (_rate("logfan_received_messages_total"), "received {{instance}}"),
            (_rate("logfan_acked_messages_total"), "acknowledged {{instance}}"),
        )),
        Graph("Waiting in the queue", "short", (
            (f"logfan_queue_ready_messages{_OF}", "{{instance}}"),
        )),
        Graph("Time to drain", "s", (
            ((f"clamp_min(logfan_queue_ready_messages{_OF}, 1) "
             f"/ clamp_min(-deriv(logfan_queue_ready_messages{_OF}[5m]), 0.001)"), "{{instance}}"),
        ), "At the pace of the last five minutes; very large where the queue does not shrink."),
        Graph("In flight", "short", ((f"logfan_in_flight_messages{_OF}", "{{instance}}"),)),
        Graph("From receipt to acknowledgement", "s", (
            (_share("logfan_delivery_seconds", 0.5, "instance"), "half {{instance}}"),
            (_share("logfan_delivery_seconds", 0.99, "instance"), "99 of 100 {{instance}}"),
        )),
        Graph("Oldest unacknowledged message", "s", (
            (f"logfan_oldest_unacknowledged_seconds{_OF}", "{{instance}}"),
        )),
    ),
    "Sinks": (
        Graph("Down since", "s", (
            (f"logfan_sink_down_seconds{_OF}", "{{sink}} {{instance}}"),
        ), "0 while it is up."),
        Graph("Records a second", "short", (
            (_rate("logfan_sink_records_total", by="sink, outcome"), "{{sink}} {{outcome}}"),
        )),
        Graph("A batch takes (99 of 100)", "s", (
            (_share("logfan_sink_write_seconds", 0.99, "sink"), "{{sink}}"),
        )),
        Graph("Retries", "short", (
            (_rate("logfan_sink_retries_total", by="sink"), "{{sink}}"),
        )),
        Graph("Dead letters waiting", "short", (
            (f"logfan_dead_letters_waiting{_OF}", "{{instance}}"),
        )),
        Graph("Dead letters a second", "short", (
            (_rate("logfan_dead_lettered_records_total", by="sink"), "{{sink}}"),
        )),
    ),
    "The broker and the process": (
        Graph("Subscribed", "bool", ((f"logfan_consuming{_OF}", "{{instance}}"),)),
        Graph("Connections", "short", (
            (f"sum by (outcome) (increase(logfan_connections_total{_OF}[1h]))", "{{outcome}}"),
        ), "Within an hour."),
        Graph("Delivered again, handed back, abandoned", "short", (
            (_rate("logfan_redelivered_messages_total"), "redelivered {{instance}}"),
            (_rate("logfan_requeued_messages_total"), "handed back {{instance}}"),
            (_rate("logfan_abandoned_messages_total"), "abandoned {{instance}}"),
        )),
        Graph("Bindings made again", "short", (
            (f"increase(logfan_rebound_total{_OF}[1h])", "{{instance}}"),
        ), "Within an hour; messages may have been lost each time."),
        Graph("Memory", "bytes", (
            (f"process_resident_memory_bytes{_OF} and on (instance) logfan_build_info",
             "{{instance}}"),
        )),
        Graph("Processor", "percentunit", (
            ((f"rate(process_cpu_seconds_total{_OF}[$__rate_interval]) "
             "and on (instance) logfan_build_info"), "{{instance}}"),
        )),
    ),
}  # fmt: skip


def built() -> str:
    """The dashboard as JSON."""
    dashboard = (
        Dashboard("logfan")
        .uid("logfan")
        .tags(["logfan", "rabbitmq"])
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
        .with_variable(
            QueryVariable("instance")
            .label("Instance")
            .query("label_values(logfan_build_info, instance)")
            .datasource(_SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for title, graphs in ROWS.items():
        dashboard = dashboard.with_row(Row(title))
        for graph in graphs:
            panel = Panel().title(graph.title).unit(graph.unit).span(8).height(7).min(0)
            panel = panel.datasource(_SOURCE).description(graph.meaning)
            for expression, legend in graph.lines:
                panel = panel.with_target(Dataquery().expr(expression).legend_format(legend))
            dashboard = dashboard.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(built(), encoding="utf-8")
    sys.exit(0)
