"""Logs of inspect_ai: one `.eval` a run, which `inspect view` shows. Their own package writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from evalrun.errors import UserError
from evalrun.exports.main import Export
from evalrun.exports.tables import scores
from evalrun.results import RunResults
from evalrun.secrets import scrub_json


def as_inspect(export: Export) -> None:
    """Write a log for each finished run into the folder `out`."""
    out = export.place("inspect")
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        remedy = "pip install 'evalrun-llm[inspect]'"
        raise UserError("--as inspect needs the package inspect_ai", remedy=remedy) from error
    out.mkdir(parents=True, exist_ok=True)
    for run in export.source.runs:
        path = out / f"{export.folder.ulid}_{run.run}.eval"
        write_eval_log(_log(export, run), str(path))
        export.files.append(path)


def _log(export: Export, run: RunResults) -> Any:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )

    manifest = export.source.manifest
    known = manifest.datasets.get(run.dataset) or {}
    begun = _moment(run.timings.started_at or manifest.started_at)
    ended = _moment(run.timings.finished_at or manifest.finished_at or manifest.started_at)
    data = EvalDataset(name=run.dataset, samples=known.get("n"), sample_ids=None)
    about = {"evalrun_run": run.run, "dataset_digest": known.get("digest")}
    spec = EvalSpec(
        eval_id=f"{export.folder.ulid}-{run.run}", run_id=export.folder.ulid, created=begun,
        task=f"{manifest.name}/{run.prompt}", model=f"evalrun/{run.model}", dataset=data,
        config=EvalConfig(epochs=run.repeats), metadata=about,
    )  # fmt: skip
    told = []
    for metric in scores(run):
        if metric.value is not None:
            figures = {
                "mean": metric.value,
                "stderr": metric.se,
                "ci_low": metric.ci_low,
                "ci_high": metric.ci_high,
            }
            metrics = {
                name: EvalMetric(name=name, value=value)
                for name, value in figures.items()
                if value is not None
            }
            told.append(
                EvalScore(name=metric.name, scorer=metric.scorer, scored_samples=metric.n, metrics=metrics)
            )
    counts = run.counts
    results = EvalResults(
        total_samples=counts.samples, completed_samples=counts.samples - counts.failed, scores=told
    )
    return EvalLog(
        status="success" if run.status == "complete" else "error", eval=spec, results=results,
        stats=EvalStats(started_at=begun, completed_at=ended), samples=list(_samples(export, run)),
    )  # fmt: skip


def _moment(moment: str | None) -> str:
    """A time with its offset, which their documents want."""
    seen = datetime.fromisoformat(str(moment))
    return (seen if seen.tzinfo else seen.replace(tzinfo=UTC)).isoformat()


def _samples(export: Export, run: RunResults) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    from evalrun.tracking.parquet import iter_samples

    for raw in iter_samples(export.folder.samples_path(run.run)):
        row = scrub_json(raw)
        given = {
            name.removeprefix("score."): value for name, value in row.items() if name.startswith("score.")
        }
        told = {
            name: Score(value=value, answer=row.get("answer"), explanation=row.get(f"reason.{name}"))
            for name, value in given.items()
            if value is not None
        }
        asked = row.get("prompt") or (orjson.loads(row["messages"]) if row.get("messages") else "")
        yield EvalSample(
            id=row["sample_id"], epoch=row["repeat"] + 1, input=asked, target=str(row.get("target") or ""),
            output=ModelOutput.from_content(f"evalrun/{run.model}", row.get("output") or ""),
            scores=told, metadata={"status": row["status"], "error": row.get("error")},
            total_time=row.get("e2e_s"),
        )  # fmt: skip
