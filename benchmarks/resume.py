"""How fast work that is done already is passed over: DESIGN part 6, resume.

    python benchmarks/resume.py [--base-url http://127.0.0.1:8900/v1] [--samples 100000] [--out FILE.json]

Three ways, each a whole process over the same samples, after a first sweep that asked the (null) server:

- `cached`: the same command on a finished sweep makes a new sweep, all of it from the response cache:
  rendered, keyed, looked up, scored, journalled, analysed.
- `journalled`: a sweep that was killed when its last samples were missing goes on (`--no-cache`).
- `asked`: the first sweep, for comparison.

`run_samples_per_s` leaves out the start of the program and the analysis after the last sample;
`whole_samples_per_s` is the whole process. `cpu_s` is the CPU time of the whole process, which says more than
the others where the machine has other work to do.
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

from overhead import IN_FLIGHT, SUITE, SYSTEM, server, write_data


def _sweep(suite: Path, store: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", str(store), "--quiet", "--no-report"]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "--json", *arguments], check=True, capture_output=True, text=True)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    run = Path(result["folder"]) / "runs" / result["runs"][0]["run"]
    counts = result["runs"][0]["counts"]
    return {
        "whole_s": wall_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "run_s": json.loads((run / "run.json").read_text())["timings"]["wall_s"],
        "samples": counts["samples"],
        "cached": counts["cached"],
        "resumed": result["resumed"],
        "folder": result["folder"],
    }


def _interrupted(suite: Path, store: Path, samples: int) -> None:
    """Leave a sweep behind whose journal lacks the last hundredth of its samples."""
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", str(store), "--quiet", "--no-report"]
    process = subprocess.Popen([*command, "--no-cache"], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        journals = list(store.glob("sweeps/*/runs/*/journal.jsonl"))
        if journals and journals[0].stat().st_size > samples * 700 and _lines(journals[0]) > samples * 0.98:
            break
        time.sleep(0.2)
    process.kill()
    process.wait()


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def measure(base_url: str, samples: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as name:
        folder = Path(name)
        suite = folder / "suite.yaml"
        data = write_data(folder, samples)
        suite.write_text(
            SUITE.format(base_url=base_url, data=data, stream="false", in_flight=IN_FLIGHT, system=SYSTEM)
        )
        asked = _sweep(suite, folder / "store")
        cached = [_sweep(suite, folder / "store") for _ in range(turns)]
        assert all(each["cached"] == samples for each in cached)
        _interrupted(suite, folder / "killed", samples)
        journalled = _sweep(suite, folder / "killed", "--no-cache")
        best = min(cached, key=lambda each: float(each["run_s"]))
        return {
            "samples": samples,
            **{
                name: {
                    "whole_s": each["whole_s"],
                    "run_s": each["run_s"],
                    "cpu_s": each["cpu_s"],
                    "run_samples_per_s": samples / each["run_s"],
                    "whole_samples_per_s": samples / each["whole_s"],
                }
                for name, each in (("asked", asked), ("cached", best), ("journalled", journalled))
            },
            "journalled_was_resumed": journalled["resumed"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", help="a null server's base URL, on loopback; default: our own")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    with server(options.base_url) as base_url:
        text = json.dumps(measure(base_url, options.samples, options.turns), indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
