"""What privacy costs: redaction per kilobyte, a sweep with it and without, a scan, an erasure.

    python benchmarks/privacy.py [--samples 100000] [--sweep 5000] [--out FILE.json]

- `redaction_us_per_kb`: standard redaction of prose, and of prose with an address, a number and a card.
- `sweep_share`: samples/s of a sweep with `redact: standard` over one without, against the null server; the
  best of three each, in turns; `sweep_share_by_cpu` the same by CPU time, less that of starting, which says
  more where the machine has other work to do.
- `scan_s`: `evalrun privacy scan` of a sweep of so many samples, whole process.
- `erase_s`: `evalrun erase --subject` of one subject (one row in a thousand), whole process, and the
  `audit verify` after it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from overhead import server

PROSE = (
    "The customer wrote to us about the invoice of last month (no. 4711) and asked for a refund, because the "
    "item was broken when it came. We answered within two days: it will be paid back, and a new one is sent. "
)
PLANTED = "Write to ana@example.org or call +49 30 1234567; card 4111 1111 1111 1111, from 192.0.2.17. "
SUITE = """
name: privacy
models: [{{id: "null", provider: openai_compatible, base_url: "{url}", model: "null",
          params: {{temperature: 0, max_tokens: 16}}, concurrency: 64}}]
prompts: [{{id: p, text: "{{{{ question }}}}"}}]
datasets: [{{id: d, path: {data}, key: id, target: answer}}]
parse: [last_number]
scorers: [exact_match]
{more}
"""


def redaction() -> dict[str, float]:
    """Microseconds of CPU a kilobyte, the best of five."""
    from evalrun.privacy import redactor

    clean = redactor({"redact": "standard"}, None)
    figures = {}
    for name, text in (("prose", PROSE * 5), ("planted", PROSE * 2 + PLANTED + PROSE * 2)):
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(500):
                clean(text)
            best = min(best, (time.process_time() - start) / 500 * 1e6 / (len(text) / 1000))
        figures[name] = best
    return figures


def write_rows(path: Path, count: int) -> None:
    """Rows of questions, of a thousand subjects."""
    with path.open("w") as file:
        for index in range(count):
            question = f"What is {index} + 1? {PROSE if index % 10 else PROSE + PLANTED}"
            row = {"id": f"q{index}", "customer": f"customer-{index % 1000}", "question": question}
            file.write(json.dumps({**row, "answer": 42 if index % 2 else 41}) + "\n")


def run(*words: str | Path) -> tuple[float, Any]:
    """A command of evalrun as a process: seconds, and its document."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "evalrun", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def sweep(folder: Path, url: str, data: Path, more: str, store: str) -> dict[str, Any]:
    """One sweep; its samples a second while it asked."""
    suite = folder / "suite.yaml"
    suite.write_text(SUITE.format(url=url, data=data, more=more))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, result = run(suite, "--store", folder / store, "--no-report", "--no-cache", "--fresh")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    of_run = json.loads((Path(result["folder"]) / "runs" / result["runs"][0]["run"] / "run.json").read_text())
    rate = result["runs"][0]["counts"]["samples"] / of_run["timings"]["wall_s"]
    return {"rate": rate, "cpu_s": cpu_s, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--sweep", type=int, default=5_000)
    parser.add_argument("--base-url")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"redaction_us_per_kb": redaction(), "samples": options.samples}
    with tempfile.TemporaryDirectory() as temporary, server(options.base_url) as url:
        folder = Path(temporary)
        write_rows(folder / "few.jsonl", options.sweep)
        made_of: dict[str, list[dict[str, Any]]] = {"": [], "privacy: {redact: standard}": []}
        for _ in range(3):
            for more, of in made_of.items():
                of.append(sweep(folder, url, folder / "few.jsonl", more, "rates"))
        write_rows(folder / "one.jsonl", 1)
        start_s = min(sweep(folder, url, folder / "one.jsonl", "", "rates")["cpu_s"] for _ in range(3))
        plain, private = (max(each["rate"] for each in of) for of in made_of.values())
        busy, busy_private = (min(each["cpu_s"] for each in of) - start_s for of in made_of.values())
        figures |= {"samples_per_s": plain, "samples_per_s_private": private, "sweep_share": private / plain}
        figures["sweep_share_by_cpu"] = busy / busy_private
        write_rows(folder / "many.jsonl", options.samples)
        made = sweep(folder, url, folder / "many.jsonl", "", "big")
        store = ("--store", folder / "big")
        figures["scan_s"], scanned = run("privacy", "scan", made["sweep"], *store)
        figures["findings"] = scanned["total"]
        figures["erase_s"], erased = run(
            "erase", "--subject", "customer-7", "--reason", "benchmark", "--yes", *store
        )
        figures["erased"] = erased["rows"]
        figures["verify_s"], verified = run("audit", "verify", *store)
        figures["intact"] = verified["intact"]
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
