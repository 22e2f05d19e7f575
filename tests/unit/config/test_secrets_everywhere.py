"""No password is ever shown, whatever it is made of, and whatever is wrong.

`LOGFAN_PASSWORDS=1000` tries so many in each place.
"""

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from click.testing import CliRunner

from logfan.amqp.blocking import BlockingConnection, BrokerError
from logfan.amqp.client import parameters
from logfan.amqp.failures import failure_of
from logfan.cli import main
from logfan.config import loader
from logfan.config.amqp_url import address_of
from logfan.config.settings import TlsSettings
from logfan.faults import Faults
from logfan.plugins import discovery
from logfan.runtime import foreign_text
from logfan.telemetry import log_output
from support.drop_ins import add_drop_in
from support.passwords import leaked, passwords

pytestmark = pytest.mark.slow
COUNT = int(os.environ.get("LOGFAN_PASSWORDS", "25"))
USER = "bob"
SINK = '[sinks.raw]\nkind = "file"\npath = "raw.log"\n'
PLUGIN = '''
import logfan
from pydantic import field_validator

class Quoting(logfan.Sink):
    """Quotes what it was given."""

    class Config(logfan.SinkConfig):
        url: str = ""
        password: str = ""

        @field_validator("url", "password")
        @classmethod
        def refuse(cls, value):
            raise ValueError(f"no good: {value!r} ({value})")

    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("quoting", Quoting)
'''


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins are looked for once, as they are the same for all."""
    monkeypatch.setattr(loader, "discover", lru_cache(discovery.discover))
    monkeypatch.setattr(foreign_text, "_secrets", [], raising=False)


def toml(text: str) -> str:
    """As a TOML string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def url(password: str, *, encoded: bool, scheme: str = "amqp", rest: str = "host:5672/v") -> str:
    return f"{scheme}://{USER}:{quote(password, safe='') if encoded else password}@{rest}"


def listed(text: str) -> str:
    """A config whose only URL this is."""
    return f"[rabbitmq]\nurls = [{toml(text)}]"


FAULTS: dict[str, Callable[[str], str]] = {
    "right": lambda p: listed(url(p, encoded=True)),
    "as it is": lambda p: listed(url(p, encoded=False)),
    "wrong scheme": lambda p: listed(url(p, encoded=True, scheme="http")),
    "a typo in the scheme": lambda p: listed(url(p, encoded=False, scheme="ampq")),
    "no scheme": lambda p: listed(f"{USER}:{p}@host"),
    "a slash short": lambda p: listed(f"amqp:/{USER}:{p}@host"),
    "a wild port": lambda p: listed(url(p, encoded=True, rest="host:99999")),
    "a port of letters": lambda p: listed(url(p, encoded=False, rest="host:amqp")),
    "no host": lambda p: listed(url(p, encoded=False, rest="")),
    "neither @ nor host": lambda p: listed(f"amqp://{USER}:x{p}"),
    "the login encoded": lambda p: listed("amqp://" + quote(f"{USER}:{p}@host", safe="")),
    "a query": lambda p: listed(url(p, encoded=True, rest="host/?heartbeat=often")),
    "two vhosts": lambda p: listed(url(p, encoded=True, rest="h/a/b")),
    "no list": lambda p: f"[rabbitmq]\nurls = {toml(url(p, encoded=False))}",
    "no quotes": lambda p: f"[rabbitmq]\nurls = [{url(p, encoded=False)}]",
    "a wrong key": lambda p: f"[rabbitmq]\nurl = {toml(url(p, encoded=False))}",
    "the key itself": lambda p: f"[rabbitmq]\n{toml(url(p, encoded=False))} = true",
    "as a path": lambda p: f"[rabbitmq]\nurl_file = {toml(url(p, encoded=False))}",
    "as a path, without @": lambda p: f"[rabbitmq]\nurl_file = {toml(f'amqp://{USER}:{p}')}",
    "as a CA": lambda p: f"[rabbitmq]\ntls = {{ ca_file = {toml(url(p, encoded=False))} }}",
    "as an address": lambda p: f"[http]\nlisten = {toml(url(p, encoded=False))}",
    "as a choice": lambda p: f"[exchange]\ntype = {toml(url(p, encoded=False))}",
    "as a kind": lambda p: f"[sinks.b]\nkind = {toml(url(p, encoded=False))}",
    "a key named password": lambda p: f"[rabbitmq]\npassword = {toml(p)}",
    "a plugin quotes its URL": lambda p: (
        f'[sinks.b]\nkind = "quoting"\nurl = {toml(url(p, encoded=False))}'
    ),
    "a plugin quotes its password": lambda p: f'[sinks.b]\nkind = "quoting"\npassword = {toml(p)}',
}


