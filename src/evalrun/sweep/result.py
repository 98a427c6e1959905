"""The JSON document of a sweep: what `evalrun SUITE --json` prints (a contract: scripts lean on it)."""

from __future__ import annotations

from typing import Any

from evalrun.sweep.main import Outcome

_METRIC_KEYS = (
    "name", "slice", "value", "n", "se", "ci_low", "ci_high", "unit", "direction", "method", "note",
    "clusters",
)  # fmt: skip


def result_document(outcome: Outcome) -> dict[str, Any]:
    """Everything a script needs, as plain JSON values."""
    manifest = outcome.manifest
    return {
        "sweep": manifest["sweep"],
        "project": manifest["project"],
        "name": manifest["name"],
        "status": manifest["status"],
        "folder": str(outcome.folder.path),
        "report": str(outcome.report) if outcome.report else None,
        "exit_code": int(outcome.exit_code),
        "resumed": outcome.resumed,
        "runs": [_run(run) for run in outcome.runs],
        **({"groups": manifest["groups"]} if manifest.get("groups") else {}),
        "standings": manifest.get("standings", []),
        "chance": (manifest.get("results") or {}).get("chance", []),
        "previous": manifest.get("previous"),
        "lost": (manifest.get("results") or {}).get("lost", []),
        "checkpoints": (manifest.get("results") or {}).get("checkpoints", []),
        **({"load": load} if (load := (manifest.get("results") or {}).get("load")) else {}),
        "gates": manifest["gates"],
        "alerts": manifest.get("alerts", []),
        "errors": [str(fault) for fault in outcome.faults],
        "warnings": list(outcome.warnings),
    }


def _run(run: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: run[key] for key in ("run", "model", "prompt", "dataset", "params", "status", "counts")},
        **({key: run[key] for key in ("step", "training", "checkpoint")} if run.get("checkpoint") else {}),
        "load": run.get("load") or {},
        **({"details": {"load": load}} if (load := (run.get("details") or {}).get("load")) else {}),
        "metrics": [_metric(metric) for metric in run["metrics"]],
        **({"task": run["task"]["name"]} if run.get("task") else {}),
    }


def _metric(metric: dict[str, Any]) -> dict[str, Any]:
    shown = {key: metric.get(key) for key in _METRIC_KEYS}
    if metric.get("incomplete"):
        shown |= {key: metric.get(key) for key in ("incomplete", "bound_low", "bound_high")}
    return shown
