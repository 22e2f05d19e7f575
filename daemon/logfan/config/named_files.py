"""The files that a config names to be read: secrets, certificates, templates."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel


def files_of(part: object, place: str) -> Iterator[tuple[str, Path]]:
    """Each path of a key that ends in `_file`, at any depth, with the key's place."""
    inner: Mapping[object, object] = {}
    if isinstance(part, BaseModel):
        inner = {name: getattr(part, name) for name in type(part).model_fields}
    elif isinstance(part, Mapping):
        inner = part
    elif isinstance(part, Sequence) and not isinstance(part, str | bytes):
        inner = dict(enumerate(part))
    elif isinstance(part, Path) and place.endswith("_file"):
        yield place, part
    for key, value in inner.items():
        yield from files_of(value, f"{place}.{key}" if place else str(key))
