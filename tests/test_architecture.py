"""The layout, held: imports run downward only, and no function outgrows a screen."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOST = ROOT / "daemon/logfan"
SINKS = ROOT / "plugins/logfan_sinks"

# Each room, and the rooms it may import. A room that is not here has not found its place yet.
ALLOWED: dict[str, set[str]] = {
    "__init__": {"api", "envelope", "hookspecs", "units"},
    "__main__": {"cli"},
    "api": {"charsets", "encodings", "threads", "trees"},
    "encodings": {"charsets"},
    "charsets": set(),
    "trees": set(),
    "hookspecs": {"api"},
    "units": set(),
    "faults": set(),
    "foreign": set(),
    "threads": {"foreign"},
    "clock": set(),
    "memory": set(),
    "backoff": set(),
    "repetition": {"foreign"},
    "logs": {"foreign", "repetition"},
    "notify": set(),
    "health": set(),
    "metrics": {"clock", "health"},
    "tls": {"foreign"},
    "http_connections": set(),
    "http": {"foreign", "http_connections", "threads", "tls"},
    "explain": {"faults", "foreign"},
    "meanings": set(),
    "amqp_url": set(),
    "amqp_limits": {"codec"},
    "permissions": set(),
    "config": {"amqp_limits", "amqp_url", "explain", "faults", "foreign", "permissions", "units"},
    "environment": {"config", "explain", "faults"},
    "exposure": {"config", "explain", "permissions"},
    "plugins": {"api", "faults", "foreign", "hookspecs"},
    "setup": {
        "amqp_limits", "api", "config", "environment", "explain", "exposure", "faults", "foreign",
        "permissions", "plugins", "tls",
    },
    "ledger": {"api"},
    "handle": {"api", "backoff", "clock", "foreign", "health", "metrics"},
    "aside": {"backoff", "clock", "foreign", "handle", "health", "letters", "metrics", "poison"},
    "rescue": {"aside", "clock", "handle", "ledger", "letters", "metrics", "poison"},
    "worker": {
        "api", "aside", "backoff", "clock", "handle", "health", "ledger", "metrics", "poison",
        "rescue", "threads",
    },
    "codec": {"api"},
    "envelope": {"api", "charsets", "codec", "trees"},
    "letters": {"api", "codec"},
    "frames": {"api", "trees"},
    "packing": {"api", "codec", "letters"},
    "wire": {"api", "codec", "frames", "holding", "memory", "seams"},
    "holding": set(),
    "seams": set(),
    "broker": {"", "amqp_url", "config", "foreign", "replies", "tls"},
    "shape": set(),
    "topology": {"config", "replies", "shape"},
    "declaring": {"topology"},
    "replies": set(),
    "progress": set(),
    "binding": {"config", "shape", "topology"},
    "lookout": {"binding", "declaring", "topology"},
    "stream_watch": {"frames", "wire"},
    "stand_in": set(),
    "subscription": {
        "amqp_url", "binding", "broker", "config", "declaring", "foreign", "lookout", "replies",
        "shape", "stand_in", "stream_watch", "topology", "wire",
    },
    "dead_letter": {
        "amqp_url", "backoff", "broker", "codec", "config", "confirms", "declaring", "faults",
        "foreign", "letters", "packing", "shape", "threads", "topology", "wire",
    },
    "poison": {"api", "ledger"},
    "intake": {"api", "ledger"},
    "apart": {"api", "foreign", "intake", "ledger", "letters", "packing"},
    "reconnect": {"backoff", "broker", "config"},
    "brake": set(),
    "pace": set(),
    "road": {
        "apart", "api", "brake", "clock", "config", "foreign", "frames", "intake", "ledger",
        "metrics", "pace", "progress", "subscription", "topology", "wire", "worker",
    },
    "changes": {"amqp_url", "setup"},
    "consumer": {
        "binding", "broker", "clock", "config", "faults", "ledger", "metrics", "progress",
        "reconnect", "replies", "road", "shape", "subscription", "threads", "topology", "wire",
        "worker",
    },
    "confirms": set(),
    "link": {"amqp_url", "broker", "config", "faults", "foreign", "wire"},
    "publish": {"broker", "config", "confirms", "link"},
    "keeping": {"broker", "codec", "letters", "link", "publish"},
    "dead_queue": {"broker", "keeping", "letters", "link", "packing", "shape", "topology", "wire"},
    "replay": {"broker", "codec", "dead_queue", "link", "packing", "publish"},
    "pipeline": {
        "backoff", "broker", "clock", "consumer", "dead_letter", "metrics", "reconnect", "setup",
        "worker",
    },
    "app": {
        "", "broker", "changes", "clock", "config", "faults", "foreign", "http", "logs", "memory",
        "metrics", "notify", "pipeline", "plugins", "reconnect", "setup",
    },
}  # fmt: skip

PIKA = {
    "broker", "confirms", "consumer", "dead_letter", "declaring", "link", "lookout", "publish",
    "road", "seams", "stand_in", "subscription", "wire",
}  # fmt: skip
"""The rooms that know pika; only `wire` may look inside it, and `seams` for it."""


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their full names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str]) -> set[str]:
    """Which rooms of the host are among these modules; "" is the package itself."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "logfan":
            known = len(parts) > 1 and (
                (HOST / f"{parts[1]}.py").exists() or (HOST / parts[1]).is_dir()
            )
            found.add(parts[1] if known else "")
    return found


@pytest.mark.parametrize("path", sorted(HOST.glob("*.py")), ids=lambda path: path.stem)
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    assert rooms(imported(path)) <= ALLOWED[path.stem]


@pytest.mark.parametrize("path", sorted(HOST.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_brokers_rooms_know_pika(path: Path) -> None:
    knows = any(name.split(".")[0] == "pika" for name in imported(path))
    assert not knows or path.stem in PIKA


@pytest.mark.parametrize("path", sorted(SINKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_built_in_sink_imports_only_public_names(path: Path) -> None:
    assert rooms(imported(path)) <= {""}


@pytest.mark.parametrize(
    "path",
    sorted([*HOST.rglob("*.py"), *SINKS.rglob("*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_room_says_its_job_and_functions_stay_short(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 70, node.name


def test_the_two_source_roots_are_no_packages() -> None:
    assert not (ROOT / "daemon/__init__.py").exists()
    assert not (ROOT / "plugins/__init__.py").exists()
