"""The HTML report of a sweep: what it shows as values, and one file that needs no network made from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalrun.atomic import replacing
from evalrun.explain.words import CAUTION
from evalrun.explanations import EXPLANATIONS
from evalrun.frozen import frozen
from evalrun.reports import details, page
from evalrun.reports.by_column import by_column
from evalrun.reports.charts.dots import forest
from evalrun.reports.charts.load import cautions, level_charts, level_table, names_of, sentences
from evalrun.reports.charts.quality import quality_charts
from evalrun.reports.charts.resources import MANY_READINGS, read_system, resources
from evalrun.reports.charts.speed import NAMES, latency, load_charts
from evalrun.reports.checkpoints import LineView, checkpoint_views
from evalrun.reports.effects import Effects, effects
from evalrun.reports.fairness import FairnessView, correction, fairness, overview
from evalrun.reports.gates import GateView, gates
from evalrun.reports.judges import JudgesView, judges
from evalrun.reports.leaderboard import Leaderboard, Matrix, leaderboard, matrix
from evalrun.reports.numbers import moment, plural, seconds
from evalrun.reports.people import PeopleView, people_view
from evalrun.reports.previous import previous_line
from evalrun.reports.prompts import PromptView, prompts
from evalrun.reports.samples import SampleWriter
from evalrun.reports.search import SearchView, search_view
from evalrun.reports.source import MANY_UNREADABLE, Manifest, Source, Suite, column_titles, missing_runs
from evalrun.reports.stages import Bars, stage_bars
from evalrun.reports.verdicts import judge
from evalrun.reports.versions import VersionsView, bbq_tables, pair_table, versions
from evalrun.reports.view import (
    Answer,
    Chart,
    RunView,
    Sentence,
    Table,
    chance_of,
    lead_of,
    other_scores,
    score_columns,
)  # fmt: skip
from evalrun.sweep_results import Primary
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.reports.explain import ExplanationView


@frozen
class Header:
    """What the sweep is, and how it ended. `trouble` is a line where it is not complete, `before` one against
    the sweep before it."""

    name: str
    description: str
    when: str
    took: str
    status: str
    size: str
    trouble: str
    before: str = ""


@frozen
class Report:
    """The sections of the page, in their order. Empty sections are left out by the templates."""

    header: Header
    overall: Sentence
    answers: Sequence[Answer]
    gates: Sequence[GateView]
    leaderboards: Sequence[Leaderboard]
    groups: Table | None
    by_column: Sequence[Table]
    matrix: Matrix | None
    prompts: Sequence[PromptView]
    quality: Sequence[Chart]
    checkpoints: Sequence[LineView]
    effects: Effects
    search: SearchView | None
    judges: Sequence[JudgesView]
    speed: Sequence[Chart]
    load: Sequence[Chart]
    levels: Sequence[Chart]
    level_tables: Sequence[Table]
    load_sentences: Sequence[str]
    load_cautions: Sequence[str]
    speed_note: str
    speed_cautions: Sequence[str]
    stages: Bars
    fairness: Sequence[FairnessView]
    gaps: Table | None
    correction: str
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
    manifest: Manifest
    runs: Sequence[RunView]
    primary: Primary | None

    @property
    def charts(self) -> list[Chart]:
        """All charts of the page."""
        groups = [view.chart for view in self.fairness if view.chart]
        raced = self.search.charts if self.search else []
        every = [*raced, *self.quality, *self.effects.charts, *self.speed, *self.load, *self.levels]
        steps = [chart for line in self.checkpoints for chart in line.charts]
        return [*every, *steps, *groups, *self.resources]

    @property
    def shown(self) -> frozenset[str]:
        """The metrics of the leaderboards, whose definitions go onto paper as well."""
        return frozenset(
            name for board in self.leaderboards for name in (board.metric, *(c.metric for c in board.columns))
        )

    @property
    def what(self) -> Mapping[str, str]:
        """Definitions by metric name, for tooltips."""
        return {definition.name: definition.definition for definition in self.definitions}


SLOWED = 2
"""So many runs that evalrun slowed are told one by one."""


def _slowed(runs: Sequence[RunView]) -> list[str]:
    """That evalrun, or others beside it, were part of the latencies; of many runs the first ones are told."""
    limited = [
        f"{run.full}: {said}."
        for run in runs
        for said in (run.details.client_limited, run.details.beside)
        if said
    ]
    told = limited[:SLOWED]
    rest = len(limited) - len(told)
    return [*told, f"{plural(rest, 'more run')} alike."] if rest else told


def build_report(source: Source) -> Report:
    """Everything but the samples, from a sweep's documents."""
    suite, verdicts = source.suite, judge(source)
    primary, views, by_dataset = verdicts.primary, verdicts.views, verdicts.by_dataset
    metric, named = primary.metric if primary else "", verdicts.named
    datasets = [(at, name, runs) for at, (name, runs) in enumerate(by_dataset.items())]
    everything = [*(run for runs in by_dataset.values() for run in runs), *verdicts.variants]
    titles = column_titles(suite)
    speed = _speed(datasets, named=named)
    fair = [
        view
        for at, name, runs in datasets
        for view in fairness(runs, _group_metric(runs, metric), name, named=named, at=at, titles=titles)
    ]
    return Report(
        header=_header(source, views),
        overall=verdicts.overall,
        answers=verdicts.answers,
        gates=gates(source.manifest.gates, views),
        leaderboards=[
            leaderboard(name, runs, lead_of(runs, primary), named=named, others=other_scores(suite, runs))
            for _, name, runs in datasets
        ],
        groups=details.task_groups(source.manifest.groups),
        by_column=by_column(by_dataset, suite.report.by if suite.report else (), named=named),
        matrix=matrix(by_dataset, metric),
        prompts=prompts(by_dataset, source.manifest.prompts, suite.prompts or ()),
        quality=_quality(datasets, primary, named=named),
        checkpoints=checkpoint_views(source.results.checkpoints, source.runs, _chances(everything, primary)),
        effects=effects(source.results),
        search=search_view(source),
        judges=judges(source, by_dataset),
        speed=speed,
        load=[] if source.results.load else _load(datasets, named=named),
        levels=level_charts(source.results.load, views),
        level_tables=[*map(level_table, names_of(source.results.load), source.results.load)],
        load_sentences=sentences(source.results.load),
        load_cautions=cautions(source.results.load),
        speed_note="" if speed else _no_speed(everything),
        speed_cautions=_slowed(everything),
        stages=stage_bars(everything),
        fairness=fair,
        gaps=overview(by_dataset, titles, named=named),
        correction=correction(everything),
        versions=[view for _, name, runs in datasets for view in versions(runs, metric, name)],
        bias=[table for _, _, runs in datasets for table in (*bbq_tables(runs), *pair_table(runs, suite))],
        fairness_note="" if fair else _no_fairness(suite),
        confusions=details.confusions(everything),
        causes=details.causes(everything),
        failures=details.failures(everything),
        resources=resources(everything, _readings(source, everything)),
        definitions=details.definitions(everything, [metric]),
        pipeline=details.pipeline(suite),
        metrics=details.all_metrics(views),
        manifest=source.manifest,
        runs=everything,
        primary=primary,
    )


