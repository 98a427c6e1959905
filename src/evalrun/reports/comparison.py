"""A comparison as one HTML page: differences, what changed in between, and the samples of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.measures import RunInfo
from evalrun.analysis.standings import DatasetStandings
from evalrun.atomic import disk_errors, replacing
from evalrun.reports import page
from evalrun.reports.charts.dots import behind_best, differences
from evalrun.reports.compared import by_metric, footer, means, notes, pairs_table, sections
from evalrun.reports.effects import Section, change
from evalrun.reports.numbers import count, moment, plural, tested
from evalrun.reports.report import SAMPLES_MARK, judge
from evalrun.reports.samples import SampleWriter
from evalrun.reports.source import Source
from evalrun.reports.view import Chart, RunView, Table, score_columns, verdict_word
from evalrun.reports.visible import visible
from evalrun.tracking.diff import SweepDiff, diff_sweeps
from evalrun.tracking.folder import SweepFolder

LINKS = 8
"""Samples that changed sides are linked to, so many each way."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the sweeps. `letter` names it on the page."""

    letter: str
    sweep: str
    name: str
    when: str
    size: str


@dataclass(frozen=True, slots=True)
class FlipsView:
    """Samples that changed sides: how many, which way, and links to the first few."""

    text: str
    links: Sequence[tuple[str, str]]
    more: int


@dataclass(frozen=True, slots=True)
class Pair:
    """One run against another: what is said about it, and the samples that changed sides. `figures` are both
    values and their difference."""

    label: str
    word: str
    figures: str
    sentence: str
    remarks: Sequence[str]
    flips: Sequence[FlipsView]


@dataclass(frozen=True, slots=True)
class MetricView:
    """All pairs of one metric."""

    title: str
    pairs: Sequence[Pair]
    table: Table
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different in `letter` from the first sweep: tables by title, and prompts word by word."""

    letter: str
    same: bool
    tables: Sequence[Table]
    prompts: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """The page. `samples` are the runs whose samples are inside, with their files."""

    title: str
    sides: Sequence[Side]
    lead: str
    metrics: Sequence[MetricView]
    within: Sequence[Section]
    changes: Sequence[Changes]
    notes: Sequence[str]
    runs: Sequence[RunView]
    samples: Sequence[tuple[RunView, Path]]
    score: str | None
    lower: bool

    @property
    def charts(self) -> list[Chart]:
        """All charts of the page."""
        charts = [metric.chart for metric in self.metrics] + [each.chart for each in self.within]
        return [chart for chart in charts if chart]


def view(comparison: Comparison, folders: Sequence[SweepFolder]) -> ComparisonView:
    """The page of a comparison of these sweeps, the first of which the others are compared with."""
    folders = list({folder.ulid: folder for folder in folders}.values())
    letters = {folder.ulid: LETTERS[at % len(LETTERS)] for at, folder in enumerate(folders)}
    sources = {folder.ulid: Source.of(folder) for folder in folders}
    sides = [_side(letters[ulid], ulid, source) for ulid, source in sources.items()]
    views = _runs(comparison, sources, letters)
    metrics = [
        _metric(at, title, rows, letters) for at, (title, rows) in enumerate(by_metric(comparison.compared))
    ]
    measured: list[Compared | DatasetStandings] = [*comparison.compared, *comparison.standings]
    first = measured[0] if measured else None
    return ComparisonView(
        title=_title(sides),
        sides=sides,
        lead=_lead(comparison),
        metrics=metrics,
        within=_within_all(comparison),
        changes=[_changes(letters[each.ulid], diff_sweeps(folders[0], each)) for each in folders[1:]],
        notes=[visible(line) for line in footer(comparison)],
        runs=[run for run, _ in views],
        samples=[(run, path) for run, path in views if path is not None],
        score=first.metric if first else None,
        lower=first is not None and first.direction == "lower",
    )


def _title(sides: Sequence[Side]) -> str:
    if len(sides) == 1:
        return f"{visible(sides[0].name)}: its runs compared"
    names = list(dict.fromkeys(visible(side.name) for side in sides))
    others = ", ".join(side.letter for side in sides[1:])
    return f"{' and '.join(names)}: {others} against {sides[0].letter}"


def _side(letter: str, ulid: str, source: Source) -> Side:
    runs = source.runs
    samples = sum(run.counts.samples for run in runs)
    return Side(
        letter=letter,
        sweep=ulid,
        name=visible(source.manifest.name),
        when=moment(source.manifest.started_at),
        size=f"{plural(len(runs), 'run')}, {plural(samples, 'sample')}",
    )


def _runs(
    comparison: Comparison, sources: Mapping[str, Source], letters: Mapping[str, str]
) -> list[tuple[RunView, Path | None]]:
    """The runs that take part, named by their sweep's letter, and where their samples are."""
    taking = [each for pair in comparison.compared for each in (pair.a, pair.b)]
    taking += [place.run for standing in comparison.standings for place in standing.places]
    part = {(each.sweep, each.run) for each in taking}
    found = []
    for ulid, source in sources.items():
        for run in judge(source).views:
            if (ulid, run.id) in part:
                letter = f"{letters[ulid]} " if len(sources) > 1 else ""
                named = replace(run, id=f"{ulid}/{run.id}", full=f"{letter}{run.full}")
                found.append((named, source.samples(run.id)))
    return found


