"""One sweep of very many short runs, its report, and the memory of recorded answers.

    python benchmarks/many_runs.py [--runs 2000] [--rows 100000]

Each command is a process of its own: its wall time, its processor time (`cpu_s`, which hardly depends on what
else the machine does) and its greatest resident memory. A tenth of the rows is measured beside all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPTS = 20


def measured(*words: str, cwd: Path) -> dict[str, float]:
    """Run the program; seconds and megabytes."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", *words], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(process.stderr.read().decode() if process.stderr else status)
    return {
        "wall_s": round(time.perf_counter() - begun, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": used.ru_maxrss // 1000,
    }


def write_suite(folder: Path, rows: int, models: int, prompts: int) -> None:
    """A suite of recorded answers: models by prompts over so many rows."""
    with (folder / "rows.jsonl").open("w") as file:
        for at in range(rows):
            answer = "yes " + "word " * 40 if at % 3 else "no"
            file.write(json.dumps({"id": f"s{at}", "want": "yes", "answer": answer}) + "\n")
    suite: dict[str, Any] = {
        "name": "many",
        "models": [{"id": f"m{at}", "provider": "recorded", "column": "answer"} for at in range(models)],
        "prompts": [{"id": f"p{at}", "text": f"{{{{ id }}}} {at}"} for at in range(prompts)],
        "datasets": [{"id": "d", "path": "rows.jsonl", "key": "id", "target": "want"}],
        "scorers": ["includes"],
    }
    (folder / "suite.yaml").write_text(json.dumps(suite))


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    found: dict[str, Any] = {"load_average": os.getloadavg()[0], "runs": options.runs, "rows": options.rows}
    run = ("suite.yaml", "-q", "--no-report", "--store")
    with tempfile.TemporaryDirectory(prefix="evalrun-many-") as name:
        folder = Path(name)
        write_suite(folder, 5, max(1, options.runs // PROMPTS), PROMPTS)
        found["sweep of short runs"] = measured(*run, "many", cwd=folder)
        found["its report"] = measured("report", "latest", "--store", "many", "--out", "r.html", cwd=folder)
        for rows in (options.rows // 10, options.rows):
            write_suite(folder, rows, 1, 1)
            found[f"recorded, {rows} rows"] = measured(*run, f"store-{rows}", cwd=folder)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
