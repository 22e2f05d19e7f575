"""Checks of this machine: the config's warnings, plugins, the HTTP port, and where `file` sinks
write. Nothing is created, locked or written."""

import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

from logfan.config.file_permissions import unwritable
from logfan.config.loader import SinkSpec
from logfan.config.units import format_size
from logfan.doctor.examination import Check, Examination, Run
from logfan.doctor.findings import Finding, Severity, Unknown, advice, danger, ok, warning
from logfan.plugins.discovery import discover
from logfan.runtime.foreign_text import line_of
from logfan.runtime.http_get import is_logfan
from logfan.runtime.tls import pinned_context

_SERVICE = (Path("/etc/logfan/config.toml"), Path("/var/log/logfan"))
"""The config of the units, and the folder that they work in: its relative paths begin there."""
_FILE_KINDS = ("file", "sqlite")
_FULL_BYTES, _LOW_BYTES, _LOW_SHARE = 64 << 20, 1 << 30, 0.05
_FIELD = re.compile(r"\{[^{}]*\}")
_HTTP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sink writes files."""

    sink: SinkSpec
    path: Path
    """As far as no field decides on it."""
    is_whole: bool
    """Whether that is the file, and not a folder above."""

    @property
    def nearest(self) -> Path:
        """The first of it and the folders above that exists. Raises OSError."""
        for one in (self.path, *self.path.parents):
            with suppress(FileNotFoundError, NotADirectoryError):
                one.stat()
                return one
        return Path("/")

    def bad(self, what: str, do: str) -> Finding:
        """The sink cannot write there."""
        place = f"sink {self.sink.name}: {what}"
        if self.sink.settings.required:
            return danger(
                place, "the sink does not open, and `run` consumes nothing before it has", do
            )
        return warning(place, "the sink gets nothing, and what it misses is lost to it", do)


def _places(exam: Examination) -> list[Place]:
    """Of all sinks that write files."""
    found = []
    for spec in exam.prepared.sinks:
        path = getattr(spec.config, "path", None)
        if spec.kind.kind not in _FILE_KINDS or not path:
            continue
        text = str(path).replace("{instance}", exam.settings.instance or "main")
        text = text.replace("{host}", socket.gethostname())
        field = _FIELD.search(text)
        fixed = Path(text) if field is None else Path(f"{text[: field.start()]}_").parent
        found.append(Place(spec, (_working_folder(exam) / fixed).absolute(), field is None))
    return found


def _working_folder(exam: Examination) -> Path:
    """Where relative paths begin for `run`: who asks about the service may be anywhere."""
    config, folder = _SERVICE
    folder /= exam.settings.instance
    of_service = exam.prepared is not None and exam.prepared.path == config
    return folder if of_service and folder.exists() else Path()


def _of_each_place(look: Callable[[Examination, Place], Finding]) -> Run:
    """A check that looks at each place."""

    @wraps(look)
    def run(exam: Examination) -> Iterator[Finding]:
        places = exam.get(_places)
        yield from (look(exam, place) for place in places)
        if not places:
            yield ok("no sink writes files")

    return run


@_of_each_place
def disk_path(_exam: Examination, place: Place) -> Finding:
    """The files of sinks may be written, or made."""
    try:
        nearest = place.nearest
        mode = nearest.stat().st_mode
    except OSError as error:
        do = "correct the path"
        if isinstance(error, PermissionError):
            do = "run it as the user of the service"
        return place.bad(f"{place.path}: {line_of(error.strerror).lower()}", do)
    if nearest == place.path and place.is_whole:
        if stat.S_ISDIR(mode):
            return place.bad(f"{place.path} is a folder", "name a file in path")
        if not os.access(nearest, os.W_OK):
            return place.bad(f"{nearest} may not be written to: {unwritable(nearest)}",
                "run it as its owner, or give the service the file")  # fmt: skip
    elif not stat.S_ISDIR(mode):
        return place.bad(f"{nearest}, a part of {place.path}, is no folder", "correct the path")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        return place.bad(f"nothing may be made in {nearest}: {unwritable(nearest)}",
            "give the service the folder, or run it as its owner")  # fmt: skip
    return ok(f"{nearest} may be written to")


@_of_each_place
def disk_space(_exam: Examination, place: Place) -> Finding:
    """There is room on their disk."""
    disk = os.statvfs(place.nearest)
    free, share = disk.f_bavail * disk.f_frsize, disk.f_bavail / max(1, disk.f_blocks)
    left = f"the disk of {place.nearest} has {_size(free)} left"
    do = "remove old files (rotate.keep), or take a larger disk"
    if free < _FULL_BYTES:
        return place.bad(left, do)
    if free < _LOW_BYTES and share < _LOW_SHARE:
        means = "when it is full the sink waits, and the queue on the broker grows"
        return warning(f"sink {place.sink.name}: {left}", means, do)
    return ok(left)


def _size(count: int) -> str:
    return format_size(count >> 20 << 20) if count >> 20 else format_size(count)


@_of_each_place
def disk_inodes(_exam: Examination, place: Place) -> Finding:
    """There are inodes left on their disk."""
    disk = os.statvfs(place.nearest)
    what = f"the disk of {place.nearest} has {disk.f_favail:,} of {disk.f_files:,} inodes left"
    do = "remove files, or have messages bring about fewer (max_files)"
    if disk.f_files and disk.f_favail < 1:
        return place.bad(what, do)
    if disk.f_files and disk.f_favail / disk.f_files < _LOW_SHARE:
        means = "without one no new file can be made, though there is room for bytes"
        return warning(f"sink {place.sink.name}: {what}", means, do)
    return ok(what)


def _lock_holders(_exam: Examination) -> dict[str, str]:
    """The process that holds each lock, by the file's device and inode: the kernel's list."""
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError as error:
        raise Unknown(f"/proc/locks cannot be read: {line_of(error)}") from None
    listed = [fields for fields in map(str.split, locks) if len(fields) > 5]
    return {one[5]: one[4] for one in listed if one[1] == "FLOCK"}


def _as_listed(path: Path) -> str:
    """Device and inode of the file, as the kernel's list has them: on btrfs and overlays `st_dev`
    is another number. Raises OSError and Unknown."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        known = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        )
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        number, _, device, *_ = mount.split()
        if number == known.get("mnt_id"):
            major, minor = map(int, device.split(":"))
            return f"{major:02x}:{minor:02x}:{inode}"
    raise Unknown(f"the file system of {path} is not in /proc/self/mountinfo")


