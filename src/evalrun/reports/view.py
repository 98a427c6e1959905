"""What the report shows, as plain frozen values: templates and the terminal read these and nothing else.

Everything here is made from `sweep.json`, `run.json` and the columns of `samples.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from evalrun.analysis.conclude import scorer_names
from evalrun.reports.numbers import decimals_for, interval, quantity
from evalrun.reports.visible import visible
from evalrun.results import Primary
from evalrun.types import JSON, Counts

Standing: TypeAlias = Literal["best", "tied", "behind", "unknown"]
"""Where a run stands against the best of its dataset by the primary metric; "tied" cannot be told apart.
Where all runs have the same value all are tied and nobody is best."""

FEW_SAMPLES = 30
"""Below this many samples an interval says little, and the answer says so."""

PALETTE = 8
"""Colours and shapes that runs can be told apart by."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric as it is shown. `slice` is empty for all samples."""

    name: str
    value: float | None
    n: int
    unit: str
    direction: str
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""
    slice: Mapping[str, str] = field(default_factory=dict)

    @property
    def decimals(self) -> int:
        """Decimals that the interval supports."""
        if self.low is None or self.high is None:
            return 2
        return decimals_for((self.high - self.low) / 2)

    @property
    def text(self) -> str:
        """The value with its unit."""
        return quantity(self.value, self.unit, self.decimals)

    @property
    def interval(self) -> str:
        """The interval in the value's unit; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        if self.is_share:
            return interval(self.low, self.high, self.decimals)
        return f"[{quantity(self.low, self.unit)}, {quantity(self.high, self.unit)}]"

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction or a plain score, written without a unit."""
        return self.unit in ("fraction", "score", "", "1")


@dataclass(frozen=True, slots=True)
class Difference:
    """best - run over the `n` sample ids that both scored, with its p and 95 % bounds (see standings.py).

    `detectable` is the true difference that so many pairs find four times in five; None where unknown.
    """

    mean: float
    n: int
    p: float
    low: float | None
    high: float | None
    method: str
    detectable: float | None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. `label` is the shortest name that tells it apart within its dataset, `full` within the sweep,
    `spoken` the label as it stands in a sentence; `parts` are the label's own.

    `colour` indexes the palette; it stands for `family`: the label, or model or prompt where labels are many.
    """

    run: str
    label: str
    parts: Sequence[str]
    spoken: str
    full: str
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON]
    status: str
    counts: Counts
    figures: Sequence[Figure]
    details: Mapping[str, JSON]
    timings: Mapping[str, JSON]
    colour: int = 0
    family: str = ""
    primary: Figure | None = None
    standing: Standing = "unknown"
    difference: Difference | None = None

    def figure(self, name: str) -> Figure | None:
        """The metric of that name over all samples, if the run has it."""
        for each in self.figures:
            if each.name == name and not each.slice:
                return each
        return None

    def value(self, name: str) -> float | None:
        """The value of that metric, or None."""
        found = self.figure(name)
        return found.value if found else None


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of a sentence; `kind` is "run" for a run's name, "value" for a figure, "whole" for what is not
    broken over two lines, else empty."""

    text: str
    kind: str = ""


Sentence: TypeAlias = Sequence[Phrase]


