"""Pages of ours in a real browser: what they say on the console and what they ask of the network."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


def until(page: Page, expression: str) -> None:
    """Wait for an expression to hold. (Playwright's own way uses eval, which our pages forbid.)"""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.02)


class Opened:
    """A tab, with what its page said on the console and what it asked of the network."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, fragment: str = "", *, charts: bool = True, samples: bool = True) -> Page:
        """Open a file, and wait for the charts and the sample browser that it is to have."""
        self.page.goto(path.as_uri() + fragment)
        if charts:
            until(self.page, "document.documentElement.dataset.charts === 'drawn'")
        if samples:
            self.page.wait_for_selector("#browser[data-ready]", state="attached")
        return self.page

    def assert_quiet(self) -> None:
        """No complaint on the console, and no request but for the file itself."""
        assert self.complaints == []
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert outside == []


@pytest.fixture(scope="module")
def browser(charts_cache: Path) -> Iterator[Browser]:
    """Chromium, with a cache folder of the tests' own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALRUN_CACHE", str(charts_cache))
        with playwright.sync_playwright() as driver:
            launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield launched
            launched.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """A tab of its own, 1440 x 900."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Opened(context.new_page())
    context.close()
