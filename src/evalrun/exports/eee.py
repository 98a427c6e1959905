"""Every Eval Ever 0.3.0 (https://github.com/evaleval/every_eval_ever): one JSON a run, its samples beside it.

`data/<project>/<developer>/<model>/<uuid>.json`. The id comes from sweep and run: the same export again is
the same files.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import orjson

from evalrun._version import __version__
from evalrun.exports.main import Export
from evalrun.results import RunResults
from evalrun.secrets import scrub_json
from evalrun.types import MetricValue

VERSION = "0.3.0"
LEVEL = 0.95
_SELF_DEPLOYED = frozenset({"llamacpp", "vllm", "transformers"})


def as_eee(export: Export) -> None:
    """Write all finished runs; with `samples`, their samples too."""
    out = export.place("eee")
    for run in export.source.runs:
        document = _document(export, run)
        if not document["evaluation_results"]:
            export.leave_out(run.run, "it has no score with known bounds")
            continue
        name = uuid.UUID(bytes=_digest(export, run)[:16], version=4)
        developer, _, model = document["model_info"]["id"].rpartition("/")
        folder = PurePosixPath(
            "data", _part(export.source.manifest.project or ""), _part(developer), _part(model)
        )
        if export.samples:
            lines = b"".join(orjson.dumps(line) + b"\n" for line in _samples(export, run, document)).decode()
            path = folder / f"{name}_samples.jsonl"
            export.write(lines, out / path)
            document["detailed_evaluation_results"] = {
                "format": "jsonl", "file_path": str(path), "hash_algorithm": "sha256",
                "checksum": hashlib.sha256((out / path).read_bytes()).hexdigest(),
                "total_rows": lines.count("\n"),
            }  # fmt: skip
        export.write(
            orjson.dumps(document, option=orjson.OPT_INDENT_2).decode(), out / folder / f"{name}.json"
        )


def _digest(export: Export, run: RunResults) -> bytes:
    return hashlib.sha256(f"{export.folder.ulid}|{run.run}".encode()).digest()


def _part(text: str) -> str:
    """A part of a path: no separators, never empty or one that leads up."""
    kept = "".join(char if char.isalnum() or char in "._-" else "_" for char in text)
    return kept if kept.strip(".") else "unknown"


def _document(export: Export, run: RunResults) -> dict[str, Any]:
    manifest = export.source.manifest
    moment = run.timings.finished_at or manifest.finished_at or manifest.started_at
    seconds = str(int(datetime.fromisoformat(str(moment)).timestamp()))
    known = manifest.models.get(run.model) or {}
    model = str(known.get("model") or run.model)
    provider = str(known.get("provider") or "unknown")
    deployed = "self_deployed" if provider in _SELF_DEPLOYED else "unknown"
    about = {"deployment_type": deployed, "model_availability": "unknown", "provider": provider}
    source = {
        "source_type": "evaluation_run", "source_name": manifest.name,
        "source_organization_name": export.organization or "unknown",
        "evaluator_relationship": "other",
    }  # fmt: skip
    document: dict[str, Any] = scrub_json({
        "schema_version": VERSION,
        "evaluation_id": f"{manifest.project or manifest.name}/{model}/{seconds}",
        "evaluation_timestamp": str(moment),
        "retrieved_timestamp": seconds,
        "source_metadata": source,
        "eval_library": {"name": "evalrun", "version": __version__},
        "model_info": {"name": run.model, "id": model, "additional_details": about},
        "evaluation_results": list(_results(export, run)),
    })  # fmt: skip
    return document


def _results(export: Export, run: RunResults) -> Iterator[dict[str, Any]]:
    known = export.source.manifest.datasets.get(run.dataset) or {}
    for metric in run.metrics:
        name = f"{run.dataset}/{metric.name}"
        name += "".join(f"[{column}={group}]" for column, group in metric.slice.items())
        about = run.details.definitions.get(metric.name)
        low, high = about.bounds if about else (None, None)
        if not metric.scorer or metric.value is None:
            continue
        if low is None or high is None or metric.direction == "none":
            export.leave_out(
                metric.name, "a score without bounds, or without a direction, has no place there"
            )
            continue
        judges = [bill.model for bill in run.details.judges if bill.scorer == metric.scorer]
        details = {"scorer": metric.scorer, "unit": metric.unit, **({"judge": judges[0]} if judges else {})}
        yield {
            "evaluation_result_id": name,
            "evaluation_name": name,
            "source_data": _source(run.dataset, known),
            "metric_config": {
                "lower_is_better": metric.direction == "lower", "score_type": "continuous",
                "min_score": low, "max_score": high,
                "evaluation_description": about.definition if about else "", "additional_details": details,
            },
            "score_details": {"score": metric.value, "uncertainty": _uncertainty(metric)},
            "generation_config": {"generation_args": _arguments(run)},
        }  # fmt: skip


def _uncertainty(metric: MetricValue) -> dict[str, Any]:
    said: dict[str, Any] = {"num_samples": metric.n}
    if metric.se is not None:
        said["standard_error"] = {"value": metric.se, "method": metric.method or "analytic"}
    if metric.ci_low is not None and metric.ci_high is not None:
        ends = {"lower": metric.ci_low, "upper": metric.ci_high}
        said["confidence_interval"] = {**ends, "confidence_level": LEVEL, "method": metric.method}
    return said


def _source(dataset: str, known: Mapping[str, Any]) -> dict[str, Any]:
    source = known.get("source") or {}
    details = {"sha256": str(known.get("digest") or ""), "rows": str(known.get("n") or "")}
    said = {"dataset_name": dataset, "source_type": "other", "additional_details": details}
    if source.get("hub"):
        hub = {"source_type": "hf_dataset", "hf_repo": str(source["hub"])}
        said |= hub | ({"hf_split": str(source["split"])} if source.get("split") else {})
    return said


def _arguments(run: RunResults) -> dict[str, Any]:
    numbers = ("temperature", "top_p", "top_k", "max_tokens")
    return {name: run.params[name] for name in numbers if isinstance(run.params.get(name), int | float)}


def _samples(export: Export, run: RunResults, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for each sample and result over all samples that it takes part in."""
    from evalrun.tracking.parquet import iter_samples

    results = {
        each["metric_config"]["additional_details"]["scorer"]: each
        for each in reversed(document["evaluation_results"])
        if "[" not in each["evaluation_name"].partition("/")[2]
    }
    for row in iter_samples(export.folder.samples_path(run.run)):
        for scorer, result in results.items():
            value = row.get(f"score.{scorer}")
            if value is not None and value == value:
                yield _sample(row, value, document, result)


