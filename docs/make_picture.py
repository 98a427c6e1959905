"""Makes the report that the repository keeps as an example, and the picture of it that the README shows.

    python docs/make_picture.py                                run the quickstart, then take the picture
    python docs/make_picture.py --report reports/example.html  take the picture of a report that is there

The quickstart is run on the embedded model, which takes a minute or two. Needs Playwright's Python package
and a Chromium, as the browser tests do (`pip install -e ".[dev]"`).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE, EXAMPLE, PICTURE = "suites/quickstart.yaml", "reports/example.html", "docs/report.png"
WIDTH, HEIGHT, SCALE = 1280, 1600, 1.5


def run_quickstart() -> None:
    """Run the suite in the repository, anew; its report is the example."""
    command = [sys.executable, "-m", "evalrun", SUITE, "--fresh", "--no-cache", "--report", EXAMPLE]
    subprocess.run(command, cwd=ROOT, check=True)


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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="the report of which a picture is taken"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", default=ROOT / PICTURE)
    options = parser.parse_args()
    if options.report is None:
        run_quickstart()
    take(options.report or ROOT / EXAMPLE, options.out)
