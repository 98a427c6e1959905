"""The end of a sweep: what its runs together came to, written into `sweep.json` once, for all who show it.

A folder of an earlier version, which has no results in its manifest, gets them when it is read: here, and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from evalrun.analysis.correction import ALPHA
from evalrun.canonical import canonical_json
from evalrun.documents import read
from evalrun.frozen import frozen
from evalrun.results import RunResults
from evalrun.served import served_by_model
from evalrun.sweep_results import CheckpointLine, Primary, SweepResults, leading
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import damage
from evalrun.types import JSON, MetricValue

RESULTS, STANDINGS, JUDGED = "results", "standings", "judged"
SERVED = "served"
"""Keys of `sweep.json`. `standings` stands apart, where scripts look for it."""

MANY_PROMPTS = 3
"""With so many prompts of one model, how much they matter is said even where nothing else varies."""


@frozen
class Concluded:
    """A sweep as it lies on disk: its manifest, its finished runs in the order of the plan, and what they
    together came to."""

    manifest: Mapping[str, Any]
    runs: tuple[RunResults, ...]
    results: SweepResults


def conclude_sweep(folder: SweepFolder, gates: Sequence[Mapping[str, JSON]] = ()) -> dict[str, JSON]:
    """What `sweep.json` is to say of the finished runs together: its `standings` and `results`."""
    manifest = {**folder.read_manifest(), "gates": list(gates), RESULTS: None}
    whole = read_sweep(folder, manifest)
    document = asdict(whole.results)
    del document["gates"]  # they stand in the manifest already
    served = served_by_model(whole.runs)
    return {STANDINGS: document.pop(STANDINGS), RESULTS: document, SERVED: served}


def read_sweep(folder: SweepFolder, manifest: Mapping[str, Any] | None = None) -> Concluded:
    """A sweep with its results, typed. Raises UserError for a document that cannot be read."""
    manifest = folder.read_manifest() if manifest is None else manifest
    return concluded(manifest, [folder.run(run_id) for run_id in folder.run_ids()], folder)


def concluded(
    manifest: Mapping[str, Any], results: Sequence[RunResults], folder: SweepFolder | None
) -> Concluded:
    """A manifest and the results of its runs. Without its `folder` there is no more than they say."""
    scorers = scorer_names(_suite(manifest))
    runs = tuple(_run(run, scorers, folder) for run in results)
    gates = manifest.get("gates") or ()
    where = None if folder is None else folder.path / "sweep.json"
    if isinstance(manifest.get(RESULTS), Mapping):
        together = {**manifest[RESULTS], STANDINGS: manifest.get(STANDINGS) or (), "gates": gates}
        found = read(SweepResults, together, where)
        if JUDGED not in manifest[RESULTS]:  # written by an earlier version
            found = _with_judges(found, _suite(manifest), folder, runs)
        return Concluded(manifest, runs, found)
    from evalrun.analysis.nights import false_alarm_sentence
    from evalrun.analysis.pooled import pooled_estimates

    found = read(SweepResults, {"gates": gates}, where)
    levels = [gate.level for gate in found.gates if gate.level is not None]
    found = replace(found, false_alarms=false_alarm_sentence(levels))
    lost = tuple(replace(each, run=run.run) for run in runs for each in run.details.lost)
    found = replace(found, primary=primary_of(_suite(manifest), gates, runs), lost=lost)
    if found.primary is not None:
        found = replace(found, pooled=tuple(pooled_estimates(runs, found.primary.metric)))
    if folder is not None and found.primary is not None:
        found = _with_comparisons(found, found.primary, folder, runs)
    if folder is not None and any(run.checkpoint is not None for run in runs):
        found = replace(found, checkpoints=_over_steps(folder, _suite(manifest)))
    return Concluded(manifest, runs, _with_judges(found, _suite(manifest), folder, runs))


def has_judges(scorers: Sequence[Any]) -> bool:
    """Whether any of a suite's scorers is a judge."""
    return any(isinstance(entry, Mapping) and "judge" in entry for entry in scorers)


def _with_judges(
    found: SweepResults, suite: Mapping[str, Any], folder: SweepFolder | None, runs: Sequence[RunResults]
) -> SweepResults:
    """With what judges gave the answers, where the suite has any."""
    if folder is None or not has_judges(suite.get("scorers") or ()):
        return found
    from evalrun.analysis.judged import judged_runs

    return replace(found, judged=judged_runs(suite, runs, folder))


def _run(run: RunResults, scorers: Sequence[str], folder: SweepFolder | None) -> RunResults:
    if not any(metric.scorer for metric in run.metrics):  # written by an earlier version
        run = replace(run, metrics=tuple(_with_scorer(metric, scorers) for metric in run.metrics))
    lost = run.counts.failed + run.counts.unparsed
    if (
        lost
        and not run.details.errors
        and folder is not None
        and damage(folder.samples_path(run.run)) is None
    ):
        from evalrun.analysis.samples import error_counts

        run = replace(run, details=replace(run.details, errors=error_counts(folder.samples_path(run.run))))
    return run


def _with_scorer(metric: MetricValue, scorers: Sequence[str]) -> MetricValue:
    of = [scorer for scorer in scorers if f"{metric.name}.".startswith(f"{scorer}.")]
    return replace(metric, scorer=max(of, key=len)) if of else metric


