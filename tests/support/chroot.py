"""A small Debian of its own in a folder, and programs that run in it as its root."""

import os
import shutil
import subprocess
from pathlib import Path

from logfan.testing.debian import unpacked

_PACKAGES = (
    "base-files", "base-passwd", "coreutils", "dash", "diffutils", "findutils", "grep", "gzip",
    "init-system-helpers", "libc-bin", "lintian", "procps", "python3", "sed", "systemd", "tar",
)  # fmt: skip
_MERGED = ("bin", "sbin", "lib", "lib64")
_ENTER = 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'


class Chroot:
    """Debian's packages as they are unpacked, with those in dpkg's list, and none configured."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.root = folder
        debian = unpacked(*_PACKAGES, always=("",), suite=suite)
        # cp takes a second, and shutil.copytree ten.
        subprocess.run(["cp", "-a", "--", debian, folder], check=True)
        for name in _MERGED:  # as each Debian has them since its 12
            if not (folder / name).is_symlink():
                subprocess.run(["cp", "-a", "--", folder / name, folder / "usr"], check=True)
                shutil.rmtree(folder / name)
                (folder / name).symlink_to(f"usr/{name}")
        shutil.copy(folder / "usr/share/base-passwd/passwd.master", folder / "etc/passwd")
        shutil.copy(folder / "usr/share/base-passwd/group.master", folder / "etc/group")
        (folder / "etc/dpkg/origins/default").symlink_to("debian")
        for file in ("available", "triggers/File"):
            (folder / "var/lib/dpkg" / file).parent.mkdir(exist_ok=True)
            (folder / "var/lib/dpkg" / file).touch()
        for folder_of_dpkg in ("info", "updates"):
            (folder / "var/lib/dpkg" / folder_of_dpkg).mkdir(exist_ok=True)

    def run(self, *command: object, code: int = 0) -> str:
        """What the program prints, on both ways. It is root in there, a user outside."""
        mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
        done = subprocess.run(
            ["unshare", *mapped, "--mount", "sh", "-c", _ENTER, self.root, *map(str, command)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout
