"""A real browser without a window: Debian's Chromium, unpacked, driven by Selenium."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from logfan.testing.debian import unpacked
from logfan.testing.versions import library_path

_PACKAGES = (
    "chromium-headless-shell", "chromium-common", "chromium-driver", "fonts-inter",
    "fonts-dejavu-core",
)  # fmt: skip
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip
_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>{root}/usr/share/fonts</dir><cachedir>{folder}/fonts</cachedir>
<alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias><family>ui-monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


class Browser:
    """One window of it."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Show this page."""
        self.resize(width)
        self.prefer(dark=dark)
        self._driver.get(url)

    def resize(self, width: int, height: int = 900) -> None:
        """Have the window so large, to the pixel."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, *, dark: bool) -> None:
        """Have the user prefer a dark page, or a light one."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script of the test returns."""
        return self._driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """What a reader sees of the first such element; empty where it is hidden."""
        script = "const one = document.querySelector(arguments[0]);"
        script += "return one?.checkVisibility() ? one.innerText : ''"
        return str(self.run(script, selector)).strip()

    def press(self, key: str) -> None:
        """A key, where the focus is."""
        self._driver.switch_to.active_element.send_keys(key)

    @property
    def title(self) -> str:
        """The document's."""
        return self._driver.title

    def complaints(self) -> list[str]:
        """Of its console, since the last call: errors of scripts, what the policy forbids."""
        return [str(one["message"]) for one in self._driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def command(self, name: str, **parameters: Any) -> Any:
        """One of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(name, parameters)

    def picture(self) -> bytes:
        """The whole page, as PNG."""
        self.resize(*self.run("return [innerWidth, document.documentElement.scrollHeight]"))
        return self._driver.get_screenshot_as_png()


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, which ends with all of its processes. Raises DebianUnavailable."""
    root = unpacked(*_PACKAGES)
    folder = Path(tempfile.mkdtemp(prefix="logfan-browser-"))
    fonts = folder / "fonts.conf"
    fonts.write_text(_FONTS.format(root=root, folder=folder))
    environ = {
        "PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC",
        "LC_ALL": "C.UTF-8", "FONTCONFIG_FILE": str(fonts),
        # PulseAudio's own library lies beside the others.
        "LD_LIBRARY_PATH": ":".join(
            f"{one}:{one}/pulseaudio" for one in library_path(root).split(":")
        ),
    }  # fmt: skip
    options = ChromeOptions()
    options.binary_location = str(root / "usr/lib/chromium/chromium-headless-shell")
    options.set_capability("browserName", "chrome-headless-shell")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in (*_OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    service = Service(executable_path=str(root / "usr/bin/chromedriver"), env=environ)
    try:
        driver = Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
