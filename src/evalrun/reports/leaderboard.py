"""The leaderboard of a dataset, and the matrix of a sweep, shaded like a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evalrun.reports import numbers
from evalrun.reports.charts.theme import padded
from evalrun.reports.numbers import (
    NONE,
    count,
    decimals_for,
    fixed,
    interval,
)
from evalrun.reports.standings import (
    CLIENT_MEMORY,
    COST,
    E2E,
    MEMORY,
    TOKENS,
    TTFT,
    equal,
    lower_is_better,
    standing_word,
)
from evalrun.reports.view import Figure, RunView, plain_value, varying_params
from evalrun.results import Primary

MOST_SCORES = 3
"""Columns of further scores; the others are in the table of every metric."""

SAME = 1.05
"""Peaks of memory within this ratio are told once for all runs."""

WIDTH = 132
"""Units of the drawing in which a run's interval stands."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An interval as drawn: positions of its ends and its value, 0 to WIDTH; None where there is none."""

    low: float | None
    value: float
    high: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: its text, the number that it is sorted by, what is said beside it."""

    text: str
    sort: float | None
    beside: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures: its title, its unit, the metric whose definition explains it."""

    title: str
    unit: str
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One run. `tag` is its standing in a word; `difference` says how far behind the best it is."""

    run: RunView
    tag: str
    params: str
    mark: Mark | None
    score: Cell
    difference: Cell
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All runs of a dataset from best to worst.

    `orders` are the parts of their names that runs can be sorted by; `same` is what all have in common.
    """

    dataset: str
    named: bool
    metric: str
    better: str
    axis: tuple[str, str]
    ticks: Sequence[float]
    orders: Sequence[str]
    show_difference: bool
    columns: Sequence[Column]
    rows: Sequence[Row]
    same: str
    absent: str = ""
    tied: int = field(default=0)


_COUNTED = ("unparsed", "refused", "failed", "cached")


def leaderboard(
    dataset: str, runs: Sequence[RunView], primary: Primary | None, *, named: bool,
    others: Sequence[str] = (),
) -> Leaderboard:  # fmt: skip
    """The leaderboard of runs that are ranked already. `others` are the metrics of further scorers."""
    low, high = _domain([run.primary for run in runs if run.primary])
    columns, common = _apart(_columns(runs, others), runs)
    cells = [[make(run) for _, make in columns] for run in runs]
    params = varying_params([{"model": run.model, "params": run.params} for run in runs])
    models, prompts = {run.model for run in runs}, {run.prompt for run in runs}
    same = [f"model {next(iter(models))}"] if len(models) == 1 else []
    same += [f"prompt {next(iter(prompts))}"] if len(prompts) == 1 and len(runs) > 1 else []
    if runs:
        same += [f"{key} {plain_value(v)}" for key, v in runs[0].params.items() if key not in params]
    same += common
    orders = [name for name, values in (("prompt", prompts), ("model", models)) if len(values) > 1]
    orders += ["parameters"] if params else []
    zero = [name for name in _COUNTED if not any(getattr(run.counts, name) for run in runs)]
    return Leaderboard(
        dataset=dataset,
        named=named,
        metric=primary.metric if primary else "",
        better="lower is better" if lower_is_better(runs) else "higher is better",
        axis=(fixed(low, 2), fixed(high, 2)),
        ticks=[WIDTH * share for share in (0.25, 0.5, 0.75)],
        orders=orders if len(orders) > 1 else [],
        show_difference=not equal(runs) and any(run.difference for run in runs),
        columns=[column for column, _ in columns],
        rows=[
            _row(run, standing_word(run, runs), params, cells[at], (low, high)) for at, run in enumerate(runs)
        ],
        same=", ".join(same),
        absent=", ".join(zero),
        tied=0 if equal(runs) else sum(run.standing == "tied" for run in runs),
    )


