"""Text beyond ASCII, where the locale or a stream has no bytes for it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main

NO_PLUGINS = "[plugins]\ndirectories = []\n"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def python(
    folder: Path, *args: str, code: int = 0, environ: Mapping[str, str] = ASCII
) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGFAN_")}
    done = subprocess.run(
        [sys.executable, *args], cwd=folder, env={**clean, **environ}, check=False,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_a_path_that_the_locale_cannot_write_is_a_fault_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[rabbitmq]\nurl_file = "ü"\ntls = { ca_file = "ü" }\n[http]\ntls = { cert_file = "ü" }\n'
        '[plugins]\ndirectories = ["ü"]\n[sinks.a]\nkind = "file"\npath = "ü/{date}.log"\n',
        encoding="utf-8",
    )
    checked = python(tmp_path, "-m", "logfan", "check", code=78).stderr.decode()
    keys = ["rabbitmq.url_file", "rabbitmq.tls.ca_file", "http.tls.cert_file",
            "plugins.directories.0"]  # fmt: skip
    for line in (*(f'{key} = "ü": ' for key in keys), 'sinks.a.path = "ü/{date}.log": '):
        assert f"{line}holds characters that file names cannot hold in this locale" in checked
    assert checked.count("set LC_ALL=C.UTF-8 or PYTHONUTF8=1") == len(keys) + 1
    assert python(tmp_path, "-m", "logfan", "run", code=78).stderr.decode() == checked


@pytest.mark.slow
def test_a_variable_is_read_as_utf8_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'{NO_PLUGINS}[sinks.a]\nkind = "stdout"\n')
    variables = {"LOGFAN_EXCHANGE__NAME": "lögs", "LOGFAN_RABBITMQ__URLS": '["amqp://ü:ü@h"]'}
    done = python(tmp_path, "-m", "logfan", "check", environ={**variables, **ASCII})
    assert "exchange lögs" in done.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_printing_never_fails_for_a_character(tmp_path: Path, encoding: str) -> None:
    config = f'{NO_PLUGINS}[exchange]\nname = "☃"\n[sinks.a]\nkind = "stdout"\n'
    (tmp_path / "config.toml").write_text(config)
    environ = {"PYTHONIOENCODING": encoding}
    checked = python(tmp_path, "-m", "logfan", "check", environ=environ).stdout
    assert b"prefetch 1000" in checked
    described = python(tmp_path, "-m", "logfan", "sinks", "file", environ=environ)
    assert b"max_open_files" in described.stdout


def test_a_message_cannot_name_a_file_that_the_locale_cannot_write(tmp_path: Path) -> None:
    code = (
        "import os; from logfan_sinks.file.paths import safe_name\n"
        "print(ascii([safe_name(text) for text in ('gr\\xfcn', 'a?b', '\\u2603' * 200)]))\n"
        "os.fsencode(safe_name('\\u2603'))"
    )
    names = python(tmp_path, "-c", code).stdout.decode()
    assert names.startswith("['gr_n', 'a_b', '____")


@pytest.mark.slow
def test_the_log_as_json_is_utf8_in_any_locale(tmp_path: Path) -> None:
    code = (
        "import logging; from logfan.telemetry import log_output\n"
        "log_output.configure('info', 'json'); logging.error('gr\\xfcn \\u2603')"
    )
    for environ in (ASCII, {"PYTHONIOENCODING": "latin-1"}):
        line = python(tmp_path, "-c", code, environ=environ).stderr
        assert json.loads(line)["message"] == "grün ☃"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-k", "k" * 256), "has 256 bytes"),
        (("-k", "\udcff"), "UTF-8"),
        (("--content-type", "\udcff"), "UTF-8"),
        (("-H", f"{'é' * 128}=1"), "has 256 bytes"),
        (("-H", "a=\udcff"), "UTF-8"),
        (("-H", f"a={'v' * 70_000}", "-H", f"b={'v' * 70_000}"), "one AMQP frame"),
        (("-H", "nothing"), "NAME=VALUE"),
    ],
)
def test_what_amqp_cannot_carry_is_a_fault_of_usage(options: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(main, ["emit", *options, "text"])
    assert done.exit_code == 2, done.output
    assert options[0] in done.output
    assert words in done.output


def test_arguments_are_read_as_utf8_in_any_locale(tmp_path: Path) -> None:
    code = (
        "import os, sys; from logfan.cli.emit import emit\n"
        "context = emit.make_context('emit', sys.argv[1:])\n"
        "print(ascii([context.params[name] for name in ('routing_key', 'headers')]))"
    )
    done = python(tmp_path, "-c", code, "-k", "grün", "-H", "ä=ö")
    assert done.stdout.decode().strip() == r"['gr\xfcn', {'\xe4': '\xf6'}]"
