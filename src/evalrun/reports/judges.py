"""Judges as the report tells them: who graded what, which grades they gave, and what these are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from evalrun.analysis.conclude import has_judges
from evalrun.frozen import frozen
from evalrun.reports.numbers import count, listing, measured, plural, seconds, usd
from evalrun.reports.source import Source, Suite
from evalrun.reports.view import FEW_SAMPLES, RunView, Table
from evalrun.results import JudgeBill
from evalrun.sweep_results import JudgedRun
from evalrun.types import MetricValue

if TYPE_CHECKING:
    from evalrun.reports.judgetables import Disagreement, FigureRow, ShareRow
    from evalrun.scoring.scorers.judge import JudgeOptions


GUESSING = 0.5
"""A judge that contradicts itself in half of the pairs decides by their order."""

OFTEN = 0.2
MANY_UNSCORED = 0.05
CONCLUSIVE, RELIABLE = 0.667, 0.8
"""Krippendorff's bounds (Content Analysis, chapter 11): below the first no conclusions are drawn from grades,
below the second only tentative ones."""

POOR = 0.4
"""Grades that agree with people's no better than this must not decide anything."""

_KAPPA = (
    (0.0, "no better than chance; do not rely on these grades"),
    (0.2, "hardly better than chance; do not rely on these grades"),
    (POOR, "weak agreement; do not let these grades decide"),
    (0.6, "moderate agreement; read the disagreements before these grades decide"),
    (0.8, "good agreement"),
)


def kappa_words(value: float | None, low: float | None, n: int) -> str:
    """What Cohen's kappa of a judge and a person says of the judge."""
    if value is None:
        return (
            "no figure: nothing differs, so there is nothing to agree on"
            if n
            else "no sample has both grades"
        )
    said = next((words for limit, words in _KAPPA if value <= limit), "as close as two people are")
    if n < FEW_SAMPLES:
        return f"{said}; n = {n} is small, grade more answers by hand"
    if low is not None and low <= 0 and value > _KAPPA[1][0]:
        return f"{said}, and perhaps chance: the interval reaches 0"
    return said


def alpha_words(value: float | None, n: int) -> str:
    """What Krippendorff's alpha says of several judges."""
    if value is None:
        return "no figure: all gave the same grade" if n else "no sample has two grades"
    if value <= 0:
        return "no better than chance: the judges do not measure the same thing"
    if value < CONCLUSIVE:
        return "too little for conclusions (0.67 is the usual bound)"
    if value < RELIABLE:
        return "enough for tentative conclusions"
    return "the judges agree, which is not to say that they are right"


def rank_words(value: float | None) -> str:
    """What a rank correlation of judge and person says."""
    if value is None:
        return "no figure: one of the two gave one grade only"
    if value < OFTEN:
        return "orders the answers hardly as the person does"
    return f"orders the answers {'much' if value >= RELIABLE else 'roughly'} as the person does"


def order_words(inconsistent: float | None) -> str:
    """What the share of pairs says that were decided differently in the two orders."""
    if inconsistent is None:
        return ""
    if inconsistent >= GUESSING:
        return "the order decides, not the answers: do not rely on these verdicts"
    return "often decided by the order" if inconsistent >= OFTEN else "seldom decided by the order"


def position_words(figure: MetricValue) -> str:
    """Which of two answers a judge prefers for its place, if that is shown."""
    low, high = figure.ci_low, figure.ci_high
    if low is None or high is None or low <= GUESSING <= high:
        return "no preference for a place is shown"
    return f"prefers the answer that it reads {'first' if low > GUESSING else 'second'}"


