"""Scores by the values of a column (`report: {by: [subject]}`), and the mean of these means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evalrun.analysis.pooled import weighted
from evalrun.analysis.quality import counted, metric, score_column, score_infos, units
from evalrun.analysis.samples import SampleTable
from evalrun.scoring.base import MetricInfo, Scorer, as_text
from evalrun.tracking.parquet import column_names, read_columns
from evalrun.types import MetricValue

MOST_VALUES = 200
"""A column with more values than this names rows and no groups of them."""


def by_column(
    table: SampleTable,
    scorers: Sequence[Scorer],
    columns: Sequence[str],
    *,
    exclude_unparsed: bool,
    least_shown: int = 0,
) -> tuple[list[MetricValue], dict[str, MetricInfo]]:
    """For each column the mean of every score by its values (slice {column: value}), and
    `<score>.macro.<column>`: the mean of these means. Micro is the score itself. Values of fewer samples
    than `least_shown` are in the mean, and not shown."""
    metrics: list[MetricValue] = []
    infos: dict[str, MetricInfo] = {}
    present = set(column_names(table.source))
    for column in columns:
        if f"vars.{column}" not in present:
            continue
        read = read_columns(table.source, [f"vars.{column}"]).column(0).to_pylist()
        texts = np.array([as_text(read[at]) for at in table.order.tolist()], dtype=object)
        values = sorted(set(texts.tolist()))
        if len(values) > MOST_VALUES:
            continue
        for scorer in scorers:
            found, info = _scored(table, scorer, column, texts, values, exclude_unparsed)
            metrics += [one for one in found if not one.slice or one.n >= least_shown]
            infos |= info
    return metrics, infos


def _scored(
    table: SampleTable, scorer: Scorer, column: str, texts: np.ndarray, values: list[str], exclude: bool
) -> tuple[list[MetricValue], dict[str, MetricInfo]]:
    name, info = score_infos(scorer)[0]
    scores = score_column(table, name)
    known = counted(table, exclude) & ~np.isnan(scores)
    parts = [
        replace(
            metric(info, units(table, scores, keep).estimate(info.bounds), slice={column: value}), scorer=name
        )
        for value in values
        if (keep := known & (texts == value)).any()
    ]
    if not parts:
        return [], {}
    own = replace(
        info,
        name=f"{info.name}.macro.{column}",
        definition=f"The mean of {info.name} over the values of {column}, each counting alike however many "
        "samples it has; the values are strata and no sample of values.",
    )
    macro = metric(own, weighted(parts, [1 / len(parts)] * len(parts)))
    return [*parts, replace(macro, scorer=name)], {own.name: own}
