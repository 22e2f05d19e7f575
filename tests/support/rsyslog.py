"""A private rsyslog on loopback, from Debian's packages: TCP with octet counting, and TLS."""

import socket
from pathlib import Path
from typing import Any

import orjson

from logfan.testing.debian import unpacked
from logfan.testing.node import free_port
from logfan.testing.versions import library_path
from support.server_process import ServerProcess

_CONFIG = """
global(workDirectory="{folder}" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off"
       defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{cert}"
       defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp")
template(name="whole" type="list") {{ property(name="jsonmesg") constant(value="\\n") }}
ruleset(name="keep") {{ action(type="omfile" file="{kept}" template="whole") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="keep")
input(type="imtcp" address="127.0.0.1" port="{tls_port}" ruleset="keep"
      streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
"""


class Rsyslog(ServerProcess):
    """Keeps each message as it understood it."""

    def __init__(self, ca: Path, cert: Path, key: Path) -> None:
        self._root = unpacked("rsyslog", "rsyslog-gnutls", always=("rsyslog",))
        super().__init__("rsyslog")
        self._port, self._tls_port = free_port(), free_port()
        self.tcp = f"tcp://127.0.0.1:{self._port}"
        self.tls = f"tls://127.0.0.1:{self._tls_port}"
        self._kept = self.folder / "kept"
        self._config = self.folder / "rsyslog.conf"
        self._config.write_text(
            _CONFIG.format(
                folder=self.folder, ca=ca, cert=cert, key=key, kept=self._kept, port=self._port,
                tls_port=self._tls_port,
            )
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        (modules,) = self._root.glob("usr/lib/*/rsyslog")
        command = [
            str(self._root / "usr/sbin/rsyslogd"), "-n", "-f", str(self._config),
            "-i", str(self.folder / "pid"), "-M", str(modules),
        ]  # fmt: skip
        self.launch(["env", f"LD_LIBRARY_PATH={library_path(self._root)}", *command])

    def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            for port in (self._port, self._tls_port):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    def messages(self) -> list[dict[str, Any]]:
        """What it has kept so far."""
        if not self._kept.exists():
            return []
        # Behind the last newline a line may be half there.
        whole = self._kept.read_bytes().split(b"\n")[:-1]
        return [orjson.loads(line) for line in whole]
