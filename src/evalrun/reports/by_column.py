"""Scores by the values of a column (`report: {by: [subject]}`), the runs beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.reports import numbers
from evalrun.reports.numbers import count
from evalrun.reports.view import RunView, Table, grid_link
from evalrun.reports.visible import visible
from evalrun.types import MetricValue

MOST_RUNS = 4
"""So many runs stand beside one another, the best first."""


def by_column(
    by_dataset: Mapping[str, Sequence[RunView]], columns: Sequence[str], *, named: bool
) -> list[Table]:
    """A table for each dataset and column: a row a value, then the mean in which each value counts alike. A
    row's name leads to its samples."""
    return [
        table
        for dataset, runs in by_dataset.items()
        for column in columns
        if (table := _table(runs, column, dataset if named else "")) is not None
    ]


def _table(runs: Sequence[RunView], column: str, dataset: str) -> Table | None:
    scored = [run for run in runs if run.primary is not None and run.primary.value is not None]
    shown = scored[:MOST_RUNS]
    metric = shown[0].primary.name if shown and shown[0].primary else ""
    parts = [_parts(run, metric, column) for run in shown]
    values = dict.fromkeys(value for part in parts for value in part)
    if not values:
        return None
    rows = [
        (visible(value) or "(empty)", count(max(part[value].n for part in parts if value in part)),
         *(_cell(part.get(value)) for part in parts))
        for value in values
    ]  # fmt: skip
    means = [run.metric(f"{metric}.macro.{column}") for run in shown]
    rows.append(("mean, each counting alike", count(len(values)), *map(_cell, means)))
    links = [grid_link(run=shown[0].id, **{f"by.{column}": value}) for value in values]
    rest = f", the first {len(shown)} of {len(scored)} runs" if len(scored) > len(shown) else ""
    where = f", {dataset}" if dataset else ""
    heads = (visible(column), "n", *(run.label for run in shown))
    return Table(
        f"{metric} by {visible(column)}{where}{rest}", heads, rows,
        frozenset(range(1, len(heads))), [*links, ""],
    )  # fmt: skip


def _parts(run: RunView, metric: str, column: str) -> dict[str, MetricValue]:
    """The run's metric by the values of the column alone."""
    return {
        str(each.slice[column]): each
        for each in run.results.metrics
        if each.name == metric and list(each.slice) == [column]
    }


def _cell(figure: MetricValue | None) -> str:
    if figure is None:
        return numbers.NONE
    return f"{numbers.metric(figure)} {numbers.metric_interval(figure)}".strip()
