"""What judges gave the answers of a sweep's runs: shares of grades, agreement, samples graded differently.

Grades stand in `samples.parquet` as parts of the judge's score (scoring/scorers/judge.py): `grade` is what
the judges gave together, `by.<model>` what each gave, `human` a person's grade. Here they are codes: places
on the menu.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.intervals import mean
from evalrun.analysis.quality import score_column
from evalrun.analysis.samples import SampleTable
from evalrun.results import Estimate, RunResults
from evalrun.scoring.scorers import judge_agreement as agreement
from evalrun.sweep_results import GradeShare, GradesOf, JudgedRun, JudgeExample, JudgeKappa
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import reading
from evalrun.types import JSON, Status

if TYPE_CHECKING:
    from evalrun.scoring.scorers.judge import JudgeOptions


JUDGE = "judge"
"""The name of judges in the registry of scorers."""

UNDECIDED, NO_GRADE_READ, TOGETHER = "undecided", "no grade", "together"
EXAMPLES = 8
LONGEST = 160
"""Letters of what a judge wrote that an example keeps; the sample has all."""

MOST_PAIRED = 5
"""Of more judges only alpha is told, not every pair."""


def judge_options(scorers: Sequence[JSON]) -> Iterator[tuple[str, JudgeOptions]]:
    """The judges among a suite's scorers: their names and options, but for those of another version."""
    entries = [each.get(JUDGE) for each in scorers if isinstance(each, Mapping)]
    if not any(entries):
        return
    from evalrun.scoring.scorers.judge import JudgeOptions

    for given in entries:
        if not isinstance(given, Mapping):
            continue
        try:
            options = JudgeOptions.model_validate(given)
        except ValueError:  # written by another version
            continue
        yield str(given.get("name") or JUDGE), options


def grade_labels(options: JudgeOptions) -> tuple[str, ...]:
    """The grades in the order of the menu; of pairs as they are to the judged answer."""
    return ("better", "worse", "tie") if options.pairwise else tuple(options.menu.labels)


