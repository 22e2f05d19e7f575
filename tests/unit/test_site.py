"""The docs site, built as `make site` builds it: without a warning, whole, from no other host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page says of itself: its title, anchors and links, and what a browser loads for it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: set[str] = set()
        self.loads: set[str] = set()
        text = file.read_text("utf-8")
        self.title = re.findall(r"<title>(.+?)</title>", text.partition("</head>")[0])
        self.loads.update(_loaded_by_style(text))
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag == "a":
            self.links.add(given.get("href", ""))
        else:
            self.loads.update(given[name] for name in ("href", "src", "srcset") if name in given)


def _loaded_by_style(text: str) -> list[str]:
    return re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^)"'\s]+)""", text)


@pytest.mark.slow
def test_every_link_leads_somewhere_and_no_page_needs_another_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build = ["-q", "-W", "--keep-going", "-c", "daemon/docs", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *build, ".", str(site)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    pages = {file: Page(file) for file in site.rglob("*.html")}
    assert {site / "index.html", site / "systemd/README.html"} < pages.keys()
    for file, page in pages.items():
        assert len(page.title) == 1, f"{file} has no title"
        for load in page.loads:
            assert not urlsplit(load).netloc, f"{file} loads {load}"
            assert load.startswith("data:") or _target(file, load).is_file(), f"{file}: {load}"
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            target = _target(file, link)
            assert target.is_file(), f"{file}: {link}"
            if target in pages:
                assert unquote(urlsplit(link).fragment) in pages[target].anchors, f"{file}: {link}"
    for style in site.rglob("*.css"):
        assert not _loaded_by_style(style.read_text("utf-8")), style


def _target(file: Path, link: str) -> Path:
    path = unquote(urlsplit(link).path)
    return (file.parent / path).resolve() if path else file
