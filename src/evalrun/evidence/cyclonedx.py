"""A machine-learning bill of materials: CycloneDX 1.6 with a model card (https://cyclonedx.org/docs/1.6/json).

Its values are texts by the schema. The serial number is made of the sweep's id: the same sweep, the same one.
"""

from __future__ import annotations

import uuid
from typing import Any

from evalrun._version import __version__
from evalrun.evidence.document import Answers
from evalrun.evidence.facts import Facts, scored
from evalrun.results import RunResults
from evalrun.types import MetricValue


def bom(facts: Facts, answers: Answers) -> dict[str, Any]:
    """The bill of materials of a system: the model with its card, the datasets that it was tested with, and
    evalrun as the tool."""
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"evalrun:{facts.folder.ulid}/{facts.runs[0].run}")
    model, data = _model(facts, answers), [_dataset(facts, run) for run in facts.runs]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": facts.manifest.finished_at or facts.manifest.started_at,
            "tools": {"components": [{"type": "application", "name": "evalrun", "version": __version__}]},
            "component": model,
        },
        "components": data,
    }


def _model(facts: Facts, answers: Answers) -> dict[str, Any]:
    run = facts.runs[0]
    known = facts.manifest.models.get(run.model) or {}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model/{run.model}",
        "name": str(known.get("model") or run.model),
    }
    if provider := answers.text("provider"):
        component["supplier"] = {"name": provider}
    if licence := answers.text("licence"):
        component["licenses"] = [{"license": {"name": licence}}]
    if known.get("weights_sha256"):
        component["hashes"] = [{"alg": "SHA-256", "content": str(known["weights_sha256"])}]
    component["modelCard"] = _card(facts, answers)
    return component


def _card(facts: Facts, answers: Answers) -> dict[str, Any]:
    figures = [_figure(run, metric) for run in facts.runs for metric in _shown(facts, run)]
    parameters = {
        "task": "text-generation",
        "datasets": [{"ref": f"data/{run.dataset}"} for run in facts.runs],
    }
    considerations: dict[str, Any] = {}
    if purpose := answers.text("purpose"):
        considerations["useCases"] = [purpose]
    limits = [answers.text(key) for key in ("unintended_outcomes", "out_of_scope")]
    if any(limits):
        considerations["technicalLimitations"] = [text for text in limits if text]
    fairness = [_fairness(facts, run, column) for run in facts.runs for column in run.details.groups]
    if fairness:
        considerations["fairnessAssessments"] = fairness
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [f for f in figures if f]},
        **({"considerations": considerations} if considerations else {}),
    }


def _shown(facts: Facts, run: RunResults) -> list[MetricValue]:
    lead = run.headline or facts.primary
    return [*scored(facts, run), *(m for m in run.metrics if m.slice and m.name == lead)]


def _figure(run: RunResults, metric: MetricValue) -> dict[str, Any]:
    if metric.value is None:
        return {}
    parts = [f"dataset={run.dataset}", f"n={metric.n}", *(f"{k}={v}" for k, v in metric.slice.items())]
    figure: dict[str, Any] = {"type": metric.name, "value": str(metric.value), "slice": ", ".join(parts)}
    if metric.ci_low is not None and metric.ci_high is not None:
        figure["confidenceInterval"] = {"lowerBound": str(metric.ci_low), "upperBound": str(metric.ci_high)}
    return figure


def _fairness(facts: Facts, run: RunResults, column: str) -> dict[str, Any]:
    measure = run.details.groups[column].metrics.get(run.headline or facts.primary)
    gap = measure.gap if measure else None
    told = (
        "no gap was measured"
        if gap is None or gap.value is None
        else (
            f"gap of {gap.value} in {run.headline or facts.primary} between {gap.best} and {gap.worst}, "
            f"{'wider than' if gap.wider_than_chance else 'within'} chance"
        )
    )
    return {"groupAtRisk": f"groups by {column} ({run.dataset})", "harms": told}


def _dataset(facts: Facts, run: RunResults) -> dict[str, Any]:
    known = facts.manifest.datasets.get(run.dataset) or {}
    component: dict[str, Any] = {"type": "data", "bom-ref": f"data/{run.dataset}", "name": run.dataset}
    if known.get("digest"):
        component["hashes"] = [{"alg": "SHA-256", "content": str(known["digest"])}]
    contents = {"properties": [{"name": "rows", "value": str(known.get("n") or run.counts.samples)}]}
    component["data"] = [{"type": "dataset", "name": run.dataset, "contents": contents}]
    return component
