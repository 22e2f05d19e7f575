"""`logfan dlq`: look at dead letters, send them again to their sink, remove them."""

import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import click

from logfan.cli.common import (
    Command,
    config_option_of_group,
    ends,
    interrupts_to,
    report_blocked,
    takes_settings,
    warn,
)
from logfan.cli.dlq_view import (
    delivery_warning,
    letter_json,
    letter_text,
    letters,
    refused_warning,
    size_of,
    survey_json,
    table,
)
from logfan.cli.groups import Group
from logfan.cli.progress import progress
from logfan.dead_letters.survey import Found, Survey
from logfan.faults import did_you_mean
from logfan.telemetry.log_output import one_line

if TYPE_CHECKING:
    from logfan.amqp.blocking import BlockingConnection
    from logfan.config.settings import Settings
    from logfan.dead_letters.browser import DeadQueue
    from logfan.dead_letters.replay import Replay

_LIMIT = 100_000
_LONG_LETTERS = 500
_SPOOLED_BYTES = 8 << 20
_COPY_BYTES = 64 << 10


@click.group(cls=Group, no_args_is_help=True)
@config_option_of_group
def dlq() -> None:
    """Dead letters: records that a sink refused for good, kept in a queue of their own.

    The queue is dead_letter.queue of the config, or <queue.name>.dead. `list` and `show` take
    nothing: every letter goes back to its place. In a quorum queue that counts looks, letters that
    were looked at before move to the end instead, as fresh copies: the next command with --limit
    begins with others. While a command looks at letters, it holds them, and others see the queue
    without them.
    """


def _limit_option(default: int, meaning: str) -> Callable[[Command], Command]:
    return click.option(
        "--limit", "-n", default=default, show_default=True, metavar="N",
        type=click.IntRange(min=0), help=f"{meaning} 0: no limit.",
    )  # fmt: skip


_sink_option = click.option(
    "--sink", "-s", metavar="NAME", help="Only what this sink refused."
)  # fmt: skip


@dlq.command("list")
@takes_settings
@_limit_option(_LIMIT, "Read this many letters, the oldest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def list_(settings: "Settings", limit: int, as_json: bool) -> None:
    """Count the dead letters by sink and reason, with the oldest and the newest.

    The broker keeps in memory what is looked at, which is why a long queue is not read to its end
    unless you ask for it with --limit 0.
    """
    with _dead_letters(settings) as (dead, _):
        survey = _survey(dead, limit)
        dead.hand_back()
    if as_json:
        click.echo(survey_json(dead.name, dead.count, survey))
    elif survey.count:
        sizes = survey.foreign.size + sum(row.size for row in survey.rows.values())
        click.echo(f"queue {dead.name}: {letters(survey.count)}, {size_of(sizes)}")
        for line in table(survey, columns=_columns(sys.stdout)):
            click.echo(line)
    else:
        click.echo(f"no dead letters: queue {dead.name} is empty")
    _report_rest(survey, dead)
    _report_missed(dead)
    _report_copies(dead)


@dlq.command()
@takes_settings
@_sink_option
@_limit_option(10, "Show this many.")
@click.option("--json", "as_json", is_flag=True, help="An object a line, bodies whole.")
def show(settings: "Settings", sink: str | None, limit: int, as_json: bool) -> None:
    """Show dead letters, the oldest first: why they were refused, where they came from, what they
    hold.

    Control characters are escaped, long bodies cut, and bytes that are no text shown as base64;
    --json has the whole body, as a string or as {"base64": …}.
    """
    # Shown only once the letters are back in the queue: a reader with a pager takes his time.
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES, "w+", encoding="utf-8") as spool:
        shown = 0
        with _dead_letters(settings) as (dead, _):
            for found in _matching(dead, sink, limit or dead.count):
                shown += 1
                lines = [letter_json(found)] if as_json else letter_text(shown, found)
                spool.writelines(f"{line}\n" for line in lines)
            dead.hand_back()
        spool.seek(0)
        while text := spool.read(_COPY_BYTES):
            click.echo(text, nl=False)
    _report_missed(dead)
    _report_copies(dead)
    if not shown:
        of = f" of sink {sink}" if sink else ""
        click.echo(f"no dead letters{of} in queue {dead.name}", err=True)
    elif shown < dead.count and not as_json:
        click.echo(f"{shown:,} of {dead.count:,} shown; --limit 0 shows all", err=True)


