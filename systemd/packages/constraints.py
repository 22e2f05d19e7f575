"""`constraints.txt`: of the lock, what logfan and its extras need to run, with all hashes."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

_ROOT = Path(__file__).parents[2]
_NOT_FOR_RUNNING = {"testing"}


def constraints() -> str:
    """The lines of `.requirements.lock` for what runs, read in the environment made from it."""
    needed = set(_closure(_declared()))
    return "".join(text for name, text in _locked() if name in needed)


def of_wheel(wheel: Path) -> str:
    """The same line for a wheel of our own."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n"


def _declared() -> Iterator[Requirement]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    yield from map(Requirement, project["dependencies"])
    for extra, needs in project["optional-dependencies"].items():
        if extra not in _NOT_FOR_RUNNING:
            yield from map(Requirement, needs)


def _closure(declared: Iterable[Requirement]) -> Iterator[NormalizedName]:
    """Each package that these need, and what it needs in turn."""
    waiting = [*declared]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in seen:
                continue
            seen.add((wanted.name, extra))
            yield canonicalize_name(wanted.name)
            needs = map(Requirement, distribution(wanted.name).requires or ())
            waiting += [
                need
                for need in needs
                if need.marker is None or need.marker.evaluate({"extra": extra})
            ]


def _locked() -> Iterator[tuple[NormalizedName, str]]:
    """Each package of the lock, with its lines. pip allows no extras in a file of constraints; what
    they need has lines of its own."""
    text = (_ROOT / ".requirements.lock").read_text("utf-8")
    for name, rest in re.findall(r"^([\w.-]+)(?:\[.*?\])?((?:.*\\\n)*.*\n)", text, re.MULTILINE):
        yield canonicalize_name(name), name + rest
