"""How long fuzzing goes: bounded and always the same, or `EVALRUN_FUZZ=N` other inputs for each reader."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

LONG = os.environ.get("EVALRUN_FUZZ")
FUZZ = settings(
    max_examples=int(LONG or 40),
    derandomize=LONG is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate] + ([Phase.shrink] if LONG else []),
)
