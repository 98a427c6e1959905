"""The tables of a judge: shares of grades, agreement, and samples that were graded differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalrun.reports.judges import Judged, alpha_words, kappa_words, order_words, position_words, rank_words
from evalrun.reports.numbers import NONE, count, figure, interval
from evalrun.reports.versions import sample_link
from evalrun.reports.view import RunView, Table
from evalrun.results import Estimate
from evalrun.sweep_results import GradeShare, JudgedRun, JudgeExample
from evalrun.types import MetricValue

SHADES = 9
MATRICES = 8
UNDECIDED, NO_GRADE = "undecided", "no grade"


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
    judged: Judged, runs: Sequence[RunView], found: Mapping[str, JudgedRun]
) -> tuple[list[str], list[ShareRow]]:
    """The heads of the columns, and how often each grade was given, by run and judge."""
    undecided = any(found[run.id].undecided for run in runs)
    heads = [*judged.labels, *([UNDECIDED] if undecided else []), NO_GRADE]
    rows = []
    for run in runs:
        for grades in found[run.id].grades:
            given = {share.grade: share for share in grades.shares}
            cells = [_cell(given[head]) if head in given else ShareCell(NONE, "", "", 0) for head in heads]
            rows.append(ShareRow(run, grades.judge, cells, count(grades.n)))
    return heads, rows


def _cell(share: GradeShare) -> ShareCell:
    value, ends = _texts(share)
    return ShareCell(value, ends, count(share.hits), round(SHADES * (share.value or 0.0)))


def _texts(found: Estimate) -> tuple[str, str]:
    """Value and interval, with the decimals that the interval supports."""
    return figure(found.value, found.low, found.high), interval(found.low, found.high)


def figures(judged: Judged, runs: Sequence[RunView], found: Mapping[str, JudgedRun]) -> list[FigureRow]:
    """Every figure of agreement and consistency, by run: the metrics, and each judge and pair alone."""
    return [row for run in runs for row in _figures(judged, run, found.get(run.id))]


def _figures(judged: Judged, run: RunView, found: JudgedRun | None) -> Iterator[FigureRow]:
    kappas = found.kappas if found else ()
    for suffix, what in _MEASURES:
        name = f"{judged.scorer}{suffix}"
        metric = run.metric(name)
        if metric is not None:
            ends = (metric.ci_low, metric.ci_high)
            yield FigureRow(
                run, what, name, figure(metric.value, *ends), interval(*ends), count(metric.n),
                _reads(suffix, metric),
            )  # fmt: skip
        if suffix == ".human.kappa":
            for each in kappas:
                if not each.other:
                    words = kappa_words(each.value, each.low, each.n)
                    said = f"{each.judge} with people: kappa"
                    yield FigureRow(run, said, name, *_texts(each), count(each.n), words)
        if suffix == ".alpha":
            for each in kappas:
                if each.other:
                    said = f"{each.judge} with {each.other}: kappa"
                    yield FigureRow(run, said, "", *_texts(each), count(each.n), "")


_MEASURES = (
    (".human.kappa", "with people: kappa"),
    (".human.accuracy", "with people: the same grade"),
    (".human.spearman", "with people: rank correlation"),
    (".alpha", "among the judges: alpha"),
    (".inconsistent", "pairs that changed with the order"),
    (".first_position", "verdicts for the answer shown first"),
    (".reasked", "asked again"),
)


def _reads(suffix: str, figure: MetricValue) -> str:
    if suffix == ".human.kappa":
        return kappa_words(figure.value, figure.ci_low, figure.n)
    if suffix == ".alpha":
        return alpha_words(figure.value, figure.n)
    if suffix == ".human.spearman":
        return rank_words(figure.value)
    if suffix == ".inconsistent":
        return order_words(figure.value)
    return position_words(figure) if suffix == ".first_position" else ""


def crossed(
    judged: Judged, runs: Sequence[RunView], found: Mapping[str, JudgedRun], title: str
) -> list[Table]:
    """People's grades by the judge's, as counts, for every run that has both."""
    tables = []
    for run in runs[:MATRICES]:
        counts = found[run.id].crossed
        if not counts:
            continue
        rows = [
            (label, *map(count, row), count(sum(row)))
            for label, row in zip(judged.labels, counts, strict=True)
        ]
        caption = f"{title}, {run.label}: people's grades (rows) and the judge's (columns), answers"
        columns = ("person", *judged.labels, "all")
        tables.append(Table(caption, columns, rows, frozenset(range(1, len(judged.labels) + 2))))
    return tables


def disagreements(runs: Sequence[RunView], found: Mapping[str, JudgedRun]) -> tuple[str, list[Disagreement]]:
    """Samples that were graded differently, the widest apart first, of the best run that has any; its name
    stands before them."""
    for run in runs:
        examples = found[run.id].examples
        if examples:
            return run.label, [_example(run, each) for each in examples]
    return "", []


def _example(run: RunView, found: JudgeExample) -> Disagreement:
    return Disagreement(
        sample=found.sample_id,
        link=sample_link(run.id, found.sample_id, found.repeat),
        what=found.what,
        person=found.person or NONE,
        grades=[grade or NONE for grade in found.grades],
        reason=found.reason,
    )
