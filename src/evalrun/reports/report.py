"""The whole report as values: everything that the page shows except the samples themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports import details
from evalrun.reports.advice import overall
from evalrun.reports.answer import answer, client_limited
from evalrun.reports.charts.forest import forest
from evalrun.reports.charts.latency import NAMES, latency
from evalrun.reports.charts.load import load_charts
from evalrun.reports.charts.quality import quality_charts
from evalrun.reports.charts.resources import read_system, resources
from evalrun.reports.columns import RunColumns, read_columns
from evalrun.reports.effects import Effects, effects
from evalrun.reports.fairness import FairnessView, fairness
from evalrun.reports.gateview import GateView, gates
from evalrun.reports.judges import JudgesView, judges
from evalrun.reports.leaderboard import Leaderboard, leaderboard
from evalrun.reports.matrix import Matrix, matrix
from evalrun.reports.numbers import moment, plural, seconds
from evalrun.reports.runs import Primary, find_primary, make_runs, other_scores
from evalrun.reports.source import Source
from evalrun.reports.standings import ranked
from evalrun.reports.versions import VersionsView, bbq_tables, pair_table, versions
from evalrun.reports.view import Answer, Chart, RunView, Sentence, Table
from evalrun.types import JSON, Status

CONFUSIONS_OPEN = 1
"""So many confusion matrices are shown; the others are folded away."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the sweep is, and how it ended. `trouble` is a line where it is not complete."""

    name: str
    description: str
    when: str
    took: str
    status: str
    size: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Report:
    """The sections of the page, in their order. Empty sections are left out by the templates."""

    header: Header
    overall: Sentence
    answers: Sequence[Answer]
    gates: Sequence[GateView]
    leaderboards: Sequence[Leaderboard]
    matrix: Matrix | None
    quality: Sequence[Chart]
    effects: Effects
    judges: Sequence[JudgesView]
    speed: Sequence[Chart]
    load: Sequence[Chart]
    speed_note: str
    speed_cautions: Sequence[str]
    fairness: Sequence[FairnessView]
    versions: Sequence[VersionsView]
    bias: Sequence[Table]
    fairness_note: str
    confusions: Sequence[details.ConfusionView]
    causes: Table | None
    failures: Table | None
    resources: Sequence[Chart]
    definitions: Sequence[details.DefinitionView]
    pipeline: Sequence[tuple[str, str]]
    metrics: Table
    manifest: Mapping[str, JSON]
    runs: Sequence[RunView]
    primary: Primary | None

    @property
    def charts(self) -> list[Chart]:
        """All charts of the page."""
        groups = [view.chart for view in self.fairness if view.chart]
        return [*self.quality, *self.effects.charts, *self.speed, *self.load, *groups, *self.resources]

    @property
    def shown(self) -> frozenset[str]:
        """The metrics of the leaderboards, whose definitions go onto paper as well."""
        return frozenset(
            name for board in self.leaderboards for name in (board.metric, *(c.metric for c in board.columns))
        )

    @property
    def what(self) -> Mapping[str, str]:
        """Definitions by metric name, for tooltips."""
        return {each.name: each.definition for each in self.definitions}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The runs, ranked within each dataset, and what that says. `views` are in the order of the plan.

    `variants` are the runs of prompts with a part left out (`ablate: true`): nobody means to use these, so
    they are not ranked.
    """

    primary: Primary | None
    views: Sequence[RunView]
    by_dataset: Mapping[str, Sequence[RunView]]
    columns: Mapping[str, RunColumns]
    answers: Sequence[Answer]
    variants: Sequence[RunView] = ()

    @property
    def named(self) -> bool:
        """Whether datasets must be named, because there are several."""
        return len(self.by_dataset) > 1

    @property
    def overall(self) -> Sentence:
        """Which run leads over several datasets, if that can be said."""
        return overall(self.answers)


def judge(source: Source) -> Verdicts:
    """Rank the runs and say what that means; without Parquet files the runs are not told apart."""
    primary = find_primary(source.suite, source.manifest.get("gates") or [], source.runs)
    plan = source.manifest.get("plan") or []
    everything = make_runs(plan, source.runs, primary)
    ablated = {each["run"] for each in plan if each.get("ablates")}
    views = [view for view in everything if view.run not in ablated]
    columns = _columns(source, views, primary)
    datasets = list(dict.fromkeys(view.dataset for view in views))
    by_dataset = {name: ranked([v for v in views if v.dataset == name], columns) for name in datasets}
    named = len(datasets) > 1
    failed: dict[str, list[str]] = {}
    for gate in source.manifest.get("gates") or []:
        if gate.get("verdict") not in ("pass", "inconclusive"):
            failed.setdefault(str(gate.get("run")), []).append(str(gate.get("gate")))
    answers = [
        answer(name, runs, primary, named=named, failed_gates=failed, causes=_causes(runs, columns))
        for name, runs in by_dataset.items()
    ]
    return Verdicts(
        primary,
        everything,
        by_dataset,
        columns,
        answers or [answer("", [], primary, named=False)],
        [view for view in everything if view.run in ablated],
    )


def _causes(runs: Sequence[RunView], columns: Mapping[str, RunColumns]) -> list[str]:
    """The kinds of failures of some runs, the commonest first."""
    totals: Counter[str] = Counter()
    for run in runs:
        for (status, kind), times in (columns[run.run].errors if run.run in columns else {}).items():
            if status == Status.FAILED:
                totals[kind] += times
    return [kind for kind, _ in totals.most_common()]


def build_report(source: Source) -> Report:
    """Everything but the samples, from a sweep's documents and Parquet columns."""
    suite = source.suite
    results = source.manifest.get("gates") or []
    verdicts = judge(source)
    primary, views, by_dataset = verdicts.primary, verdicts.views, verdicts.by_dataset
    named, columns = verdicts.named, verdicts.columns
    whole_runs = [run for runs in by_dataset.values() for run in runs]
    everything = [*whole_runs, *verdicts.variants]
    whole = _Whole(primary, named, column_titles(suite))
    parts = [_dataset_parts(at, name, runs, whole) for at, (name, runs) in enumerate(by_dataset.items())]
    speed = [chart for part in parts for chart in part.speed]
    fair = [view for part in parts for view in part.fairness]
    first = [primary.metric] if primary else []
    return Report(
        header=_header(source, views),
        overall=verdicts.overall,
        answers=verdicts.answers,
        gates=gates(results, views),
        leaderboards=[
            leaderboard(name, runs, primary, named=named, others=other_scores(suite, runs))
            for name, runs in by_dataset.items()
        ],
        matrix=matrix(by_dataset, primary.metric if primary else ""),
        quality=[chart for part in parts for chart in part.quality],
        effects=effects(source, primary, whole_runs, ablated=bool(verdicts.variants)),
        judges=judges(source, by_dataset),
        speed=speed,
        load=[chart for part in parts for chart in part.load],
        speed_note="" if speed else _no_speed(everything),
        speed_cautions=[
            f"{run.full}: {run.details['client_limited']}." for run in everything if client_limited(run)
        ],
        fairness=fair,
        versions=[view for part in parts for view in part.versions],
        bias=[table for part in parts for table in part.bias],
        fairness_note="" if fair else _no_fairness(suite),
        confusions=details.confusions(everything),
        causes=details.causes(everything, columns),
        failures=details.failures(everything, columns),
        resources=resources(everything, _readings(source, views)),
        definitions=details.definitions(everything, first),
        pipeline=details.pipeline(suite),
        metrics=details.all_metrics(source.runs, {view.run: view.full for view in views}),
        manifest=source.manifest,
        runs=everything,
        primary=primary,
    )