def words(sentence: Sentence) -> str:
    """The sentence as plain text."""
    return "".join(phrase.text for phrase in sentence)


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure of the best run, shown large; `anchor` is the section that says more."""

    title: str
    value: str
    beside: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sweep says about one dataset: sentences from the verdict down to its limits."""

    dataset: str
    verdict: Sentence
    more: Sequence[Sentence]
    advice: Sentence
    unequal: Sequence[str]
    cautions: Sequence[str]
    facts: Sequence[Fact]
    runs: Sequence[RunView]

    @property
    def verdict_is_measured(self) -> bool:
        """Whether the verdict gives a figure with its interval."""
        return bool(self.runs) and self.runs[0].primary is not None and bool(self.runs[0].primary.interval)

    @property
    def has_tied(self) -> bool:
        """Whether some run cannot be told apart from the best."""
        return any(run.standing == "tied" for run in self.runs[1:])

    @property
    def best(self) -> RunView | None:
        """The run that the verdict is about; None where nobody is best."""
        return next((run for run in self.runs if run.standing == "best"), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A small table of texts; the first column names the row. `numeric` columns are set right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
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


_COUNTS = frozenset(Counts.__slots__)


JUDGE = "judge"
"""The name of judges in the registry of scorers."""


def judge_options(suite: Mapping[str, JSON]) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    """The judges among the suite's scorers: their names and options."""
    for entry in suite.get("scorers") or []:
        options = entry.get(JUDGE) if isinstance(entry, Mapping) else None
        if isinstance(options, Mapping):
            yield str(options.get("name") or JUDGE), options


def _main(scorer: str, names: Sequence[str]) -> str | None:
    """A scorer's first metric, which is the mean of its score: see Scorer.metrics() in the scoring room."""
    return next((name for name in names if name == scorer or name.startswith(f"{scorer}.")), None)


def other_scores(suite: Mapping[str, JSON], views: Sequence[RunView]) -> list[str]:
    """The first metric of every scorer after the first, without those that say the same of every run."""
    names = list(dict.fromkeys(each.name for view in views for each in view.figures if not each.slice))
    known: list[list[float | None]] = []
    found = []
    for at, scorer in enumerate(scorer_names(suite)):
        metric = _main(scorer, names)
        if metric is None:
            continue
        values = [view.value(metric) for view in views]
        if at and values not in known:
            found.append(metric)
        known.append(values)
    return found


def figure_of(metric: Mapping[str, JSON]) -> Figure:
    """A metric of `run.json` as it is shown."""
    return Figure(
        name=metric["name"],
        value=metric.get("value"),
        n=metric.get("n") or 0,
        unit=metric.get("unit") or "",
        direction=metric.get("direction") or "none",
        low=metric.get("ci_low"),
        high=metric.get("ci_high"),
        method=metric.get("method") or "",
        note=metric.get("note") or "",
        slice={str(key): str(value) for key, value in (metric.get("slice") or {}).items()},
    )


def make_runs(
    plan: Sequence[Mapping[str, JSON]], runs: Sequence[Mapping[str, JSON]], primary: Primary | None
) -> list[RunView]:
    """The runs in the order of the plan, named by what tells them apart and coloured by that name."""
    cells = plan or runs
    names = _Names(cells)
    views = [_view(run, names, primary) for run in runs]
    colours = _colours(views)
    return [
        replace(view, colour=colour, family=family)
        for view, (colour, family) in zip(views, colours, strict=True)
    ]


def _view(run: Mapping[str, JSON], names: _Names, primary: Primary | None) -> RunView:
    figures = [figure_of(metric) for metric in run.get("metrics") or []]
    parts = names.parts(run)
    label = " · ".join(parts)
    wanted = primary.metric if primary else None
    return RunView(
        run=run["run"],
        label=label,
        parts=parts,
        spoken=names.spoken(run),
        full=names.full(run, label),
        model=visible(run["model"]),
        prompt=visible(run["prompt"]),
        dataset=visible(run["dataset"]),
        params=run.get("params") or {},
        status=run.get("status") or "",
        counts=Counts(**{key: value for key, value in run["counts"].items() if key in _COUNTS}),
        figures=figures,
        details=run.get("details") or {},
        timings=run.get("timings") or {},
        primary=next((each for each in figures if each.name == wanted and not each.slice), None),
    )


class _Names:
    """Which of model, prompt, dataset and parameters vary over the sweep; only those are said."""

    def __init__(self, cells: Sequence[Mapping[str, JSON]]) -> None:
        self.models = len({cell["model"] for cell in cells}) > 1
        self.prompts = len({cell["prompt"] for cell in cells}) > 1
        self.datasets = len({cell["dataset"] for cell in cells}) > 1
        self.params = varying_params(cells, by_model=True)

    def parts(self, run: Mapping[str, JSON]) -> list[str]:
        parts = [run["prompt"]] if self._says_prompt else []
        if self.models:
            parts.append(run["model"])
        return [visible(str(part)) for part in (*parts, *self._params(run))]

    def spoken(self, run: Mapping[str, JSON]) -> str:
        """`few_shot on smollm2 (temperature=0.7)`."""
        names = " on ".join(map(str, self.parts(run)[: self._says_prompt + self.models]))
        params = visible(", ".join(self._params(run)))
        return f"{names} ({params})" if names and params else names or params

    @property
    def _says_prompt(self) -> bool:
        return self.prompts or not (self.models or self.params)

    def _params(self, run: Mapping[str, JSON]) -> list[str]:
        given = run.get("params") or {}
        return [f"{name}={plain_value(given[name])}" for name in self.params if name in given]

    def full(self, run: Mapping[str, JSON], label: str) -> str:
        return f"{label} · {visible(run['dataset'])}" if self.datasets else label


def varying_params(cells: Sequence[Mapping[str, JSON]], *, by_model: bool = False) -> list[str]:
    """Parameters that do not have the same value in every run; with `by_model`, within some one model."""
    groups: dict[str, dict[str, set[str]]] = {}
    order: dict[str, None] = {}
    for cell in cells:
        group = groups.setdefault(cell["model"] if by_model else "", {})
        for name, value in (cell.get("params") or {}).items():
            order[name] = None
            group.setdefault(name, set()).add(plain_value(value))
    if by_model:
        return [name for name in order if any(len(group.get(name, ())) > 1 for group in groups.values())]
    sizes = {name: sum(name in (cell.get("params") or {}) for cell in cells) for name in order}
    values = groups.get("", {})
    return [name for name in order if len(values[name]) > 1 or sizes[name] < len(cells)]


def plain_value(value: JSON) -> str:
    """A parameter's value on one line."""
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, ensure_ascii=False)


def _colours(views: Sequence[RunView]) -> list[tuple[int, str]]:
    """Palette index and what it stands for: the label, or model or prompt where there are too many labels."""
    for keys in ([v.label for v in views], [v.model for v in views], [v.prompt for v in views]):
        distinct = list(dict.fromkeys(keys))
        if 1 < len(distinct) <= PALETTE or len({v.label for v in views}) == 1:
            return [(distinct.index(key), key) for key in keys]
    return [(0, "") for _ in views]
