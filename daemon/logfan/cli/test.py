"""`logfan test`: whether sinks get what cases expect, without a broker and without a sink."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logfan.cli.common import FilePath, config_option, report, sound
from logfan.faults import Fault, Faults
from logfan.telemetry.log_output import one_line

if TYPE_CHECKING:
    from logfan.cli.cases import Case, Expected
    from logfan.config.settings import SinkSettings
    from logfan.record import Record
    from logfan.stage.stage import Stage

_USAGE = 2
_HASH_KEY = b"test"
"""In place of `key_file`: expectations hold hashes, and no secret is needed where they are kept."""
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class _Difference:
    """Where an outcome is another than expected: both, a line each."""

    place: str
    expected: str
    got: str


@click.command()
@config_option
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=FilePath())
def test(config: Path | None, files: tuple[Path, ...]) -> None:
    """Check what each sink gets of records, by the cases in each FILE, offline.

    A case is a record, and for each sink what it gets of it after where, sample, transforms and
    redact. No broker is asked, no sink opened, and plugins are loaded for transforms alone. Exits 1
    where an outcome is another than expected, 2 where a file has a fault.
    """
    from logfan.cli.cases import read_cases
    from logfan.config.loader import read_stages

    with sound(config):
        settings, stages = read_stages(config, key=_HASH_KEY)
    cases: list[Case] = []
    faults_of_files: list[Fault] = []
    for file in files:
        try:
            cases += read_cases(file, settings)
        except Faults as error:
            faults_of_files += error.faults
    if faults_of_files:
        report(faults_of_files, None)
        raise SystemExit(_USAGE)
    failed = sum(not _passes(case, settings.sinks, stages) for case in cases)
    count = f"{len(cases):,} case{'' if len(cases) == 1 else 's'}"
    if failed:
        click.echo(click.style(f"{failed:,} of {count} failed (- expected, + got)", fg="red"))
        raise SystemExit(1)
    click.echo(click.style(f"{count} passed", fg="green"))


def _passes(
    case: "Case", sinks: Mapping[str, "SinkSettings"], stages: Mapping[str, "Stage | None"]
) -> bool:
    """Whether all its sinks get what they should; shows where they do not."""
    passes = True
    for name, expected in case.expected.items():
        differences = [*_differences(case.record, expected, sinks[name], stages[name])]
        if differences and passes:
            title = one_line(f"{case.file}: {case.name}")
            click.echo(f"{click.style('failed', fg='red', bold=True)}  {title}")
            passes = False
        for one in differences:
            click.echo(f"  sink {name}{one.place}")
            _show(one)
    return passes


def _show(one: _Difference) -> None:
    """Line by line, as texts of several lines differ in few of them as a rule."""
    for line in ndiff(one.expected.split("\n"), one.got.split("\n")):
        if line[0] == "?":
            continue
        text = one_line(line)
        text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
        color = {"-": "red", "+": "green"}.get(line[0])
        click.echo(f"    {click.style(text.rstrip(), fg=color)}")


def _differences(
    record: "Record", expected: "Expected", settings: "SinkSettings", stage: "Stage | None"
) -> Iterator[_Difference]:
    from logfan.cli.cases import FILTERED

    wanted = "filtered" if expected is FILTERED else "the sink gets it"
    got: Record | None = record
    if stage is not None:
        staged = stage.apply((record,))
        for why in (*staged.refused.values(), *(one.why for one in staged.failed.values())):
            yield _Difference("", wanted, f"it does not get it: {why}")
            return
        got = staged.records[0] if staged.records else None
    if got is None and expected is not FILTERED:
        yield _Difference("", wanted, f"filtered, by {_filtered_by(record, settings)}")
    elif got is not None and expected is FILTERED:
        yield _Difference("", wanted, f"the sink gets it: {got.text}")
    elif got is not None:
        yield from _differences_of(got, expected)


def _filtered_by(record: "Record", settings: "SinkSettings") -> str:
    decision = True if settings.where is None else settings.where.decide(record)
    if decision is None and settings.on_error == "drop":
        return 'on_error = "drop": where needs its body, which is no JSON'
    if decision is False:
        return "where"
    before = settings.model_copy(update={"redact": None}).stage()
    if before is not None and not before.apply((record,)).records:
        return f"sample = {settings.sample:g}"
    return "a transform" if settings.transforms else 'on_error = "drop": redact cannot read it'


def _differences_of(got: "Record", expected: "Expected") -> Iterator[_Difference]:
    """Between a record that the sink gets and what it is expected to be."""
    named = expected.model_fields_set
    if expected.text is not None and expected.text != got.text:
        yield _Difference(", text", expected.text, got.text)
    if expected.raw is not None and expected.raw != got.body:
        yield _Difference(", base64", _base64(expected.raw), _base64(got.body))
    if "tree" in named:
        try:
            tree = got.json()
        except ValueError:
            yield _Difference(", json", _shown(expected.tree), f"no JSON: {got.text}")
        else:
            yield from _between(", json", expected.tree, tree)
    yield from _between(", headers", expected.headers, got.headers)


_MISSING = object()


def _between(place: str, expected: Any, got: Any) -> Iterator[_Difference]:
    """What of `expected` is not so. Of a table the keys that it names count, of a list all."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key, value in expected.items():
            yield from _between(f"{place}.{key}", value, got.get(key, _MISSING))
    elif _is_list(expected) and _is_list(got) and len(expected) == len(got):
        for number, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from _between(f"{place}.{number}", one, other)
    elif isinstance(expected, bool) is not isinstance(got, bool) or expected != got:
        yield _Difference(place, _shown(expected), _shown(got))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(value: Any) -> str:
    from logfan.json_format import dumps

    return "nothing" if value is _MISSING else dumps(value).decode()


def _base64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode()
