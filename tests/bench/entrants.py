"""Who takes part: how each is started, and which files must hold every message afterwards."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.stage import QUEUE, TESTS, Stage
from logfan.testing.node import free_port

ROOT = TESTS.parent
CLIENTS = ROOT / ".venv-bench/bin/python"
"""The other clients live in an environment of their own; `make bench` makes it."""
LOGFAN = Path(sys.executable).with_name("logfan")
_CONTESTANTS = Path(__file__).parent / "contestants"

LIMIT, CUMULATIVE, EACH = "limit", "pika-cumulative", "pika-each"
AIO_PIKA, KOMBU, FASTSTREAM, TUTORIAL = "aio-pika", "kombu", "faststream", "tutorial"
ONE, THREE, SLOW_PATH = "logfan-1", "logfan-3", "logfan-slow-path"
WHERE = "logfan-3-where"
_OF_THREE = (THREE, WHERE)

TITLES = {
    LIMIT: "C, cumulative acks (the limit)",
    CUMULATIVE: "pika, cumulative acks",
    EACH: "pika, ack each",
    AIO_PIKA: "aio-pika",
    KOMBU: "kombu",
    FASTSTREAM: "FastStream",
    TUTORIAL: "the tutorial's consumer",
    ONE: "logfan, one raw file",
    THREE: "logfan, three sinks",
    WHERE: "logfan, three sinks, each with where",
    SLOW_PATH: "logfan, one raw file, fast path off",
}


def title_of(name: str) -> str:
    """For people."""
    if name in TITLES:
        return TITLES[name]
    return f"logfan, {files_of(name)} raw files"


def with_files(number: int) -> str:
    """logfan with so many raw file sinks."""
    return ONE if number == 1 else f"logfan-files-{number}"


def files_of(name: str) -> int:
    """How many raw file sinks it has; 0 for who is not measured by that."""
    if name in (ONE, SLOW_PATH):
        return 1
    head, _, number = name.rpartition("-")
    return int(number) if head == "logfan-files" else 0


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a process, and what to look at when it is done."""

    command: list[str]
    environ: Mapping[str, str]
    files: list[Path]
    port: int = 0
    """Of its `/metrics`, where its metrics sink counts messages."""


def is_logfan(name: str) -> bool:
    return name.startswith("logfan")


def why_absent(name: str, stage: Stage) -> str:
    """Why it cannot take part here; empty where it can."""
    if name == LIMIT:
        return "" if stage.programs.limit else stage.programs.why_none
    if name == SLOW_PATH:
        return _why_no_slow_path(stage.folder)
    if not is_logfan(name) and not CLIENTS.exists():
        return f"{CLIENTS.parent.parent.name} is not there; make bench makes it"
    return ""


def start_of(name: str, stage: Stage, folder: Path, prefetch: int, count: int) -> Start:
    """`count` messages wait in the queue. Only clients that acknowledge in groups get `count`."""
    if is_logfan(name):
        return logfan(name, stage.node.url, folder, prefetch)
    if name == LIMIT:
        program = str(stage.programs.limit)
        words = [program, str(stage.node.port), QUEUE, str(prefetch), str(count)]
    elif name == TUTORIAL:
        words = _client("tutorial", stage)
    elif name in (CUMULATIVE, EACH):
        words = [*_client("pika_acks", stage), str(prefetch), str(count), name.partition("-")[2]]
    else:
        words = [*_client(f"{name.replace('-', '_')}_each", stage), str(prefetch)]
    return Start(words, os.environ, [])


def _client(script: str, stage: Stage) -> list[str]:
    return [str(CLIENTS), str(_CONTESTANTS / f"{script}.py"), stage.node.url, QUEUE]


def logfan(name: str, url: str, folder: Path, prefetch: int) -> Start:
    """A real `logfan run`; all its files are in `folder`."""
    port = free_port()
    config = folder / "config.toml"
    config.write_text(config_of(name, url, folder, prefetch))
    environ = {**os.environ, "LOGFAN_HTTP__LISTEN": f"127.0.0.1:{port}"}
    command = [str(LOGFAN), "run", "--config", str(config)]
    return Start(command, environ, written(name, folder), port if name in _OF_THREE else 0)


def written(name: str, folder: Path, mark: str = "") -> list[Path]:
    """The files of its sinks. `mark` tells those of several instances apart."""
    raw = [folder / f"{number}{mark}.log" for number in range(_raw_files(name))]
    return [*raw, folder / f"out{mark}.jsonl"] if name in _OF_THREE else raw


def _raw_files(name: str) -> int:
    return 1 if name in _OF_THREE else files_of(name)


def config_of(name: str, url: str, folder: Path, prefetch: int, mark: str = "") -> str:
    """The config file. What it does not say is logfan's default."""
    text = (
        f'[rabbitmq]\nurls = ["{url}"]\nprefetch = {prefetch}\n'
        + ("fast_path = false\n" if name == SLOW_PATH else "")
        + f'[exchange]\nname = "{QUEUE}-logs"\n[queue]\nname = "{QUEUE}"\n'
        f'[plugins]\ndirectories = ["{folder}/plugins"]\n'
    )
    raw = _raw_files(name)
    where = _WHERE if name == WHERE else ""
    for number, path in enumerate(written(name, folder, mark)):
        text += _file(f"file{number}", path, "raw" if number < raw else "json")
        text += where
    return text + (_NUMBERS.replace(_KIND, _KIND + where) if name in _OF_THREE else "")


def _file(name: str, path: Path, form: str) -> str:
    return f'[sinks.{name}]\nkind = "file"\npath = "{path}"\nformat = "{form}"\nfsync = "batch"\n'


# It holds for each message, so that each file can be held to have them all.
_WHERE = (
    'where = { level = ["debug", "info", "warning", "error"], service = { not = ["health"] }, '
    "ms = { below = 1000 } }\n"
)
COUNTED = "bench_lines_total"
_KIND = 'kind = "metrics"\n'
_NUMBERS = f"""
[sinks.numbers]
{_KIND}[[sinks.numbers.counters]]
name = "{COUNTED}"
labels = {{ level = "level", service = "service" }}
[[sinks.numbers.counters]]
name = "bench_by_host_total"
labels = {{ host = "host", status = "status" }}
[[sinks.numbers.histograms]]
name = "bench_ms"
value = "ms"
buckets = [5, 10, 25, 50, 75, 100]
"""


def _why_no_slow_path(folder: Path) -> str:
    config = folder / "slow-path.toml"
    config.write_text(config_of(SLOW_PATH, "amqp://localhost", folder, 100))
    command = [str(LOGFAN), "check", "--config", str(config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        return "this logfan has no rabbitmq.fast_path"
    return ""
