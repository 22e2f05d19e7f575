"""`logfan demo`: the main job at work, on a RabbitMQ of its own, or under names of its own."""

import os
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import (
    command_line,
    config_option,
    fail,
    instance_option,
    interrupted,
    refuse,
)
from logfan.cli.demo_broker import private_broker, say, visited_broker
from logfan.cli.demo_samples import Samples
from logfan.cli.reader import reader_gone
from logfan.faults import Faults

if TYPE_CHECKING:
    from logfan.config.loader import Prepared
    from logfan.config.settings import Settings

_SINKS_WITHOUT_CONFIG = {"screen": {"kind": "stdout"}}
_FOLDER = "logfan-demo"


@click.command()
@config_option
@instance_option
@click.option("--rate", default=5.0, show_default=True, help="Sample logs a second.")
@click.option(
    "--broker", is_flag=True,
    help="Use the broker of the config, under names of the demo's own, removed at the end.",
)  # fmt: skip
def demo(config: Path | None, instance: str | None, rate: float, broker: bool) -> None:
    """Run the daemon and show sample logs flow through it.

    A private RabbitMQ node is started for it on loopback, in a temporary folder, and removed at
    the end: no other broker is touched. Its URL is printed, for a second terminal. Files that exist
    are left alone. Ctrl-C ends it, and so does the end of the program that reads its output.
    """
    from logfan.amqp.blocking import BrokerError
    from logfan.amqp.failures import Cause
    from logfan.config.loader import laid_over, prepare
    from logfan.daemon import Daemon
    from logfan.telemetry import log_output
    from logfan.telemetry.http_server import ListenError
    from logfan.testing.node import NodeUnavailable

    running: list[Daemon] = []

    def end() -> None:
        for daemon in running:
            daemon.stop()
        if not running:
            os.kill(os.getpid(), signal.SIGINT)

    def start(daemon: Daemon) -> None:
        running.append(daemon)
        if gone.is_set():
            daemon.stop()
        samples.start(daemon)

    gone = reader_gone(end)
    read = partial(prepare, config, instance=instance, every_plugin=False)
    try:
        overrides = _overrides(config, broker=broker)
        prepared = read(overrides=overrides)
        overrides = laid_over(overrides, _files_apart(prepared))
        overrides["http"] |= {"listen": _free_listen(prepared.settings)}
        with ExitStack() as stack:
            place = visited_broker if broker else private_broker
            own = stack.enter_context(place(prepared.settings, config))
            overrides = laid_over(overrides, own)
            prepared = read(overrides=overrides)
            log_output.configure(prepared.settings.log.level, prepared.settings.log.format)
            samples = stack.enter_context(Samples(prepared.settings, rate))
            code = Daemon(
                prepared, partial(read, overrides=overrides),
                on_started=start, on_stopping=samples.stop,
            ).run()  # fmt: skip
    except Faults as faults:
        refuse(faults, config)
    except NodeUnavailable as error:
        fail(str(error), os.EX_UNAVAILABLE)
    except BrokerError as error:
        why = f"{error}; without --broker the demo starts a RabbitMQ of its own"
        fail(why, os.EX_NOPERM if error.failure.cause is Cause.REFUSED else os.EX_UNAVAILABLE)
    except ListenError as error:
        fail(str(error), os.EX_CONFIG)
    except KeyboardInterrupt:
        if gone.is_set():
            raise SystemExit(0) from None
        interrupted()
    say(f"to go on, call {command_line()}: `{command_line()} --help` lists what it does")
    raise SystemExit(code)


def _overrides(path: Path | None, *, broker: bool) -> dict[str, Any]:
    """What is laid over the config from the beginning."""
    from logfan.config.loader import WITHOUT_BROKER

    overrides: dict[str, Any] = {} if path is not None else {"sinks": _SINKS_WITHOUT_CONFIG}
    if not broker:
        overrides["rabbitmq"] = WITHOUT_BROKER["rabbitmq"]
    # Served on loopback alone, so without TLS.
    overrides["http"] = {**WITHOUT_BROKER["http"]}
    return overrides


def _files_apart(prepared: "Prepared") -> Mapping[str, Any]:
    """Sinks whose files may be in use get paths in a folder of the demo's."""
    moved = {}
    for spec in prepared.sinks:
        path = spec.settings.options.get("path")
        if spec.kind.kind == "file" and isinstance(path, str) and _may_be_in_use(path):
            parts = [part for part in Path(path).parts if part not in ("/", "..")]
            moved[spec.name] = {"path": str(Path(_FOLDER, *parts))}
            say(f"sink {spec.name}: what {path} names is left alone, as it may be in use")
    return {"sinks": moved} if moved else {}


def _may_be_in_use(path: str) -> bool:
    """Whether the files may be there already, or be those of a daemon that runs here."""
    named = Path(path)
    if named.is_absolute() or ".." in named.parts:
        return True
    fixed, brace, _ = path.partition("{")
    try:
        if brace:
            folder = Path(fixed) if fixed.endswith("/") else Path(fixed).parent
            return folder != Path() and folder.is_dir() and any(folder.iterdir())
        return named.is_symlink() or (named.exists() and named.stat().st_size > 0)
    except OSError:
        return True


def _free_listen(settings: "Settings") -> str:
    """The configured port on loopback, or any free one: a demo need not fail for that."""
    port = settings.http.listen.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            say(f"port {port} of 127.0.0.1: {error.strerror}; taking a free one for the metrics")
            return "127.0.0.1:0"
    return f"127.0.0.1:{port}"