@dataclass(frozen=True, slots=True)
class _DatasetParts:
    quality: list[Chart]
    speed: list[Chart]
    load: list[Chart]
    fairness: list[FairnessView]
    versions: list[VersionsView]
    bias: list[Table]


@dataclass(frozen=True, slots=True)
class _Whole:
    """What the parts of all datasets share."""

    primary: Primary | None
    named: bool
    titles: Mapping[str, str]


def column_titles(suite: Mapping[str, JSON]) -> dict[str, str]:
    """How columns taken together are called: `a-b` is a \N{MULTIPLICATION SIGN} b."""
    crossed = (suite.get("fairness") or {}).get("intersections") or []
    return {"-".join(names): " \N{MULTIPLICATION SIGN} ".join(names) for names in crossed}


def _dataset_parts(at: int, dataset: str, runs: Sequence[RunView], whole: _Whole) -> _DatasetParts:
    named = whole.named
    charts = [latency(f"{name}-{at}", name, dataset, runs, named=named) for name in NAMES]
    metric = whole.primary.metric if whole.primary else ""
    by_metric = _group_metric(runs, metric)
    pairs = pair_table(runs)
    quality = quality_charts(at, dataset, runs, named=named)
    # A single chart has room beside it.
    apart = forest(f"forest-{at}", dataset, runs, named=named, wide=len(quality) != 1)
    return _DatasetParts(
        quality=[*quality, *([apart] if apart else [])],
        speed=[chart for chart in charts if chart],
        load=load_charts(at, dataset, runs, named=named),
        fairness=fairness(runs, by_metric, dataset, named=named, at=at, titles=whole.titles),
        versions=versions(runs, metric, dataset),
        bias=[*bbq_tables(runs), *([pairs] if pairs else [])],
    )


