"""What the report shows, as plain frozen values: templates and the terminal read these and nothing else.

Everything here is made from `sweep.json`, `run.json` and the columns of `samples.parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from evalrun.analysis.conclude import scorer_names
from evalrun.frozen import frozen
from evalrun.reports.source import Planned, Suite
from evalrun.reports.visible import visible
from evalrun.results import RunDetails, RunResults
from evalrun.sweep_results import Chance, Primary, Standing, Verdict, leading
from evalrun.tracking.naming import Cell, params_of, plain_value
from evalrun.types import JSON, Counts, MetricValue


@frozen
class ScoreColumn:
    """A score that the grid of samples can go by: its name without `score.`; `lower` says that it gets better
    downwards, so that there is no right and wrong."""

    name: str
    lower: bool = False


FEW_SAMPLES = 30
"""Below this many samples an interval says little, and the answer says so."""

PALETTE = 8
"""Colours and shapes that runs can be told apart by."""


@frozen
class RunView:
    """A run's results with the names it goes by: `label` is the shortest that tells it apart within its
    dataset, `full` within the sweep, `spoken` the label as it stands in a sentence; `parts` are the label's
    own. `id` is the run's, unless several sweeps are on one page.

    `colour` indexes the palette; it stands for `family`: the label, or model or prompt where labels are many.
    `place` is where it stands against the best run of its dataset by the `primary` metric, `chance` what that
    metric is beside what is reached without reading the input (where answers are among known labels).
    """

    id: str
    results: RunResults
    label: str
    parts: Sequence[str]
    spoken: str
    full: str
    colour: int = 0
    family: str = ""
    primary: MetricValue | None = None
    place: Standing | None = None
    chance: Chance | None = None

    @property
    def blind(self) -> bool:
        """Whether it is not shown to be better than an answer that did not read the input."""
        return self.chance is not None and not self.chance.above

    @property
    def model(self) -> str:
        """Its model's id."""
        return visible(self.results.model)

    @property
    def prompt(self) -> str:
        """Its prompt's id."""
        return visible(self.results.prompt)

    @property
    def dataset(self) -> str:
        """Its dataset's id."""
        return visible(self.results.dataset)

    @property
    def params(self) -> Mapping[str, JSON]:
        """Its parameters."""
        return self.results.params

    @property
    def counts(self) -> Counts:
        """How its samples ended."""
        return self.results.counts

    @property
    def details(self) -> RunDetails:
        """What stands behind its metrics."""
        return self.results.details

    @property
    def standing(self) -> str:
        """ "best", "tied", "behind", or "incomparable"."""
        return self.place.verdict if self.place else "incomparable"

    @property
    def difference(self) -> Standing | None:
        """Where it stands, if it could be compared with the best."""
        return self.place if self.place and self.place.difference is not None else None

    def metric(self, name: str) -> MetricValue | None:
        """The metric of that name over all samples, if the run has it."""
        return self.results.metric(name)

    def value(self, name: str) -> float | None:
        """The value of that metric, or None."""
        found = self.results.metric(name)
        return found.value if found else None


def grid_link(**chosen: str) -> str:
    """The part of the page's address that shows some samples in the grid (assets/samples.js reads it): `run`,
    `vs`, `kind` ("wrong", "lost", …), `score`, and `by.<column>` for a group."""
    from urllib.parse import urlencode

    return "#grid?" + urlencode({name: value.encode("utf-8", "replace") for name, value in chosen.items()})


def sample_path(run: str, sample_id: str, repeat: int = 0) -> str:
    """How one sample is named in the page's address."""
    from urllib.parse import quote

    return "/".join(quote(part.encode("utf-8", "replace"), safe="") for part in (run, sample_id, str(repeat)))


def lower_is_better(runs: Sequence[RunView]) -> bool:
    """Whether the primary metric gets better downwards."""
    return any(run.primary is not None and run.primary.direction == "lower" for run in runs)


def equal(runs: Sequence[RunView]) -> bool:
    """Whether ranked runs all have the same value, so that nobody is best."""
    return len(runs) > 1 and runs[0].standing == "tied"


