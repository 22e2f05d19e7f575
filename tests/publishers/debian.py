"""Programs of Debian that publish: unpacked into the cache, run without root."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from logfan.testing import debian, versions
from logfan.testing.node import RabbitNode
from publishers.recorder import EXCHANGE, Recorder
from support.waiting import wait_until

_SECONDS = 60
_LINES = (
    ("debug", "cache is warm"), ("info", "order 4711 is paid"), ("warning", "disk is 91 % full"),
    ("err", "payment failed"), ("crit", "no disk is left"),
)  # fmt: skip
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "err": 3, "crit": 2}
_USER = 1 << 3  # syslog's facility
_CONFIG = """@version: 3.38
source lines {{ stdin(); }};
destination broker {{
  amqp(host("127.0.0.1") port({port}) vhost("/") username("guest") password("guest")
       exchange("{exchange}") exchange-type("fanout") exchange-declare(no) {options});
}};
log {{ source(lines); destination(broker); }};
"""
_SYSLOG_NG = {
    "syslog-ng-headers": "",
    "syslog-ng-json": 'routing-key("syslog.$PRIORITY") '
    'body("$(format-json --scope rfc5424 --exclude DATE --key ISODATE)")',
}  # fmt: skip


def programs(node: RabbitNode, recorder: Recorder) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each by its name. Raises debian.DebianUnavailable."""
    tools = debian.unpacked("amqp-tools")
    yield "amqp-publish", partial(_amqp_publish, tools, node, recorder)
    root = debian.unpacked("syslog-ng-core", "syslog-ng-mod-amqp")
    for name, options in _SYSLOG_NG.items():
        yield name, partial(_syslog_ng, root, node, recorder, options)


def _run(root: Path, command: Sequence[str | Path], lines: str, recorder: Recorder) -> None:
    """Runs it with these lines as standard input, which ends once all of them have arrived:
    syslog-ng publishes nothing more from then on."""
    libraries = [
        *filter(None, [versions.library_path(root)]),
        *map(str, root.glob("lib/*-linux-*")),
        *map(str, root.glob("usr/lib/*-ng")),
    ]
    environment = {
        "PATH": "/usr/bin:/bin", "TZ": "UTC", "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": ":".join(libraries),
    }  # fmt: skip
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        program.stdin.write(lines)
        program.stdin.flush()
        try:
            wait_until(lambda: recorder.count() == len(_LINES), "all lines arrived", _SECONDS)
            _, problem = program.communicate(timeout=_SECONDS)
        except BaseException:
            program.kill()
            raise
    if program.returncode:
        raise debian.DebianUnavailable(f"{command[0]} ended with {program.returncode}: {problem}")


def _amqp_publish(root: Path, node: RabbitNode, recorder: Recorder) -> None:
    lines = "".join(f"{level}: {text}\n" for level, text in _LINES)
    program = root / "usr/bin/amqp-publish"
    command: list[str | Path] = [
        program,
        f"--url={node.url}",
        f"--exchange={EXCHANGE}",
        "--line-buffered",
    ]
    _run(root, command, lines, recorder)


def _syslog_ng(root: Path, node: RabbitNode, recorder: Recorder, options: str) -> None:
    lines = "".join(
        f"<{_USER + _PRIORITIES[level]}>Nov 29 12:00:00 web-1 shop[4711]: {text}\n"
        for level, text in _LINES
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "syslog-ng.conf")
        config.write_text(_CONFIG.format(port=node.port, exchange=EXCHANGE, options=options))
        command: list[str | Path] = [
            root / "usr/sbin/syslog-ng", "--foreground", "--no-caps", "--stderr",
            f"--cfgfile={config}", f"--persist-file={folder}/persist", f"--pidfile={folder}/pid",
            f"--control={folder}/control",
            f"--module-path={next(root.glob('usr/lib/syslog-ng/*/'))}",
        ]  # fmt: skip
        _run(root, command, lines, recorder)