@_of_each_place
def disk_lock(exam: Examination, place: Place) -> Finding:
    """No other process holds their lock. Nothing is locked."""
    holders = exam.get(_lock_holders)
    if not place.is_whole or not place.path.exists():
        return ok("there is no file yet that could be locked")
    pid = holders.get(_as_listed(place.path))
    if pid is None:
        return ok(f"{place.path} is not locked")
    if exam.get(_who_listens) == _OURS:
        return ok(f"{place.path} is locked by process {pid}, while a logfan runs here")
    return place.bad(
        f"{place.path} is locked by process {pid}",
        "give each instance and each sink a path of its own, or end that process",
    )


@_of_each_place
def disk_owner(_exam: Examination, place: Place) -> Finding:
    """The doctor runs as who owns them: else it judges for another user."""
    owner, ours = place.nearest.stat().st_uid, os.geteuid()
    what = f"sink {place.sink.name}: {place.nearest} belongs to user {owner}, and you are"
    if ours == 0 and owner != 0:
        return advice(
            f"{what} root", "root may write everywhere: whether the service may is not shown",
            "run it as the user of the service (sudo -u logfan logfan doctor)",
        )  # fmt: skip
    if owner not in (ours, 0):
        return advice(
            f"{what} user {ours}", "what you may do is not what the service may do",
            "run it as the user of the service",
        )  # fmt: skip
    return ok(f"{place.nearest} belongs to user {owner}")


_FREE, _OURS = "", "logfan"


def _who_listens(exam: Examination) -> str:
    """What has the port of `http.listen`: "" for nothing, `logfan`, or something else. Raises
    Unknown."""
    listen = exam.settings.http.listen
    if listen.port == 0:
        return _FREE
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            why = line_of(error.strerror or error)
        else:
            return _FREE
    cert_file = exam.settings.http.tls.cert_file
    context = None if cert_file is None else pinned_context(cert_file)
    url = f"{'http' if context is None else 'https'}://{listen}"
    return _OURS if is_logfan(url, _HTTP_SECONDS, context) else f"not available ({why})"


def http_port(exam: Examination) -> Finding:
    """The port of `http.listen` is free, or a logfan has it."""
    address = f"http.listen {exam.settings.http.listen}"
    found = exam.get(_who_listens)
    if found == _FREE:
        return ok(f"{address} is free")
    if found == _OURS:
        return advice(
            f"a logfan listens at {address} already",
            "it runs, and another one with this config would not start",
            "give each instance a port of its own",
        )  # fmt: skip
    return danger(
        f"{address} is {found}", "`run` ends at its start",
        "end the program that has it, or choose another address",
    )  # fmt: skip


def plugins(exam: Examination) -> Iterator[Finding]:
    """Each plugin of `plugins.directories` and each package loads."""
    found = discover(exam.settings.plugins.directories, exam.settings.plugins.disabled)
    for fault in found.faults:
        yield danger(
            line_of(fault), "`run` ends at its start with 78",
            "correct it, remove it, or name it in plugins.disabled",
        )  # fmt: skip
    for folder in exam.settings.plugins.directories:
        if not folder.exists():
            yield ok(f"there is no folder {folder}; that is no fault")
    if not found.faults:
        yield ok(f"{len(found.kinds)} kinds of sinks")


def config(exam: Examination) -> Iterator[Finding]:
    """What `logfan check` warns of."""
    known = exam.settings.plugins
    faults = {str(fault) for fault in discover(known.directories, known.disabled).faults}
    warnings = [one for one in exam.prepared.warnings if one not in faults]
    for one in warnings:
        what, _, do = one.partition("; ")
        yield warning(what, "it is allowed, and likely not meant", do or "see `logfan check`")
    if not warnings:
        yield ok("`logfan check` has no warning")


_DANGER, _WARNING, _ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
CHECKS = (
    Check("config", "machine", _WARNING, config),
    Check("plugins", "machine", _DANGER, plugins),
    Check("http-port", "machine", _DANGER, http_port),
    Check("disk-path", "machine", _DANGER, disk_path),
    Check("disk-owner", "machine", _ADVICE, disk_owner),
    Check("disk-space", "machine", _DANGER, disk_space),
    Check("disk-inodes", "machine", _DANGER, disk_inodes),
    Check("disk-lock", "machine", _DANGER, disk_lock),
)