def printed(folder: Path, extra: str, environ: dict[str, str]) -> str:
    """All that `check` has to say."""
    config = folder / "config.toml"
    config.write_text(f'[plugins]\ndirectories = ["{folder}/plugins"]\n{SINK}{extra}\n')
    try:
        prepared = loader.prepare(config, environ=environ)
    except Faults as faults:
        return f"{faults}\n{faults!r}"
    return "\n".join([*prepared.warnings, repr(prepared), str(prepared.settings)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_drop_in(tmp_path, "quoting", PLUGIN)
    return tmp_path


@pytest.mark.parametrize("what", FAULTS)
def test_check_shows_no_password(folder: Path, what: str) -> None:
    assert "sinks.b.password" in printed(
        folder, FAULTS["a plugin quotes its password"]("x" * 9), {}
    )
    for password in passwords(COUNT, seed=sum(what.encode())):
        assert leaked(printed(folder, FAULTS[what](password), {}), password, USER) == [], password


ENVIRONMENT: dict[str, Callable[[str], dict[str, str]]] = {
    "no JSON": lambda p: {"LOGFAN_RABBITMQ__URLS": url(p, encoded=False)},
    "a list": lambda p: {"LOGFAN_RABBITMQ__URLS": json.dumps([url(p, encoded=False)])},
    "no list": lambda p: {"LOGFAN_RABBITMQ__URLS": json.dumps(url(p, encoded=False))},
    "a wrong key": lambda p: {"LOGFAN_RABBITMQ__URL": url(p, encoded=False)},
    "a wrong table": lambda p: {"LOGFAN_URL": url(p, encoded=False)},
    "as a path": lambda p: {"LOGFAN_RABBITMQ__URL_FILE": url(p, encoded=False)},
    "as an instance": lambda p: {"LOGFAN_INSTANCE": url(p, encoded=False)},
}


@pytest.mark.parametrize("what", ENVIRONMENT)
def test_the_environments_faults_show_no_password(folder: Path, what: str) -> None:
    for password in passwords(COUNT, seed=7):
        texts = printed(folder, "", ENVIRONMENT[what](password))
        assert leaked(texts, password, USER) == [], password


def test_a_file_of_urls_shows_no_password(folder: Path) -> None:
    file = folder / "url"
    for password in passwords(COUNT, seed=8):
        for line in (url(password, encoded=True), url(password, encoded=False), password):
            file.write_text(f"{line}\n")
            texts = printed(folder, f'[rabbitmq]\nurl_file = "{file}"', {})
            assert leaked(texts, password, USER) == [], password


@pytest.mark.parametrize("encoded", [True, False])
def test_a_connection_that_fails_shows_no_password(folder: Path, encoded: bool) -> None:
    """The troubles' words, `repr` of pika's parameters, and the log with its traceback."""
    for password in passwords(COUNT, seed=9):
        whole = url(password, encoded=encoded, rest="127.0.0.1:1/v")
        texts = [address_of(whole)]
        try:
            wanted = parameters(whole, heartbeat=30, tls=TlsSettings(), instance="")
        except ValueError as error:
            assert not encoded
            texts += [str(error), repr(error)]
        else:
            assert wanted.credentials.password in (password, unquote(password))
            texts += [repr(wanted), failure_of(RuntimeError(whole), "h:1", was_open=False).why]
        assert leaked("\n".join(texts), password, USER) == [], password


def test_a_link_to_nowhere_shows_no_password(folder: Path) -> None:
    for password in passwords(30, seed=10):
        whole = url(password, encoded=True, rest="127.0.0.1:1")
        config = folder / "config.toml"
        config.write_text(f'{SINK}[rabbitmq]\nurls = ["{whole}"]\n')
        with pytest.raises(BrokerError) as failed:
            BlockingConnection(loader.prepare(config, environ={}).settings)
        assert "connection refused" in str(failed.value)
        assert leaked(str(failed.value), password, USER) == []


@contextlib.contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            log_output.configure("debug", form, environ={})
            yield output
    finally:
        root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_shows_no_password(folder: Path, form: str) -> None:
    """A plugin's lines, their arguments where they do not fit, and tracebacks with their causes."""
    plugin = logging.getLogger("a_plugin")
    for password in passwords(COUNT, seed=11):
        whole = url(password, encoded=True)
        printed(folder, listed(whole), {})
        with logged(form) as output:
            plugin.error("cannot log in as %s with %r at %s", USER, password, whole)
            plugin.error("%d", whole)
            error = RuntimeError(whole, password)
            error.__cause__ = OSError(f"login failed: {password}")
            plugin.error("it broke", exc_info=error)
        assert "login failed" in output.getvalue()
        assert leaked(output.getvalue(), password, USER) == [], password


COMMANDS = (("check",), ("run",), ("emit", "x"), ("dlq", "list"), ("demo", "--broker"))


@pytest.mark.parametrize("special", ["\uff03", "\uff3b", "[", "]", "@", "#", "?", "%FF", " ", "/"])
def test_no_command_shows_a_password_that_is_not_encoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, special: str
) -> None:
    monkeypatch.chdir(folder)
    password = f"hunter2{special}K0rbflecht"
    (folder / "config.toml").write_text(
        f'{SINK}[rabbitmq]\nurls = ["amqp://bob:{password}@host"]\n'
    )
    for command in COMMANDS:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 78, (command, done.output)
        assert "rabbitmq.urls.0" in done.output
        assert leaked(done.output, password, USER) == []