def doubt(run: RunView, scorer: str) -> str:
    """Why the grades of a run cannot carry a ranking, in half a sentence; empty where nothing says so."""
    people = run.metric(f"{scorer}.human.kappa")
    if people is not None and people.value is not None:
        if people.value > POOR and (people.ci_low is None or people.ci_low > 0):
            return ""
        words = kappa_words(people.value, people.ci_low, people.n)
        return f"agreement with people's grades is {words} (kappa {_said(people)})"
    order = run.metric(f"{scorer}.inconsistent")
    if order is not None and order.value is not None and order.value >= GUESSING:
        return f"{order_words(order.value)} ({_said(order)} of the pairs changed with it)"
    several = run.metric(f"{scorer}.alpha")
    if several is not None and several.value is not None and several.value < CONCLUSIVE:
        return f"the judges' agreement is {alpha_words(several.value, several.n)} (alpha {_said(several)})"
    return ""


def _said(figure: MetricValue) -> str:
    return f"{_measured(figure)}, n = {figure.n}"


def _measured(figure: MetricValue) -> str:
    """Value and interval without a unit."""
    return measured(figure.value, figure.ci_low, figure.ci_high)


OPEN = 3
"""Runs whose grades are shown; those of more are folded away."""


@frozen
class JudgesView:
    """One judge (a scorer, of one model or several) on one dataset. `grades` are the heads of `shares`;
    `open` are the runs that are shown at once, `rest` how many others there are."""

    title: str
    who: str
    texts: Sequence[tuple[str, str]]
    findings: Sequence[str]
    cautions: Sequence[str]
    grades: Sequence[str]
    shares: Sequence[ShareRow]
    figures: Sequence[FigureRow]
    crossed: Sequence[Table]
    examples: Sequence[Disagreement]
    examples_of: str
    judges: Sequence[str]
    labelled: bool
    asked: Table | None
    open: frozenset[str]
    rest: int


@frozen
class Judged:
    """A judge of the suite: the scorer's name, its options, and the models behind its judges' ids."""

    scorer: str
    options: JudgeOptions
    models: Mapping[str, str]

    @property
    def labels(self) -> list[str]:
        """The grades in the order of the menu; of pairs as they are to the judged answer."""
        from evalrun.analysis.judged import grade_labels

        return list(grade_labels(self.options))

    def name(self, judge: str) -> str:
        """A judge's id, with its model where that is called otherwise."""
        model = self.models.get(judge)
        return f"{judge} ({model})" if model and model != judge else judge


def judges(source: Source, by_dataset: Mapping[str, Sequence[RunView]]) -> list[JudgesView]:
    """A view for every judge and dataset that it graded; the runs are best first."""
    found = []
    for judged in _judged(source.suite):
        for dataset, runs in by_dataset.items():
            having = [run for run in runs if _was_judged(run, judged.scorer)]
            if having:
                title = f"{judged.scorer}, {dataset}" if len(by_dataset) > 1 else judged.scorer
                found.append(_view(source, judged, title, having))
    return found


def _was_judged(run: RunView, scorer: str) -> bool:
    """Whether there was anything to grade: the run that pairs are compared with is not graded itself."""
    figures = (run.metric(scorer), run.metric(f"{scorer}.unscored"))
    return any(figure is not None and figure.n > 0 for figure in figures)


def _judged(suite: Suite) -> Iterator[Judged]:
    if not has_judges(suite.scorers or ()):
        return
    from evalrun.analysis.judged import judge_options

    models = {each.id: each.model or "" for each in [*(suite.models or ()), *(suite.judges or ())]}
    for name, options in judge_options(suite.scorers or ()):
        yield Judged(name, options, models)


