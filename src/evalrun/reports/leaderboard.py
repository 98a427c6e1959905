"""The leaderboard of a dataset, and the matrix of a sweep, shaded like a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.charts.theme import padded, reaching
from evalrun.reports.numbers import NONE, count, fixed
from evalrun.reports.view import (
    RunView,
    behind,
    chance_of,
    equal,
    lower_is_better,
    varying_params,
)
from evalrun.reports.visible import visible
from evalrun.sweep_results import Primary
from evalrun.tracking.naming import params_of, plain_value
from evalrun.types import MetricValue

TTFT = "performance.ttft_s.p50"
E2E = "performance.e2e_s.p50"
TOKENS = "performance.output_tokens_per_s"
REQUESTS = "performance.requests_per_s"
RESPONSE = "performance.response_s.p95"
MEMORY = "memory.engine_peak_bytes"
CLIENT_MEMORY = "memory.client_peak_bytes"
COST = "cost.usd"


@frozen
class Measured:
    """A column of what was measured beside the scores. `terminal` is its title in a terminal and its rank
    there: where the terminal is narrow the highest ranks are left out. `instead` is a metric that says it
    better: where any run has that, this column is left out. `system` is a figure of the machine: where all
    runs have all but the same, it is said once."""

    title: str
    metric: str
    unit: str
    write: Callable[[float | None], str]
    terminal: tuple[int, str] | None = None
    instead: str = ""
    system: bool = False


MEASURED = (
    Measured("first token", TTFT, "median", numbers.seconds, (4, "1st token")),
    Measured("whole answer", E2E, "median", numbers.seconds, (1, "median")),
    Measured("output", TOKENS, "tokens/s", numbers.significant, (3, "tokens/s")),
    Measured("engine memory", MEMORY, "peak", numbers.size, (2, "memory"), system=True),
    Measured("evalrun memory", CLIENT_MEMORY, "peak", numbers.size, instead=MEMORY, system=True),
    Measured("cost", COST, "USD", numbers.usd),
)
"""What the report's leaderboard and the terminal's table show of a run beside its scores, where it is known.
A column is added here and nowhere else."""


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


UNDER_LOAD = (
    Measured("requests", REQUESTS, "requests/s", numbers.significant, (1, "requests/s")),
    Measured("response", RESPONSE, "95th percentile", numbers.seconds, (2, "p95")),
    Measured("kept", "performance.attainment", "of requests", _percent, (2, "kept")),
)
"""What is shown besides where load is an axis. Response times are from the schedule."""

MOST_SCORES = 3
"""Columns of further scores; the others are in the table of every metric."""

TERMINAL_SCORES = 2

SAME = 1.05
"""Peaks of memory within this ratio are told once for all runs."""

WIDTH = 132
"""Units of the drawing in which a run's interval stands."""

_COUNTED = ("unparsed", "refused", "failed", "cached")


@frozen
class Mark:
    """An interval as drawn: positions of its ends and its value, 0 to WIDTH; None where there is none."""

    low: float | None
    value: float
    high: float | None


@frozen
class Cell:
    """One figure: its text, the number that it is sorted by, what is said beside it."""

    text: str
    sort: float | None
    beside: str = ""
    note: str = ""


@frozen
class Column:
    """A column of figures, `cells` in the order of the runs: its title, its unit, the metric whose definition
    explains it, and what a terminal calls it, by rank; None where a terminal does not show it."""

    title: str
    unit: str
    cells: Sequence[Cell]
    metric: str = ""
    terminal: tuple[int, str] | None = None
    system: bool = False


@frozen
class Row:
    """One run. `tag` is its standing in a word; `difference` says how far behind the best it is."""

    run: RunView
    tag: str
    params: str
    mark: Mark | None
    score: Cell
    difference: Cell
    cells: Sequence[Cell]


@frozen
class Leaderboard:
    """All runs of a dataset from best to worst.

    `orders` are the parts of their names that runs can be sorted by; `same` is what all have in common.
    `chance` says what is reached without reading the input; `chance_at` is its place in the drawing, None
    where that does not reach so far.
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
    absent: Sequence[str] = ()
    tied: int = 0
    chance: str = ""
    chance_at: float | None = None


def standing_word(run: RunView, runs: Sequence[RunView]) -> str:
    """What stands beside a run's name: "best" only where it is shown to be better than all others."""
    if run.standing == "tied":
        return "same" if equal(runs) else "tied"
    others = [
        each for each in runs if each.standing != "best" and each.primary and each.primary.value is not None
    ]
    if run.standing != "best" or not others:
        return ""
    if all(other.standing == "behind" for other in others):
        return "best"
    return "lowest" if lower_is_better(runs) else "highest"