def judged_runs(
    suite: Mapping[str, Any], runs: Sequence[RunResults], folder: SweepFolder
) -> tuple[JudgedRun, ...]:
    """What the judges of a suite gave each run that they were asked about. Reads the samples."""
    found = []
    for scorer, options in judge_options(suite.get("scorers") or ()):
        for run in runs:
            path = folder.samples_path(run.run)
            metrics = (run.metric(scorer), run.metric(f"{scorer}.unscored"))
            # The run that pairs are compared with is not graded itself.
            if path.is_file() and any(metric is not None and metric.n > 0 for metric in metrics):
                excluded = suite.get("unparsed") == "exclude"
                grades = read_grades(path, scorer, options, scored_only=excluded)
                if len(grades):
                    judged = _Judged(run, scorer, options, grades, path)
                    found.append(judged.results())
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One run with the grades of one scorer."""

    run: RunResults
    scorer: str
    options: JudgeOptions
    grades: Grades
    path: Path

    @property
    def labels(self) -> tuple[str, ...]:
        return grade_labels(self.options)

    def results(self) -> JudgedRun:
        given = set(self.grades.together[self.grades.together >= 0].tolist())
        alike = len(given) == 1 and not self.grades.between.any() and len(self.grades) > 1
        return JudgedRun(
            run=self.run.run,
            scorer=self.scorer,
            labels=self.labels,
            judges=tuple(self.grades.by),
            grades=tuple(self._shares()),
            kappas=tuple(self._kappas()),
            crossed=self._crossed(),
            examples=tuple(self._examples()),
            undecided=bool(self.grades.between.any()),
            only_grade=self.labels[given.pop()] if alike else "",
        )

    def _shares(self) -> Iterator[GradesOf]:
        found = self.grades
        if len(found.by) > 1:
            for judge, codes in found.by.items():
                yield self._grades_of(judge, codes, None, found.asked)
        who = TOGETHER if len(found.by) > 1 else next(iter(found.by))
        yield self._grades_of(who, found.together, found.between, np.ones(len(found), bool))

    def _grades_of(self, judge: str, codes: Ints, undecided: Bools | None, of: Bools) -> GradesOf:
        hits = {label: codes == at for at, label in enumerate(self.labels)}
        hits[NO_GRADE_READ] = codes < 0
        if undecided is not None:
            hits[UNDECIDED] = undecided
            hits[NO_GRADE_READ] = (codes < 0) & ~undecided
        shares = [
            GradeShare(**asdict(self.grades.share(which, of)), grade=label, hits=int((which & of).sum()))
            for label, which in hits.items()
        ]
        return GradesOf(judge, int(of.sum()), tuple(shares))

    def _kappas(self) -> Iterator[JudgeKappa]:
        found = self.grades
        if len(found.by) < 2:
            return
        if self.run.metric(f"{self.scorer}.human.kappa") is not None:
            for judge, codes in found.by.items():
                yield JudgeKappa(**asdict(self._kappa(found.person, codes)), judge=judge)
        if len(found.by) <= MOST_PAIRED:
            for (one, first), (other, second) in combinations(found.by.items(), 2):
                yield JudgeKappa(**asdict(self._kappa(first, second)), judge=one, other=other)

    def _kappa(self, first: Ints, second: Ints) -> Estimate:
        steps = self.options.menu.ordered
        return self.grades.kappa(first, second, len(self.labels), quadratic=steps)

    def _crossed(self) -> tuple[tuple[int, ...], ...]:
        found, size = self.grades, len(self.labels)
        both = (found.person >= 0) & (found.together >= 0)
        if not both.any():
            return ()
        cells = np.bincount(found.person[both] * size + found.together[both], minlength=size * size)
        return tuple(map(tuple, cells.reshape(size, size).tolist()))

    def _examples(self) -> list[JudgeExample]:
        picked = _picked(self.grades, self.options.menu.ordered)
        rows, reason = [int(self.grades.rows[at]) for at, _ in picked], f"reason.{self.scorer}"
        texts = read_rows(self.path, rows, ["sample_id", "repeat", reason]) if rows else {}
        return [self._example(at, what, texts[row]) for (at, what), row in zip(picked, rows, strict=True)]

    def _example(self, at: int, what: str, row: Mapping[str, Any]) -> JudgeExample:
        def label(codes: Ints) -> str:
            return "" if codes[at] == NO_GRADE else self.labels[codes[at]]

        reason = " ".join(str(row.get(f"reason.{self.scorer}") or "").split())
        return JudgeExample(
            sample_id=str(row["sample_id"]),
            repeat=int(row.get("repeat") or 0),
            what=what,
            person=label(self.grades.person),
            grades=tuple(label(codes) for codes in self.grades.by.values()),
            reason=reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} …",
        )


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NO_GRADE = -1

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

    def kappa(self, first: Ints, second: Ints, size: int, *, quadratic: bool) -> Estimate:
        """Cohen's kappa of two columns of codes over the samples that have both, with an interval over the
        independent units. `size` is the number of grades."""
        both = (first >= 0) & (second >= 0)
        if not both.any():
            return Estimate(None, 0, note="no sample has both grades")
        smooth = agreement.kappa_smooth(first[both], second[both], size, quadratic=quadratic)
        found = smooth_interval(smooth, _codes(self.units[both]), (-1.0, 1.0))
        return replace(found, n=int(both.sum()))


def _codes(units: Ints) -> Ints:
    return np.unique(units, return_inverse=True)[1].astype(np.int64).reshape(-1)


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
    wanted, found, start = set(rows), {}, 0
    with reading(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_BATCH, columns=present):
            for at in sorted(wanted):
                if start <= at < start + batch.num_rows:
                    found[at] = batch.slice(at - start, 1).to_pylist()[0]
            start += batch.num_rows
            if len(found) == len(wanted):
                break
    return found


def _picked(found: Grades, steps: bool) -> list[tuple[int, str]]:
    """Places of samples in turn from those where person and judge differ, where judges do, where the order
    decided, and where nobody gave a grade; with what differs."""
    several = np.stack(list(found.by.values()))
    most = several.max(axis=0)
    least = np.where(several < 0, most, several).min(axis=0)
    both = (found.person >= 0) & (found.together >= 0)
    apart = np.where(both, np.abs(found.person - found.together), 0)
    lists = [
        [(at, "person and judge") for at in _widest(apart, steps)],
        [(at, "the judges") for at in _widest(most - least, steps)],
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