@dlq.command()
@takes_settings
@_sink_option
@_limit_option(0, "Replay this many, the oldest first.")
@click.option(
    "--any-queue", is_flag=True,
    help="Also letters of a daemon that consumed another queue than the configured one.",
)  # fmt: skip
def replay(settings: "Settings", sink: str | None, limit: int, any_queue: bool) -> None:
    """Send dead letters again, each to just the sink that refused it.

    They go through the daemon's own queue: no other sink and no other program sees them again. A
    letter is removed here only after the broker has confirmed its copy, so an interrupt at any
    moment loses nothing; at worst some are replayed and still here. What the sink refuses again
    comes back as a new dead letter.
    """
    from logfan.amqp.blocking import BrokerError, Interrupted
    from logfan.dead_letters.replay import Replay

    _check_replay(settings, sink)
    with _dead_letters(settings) as (dead, connection):
        run = Replay(
            connection, dead, queue=settings.queue.name, sinks=settings.sinks, only=sink,
            any_queue=any_queue,
        )  # fmt: skip
        most = limit or dead.count
        try:
            with progress("replaying", dead.count, long=dead.count >= _LONG_LETTERS) as advance:
                run.run(most, lambda: advance(1))
            dead.hand_back()
        except (BrokerError, Interrupted, KeyboardInterrupt) as error:
            if not isinstance(error, KeyboardInterrupt):
                with suppress(BrokerError, Interrupted):
                    dead.hand_back()
            click.echo(_replayed(run), err=True)
            raise
    _report_missed(dead)
    if not dead.count:
        click.echo(f"no dead letters: queue {dead.name} is empty")
        return
    click.echo(_replayed(run))
    _warn_of_uncopied(dead)
    if left := dead.count - run.replayed.total():
        reasons = [f"{count:,} {one_line(why)}" for why, count in run.left.most_common(5)]
        passed_over = f"; passed over: {', '.join(reasons)}" if reasons else ""
        click.echo(f"{left:,} left in queue {dead.name}{passed_over}")
    if run.replayed and not run.consumers:
        warn([f"nothing consumes queue {settings.queue.name} now: they wait there for a daemon"])


