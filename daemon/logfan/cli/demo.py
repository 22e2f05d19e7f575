"""`logfan demo`: the main job at work, on a RabbitMQ of its own where none answers."""

import os
import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from logfan.cli.common import (
    EXIT_CONFIG,
    EXIT_UNAVAILABLE,
    blocked_words,
    config_option,
    fail,
    instance_option,
    refuse,
)
from logfan.faults import Faults

if TYPE_CHECKING:
    from logfan.app import Daemon
    from logfan.config import Settings

_COUNTS_SECONDS = 5.0
_SINKS_WITHOUT_CONFIG = {"screen": {"kind": "stdout"}}


@click.command()
@config_option
@instance_option
@click.option("--rate", default=5.0, show_default=True, help="Sample logs a second.")
def demo(config: Path | None, instance: str | None, rate: float) -> None:
    """Run the daemon and show sample logs flow through it.

    Where no broker answers at the configured address, a private RabbitMQ node is started on
    loopback, and removed at the end. Ctrl-C ends it.
    """
    from logfan import logs
    from logfan.app import Daemon
    from logfan.http import ListenError
    from logfan.setup import find_config, prepare
    from logfan.testing.node import NodeUnavailable

    path = find_config(config, os.environ)
    overrides: dict[str, Any] = {} if path is not None else {"sinks": _SINKS_WITHOUT_CONFIG}
    try:
        settings = prepare(config, instance=instance, overrides=overrides).settings
        with ExitStack() as stack:
            url = stack.enter_context(_broker(settings))
            if url is not None:
                overrides["rabbitmq"] = {"urls": [url], "url_file": None}
            overrides["http"] = {"listen": _free_listen(settings)}
            prepared = prepare(config, instance=instance, overrides=overrides)
            logs.configure(prepared.settings.log.level, prepared.settings.log.format)
            samples = stack.enter_context(_Samples(prepared.settings, rate))
            daemon = Daemon(
                prepared,
                lambda: prepare(config, instance=instance, overrides=overrides),
                on_started=samples.start,
                on_stopping=samples.stop,
            )
            code = daemon.run()
    except Faults as faults:
        refuse(faults, path)
    except NodeUnavailable as error:
        fail(str(error), EXIT_UNAVAILABLE)
    except ListenError as error:
        fail(str(error), EXIT_CONFIG)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    raise SystemExit(code)


def _say(text: str) -> None:
    click.echo(f"{click.style('demo', fg='cyan')}  {text}", err=True)


@contextmanager
def _broker(settings: "Settings") -> Iterator[str | None]:
    """A private node's URL; None where the configured broker answers."""
    from logfan.broker import address_of
    from logfan.testing.node import RabbitNode, answers

    urls = settings.rabbitmq.read_urls()
    for url in urls:
        parts = urlsplit(url)
        default = 5671 if parts.scheme == "amqps" else 5672
        if answers(parts.hostname or "localhost", parts.port or default, 1.0):
            _say(f"using the broker that answers at {address_of(url)}")
            yield None
            return
    _say(f"no broker answers at {address_of(urls[0])}; starting a private RabbitMQ")
    node = RabbitNode()
    try:
        node.start()
        _say(f"RabbitMQ {node.version} is up on 127.0.0.1:{node.port}")
        yield node.url
    finally:
        node.close()
        _say("the private RabbitMQ is removed")


def _free_listen(settings: "Settings") -> str:
    """The configured address, or any free port beside it: a demo need not fail for that."""
    listen = settings.http.listen
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError:
            _say(f"{host}:{listen.port} is in use; taking a free port for the metrics")
            return f"{host}:0"
    return f"{host}:{listen.port}"


class _Samples:
    """Publishes sample logs, and says now and then how many went where."""

    def __init__(self, settings: "Settings", rate: float) -> None:
        self._settings = settings
        self._pause = 1.0 / max(rate, 0.1)
        self._end = threading.Event()
        self._published = 0
        self._daemon: Daemon | None = None
        self._threads = [
            threading.Thread(target=self._publish, name="samples", daemon=True),
            threading.Thread(target=self._count, name="counts", daemon=True),
        ]

    def __enter__(self) -> "_Samples":  # noqa: PYI034 - private, and final in fact
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._say_counts()

    def start(self, daemon: "Daemon") -> None:
        """Begin; the daemon's threads run."""
        self._daemon = daemon
        host = self._settings.http.listen.host
        host = f"[{host}]" if ":" in host else host
        _say(f"metrics and status page: http://{host}:{daemon.metrics_port}/")
        for name, sink in self._settings.sinks.items():
            if isinstance(sink.options.get("path"), str):
                _say(f"sink {name} writes {sink.options['path']}")
        _say("publishing sample logs; Ctrl-C ends it")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish no more: what comes while the daemon stops would wait in the queue, and look
        lost in the last counts."""
        self._end.set()
        if self._daemon is not None:
            for thread in self._threads:
                thread.join(5.0)

    def _publish(self) -> None:
        from logfan.link import LinkError
        from logfan.publish import Publisher

        # Published before there is a queue, a sample would reach nobody.
        while not (self._daemon and self._daemon.numbers.consumer.consuming):
            if self._end.wait(0.05):
                return
        try:
            with Publisher(self._settings, on_blocked=_tell_blocked) as publisher:
                while not self._end.wait(self._pause):
                    body, properties = _sample(random)
                    self._published += publisher.publish(body, properties=properties)
        except LinkError as error:
            if not self._end.is_set():
                _say(f"no more samples: {error}")

    def _count(self) -> None:
        while not self._end.wait(_COUNTS_SECONDS):
            self._say_counts()

    def _say_counts(self) -> None:
        if self._daemon is None:
            return
        numbers = self._daemon.numbers
        sinks = ", ".join(f"{name} {sink.written:,}" for name, sink in numbers.sinks.items())
        _say(
            f"{self._published:,} published, {numbers.consumer.received_messages:,} received, "
            f"{numbers.consumer.acked:,} acknowledged; written: {sinks}{self._file_sizes()}"
        )

    def _file_sizes(self) -> str:
        sizes = []
        for sink in self._settings.sinks.values():
            path = sink.options.get("path")
            if isinstance(path, str):
                file = Path(path)
                if file.is_file():
                    sizes.append(f"{file}: {file.stat().st_size:,} bytes")
        return f" ({', '.join(sizes)})" if sizes else ""


def _tell_blocked(why: str) -> None:
    _say(blocked_words(why) if why else "the broker takes messages again; going on")


_SERVICES = ("checkout", "payments", "search", "mail")
_MESSAGES: tuple[tuple[str, str], ...] = (
    ("info", "order {n} placed"), ("info", "payment {n} settled"), ("info", "index refreshed"),
    ("debug", "cache hit for key {n}"), ("warning", "retrying call {n}"),
    ("error", "card declined for order {n}"),
)  # fmt: skip


def _sample(rng: Any) -> tuple[bytes, Mapping[str, Any]]:
    """One log record as a service would publish it."""
    import orjson

    level, text = rng.choices(_MESSAGES, weights=(6, 5, 2, 4, 2, 1))[0]
    record = {
        "level": level,
        "service": rng.choice(_SERVICES),
        "message": text.format(n=rng.randrange(1000, 10_000)),
        "duration_ms": round(rng.lognormvariate(4, 1), 1),
    }
    return orjson.dumps(record), {"content_type": "application/json", "app_id": record["service"]}
