"""`logfan generate plugin`: a folder with a sink, its test, and what makes it a package."""

import os
import re
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from logfan.cli.common import FilePath

_KIND = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_FILES = {
    "pyproject.toml": "what makes it a package",
    "logfan_$module.py": "the sink",
    "tests/test_$module.py": "its test",
    "README.md": "how to install and use it",
}
_SKELETONS = ("pyproject.toml", "sink.py", "test.py", "README.md")


def _kind(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if _KIND.fullmatch(name):
        return name
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    hint = f'; did you mean "{near}"?' if _KIND.fullmatch(near) else ""
    raise click.BadParameter(
        f'"{name}" cannot be the name of a kind: it is made of lower-case letters and digits, with '
        f"single - or _ between them, and begins with a letter{hint}"
    )


@click.command(short_help="Write the folder of a plugin with a sink of your own.")
@click.argument("name", callback=_kind)
@click.option(
    "--folder", type=FilePath(file_okay=False), metavar="DIR",
    help="Where to write it; else ./logfan-NAME. What is there is never overwritten.",
)  # fmt: skip
def plugin(name: str, folder: Path | None) -> None:
    """Write the folder of a plugin that brings the sink kind NAME.

    It holds a sink that works, its test, a pyproject.toml and a README.md: change the sink, and
    keep its tests green.

    NAME is what people write as kind = "NAME". For "mail-out" the module is logfan_mail_out, and
    the class MailOutSink.
    """
    _refuse_taken(name)
    module = name.replace("-", "_")
    names = {
        "kind": name, "module": module, "distribution": f"logfan-{name.replace('_', '-')}",
        "title": "".join(part.capitalize() for part in module.split("_")),
    }  # fmt: skip
    folder = folder or Path(names["distribution"])
    texts = {
        folder / _filled(path, names): _filled(_skeleton(skeleton), names)
        for path, skeleton in zip(_FILES, _SKELETONS, strict=True)
    }
    _write(texts)
    click.echo(f"wrote {folder}:")
    for path, what in zip(texts, _FILES.values(), strict=True):
        click.echo(f"  {path.relative_to(folder)!s:<{len(module) + 16}}  {what}")
    place = folder if folder.is_absolute() else Path(".", folder)
    prefix = "" if folder.is_absolute() else "./"
    click.echo(
        f"next:\n  pip install -e '{prefix}{place}[test]'\n  pytest {folder}\n  logfan sinks {name}"
    )


def _refuse_taken(name: str) -> None:
    from logfan.plugins.discovery import discover

    taken = discover([], []).kinds.get(name)
    if taken is not None:
        raise click.BadParameter(
            f'{taken.origin} has the kind "{name}" already; choose another', param_hint="NAME"
        )


def _skeleton(name: str) -> str:
    found = files("logfan.cli.generate").joinpath("skeletons", "plugin", f"{name}.template")
    return found.read_text("utf-8")


def _filled(text: str, names: dict[str, str]) -> str:
    return Template(text).substitute(names)


def _write(texts: dict[Path, str]) -> None:
    """All of it, or nothing."""
    there = [path for path in texts if os.path.lexists(path)]
    if there:
        raise click.BadParameter(
            f"{there[0]} is there already; nothing was written: choose another folder",
            param_hint="--folder",
        )
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.BadParameter(
            f"{error.filename}: {(error.strerror or str(error)).lower()}", param_hint="--folder"
        ) from None
