"""Nights of a nightly job, made in the store as the runner leaves them: one run, scores sample by sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store
from evalrun.types import Counts

RUN = "m-p-d"
PLAN = [{"run": RUN, "model": "m", "prompt": "p", "dataset": "d", "params": {}}]


def night(
    store: Store,
    scores: Sequence[float],
    *,
    digest: str = "d" * 64,
    p95: float | None = None,
    between: tuple[float, float] | None = None,
    **manifest: Any,
) -> SweepFolder:
    """A finished sweep of one run whose samples s00000, … got these scores; it is in the catalog.

    With `between` the score is incomplete: so many rows were lost that it lies there.
    """
    folder = store.create_sweep("night")
    given = {
        "sweep": folder.ulid, "name": "night", "project": "nightly", "plan": PLAN, "gates": [],
        "datasets": {"d": {"digest": digest, "n": len(scores)}}, "prompts": {"p": {"digest": "p"}},
    }  # fmt: skip
    folder.write_manifest({**given, **manifest})
    folder.append_event("start", {})
    _write_samples(folder, scores)
    value = sum(scores) / len(scores)
    metrics = [_metric("exact_match", value, len(scores), "fraction", "higher")]
    if between is not None:
        bounds = {"bound_low": between[0], "bound_high": between[1], "note": "incomplete: 30 of 100 lost; x"}
        metrics[0] |= {"incomplete": True, **bounds}
    if p95 is not None:
        metrics.append(_metric("performance.e2e_s.p95", p95, len(scores), "s", "lower"))
    folder.finish_run(
        RUN,
        {
            **PLAN[0], "status": "complete", "metrics": metrics,
            "counts": dict.fromkeys(Counts.__slots__, 0) | {"samples": len(scores), "scored": len(scores)},
        },
    )  # fmt: skip
    folder.finish("complete", 0)
    store.index(folder)
    return folder


def _write_samples(folder: SweepFolder, scores: Sequence[float]) -> None:
    journal = folder.path / "made.jsonl"
    with journal.open("w") as file:
        for at, score in enumerate(scores):
            sample = {
                "sample_id": f"s{at:05}", "repeat": 0, "position": at, "vars": {"q": f"question {at}"},
                "target": "yes", "status": "scored", "output": "yes" if score else "no",
                "answer": "yes" if score else "no", "attempts": 1, "prompt": f"q{at}",
                "scores": {"exact_match": score}, "sensitive": {"group": "xy"[at % 2]},
            }  # fmt: skip
            file.write(json.dumps(sample) + "\n")
    journal_to_parquet(journal, Path(folder.run_dir(RUN)) / "samples.parquet")
    journal.unlink()


def _metric(name: str, value: float, n: int, unit: str, direction: str) -> dict[str, Any]:
    room = 0.03 if unit == "fraction" else None
    return {
        "name": name, "slice": {}, "value": value, "n": n, "se": None, "unit": unit, "direction": direction,
        "ci_low": None if room is None else value - room, "ci_high": None if room is None else value + room,
        "method": "", "note": "",
    }  # fmt: skip
