"""A comparison as one HTML page: differences, what changed in between, and the samples of both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.measures import RunInfo
from evalrun.analysis.previous import what_changed
from evalrun.analysis.standings import DatasetStandings
from evalrun.atomic import disk_errors, replacing
from evalrun.reports import page
from evalrun.reports.charts.dots import behind_best, differences
from evalrun.reports.compared import by_metric, footer, means, notes, pairs_table, sections
from evalrun.reports.details import commit_of
from evalrun.reports.effects import Section, change
from evalrun.reports.numbers import count, figure, listing, moment, p_value, plural, share, tested, where
from evalrun.reports.people import PeopleView, people_view
from evalrun.reports.source import Source
from evalrun.reports.view import (
    PALETTE,
    Chart,
    Phrase,
    RunView,
    Sentence,
    Table,
    grid_link,
    make_runs,
    sample_path,
    score_columns,
    verdict_word,
    words,
)
from evalrun.reports.visible import visible
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.naming import number_of

BROKE = 3
"""Of so many pairs it is said on top where they broke."""

LINKS = 8
"""Samples that changed sides are linked to, so many each way."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the sweeps, by the name that it goes by on the page."""

    called: str
    sweep: str
    name: str
    when: str
    size: str
    commit: str


@dataclass(frozen=True, slots=True)
class FlipsView:
    """Samples that changed sides: how many, which way, links to all, to the first few, and to the slices that
    hold more of them than chance."""

    way: str
    number: int
    text: str
    all: str
    links: Sequence[tuple[str, str]]
    where: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure of both sides with its difference (`change` is that as a share of the first side); `note`
    says what is to be known about it."""

    metric: str
    before: str
    after: str
    change: str
    difference: str
    p: str
    n: str
    word: str
    note: str
    judged: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """One run against another: all figures of both, and the samples that changed sides. `word` is what the
    first figure amounts to; `key` names it in the page's address."""

    key: str
    name: str
    title: str
    before: str
    after: str
    word: str
    rows: Sequence[FigureRow]
    remarks: Sequence[str]
    flips: Sequence[FlipsView]

    @property
    def first(self) -> FigureRow:
        """The figure that the verdict is about."""
        return self.rows[0]

    @property
    def moved(self) -> bool:
        """Whether the first figure differs by more than chance."""
        return self.word in MOVED

    def figure(self, *metrics: str) -> FigureRow | None:
        """The first of these figures that the pair has."""
        by_name = {row.metric: row for row in self.rows}
        return next((by_name[name] for name in metrics if name in by_name), None)


