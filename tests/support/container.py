"""The OCI image as a process: unpacked by umoci, run by bubblewrap; neither needs root."""

import json
import os
import select
import subprocess
from pathlib import Path
from signal import Signals

from logfan.testing.debian import unpacked
from support.broker import Names
from support.daemon import DaemonProcess
from support.forked import die_with_parent
from support.waiting import PATIENCE_SECONDS


class Image:
    """An OCI archive, unpacked into a bundle of the runtime specification."""

    def __init__(self, archive: Path, folder: Path, tag: str) -> None:
        layout, bundle = folder / "layout", folder / "bundle"
        layout.mkdir(parents=True)
        subprocess.run(["tar", "-C", layout, "-xf", archive], check=True)
        umoci = unpacked("umoci") / "usr/bin/umoci"
        mapped = [] if os.geteuid() == 0 else ["--rootless"]
        unpack = [str(umoci), "unpack", *mapped, "--image", f"{layout}:{tag}", str(bundle)]
        subprocess.run(unpack, check=True, capture_output=True)
        self.root = bundle / "rootfs"
        self.process = json.loads((bundle / "config.json").read_text())["process"]
        self.config = next(
            config
            for blob in (layout / "blobs/sha256").iterdir()
            if blob.stat().st_size < 1 << 16
            and (config := json.loads(blob.read_text()).get("config")) is not None
            and "Entrypoint" in config
        )

    def command(
        self, *arguments: str, binds: dict[Path, str], environ: dict[str, str]
    ) -> list[str]:
        """What runs these arguments in the image: read-only, as its user, as process 1."""
        user = self.process["user"]
        bubblewrap = unpacked("bubblewrap") / "usr/bin/bwrap"
        environ = dict(pair.split("=", 1) for pair in self.process["env"]) | environ
        return [
            str(bubblewrap), "--unshare-user", "--uid", str(user["uid"]), "--gid", str(user["gid"]),
            "--unshare-pid", "--as-pid-1", "--die-with-parent", "--ro-bind", str(self.root), "/",
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
            *(part for path, place in binds.items() for part in ("--bind", str(path), place)),
            "--clearenv", *(part for pair in environ.items() for part in ("--setenv", *pair)),
            "--chdir", self.process["cwd"], *arguments,
        ]  # fmt: skip


class Container(DaemonProcess):
    """`docker run` of the image, with a config and a folder for what is written."""

    def __init__(self, image: Image, folder: Path, url: str, names: Names, sinks: str) -> None:
        super().__init__(folder, url, names, sinks)
        self.image = image
        self.logs = folder / "logs"
        self.logs.mkdir()
        sockets = folder / "run"
        sockets.mkdir(mode=0o700)
        self._binds = {
            self.logs: "/var/log/logfan", sockets: "/run/logfan",
            self.config: "/etc/logfan/config.toml",
        }  # fmt: skip
        self._inside = 0
        self.address = "127.0.0.1"
        """Where its HTTP listens, at `port`."""

    def start(self, *, ready: bool = True) -> None:
        """Start entrypoint and command of the image."""
        reader, writer = os.pipe()
        command = self._command_of(*self.image.process["args"])
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [command[0], "--info-fd", str(writer), *command[1:]], stdout=log, stderr=log,
                pass_fds=[writer],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of ours holds a lock there
            )  # fmt: skip
        os.close(writer)
        with os.fdopen(reader) as info:
            assert select.select([info], [], [], PATIENCE_SECONDS)[0], self.log()
            self._inside = json.loads(info.read())["child-pid"]
        if ready:
            self.wait_ready()

    def signal(self, number: Signals) -> None:
        """To the process in the container."""
        os.kill(self._inside, number)

    def run(self, *arguments: str, **environ: str) -> int:
        """`docker exec`: the exit code of another program in the image."""
        return subprocess.run(
            self._command_of(*arguments, **environ),
            check=False, capture_output=True, timeout=PATIENCE_SECONDS,
        ).returncode  # fmt: skip

    def _command_of(self, *arguments: str, **environ: str) -> list[str]:
        environ = {"LOGFAN_HTTP__LISTEN": f"{self.address}:{self.port}"} | environ
        return self.image.command(*arguments, binds=self._binds, environ=environ)
