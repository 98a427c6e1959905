"""A comparison as one HTML page: differences, what changed in between, and the samples of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.standings import DatasetStandings
from evalrun.atomic import disk_errors, replacing
from evalrun.frozen import frozen
from evalrun.reports import page
from evalrun.reports.compared import footer
from evalrun.reports.comparison_tables import (
    Changes,
    Overview,
    Pair,
    changes_between,
    differences_of,
    overview_of,
    pairs_of,
    within_all,
)  # fmt: skip
from evalrun.reports.comparison_words import (
    Names,
    called_by,
    cautions,
    first_of,
    lead_sentence,
    more_sentences,
    rank,
)
from evalrun.reports.details import commit_of
from evalrun.reports.effects import Section
from evalrun.reports.numbers import listing, moment, plural
from evalrun.reports.people import PeopleView, people_view
from evalrun.reports.source import Source
from evalrun.reports.view import PALETTE, Chart, RunView, Sentence, score_columns
from evalrun.reports.visible import visible
from evalrun.tracking.folder import SweepFolder


@frozen
class Side:
    """One of the sweeps, by the name that it goes by on the page."""

    called: str
    sweep: str
    name: str
    when: str
    size: str
    commit: str


@frozen
class ComparisonView:
    """The page. `samples` are the runs whose samples are inside, with their files and the run that each is
    compared with."""

    title: str
    sides: Sequence[Side]
    lead: Sentence
    more: Sequence[Sentence]
    cautions: Sequence[str]
    pairs: Sequence[Pair]
    overview: Sequence[Overview]
    beside: Sequence[str]
    remarks: Sequence[str]
    differences: Sequence[Chart]
    within: Sequence[Section]
    changes: Sequence[Changes]
    notes: Sequence[str]
    runs: Sequence[RunView]
    samples: Sequence[tuple[RunView, Path, str | None]]
    score: str | None
    people: Sequence[PeopleView] = ()

    @property
    def charts(self) -> list[Chart]:
        """All charts of the page."""
        return [*self.differences, *(each.chart for each in self.within if each.chart)]


def view(
    comparison: Comparison, folders: Sequence[SweepFolder], beside: Sequence[Compared] = ()
) -> ComparisonView:
    """The page of a comparison of these sweeps, the first of which the others are compared with. `beside` are
    the same pairs by what else they have (analysis/beside.py)."""
    from evalrun.reports.verdicts import judge

    folders = list({folder.ulid: folder for folder in folders}.values())
    sources = {folder.ulid: Source.of(folder) for folder in folders}
    called = called_by(sources, {folder.ulid: folder for folder in folders})
    sides = [_side(called[ulid], ulid, source) for ulid, source in sources.items()]
    names = Names(called, {ulid: judge(source).views for ulid, source in sources.items()})
    taking = _taking(comparison, names, sources)
    measured: list[Compared | DatasetStandings] = [*comparison.compared, *comparison.standings]
    changes = [changes_between(called[each.ulid], folders[0], each) for each in folders[1:]]
    first = first_of(comparison)
    pairs, remarks = pairs_of(comparison, beside, names)
    heads, overview = overview_of(pairs)
    return ComparisonView(
        title=_title(sides),
        sides=sides,
        lead=lead_sentence(comparison, first, names),
        more=more_sentences(first, names, [(each.called, each.said) for each in changes]),
        cautions=cautions(first, names),
        pairs=pairs,
        overview=overview,
        beside=heads,
        remarks=remarks,
        differences=differences_of(comparison, names),
        within=within_all(comparison),
        changes=changes,
        notes=[visible(line) for line in footer(comparison)],
        runs=[run for run, _, _ in taking],
        samples=[(run, path, pair) for run, path, pair in taking if path is not None],
        score=measured[0].metric if measured else None,
        people=[people_view(folder, called[folder.ulid], links=False) for folder in folders],
    )


def _title(sides: Sequence[Side]) -> str:
    if len(sides) == 1:
        return f"{sides[0].called}: its runs compared"
    against = f"{listing(side.called for side in sides[1:])} against {sides[0].called}"
    names = {side.name for side in sides}
    if len(names) > 1 or sides[0].name in sides[0].called:
        return against
    days = {side.when.partition(",")[0] for side in sides}
    day = f", {days.pop()}" if len(days) == 1 else ""
    return f"{sides[0].name}{day}: {against}"


def _side(called: str, ulid: str, source: Source) -> Side:
    runs = source.runs
    samples = sum(run.counts.samples for run in runs)
    return Side(
        called=called,
        sweep=ulid,
        name=visible(source.manifest.name),
        when=moment(source.manifest.started_at),
        size=f"{plural(len(runs), 'run')}, {plural(samples, 'sample')}",
        commit=visible(commit_of(source.manifest)),
    )


def _taking(
    comparison: Comparison, names: Names, sources: Mapping[str, Source]
) -> list[tuple[RunView, Path | None, str | None]]:
    """The runs that take part, both of a pair beside one another, with their samples and their partners."""
    partners: dict[tuple[str, str], str | None] = {}
    for each in sorted(first_of(comparison), key=rank):
        partners.setdefault((each.a.sweep, each.a.run), None)
        partners.setdefault((each.b.sweep, each.b.run), f"{each.a.sweep}/{each.a.run}")
    for standing in comparison.standings:
        partners |= {(place.run.sweep, place.run.run): None for place in standing.places}
    found: list[tuple[RunView, Path | None, str | None]] = []
    for (sweep, run), pair in partners.items():
        known = names.views.get((sweep, run))
        if known is not None:
            label = known.full if len(sources) < 2 else f"{known.full} \N{MIDDLE DOT} {names.called[sweep]}"
            shown = replace(known, id=f"{sweep}/{run}", full=label, colour=len(found) % PALETTE)
            found.append((shown, sources[sweep].samples(run), pair))
    return found


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


def write_comparison(
    comparison: Comparison, folders: Sequence[SweepFolder], out: Path, beside: Sequence[Compared] = ()
) -> None:
    """Write the page to `out`, whole or not at all; samples are streamed.

    `folders` are the sweeps that were compared, the first of which the others are compared with; `beside` are
    the same pairs by what else they have. Raises UserError where a folder cannot be read or `out` cannot be
    written.
    """
    from evalrun.reports.report import SAMPLES_MARK
    from evalrun.reports.samples import SampleWriter

    shown = view(comparison, folders, beside)
    head, tail = _render(shown).split(SAMPLES_MARK)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            runs = [run for run, _, _ in shown.samples]
            total = sum(run.counts.samples for run in runs)
            writer = SampleWriter(file, score_columns(runs, shown.score), total=total)
            for run, path, pair in shown.samples:
                writer.add_run(run, path, pair)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(page.REPORT_MODE)


def _render(shown: ComparisonView) -> str:
    from markupsafe import Markup

    from evalrun.reports.report import SAMPLES_MARK, SHAPES

    return (
        page.environment()
        .get_template("comparison.html.j2")
        .render(
            report=shown,
            shapes=SHAPES,
            samples=Markup(SAMPLES_MARK),
            **page.frame(SCRIPTS, shown.charts, head=shown.title),
        )
    )
