"""Drop-in folders: which files are plugins, and whether others could have written them."""

import hashlib
import os
import re
import stat
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from logfan.plugins.validation import PluginError

_UNMAPPED = 65534
"""What a user id looks like that has no place in the namespace."""

_loaded: dict[Path, tuple[ModuleType, bytes | None]] = {}
"""The modules, and the digests of their sources."""


def plugin_files(directory: Path) -> list[tuple[Path, str | None]]:
    """The plugins of a folder, sorted by name, and why one is not safe to run; none where the
    folder is missing. Raises PluginError."""
    try:
        directory.lstat()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PluginError(_cannot("be reached", error)) from None
    try:
        if not directory.exists():
            raise PluginError("is a link to nowhere")
        if not directory.is_dir():
            raise PluginError("is no folder; plugins.directories must name folders")
        unsafe = who_writes(directory)
        if unsafe is not None:
            raise PluginError(unsafe)
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names, sorted as strings
    except OSError as error:
        raise PluginError(_cannot("be listed", error)) from None
    files = [name for name in names if name.endswith(".py") and not name.startswith(("_", "."))]
    return [(directory / name, _why_unsafe(directory / name)) for name in files]


def _cannot(what: str, error: OSError) -> str:
    return f"cannot {what}: {(error.strerror or str(error)).lower()}"


def _why_unsafe(file: Path) -> str | None:
    try:
        return who_writes(file) if file.is_file() else "is no file, or a link to nowhere"
    except OSError as error:
        return _cannot("be reached", error)


def who_writes(path: Path) -> str | None:
    """Why the path is not safe to run code from; None where only root and we may write it.

    The path itself is looked at, and every folder above it: a user who may write there may put
    another in its place, but for folders such as /tmp, where everyone may only move what is theirs.
    """
    real = path.resolve()
    for place in (real, *real.parents):
        status = place.stat()
        about = "" if place == real else f"lies in {place}, which "
        # Where a namespace hides who root is, the folders above cannot be judged by their owner.
        owners = (0, os.geteuid()) if place == real else (0, os.geteuid(), _UNMAPPED)
        if status.st_uid not in owners:
            return f"{about}belongs to user id {status.st_uid}; refused: chown root {place}"
        open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if open_to_others and (place == real or not status.st_mode & stat.S_ISVTX):
            who = "everyone" if status.st_mode & stat.S_IWOTH else "its group"
            return f"{about}may be written by {who}; refused: chmod go-w {place}"
    return None


class _SourceLoader(SourceFileLoader):
    """Runs the source that was looked at, never what lies compiled beside it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def changed_since_loaded() -> list[Path]:
    """Drop-ins whose file is no longer what this process runs: new code takes a new start."""
    return [file for file, (_, source) in _loaded.items() if _digest(file) != source]


def _digest(file: Path) -> bytes | None:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return None


def load(file: Path) -> ModuleType:
    """Import a drop-in under a name of its own, and only once in a process: a reload must not
    run it a second time beside itself."""
    file = file.absolute()
    if file in _loaded:
        return _loaded[file][0]
    source = _digest(file)
    name = f"logfan_dropin_{len(_loaded)}_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}"
    spec = spec_from_loader(name, _SourceLoader(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for one, look their module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _loaded[file] = module, source
    return module
