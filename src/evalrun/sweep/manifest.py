"""The manifest of a sweep as it begins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from evalrun.canonical import digest
from evalrun.sweep.alerts import stored_text
from evalrun.sweep.prepare import PreparedSweep
from evalrun.tracking.folder import SweepFolder


def first_manifest(
    prepared: PreparedSweep,
    folder: SweepFolder,
    cells: Mapping[str, str],
    lock: str | None,
    *,
    resumed: bool,
) -> dict[str, Any]:
    """What `sweep.json` says while the sweep runs: all that is known before anything is sent.

    `cells` are the digests of the runs by their ids; `lock` is the digest of its lock.
    """
    loaded, suite = prepared.loaded, prepared.loaded.suite
    now = datetime.now(UTC).isoformat()
    earlier = folder.read_manifest() if resumed else {}
    return {
        "schema_version": 1,
        "sweep": folder.ulid,
        "name": suite.name,
        "project": suite.project,
        "status": "running",
        "started_at": earlier.get("started_at", now),
        "resumed_at": [*earlier.get("resumed_at", []), now] if resumed else [],
        "finished_at": None,
        "spec_digest": prepared.work_digest,
        "suite": {
            "path": str(loaded.path),
            "text": stored_text(loaded),
            "digest": digest(loaded.text),
            "resolved": suite.resolved(),
        },
        "plan": _plan(prepared, cells),
        "provenance": {},
        "datasets": _datasets(prepared),
        "prompts": _prompts(prepared),
        "examples": dict(prepared.examples),
        "lock": lock,
        "reused": earlier.get("reused", {}),
        "models": earlier.get("models", {}),
        "tags": suite.tags,
        "seeds": {"root": suite.seed},
        "gates": [],
        "exit_code": None,
    }


def _plan(prepared: PreparedSweep, cells: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "run": spec.run_id,
            "model": spec.model.id,
            "prompt": spec.prompt.id,
            "dataset": spec.dataset.id,
            "params": dict(spec.params),
            "repeats": spec.repeats,
            "cell_digest": cells[spec.run_id],
            **({"ablates": spec.prompt.ablates} if spec.prompt.ablates else {}),
        }
        for spec in prepared.specs
    ]


def _datasets(prepared: PreparedSweep) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "digest": dataset.digest,
            "n": len(dataset),
            "source": dataset.source,
            "warnings": dataset.warnings,
        }
        for name, dataset in prepared.datasets.items()
    }


def _prompts(prepared: PreparedSweep) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "digest": prompt.digest,
            "source": prompt.source,
            "api": api,
            **({"ablates": prompt.ablates, "without": prompt.without} if prompt.without else {}),
        }
        for (name, api), prompt in prepared.prompts.items()
    }
