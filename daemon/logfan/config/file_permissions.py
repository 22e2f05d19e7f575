"""Who may read a file, and the commands that let the daemon alone read it. It only looks.

Who runs `check` is often root, and who runs the daemon is the service's user: `chmod 600` of a file
of root's would lock the service out.
"""

import grp
import os
import pwd
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVICE = "logfan"
"""The user that the units run as."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who is to read."""

    name: str
    uid: int
    group: str
    groups: frozenset[int]


def absolute(path: Path) -> Path:
    """The path from the root; as it stands where the working directory is gone."""
    try:
        return path.absolute()
    except OSError:
        return path


def remedy(path: Path) -> str:
    """The commands for a file that others may read, or that the daemon may not."""
    reader, file = _reader(), shlex.quote(str(path))
    try:
        owner = path.stat().st_uid
    except OSError:
        owner = 0  # out of sight: most likely root's
    if reader.uid == owner != 0:
        return f"chmod 600 {file}"
    if reader.uid == 0:  # root asks, where no user of that name is: in a container, or before it
        return f"chmod 600 {file}, or chgrp {SERVICE} {file} && chmod 640 {file} for the service"
    return f"chgrp {reader.group} {file} && chmod 640 {file}"


def why_unreadable(path: Path, error: OSError) -> str:
    """Why it cannot be read, and the way out where that is a permission."""
    if isinstance(error, PermissionError):
        return denied(path)
    return (error.strerror or str(error)).lower()


def denied(path: Path) -> str:
    """Why we may not read it, and the way out."""
    reader = _reader()
    for folder in reversed(absolute(path).parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            there = shlex.quote(str(folder))
            return (
                f"permission denied: {reader.name} may not enter {folder}; "
                f"chgrp {reader.group} {there} && chmod 750 {there}"
            )
    return f"permission denied: {reader.name} may not read it; {remedy(path)}"


def unwritable(path: Path) -> str:
    """Why we may not write to what is there. Raises OSError."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "its file system is read-only"
    return f"permission denied for {_reader().name}"


def out_of_reach(path: Path) -> str | None:
    """Whether the service's user may not read what root may, who checks it: with the way out."""
    reader = _reader()
    if reader.uid == os.geteuid():
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_uid == reader.uid:
        readable = status.st_mode & stat.S_IRUSR
    elif status.st_gid in reader.groups:
        readable = status.st_mode & stat.S_IRGRP
    else:
        readable = status.st_mode & stat.S_IROTH
    if readable:
        return None
    return f"{path} may not be read by the service's user {reader.name}; {remedy(path)}"


def is_the_daemons(gid: int) -> bool:
    """Whether this is a group of who is to read."""
    return gid in _reader().groups


def _reader() -> _Reader:
    """The service's user where there is one and root asks; else who asks."""
    uid, gid = os.geteuid(), os.getegid()
    user = None
    with suppress(KeyError):  # a container's user, which no file names
        user = pwd.getpwuid(uid)
    with suppress(KeyError):
        user = pwd.getpwnam(SERVICE) if uid == 0 else user
    if user is None:
        return _Reader(f"user {uid}", uid, group_name(gid), frozenset((gid, *os.getgroups())))
    groups = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    return _Reader(user.pw_name, user.pw_uid, group_name(user.pw_gid), groups)


def group_name(gid: int) -> str:
    """The group's name; its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
