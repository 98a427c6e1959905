"""The tables and charts of a comparison's page: all pairs, the figures of each, the samples that changed
sides, and what is different between the sweeps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.previous import what_changed
from evalrun.frozen import frozen
from evalrun.reports.charts.dots import behind_best, differences
from evalrun.reports.compared import by_metric, means, pairs_table, sections
from evalrun.reports.comparison_words import MOVED, Names, notes_of, rank
from evalrun.reports.details import commit_of
from evalrun.reports.effects import Section, change
from evalrun.reports.numbers import count, listing, p_value, plural, share, where
from evalrun.reports.source import Source
from evalrun.reports.view import Chart, Table, grid_link, sample_path, verdict_word
from evalrun.reports.visible import visible
from evalrun.tracking.folder import SweepFolder

LINKS = 8
"""Samples that changed sides are linked to, so many each way."""


@frozen
class FlipsView:
    """Samples that changed sides: how many, which way, links to all, to the first few, and to the slices that
    hold more of them than chance."""

    way: str
    number: int
    text: str
    all: str
    links: Sequence[tuple[str, str]]
    where: Sequence[tuple[str, str]] = ()


@frozen
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


@frozen
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


@frozen
class Overview:
    """A line of the table of all pairs: the first figure of both sides, and what stands beside it. `more` has
    a cell for each of the page's `beside` columns."""

    pair: Pair
    won: str
    lost: str
    more: Sequence[str]


@frozen
class Changes:
    """What is different in a side from the first one: in a few words, as tables by title, and prompts word by
    word."""

    called: str
    same: bool
    said: Sequence[str]
    tables: Sequence[Table]
    prompts: Sequence[Any]


def pairs_of(
    comparison: Comparison, beside: Sequence[Compared], names: Names
) -> tuple[list[Pair], list[str]]:
    """Every pair of runs with all its figures, what became worse first; and what is to be said of all."""
    by_pair: dict[tuple[str, str, str, str], list[Compared]] = {}
    for each in (*comparison.compared, *beside):
        by_pair.setdefault((each.a.sweep, each.a.run, each.b.sweep, each.b.run), []).append(each)
    scores = {each.metric for each in comparison.compared}
    several = len(by_pair) > 1
    noted = [{line for each in rows[1:] for line in notes_of(each)} for rows in by_pair.values()]
    # A method's caveat is the same in every pair: it is said once, below.
    common = set.intersection(*noted) if several else set()
    ranked = sorted(by_pair.values(), key=lambda rows: rank(rows[0]))
    pairs = [_pair(f"pair-{at}", rows, scores, names, common) for at, rows in enumerate(ranked)]
    return pairs, [f"{visible(line)}." for line in sorted(common)]


def _pair(
    key: str, rows: Sequence[Compared], scores: Collection[str], names: Names, common: Collection[str]
) -> Pair:
    first = rows[0]
    before, after = names.sides(first)
    of: dict[str, list[str]] = {}
    for each in rows[1:]:
        for line in notes_of(each):
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


def overview_of(pairs: Sequence[Pair]) -> tuple[list[str], list[Overview]]:
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


def differences_of(comparison: Comparison, names: Names) -> list[Chart]:
    """The differences of every metric, drawn; one pair alone has its figures in words."""
    charts = []
    for at, (title, unranked) in enumerate(by_metric(comparison.compared)):
        rows = sorted(unranked, key=rank)
        labels = [names.plain(each) for each in rows]
        if len(rows) > 1:
            table = pairs_table(title, rows, labels, ("before", "after"))
            charts.append(
                differences(f"differences-{at}", rows[0].metric, list(zip(labels, rows, strict=True)), table)
            )
    return [chart for chart in charts if chart]


def within_all(comparison: Comparison) -> list[Section]:
    """All that was found within the sweep; where the runs stand to the best is drawn as well."""
    found = sections(comparison)
    for at, standing in enumerate(comparison.standings):  # which come first among the sections
        found[at] = replace(found[at], chart=behind_best(f"standing-{at}", standing))
    return found


def changes_between(called: str, before: SweepFolder, after: SweepFolder) -> Changes:
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
