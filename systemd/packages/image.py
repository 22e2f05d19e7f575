"""The OCI image: Debian's Python and the tree, in two layers; no shell, no package manager."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from logfan import __version__
from logfan.testing.debian import unpacked
from packages.archives import gzipped, tar_of
from packages.deb import printed
from packages.tree import LIBRARIES, ROOT, STEP_SECONDS, debian_python, put

_USER = 65532
_WRITABLE = ("run/logfan", "var/lib/logfan", "var/log/logfan")
_NEEDLESS = ("usr/sbin", "usr/share/lintian", "usr/share/locale", "usr/share/man")
_OCI = "application/vnd.oci.image"
# Not by urllib.request, which takes a proxy from the environment.
_PROBE = (
    "import http.client, os; "
    "asked = http.client.HTTPConnection(os.environ['LOGFAN_HTTP__LISTEN'], timeout=5); "
    "asked.request('GET', '/healthz'); raise SystemExit(asked.getresponse().status != 200)"
)
_SECOND = 10**9
_CONFIG = {
    "User": f"{_USER}:{_USER}",
    "Env": [
        "PATH=/usr/bin", "LANG=C.UTF-8", "PYTHONFAULTHANDLER=1",
        # Not one in the working directory, which sinks write to.
        "LOGFAN_CONFIG=/etc/logfan/config.toml",
        # What reaches a container comes from outside of it.
        "LOGFAN_HTTP__LISTEN=0.0.0.0:9464",
        "RUNTIME_DIRECTORY=/run/logfan",
    ],
    "Entrypoint": ["/usr/bin/logfan"],
    "Cmd": ["run"],
    "WorkingDir": "/var/log/logfan",
    "ExposedPorts": {"9464/tcp": {}},
    # Not of the specification; docker and podman read it here.
    "Healthcheck": {
        "Test": ["CMD", "/usr/bin/python3", "-c", _PROBE],
        "Interval": 30 * _SECOND, "Timeout": 10 * _SECOND, "StartPeriod": 30 * _SECOND,
    },
}  # fmt: skip


def build_image(dist: Path, tree: Path, epoch: int) -> None:
    """Put the image as an OCI archive into `dist`."""
    with tempfile.TemporaryDirectory() as folder:
        debian, ours, layout = (Path(folder) / name for name in ("debian", "ours", "layout"))
        _write_debian(debian)
        _write_ours(ours, tree)
        _compile(debian, debian / f"usr/lib/python{debian_python()}")
        _compile(debian, ours / LIBRARIES)
        owners = dict.fromkeys(_WRITABLE, _USER)
        _write_layout(layout, [tar_of(debian, epoch), tar_of(ours, epoch, owners)], epoch)
        archive = dist / f"logfan-{__version__}-oci-{printed('dpkg', '--print-architecture')}.tar"
        archive.write_bytes(tar_of(layout, epoch))


def _write_debian(root: Path) -> None:
    """Python, the libraries that it and the tree need, certificates, time zones."""
    python = debian_python()
    packages = (
        "base-files", "ca-certificates", f"libpython{python}-stdlib", "libstdc++6",
        f"python{python}-minimal", "tzdata",
    )  # fmt: skip
    unpacked_ones = unpacked(*packages, always=("lib", "zlib1g"))
    shutil.copytree(unpacked_ones, root, symlinks=True)
    (root / ".complete").unlink()
    for name in _NEEDLESS:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "usr/bin/python3").symlink_to(f"python{python}")
    trusted = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = "etc/ssl/certs/ca-certificates.crt"
    put(root / bundle, "".join(one.read_text() for one in trusted))
    (root / "usr/lib/ssl").mkdir(exist_ok=True)
    (root / "usr/lib/ssl/cert.pem").symlink_to(f"/{bundle}")
    put(root / "etc/nsswitch.conf", "hosts: files dns\n")
    put(root / "etc/passwd", f"root:x:0:0::/:\nlogfan:x:{_USER}:{_USER}::/var/lib/logfan:\n")
    put(root / "etc/group", f"root:x:0:\nlogfan:x:{_USER}:\n")


def _write_ours(root: Path, tree: Path) -> None:
    for part in (LIBRARIES, "usr/bin"):
        shutil.copytree(tree / part, root / part, symlinks=True)
    put(root / "etc/logfan/config.toml", (ROOT / "config.toml").read_text("utf-8"))
    for folder in ("etc/logfan/plugins", *_WRITABLE):
        (root / folder).mkdir(parents=True)
    (root / "run/logfan").chmod(0o700)


def _compile(debian: Path, folder: Path) -> None:
    """By the image's own Python, as its user may not. `unchecked`: sources are not looked at."""
    [loader] = (debian / "lib64").iterdir()
    libraries = ":".join({str(path.parent) for path in debian.rglob("lib*.so*")})
    python = debian / f"usr/bin/python{debian_python()}"
    subprocess.run(
        [debian / loader.readlink().relative_to("/"), "--library-path", libraries,
         python, "-B", "-S", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash",
         "-s", folder.parents[2], "-p", "/", folder],
        env={"PYTHONHOME": str(debian / "usr"), "PYTHONHASHSEED": "0"},
        check=True, timeout=STEP_SECONDS,
    )  # fmt: skip


def _write_layout(layout: Path, layers: Sequence[bytes], epoch: int) -> None:
    """The folder of the specification: blobs by their hash, and an index."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    config = {
        "created": created, "os": "linux",
        "architecture": printed("dpkg", "--print-architecture"), "config": _CONFIG,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        "history": [{"created": created, "created_by": "make dist"} for _ in layers],
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _blob(layout, f"{_OCI}.config.v1+json", _json(config)),
        "layers": [_blob(layout, f"{_OCI}.layer.v1.tar+gzip", gzipped(one)) for one in layers],
    }  # fmt: skip
    described = _blob(layout, f"{_OCI}.manifest.v1+json", _json(manifest))
    names = {
        "org.opencontainers.image.ref.name": __version__,
        "io.containerd.image.name": f"localhost/logfan:{__version__}",
    }
    index = {"schemaVersion": 2, "manifests": [{**described, "annotations": names}]}
    put(layout / "index.json", _json(index).decode())
    put(layout / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')


def _blob(layout: Path, kind: str, content: bytes) -> Mapping[str, object]:
    """Write it, and describe it."""
    digest = _digest(content)
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
