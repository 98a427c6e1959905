"""The page of an experiment says the verdict first, or why there is none."""

import numpy as np
import pandas as pd
import pytest

from evalrun.production.assignment import ExperimentSpec
from evalrun.production.experiment import analyse
from evalrun.production.experiment_page import made

SPEC = ExperimentSpec(
    id="v7", arms={"control": None, "treatment": None}, primary="resolved", guardrails=["e2e_s p95 <= 8"]
)
OTHER = ExperimentSpec(id="ranking", arms={"a": None, "b": None}, primary="resolved", arm="other")


def rows(counts: tuple[int, int], shares: tuple[float, float]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = sum(counts)
    arm = np.repeat(["control", "treatment"], counts)
    right = rng.random(n) < np.repeat(shares, counts)
    return pd.DataFrame(
        {
            "user_key": [f"u{at}" for at in range(n)],
            "arm": arm,
            "other": rng.choice(["a", "b"], n),
            "resolved": right.astype(float),
            "e2e_s": np.where(arm == "treatment", 9.0, 1.0),
        }
    )


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            (2000, 2000),
            ["treatment is better than control", "Guardrail: e2e_s p95", "v7 x ranking"],
        ),
        ((2600, 2000), ["Nothing may be concluded", "Sample ratio", "2,600"]),
    ],
)
def test_the_page(counts: tuple[int, int], said: list[str]) -> None:
    html = made(analyse(SPEC, rows(counts, (0.5, 0.7)), [OTHER])).html()
    assert all(text in html for text in said)
