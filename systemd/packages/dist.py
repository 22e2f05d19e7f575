"""`make dist`: all that a release holds. The same commit gives the same bytes."""

import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from logfan import __version__
from logfan.testing.debian import DebianUnavailable
from packages.archives import gzipped, tar_of
from packages.completions import completions
from packages.constraints import constraints, of_wheel
from packages.deb import build_deb
from packages.image import build_image
from packages.man_pages import man_pages
from packages.tree import STEP_SECONDS, write_tree

ROOT = Path(__file__).parents[2]


def main(folder: Path) -> None:
    """Fill the folder, anew."""
    os.umask(0o022)
    epoch = source_date()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder.absolute())],
        cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        check=True, timeout=STEP_SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    [wheel] = folder.glob("*.whl")
    (folder / "constraints.txt").write_text(of_wheel(wheel) + constraints())
    with tempfile.TemporaryDirectory() as parts:
        shared, tree = Path(parts, "shared"), Path(parts, "tree")
        write_shared(shared, epoch)
        archive = folder / f"logfan-{__version__}-share.tar.gz"
        archive.write_bytes(gzipped(tar_of(shared, epoch)))
        write_tree(tree, folder)
        build_deb(folder, tree, shared, epoch)
        build_image(folder, tree, epoch)
    write_sums(folder)


def source_date() -> int:
    """`$SOURCE_DATE_EPOCH`, else the time of the last commit; in a source release, its time."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    last = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(last, capture_output=True, check=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return int((ROOT / "pyproject.toml").stat().st_mtime)


def write_shared(prefix: Path, epoch: int) -> None:
    """Man pages and completions, below `share`."""
    pages = man_pages(__version__, epoch)
    texts = {f"share/man/man1/{name}": text for name, text in pages.items()} | completions()
    for place, text in texts.items():
        (prefix / place).parent.mkdir(parents=True, exist_ok=True)
        (prefix / place).write_text(text, encoding="utf-8")


def write_sums(folder: Path) -> None:
    """`SHA256SUMS`, as `sha256sum --check` takes it."""
    files = sorted(folder.iterdir())
    sums = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (folder / "SHA256SUMS").write_text(sums)
    sys.stdout.write(sums)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DebianUnavailable as error:
        sys.exit(f"package and image can only be built on a Debian: {error}")