def leaderboard(
    dataset: str, runs: Sequence[RunView], primary: Primary | None, *, named: bool,
    others: Sequence[str] = (),
) -> Leaderboard:  # fmt: skip
    """The leaderboard of runs that are ranked already. `others` are the metrics of further scorers."""
    chance = chance_of(runs, primary)
    domain = _domain([run.primary for run in runs if run.primary], chance.level if chance else None)
    shown, common = _apart(columns(runs, others))
    params = varying_params([run.results for run in runs])
    models, prompts = {run.model for run in runs}, {run.prompt for run in runs}
    same = [f"model {next(iter(models))}"] if len(models) == 1 else []
    same += [f"prompt {next(iter(prompts))}"] if len(prompts) == 1 and len(runs) > 1 else []
    if runs:
        same += [f"{key} {plain_value(v)}" for key, v in runs[0].params.items() if key not in params]
    orders = [name for name, values in (("prompt", prompts), ("model", models)) if len(values) > 1]
    orders += ["parameters"] if params else []
    return Leaderboard(
        dataset=dataset,
        named=named,
        metric=primary.metric if primary else "",
        better="lower is better" if lower_is_better(runs) else "higher is better",
        axis=(fixed(domain[0]), fixed(domain[1])),
        ticks=[WIDTH * share for share in (0.25, 0.5, 0.75)],
        orders=orders if len(orders) > 1 else [],
        show_difference=not equal(runs) and any(run.difference for run in runs),
        columns=shown,
        rows=[
            Row(
                run,
                standing_word(run, runs),
                ", ".join(params_of(run.results, params)),
                _mark(run.primary, domain),
                _score(run.primary),
                _difference(run),
                [column.cells[at] for column in shown],
            )
            for at, run in enumerate(runs)
        ],
        same=", ".join([*same, *common]),
        absent=[name for name in _COUNTED if not any(getattr(run.counts, name) for run in runs)],
        tied=0 if equal(runs) else sum(run.standing == "tied" for run in runs),
        chance=f"{visible(chance.by)}, {fixed(chance.level)}" if chance else "",
        chance_at=_within(chance.level, domain) if chance else None,
    )


def _domain(figures: Sequence[MetricValue], level: float | None = None) -> tuple[float, float]:
    values = [v for f in figures for v in (f.value, f.ci_low, f.ci_high) if v is not None]
    if not values:
        return 0.0, 1.0
    low, high = padded(reaching(values, level), 0.06)
    if all(figure.unit == "fraction" for figure in figures):
        low, high = max(0.0, low), min(1.0, high)
    return low, high if high > low else low + 1


def _within(value: float, domain: tuple[float, float]) -> float | None:
    """Its place in the drawing, None outside."""
    low, high = domain
    return round(WIDTH * (value - low) / (high - low), 1) if low <= value <= high else None


def _mark(figure: MetricValue | None, domain: tuple[float, float]) -> Mark | None:
    if figure is None or figure.value is None:
        return None
    low, high = domain

    def place(value: float | None) -> float | None:
        return None if value is None else round(WIDTH * (value - low) / (high - low), 1)

    return Mark(place(figure.ci_low), place(figure.value) or 0.0, place(figure.ci_high))


def _score(figure: MetricValue | None) -> Cell:
    """The primary metric, with its unit."""
    if figure is None or figure.value is None:
        return Cell(NONE, None, "", figure.note if figure else "")
    return Cell(numbers.metric(figure), figure.value, numbers.metric_interval(figure), figure.note)


def _difference(run: RunView) -> Cell:
    """The run minus the best, so that a worse run stands below zero."""
    found = run.difference
    if run.standing == "best" or found is None or found.difference is None:
        return Cell(NONE, 0.0 if run.standing == "best" else None)
    value, low, high = behind(found)
    tested = f", {numbers.tested(found.p)}" if found.p is not None else ""
    return Cell(
        numbers.figure(value, low, high, sign=True),
        value,
        numbers.interval(low, high, sign=True),
        f"{found.method}{tested}, n = {found.n}",
    )


