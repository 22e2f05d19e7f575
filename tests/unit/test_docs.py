"""The pages are true: keys, metrics, commands, links and paths that they name exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from logfan.cli import main
from logfan.config.loader import prepare
from logfan.config.settings import Settings, SinkSettings
from publishers.page import PAGE as PUBLISHERS
from publishers.page import page as page_of_publishers
from support.doctor_page import PAGE as DOCTOR
from support.doctor_page import whole_page
from support.sink_pages import FOLDER, pages

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "daemon/DESIGN.md",
    "daemon/PERFORMANCE.md", "plugins/README.md", "systemd/README.md", "tests/README.md",
    "tests/bench/README.md", "tests/brokers/README.md", "tests/chaos/README.md",
    "tests/guard/README.md", "tests/publishers/README.md", "plugins/docs/publishers.md",
    *sorted(f"systemd/{page.name}" for page in (ROOT / "systemd").glob("[a-z]*.md")),
    "daemon/docs/README.md", "daemon/docs/config.md",
    "daemon/docs/commands.md", "daemon/docs/metrics.md", "daemon/docs/tutorial.md",
    "daemon/docs/sink-down.md", "daemon/docs/status.md",
]  # fmt: skip
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchor(heading: str) -> str:
    """A heading as GitHub links to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _keys(model: type[BaseModel], before: str = "") -> list[str]:
    """The dotted keys of a table and of those within it."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _keys(inner, f"{before}{name}.")
        else:
            found.append(before + name)
    return found


def test_the_readme_fits_into_200_lines() -> None:
    assert len(TEXTS["README.md"].splitlines()) < 200


def test_the_readmes_config_has_no_fault(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", TEXTS["README.md"], re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "config.toml").write_text(blocks[0])
    found = prepare(tmp_path / "config.toml", environ={}).sinks
    assert {sink.name for sink in found} == {"archive", "screen"}


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_a_page_names_every_command(page: str) -> None:
    for command in main.list_commands(click.Context(main)):
        assert f"`logfan {command}" in TEXTS[page], command


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_has_the_reader_type_is_there(page: str) -> None:
    typed = re.findall(r"^\$ (?:sudo )?logfan (\w+)", TEXTS[page], re.MULTILINE)
    assert set(typed) <= set(main.list_commands(click.Context(main)))


def test_the_shipped_config_shows_every_key() -> None:
    shipped = (ROOT / "config.toml").read_text(encoding="utf-8")
    for key in [*_keys(Settings), *_keys(SinkSettings)]:
        if key == "sinks":
            continue
        assert re.search(rf"\b{key.rpartition('.')[2]}\b( =|\])", shipped), key


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", _prose(TEXTS[page])):
        if target.startswith("https:"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", _prose(file.read_text()), re.MULTILINE)
            assert anchor in map(_anchor, headings), target


def test_the_list_of_all_pages_names_each() -> None:
    listed = {"README.md", "daemon/docs/README.md"}
    lists = ("daemon/docs", "systemd", "plugins/docs", "tests")
    for page in (f"{folder}/README.md" for folder in lists):
        folder = (ROOT / page).parent
        for link in re.findall(r"\]\(([^)#:]+\.md)\)", (ROOT / page).read_text("utf-8")):
            listed.add(str((folder / link).resolve().relative_to(ROOT)))
    folders = ("daemon", "plugins", "systemd", "tests")
    found = {
        *ROOT.glob("[A-Z]*.md"),
        *(one for name in folders for one in ROOT.glob(f"{name}/**/*.md")),
    }
    pages = {str(path.relative_to(ROOT)) for path in found if "node_modules" not in path.parts}
    assert pages == listed, "daemon/docs/README.md lists each page"


@pytest.mark.parametrize("page", [page for page in PAGES if re.match("daemon/[A-Z]|tests/", page)])
def test_every_source_file_that_a_page_names_exists(page: str) -> None:
    folders = ("daemon", "plugins", "systemd", "tests")
    files = {f"/{path}" for folder in folders for path in (ROOT / folder).rglob("*.py")}
    for name in re.findall(r"`([\w./]+\.py)`", TEXTS[page]):
        assert any(file.endswith(f"/{name}") for file in files), f"{page} names {name}"


def test_the_page_of_each_sink_is_what_its_class_says() -> None:
    found = {page.name: page.read_text() for page in FOLDER.glob("*.md") if page != PUBLISHERS}
    assert found == pages(), "write them anew: make docs"


def test_the_page_of_publishers_says_what_is_tested() -> None:
    assert PUBLISHERS.read_text() == page_of_publishers(), "write it anew: make docs"


def test_the_page_of_the_doctor_lists_each_check_once() -> None:
    assert DOCTOR.read_text() == whole_page(), "write it anew: make docs"
    rows = re.findall(r"^\| `(\S+)` \|", whole_page(), re.MULTILINE)
    assert sorted(set(rows)) == sorted(rows)


def test_the_pages_of_reference_are_what_the_code_says() -> None:
    # In a process of its own: a command of click keeps the help options of its first call.
    done = subprocess.run(
        [sys.executable, "-m", "support.reference_pages", "--json"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/systemd"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name, text in json.loads(done.stdout).items():
        assert (ROOT / "daemon/docs" / name).read_text() == text, "write it anew: make docs"
        assert not re.search(r"\|\s*\|$", text, re.MULTILINE), f"{name} has a row without meaning"


def test_each_config_of_the_page_of_publishers_has_no_fault(tmp_path: Path) -> None:
    text = TEXTS["plugins/docs/publishers.md"]
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        (tmp_path / "config.toml").write_text(block)
        assert prepare(tmp_path / "config.toml", environ={}).sinks
    assert len(blocks) == 3