@dlq.command()
@takes_settings
@_sink_option
@_limit_option(_LIMIT, "Remove this many at the most, the oldest first.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def purge(settings: "Settings", sink: str | None, limit: int, yes: bool) -> None:
    """Remove dead letters for good, after asking.

    What is removed is what was counted for the question; letters that come meanwhile stay.
    """
    if not yes and not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is no terminal to ask at; --yes removes without asking")
    removed = "nothing was removed"
    with _dead_letters(settings, lambda: f"; {removed}") as (dead, _):
        survey, tags = Survey(), array("Q")
        for found in _read(dead, limit or dead.count):
            if found.is_of(sink):
                survey.add(found)
                tags.append(found.tag)
            else:
                dead.keep(found)
        of = f" of sink {sink}" if sink else ""
        if not tags:
            dead.hand_back()
            _report_missed(dead)
            click.echo(f"no dead letters{of} in queue {dead.name}")
            return
        if not yes and not _sure(survey, dead):
            dead.hand_back()
            if survey.deliveries:  # what was handed back may not survive another look as it is
                _survey(dead, dead.count)
                dead.hand_back()
            click.echo("nothing was removed")
            return
        removed = "some may have been removed"
        dead.remove(tags)
        dead.hand_back()
    _report_missed(dead)
    _warn_of_uncopied(dead)
    left = dead.count - len(tags)
    click.echo(f"{letters(len(tags))}{of} removed; {left:,} left in queue {dead.name}")


def _columns(stream: TextIO) -> int | None:
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _sure(survey: Survey, dead: "DeadQueue") -> bool:
    from logfan.amqp.blocking import BrokerError

    for line in table(survey, columns=_columns(sys.stderr)):
        click.echo(line, err=True)
    _report_rest(survey, dead)
    question = f"remove {letters(survey.count)} of queue {dead.name} for good? type yes: "
    click.echo(question, nl=False, err=True)
    try:
        dead.wait_readable(sys.stdin.fileno())
    except BrokerError:
        click.echo(err=True)  # ends the line of the question
        raise
    return sys.stdin.readline().strip().lower() == "yes"


def _check_replay(settings: "Settings", sink: str | None) -> None:
    if settings.queue.type == "exclusive":
        raise click.UsageError(
            'queue.type = "exclusive": that queue has no lasting name and is gone with its daemon, '
            'so letters cannot be sent to it; use "classic" or "quorum"'
        )
    if sink is not None and sink not in settings.sinks:
        near = did_you_mean(sink, settings.sinks, "sinks")
        raise click.BadParameter(f"no sink {sink!r} in the config{near}", param_hint="--sink")


def _replayed(run: "Replay") -> str:
    total = run.replayed.total()
    sinks = ", ".join(f"{name} {count:,}" for name, count in sorted(run.replayed.items()))
    text = f"{total:,} replayed" + (f": {sinks}" if sinks else "")
    if run.in_doubt:
        text += f"; {run.in_doubt:,} more may have been replayed and are still here"
    return text


def _survey(dead: "DeadQueue", limit: int) -> Survey:
    survey = Survey()
    for found in _read(dead, limit or dead.count):
        survey.add(found)
        dead.keep(found)
    return survey


def _report_missed(dead: "DeadQueue") -> None:
    if dead.missed:
        click.echo(
            f"{letters(dead.missed)} of queue {dead.name} went meanwhile, or another program holds "
            "them",
            err=True,
        )


def _report_copies(dead: "DeadQueue") -> None:
    if dead.refresher.copied:
        click.echo(
            f"{letters(dead.refresher.copied)} got a fresh copy, at the end of the queue now: a "
            "quorum queue counts each look as a failed delivery, and may have a limit",
            err=True,
        )
    _warn_of_uncopied(dead)


def _warn_of_uncopied(dead: "DeadQueue") -> None:
    """Warn of what each look brings nearer to a delivery limit."""
    refresher = dead.refresher
    warn(filter(None, (delivery_warning(refresher.spent), refused_warning(refresher.refused))))


def _report_rest(survey: Survey, dead: "DeadQueue") -> None:
    if survey.count < dead.count:
        click.echo(f"these are {survey.count:,} of {dead.count:,}; --limit 0 reads all", err=True)


def _read(dead: "DeadQueue", most: int) -> Iterator[Found]:
    """What is there, with a bar where it is much."""
    most = min(most, dead.count)
    with progress("reading", most, long=most >= _LONG_LETTERS) as advance:
        for found in dead.take(most):
            advance(1)
            yield found


def _matching(dead: "DeadQueue", sink: str | None, most: int) -> Iterator[Found]:
    """The first letters of the sink, or of any; all that were looked at stay."""
    for found in _read(dead, most if sink is None else dead.count):
        dead.keep(found)
        if found.is_of(sink):
            most -= 1
            yield found
        if most <= 0:
            return


@contextmanager
def _dead_letters(
    settings: "Settings", so_far: Callable[[], str] = lambda: ""
) -> "Iterator[tuple[DeadQueue, BlockingConnection]]":
    """The queue of the config, open; each failure becomes a line, which ends with what was done
    `so_far`, and an exit code."""
    from logfan.amqp.blocking import BlockingConnection, Interrupted
    from logfan.dead_letters.browser import DeadQueue, NoSuchQueue

    try:
        with (
            ends(so_far),
            BlockingConnection(settings, on_blocked=report_blocked) as connection,
            interrupts_to(connection.interrupt),
        ):
            dead = DeadQueue(connection, settings.dead_letter_queue, settings.queue.kind)
            try:
                yield dead, connection
            except (Interrupted, KeyboardInterrupt):
                dead.give_up()
                raise
    except NoSuchQueue as none:
        click.echo(f"no dead letters: queue {none} does not exist yet")
        raise SystemExit(0) from None
