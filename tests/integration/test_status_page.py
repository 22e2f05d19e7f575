"""The status page in a real browser: beside a real daemon, and with what a daemon may ever send."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from logfan.testing.node import RabbitNode
from support.axe import script
from support.broker import Names, publish
from support.browser import Browser, browsing
from support.daemon import DaemonProcess
from support.drop_ins import add_drop_in
from support.needed import needed
from support.screenshots import STATES
from support.status import document, served, sink
from support.waiting import PATIENCE_SECONDS, wait_until

MOODY = """
import logfan, pathlib


class Moody(logfan.Sink):
    '''Is down while a file says so.'''

    def write(self, records):
        if pathlib.Path("down").exists():
            raise logfan.SinkUnavailable("the store is away")


@logfan.hookimpl
def register_sinks(register):
    register("moody", Moody)
"""
SINKS = (
    '[sinks.store]\nkind = "moody"\nretry = { initial = "50ms", max = "100ms" }\n'
    '[sinks.archive]\nkind = "file"\npath = "all.jsonl"\n'
)
CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const channels = colour => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
function ground(element) {
  for (let one = element; one; one = one.parentElement) {
    const found = channels(getComputedStyle(one).backgroundColor);
    if (found[3] === 255) return found;
  }
  return [255, 255, 255];
}
const found = [];
for (const one of document.body.querySelectorAll("*")) {
  const own = [...one.childNodes].find(node => node instanceof Text && node.data.trim());
  if (!own || !one.checkVisibility()) continue;
  const [a, b] = [luminance(channels(getComputedStyle(one).color)), luminance(ground(one))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  found.push([ratio, own.data.trim()]);
}
return found;
"""
"""The contrast of each visible text with what is behind it."""
AA = 4.5
AXE = """
return axe.run().then(found => [
  found.violations.map(one => [one.id, one.help, one.nodes.map(node => node.html)]),
  found.passes.length,
]);
"""
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&amp;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with needed(), browsing() as one:
        yield one


@contextmanager
def shown(browser: Browser, status: dict[str, Any], **how: Any) -> Iterator[None]:
    """The page of a daemon with this status, filled."""
    with served(status) as server:
        browser.open(f"{server.url}/", **how)
        wait_until(lambda: browser.text("#updated").startswith("As of"), "the page is filled")
        yield
        browser.open("about:blank")  # before the server goes: the page asks it again and again


def tone(browser: Browser) -> str:
    return str(browser.run("return document.documentElement.dataset.tone"))


def open_details(browser: Browser) -> None:
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")


def fits(browser: Browser) -> bool:
    """Nothing has to be scrolled sideways, neither the page nor a part of it."""
    return bool(
        browser.run(
            "return [document.documentElement, ...document.querySelectorAll('.list')]"
            ".every(one => one.scrollWidth <= one.clientWidth)"
        )
    )


def check_looks(browser: Browser) -> None:
    for width in (390, 1280):
        browser.resize(width)
        assert fits(browser), width
    for dark in (True, False):
        browser.prefer(dark=dark)
        texts = browser.run(CONTRAST)
        assert len(texts) > 40
        assert [one for one in texts if one[0] < AA] == []