def _sample(
    row: Mapping[str, Any], value: float, document: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    asked = row.get("prompt") or _last(row.get("messages"))
    wanted = [] if row.get("target") is None else [str(row["target"])]
    config = result["metric_config"]
    best = config["min_score"] if config["lower_is_better"] else config["max_score"]
    answer = {
        "turn_idx": 0, "source": "output.raw", "extracted_value": str(row.get("answer") or ""),
        "extraction_method": "parser", "is_terminal": True,
    }  # fmt: skip
    sample = {
        "schema_version": VERSION,
        "evaluation_id": document["evaluation_id"],
        "model_id": document["model_info"]["id"],
        "evaluation_name": result["evaluation_name"],
        "evaluation_result_id": result["evaluation_result_id"],
        "sample_id": str(row["sample_id"]),
        "sample_hash": hashlib.sha256((asked + "".join(wanted)).encode("utf-8", "replace")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": asked, "formatted": row.get("messages"), "reference": wanted},
        "output": {"raw": [str(row.get("output") or "")]},
        "answer_attribution": [answer],
        "evaluation": {"score": value, "is_correct": value == best},
        "error": row.get("error"),
        "metadata": {"repeat": str(row["repeat"]), "status": str(row["status"])},
    }
    if row.get("prompt_tokens") is not None and row.get("completion_tokens") is not None:
        read, made = row["prompt_tokens"], row["completion_tokens"]
        sample["token_usage"] = {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}
    if row.get("e2e_s") is not None:
        first = row.get("ttft_s")
        times = {"latency_ms": row["e2e_s"] * 1e3, "time_to_first_token_ms": first and first * 1e3}
        sample["performance"] = times
    return dict(scrub_json(sample))


def _last(messages: str | None) -> str:
    """What the last message says."""
    said = orjson.loads(messages)[-1]["content"] if messages else ""
    return said if isinstance(said, str) else orjson.dumps(said).decode()
