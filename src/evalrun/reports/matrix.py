"""The matrix of a sweep, model by prompt by dataset, as a table that is shaded like a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalrun.reports.runs import plain_value, varying_params
from evalrun.reports.standings import lower_is_better
from evalrun.reports.view import RunView

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
