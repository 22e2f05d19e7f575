"""The pages of reference in `daemon/docs/`, made from the code by `make docs` below what people
wrote."""

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from prometheus_client import REGISTRY, Metric

from logfan.cli import main
from logfan.cli.sinks import options
from logfan.config.option_docs import meanings_of, schema_of
from logfan.config.settings import Settings, SinkSettings
from logfan.telemetry.metrics import LogfanCollector, Stats
from logfan_sinks.file.sink import FileSink
from logfan_sinks.metrics.sink import MetricsSink
from packages.man_pages import contexts

FOLDER = Path(__file__).parents[2] / "daemon/docs"
_MARK = "<!-- made by `make docs` -->\n"
_COLUMNS = 100


def pages() -> dict[str, str]:
    """Each page as it should be, by its file name."""
    made = {"config.md": _config(), "commands.md": _commands(), "metrics.md": _metrics()}
    return {name: _whole(FOLDER / name, lines) for name, lines in made.items()}


def _whole(page: Path, lines: Iterator[str]) -> str:
    written, mark, _ = page.read_text(encoding="utf-8").partition(_MARK)
    assert mark, f"{page} has no line {_MARK!r}"
    return "\n".join([written + mark, *lines, ""])


def _config() -> Iterator[str]:
    schema, meanings = schema_of(Settings), meanings_of(Settings)
    tables: dict[str, list[str]] = {}
    for option in options(schema, schema):
        tables.setdefault(option[0].partition(".")[0], []).append(_row(*option))
    alone = [rows[0] for rows in tables.values() if len(rows) == 1 and "| table" not in rows[0]]
    yield from ("## At the top", "", *_headed("key | type, default", alone))
    for name, (_, *rows) in tables.items():
        if rows:
            yield from (f"## `[{name}]`", "", meanings[name], "")
            yield from _headed("key | type, default", rows)
    host = schema_of(SinkSettings)
    yield from ("## `[sinks.NAME]`", "", meanings["sinks"], "")
    yield from _headed("key | type, default", [_row(*one) for one in options(host, host)])


def _row(key: str, kind: str, default: str, meaning: str) -> str:
    return f"| `{key}` | {_cell(kind)}, {_cell(default)} | {_cell(meaning)} |"


def _commands() -> Iterator[str]:
    top = click.Context(main, info_name="logfan", **main.context_settings)
    for context in contexts(top):
        context.terminal_width = _COLUMNS
        depth = context.command_path.count(" ")
        yield from (f"{'#' * max(2, depth + 1)} `{context.command_path}`", "", "```text")
        yield from (context.get_help(), "```", "")


def _metrics() -> Iterator[str]:
    rows = [_metric(one) for one in sorted(_families(), key=lambda one: one.name)]
    yield from _headed("metric | type, labels", rows)


def _families() -> list[Metric]:
    """Those of the host, and what sinks expose for themselves."""
    stats = Stats()
    stats.configure(["NAME"])
    counter = {"counters": [{"name": "a", "help": "a"}]}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for cls, keys in ((FileSink, {"path": f"{folder}/a"}), (MetricsSink, counter)):
            sink = cls(cls.Config.model_validate(keys), name="NAME", instance="")
            sink.open()
            stack.callback(sink.close)
        own = [one for one in REGISTRY.collect() if one.name.startswith("logfan_")]
    return [*LogfanCollector(stats, "1").collect(), *own]


def _metric(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    values: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, {})[value] = None
    labels = [_label(*one) for one in values.items() if one[0] != "le"]
    kind = ", ".join([family.type, *labels])
    return f"| `{name}` | {kind} | {_cell(family.documentation)} |"


def _label(name: str, values: Mapping[str, None]) -> str:
    return f"`{name}`: {', '.join(values)}" if len(values) > 1 else f"`{name}`"


def _headed(columns: str, rows: list[str]) -> list[str]:
    return [f"| {columns} | meaning |", f"|{' --- |' * (columns.count('|') + 2)}", *rows, ""]


def _cell(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    if "--json" in sys.argv:
        print(json.dumps(pages()))
    else:
        for name, text in pages().items():
            (FOLDER / name).write_text(text, encoding="utf-8")
