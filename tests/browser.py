"""Chromium as Debian ships it, driven by Playwright: input goes the way a person's does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--autoplay-policy=user-gesture-required")
PATIENCE = 60.0  # seconds for one answer: machines of CI are slow
expect.set_options(timeout=1000 * PATIENCE)

# An ear between the page and the loudspeaker: `peak()` is the loudest sample of the last fifth of a second.
EAR = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode) {
    window.ear = new AnalyserNode(to.context, { fftSize: 8192 });
    connect.call(this, ear);
  }
  return connect.call(this, to, ...rest);
};
window.peak = () => {
  const samples = new Float32Array(8192);
  window.ear?.getFloatTimeDomainData(samples);
  return Math.max(...samples.map(Math.abs));
};
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser.

    Raises:
        FileNotFoundError: this machine has none.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise FileNotFoundError(f"no browser on the path: none of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def context(browser: Browser, *, width: int = 1280, height: int = 800, **options: Any) -> BrowserContext:
    """Windows that share what they keep."""
    options = {"color_scheme": "dark", "locale": "en-GB", **options}
    made = browser.new_context(viewport={"width": width, "height": height}, **options)
    made.set_default_timeout(1000 * PATIENCE)
    return made


class Tab:
    """A window; ``problems``: what its console complains about, ``requests``: what it asks for."""

    def __init__(self, browser: Browser | BrowserContext, **options: Any) -> None:
        """``options``: those of a context of Playwright, unless there is one."""
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.context = context(browser, **options) if isinstance(browser, Browser) else browser
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(error.stack or str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.problems.append(f"{message.text} ({message.location['url']})")

    def open(self, path: Path) -> Page:
        """Show a file and wait until its player is ready."""
        self.problems.clear()
        self.requests.clear()
        self.page.goto(path.resolve().as_uri())
        until(self.page, "Boolean(window.fractalgen)")
        return self.page

    def check(self) -> None:
        """Nothing was complained about."""
        self.page.evaluate("1")  # what the page has said by now arrives first
        assert not self.problems, self.problems


def until(page: Page, condition: str, argument: Any = None) -> Any:
    """Wait for a JavaScript expression or function to become true (Playwright's own way needs ``unsafe-eval``)."""
    limit = time.monotonic() + PATIENCE
    while not (value := page.evaluate(condition, argument)):
        if time.monotonic() > limit:
            raise TimeoutError(f"{condition} never came true")
        page.wait_for_timeout(20)
    return value