def _view(source: Source, judged: Judged, title: str, runs: Sequence[RunView]) -> JudgesView:
    from evalrun.reports import judgetables

    found = {each.run: each for each in source.results.judged if each.scorer == judged.scorer}
    graded = [run for run in runs if run.id in found]
    heads, shares = judgetables.shares(judged, graded, found)
    of, examples = judgetables.disagreements(graded, found)
    return JudgesView(
        title=title,
        who=_who(judged),
        texts=_texts(judged),
        findings=_findings(judged, runs),
        cautions=[*_cautions(judged, runs, graded), *_alike(graded, found)],
        grades=heads,
        shares=shares,
        figures=judgetables.figures(judged, runs, found),
        crossed=judgetables.crossed(judged, graded, found, title),
        examples=examples,
        examples_of=of,
        judges=[judged.name(judge) for judge in judged.options.model],
        labelled=judged.options.human is not None,
        asked=_asked(judged, runs, title),
        open=frozenset(run.id for run in runs[:OPEN]),
        rest=max(0, len(runs) - OPEN),
    )


def _who(judged: Judged) -> str:
    """Who graded what, how: one or two sentences."""
    options = judged.options
    names = listing(judged.name(judge) for judge in options.model)
    what = "the raw output" if options.of == "output" else "the parsed answer"
    pair = options.pairwise
    if pair is not None:
        parts = (("column", pair.column), ("prompt", pair.prompt), ("model", pair.model))
        other = " and ".join(f"the {kind} {name}" for kind, name in parts if name)
        verb = "compares" if len(options.model) == 1 else "compare"
        said = f"{names} {verb} {what} with that of {other}, in both orders; a verdict that changes with the "
        said += "order is a tie."
    else:
        menu = options.menu
        how = (
            f"on a scale from {menu.labels[0]} to {menu.labels[-1]}"
            if menu.ordered
            else "as one of: "
            + ", ".join(f"{label} ({value:g})" for label, value in zip(menu.labels, menu.values, strict=True))
        )
        said = f"{names} grade{'s' if len(options.model) == 1 else ''} {what} {how}."
    if len(options.model) > 1:
        combine = options.combine or ("mean" if options.menu.ordered else "majority")
        said += f" Together they give the {combine} of their grades."
    return said


def _texts(judged: Judged) -> list[tuple[str, str]]:
    found = (("Rubric", judged.options.rubric), ("Prompt of the judge", judged.options.prompt))
    return [(title, str(text)) for title, text in found if text]


def _of(runs: Sequence[RunView], name: str) -> list[tuple[RunView, MetricValue]]:
    """The runs that have a value of a metric, the lowest first."""
    known = [(run, figure) for run in runs if (figure := run.metric(name)) and figure.value is not None]
    return sorted(known, key=lambda each: each[1].value or 0.0)


def _spoken(found: Sequence[tuple[RunView, MetricValue]], all_runs: Sequence[RunView]) -> str:
    """`0.61 [0.4, 0.8] (n = 60): `, of several runs the lowest and the highest with their names."""

    def told(run: RunView, figure: MetricValue) -> str:
        where = f"{run.label}, " if len(all_runs) > 1 else ""
        return f"{_measured(figure)} ({where}n = {count(figure.n)})"

    if len(found) == 1:
        return f"{told(*found[0])}: "
    return f"from {told(*found[0])} to {told(*found[-1])}. At worst: "


def _findings(judged: Judged, runs: Sequence[RunView]) -> list[str]:
    """What the grades are worth, in plain words; of several runs by the worst of them."""
    name, said = judged.scorer, []
    if people := _of(runs, f"{name}.human.kappa"):
        low = people[0][1]
        words = kappa_words(low.value, low.ci_low, low.n)
        said.append(f"With people's grades: kappa {_spoken(people, runs)}{words}.")
        same = people[0][0].value(f"{name}.human.accuracy")
        if same and same >= 0.7 and (low.value or 0) <= 0.2:
            said.append(
                f"Judge and person gave the same grade in {same:.0%} of the samples, but so would chance: "
                "nearly all grades are alike."
            )
    elif judged.options.human is not None and any(run.metric(f"{name}.human.kappa") for run in runs):
        said.append("With people's grades: kappa cannot be computed, since no two samples differ in both.")
    if several := _of(runs, f"{name}.alpha"):
        words = alpha_words(several[0][1].value, several[0][1].n)
        said.append(f"Among the judges: alpha {_spoken(several, runs)}{words}.")
    if order := _of(runs, f"{name}.inconsistent"):
        words = order_words(order[-1][1].value)
        said.append(f"Pairs whose verdict changed with the order: {_spoken(order, runs)}{words}.")
    if place := _of(runs, f"{name}.first_position"):
        at = max((figure for _, figure in place), key=lambda each: abs((each.value or 0.0) - 0.5))
        said.append(
            f"Decided verdicts for the answer shown first: {_spoken(place, runs)}"
            f"{position_words(at)} (a fair judge gives 0.5)."
        )
    return said


