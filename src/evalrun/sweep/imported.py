"""A sweep made of results that another tool left: the same folder as any sweep's, with nothing asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from evalrun.analysis.conclude import conclude_sweep
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import RunAnalysis, analyse
from evalrun.analysis.samples import SampleTable
from evalrun.canonical import digest
from evalrun.errors import ExitCode
from evalrun.runner.journal import Journal
from evalrun.scoring.imported import ImportedMetric
from evalrun.suite.build import suite_text
from evalrun.tasks.logs.model import ImportedResults, ImportedRun, ImportedSample, names_of
from evalrun.tracking.folder import SAMPLES, SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store, slug
from evalrun.types import Message, SampleRecord, Status

IMPORTED = "imported_from"
"""Key of `sweep.json` with the tool, the files and their digests."""


def write_sweep(store: Store, results: ImportedResults, name: str | None = None) -> SweepFolder:
    """Write a sweep of imported results into a store.

    Every per-sample value is the source's. Aggregates that are means of them are checked against the source's
    own, and a difference is said. Nothing is timed that the source did not time.
    """
    named = slug(name or results.name)[:60] or results.kind
    folder = store.create_sweep(named)
    with folder.lock():
        plan = _plan(results.runs)
        manifest = _manifest(folder, results, named, plan)
        folder.write_manifest(manifest)
        folder.append_event("import", {"kind": results.kind, "files": results.digests})
        store.record(folder)
        for entry, run in zip(plan, results.runs, strict=True):
            asyncio.run(_write_run(folder, entry, run, results.kind))
        manifest |= conclude_sweep(folder)
        manifest |= {"status": "complete", "exit_code": int(ExitCode.OK), "finished_at": _now()}
        folder.write_manifest(manifest)
        folder.append_event("finish", {"status": "complete", "exit_code": int(ExitCode.OK)})
    store.index(folder)
    return folder


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _plan(runs: Sequence[ImportedRun]) -> list[dict[str, Any]]:
    taken: set[str] = set()
    plan = []
    for run in runs:
        base = slug(f"{run.model}-{run.prompt}-{run.dataset}")[:90] or "run"
        name, number = base, 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.casefold())
        plan.append({
            "run": name, "model": run.model, "prompt": run.prompt, "dataset": run.dataset,
            "params": run.params, "repeats": 1 + max((each.repeat for each in run.samples), default=0),
        })  # fmt: skip
    return plan


def _manifest(
    folder: SweepFolder, results: ImportedResults, name: str, plan: list[dict[str, Any]]
) -> dict[str, Any]:
    models = list(dict.fromkeys(run.model for run in results.runs))
    datasets = {run.dataset: run for run in results.runs}
    resolved = {
        "name": name,
        "project": name,
        "description": f"Results of {results.kind}, imported from {results.path.name}.",
        "models": [{"id": model, "provider": "recorded", "column": "output"} for model in models],
        "prompts": [
            {"id": each, "text": "{{ prompt }}"} for each in dict.fromkeys(r.prompt for r in results.runs)
        ],
        "datasets": [{"id": each, "path": results.path.name} for each in datasets],
        "scorers": [],
    }
    return {
        "schema_version": 1,
        "sweep": folder.ulid,
        "name": name,
        "project": name,
        "status": "running",
        "started_at": _now(),
        "finished_at": None,
        "spec_digest": digest([results.kind, results.digests]),
        "suite": {"path": str(results.path), "text": suite_text(resolved), "digest": digest(results.digests),
                  "resolved": resolved},
        "plan": plan,
        "provenance": {},
        "datasets": {
            each: {"digest": _rows_digest(run), "n": len({s.sample_id for s in run.samples}),
                   "source": {"imported": results.kind}, "warnings": []}
            for each, run in datasets.items()
        },
        "prompts": {},
        "examples": {},
        "models": {model: {"provider": "recorded", "model": model} for model in models},
        "tags": {"imported": results.kind},
        "seeds": {"root": 0},
        "gates": [],
        "exit_code": None,
        IMPORTED: {"tool": results.kind, "path": str(results.path), "sha256": results.digests,
                   "left_out": results.left_out},
    }  # fmt: skip


def _rows_digest(run: ImportedRun) -> str:
    """Of what was asked: the same rows in two files have one digest, so that sweeps of them compare."""
    return digest(sorted({each.sample_id: [each.row, each.target] for each in run.samples}.items()))


async def _write_run(folder: SweepFolder, entry: dict[str, Any], run: ImportedRun, kind: str) -> None:
    path = folder.run_dir(entry["run"])
    journal = Journal(path / "journal.jsonl")
    names = list(names_of(run))
    columns = list(dict.fromkeys(name for each in run.samples for name in each.row))
    for position, sample in enumerate(run.samples):
        journal.append(_record(sample, position, names, columns))
    await journal.close()
    journal_to_parquet(path / "journal.jsonl", path / SAMPLES)
    table = SampleTable.from_parquet(path / SAMPLES)
    scorers = [_scorer(name, run, kind) for name in names]
    analysis, notes = _checked(analyse(table, scorers, SystemSummary()), run)
    headline = next((name for name in run.own if name in names), names[0] if names else "")
    folder.finish_run(
        entry["run"],
        {
            **entry,
            "status": "complete",
            "counts": asdict(analysis.counts),
            "metrics": [metric.document() for metric in analysis.metrics],
            "details": asdict(analysis.details),
            "warnings": [*analysis.warnings, *run.notes, *notes],
            "headline": headline,
        },
    )
    (path / "journal.jsonl").unlink()


def _scorer(name: str, run: ImportedRun, kind: str) -> ImportedMetric:
    values = [each.scores[name] for each in run.samples if each.scores.get(name) is not None]
    fraction = all(value is not None and 0 <= value <= 1 for value in values)
    return ImportedMetric(name, kind, lower=name in run.lower, fraction=fraction)


def _checked(analysis: RunAnalysis, run: ImportedRun) -> tuple[RunAnalysis, list[str]]:
    """The metrics, with the source's own value and standard error where it gave them."""
    notes, metrics = [], []
    for metric in analysis.metrics:
        value, error = run.own.get(metric.name, (None, None)) if not metric.slice else (None, None)
        if value is None:
            metrics.append(metric)
            continue
        mean = metric.value is not None and abs(metric.value - value) <= 1e-9 * max(1.0, abs(value))
        if metric.value is not None and not mean and metric.unit == "fraction":
            notes.append(
                f"{metric.name} is {value:.6g} in the source, and the mean of its samples {metric.value:.6g}"
            )
        metrics.append(
            replace(
                metric,
                value=value,
                se=error if error is not None else metric.se if mean else None,
                n=metric.n or len(run.samples),
                ci_low=metric.ci_low if mean else None,
                ci_high=metric.ci_high if mean else None,
                method=metric.method if mean else "",
                note=metric.note if mean else "a figure of the source's own",
            )
        )
    return replace(analysis, metrics=metrics), notes


def _record(
    sample: ImportedSample, position: int, names: Sequence[str], columns: Sequence[str]
) -> SampleRecord:
    failed = sample.output is None
    scores = {} if failed else {name: sample.scores.get(name) for name in names}
    lost = "not applicable: the source has no such score for this sample"
    return SampleRecord(
        sample_id=sample.sample_id,
        repeat=sample.repeat,
        position=position,
        vars={**dict.fromkeys(columns), **sample.row},
        target=sample.target,
        status=Status.FAILED if failed else Status.SCORED,
        messages=tuple(Message(each["role"], each["content"]) for each in sample.messages),
        prompt=sample.prompt,
        output=sample.output,
        answer=sample.answer if sample.answer is not None else sample.output,
        error=(sample.error or "missing: no answer was recorded") if failed else None,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=sample.completion_tokens,
        e2e_s=sample.e2e_s,
        attempts=1,
        cost_usd=sample.cost_usd,
        scores=scores,
        reasons={
            name: sample.reasons.get(name) or ("" if value is not None else lost)
            for name, value in scores.items()
        },
    )
