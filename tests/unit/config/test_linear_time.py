"""What meets foreign text takes linear time: the worst that could be thought of, 64 KiB of it,
and a limit that a quadratic step misses by far."""

import logging
import ssl
import time
from collections.abc import Callable

import pytest
from pika import exceptions
from prometheus_client.exposition import choose_encoder

from logfan.amqp.broker_features import broker_version
from logfan.amqp.failures import failure_of
from logfan.amqp.queue_kinds import Difference
from logfan.config import amqp_url, environment, exposed_secrets, units
from logfan.config.amqp_url import address_of
from logfan.config.settings import _toml_hint, parse_listen
from logfan.config.validation_errors import shown
from logfan.faults import Faults, did_you_mean
from logfan.fields import level_of
from logfan.runtime import foreign_text, tls
from logfan.telemetry import log_output
from logfan.telemetry.log_throttle import Throttle
from logfan.testing import record
from logfan_sinks.file.paths import PathTemplate
from logfan_sinks.formats import encode_text

pytestmark = pytest.mark.slow
SIZE = 64 << 10
SECONDS = 1.0
"""Of processor time, on a machine that is slow and busy."""
UNITS = (
    "://", ":/", "/", ":", "@", "a@", "://a:", "://a:b@c ", " ", "\n", "\n ", "a", "1", "1.", "1 ",
    "'", "'a", "' but current is '", "received 'a' ", "inequivalent arg '", "ALERT_", "A_",
    "{", "{a", "\x1b", "\x1b[", "\u202e", "\ud800", "=", "= ", "=True", "a.", "a ", "a:", "[", "]",
    "[:", "%", "%4", "%FF", "\\", '"', "-", "()", "-->", "log4j2", ",", ";", ";q=",
)  # fmt: skip


class Foreign(Exception):
    """An exception of somebody else's."""


def quick(function: Callable[[str], object], text: str) -> None:
    began = time.process_time()
    function(text)
    took = time.process_time() - began
    assert took < SECONDS, f"{took:.1f} s for {text[:20]!r}…"


def fails(function: Callable[[str], object]) -> Callable[[str], object]:
    """The function, whose ValueError is its answer."""

    def called(text: str) -> object:
        try:
            return function(text)
        except (ValueError, Faults) as error:
            return str(error)

    return called


def log_line(form: str) -> Callable[[str], object]:
    def log(text: str) -> object:
        error = Foreign(text)
        error.__cause__ = Foreign(text)
        line = logging.LogRecord(
            "a_plugin", logging.ERROR, "", 0, "%s", (text,), (Foreign, error, None)
        )
        formatter = (
            log_output._JsonFormatter()
            if form == "json"
            else log_output._TextFormatter(journal=True)
        )
        written = formatter.format(line)
        assert len(written) < 500_000
        return written

    return log


def broker_words(text: str) -> object:
    """As a broker's reply, on the ways it takes."""
    closed = exceptions.ConnectionClosedByBroker(403, text)
    return [
        failure_of(error, "h:1", was_open=was_open)
        for error in (closed, Foreign(text), ssl.SSLError(1, text), OSError(5, text))
        for was_open in (True, False)
    ]


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "mask": foreign_text.mask,
    "line_of": foreign_text.line_of,
    "describe": lambda text: foreign_text.describe(Foreign(text)),
    "traceback": lambda text: foreign_text.traceback_of(Foreign(text)),
    "log line": log_line("text"),
    "log line as JSON": log_line("json"),
    "log's throttle": lambda text: Throttle(time.monotonic, 60).admits(
        logging.LogRecord("a_plugin", logging.ERROR, "", 0, text, None, None)
    ),
    "URL": fails(lambda text: amqp_url.parse(f"amqp://{text}")),
    "URL's login": fails(lambda text: amqp_url.parse(f"amqp://{text}@host")),
    "URL's vhost": fails(lambda text: amqp_url.parse(f"amqp://host/{text}")),
    "address": address_of,
    "value that is shown": lambda text: [
        shown(key, value)
        for key in ("queue.name", "rabbitmq.urls.0")
        for value in (text, f"a:{text}", f"amqp://{text}", f"{text}@")
    ],
    "did you mean": lambda text: did_you_mean(text, ["rabbitmq", "queue"]),
    "duration": fails(units.parse_duration),
    "size": fails(units.parse_size),
    "address to listen on": fails(parse_listen),
    "variables": lambda text: environment.environment_table({f"LOGFAN_{text}": text}),
    "passwords of a table": lambda text: [
        *exposed_secrets.secrets_in({"a": {"url": text}, text: text})
    ],
    "alert of TLS": tls.refusal,
    "TLS handshake": lambda text: tls.handshake_problem(ssl.SSLError(1, text)),
    "difference": lambda text: [
        Difference.of(text), Difference.of(f"inequivalent arg 'a' {text}"),
        Difference.of(f"inequivalent arg 'a' received '{text}"),
    ],
    "broker's words": broker_words,
    "broker's version": lambda text: broker_version(Versioned(text)),
    "text line": lambda text: encode_text(record(text.encode("utf-8", "replace"))),
    "level": lambda text: level_of(record(text.encode("utf-8", "replace"))),
    "path": lambda text: PathTemplate("{headers.a}-{routing_key}.log", instance="").of(
        record(b"", headers={"a": text}, routing_key=text)
    ),
}  # fmt: skip


class Versioned:
    """A connection to a broker of this version."""

    def __init__(self, version: str) -> None:
        self.server_properties = {"version": version}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_the_worst_text_takes_moments(what: str) -> None:
    for unit in UNITS:
        text = (unit * (SIZE // len(unit) + 1))[:SIZE]
        quick(FUNCTIONS[what], text)
        quick(FUNCTIONS[what], f"a{text}@")


@pytest.mark.parametrize("unit", ["\n", " \n", "\t\n\n", "a ", "a.", "=", "= ", "a :", "#"])
def test_the_hint_on_a_config_that_is_no_toml(unit: str) -> None:
    for end in ("", "\nnot TOML", ": "):
        quick(lambda text: _toml_hint(text.encode()), (unit * (SIZE // len(unit))) + end)


def test_names_of_files_with_many_places_that_fit() -> None:
    """A path with several fields in one component, and a name that publishers made for it."""
    fields = "-".join(f"{{headers.{name}}}" for name in "abcdef")
    _, (shape,) = PathTemplate(f"logs/{fields}.log", instance="").pattern(0)
    quick(lambda name: [shape.fullmatch(f"{name}.lo") for _ in range(100)], "-" * 250)
    assert shape.fullmatch("a-b-c-d-e-f.log")
    assert shape.fullmatch("-a---b-c-d-e-f-.log.log")
    assert not shape.fullmatch("a-b-c-d-e.log")
    assert not shape.fullmatch("a-b-c-d-e-.log")
    _, (single,) = PathTemplate("logs/{headers.a}{headers.b}.log", instance="").pattern(0)
    assert single.fullmatch("ab.log")
    assert not single.fullmatch("a.log")


def test_what_a_scraper_accepts() -> None:
    for unit in (",", ";", " ", "application/openmetrics-text;", "version=", "q=0.1,"):
        quick(choose_encoder, (unit * (SIZE // len(unit)))[:SIZE])


@pytest.mark.parametrize(
    "text", ["9" * 400 + "GiB", "9" * 4000 + "s", "1" * 39 + "s", "9" * 39 + "w"]
)
def test_a_number_beyond_all_bounds_is_a_fault(text: str) -> None:
    for function in (units.parse_size, units.parse_duration):
        fails(function)(text)