def _domain(figures: Sequence[Figure]) -> tuple[float, float]:
    values = [v for f in figures for v in (f.value, f.low, f.high) if v is not None]
    if not values:
        return 0.0, 1.0
    low, high = padded(values, 0.06)
    if all(figure.unit in ("fraction",) for figure in figures):
        low, high = max(0.0, low), min(1.0, high)
    return low, high if high > low else low + 1


def _row(
    run: RunView, tag: str, params: Sequence[str], cells: Sequence[Cell], domain: tuple[float, float]
) -> Row:
    figure, (low, high) = run.primary, domain
    score = Cell(NONE, None, "", figure.note if figure else "")
    mark = None
    if figure is not None and figure.value is not None:
        score = Cell(figure.text, figure.value, figure.interval, figure.note)

        def place(value: float | None) -> float | None:
            return None if value is None else round(WIDTH * (value - low) / (high - low), 1)

        mark = Mark(place(figure.low), place(figure.value) or 0.0, place(figure.high))
    shown = ", ".join(f"{name}={plain_value(run.params[name])}" for name in params if name in run.params)
    return Row(run, tag, shown, mark, score, _difference(run), cells)


def _difference(run: RunView) -> Cell:
    """The run minus the best, so that a worse run stands below zero."""
    if run.standing == "best":
        return Cell(NONE, 0.0)
    found = run.difference
    if found is None:
        return Cell(NONE, None)
    half = None if found.low is None or found.high is None else (found.high - found.low) / 2
    decimals = decimals_for(half)
    low = None if found.high is None else -found.high
    high = None if found.low is None else -found.low
    note = f"{found.method}, p = {found.p:.2g}, n = {found.n}"
    return Cell(
        fixed(-found.mean, decimals, sign=True), -found.mean, interval(low, high, decimals, sign=True), note
    )


_Maker = Callable[[RunView], Cell]


def _columns(runs: Sequence[RunView], others: Sequence[str]) -> list[tuple[Column, _Maker]]:
    """The columns of figures that any run has something in."""
    found: list[tuple[Column, _Maker]] = [
        (Column(name, _unit(name, runs), name), _scored(name)) for name in others[:MOST_SCORES]
    ]
    found.append((Column("n", "samples"), _n))
    found += [
        (Column(name, "samples"), _counter(name))
        for name in _COUNTED
        if any(getattr(run.counts, name) for run in runs)
    ]
    for title, metric, unit, write in (
        ("first token", TTFT, "median", numbers.seconds),
        ("whole answer", E2E, "median", numbers.seconds),
        ("output", TOKENS, "tokens/s", numbers.significant),
        ("engine memory", MEMORY, "peak", numbers.size),
        ("evalrun memory", CLIENT_MEMORY, "peak", numbers.size),
        ("cost", COST, "USD", numbers.usd),
    ):
        if metric == CLIENT_MEMORY and any(run.value(MEMORY) is not None for run in runs):
            continue
        if any(run.value(metric) is not None for run in runs):
            found.append((Column(title, unit, metric), _metric(metric, write)))
    return found


def _apart(
    columns: Sequence[tuple[Column, _Maker]], runs: Sequence[RunView]
) -> tuple[list[tuple[Column, _Maker]], list[str]]:
    """The columns without those of a memory that is all but the same for every run, and what is the same."""
    kept, common = [], []
    for column, make in columns:
        known = sorted((cell.sort, cell.text) for run in runs if (cell := make(run)).sort is not None)
        alike = len(known) == len(runs) > 1 and known[-1][0] <= SAME * known[0][0]
        if column.metric in (MEMORY, CLIENT_MEMORY) and alike:
            ends = dict.fromkeys((known[0][1], known[-1][1]))
            common.append(f"{column.title} {' to '.join(ends)}")
        else:
            kept.append((column, make))
    return kept, common


def _unit(metric: str, runs: Sequence[RunView]) -> str:
    figure = next((figure for run in runs if (figure := run.figure(metric))), None)
    return (
        ""
        if figure is None
        else {"": "score", "1": "score", "fraction": "score"}.get(figure.unit, figure.unit)
    )


