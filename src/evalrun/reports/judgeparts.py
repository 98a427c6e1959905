"""The tables of a judge: shares of grades, agreement, and samples that were graded differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import Any

import numpy as np

from evalrun.analysis.intervals import Estimate
from evalrun.reports import judgewords
from evalrun.reports.judgedata import NO_GRADE, Bools, Grades, Ints, read_rows
from evalrun.reports.judges import Judged
from evalrun.reports.numbers import NONE, count, decimals_for, fixed, interval
from evalrun.reports.source import Source
from evalrun.reports.versions import sample_link
from evalrun.reports.view import RunView, Table

EXAMPLES = 8
LONGEST = 160
"""Letters of what a judge wrote that an example shows; the sample has all."""

SHADES = 9
MATRICES = 8
TOGETHER = "together"
MOST_PAIRED = 5
"""Of more judges only alpha is told, not every pair."""


@dataclass(frozen=True, slots=True)
class ShareCell:
    """The share of one grade, with how many answers got it; `shade` is 0 to 9."""

    text: str
    interval: str
    count: str
    shade: int


@dataclass(frozen=True, slots=True)
class ShareRow:
    """The grades that one judge, or all of them together, gave the answers of a run."""

    run: RunView
    judge: str
    cells: Sequence[ShareCell]
    n: str


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure of a judge: `metric` names its definition, `reads` says what it means."""

    run: RunView
    what: str
    metric: str
    value: str
    interval: str
    n: str
    reads: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A sample on which grades differ: which they are, and the beginning of what was said."""

    sample: str
    link: str
    what: str
    person: str
    grades: Sequence[str]
    reason: str


def shares(
    judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades]
) -> tuple[list[str], list[ShareRow]]:
    """The heads of the columns, and how often each grade was given, by run and judge."""
    between = any(each.between.any() for each in grades.values())
    heads = [*judged.labels, *(["undecided"] if between else []), "no grade"]
    rows = []
    for run in runs:
        found = grades[run.run]
        everyone = np.ones(len(found), bool)
        if len(found.by) > 1:
            for judge, codes in found.by.items():
                missed = codes < 0
                rows.append(_share_row(run, judge, _columns(judged, codes, None, missed, between), found,
                                       found.asked))  # fmt: skip
        who = TOGETHER if len(found.by) > 1 else next(iter(found.by))
        missed = (found.together < 0) & ~found.between
        columns = _columns(judged, found.together, found.between, missed, between)
        rows.append(_share_row(run, who, columns, found, everyone))
    return heads, rows


def _columns(
    judged: Judged, codes: Ints, undecided: Bools | None, missed: Bools, between: bool
) -> list[Bools | None]:
    grades: list[Bools | None] = [codes == at for at in range(len(judged.labels))]
    return [*grades, *([undecided] if between else []), missed]


def _share_row(
    run: RunView, judge: str, columns: Sequence[Bools | None], found: Grades, of: Bools
) -> ShareRow:
    cells = [
        ShareCell(NONE, "", "", 0) if hits is None else _cell(found.share(hits, of), int((hits & of).sum()))
        for hits in columns
    ]
    return ShareRow(run, judge, cells, count(int(of.sum())))


def _cell(share: Estimate, hits: int) -> ShareCell:
    value, ends = _texts(share)
    return ShareCell(value, ends, count(hits), round(SHADES * (share.value or 0.0)))


def _texts(found: Any) -> tuple[str, str]:
    """Value and interval of an Estimate or a Figure, with the decimals that the interval supports."""
    decimals = decimals_for(None if found.low is None or found.high is None else (found.high - found.low) / 2)
    return fixed(found.value, decimals), interval(found.low, found.high, decimals)


def figures(judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades]) -> list[FigureRow]:
    """Every figure of agreement and consistency, by run: the metrics, and each judge and pair alone."""
    return [row for run in runs for row in _figures(judged, run, grades.get(run.run))]


def _figures(judged: Judged, run: RunView, found: Grades | None) -> Iterator[FigureRow]:
    several = found is not None and len(found.by) > 1
    for suffix, what in _MEASURES:
        name = f"{judged.scorer}{suffix}"
        figure = run.figure(name)
        if figure is not None:
            yield FigureRow(run, what, name, *_texts(figure), count(figure.n), _reads(suffix, figure))
        if suffix == ".human.kappa" and found is not None and figure is not None and several:
            for judge, codes in found.by.items():
                alone = _kappa(judged, found, found.person, codes)
                words = judgewords.kappa_words(alone.value, alone.low, alone.n)
                yield FigureRow(
                    run, f"{judge} with people: kappa", name, *_texts(alone), count(alone.n), words
                )
        if suffix == ".alpha" and found is not None and 1 < len(found.by) <= MOST_PAIRED:
            for (one, first), (other, second) in combinations(found.by.items(), 2):
                pair = _kappa(judged, found, first, second)
                yield FigureRow(run, f"{one} with {other}: kappa", "", *_texts(pair), count(pair.n), "")


def _kappa(judged: Judged, found: Grades, first: Ints, second: Ints) -> Estimate:
    return found.kappa(first, second, len(judged.labels), quadratic=judged.quadratic, seed=judged.seed)


_MEASURES = (
    (".human.kappa", "with people: kappa"),
    (".human.accuracy", "with people: the same grade"),
    (".human.spearman", "with people: rank correlation"),
    (".alpha", "among the judges: alpha"),
    (".inconsistent", "pairs that changed with the order"),
    (".first_position", "verdicts for the answer shown first"),
    (".reasked", "asked again"),
)


def _reads(suffix: str, figure: Any) -> str:
    if suffix == ".human.kappa":
        return judgewords.kappa_words(figure.value, figure.low, figure.n)
    if suffix == ".alpha":
        return judgewords.alpha_words(figure.value, figure.n)
    if suffix == ".human.spearman":
        return judgewords.rank_words(figure.value)
    if suffix == ".inconsistent":
        return judgewords.order_words(figure.value)
    return judgewords.position_words(figure) if suffix == ".first_position" else ""


def crossed(judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades], title: str) -> list[Table]:
    """People's grades by the judge's, as counts, for every run that has both."""
    tables = []
    for run in runs[:MATRICES]:
        found = grades[run.run]
        both = (found.person >= 0) & (found.together >= 0)
        if not both.any():
            continue
        size = len(judged.labels)
        cells = np.bincount(found.person[both] * size + found.together[both], minlength=size * size)
        rows = [
            (label, *map(count, row), count(sum(row)))
            for label, row in zip(judged.labels, cells.reshape(size, size).tolist(), strict=True)
        ]
        caption = f"{title}, {run.label}: people's grades (rows) and the judge's (columns), answers"
        columns = ("person", *judged.labels, "all")
        tables.append(Table(caption, columns, rows, frozenset(range(1, size + 2))))
    return tables


def disagreements(
    source: Source, judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades]
) -> tuple[str, list[Disagreement]]:
    """Samples that were graded differently, the widest apart first, of the best run that has any; its name
    stands before them."""
    for run in runs:
        picked = _picked(judged, grades[run.run])
        path = source.samples(run.run)
        if picked and path is not None:
            found = grades[run.run]
            reason = f"reason.{judged.scorer}"
            texts = read_rows(
                path, [int(found.rows[at]) for at, _ in picked], ["sample_id", "repeat", reason]
            )
            return run.label, [
                _example(judged, run, found, at, what, texts[int(found.rows[at])]) for at, what in picked
            ]
    return "", []


def _picked(judged: Judged, found: Grades) -> list[tuple[int, str]]:
    """Places of samples in turn from those where person and judge differ, where judges do, where the order
    decided, and where nobody gave a grade; with what differs."""
    several = np.stack(list(found.by.values()))
    most = several.max(axis=0)
    least = np.where(several < 0, most, several).min(axis=0)
    both = (found.person >= 0) & (found.together >= 0)
    apart = np.where(both, np.abs(found.person - found.together), 0)
    lists = [
        [(at, "person and judge") for at in _widest(apart, judged.quadratic)],
        [(at, "the judges") for at in _widest(most - least, judged.quadratic)],
        [(at, "the two orders") for at in _widest(found.turned.astype(np.int64), False)],
        [(at, "no grade") for at in _widest(((found.together < 0) & ~found.between).astype(np.int64), False)],
    ]
    picked: dict[int, str] = {}
    for each in zip_longest(*lists):
        for entry in filter(None, each):
            picked.setdefault(*entry)
    return list(picked.items())[:EXAMPLES]


def _widest(apart: Ints, steps: bool) -> list[int]:
    """The first few places where something is apart; where grades are steps the widest first."""
    distance = apart if steps else np.minimum(apart, 1)
    order = np.argsort(-distance, kind="stable")[:EXAMPLES]
    return [int(at) for at in order if distance[at] > 0]


def _example(
    judged: Judged, run: RunView, found: Grades, at: int, what: str, row: Mapping[str, Any]
) -> Disagreement:
    def label(codes: Ints) -> str:
        return NONE if codes[at] == NO_GRADE else judged.labels[codes[at]]

    reason = " ".join(str(row.get(f"reason.{judged.scorer}") or "").split())
    return Disagreement(
        sample=str(row["sample_id"]),
        link=sample_link(run.run, str(row["sample_id"]), int(row.get("repeat") or 0)),
        what=what,
        person=label(found.person),
        grades=[label(codes) for codes in found.by.values()],
        reason=reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} …",
    )
