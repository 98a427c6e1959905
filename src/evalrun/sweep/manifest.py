"""The manifest of a sweep as it begins."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.canonical import digest, seeded_bytes
from evalrun.checkpoints import logged_losses
from evalrun.errors import UserError
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.private import stored_suite
from evalrun.tracking.folder import SweepFolder


def in_order(specs: Sequence[RunSpec], seed: int) -> list[RunSpec]:
    """The runs on an endpoint in the order of their digests with the seed.

    A server drifts: it warms up, or others load it. In the suite's order the first model or prompt would
    meet it in one state and the last in another, in every sweep; in this one it is drawn which comes first,
    another seed draws anew, and leaving cells out changes nothing for the others. Runs follow each other
    whole, so that each has a steady window, and a clock, of its own.
    """
    return sorted(specs, key=lambda spec: seeded_bytes(seed, spec.run_id))


def order_made(folder: SweepFolder) -> list[dict[str, Any]]:
    """What was run when, by the events of the sweep: one entry for each part of each run, in order.

    `done` of `of` samples were there already when the part began; `finished_at` is None where the part was
    ended before its run was.
    """
    parts: list[dict[str, Any]] = []
    open_parts: dict[str, dict[str, Any]] = {}
    for event in folder.events():
        run = event["target"]
        if event["action"] == "begin_run":
            part = {"run": run, "begun_at": event["ts"], "finished_at": None, **event["detail"]}
            parts.append(part)
            open_parts[run] = part
        elif event["action"] == "finish_run" and run in open_parts:
            open_parts.pop(run)["finished_at"] = event["ts"]
    return parts


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
    traffic = any(spec.traffic is not None for spec in suite.datasets)
    earlier = folder.read_manifest() if resumed else {}
    asked = {run["run"]: run for run in earlier.get("plan", ()) if run.get("checkpoint")}
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
            "digest": digest(loaded.text),
            **stored_suite(loaded, prepared.redactor),
        },
        # A finished run asked the checkpoint as it was then; by now it may be deleted, or another.
        "plan": [
            asked[run["run"]] if run["run"] in asked and folder.is_finished(run["run"]) else run
            for run in _plan(prepared, cells, folder.path.parent.parent)
        ],
        "provenance": {},
        "datasets": _datasets(prepared),
        "prompts": _prompts(prepared),
        "examples": dict(prepared.examples),
        "lock": lock,
        "reused": earlier.get("reused", {}),
        "models": earlier.get("models", {}),
        "oldest_cached": earlier.get("oldest_cached"),
        **({"kind": "traffic"} if traffic else {}),
        "tags": {**({"kind": "traffic"} if traffic else {}), **suite.tags},
        "seeds": {"root": suite.seed},
        "gates": [],
        "exit_code": None,
    }


def _plan(prepared: PreparedSweep, cells: Mapping[str, str], store: Path) -> list[dict[str, Any]]:
    return [
        {
            "run": spec.run_id,
            "model": spec.model.id,
            "prompt": spec.prompt.id,
            "dataset": spec.dataset.id,
            "params": spec.axes,
            "repeats": spec.repeats,
            "cell_digest": cells[spec.run_id],
            **({"ablates": spec.prompt.ablates} if spec.prompt.ablates else {}),
            **_checkpoint(spec.model, prepared.loaded.base_dir, store),
            **({"load": spec.load.document(), "role": spec.load.role} if spec.load is not None else {}),
        }
        for spec in prepared.specs
    ]


def _checkpoint(model: ModelSpec, base_dir: Path, store: Path) -> dict[str, Any]:
    """Which checkpoint of a training a model is, where it is one."""
    if model.checkpoint is None:
        return {}
    from evalrun.providers.downloads import checkpoint_sha256

    known: dict[str, Any] = {**model.checkpoint.model_dump(), "weights_sha256": ""}
    if known["training"] == "latest":
        known["training"] = _latest_training(store) or "latest"
    if model.checkpoint.path:
        path = base_dir / Path(model.checkpoint.path).expanduser()
        with contextlib.suppress(OSError):  # it may be deleted by now, or be another machine's
            known["weights_sha256"] = checkpoint_sha256(path)
        known |= logged_losses(path)
    return {"step": known["step"], "training": known["training"], "checkpoint": known}


def _latest_training(store: Path) -> str:
    """The name of the newest training in the store: what `training: latest` means today. "" without any."""
    from evalrun.tracking.store import Store
    from evalrun.tracking.trainings import resolve_training

    with contextlib.suppress(UserError, OSError):
        return str(resolve_training(Store(store), "latest").training().name)
    return ""


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
