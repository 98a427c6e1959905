"""What `plan --on` says: how the runs are cut, and what a lost worker costs at most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evalrun.cluster.plan import SHARD
from evalrun.cluster.segments import FLUSH_S, FLUSH_SAMPLES
from evalrun.runner.limits import MOST_AT_ONCE
from evalrun.sweep.execute import like_concurrency

if TYPE_CHECKING:
    from evalrun.sweep.prepare import PreparedSweep


def expected(prepared: PreparedSweep, shard: int | None) -> dict[str, Any]:
    """For each model its shards, and `in_flight` and `unwritten`: the samples that are asked again at most
    for each worker that dies, because they were in flight or in no segment."""
    size = shard or SHARD
    models: dict[str, dict[str, int]] = {}
    for spec in prepared.specs:
        rows = len(prepared.datasets[spec.dataset.id])
        of_suite = prepared.loaded.suite.performance.concurrency
        named = spec.model.concurrency or (of_suite if isinstance(of_suite, int) else None)
        in_flight = named or like_concurrency(prepared) or MOST_AT_ONCE
        entry = models.setdefault(spec.model.id, {"shards": 0, "in_flight": in_flight, "unwritten": 0})
        entry["shards"] += math.ceil(rows / max(1, size // spec.repeats))
        entry["unwritten"] = max(entry["unwritten"], min(size, rows * spec.repeats))
    return {"shard": size, "flush_s": FLUSH_S, "flush_samples": FLUSH_SAMPLES, "models": models}


def sentences(said: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [
        f"On a cluster {name} is asked in {each['shards']:,} shards of at most {said['shard']:,} samples. "
        f"A worker that dies has at most {each['in_flight']:,} in flight and {each['unwritten']:,} in no "
        f"segment, which are asked again: as a rule what came in its last {said['flush_s']:g} s."
        for name, each in said["models"].items()
    ]