def _chances(views: Sequence[RunView], primary: Primary | None) -> dict[str, float]:
    """The level of chance of the primary metric, by run."""
    found = {view.id: chance_of([view], primary) for view in views}
    return {run: chance.level for run, chance in found.items() if chance}


Datasets: TypeAlias = Sequence[tuple[int, str, Sequence[RunView]]]
"""The datasets of a sweep: place, name, ranked runs."""


def _quality(datasets: Datasets, primary: Primary | None, *, named: bool) -> list[Chart]:
    charts: list[Chart] = []
    for at, dataset, runs in datasets:
        quality = quality_charts(at, dataset, runs, lead_of(runs, primary), named=named)
        # A single chart has room beside it.
        apart = forest(f"forest-{at}", dataset, runs, named=named, wide=len(quality) != 1)
        charts += [*quality, apart] if apart else quality
    return charts


def _speed(datasets: Datasets, *, named: bool) -> list[Chart]:
    return [
        chart
        for at, name, runs in datasets
        for measure in NAMES
        if (chart := latency(f"{measure}-{at}", measure, name, runs, named=named))
    ]


def _load(datasets: Datasets, *, named: bool) -> list[Chart]:
    return [chart for at, name, runs in datasets for chart in load_charts(at, name, runs, named=named)]


def _group_metric(runs: Sequence[RunView], metric: str) -> str:
    """The primary metric where it was compared by group, else the first one that was."""
    for run in runs:
        for column in run.details.groups.values():
            return metric if metric in column.metrics or not column.metrics else next(iter(column.metrics))
    return metric


def _readings(source: Source, views: Sequence[RunView]) -> dict[str, list[dict[str, Any]]]:
    paths = {view.id: source.system(view.id) for view in views[:MANY_READINGS]}
    return {run: read_system(path) for run, path in paths.items() if path is not None}


_STATUS = {
    "interrupted": "was interrupted",
    "incomplete": "could not be completed",
    "running": "is not finished",
    "failed": "got no answer at all",
}


def _header(source: Source, views: Sequence[RunView]) -> Header:
    manifest, trouble = source.manifest, ""
    samples = sum(view.counts.samples for view in views)
    if manifest.status in _STATUS:
        what = f": {missing_runs(source)}" if source.missing else "."
        trouble = f"This sweep {_STATUS[manifest.status]}{what}"
        trouble = " ".join([trouble, *map(_sentences, manifest.faults[:3])])
    said = [*source.ended_early, *source.erased, *source.unreadable[:MANY_UNREADABLE]]
    trouble = " ".join([trouble, *said]).strip()
    return Header(
        name=manifest.name,
        description=source.suite.description or "",
        when=moment(manifest.started_at),
        took=_took(manifest),
        status=manifest.status,
        size=f"{plural(len(views), 'run')}, {plural(samples, 'sample')}",
        trouble=trouble,
        before=_before(manifest, views),
    )


