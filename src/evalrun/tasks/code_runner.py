"""Runs programs that models wrote for lm_eval's process, each in the locked-down child of the scorer `code`.

A program of its own, since lm_eval may live in another environment: one JSON document on standard input
(`programs`, `timeout_s`), one on standard output (`passed`, `reasons`).
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from evalrun.scoring.scorers.code import Limits, cannot_run, run_locked

MEMORY_BYTES = 2 << 30


def main() -> None:
    """Run them all, as many at once as there are processors."""
    order = json.load(sys.stdin)
    if why := cannot_run():
        raise SystemExit(why)
    limits = Limits(float(order["timeout_s"]), MEMORY_BYTES)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ran = list(pool.map(lambda program: run_locked(program, limits), order["programs"]))
    json.dump({"passed": [one.passed for one in ran], "reasons": [one.reason for one in ran]}, sys.stdout)


if __name__ == "__main__":
    main()
