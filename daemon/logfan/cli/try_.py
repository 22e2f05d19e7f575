"""`logfan try`: lines of standard input into the sinks of the config, without a broker."""

import logging
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import (
    Seconds,
    config_option,
    fail,
    instance_option,
    interrupted,
    sound,
    warn,
)
from logfan.cli.messages import (
    LineTooLong,
    batches_of_lines,
    message_options,
    properties_of,
    standard_input,
)
from logfan.telemetry.log_output import one_line

if TYPE_CHECKING:
    from logfan.cli.trial import SinkTrial, Trial
    from logfan.config.loader import Prepared, SinkSpec

_NOT_TAKEN = 1
_MOST_HELD = 1000
_SHOWN_REFUSALS = 10
_LONGEST_SECONDS = 86400.0
_PERSISTENT = 2


@click.command("try")
@config_option
@instance_option
@click.option("--sink", "names", multiple=True, metavar="NAME", help="Only this sink.")
@message_options
@click.option(
    "--timeout", default="10s", show_default=True, metavar="DURATION",
    type=Seconds(min=0, min_open=True, max=_LONGEST_SECONDS),
    help="How long a sink may take without getting on.",
)  # fmt: skip
def try_(
    config: Path | None,
    instance: str | None,
    names: tuple[str, ...],
    routing_key: str,
    headers: dict[str, str],
    content_type: str | None,
    timeout: float,
) -> None:
    """Write each line of standard input to the sinks, without a broker.

    The sinks are those of the config, with all that is done to records before they get them, and
    what they write is real. Shows what each did: written, filtered, refused and why. Exits 1 where
    a sink refused or changed a record, did not open, did not take all, or did not end in time; and
    where a thread of its own ended with an exception.
    """
    from logfan.cli.trial import Trial
    from logfan.config.loader import WITHOUT_BROKER, prepare

    with sound(config):
        prepared = prepare(config, instance=instance, overrides=WITHOUT_BROKER, every_plugin=False)
    specs = _chosen(prepared.sinks, names)
    warn(prepared.warnings)
    _log(prepared)
    with sound(config):
        trial = Trial(specs, prepared.settings.instance, timeout)
    properties = properties_of(headers, content_type)
    ended = True
    with trial:
        try:
            _feed(trial, prepared.settings.exchange.name, routing_key, properties)
        except KeyboardInterrupt:
            ended = False
        except LineTooLong as error:
            fail(str(error), _NOT_TAKEN)
    for one in trial.sinks:
        _show(one, timeout)
    if not ended:
        interrupted()
    raise SystemExit(0 if all(one.is_good for one in trial.sinks) else _NOT_TAKEN)


def _chosen(specs: Sequence["SinkSpec"], names: Sequence[str]) -> Sequence["SinkSpec"]:
    from logfan.faults import did_you_mean

    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            near = did_you_mean(name, known, "sinks")
            raise click.BadParameter(f"the config has no sink {name!r}{near}", param_hint="--sink")
    return [spec for spec in specs if not names or spec.name in names]


def _log(prepared: "Prepared") -> None:
    """What sinks log is shown. What the pipeline does stands in the report."""
    from logfan.telemetry import log_output

    log_output.configure("warning", prepared.settings.log.format)
    logging.getLogger("logfan.pipeline").setLevel(logging.CRITICAL)


def _feed(trial: "Trial", exchange: str, routing_key: str, properties: dict[str, Any]) -> None:
    """Every line, as a message that the broker delivers, until no sink takes any more."""
    from logfan.record import Properties, Record

    fd = standard_input()
    run, number = uuid.uuid4(), 0
    for lines in () if fd is None else batches_of_lines(fd):
        records = []
        for line in lines:
            number += 1
            own = Properties(**properties, message_id=f"{run}-{number}", delivery_mode=_PERSISTENT)
            records.append(Record(line, exchange, routing_key, False, time.time(), own))
        trial.offer(records, _MOST_HELD)
        if trial.is_over:
            return
    trial.finish()


def _show(one: "SinkTrial", timeout: float) -> None:
    stats = one.stats
    counts = {
        "written": stats.written, "filtered": stats.filtered, "refused": len(one.refused),
        "not taken": one.not_taken,
    }  # fmt: skip
    shown = [f"{count:,} {what}" for what, count in counts.items() if count]
    name = click.style(one.spec.name, bold=True)
    mark = click.style("ok", fg="green") if one.is_good else click.style("failed", fg="red")
    text = ", ".join(shown) or "no records"
    click.echo(f"{mark}  sink {name} ({one.spec.kind.kind}): {text}", err=True)
    if stats.undecided:
        click.echo(f"    undecided: {stats.undecided:,}, as {_why_undecided(one)}", err=True)
    for refusal in one.refused[:_SHOWN_REFUSALS]:
        line = (refusal.record.message_id or "").rpartition("-")[2]
        click.echo(f"    line {line}: {one_line(refusal.reason)}", err=True)
    if len(one.refused) > _SHOWN_REFUSALS:
        click.echo(f"    and {len(one.refused) - _SHOWN_REFUSALS:,} more", err=True)
    for wrong in (one.worker.fault, one.change, one.mistake, one.lasting):
        if wrong is not None:
            click.echo(f"    {one_line(wrong)}", err=True)
    if one.gave_up is not None and one.worker.fault is None:
        click.echo(f"    given up after {timeout:g} s: {one_line(one.gave_up)}", err=True)


def _why_undecided(one: "SinkTrial") -> str:
    settings = one.spec.settings
    reasons = ["where needs their bodies, which are no JSON"] if settings.where is not None else []
    if settings.decode or settings.redact is not None:
        reasons.append("they cannot be decoded")
    done = "kept" if settings.on_error == "keep" else "dropped"
    decides = settings.where is not None or settings.redact is not None
    return f"{', or '.join(reasons)}; {done if decides else 'kept'} (on_error)"