def _before(manifest: Manifest, views: Sequence[RunView]) -> str:
    if manifest.previous is None:
        return ""
    labels = {view.id: view.full for view in views}
    return f"{previous_line(manifest.previous, manifest.started_at, labels, now=False)}."


def _sentences(fault: str) -> str:
    """A fault's lines (what, where, remedy) as sentences on one line."""
    lines = [line.strip().rstrip(".") for line in fault.splitlines() if line.strip()]
    return " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)


def _took(manifest: Manifest) -> str:
    from datetime import datetime

    try:
        begun = datetime.fromisoformat(manifest.started_at or "")
        return seconds((datetime.fromisoformat(manifest.finished_at or "") - begun).total_seconds())
    except (TypeError, ValueError):
        return ""


def _no_speed(runs: Sequence[RunView]) -> str:
    if runs and all(run.counts.failed == run.counts.samples for run in runs):
        return "No answer arrived, so nothing was timed."
    if runs and all(run.counts.cached == run.counts.samples for run in runs):
        return "Every answer came from the cache, so nothing was timed."
    return "No latencies: nothing was timed in this sweep (recorded answers have no times)."


def _no_fairness(suite: Suite) -> str:
    if suite.fairness:
        return "The samples have no values in the columns named under fairness."
    return "The suite names no column to compare groups by (fairness: {by: [column]})."


SAMPLES_MARK = "<!--samples-->"
SCRIPTS = (
    "page.js", "sorting.js", "download.js", "charts.js", "text.js", "metrics.js", "diff.js", "prompts.js",
    "store.js", "sample.js", "grid.js", "samples.js",
)  # fmt: skip

SHAPES = (
    "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z", "M-5.3-5.3H5.3V5.3H-5.3Z", "M0-6.4L6.2 4.8H-6.2Z",
    "M0-7.2L6 0L0 7.2L-6 0Z", "M0 6.4L6.2-4.8H-6.2Z", "M-2-6.2H2V-2H6.2V2H2V6.2H-2V2H-6.2V-2H-2Z",
    "M6.4 0L-4.8 6.2V-6.2Z", "M-6.4 0L4.8 6.2V-6.2Z",
)  # fmt: skip
"""The shapes of the charts' points (charts/theme.py), as SVG paths for the names of runs."""


REPORTS = Path("reports")
"""Where reports go that nobody names a place for."""


def report_path(folder: SweepFolder) -> Path:
    """Where the report of a sweep is written by default, from the current folder."""
    return REPORTS / f"{folder.path.name.lower()}.html"


def write_report(folder: SweepFolder, out: Path, *, home: str = "", scrubbed: bool = False) -> None:
    """Write the report of a sweep folder to `out`, whole or not at all.

    Reads sweep.json, runs/*/run.json, samples.parquet and system.parquet; samples are streamed, so memory
    does not grow with them. Where the charts' JavaScript cannot be made the report is written without
    charts and says so. `home` is a page that it links back to. `scrubbed`: secrets are taken out of the
    samples' texts too, and explanations, which quote them in parts, are left out. Raises UserError when the
    folder cannot be read or `out` cannot be written.
    """
    source = Source.of(folder)
    report = build_report(source)
    explained = (
        []
        if scrubbed or not any((folder.run_dir(run.id) / EXPLANATIONS).exists() for run in report.runs)
        else (_explanations(folder))
    )
    people = [people_view(folder)]
    head, tail = render(report, home, people, explained).split(SAMPLES_MARK)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            score = report.primary.score if report.primary else None
            total = sum(run.counts.samples for run in report.runs)
            writer = SampleWriter(file, score_columns(report.runs, score), total=total, scrubbed=scrubbed)
            for run in report.runs:
                samples = source.samples(run.id)
                if samples is not None:
                    writer.add_run(run, samples)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(page.REPORT_MODE)


def _explanations(folder: SweepFolder) -> list[ExplanationView]:
    from evalrun.reports.explain import of_sweep

    return of_sweep(folder)


def render(
    report: Report,
    home: str = "",
    people: Sequence[PeopleView] = (),
    explanations: Sequence[ExplanationView] = (),
) -> str:
    """The page without its samples, which belong where SAMPLES_MARK stands."""
    from markupsafe import Markup

    table = report.metrics
    metrics = {"columns": table.columns, "rows": table.rows, "numeric": sorted(table.numeric)}
    return (
        page.environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            people=people,
            explanations=explanations,
            caution=CAUTION,
            metrics=Markup(page.safe_json(metrics)),  # JSON in which no < is left
            shapes=SHAPES,
            samples=Markup(SAMPLES_MARK),
            **page.frame(
                (*SCRIPTS, "explain.js") if explanations else SCRIPTS,
                report.charts,
                home,
                f"{report.header.name}, {report.header.when}",
            ),
        )
    )


def prepare_templates() -> None:
    """Compile the templates into the cache folder, so that the next report need not."""
    environment = page.environment()
    for name in environment.list_templates():
        environment.get_template(name)
