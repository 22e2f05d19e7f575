"""Which files with secrets are open to people who should not see them. It only looks."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from logfan.config.file_permissions import group_name, is_the_daemons, out_of_reach, remedy
from logfan.config.validation_errors import is_secret_name

# The service's own group, and the one that Debian has for those who may read private keys: who
# runs `check` is not who runs the service.
_TRUSTED_GROUPS = ("logfan", "ssl-cert")


def exposed(
    files: Mapping[str, Path],
    path: Path | None,
    table: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Iterator[str]:
    """A warning for each file that others may read or change and should not.

    `files` are those that the config names, by key. `path` is the config file, `table` what stands
    in it.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    for key, file in _secret_files(files):
        if file.is_relative_to(credentials or "/run/credentials"):
            continue  # systemd made that folder for this service alone
        who = _who(file, stat.S_IROTH, stat.S_IRGRP)
        if who is not None:
            yield f"{key}: {file} may be read by {who}; {remedy(file)}"
        elif (hidden := out_of_reach(file)) is not None:
            yield f"{key}: {hidden}"
    if path is None:
        return
    place = next((place for place, _ in secrets_in(table)), None)
    who = _who(path, stat.S_IROTH, stat.S_IRGRP) if place is not None else None
    if who is not None:
        instead = "the URL into rabbitmq.url_file" if place == "rabbitmq.urls" else "it elsewhere"
        yield (
            f"{path} holds a password ({place}) and may be read by {who}; {remedy(path)}, or put "
            f"{instead}"
        )
    elif (hidden := out_of_reach(path)) is not None:
        yield hidden
    who = _who(path, stat.S_IWOTH, stat.S_IWGRP)
    if who is not None:
        yield f"{path} may be changed by {who}, and decides what the daemon runs; chmod go-w {path}"


def _secret_files(files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    for key, file in files.items():
        # A certificate's file without a key's holds the key, too.
        alone = key.endswith("cert_file") and key.replace("cert_file", "key_file") not in files
        name = key.rpartition(".")[2]
        if alone or name.endswith(("url_file", "key_file")) or is_secret_name(name):
            yield key, file


def secrets_in(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """What in the table is a password, by its key's name or in a URL, and where it stands."""
    for key, value in table.items():
        here = f"{place}.{key}" if place else str(key)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                yield from secrets_in(one, here)
            elif isinstance(one, str):
                for secret in _secrets_of(str(key), one):
                    yield here, secret


def _secrets_of(key: str, value: str) -> Iterator[str]:
    if is_secret_name(key) and not key.endswith(("_file", "_path")) and value != "":
        yield value
    for word in value.split():
        login, _, _ = word.partition("://")[2].rpartition("@")
        if ":" in login and login != "guest:guest":
            yield login.partition(":")[2]


def _who(path: Path, others: int, group: int) -> str | None:
    """Who beside the owner, root and the service has this right; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_mode & others:
        return "everybody"
    ours = status.st_gid in (0, os.getegid(), *os.getgroups()) or is_the_daemons(status.st_gid)
    if not status.st_mode & group or ours:
        return None
    name = group_name(status.st_gid)
    return None if name in _TRUSTED_GROUPS else f"the group {name}"
