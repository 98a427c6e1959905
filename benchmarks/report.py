"""The HTML report of a large sweep: how fast it is written, how large it is, how fast it opens and filters.

    python benchmarks/report.py --base-url http://127.0.0.1:8900/v1 [--samples 100000] [--out FILE.json]

Makes a sweep against a null server first. `write_cpu_s` is the processor time of writing, which hardly
depends on what else the machine does. The page is opened in headless Chromium (Playwright drives it).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from overhead import SUITE, SYSTEM, write_data

WRITE = """\
import resource, sys, time
from pathlib import Path
from evalrun.reports.report import write_report
from evalrun.tracking.folder import SweepFolder
begun, busy = time.perf_counter(), time.process_time()
write_report(SweepFolder(Path(sys.argv[1])), Path(sys.argv[2]))
print(time.perf_counter() - begun, time.process_time() - busy,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""
FILTER = """async () => { const begun = performance.now();
document.querySelector('#chips [data-kind=wrong]').click();
await new Promise((done) => requestAnimationFrame(done)); return performance.now() - begun; }"""


def make_sweep(folder: Path, base_url: str, samples: int) -> Path:
    """The folder of a finished sweep of so many samples."""
    data = write_data(folder, samples)
    suite = folder / "suite.yaml"
    suite.write_text(SUITE.format(base_url=base_url, data=data, stream="false", in_flight=64, system=SYSTEM))
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", str(folder / "store"), "--no-report"]
    subprocess.run([*command, "--no-cache", "--quiet"], check=True, capture_output=True)
    (sweep,) = (folder / "store" / "sweeps").iterdir()
    return sweep


def opened(report: Path) -> dict[str, float]:
    """Seconds until the sample browser is ready, and until a filter over all samples is shown."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--headless=new", "--no-sandbox"])
        page = browser.new_page()
        page.goto(report.as_uri())
        page.wait_for_selector("#browser[data-ready]")
        ready = page.evaluate("performance.now()") / 1000
        filtered = page.evaluate(FILTER) / 1000
        browser.close()
    return {"open_s": ready, "filter_s": filtered}


def measure(base_url: str, samples: int) -> dict[str, Any]:
    """All figures, taken one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = make_sweep(folder, base_url, samples)
        report = folder / "report.html"
        command = [sys.executable, "-c", WRITE, str(sweep), str(report)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return {
            "samples": samples,
            "write_s": float(printed[0]),
            "write_cpu_s": float(printed[1]),
            "peak_rss_mb": float(printed[2]),
            "load_average": os.getloadavg()[0],
            "size_mb": report.stat().st_size / 1e6,
            **opened(report),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the report of a large sweep.")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.base_url, options.samples), indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