def test_the_page_follows_a_daemon_through_its_life(
    browser: Browser, own_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    add_drop_in(tmp_path, "moody", MOODY)
    down = tmp_path / "down"
    patient = {"LOGFAN_SHUTDOWN_TIMEOUT": f"{PATIENCE_SECONDS:.0f}s"}
    with DaemonProcess(tmp_path, own_node.url, names, SINKS, environ=patient) as daemon:
        browser.open(f"http://127.0.0.1:{daemon.port}/")
        wait_until(lambda: browser.title == "✓ consuming · logfan", "it is up")
        assert (tone(browser), browser.text("#stale")) == ("good", "")
        assert browser.text("#ready").startswith("Ready: consuming for ")
        open_details(browser)
        assert browser.text("#origins").count("moody") == 2
        assert f"queue.name\n{names.queue}" in browser.text("#keys")
        assert "rabbitmq.urls\n***" in browser.text("#keys")
        check_looks(browser)
        assert browser.complaints() == []

        down.touch()
        publish(own_node.url, names.exchange, [b"one", b"two"])
        wait_until(lambda: browser.title == "✕ sink store is down · logfan", "the sink is down")
        assert browser.text("#ready").startswith("Not ready: sink store is down for ")
        assert browser.text("#reasons") == "sink store is down: the store is away"
        first = browser.text("#sinks tbody tr")
        assert first.startswith("store")
        assert "the store is away" in first
        wait_until(lambda: browser.text("#in-flight") == "2", "two are in flight")
        wait_until(lambda: "the store is away" in browser.text("#troubles"), "it is a trouble")
        check_looks(browser)

        daemon.signal(signal.SIGTERM)
        wait_until(lambda: browser.title == "! draining · logfan", "it drains")
        assert browser.text("#reasons") == "stopping"
        assert browser.complaints() == []
        down.unlink()
        assert daemon.wait() == 0
        wait_until(lambda: browser.title == "? no answer · logfan", "the page is stale")
        stale = browser.text("#stale")
        assert stale.startswith("The daemon does not answer: no connection. What is below is ")
        assert all("net::ERR_" in one for one in browser.complaints())

        daemon.start()
        wait_until(lambda: browser.title == "✓ consuming · logfan", "it is up again")
        assert (tone(browser), browser.text("#stale")) == ("good", "")
        browser.complaints()
        own_node.kill()
        wait_until(lambda: browser.title == "✕ connecting · logfan", "the broker is away")
        assert browser.text("#reasons").startswith("not consuming: ")
        assert browser.text("#detail") == "", "it is the reason"
        check_looks(browser)
        assert browser.complaints() == []


def test_what_others_wrote_is_text_and_no_part_of_the_page(browser: Browser) -> None:
    status = document(
        instance=EVIL, version=EVIL, config=EVIL, detail=f"{EVIL} too", queue=EVIL, ready=False,
        reasons=[EVIL], sinks=[sink(EVIL, kind=EVIL, state="down", failure=EVIL)],
        troubles=[{"at": 0.0, "text": EVIL, "level": EVIL, "count": 2}],
        dead_letters=[{"sink": EVIL, "reason": EVIL, "count": 3}],
        plugins=[{"kind": EVIL, "origin": EVIL}], config_keys={EVIL: EVIL, "list": [EVIL]},
    )  # fmt: skip
    with shown(browser, status):
        open_details(browser)
        assert browser.text().count(EVIL) == 19
        assert EVIL in browser.title
        assert browser.run("return window.hacked ?? document.querySelectorAll('img').length") == 0
        assert browser.run("return document.querySelectorAll('script').length") == 1
        assert fits(browser)
    assert not any("Content Security" in one for one in browser.complaints())


def test_a_refresh_leaves_scroll_focus_and_selection(browser: Browser) -> None:
    status = document(
        troubles=[{"at": 0.0, "text": f"trouble {n}", "count": 1} for n in range(20)],
        config_keys={f"key.{n}": n for n in range(100)},
    )
    with shown(browser, status):
        browser.run("document.querySelector('#config summary').focus()")
        browser.press(Keys.ENTER)
        browser.run(
            "document.querySelector('#troubles').scrollTop = 50; scrollTo(0, 700);"
            "getSelection().selectAllChildren(document.querySelector('#sinks tbody b'));"
        )
        where = (
            "return [scrollY, document.querySelector('#troubles').scrollTop, "
            "document.activeElement.parentElement.id, String(getSelection()), "
            "document.querySelector('#config').open]"
        )
        before = browser.run(where)
        assert before == [700, 50, "config", "archive", True]
        status |= {"received": 123_456, "now": status["now"] + 7.0}
        status["config_keys"]["another"] = "key"
        wait_until(lambda: "123,456" in browser.text("#received-note"), "it is refreshed")
        assert browser.text("#keys").endswith("another\nkey")
        assert browser.run(where) == before
    assert browser.complaints() == []


def test_a_reader_of_the_screen_finds_tables_pictures_and_news_by_name(browser: Browser) -> None:
    with shown(browser, STATES["sink-down"]()):
        nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
        roles: dict[str, list[str]] = {}
        for node in nodes:
            name = node.get("name", {}).get("value", "")
            roles.setdefault(node.get("role", {}).get("value", ""), []).append(name)
        assert [one for one in roles["rowheader"] if one.startswith("search")]
        assert len(roles["columnheader"]) == 12
        assert roles["status"]
        assert all(roles["image"])
        assert "Messages a second" in roles["heading"]
        assert (
            browser.run("return document.querySelector('[role=status]').textContent")
            == "Not ready: sink search is down"
        )


def test_without_a_script_the_page_has_the_main_facts(browser: Browser) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        with served(STATES["sink-down"]()) as server:
            browser.open(f"{server.url}/", width=390)
            text = browser.text()
            assert browser.title == "✕ Not ready · logfan"
            assert "sink search is down: search.example:9200: connection refused" in text
            assert "81,204" in text
            assert "Last troubles" not in text
            assert fits(browser)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


@pytest.fixture(scope="module")
def axe() -> str:
    with needed():
        return script()


@pytest.mark.long
@pytest.mark.parametrize("state", STATES)
def test_nothing_of_a_state_keeps_anyone_from_using_it(
    browser: Browser, axe: str, state: str
) -> None:
    with shown(browser, STATES[state]()):
        open_details(browser)
        browser.run(axe)
        for dark in (True, False):
            browser.prefer(dark=dark)
            violations, passes = browser.run(AXE)
            assert violations == []
            assert passes > 20


@pytest.mark.parametrize("state", STATES)
def test_each_state_reads_well(browser: Browser, state: str) -> None:
    with shown(browser, STATES[state]()):
        open_details(browser)
        check_looks(browser)
    assert browser.complaints() == []
