"""The layout, held: imports run downward only, and no function outgrows a screen."""

import ast
from functools import cache
from pathlib import Path

import pika

ROOT = Path(__file__).parents[1]
HOST = ROOT / "daemon/logfan"
SINKS = ROOT / "plugins/logfan_sinks"

# What plugins import, and what that is made of: nothing of it imports the rest of the host.
PUBLIC = {
    "", "record", "sink", "charsets", "compression", "dotted_path", "fields", "hookspecs",
    "json_trees", "transform",
}  # fmt: skip
BASE = {*PUBLIC, "stage", "amqp_properties", "faults", "field_table", "runtime"}

# Each package and each module beside them, and what it may import; "" is `logfan` itself. What is
# not here has not found its place yet.
ALLOWED: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {
        *BASE, "json_format", "config", "plugins", "telemetry", "amqp", "dead_letters", "pipeline",
        "testing", "daemon", "doctor", "control",
    },
    "doctor": {*BASE, "config", "plugins", "amqp"},
    "daemon": {
        *BASE, "config", "plugins", "telemetry", "amqp", "dead_letters", "pipeline", "status",
        "control",
    },
    "control": {"runtime"},
    "status": {*BASE, "config", "telemetry", "pipeline"},
    "testing": {*BASE, "config", "plugins", "telemetry", "amqp", "dead_letters", "pipeline"},
    "pipeline": {*BASE, "config", "telemetry", "amqp", "dead_letters"},
    "dead_letters": {*BASE, "config", "amqp"},
    "amqp": {*BASE, "config"},
    "config": {*BASE, "plugins"},
    "telemetry": {"runtime"},
    "plugins": {*BASE},
    "json_format": {"record", "amqp_properties", "charsets", "json_trees"},
    "amqp_properties": {"field_table", "record"},
    "field_table": set(),
    "__init__": {"config", "fields", "hookspecs", "json_format", "record", "sink", "transform"},
    "hookspecs": {"sink", "transform"},
    "sink": {"record", "runtime"},
    "stage": {
        "fields", "record", "charsets", "dotted_path", "json_trees", "runtime", "sink", "transform",
    },
    "transform": {"record", "sink"},
    "fields": {"record", "dotted_path"},
    "record": {"charsets", "compression", "dotted_path", "json_trees"},
    "dotted_path": set(),
    "compression": {"charsets"},
    "charsets": set(),
    "json_trees": set(),
    "faults": set(),
    "runtime": set(),
}  # fmt: skip

PIKA = {
    "amqp", "dead_letters/publisher.py", "pipeline/dispatcher.py",
}  # fmt: skip
"""Where pika is known."""

MODULES = sorted(HOST.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(HOST))


def place(path: Path) -> str:
    """The package of the host that a file is in, or the file itself."""
    return path.relative_to(HOST).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their full names."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def places(names: set[str]) -> set[str]:
    """Which places of the host are among these modules; "" is the package itself."""
    found = set()
    for one in names:
        parts = one.split(".")
        if parts[0] == "logfan":
            known = len(parts) > 1 and (
                (HOST / f"{parts[1]}.py").exists() or (HOST / parts[1]).is_dir()
            )
            found.add(parts[1] if known else "")
    return found


def test_a_module_imports_only_what_lies_below_it() -> None:
    for path in MODULES:
        assert places(imported(path)) - {place(path)} <= ALLOWED[place(path)], name(path)


def test_no_package_imports_another_in_a_circle() -> None:
    below: dict[str, set[str]] = {}
    for path in MODULES:
        if place(path) != "__init__":
            below.setdefault(place(path), set()).update(places(imported(path)) - {place(path), ""})
    while below:
        lowest = {one for one, others in below.items() if not others & below.keys()}
        assert lowest, below
        below = {one: others for one, others in below.items() if one not in lowest}


def test_pika_is_known_in_few_places() -> None:
    for path in MODULES:
        knows = any(one.split(".")[0] == "pika" for one in imported(path))
        assert not knows or {place(path), name(path)} & PIKA, name(path)


@cache
def private_names_of_pika() -> set[str]:
    """What the parts of pika that are used here call `_so`."""
    folder = Path(pika.__file__).parent
    paths = [folder / f"{one}.py" for one in ("connection", "channel", "callback", "heartbeat")]
    paths += [folder / f"adapters/{one}_connection.py" for one in ("base", "select")]
    paths += (folder / "adapters/utils").glob("*.py")
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
    return {one for one in found if one.startswith("_") and not one.startswith("__")}


def private_names_used(path: Path) -> set[str]:
    """Private names that a file reaches for in objects of others, or in a connection of pika that
    is its own class."""
    tree = tree_of(path)
    is_pikas = any(
        isinstance(base, ast.Name | ast.Attribute) and ast.unparse(base).endswith("Connection")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if is_pikas or ast.unparse(node.value) not in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.FunctionDef) and is_pikas:
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return {one for one in found if one.startswith("_") and not one.startswith("__")}


def test_pikas_private_parts_are_touched_in_one_file() -> None:
    for path in MODULES:
        touched = private_names_used(path) & private_names_of_pika()
        assert not touched or name(path) == "amqp/pika_internals.py", (name(path), touched)


def test_a_built_in_sink_imports_only_public_names() -> None:
    for path in SINKS.rglob("*.py"):
        assert places(imported(path)) <= {""}, path


def test_every_module_says_its_job_and_functions_stay_short() -> None:
    for path in (*MODULES, *SINKS.rglob("*.py")):
        tree = tree_of(path)
        assert ast.get_docstring(tree) or not tree.body, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, (path, node.name)


def test_the_two_source_roots_are_no_packages() -> None:
    assert not (ROOT / "daemon/__init__.py").exists()
    assert not (ROOT / "plugins/__init__.py").exists()
