"""What the runner hands over at the end, for the tests of what keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.types import Counts, MetricValue

MakeSweep = Callable[..., SweepFolder]


def manifest_of(folder: SweepFolder, **changes: Any) -> dict[str, Any]:
    """A manifest of two planned runs over one dataset."""
    plan = [
        {"run": f"m-{prompt}-d", "model": "m", "prompt": prompt, "dataset": "d", "params": {"temperature": 0}}
        for prompt in ("direct", "few")
    ]
    return {
        "schema_version": 1,
        "sweep": folder.ulid,
        "name": "triage",
        "project": "support",
        "status": "running",
        "started_at": "2026-11-23T07:00:00+00:00",
        "spec_digest": "a" * 64,
        "suite": {"path": "s.yaml", "text": "name: triage\n", "digest": "b" * 64, "resolved": {}},
        "plan": plan,
        "provenance": {"git": {"commit": "c" * 40}, "user": "ada"},
        "datasets": {"d": {"digest": "d" * 64, "n": 100, "source": {"path": "d.jsonl"}}},
        "prompts": {"direct": {"digest": "e" * 64, "source": {}}},
        "tags": {"team": "nlp"},
        "seeds": {"root": 7},
        **changes,
    }


def run_of(run_id: str, value: float = 0.5, **changes: Any) -> dict[str, Any]:
    """Results of one run."""
    metrics = [
        MetricValue("exact_match", value, 100, "fraction", "higher", se=0.05, ci_low=0.4, ci_high=0.6),
        MetricValue("exact_match", 0.4, 50, "fraction", "higher", slice={"dialect": "aave"}),
        MetricValue("performance.ttft_s.p99", None, 100, "s", "lower", note="n too small"),
    ]
    return {
        "run": run_id,
        "model": "m",
        "prompt": run_id.split("-")[1],
        "dataset": "d",
        "params": {"temperature": 0.7, "stop": ["\n"], "stream": True, "extra": {"top_k": 5, "style": "x"}},
        "status": "complete",
        "counts": asdict(Counts(samples=100, scored=97, unparsed=1, refused=1, failed=1, retried=3)),
        "metrics": [asdict(each) for each in metrics],
        "timings": {"started_at": "2026-11-23T07:00:01+00:00", "wall_s": 12.5},
        **changes,
    }


def sweeps_in(store: Store) -> MakeSweep:
    """What makes a finished sweep with two runs in a store; keyword arguments change its manifest."""

    def make(**changes: Any) -> SweepFolder:
        folder = store.create_sweep(changes.get("name", "triage"))
        folder.write_manifest(manifest_of(folder, **changes))
        folder.append_event("start", {"argv": ["evalrun", "s.yaml"]})
        for run_id in ("m-direct-d", "m-few-d"):
            folder.finish_run(run_id, run_of(run_id))
        if "status" not in changes:
            folder.finish("complete", 0)
        return folder

    return make
