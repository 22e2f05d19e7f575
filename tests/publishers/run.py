"""Runs the programs of this folder against a private RabbitMQ, and writes the corpus anew.

`python -m publishers.run [LANGUAGE…]`, with `tests` on PYTHONPATH; `make publishers` does that.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from logfan.testing.debian import DebianUnavailable, cache_folder
from logfan.testing.node import RabbitNode
from publishers import broker, debian
from publishers.recorder import Recorder

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_PINNED_IN = (".txt", ".json", ".toml", ".xml")
_INSTALL_SECONDS = 900
_PUBLISH_SECONDS = 60
# The messages name the program, and not where it lies on this machine.
_AS_SCRIPT = (
    "import os, sys; os.chdir('/'); sys.executable = 'python3'; source = open(sys.argv[1]).read(); "
    "sys.argv = ['publish.py', *sys.argv[2:]]; exec(compile(source, 'publish.py', 'exec'))"
)
Program = Callable[[], object]


class Unavailable(Exception):
    """A language cannot be had on this machine; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Language:
    """A folder of programs; `prepare` installs the libraries and gives the command to run."""

    tools: Sequence[str]
    prepare: Callable[[Path, Path], Sequence[str | Path]]
    """Takes the folder of the sources, and one for what is installed."""


def _run(*command: str | Path, cwd: Path | None = None, seconds: int = _INSTALL_SECONDS) -> str:
    """What the command prints. Raises Unavailable with its last lines."""
    environment = {**os.environ, "TZ": "UTC", "PYTHONWARNINGS": "ignore", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} takes more than {seconds} s") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        called = " ".join(map(str, command))[:200]
        raise Unavailable(f"{called} ended with {done.returncode}:\n{last}")
    return done.stdout


def _python(source: Path, into: Path) -> Sequence[str | Path]:
    python = into / "venv/bin/python"
    if not (into / "ready").exists():
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", into / "venv")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
        _run(*pip, "install", "-q", "--require-hashes", "-r", source / "requirements.txt")
        (into / "ready").touch()
    return python, "-c", _AS_SCRIPT, source / "publish.py"


def _node(source: Path, into: Path) -> Sequence[str | Path]:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, into / name)
    if not (into / "ready").exists():
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=into)
        (into / "ready").touch()
    return "node", "-e", (source / "publish.js").read_text(), "--"


def _go(source: Path, into: Path) -> Sequence[str | Path]:
    _run("go", "build", "-trimpath", "-o", into / "publish", ".", cwd=source)
    return (into / "publish",)


def _java(source: Path, into: Path) -> Sequence[str | Path]:
    libraries, classes = into / "lib", into / "classes"
    if not (into / "ready").exists():
        # Of this folder, so that nothing is written beside the sources.
        shutil.copy(source / "pom.xml", into / "pom.xml")
        _run(
            "mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={libraries}",
            cwd=into,
        )  # fmt: skip
        (into / "ready").touch()
    _run("javac", "-d", classes, "-cp", f"{libraries}/*", *sorted(source.glob("*.java")))
    return "java", "-cp", f"{classes}:{libraries}/*", "Publish"


def _rust(source: Path, into: Path) -> Sequence[str | Path]:
    # Cargo writes its lock beside the sources.
    shutil.copytree(source, into / "source", dirs_exist_ok=True)
    _run("cargo", "build", "-q", "--target-dir", into / "target", cwd=into / "source")
    return (into / "target/debug/publishers",)


LANGUAGES = {
    "python": Language((), _python),
    "node": Language(("node", "npm"), _node),
    "go": Language(("go",), _go),
    "java": Language(("java", "javac", "mvn"), _java),
    "rust": Language(("cargo",), _rust),
}
OWN = {"debian": debian.programs, "broker": broker.programs, "broker-json": broker.programs_as_json}
"""What needs no language: Debian's programs, and the broker itself."""


def _programs(name: str, recorder: Recorder, node: RabbitNode) -> Iterator[tuple[str, Program]]:
    """The publishers of a language, by their names."""
    if name in OWN:
        yield from OWN[name](node, recorder)
        return
    language = LANGUAGES[name]
    if missing := [tool for tool in language.tools if shutil.which(tool) is None]:
        raise Unavailable(f"there is no {', '.join(missing)}")
    source = HERE / name
    # Other libraries, another folder.
    pins = (path for path in sorted(source.iterdir()) if path.suffix in _PINNED_IN)
    locks = b"".join(path.read_bytes() for path in pins)
    into = cache_folder() / "publishers" / f"{name}-{hashlib.sha256(locks).hexdigest()[:12]}"
    into.mkdir(parents=True, exist_ok=True)
    command = language.prepare(source, into)
    for publisher in _run(*command, cwd=into).split():
        yield (
            publisher,
            partial(_run, *command, publisher, node.url, cwd=into, seconds=_PUBLISH_SECONDS),
        )


def record(name: str, recorder: Recorder, node: RabbitNode) -> list[dict[str, Any]]:
    """Run all publishers of a language. Raises Unavailable where one of them fails."""
    messages: list[dict[str, Any]] = []
    for publisher, program in _programs(name, recorder, node):
        program()
        taken = recorder.take(publisher)
        if not taken:
            raise Unavailable(f"{publisher} published nothing")
        print(f"  {name}/{publisher}: {len(taken)}", flush=True)
        messages += taken
    return messages


def main(names: Sequence[str]) -> int:
    """Exits 1 where a part of the corpus stays as it was."""
    kept = []
    CORPUS.mkdir(exist_ok=True)
    for name in names or (*LANGUAGES, *OWN):
        plugins, config = broker.SETTINGS.get(name, ((), ()))
        with RabbitNode(plugins=plugins, config=config) as node, Recorder(node) as recorder:
            try:
                messages = record(name, recorder, node)
            except (Unavailable, DebianUnavailable) as error:
                kept.append(name)
                print(f"{name}: {error}\n{name}: corpus/{name}.json stays as it was", flush=True)
                continue
            corpus = {"rabbitmq": node.version, "messages": messages}
            text = json.dumps(corpus, indent=1, ensure_ascii=False)
            (CORPUS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
            print(f"{name}: {len(messages)} messages", flush=True)
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