def chance_of(runs: Sequence[RunView], primary: Primary | None) -> Chance | None:
    """What is reached on the runs' dataset without reading the input, the highest where they differ. None
    where that is not known, or where runs are ranked by something else than the mean of the score."""
    known = [run.chance for run in runs if run.chance is not None]
    return max(known, key=lambda each: each.level, default=None) if primary and primary.exact else None


def verdict_word(verdict: Verdict | None) -> str:
    """A verdict's word as it is shown: what the samples cannot tell apart is tied."""
    return "" if verdict is None else "tied" if verdict.word == "inconclusive" else verdict.word


def behind(place: Standing) -> tuple[float, float | None, float | None]:
    """The run minus the best, with its bounds: a worse run stands below zero."""
    low, high = place.ci_low, place.ci_high
    return -(place.difference or 0.0), None if high is None else -high, None if low is None else -low


@frozen
class Phrase:
    """A piece of a sentence; `kind` is "run" for a run's name, "value" for a figure, "whole" for what is not
    broken over two lines, else empty."""

    text: str
    kind: str = ""


Sentence: TypeAlias = Sequence[Phrase]


def words(sentence: Sentence) -> str:
    """The sentence as plain text."""
    return "".join(phrase.text for phrase in sentence)


@frozen
class Fact:
    """One figure of the best run, shown large; `anchor` is the section that says more."""

    title: str
    value: str
    beside: str
    anchor: str


@frozen
class Answer:
    """What the sweep says about one dataset: sentences from the verdict down to its limits. `chance` says
    what is reached there without reading the input."""

    dataset: str
    verdict: Sentence
    more: Sequence[Sentence]
    advice: Sentence
    unequal: Sequence[str]
    cautions: Sequence[str]
    facts: Sequence[Fact]
    runs: Sequence[RunView]
    chance: str = ""

    @property
    def verdict_is_measured(self) -> bool:
        """Whether the verdict gives a figure with its interval."""
        return (
            bool(self.runs) and self.runs[0].primary is not None and self.runs[0].primary.ci_low is not None
        )

    @property
    def has_tied(self) -> bool:
        """Whether some run is tied with the best."""
        return any(run.standing == "tied" for run in self.runs[1:])

    @property
    def best(self) -> RunView | None:
        """The run that the verdict is about; None where nobody is best."""
        return next((run for run in self.runs if run.standing == "best"), None)


PHONE = 40
"""Characters of a row that fit on a phone beside one another."""


