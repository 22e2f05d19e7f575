"""The docs site: Sphinx shows the repository's own pages, read where they are. `make site`."""
# ruff: noqa: INP001 - Sphinx reads it as a file

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

from logfan import __version__ as release

ROOT = Path(__file__).parents[2]
MAP = "daemon/docs/README"
"""Lists all pages: its headings and links are the navigation of the site."""
LISTS = ("systemd/README", "plugins/docs/README", "tests/README")
"""Pages that have others below them."""

__all__ = ["release", "setup"]
project = html_title = "logfan"
root_doc = "README"
include_patterns = ["[A-Z]*.md", "daemon/**.md", "plugins/**.md", "systemd/**.md", "tests/**.md"]
exclude_patterns = [".*", "**/.*", "**/node_modules", "dist", "site"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
smartquotes = False
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False


def _navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += _toctree([f"/{MAP}"])
        for part in (ROOT / f"{MAP}.md").read_text("utf-8").split("\n## ")[1:]:
            source[0] += _toctree(_linked(MAP, part), f":caption: {part.splitlines()[0]}")
    elif page in LISTS:
        source[0] += _toctree(_linked(page, source[0]))


def _linked(page: str, text: str) -> list[str]:
    """The pages that a text of this page links to as a whole."""
    folder = (ROOT / page).parent
    links = dict.fromkeys(re.findall(r"\]\(([^)#:]+)\.md\)", text))
    return [f"/{(folder / link).resolve().relative_to(ROOT)}" for link in links]


def _toctree(pages: list[str], *options: str) -> str:
    return "\n".join(["\n```{toctree}", ":hidden:", *options, "", *pages, "```\n"])


def _add_index(app: Sphinx, failure: Exception | None) -> None:
    """Web servers show `index.html` first."""
    if failure is None:
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _navigation)
    app.connect("build-finished", _add_index)