@dataclass(frozen=True, slots=True)
class Overview:
    """A line of the table of all pairs: the first figure of both sides, and what stands beside it. `more` has
    a cell for each of the page's `beside` columns."""

    pair: Pair
    won: str
    lost: str
    more: Sequence[str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different in a side from the first one: in a few words, as tables by title, and prompts word by
    word."""

    called: str
    same: bool
    said: Sequence[str]
    tables: Sequence[Table]
    prompts: Sequence[Any]


@dataclass(frozen=True, slots=True)
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
    from evalrun.reports.report import judge

    folders = list({folder.ulid: folder for folder in folders}.values())
    sources = {folder.ulid: Source.of(folder) for folder in folders}
    called = _called(sources, {folder.ulid: folder for folder in folders})
    sides = [_side(called[ulid], ulid, source) for ulid, source in sources.items()]
    names = _Names(called, {ulid: judge(source).views for ulid, source in sources.items()})
    taking = _taking(comparison, names, sources)
    measured: list[Compared | DatasetStandings] = [*comparison.compared, *comparison.standings]
    changes = [_changes(called[each.ulid], folders[0], each) for each in folders[1:]]
    first = _first(comparison)
    pairs, remarks = _pairs(comparison, beside, names)
    heads, overview = _overview(pairs)
    return ComparisonView(
        title=_title(sides),
        sides=sides,
        lead=_lead(comparison, first, names),
        more=_more(first, names, changes),
        cautions=_cautions(first, names),
        pairs=pairs,
        overview=overview,
        beside=heads,
        remarks=remarks,
        differences=_differences(comparison, names),
        within=_within_all(comparison),
        changes=changes,
        notes=[visible(line) for line in footer(comparison)],
        runs=[run for run, _, _ in taking],
        samples=[(run, path, pair) for run, path, pair in taking if path is not None],
        score=measured[0].metric if measured else None,
        people=[people_view(folder, called[folder.ulid], links=False) for folder in folders],
    )


class _Names:
    """What runs are called on the page: by what tells them apart in their sweep, and by their sweep."""

    def __init__(self, called: Mapping[str, str], views: Mapping[str, Sequence[RunView]]) -> None:
        self.called = called
        self.views = {(ulid, run.id): run for ulid, runs in views.items() for run in runs}

    def view(self, run: RunInfo) -> RunView | None:
        return self.views.get((run.sweep, run.run))

    def run(self, run: RunInfo) -> str:
        """The run alone."""
        found = self.view(run)
        return found.full if found else visible(run.run)

    def whole(self, run: RunInfo) -> str:
        """The run with its sweep, where there are several."""
        if len(self.called) < 2:
            return self.run(run)
        return f"{self.run(run)} \N{MIDDLE DOT} {self.called[run.sweep]}"

    def sides(self, each: Compared) -> tuple[str, str]:
        """Both sides of a pair: the sweeps where these differ, else the runs."""
        if each.a.sweep != each.b.sweep:
            return self.called[each.a.sweep], self.called[each.b.sweep]
        return self.run(each.a), self.run(each.b)

    def pair(self, each: Compared) -> str:
        """The pair, with what differs beside the name."""
        differs = f" ({', '.join(each.differs)})" if each.differs and each.a.run == each.b.run else ""
        return visible(f"{self.plain(each)}{differs}")

    def plain(self, each: Compared) -> str:
        """The pair: the run alone where both sweeps have it."""
        one, other = self.run(each.a), self.run(each.b)
        if one == other or each.a.run == each.b.run:
            return f"{other}, {self.called[each.b.sweep]}" if len(self.called) > 2 else other
        return f"{self.whole(each.b)} against {self.whole(each.a)}"


def _called(sources: Mapping[str, Source], folders: Mapping[str, SweepFolder]) -> dict[str, str]:
    """A name for each sweep: its own where they differ, else the day it began, its number, its id."""
    manifests = {ulid: source.manifest for ulid, source in sources.items()}
    own = {ulid: visible(manifest.name) for ulid, manifest in manifests.items()}
    lead = {ulid: f"{name} " if len(set(own.values())) > 1 else "" for ulid, name in own.items()}
    begun = {ulid: moment(manifest.started_at).removesuffix(" UTC") for ulid, manifest in manifests.items()}
    days = {ulid: text.rpartition(", ")[0] for ulid, text in begun.items()}
    numbers = {ulid: number_of(folder) for ulid, folder in folders.items()}
    choices = [
        days,
        {ulid: f"#{number}" for ulid, number in numbers.items()} if all(numbers.values()) else days,
    ]
    for names in [own, *({ulid: lead[ulid] + when[ulid] for ulid in own} for when in [*choices, begun])]:
        if len(set(names.values())) == len(names) and all(names.values()):
            return names
    return {ulid: f"{own[ulid]} {ulid[-6:]}" for ulid in own}


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
    comparison: Comparison, names: _Names, sources: Mapping[str, Source]
) -> list[tuple[RunView, Path | None, str | None]]:
    """The runs that take part, both of a pair beside one another, with their samples and their partners."""
    partners: dict[tuple[str, str], str | None] = {}
    for each in sorted(_first(comparison), key=_rank):
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


def lead_of(comparison: Comparison, folders: Sequence[SweepFolder]) -> tuple[str, list[str]]:
    """The page's first sentence as plain text, and what its pairs are called, for the terminal."""
    sources = {folder.ulid: Source.of(folder) for folder in {each.ulid: each for each in folders}.values()}
    views = {ulid: make_runs(s.manifest.plan, s.runs, s.results.primary) for ulid, s in sources.items()}
    names = _Names(_called(sources, {each.ulid: each for each in folders}), views)
    return words(_lead(comparison, _first(comparison), names)), [
        names.plain(each) for each in comparison.compared
    ]


def _first(comparison: Comparison) -> list[Compared]:
    """The comparisons by the first metric."""
    return [each for each in comparison.compared if each.metric == comparison.compared[0].metric]


MOVED = ("worse", "lower", "better", "higher")
_ORDER = (*MOVED, "tied", "equivalent", "unchanged")
"""What went wrong is told first."""

NAMED = 3
"""So many pairs that moved are named in the first sentence."""


def _rank(each: Compared) -> tuple[int, float]:
    """The order of pairs: by their verdict, the largest difference first."""
    word = verdict_word(each.verdict)
    return _ORDER.index(word) if word in _ORDER else len(_ORDER), -abs(each.result.difference or 0)


def _lead(comparison: Comparison, first: Sequence[Compared], names: _Names) -> Sentence:
    """What the first metric says, in words: of one pair the figures, of several how many moved which way, and
    those that moved by name."""
    if not first:
        said = [standing.sentence for standing in comparison.standings[:1]]
        return [
            Phrase(
                f"By {comparison.standings[0].metric}: {said[0]}." if said else "Nothing could be compared."
            )
        ]
    if len(first) == 1:
        return _lead_of_one(first[0], names)
    words = [verdict_word(each.verdict) for each in first]
    counted = {word: words.count(word) for word in _ORDER if word in words}
    runs = "run" if len(names.called) == 2 else "comparison"
    of = f"{next(iter(counted.values()))} of {plural(len(first), runs)}" if len(counted) > 1 else ""
    told = [f"{number} {word}" for word, number in [*counted.items()][1:]]
    word = next(iter(counted))
    lead = f"{of or _every(len(first), runs)} {_is(counted[word], word)} by {first[0].metric}"
    rest = f" ({listing(told)})" if told else ""
    moved = sorted((each for each in first if verdict_word(each.verdict) in MOVED), key=_rank)
    if not moved:
        return [Phrase(f"{lead}{rest}.")]
    phrases = [Phrase(f"{lead}{rest}: ")]
    for at, each in enumerate(moved[:NAMED]):
        phrases += [Phrase(", ")] if at else []
        phrases += [Phrase(names.plain(each), "run"), Phrase(" ")]
        phrases.append(Phrase(change(each.result, each.unit), "value"))
    more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    return [*phrases, Phrase(f"{more}.")]


def _every(number: int, noun: str) -> str:
    return f"{'Both' if number == 2 else f'All {number}'} {noun}s"


def _is(number: int, word: str) -> str:
    verb = "is" if number == 1 else "are"
    return f"{verb} as good as before" if word == "equivalent" else f"{verb} {word}"


def _lead_of_one(each: Compared, names: _Names) -> Sentence:
    before, after = names.sides(each)
    if each.result.difference is None:
        return [Phrase(f"{after} cannot be compared with {before}: {each.verdict.sentence}.")]
    word = verdict_word(each.verdict)
    how = {"tied": "is tied with", "equivalent": "is as good as", "unchanged": "has the same answers as"}
    lead = [Phrase(after, "run"), Phrase(f" {how.get(word, f'is {word} than')} "), Phrase(before, "run")]
    one, other = means(each.result, each.unit)
    p = "" if each.p_corrected is None else f", {tested(each.p_corrected)}"
    figures = f"{one} \N{RIGHTWARDS ARROW} {other}, {change(each.result, each.unit)}{p}"
    served = ", but what served it changed" if each.served else ""
    return [
        *lead, Phrase(f" by {each.metric}: "), Phrase(figures, "value"),
        Phrase(f" (n = {count(each.result.n)}){served}.", "whole"),
    ]  # fmt: skip


def _cautions(first: Sequence[Compared], names: _Names) -> list[str]:
    """What was noted of the comparisons by the first metric; what not all have says which."""
    of: dict[str, list[str]] = {}
    for each in first:
        for line in _notes(each):
            of.setdefault(visible(line), []).append(names.plain(each))
    return [line if len(pairs) == len(first) else f"{line} ({_some(pairs)})" for line, pairs in of.items()]


def _some(names: Sequence[str]) -> str:
    rest = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listing([*names[:NAMED], *rest])


def _more(first: Sequence[Compared], names: _Names, changes: Sequence[Changes]) -> list[Sentence]:
    """What changed in between, what the samples could not have shown, and how many samples moved."""
    found: list[Sentence] = []
    for each in changes:
        since = f" in {each.called}" if len(changes) > 1 else ""
        what = listing(each.said) if each.said else "nothing that shapes answers or scores"
        found.append([Phrase(f"What changed{since}: {what}.")])
    better, worse = (sum(getattr(each, way) or 0 for each in first) for way in ("better", "worse"))
    if better or worse:
        found.append([Phrase(f"{plural(better, 'sample')} became better, {count(worse)} worse.")])
    broke = [pair for pair in sorted(first, key=_rank) if pair.where]
    for at, pair in enumerate(broke[:BROKE]):
        of = f"{names.plain(pair)}: " if len(first) > 1 else ""
        lead = Phrase(f"Where it broke: {of}" if not at else of)
        found.append([lead, Phrase(visible(where(pair.where)), "value"), Phrase(".")])
    unseen = [each.result.mde for each in first if verdict_word(each.verdict) == "tied" and each.result.mde]
    if unseen:
        size = figure(max(unseen), unit=first[0].unit)
        found.append(
            [Phrase(f"With these samples a true difference below about {size} would often go unseen.")]
        )
    return found


def _within_all(comparison: Comparison) -> list[Section]:
    """All that was found within the sweep; where the runs stand to the best is drawn as well."""
    found = sections(comparison)
    for at, standing in enumerate(comparison.standings):  # which come first among the sections
        found[at] = replace(found[at], chart=behind_best(f"standing-{at}", standing))
    return found


def _pairs(comparison: Comparison, beside: Sequence[Compared], names: _Names) -> tuple[list[Pair], list[str]]:
    """Every pair of runs with all its figures, what became worse first; and what is to be said of all."""
    by_pair: dict[tuple[str, str, str, str], list[Compared]] = {}
    for each in (*comparison.compared, *beside):
        by_pair.setdefault((each.a.sweep, each.a.run, each.b.sweep, each.b.run), []).append(each)
    scores = {each.metric for each in comparison.compared}
    several = len(by_pair) > 1
    noted = [{line for each in rows[1:] for line in _notes(each)} for rows in by_pair.values()]
    # A method's caveat is the same in every pair: it is said once, below.
    common = set.intersection(*noted) if several else set()
    ranked = sorted(by_pair.values(), key=lambda rows: _rank(rows[0]))
    pairs = [_pair(f"pair-{at}", rows, scores, names, common) for at, rows in enumerate(ranked)]
    return pairs, [f"{visible(line)}." for line in sorted(common)]


def _pair(
    key: str, rows: Sequence[Compared], scores: Collection[str], names: _Names, common: Collection[str]
) -> Pair:
    first = rows[0]
    before, after = names.sides(first)
    of: dict[str, list[str]] = {}
    for each in rows[1:]:
        for line in _notes(each):
            if line not in common:
                of.setdefault(line, []).append(each.metric)
    return Pair(
        key=key,
        name=names.plain(first),
        title=names.pair(first),
        before=before,
        after=after,
        word=verdict_word(first.verdict),
        rows=[_figure_row(each, each.metric in scores) for each in rows],
        remarks=[visible(f"{listing(metrics)}: {line}.") for line, metrics in of.items()],
        flips=_flips(first),
    )


BESIDE = (
    ("median time", ("performance.e2e_s.p50", "performance.e2e_s.mean")),
    ("cost", ("cost.usd",)),
    ("memory", ("memory.engine_peak_bytes", "memory.client_peak_bytes")),
)
"""Columns of the table of all pairs beside the first score: heads, and the figures whose change they show."""


def _overview(pairs: Sequence[Pair]) -> tuple[list[str], list[Overview]]:
    """All pairs as one table, where there are several: columns that no pair has are left out."""
    if len(pairs) < 2:
        return [], []
    columns = [(head, names) for head, names in BESIDE if any(pair.figure(*names) for pair in pairs)]
    lines = []
    for pair in pairs:
        flips = {flip.way: count(flip.number) for flip in pair.flips}
        won, lost = (flips.get(way, "0" if pair.flips else "") for way in ("won", "lost"))
        figures = [pair.figure(*names) for _, names in columns]
        lines.append(Overview(pair, won, lost, [row.change if row else "" for row in figures]))
    return [head for head, _ in columns], lines


def _notes(each: Compared) -> list[str]:
    """What was noted of a comparison; where it broke stands with the samples."""
    return notes(replace(each, where=()))


def _figure_row(each: Compared, judged: bool) -> FigureRow:
    before, after = means(each.result, each.unit)
    unlike = each.verdict.sentence if each.verdict.sentence.endswith("not compared") else ""
    certain = each.p_corrected is not None or judged
    return FigureRow(
        metric=visible(each.metric),
        before=before,
        after=after,
        change=share(each.result.mean_a, each.result.difference),
        difference=change(each.result, each.unit) if each.result.difference is not None else "",
        p="" if each.p_corrected is None else p_value(each.p_corrected),
        n=count(each.result.n) if each.result.n else "",
        word=verdict_word(each.verdict) if certain else "",
        note=visible(unlike),
        judged=judged,
    )


def _flips(each: Compared) -> list[FlipsView]:
    """Which samples became worse and better, the worse ones first."""
    if each.better is None and each.worse is None:
        return []
    run, other = f"{each.b.sweep}/{each.b.run}", f"{each.a.sweep}/{each.a.run}"
    ways: list[tuple[str, int, Sequence[str], str]] = [
        ("lost", each.worse or 0, each.flips.lost if each.flips else (), "became worse"),
        ("won", each.better or 0, each.flips.won if each.flips else (), "became better"),
    ]
    sides = {"lost": "went from right to wrong", "won": "went from wrong to right"}
    return [
        FlipsView(
            way=kind,
            number=number,
            text=f"{plural(number, 'sample')} {sides[kind] if each.flips else what}",
            all=grid_link(run=run, vs=other, kind=kind),
            links=[
                (visible(id_), grid_link(run=run, vs=other, kind=kind, open=sample_path(run, id_)))
                for id_ in ids[:LINKS]
            ],
            where=[
                (
                    visible(where([part])),
                    grid_link(run=run, vs=other, kind=kind, **{f"by.{part.column}": part.value}),
                )
                for part in (each.where if kind == "lost" else ())
            ],
        )
        for kind, number, ids, what in ways
        if number
    ]


def _differences(comparison: Comparison, names: _Names) -> list[Chart]:
    """The differences of every metric, drawn; one pair alone has its figures in words."""
    charts = []
    for at, (title, unranked) in enumerate(by_metric(comparison.compared)):
        rows = sorted(unranked, key=_rank)
        labels = [names.plain(each) for each in rows]
        if len(rows) > 1:
            table = pairs_table(title, rows, labels, ("before", "after"))
            charts.append(
                differences(f"differences-{at}", rows[0].metric, list(zip(labels, rows, strict=True)), table)
            )
    return [chart for chart in charts if chart]


def _changes(called: str, before: SweepFolder, after: SweepFolder) -> Changes:
    from evalrun.tracking.diff import diff_sweeps

    diff = diff_sweeps(before, after)
    tables = []
    resolved = {f"models.{each.name}" for each in diff.models}
    for title in ("suite", "models", "packages", "machine", "code"):
        # What the suite says of a model stands with the model.
        changes = [each for each in getattr(diff, title) if title != "suite" or each.name not in resolved]
        if changes:
            rows = [[visible(c.name), _said(c.before), _said(c.after)] for c in changes]
            tables.append(Table(title.capitalize(), ["what", "before", "after"], rows))
    data = [each for each in diff.data if not each.same]
    if data:
        rows = [
            [visible(d.dataset), count(d.added), count(d.removed), count(d.changed), visible(d.note)]
            for d in data
        ]
        heads = ["dataset", "added", "removed", "changed", ""]
        tables.insert(0, Table("Data, in rows", heads, rows, frozenset({1, 2, 3})))
    said = [visible(what) for what in what_changed(before.manifest(), after.manifest())]
    commits = [commit_of(Source.of(each).manifest) for each in (before, after)]
    if all(commits) and commits[0] != commits[1]:
        said.append(visible(f"commit {commits[0]} \N{RIGHTWARDS ARROW} {commits[1]}"))
    return Changes(called, diff.same, said, tables, diff.prompts)


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
