"""The tables of a judge: shares of grades, agreement, and samples that were graded differently.

Grades stand in `samples.parquet` as parts of the judge's score (scoring/scorers/judge.py): `grade` is what
the judges gave together, `by.<model>` what each gave, `human` a person's grade. Here they are codes: places
on the menu.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.bootstrap import bootstrap_kinds, percentile_interval
from evalrun.analysis.intervals import mean
from evalrun.analysis.quality import score_column
from evalrun.analysis.samples import SampleTable
from evalrun.reports.judges import Judged, alpha_words, kappa_words, order_words, position_words, rank_words
from evalrun.reports.numbers import NONE, count, figure, interval
from evalrun.reports.source import Source
from evalrun.reports.versions import sample_link
from evalrun.reports.view import RunView, Table
from evalrun.results import Estimate
from evalrun.scoring.scorers import judge_agreement as agreement
from evalrun.types import MetricValue, Status

if TYPE_CHECKING:
    from evalrun.scoring.scorers.judge import JudgeOptions


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NO_GRADE = -1
RESAMPLES = 1_000
"""Of the figures of single judges, of which a sweep may have many."""

_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Grades:
    """Arrays of equal length, one entry a judged sample and repeat. Codes are places on the menu or NO_GRADE.

    `between` marks samples with a value but no grade (judges who voted equally often for two), `asked` those
    that had a text to judge, `turned` pairs of which a judge said different things in the two orders. `rows`
    are places in the file, `units` codes of what is independent: the cluster, or the sample id.
    """

    together: Ints
    person: Ints
    by: Mapping[str, Ints]
    between: Bools
    asked: Bools
    turned: Bools
    rows: Ints
    units: Ints

    def __len__(self) -> int:
        return len(self.together)

    def share(self, hits: Bools, of: Bools) -> Estimate:
        """The share of `hits` among `of`, with an interval over the independent units."""
        units = self.units[of]
        apart = len(np.unique(units)) == len(units)
        return mean(hits[of].astype(np.float64), None if apart else _codes(units), bounds=(0.0, 1.0))

    def kappa(self, first: Ints, second: Ints, size: int, *, quadratic: bool, seed: int) -> Estimate:
        """Cohen's kappa of two columns of codes over the samples that have both; interval by bootstrap over
        the independent units. `size` is the number of grades."""
        both = (first >= 0) & (second >= 0)
        n = int(both.sum())
        if n == 0:
            return Estimate(None, 0, note="no sample has both grades")
        cells = first[both] * size + second[both]
        kinds, counts = _kinds(cells, _codes(self.units[both]), size * size)

        def figure(sums: Floats) -> Floats:
            table = sums.reshape(*sums.shape[:-1], size, size)
            return agreement.kappa(table, quadratic=quadratic)[..., None]

        value = float(figure(counts.astype(np.float64) @ kinds)[0])
        draws = bootstrap_kinds(counts, kinds, figure, seed, RESAMPLES)[:, 0]
        return percentile_interval(value, n, draws, (-1.0, 1.0))


def _codes(units: Ints) -> Ints:
    return np.unique(units, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _kinds(cells: Ints, units: Ints, size: int) -> tuple[Floats, Ints]:
    """The distinct tables that units add, shape (K, size), and how many units add each. In the order of their
    content, so that resampling gives the same in every process."""
    present, at = np.unique(cells, return_inverse=True)
    if int(units.max()) + 1 == len(units):  # each unit adds one cell
        kinds: Floats = np.eye(len(present))
        counts = np.bincount(at, minlength=len(present))
    else:
        totals: Floats = np.zeros((int(units.max()) + 1, len(present)))
        np.add.at(totals, (units, at), 1.0)
        kinds, counts = np.unique(totals, axis=0, return_counts=True)
    whole: Floats = np.zeros((len(kinds), size))
    whole[:, present] = kinds
    return whole, counts.astype(np.int64)


def read_grades(path: Path, scorer: str, options: JudgeOptions, *, scored_only: bool = False) -> Grades:
    """The grades of a judge called `scorer` in a run's samples; those of failed samples are left out.

    `scored_only` leaves out unparsed and refused samples too (suite: `unparsed: exclude`).
    """
    parts = ("unscored", "grade", "human", "inconsistent", *(f"by.{model}" for model in options.model))
    table = SampleTable.from_parquet(path, [*(f"score.{scorer}.{part}" for part in parts), "cluster"])
    judged = ~np.isnan(score_column(table, f"{scorer}.unscored"))
    if scored_only:
        judged &= table.is_status(Status.SCORED)

    def kept(part: str) -> Floats:
        return score_column(table, f"{scorer}.{part}")[judged]

    def codes(part: str) -> Ints:
        return np.where(np.isnan(kept(part)), NO_GRADE, kept(part)).astype(np.int64)

    models, together, graded = options.model, codes("grade"), kept("unscored") == 0
    by = {model: codes(f"by.{model}") for model in models} if len(models) > 1 else {models[0]: together}
    asked = np.ones(len(together), bool)
    if len(models) > 1:  # an answer without text got the lowest grade, and nobody was asked
        asked = ~graded | np.any([each >= 0 for each in by.values()], axis=0)
    units = table.ids if table.clusters is None else table.clusters
    return Grades(
        together=together,
        person=codes("human"),
        by=by,
        between=graded & (together < 0),
        asked=asked,
        turned=np.nan_to_num(kept("inconsistent")) > 0,
        rows=table.order[judged],
        units=units[judged].astype(np.int64),
    )


def read_rows(path: Path, rows: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """These columns of the rows at these places of a file, by place."""
    import pyarrow.parquet as pq

    wanted, found, start = set(rows), {}, 0
    with pq.ParquetFile(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_BATCH, columns=present):
            for at in sorted(wanted):
                if start <= at < start + batch.num_rows:
                    found[at] = batch.slice(at - start, 1).to_pylist()[0]
            start += batch.num_rows
            if len(found) == len(wanted):
                break
    return found


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
    between = any(grade.between.any() for grade in grades.values())
    heads = [*judged.labels, *(["undecided"] if between else []), "no grade"]
    rows = []
    for run in runs:
        found = grades[run.id]
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


def _texts(found: Estimate) -> tuple[str, str]:
    """Value and interval, with the decimals that the interval supports."""
    return figure(found.value, found.low, found.high), interval(found.low, found.high)


def figures(judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades]) -> list[FigureRow]:
    """Every figure of agreement and consistency, by run: the metrics, and each judge and pair alone."""
    return [row for run in runs for row in _figures(judged, run, grades.get(run.id))]


def _figures(judged: Judged, run: RunView, found: Grades | None) -> Iterator[FigureRow]:
    several = found is not None and len(found.by) > 1
    for suffix, what in _MEASURES:
        name = f"{judged.scorer}{suffix}"
        metric = run.metric(name)
        if metric is not None:
            ends = (metric.ci_low, metric.ci_high)
            yield FigureRow(
                run, what, name, figure(metric.value, *ends), interval(*ends), count(metric.n),
                _reads(suffix, metric),
            )  # fmt: skip
        if suffix == ".human.kappa" and found is not None and metric is not None and several:
            for judge, codes in found.by.items():
                alone = _kappa(judged, found, found.person, codes)
                words = kappa_words(alone.value, alone.low, alone.n)
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


def crossed(judged: Judged, runs: Sequence[RunView], grades: Mapping[str, Grades], title: str) -> list[Table]:
    """People's grades by the judge's, as counts, for every run that has both."""
    tables = []
    for run in runs[:MATRICES]:
        found = grades[run.id]
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
        picked = _picked(judged, grades[run.id])
        path = source.samples(run.id)
        if picked and path is not None:
            found = grades[run.id]
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
        link=sample_link(run.id, str(row["sample_id"]), int(row.get("repeat") or 0)),
        what=what,
        person=label(found.person),
        grades=[label(codes) for codes in found.by.values()],
        reason=reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} …",
    )