@frozen
class Table:
    """A small table of texts; the first column names the row. `numeric` columns are set right; `links` say
    where the names of the rows lead."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    links: Sequence[str] = ()

    @property
    def cards(self) -> bool:
        """Whether it is too wide for a phone, where each row is a card of names and values then."""
        if not self.rows:
            return False
        longest = [max((len(cell) for cell in cells), default=0) for cells in zip(*self.rows, strict=True)]
        heads = [len(head) for head in self.columns]
        return sum(map(max, zip(longest, heads, strict=True))) > PHONE


@frozen
class Chart:
    """A Vega-Lite specification with what stands in for it where it cannot be seen.

    A `wide` one is as wide as the page; a `folded` one is for those who want it.
    """

    key: str
    title: str
    alt: str
    spec: Mapping[str, JSON]
    table: Table
    note: str = ""
    wide: bool = False
    folded: bool = False


def other_scores(suite: Suite, views: Sequence[RunView]) -> list[str]:
    """The first metric of every scorer after the first, without those that say the same of every run; and all
    that measures a bias."""
    first: dict[str, str] = {}
    for view in views:
        for each in view.results.metrics:
            if each.scorer and not each.slice:
                first.setdefault(each.scorer, each.name)
    known: list[list[float | None]] = []
    found = []
    scorers = scorer_names({"scorers": suite.scorers})
    if any(view.results.headline for view in views):  # the metrics of a task, its headline first
        scorers = sorted(first, key=lambda name: name != views[0].results.headline)
    for at, scorer in enumerate(scorers):
        if (metric := first.get(scorer)) is None:
            continue
        values = [view.value(metric) for view in views]
        if at and values not in known:
            found.append(metric)
        known.append(values)
    bias = (finding.metric for view in views for finding in view.results.details.bias)
    return list(dict.fromkeys([*bias, *found]))


MOST_SCORES = 8
"""Scores of so many scorers can be chosen in the grid of samples."""


def score_columns(runs: Sequence[RunView], first: str | None) -> list[ScoreColumn]:
    """The score of every scorer, that of `first` (a scorer or its metric) before the others."""
    lower: dict[str, bool] = {}
    own = first
    for run in runs:
        for metric in run.results.metrics:
            if metric.scorer and not metric.slice:
                lower.setdefault(metric.scorer, metric.direction == "lower")
                if metric.name == first:
                    own = metric.scorer
    names = dict.fromkeys([*([own] if own else []), *lower])
    return [ScoreColumn(name, lower.get(name, False)) for name in list(names)[:MOST_SCORES]]


def lead_of(runs: Sequence[RunView], primary: Primary | None) -> Primary | None:
    """What the runs of one dataset are ranked by."""
    return leading(runs[0].results if runs else None, primary)


def make_runs(plan: Sequence[Planned], runs: Sequence[RunResults], primary: Primary | None) -> list[RunView]:
    """The runs in the order of the plan, named by what tells them apart and coloured by that name."""
    names = _Names(plan or runs)
    views = [_view(run, names, primary) for run in runs]
    colours = _colours(views)
    return [
        replace(view, colour=colour, family=family)
        for view, (colour, family) in zip(views, colours, strict=True)
    ]


def _view(run: RunResults, names: _Names, primary: Primary | None) -> RunView:
    parts, lead = names.parts(run), leading(run, primary)
    label = " · ".join(parts)
    return RunView(
        id=run.run,
        results=run,
        label=label,
        parts=parts,
        spoken=names.spoken(run),
        full=f"{label} · {visible(run.dataset)}" if names.datasets else label,
        primary=run.metric(lead.metric) if lead else None,
    )


class _Names:
    """Which of model, prompt, dataset and parameters vary over the sweep; only those are said."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.models = len({cell.model for cell in cells}) > 1
        self.prompts = len({cell.prompt for cell in cells}) > 1
        self.datasets = len({cell.dataset for cell in cells}) > 1
        self.params = varying_params(cells, by_model=True)

    def parts(self, run: Cell) -> list[str]:
        parts = [run.prompt] if self._says_prompt else []
        if self.models:
            parts.append(run.model)
        return [visible(part) for part in (*parts, *params_of(run, self.params))]

    def spoken(self, run: Cell) -> str:
        """`few_shot on smollm2 (temperature=0.7)`."""
        names = " on ".join(self.parts(run)[: self._says_prompt + self.models])
        params = visible(", ".join(params_of(run, self.params)))
        return f"{names} ({params})" if names and params else names or params

    @property
    def _says_prompt(self) -> bool:
        return self.prompts or not (self.models or self.params)


EVERY_MODEL = ""


def varying_params(cells: Sequence[Cell], *, by_model: bool = False) -> list[str]:
    """Parameters that do not have the same value in every run; with `by_model`, within some one model."""
    groups: dict[str, dict[str, set[str]]] = {}
    order: dict[str, None] = {}
    for cell in cells:
        group = groups.setdefault(cell.model if by_model else EVERY_MODEL, {})
        for name, value in cell.params.items():
            order[name] = None
            group.setdefault(name, set()).add(plain_value(value))
    if by_model:
        return [name for name in order if any(len(group.get(name, ())) > 1 for group in groups.values())]
    sizes = {name: sum(name in cell.params for cell in cells) for name in order}
    values = groups.get(EVERY_MODEL, {})
    return [name for name in order if len(values[name]) > 1 or sizes[name] < len(cells)]


def _colours(views: Sequence[RunView]) -> list[tuple[int, str]]:
    """Palette index and what it stands for: the label, or model or prompt where there are too many labels."""
    for keys in ([v.label for v in views], [v.model for v in views], [v.prompt for v in views]):
        distinct = list(dict.fromkeys(keys))
        if 1 < len(distinct) <= PALETTE or len({v.label for v in views}) == 1:
            return [(distinct.index(key), key) for key in keys]
    return [(0, "") for _ in views]
