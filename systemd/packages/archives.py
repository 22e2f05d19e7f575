"""Archives whose bytes follow from their content: sorted, owned by root, of one time."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def tar_of(folder: Path, epoch: int, owners: Mapping[str, int] = {}) -> bytes:
    """All of a folder as a tar. `owners` gives the number that owns a path, if not root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, str(path.relative_to(folder)))
            entry.uid = entry.gid = owners.get(entry.name, 0)
            entry.uname = entry.gname = ""
            entry.mtime = epoch
            if entry.islnk():  # the same file by two names: each is written
                entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
            if entry.isreg():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
    return buffer.getvalue()


def gzipped(content: bytes, epoch: int = 0) -> bytes:
    """Without a name, and with this time."""
    return gzip.compress(content, mtime=epoch)