def _group_metric(runs: Sequence[RunView], metric: str) -> str:
    """The primary metric where it was compared by group, else the first one that was."""
    for run in runs:
        for column in (run.details.get("groups") or {}).values():
            known = list(column.get("metrics") or {})
            return metric if metric in known or not known else known[0]
    return metric


def _columns(source: Source, views: Sequence[RunView], primary: Primary | None) -> dict[str, RunColumns]:
    scored_only = source.suite.get("unparsed") == "exclude"
    score = primary.score if primary else None
    found = {}
    for view in views:
        path = source.samples(view.run)
        if path is not None:
            found[view.run] = read_columns(path, score, scored_only=scored_only)
    return found


def _readings(source: Source, views: Sequence[RunView]) -> dict[str, list[dict[str, Any]]]:
    paths = {view.run: source.system(view.run) for view in views}
    return {run: read_system(path) for run, path in paths.items() if path is not None}


_STATUS = {
    "interrupted": "was interrupted",
    "incomplete": "could not be completed",
    "running": "is not finished",
}


def _header(source: Source, views: Sequence[RunView]) -> Header:
    manifest = source.manifest
    status = str(manifest.get("status") or "")
    samples = sum(view.counts.samples for view in views)
    trouble = ""
    if status in _STATUS:
        missing, planned = len(source.missing), len(source.missing) + len(views)
        have = "has" if missing == 1 else "have"
        what = f": {missing} of {plural(planned, 'run')} {have} no results." if missing else "."
        trouble = f"This sweep {_STATUS[status]}{what}"
        faults = [_sentences(str(each)) for each in manifest.get("faults") or []]
        trouble = " ".join([trouble, *faults[:3]])
    return Header(
        name=str(manifest.get("name") or ""),
        description=str(source.suite.get("description") or ""),
        when=moment(manifest.get("started_at")),
        took=_took(manifest),
        status=status,
        size=f"{plural(len(views), 'run')}, {plural(samples, 'sample')}",
        trouble=trouble,
    )


def _sentences(fault: str) -> str:
    """A fault's lines (what, where, remedy) as sentences on one line."""
    lines = [line.strip().rstrip(".") for line in fault.splitlines() if line.strip()]
    return " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)


def _took(manifest: Mapping[str, JSON]) -> str:
    from datetime import datetime

    try:
        begun = datetime.fromisoformat(manifest["started_at"])
        ended = datetime.fromisoformat(manifest["finished_at"])
        return seconds((ended - begun).total_seconds())
    except (KeyError, TypeError, ValueError):
        return ""


def _no_speed(runs: Sequence[RunView]) -> str:
    if runs and all(run.counts.failed == run.counts.samples for run in runs):
        return "No answer arrived, so nothing was timed."
    if runs and all(run.counts.cached == run.counts.samples for run in runs):
        return "Every answer came from the cache, so nothing was timed."
    return "No latencies: nothing was timed in this sweep (recorded answers have no times)."


def _no_fairness(suite: Mapping[str, JSON]) -> str:
    if suite.get("fairness"):
        return "The samples have no values in the columns named under fairness."
    return "The suite names no sensitive column (fairness: {by: [column]}), so groups were not compared."
