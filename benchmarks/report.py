"""The HTML report of a large sweep, and the comparison of two: how fast they are written, how large they are,
how fast they open and filter; and how long `show`, `list` and `compare` take.

    python benchmarks/report.py [--base-url http://127.0.0.1:8900/v1] [--samples 100000] [--out FILE.json]

Makes a sweep against a null server first, and two of recorded answers, one in ten of which differs (without
`--base-url` these alone). `write_cpu_s` is the processor time of writing, which hardly
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
import time
from collections.abc import Sequence
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
COMPARE = """\
import resource, sys, time
from pathlib import Path
from evalrun.analysis.compare import CompareOptions, compare
from evalrun.analysis.beside import compare_beside
from evalrun.analysis.pairing import Chosen
from evalrun.reports.comparison import write_comparison
from evalrun.tracking.folder import SweepFolder
begun, busy = time.perf_counter(), time.process_time()
folders = [SweepFolder(Path(name)) for name in sys.argv[1:3]]
chosen = [Chosen(folder) for folder in folders]
compared = compare(chosen, CompareOptions())
beside = compare_beside(chosen, CompareOptions(), ["exact_match"])
tested = time.perf_counter() - begun
write_comparison(compared, folders, Path(sys.argv[3]), beside)
print(time.perf_counter() - begun, time.process_time() - busy,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, tested)
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


RECORDED = """\
name: {name}
models: [{{id: m, provider: recorded, column: {name}}}]
prompts: [{{id: p, text: "{{{{ question }}}}"}}]
datasets: [{{id: d, path: recorded.jsonl, key: id, target: target}}]
scorers: [exact_match]
"""


def make_pair(folder: Path, samples: int) -> list[Path]:
    """The folders of two sweeps of so many samples, of which one in ten is answered otherwise."""
    with (folder / "recorded.jsonl").open("w") as file:
        for at in range(samples):
            right, other = ("yes", "no") if at % 3 else ("no", "yes")
            row = {"id": f"s{at}", "question": f"Question {at}: {SYSTEM}", "target": right, "before": right,
                   "after": other if at % 10 == 0 else right}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    made = []
    for name in ("before", "after"):
        (folder / f"{name}.yaml").write_text(RECORDED.format(name=name))
        command = [sys.executable, "-m", "evalrun", str(folder / f"{name}.yaml"), "--no-report", "--quiet"]
        store = folder / f"store-{name}"
        subprocess.run([*command, "--store", str(store)], check=True, capture_output=True)
        made += (store / "sweeps").iterdir()
    return made


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


def measure(base_url: str | None, samples: int) -> dict[str, Any]:
    """All figures, taken one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"samples": samples}
        if base_url:
            found |= written(folder, [WRITE, make_sweep(folder, base_url, samples)])
        pair = make_pair(folder, samples)
        (folder / "small").mkdir()
        small = make_pair(folder / "small", SMALL)
        found["comparison"] = written(folder, [COMPARE, *pair])
        return found | {"commands": commands(pair), f"commands_{SMALL}": commands(small)}


SMALL = 250
"""Samples of a store as a day of trying prompts leaves it."""


def commands(pair: Sequence[Path]) -> dict[str, float]:
    """Seconds that looking takes as whole processes, and their processor time: the least of five."""
    store = ["--store", str(pair[1].parent.parent)]
    words = {
        "show": ["show", "latest", *store],
        "list": ["list", *store],
        "compare": ["compare", *map(str, pair)],
    }
    taken = {}
    for name, given in words.items():
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", "evalrun", *given], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            times.append((time.perf_counter() - begun, usage.ru_utime + usage.ru_stime))
        taken |= {
            f"{name}_s": min(wall for wall, _ in times),
            f"{name}_cpu_s": min(busy for _, busy in times),
        }
    return taken


def written(folder: Path, command: list[Any]) -> dict[str, Any]:
    """What a program that writes a page takes, and the page."""
    page = folder / "page.html"
    words = [sys.executable, "-c", *map(str, command), str(page)]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    figures = dict(
        zip(("write_s", "write_cpu_s", "peak_rss_mb", "tested_s"), map(float, printed), strict=False)
    )
    size = page.stat().st_size / 1e6
    return {**figures, "load_average": os.getloadavg()[0], "size_mb": size, **opened(page)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the pages of large sweeps.")
    parser.add_argument("--base-url", help="A null server; without one only the comparison is measured.")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.base_url, options.samples), indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
