"""The man pages, one a command, made from click's own objects: what `--help` shows, for man."""

import time
from collections.abc import Iterator
from inspect import cleandoc

import click

from logfan.cli import main

_UNWRAPPED = "\b\n"
"""With this a paragraph begins whose lines click leaves as they are."""


def man_pages(version: str, epoch: int) -> dict[str, str]:
    """Each page's text by its file name, such as `logfan-dlq-list.1`."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    pages = {}
    for context in contexts(_context(main, "logfan")):
        name = _name(context)
        title = f'.TH "{name.upper()}" "1" "{date}" "logfan {version}" "logfan\\(aqs manual"'
        pages[f"{name}.1"] = "\n".join([title, ".nh", ".ad l", *_page(context), ""])
    return pages


def contexts(context: click.Context) -> Iterator[click.Context]:
    """This command's and, below it, those of each command."""
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            _, command, _ = group.resolve_command(context, [name])
            if command is not None and not command.hidden:
                yield from contexts(_context(command, name, context))


def _context(
    command: click.Command, name: str, above: click.Context | None = None
) -> click.Context:
    return click.Context(command, info_name=name, parent=above, **command.context_settings)


def _page(context: click.Context) -> Iterator[str]:
    command = context.command
    name = _name(context)
    # The first line of the help alone: a short help is shorter than what `man -k` has room for.
    summary = cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ").rstrip(".:")
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(summary)}", ".SH SYNOPSIS")
    usage = _escaped(" ".join(command.collect_usage_pieces(context)))
    yield from (f"\\fB{_escaped(context.command_path)}\\fR {usage}", ".SH DESCRIPTION")
    yield from _paragraphs(cleandoc(command.help or ""))
    yield ".SH OPTIONS"
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if isinstance(option, click.Option) and record is not None:
            yield from _item(*record)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for below in contexts(context):
            if below.parent is context:
                yield from _item(str(below.info_name), below.command.get_short_help_str(limit=200))
    related = [one for one in _relatives(context) if one != name]
    yield from (".SH SEE ALSO", ", ".join(f"\\fB{_escaped(one)}\\fR(1)" for one in related))


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _relatives(context: click.Context) -> list[str]:
    """The commands at its side, and the one above; of a group those below."""
    above = context if isinstance(context.command, click.Group) else context.parent
    assert above is not None  # noqa: S101 - the command at the top is a group
    return [_name(one) for one in contexts(above) if above in (one, one.parent)]


def _item(term: str, meaning: str) -> Iterator[str]:
    yield from (".TP", f"\\fB{_escaped(term)}\\fR", _escaped(meaning))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(_UNWRAPPED):
            lines = paragraph.removeprefix(_UNWRAPPED).splitlines()
            yield from (".PP", ".nf", *map(_escaped, lines), ".fi")
        else:
            yield from (".PP", *map(_escaped, paragraph.splitlines()))


def _escaped(text: str) -> str:
    """As roff shows it unchanged: a line that begins with a dot would be a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
