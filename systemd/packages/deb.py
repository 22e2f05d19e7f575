"""The Debian package, written by nfpm from a staged tree."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from email.utils import formatdate
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path

from logfan import __version__
from packages.archives import gzipped
from packages.completions import PLACES
from packages.tree import LIBRARIES, ROOT, STEP_SECONDS, debian_python, put

_FILES = Path(__file__).parent / "debian"
_MAINTAINER = "The logfan developers <logfan@localhost>"
_SUMMARY = "RabbitMQ log fan-out: every message to every sink"
_DESCRIPTION = f"""{_SUMMARY}
logfan consumes a RabbitMQ exchange with manual acknowledgements, hands every
message to every configured sink (files, HTTP, Elasticsearch, Loki, OTLP,
Kafka, S3, PostgreSQL, SQLite, syslog, another RabbitMQ), acknowledges it once
all of them have it, and exports Prometheus metrics.
.
Its Python libraries are those that it was tested with, in /usr/lib/logfan."""
_GENERATED = {"config.schema.json": "schema", "alerts.yml": "alerts", "dashboard.json": "dashboard"}
"""What `logfan generate` gives, by the name under which the package has it."""


def debian_version() -> str:
    """A package is for one release of Debian, as its Python is."""
    release = platform.freedesktop_os_release()
    return f"{__version__}-1~deb{release['VERSION_ID']}"


def build_deb(dist: Path, tree: Path, shared: Path, epoch: int) -> None:
    """Put the package for this release of Debian into `dist`."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "stage"
        shutil.copytree(tree, stage, symlinks=True)
        _write_shared(stage, shared)
        _write_etc(stage, Path(folder))
        _write_doc(stage, epoch)
        for path in (Path(folder) / "config.toml", *stage.rglob("*")):
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        config = Path(folder) / "nfpm.json"
        config.write_text(json.dumps(_nfpm(stage)))
        subprocess.run(
            [Path(sys.executable).with_name("nfpm"), "package", "--packager=deb",
             f"--config={config}", f"--target={dist}"],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            check=True, stdout=subprocess.DEVNULL, timeout=STEP_SECONDS,
        )  # fmt: skip


def _nfpm(stage: Path) -> dict[str, object]:
    python = debian_python()
    major, minor = map(int, python.split("."))
    version, release = debian_version().split("-")
    return {
        "name": "logfan", "version": version, "version_schema": "none", "release": release,
        "arch": printed("dpkg", "--print-architecture"), "section": "admin",
        "priority": "optional", "maintainer": _MAINTAINER, "description": _DESCRIPTION,
        "umask": 0o022, "disable_globbing": True,
        "depends": [
            f"python3 (>= {python})", f"python3 (<< {major}.{minor + 1})", "libc6", "libgcc-s1",
            "libstdc++6", "procps", "systemd | systemd-standalone-sysusers",
        ],
        "recommends": ["ca-certificates"],
        "suggests": ["bash-completion", "rabbitmq-server"],
        "contents": [
            {"src": str(stage), "dst": "/", "type": "tree"},
            {"src": str(stage.parent / "config.toml"), "dst": "/etc/logfan/config.toml",
             "type": "config|noreplace", "file_info": {"mode": 0o644}},
        ],
        "scripts": {
            "postinstall": str(_FILES / "postinst"), "preremove": str(_FILES / "prerm"),
            "postremove": str(_FILES / "postrm"),
        },
        "deb": {"compression": "xz"},
    }  # fmt: skip


def _write_shared(stage: Path, shared: Path) -> None:
    """Man pages and completions, where Debian has them."""
    shutil.copytree(shared, stage / "usr", dirs_exist_ok=True)
    for page in (stage / "usr/share/man/man1").iterdir():
        page.with_name(f"{page.name}.gz").write_bytes(gzipped(page.read_bytes()))
        page.unlink()
    zsh = stage / "usr" / PLACES["zsh"]
    zsh.parent.rename(zsh.parent.with_name("vendor-completions"))


def _write_etc(stage: Path, folder: Path) -> None:
    """The config, and beside it what goes with it; sysusers.d and tmpfiles.d."""
    shipped = (ROOT / "config.toml").read_text("utf-8")
    put(folder / "config.toml", f"#:schema ./config.schema.json\n{shipped}")
    (stage / "etc/logfan/plugins").mkdir(parents=True)
    put(folder / "no-drop-ins.toml", "plugins.directories = []\n")
    for name, command in _GENERATED.items():
        text = printed(
            sys.executable, "-m", "logfan", "generate", command,
            *(("--config", str(folder / "no-drop-ins.toml")) if command == "schema" else ()),
        )  # fmt: skip
        put(stage / "usr/share/logfan" / name, f"{text}\n")
        (stage / "etc/logfan" / name).symlink_to(f"/usr/share/logfan/{name}")
    for kind in ("sysusers", "tmpfiles"):
        put(stage / f"usr/lib/{kind}.d/logfan.conf", (_FILES / f"logfan.{kind}").read_text())


def _write_doc(stage: Path, epoch: int) -> None:
    doc = stage / "usr/share/doc/logfan"
    put(doc / "copyright", _copyright(stage / LIBRARIES))
    put(doc / "examples/logrotate", (_FILES / "logrotate").read_text())
    put(stage / "usr/share/lintian/overrides/logfan", (_FILES / "lintian-overrides").read_text())
    entry = (
        f"logfan ({debian_version()}) unstable; urgency=medium\n\n"
        "  * What changed is in changelog.gz, beside this file.\n\n"
        f" -- {_MAINTAINER}  {formatdate(epoch)}\n"
    )
    (doc / "changelog.Debian.gz").write_bytes(gzipped(entry.encode()))
    (doc / "changelog.gz").write_bytes(gzipped((ROOT / "CHANGELOG.md").read_bytes()))


def _copyright(libraries: Path) -> str:
    found = sorted(distributions(path=[str(libraries)]), key=lambda one: one.name.lower())
    lines = [f" {one.name} {one.version}: {_licence(one.metadata)}" for one in found]
    return "\n".join([(_FILES / "copyright").read_text("utf-8"), *lines, ""])


def _licence(metadata: PackageMetadata) -> str:
    """By its identifier, else in the words of the first form that the library gives it in."""
    classifiers = metadata.get_all("Classifier") or ()
    by_classifier = (one.rpartition(":: ")[2] for one in classifiers if one.startswith("License"))
    forms = (metadata["License-Expression"], metadata["License"], *by_classifier)
    return next(str(form) for form in forms if form)


def printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
