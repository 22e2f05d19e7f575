"""What a start must not do again: work that nobody asked for, counted and not timed."""

import os
import ssl
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from logfan.config.loader import prepare

HELP = "import logfan.cli"
SINKS = ("file", "metrics", "stdout")
RUN = f"""
import logfan.cli.run, logfan.telemetry.log_output, logfan.daemon
import logfan.telemetry.http_server
from logfan.config.loader import prepare
sinks = {{kind: {{"kind": kind}} for kind in {SINKS}}}
sinks["file"]["path"] = "a.log"
sinks["metrics"]["counters"] = [{{"name": "seen"}}]
prepare(None, environ={{}}, overrides={{"plugins": {{"directories": []}}, "sinks": sinks}})
"""
OTHER_SINKS = {
    point.module
    for point in distribution("logfan").entry_points
    if point.group == "logfan" and point.name not in SINKS
}
NEEDLESS = {
    # `--help` shows what stands in the code.
    HELP: {"email", "importlib.metadata", "logging", "orjson", "pika", "pydantic"},
    # For people at a terminal, for tests, for more ways to write an environment than ours, for
    # patterns of a stage, and for sinks that the config does not name.
    RUN: {
        "dotenv",
        "logfan.config.option_docs",
        "logfan.doctor",
        "logfan.testing",
        "pydantic_settings",
        "pytest",
        "re2",
        "rich",
        "sqlite3",
        *OTHER_SINKS,
    },
}


def printed_by(code: str, expression: str) -> set[str]:
    """What a process prints that runs this code alone, line by line."""
    # Under `make coverage` a process loads what measures it, too.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport linecache, sys\nprint(*{expression}, sep='\\n')"],
        env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize("code", NEEDLESS, ids=["help", "run"])
def test_it_loads_no_module_that_it_has_no_use_for(code: str) -> None:
    modules = printed_by(code, "sys.modules")
    assert "logfan.cli" in modules
    assert not modules & NEEDLESS[code]


def test_it_reads_no_source_for_docstrings_that_only_people_ask_for() -> None:
    # What `inspect` has read is kept there.
    assert not {line for line in printed_by(RUN, "linecache.cache") if "logfan" in line}


def test_the_certificates_of_the_system_are_not_read_where_nothing_speaks_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("reads all certificates of the system, which takes 30 ms")

    monkeypatch.setattr(ssl, "create_default_context", read)
    config = tmp_path / "config.toml"
    config.write_text('[plugins]\ndirectories = []\n[sinks.a]\nkind = "stdout"\n')
    assert prepare(config, environ={}).settings.rabbitmq.tls.verify