def _suite(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return (manifest.get("suite") or {}).get("resolved") or {}


def scorer_names(suite: Mapping[str, Any]) -> list[str]:
    """The names of the suite's scorers, in its order."""
    return list(scorer_kinds(suite))


def scorer_kinds(suite: Mapping[str, Any]) -> dict[str, str]:
    """The names of the suite's scorers, in its order, and of which kind each is."""
    found = {}
    for entry in suite.get("scorers") or []:
        if isinstance(entry, str):
            found[entry] = entry
        elif isinstance(entry, Mapping) and entry:
            kind, options = next(iter(entry.items()))
            name = kind
            if kind == "python":
                name, options = str(options).rpartition(":")[2], entry.get("args")
            own = options.get("name") if isinstance(options, Mapping) else None
            found[str(own or name)] = str(kind)
    return found


def primary_of(
    suite: Mapping[str, Any], gates: Sequence[Mapping[str, JSON]], runs: Sequence[RunResults]
) -> Primary | None:
    """The first scorer's first metric, which is the mean of its score; where no run has one, the first gate's
    metric; None where there is neither."""
    metrics = [metric for run in runs for metric in run.metrics if not metric.slice]
    first = next(iter(scorer_names(suite)), None)
    for metric in metrics:
        if metric.scorer and metric.scorer == first:
            entry = suite["scorers"][0]
            judged = isinstance(entry, Mapping) and "judge" in entry
            return Primary(metric.name, first, judged=judged)
    if first is None and (own := next((run for run in runs if run.headline), None)) is not None:
        return leading(own, None)
    names = {metric.name for metric in metrics}
    for gate in gates:
        said = re.match(r'\s*(?:"([^"]+)"|(\S+))', str(gate.get("gate", "")))
        name = (said[1] or said[2]) if said else ""
        if name in names:
            return Primary(name, None, exact=False)
    return None


def _with_comparisons(
    found: SweepResults, primary: Primary, folder: SweepFolder, runs: Sequence[RunResults]
) -> SweepResults:
    """With what can only be seen sample by sample."""
    from evalrun.analysis.chance import chance_levels
    from evalrun.analysis.measures import by_dataset, runs_of, score_measure, seed_of, whole_prompts
    from evalrun.analysis.standings import Ranking

    leads = {run.run: leading(run, primary) or primary for run in runs}
    scores = dict.fromkeys(f"score.{each.score}" for each in (primary, *leads.values()))
    loaded = runs_of(folder, [*scores, "cluster", "prompt_tokens"])
    own = whole_prompts(loaded)
    standings = []
    for group in by_dataset(own).values():
        lead = leads[group[0].run.run]
        metric = next((each for run in runs for each in run.metrics if each.name == lead.metric), None)
        if metric is None:
            continue
        measure = score_measure(lead.score or "", metric)
        standings += Ranking(group, measure, alpha=ALPHA, seed=seed_of(measure, own[0].seed)).standings()
    found = replace(found, alpha=ALPHA, standings=tuple(standings))
    if any(run.headline for run in runs) or _suite(folder.read_manifest()).get("stop_early"):
        # Each task has a measure of its own; what ended early has no tests for a fixed number of rows.
        return found
    metric = next(each for run in runs for each in run.metrics if each.name == primary.metric)
    measure = score_measure(primary.score or "", metric)
    seed = seed_of(measure, own[0].seed) if own else 0
    by_chance = chance_levels(own, primary, measure, alpha=ALPHA, seed=seed) if primary.score else ()
    found = replace(found, chance=by_chance)
    readable = [run for run in loaded if run.has_samples]
    if any(run.details.load is not None for run in runs):
        from evalrun.analysis.load_curve import attain_of, load_curves

        resolved = own[0].sweep.suite.resolved if own else None
        attain = attain_of(resolved) if isinstance(resolved, Mapping) else None
        found = replace(found, load=load_curves(own, measure, primary, attain))
    if primary.score is None or not readable or not (len(own) < len(loaded) or _varied(runs)):
        return found
    from evalrun.analysis.correction import Testing
    from evalrun.analysis.effects import sweep_effects

    moved = sweep_effects(readable, [measure], Testing(seed=readable[0].seed))
    return replace(found, effects=moved.axes, sensitivity=moved.sensitivity, ablations=moved.ablations)


def _over_steps(folder: SweepFolder, suite: Mapping[str, Any]) -> tuple[CheckpointLine, ...]:
    """The checkpoints of trainings over their steps."""
    from evalrun.analysis.checkpoints import checkpoint_lines
    from evalrun.analysis.measures import runs_of, whole_prompts

    return checkpoint_lines(whole_prompts(runs_of(folder)), suite.get("checkpoints"), alpha=ALPHA)


def _varied(runs: Sequence[RunResults]) -> bool:
    """Whether several things vary, or one prompt of several: with one axis the standings say it all."""
    values: dict[tuple[str, str], set[bytes]] = {}
    for run in runs:
        for name, value in run.params.items():
            values.setdefault((run.model, name), set()).add(canonical_json(value))
    params = {name for (_, name), each in values.items() if len(each) > 1}
    models, prompts = {run.model for run in runs}, {run.prompt for run in runs}
    return (len(models) > 1) + (len(prompts) > 1) + len(params) > 1 or len(prompts) >= MANY_PROMPTS
