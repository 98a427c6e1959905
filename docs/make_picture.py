"""Takes the picture of a report that the README shows.

    python docs/make_picture.py reports/example.html docs/report.png

Needs Playwright's Python package and a Chromium, as the browser tests do (`pip install -e ".[dev]"`).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

WIDTH, HEIGHT, SCALE = 1280, 1120, 1.5


def take(report: Path, out: Path) -> None:
    """The first screen of a report, in light colours, once its charts are drawn."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--headless=new", "--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
        page.goto(report.resolve().as_uri())
        page.locator("html[data-charts=drawn]").wait_for()
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Takes the picture of a report that the README shows.")
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    take(**vars(parser.parse_args()))