def _cautions(judged: Judged, runs: Sequence[RunView], graded: Sequence[RunView]) -> list[str]:
    name, options, found = judged.scorer, judged.options, []
    if options.human is None:
        alone = "" if len(options.model) == 1 else " Judges that agree can be wrong together."
        found.append(
            "No person has graded any of these answers, so nothing here says how right the judge is: put "
            f"grades in a column and name it (human: COLUMN).{alone}"
        )
    elif len(graded) > 1:
        found.append(
            f"The column {options.human} holds one grade a row, and {len(graded)} runs answered these rows: "
            "it is a person's grade of at most one of these answers, unless all say the same."
        )
    for run, figure in reversed(_of(runs, f"{name}.unscored")):
        if (figure.value or 0) > MANY_UNSCORED:
            share = _measured(figure)
            found.append(
                f"{run.label}: no grade could be read for {share} of {plural(figure.n, 'answer')}. Those "
                "are out of n: the mean is over the answers that the judge found easy."
            )
    notes = [part for run in runs for part in _notes(run.metric(name))]
    return [*found, *(f"{note[:1].upper()}{note[1:]}." for note in dict.fromkeys(notes))]


def _alike(runs: Sequence[RunView], judged: Mapping[str, JudgedRun]) -> list[str]:
    """Runs all of whose answers got one and the same grade."""
    return [
        f"{run.label}: every graded answer got the same grade, {judged[run.id].only_grade}. It tells nothing "
        "apart."
        for run in runs
        if judged[run.id].only_grade
    ]


def _notes(figure: MetricValue | None) -> list[str]:
    """What was noted beside the mean grade about judge and judged (their lineage)."""
    return [each for each in (figure.note.split("; ") if figure else []) if each.startswith("judge ")]


def _asked(judged: Judged, runs: Sequence[RunView], title: str) -> Table | None:
    """The requests to each judge over all runs, with their tokens, cost and time."""
    rows = []
    for judge in judged.options.model:
        bills = [
            bill
            for run in runs
            for bill in run.details.judges
            if (bill.scorer, bill.model) == (judged.scorer, judge)
        ]
        if bills:
            rows.append(_bill(judged.name(judge), bills))
    if not rows:
        return None
    columns = (
        "judge", "requests", "from the cache", "failed", "unreadable", "asked again", "prompt tokens",
        "output tokens", "cost", "median time",
    )  # fmt: skip
    return Table(
        f"What was asked of the judges for {title}, over all runs", columns, rows, frozenset(range(1, 10))
    )


def _bill(judge: str, bills: Sequence[JudgeBill]) -> tuple[str, ...]:
    totals = [
        count(sum(getattr(bill, name) for bill in bills))
        for name in (
            "requests",
            "cached",
            "failed",
            "unread",
            "asked_again",
            "prompt_tokens",
            "completion_tokens",
        )
    ]
    priced = [bill.usd for bill in bills if bill.usd is not None]
    times = sorted({bill.e2e_s_p50 for bill in bills if bill.e2e_s_p50 is not None})
    ends = dict.fromkeys(map(seconds, times[:1] + times[-1:]))
    return (judge, *totals, usd(sum(priced)) if priced else usd(None), " to ".join(ends) or seconds(None))