def columns(runs: Sequence[RunView], others: Sequence[str]) -> list[Column]:
    """The columns of figures that any run has something in. `others` are the metrics of further scorers."""
    found = [
        Column(
            name,
            _unit(name, runs),
            [_plain_score(run.metric(name)) for run in runs],
            name,
            (0, name) if at < TERMINAL_SCORES else None,
        )
        for at, name in enumerate(others[:MOST_SCORES])
    ]
    n = [run.primary.n if run.primary else run.counts.scored for run in runs]
    found.append(Column("n", "samples", [Cell(count(each), float(each)) for each in n], "", (-1, "n")))
    for name in _COUNTED:
        counts = [getattr(run.counts, name) for run in runs]
        if any(counts):
            found.append(Column(name, "samples", [Cell(count(each), float(each)) for each in counts]))
    found += _load(runs)
    under_load = any(run.details.load is not None for run in runs)
    for own in (*MEASURED[:2], *UNDER_LOAD, *MEASURED[2:]) if under_load else MEASURED:
        figures = [run.metric(own.metric) for run in runs]
        better = own.instead and any(run.value(own.instead) is not None for run in runs)
        if not better and any(figure is not None and figure.value is not None for figure in figures):
            cells = [
                Cell(own.write(figure.value), figure.value, numbers.metric_interval(figure), figure.note)
                if figure
                else Cell(NONE, None)
                for figure in figures
            ]
            found.append(Column(own.title, own.unit, cells, own.metric, own.terminal, own.system))
    return found


LOAD = "load"


def _load(runs: Sequence[RunView]) -> list[Column]:
    """What load the times beside it were measured under, where any is known."""
    words = [run.results.load_words if run.value(E2E) is not None else "" for run in runs]
    if not any(words):
        return []
    cells = [Cell(each or NONE, None) for each in words]
    return [Column(LOAD, "in flight, or arriving", cells, "", (1, LOAD))]


def _apart(columns: Sequence[Column]) -> tuple[list[Column], list[str]]:
    """The columns without figures of the machine that are all but the same for every run, and these."""
    kept, common = [], []
    for column in columns:
        if column.title == LOAD and len({cell.text for cell in column.cells}) == 1 < len(column.cells):
            common.append(f"asked {column.cells[0].text}")
            continue
        known = sorted((cell.sort, cell.text) for cell in column.cells if cell.sort is not None)
        alike = len(known) == len(column.cells) > 1 and known[-1][0] <= SAME * known[0][0]
        if column.system and alike:
            ends = dict.fromkeys((known[0][1], known[-1][1]))
            common.append(f"{column.title} {' to '.join(ends)}")
        else:
            kept.append(column)
    return kept, common


def _unit(metric: str, runs: Sequence[RunView]) -> str:
    unit = next((figure.unit for run in runs if (figure := run.metric(metric))), None)
    return "" if unit is None else "score" if unit in numbers.SHARES else unit


def _plain_score(figure: MetricValue | None) -> Cell:
    """A further score, without its unit, which stands in the head."""
    if figure is None or figure.value is None:
        return Cell(NONE, None)
    text = numbers.figure(figure.value, figure.ci_low, figure.ci_high)
    return Cell(text, figure.value, numbers.metric_interval(figure), figure.note)


LEAST = 4
"""A leaderboard of fewer runs says all that the matrix would."""

MOST_COLUMNS = 24
SHADES = 9


@frozen
class MatrixCell:
    """One run, or None where the matrix has none there. `shade` is 0 (worst) to 9 (best) in its dataset."""

    run: RunView | None
    text: str = ""
    interval: str = ""
    n: str = ""
    shade: int = 0


@frozen
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
    params = varying_params([run.results for run in runs], by_model=True)
    prompts = {run.id: " · ".join([run.prompt, *params_of(run.results, params)]) for run in runs}
    models = {run.id: run.model for run in runs}
    # The longer axis goes down the page.
    turned = len(set(models.values())) >= len(set(prompts.values()))
    down, across = (models, prompts) if turned else (prompts, models)
    names = ("model", "prompt") if turned else ("prompt", "model")
    rows, columns = list(dict.fromkeys(down.values())), list(dict.fromkeys(across.values()))
    wide = len(columns) * len(by_dataset)
    if min(len(rows), wide) < 2 or wide > MOST_COLUMNS:
        return None
    cells = {
        (name, down[run.id], across[run.id]): _cell(run, scale)
        for name, group in by_dataset.items()
        for scale in (_Scale.of(group),)
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


@frozen
class _Scale:
    """The least and the greatest value of a dataset's runs, and whether the least is best."""

    low: float
    high: float
    lower: bool

    @classmethod
    def of(cls, group: Sequence[RunView]) -> _Scale:
        values = [run.primary.value for run in group if run.primary and run.primary.value is not None]
        return cls(min(values, default=0.0), max(values, default=0.0), lower_is_better(group))


def _cell(run: RunView, scale: _Scale) -> MatrixCell:
    figure = run.primary
    if figure is None or figure.value is None:
        return MatrixCell(run, "\N{EN DASH}")
    share = (figure.value - scale.low) / (scale.high - scale.low) if scale.high > scale.low else 0.5
    if scale.lower:
        share = 1 - share
    return MatrixCell(
        run, numbers.metric(figure), numbers.metric_interval(figure), f"n = {figure.n}", round(SHADES * share)
    )