def _lead(comparison: Comparison) -> str:
    """What the first metric says, in words."""
    if not comparison.compared:
        said = [standing.sentence for standing in comparison.standings[:1]]
        return f"By {comparison.standings[0].metric}: {said[0]}." if said else "Nothing could be compared."
    metric = comparison.compared[0].metric
    known = [verdict_word(each.verdict) for each in comparison.compared if each.metric == metric]
    every = len(known)
    found = {word: known.count(word) for word in ("worse", "better", "lower", "higher") if word in known}
    if found:
        counts = " and ".join(f"{word} in {number}" for word, number in found.items())
        return f"By {metric}: {counts} of {plural(every, 'comparison')}."
    if all(word == "equivalent" for word in known):
        return f"By {metric} nothing changed that matters, in {plural(every, 'comparison')}."
    return f"By {metric} no difference is shown, in {plural(every, 'comparison')}: the samples do not tell."


def _within_all(comparison: Comparison) -> list[Section]:
    """All that was found within the sweep; where the runs stand to the best is drawn as well."""
    found = sections(comparison)
    for at, standing in enumerate(comparison.standings):  # which come first among the sections
        found[at] = replace(found[at], chart=behind_best(f"standing-{at}", standing))
    return found


def _figures(each: Compared) -> str:
    """`0.69 → 0.78, +0.09 [0.00, +0.18], p = 0.113`."""
    if each.result.difference is None:
        return ""
    before, after = means(each.result, each.unit)
    p = "" if each.p_corrected is None else f", {tested(each.p_corrected)}"
    return f"{before} → {after}, {change(each.result, each.unit)}{p}"


def _label(each: Compared, letters: Mapping[str, str]) -> str:
    """The pair in words: by the run's name alone where both sweeps have it."""

    def named(run: RunInfo) -> str:
        return f"{letters.get(run.sweep, '')} {visible(run.run)}" if len(letters) > 1 else visible(run.run)

    if each.a.run == each.b.run:
        others = f" ({', '.join(each.differs)})" if each.differs else ""
        beside = f", {letters.get(each.b.sweep, '')}" if len(letters) > 2 else ""
        return visible(each.b.run + others) + beside
    return f"{named(each.b)} against {named(each.a)}"


def _metric(at: int, title: str, rows: Sequence[Compared], letters: Mapping[str, str]) -> MetricView:
    labels = [_label(each, letters) for each in rows]
    table = pairs_table(title, rows, labels)
    body = [[*row, count(each.result.n)] for row, each in zip(table.rows, rows, strict=True)]
    table = replace(table, columns=[*table.columns, "pairs"], rows=body, numeric=table.numeric | {6})
    pairs = [
        Pair(
            label=label,
            word=verdict_word(each.verdict),
            figures=_figures(each),
            sentence=each.verdict.sentence,
            remarks=[visible(line) for line in notes(each)],
            flips=_flips(each),
        )
        for label, each in zip(labels, rows, strict=True)
    ]
    chart = differences(f"differences-{at}", rows[0].metric, list(zip(labels, rows, strict=True)), table)
    return MetricView(visible(title), pairs, table, chart)


def _flips(each: Compared) -> list[FlipsView]:
    if each.flips is None:
        return []
    run = quote(f"{each.b.sweep}/{each.b.run}", safe="")
    return [
        FlipsView(
            text=f"{plural(len(ids), 'sample')} went from {what}",
            links=[(visible(id_), f"#sample={run}/{quote(id_, safe='')}/0") for id_ in ids[:LINKS]],
            more=max(0, len(ids) - LINKS),
        )
        for ids, what in ((each.flips.lost, "right to wrong"), (each.flips.won, "wrong to right"))
        if ids
    ]


def _changes(letter: str, diff: SweepDiff) -> Changes:
    tables = []
    for title in ("suite", "models", "packages", "machine", "code"):
        changes = getattr(diff, title)
        if changes:
            rows = [[visible(c.name), _said(c.before), _said(c.after)] for c in changes]
            tables.append(Table(title, ["what", "before", f"in {letter}"], rows))
    data = [each for each in diff.data if not each.same]
    if data:
        rows = [
            [visible(d.dataset), count(d.added), count(d.removed), count(d.changed), visible(d.note)]
            for d in data
        ]
        tables.insert(
            0,
            Table(
                "data, in rows", ["dataset", "added", "removed", "changed", ""], rows, frozenset({1, 2, 3})
            ),
        )
    return Changes(letter, diff.same, tables, diff.prompts)


def _said(value: Any) -> str:
    if value is None:
        return "(not there)"
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)
    return visible(text if len(text) <= 400 else text[:400] + " …")


SCRIPTS = (
    "page.js",
    "download.js",
    "charts.js",
    "text.js",
    "diff.js",
    "store.js",
    "sample.js",
    "grid.js",
    "samples.js",
)


def write_comparison(comparison: Comparison, folders: Sequence[SweepFolder], out: Path) -> None:
    """Write the page to `out`, whole or not at all; samples are streamed.

    `folders` are the sweeps that were compared, the first of which the others are compared with. Raises
    UserError where a folder cannot be read or `out` cannot be written.
    """
    shown = view(comparison, folders)
    head, tail = _render(shown).split(SAMPLES_MARK)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            total = sum(run.counts.samples for run, _ in shown.samples)
            writer = SampleWriter(
                file, score_columns([run for run, _ in shown.samples], shown.score), total=total
            )
            for run, path in shown.samples:
                writer.add_run(run, path)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(page.REPORT_MODE)


def _render(shown: ComparisonView) -> str:
    from markupsafe import Markup

    return (
        page.environment()
        .get_template("comparison.html.j2")
        .render(report=shown, samples=Markup(SAMPLES_MARK), **page.frame(SCRIPTS, shown.charts))
    )