def _scored(metric: str) -> _Maker:
    """A further score, without its unit, which stands in the head."""

    def make(run: RunView) -> Cell:
        figure = run.figure(metric)
        if figure is None or figure.value is None:
            return Cell(NONE, None)
        return Cell(fixed(figure.value, figure.decimals), figure.value, figure.interval, figure.note)

    return make


def _n(run: RunView) -> Cell:
    n = run.primary.n if run.primary else run.counts.scored
    return Cell(count(n), float(n))


def _counter(name: str) -> _Maker:
    def make(run: RunView) -> Cell:
        value = getattr(run.counts, name)
        return Cell(count(value), float(value))

    return make


def _metric(metric: str, write: Callable[[float | None], str]) -> _Maker:
    def make(run: RunView) -> Cell:
        figure = run.figure(metric)
        if figure is None:
            return Cell(NONE, None)
        return Cell(write(figure.value), figure.value, figure.interval, figure.note)

    return make


LEAST = 4
"""A leaderboard of fewer runs says all that the matrix would."""

MOST_COLUMNS = 24
SHADES = 9


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One run, or None where the matrix has none there. `shade` is 0 (worst) to 9 (best) in its dataset."""

    run: RunView | None
    text: str = ""
    interval: str = ""
    n: str = ""
    shade: int = 0


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows are `down`, columns are `across` within each dataset."""

    metric: str
    better: str
    down: str
    across: str
    datasets: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixCell]]]


def matrix(by_dataset: Mapping[str, Sequence[RunView]], metric: str) -> Matrix | None:
    """The matrix of all runs; None where it has fewer than two rows or columns, or would be too wide."""
    runs = [run for group in by_dataset.values() for run in group]
    scored = [run for run in runs if run.primary is not None and run.primary.value is not None]
    if len(runs) < LEAST or not scored:
        return None
    params = varying_params([{"model": run.model, "params": run.params} for run in runs], by_model=True)
    prompts = {run.run: " · ".join([run.prompt, *_params(run, params)]) for run in runs}
    models = {run.run: run.model for run in runs}
    # The longer axis goes down the page.
    turned = len(set(models.values())) >= len(set(prompts.values()))
    down, across = (models, prompts) if turned else (prompts, models)
    names = ("model", "prompt") if turned else ("prompt", "model")
    rows, columns = list(dict.fromkeys(down.values())), list(dict.fromkeys(across.values()))
    wide = len(columns) * len(by_dataset)
    if min(len(rows), wide) < 2 or wide > MOST_COLUMNS:
        return None
    cells = {
        (name, down[run.run], across[run.run]): _cell(run, group)
        for name, group in by_dataset.items()
        for run in group
    }
    empty = MatrixCell(None)
    return Matrix(
        metric=metric,
        better="lower is better" if lower_is_better(runs) else "higher is better",
        down=names[0],
        across=names[1],
        datasets=list(by_dataset),
        columns=sorted(columns),
        rows=[
            (
                row,
                [cells.get((name, row, column), empty) for name in by_dataset for column in sorted(columns)],
            )
            for row in sorted(rows)
        ],
    )


def _params(run: RunView, names: Sequence[str]) -> list[str]:
    return [f"{name}={plain_value(run.params[name])}" for name in names if name in run.params]


def _cell(run: RunView, group: Sequence[RunView]) -> MatrixCell:
    if run.primary is None or run.primary.value is None:
        return MatrixCell(run, "\N{EN DASH}")
    values = [other.primary.value for other in group if other.primary and other.primary.value is not None]
    low, high = min(values), max(values)
    share = (run.primary.value - low) / (high - low) if high > low else 0.5
    if lower_is_better(group):
        share = 1 - share
    figure = run.primary
    return MatrixCell(run, figure.text, figure.interval, f"n = {figure.n}", round(SHADES * share))
