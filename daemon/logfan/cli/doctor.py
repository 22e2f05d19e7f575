"""`logfan doctor`: asks the broker and this machine what would go wrong, and explains it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logfan.cli.common import (
    config_option,
    duration,
    instance_option,
    interrupted,
    interrupts_to,
    sound,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logfan.doctor.examination import Check, Examination


@click.command()
@config_option
@instance_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects, for machines.")
@click.option(
    "--sample", default="0s", metavar="DURATION", callback=duration,
    help="Also look at what is published for so long, such as 3s.",
)  # fmt: skip
def doctor(config: Path | None, instance: str | None, as_json: bool, sample: float) -> None:
    """Find what would make `run` fail or lose messages, and the way out of each.

    Asks the broker, the sinks' other sides and this machine. Changes nothing: no message is taken,
    nothing that is declared stays. Exits 0 where all is fine or there is only advice or a warning,
    1 on a danger, 69 where no broker can be reached, 78 on a fault of the config.
    """
    from logfan.config.loader import prepare
    from logfan.doctor.checks import CHECKS
    from logfan.doctor.examination import Examination

    with sound(config):
        prepared = prepare(config, instance=instance, every_plugin=False)
        exam = Examination(prepared, sample_seconds=sample)
    with exam:
        examine(exam, CHECKS, as_json=as_json)


def examine(exam: "Examination", checks: "Sequence[Check]", *, as_json: bool) -> None:
    """Run the checks, print what they find, and exit where that is no success."""
    from logfan.amqp.blocking import Interrupted
    from logfan.cli.doctor_view import as_text, json_list
    from logfan.doctor.findings import Severity

    try:
        with interrupts_to(exam.interrupt):
            findings = list(exam.run(checks))
    except Interrupted as signalled:
        interrupted(number=signalled.number)
    click.echo(json_list(findings) if as_json else as_text(findings))
    if exam.is_unavailable:
        raise SystemExit(os.EX_UNAVAILABLE)
    if any(one.severity is Severity.DANGER for one in findings):
        raise SystemExit(1)
