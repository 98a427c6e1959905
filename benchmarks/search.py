"""What a race saves and how often it is wrong, by simulation; and what its statistics cost.

    python benchmarks/search.py [--races 200]

Candidates are prompts that find the same rows hard: right where a normal value, correlated 0.6 between
prompts, is below the quantile of the prompt's rate.
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import NormalDist

import numpy as np

from evalrun.stats import EProcess, Race

CASES = {
    "one at 0.80, fifteen at 0.70": [0.80] + [0.70] * 15,
    "spread from 0.60 to 0.75": list(np.linspace(0.75, 0.60, 16)),
    "all at 0.70": [0.70] * 16,
}
ROWS, BLOCK = 1000, 25


def race(rates: list[float], rng: np.random.Generator) -> Race:
    """One race to its end."""
    shared = rng.standard_normal((ROWS, 1)) * math.sqrt(0.6)
    own = rng.standard_normal((ROWS, len(rates))) * math.sqrt(0.4)
    hits = ((shared + own) < [NormalDist().inv_cdf(rate) for rate in rates]).astype(float)
    found = Race([str(at) for at in range(len(rates))], units=ROWS)
    at = 0
    while not found.over:
        found.tell({name: hits[at : at + BLOCK, int(name)] for name in found.left})
        at += BLOCK
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=200)
    races = parser.parse_args().races
    print(
        "| candidates | calls, of the whole grid | best dropped | the chosen is the best |\n|---|---|---|---|"
    )
    for name, rates in CASES.items():
        results = [race(rates, np.random.default_rng(seed)).result() for seed in range(races)]
        calls = np.mean([each.calls / each.grid for each in results])
        dropped = np.mean(["0" not in each.left for each in results])
        right = np.mean([each.best == "0" for each in results])
        print(f"| {name} | {calls:.0%} | {dropped:.1%} | {right:.0%} |")
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 1_000_000)
    begun = time.process_time()
    EProcess().update(values)
    print(f"\n1,000,000 updates of an e-process: {time.process_time() - begun:.2f} s of processor time")


if __name__ == "__main__":
    main()
