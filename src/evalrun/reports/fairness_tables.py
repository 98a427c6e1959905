"""The tables of fairness for those who want the figures: criteria, contrasts, gaps under control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.reports.charts.groups import contrasts_of
from evalrun.reports.groupwords import p_value
from evalrun.reports.numbers import NONE, count, decimals_for, fixed, interval, quantity
from evalrun.reports.view import RunView, Table

CRITERIA: Mapping[str, str] = {
    "demographic_parity": "is the answer given equally often to every group?",
    "equal_opportunity": "is it given equally often where it should be?",
    "equalized_odds": "and equally seldom where it should not be?",
}
ALPHA = 0.05


def _column(run: RunView, column: str) -> Mapping[str, Any]:
    return (run.details.get("groups") or {}).get(column) or {}


def criteria_table(runs: Sequence[RunView], column: str) -> Table | None:
    """Demographic parity, equal opportunity and equalized odds of every run; None where none was computed."""
    rows = []
    for run in runs:
        for name, each in (_column(run, column).get("criteria") or {}).items():
            kind, _, label = name.partition(".")
            difference, p = each.get("difference"), each.get("p")
            label = str(each.get("label") or label)
            says = (
                NONE if difference is None else ("wider than chance" if (p or 1) < ALPHA else "within chance")
            )
            rows.append(
                (run.label, f"{kind.replace('_', ' ')}: {CRITERIA.get(kind, '')}", label, fixed(difference),
                 fixed(each.get("chance_gap_p95")), fixed(each.get("ratio")), p_value(p),
                 says if difference is not None else str(each.get("note") or ""))
            )  # fmt: skip
    if not rows:
        return None
    columns = ("run", "criterion", "answer", "difference", "by chance up to", "ratio", "p", "reads as")
    return Table("Fairness criteria of decisions", columns, rows, frozenset({3, 4, 5, 6}))


def contrast_table(runs: Sequence[RunView], column: str, metric: str) -> Table | None:
    """Each group against the reference or the rest: all measures for the first run, else `metric`."""
    rows = []
    for at, run in enumerate(runs):
        known = _column(run, column).get("metrics") or {}
        for measure in known if at == 0 else [metric]:
            unit = str((known.get(measure) or {}).get("unit") or "")
            rows += [_contrast_row(run, measure, unit, each) for each in contrasts_of(run, column, measure)]
    if not rows:
        return None
    columns = ("run", "measure", "group", "against", "difference", "95 % interval", "p (Holm)", "n", "note")
    return Table("Signed differences between groups", columns, rows, frozenset({4, 6, 7}))


def _contrast_row(run: RunView, measure: str, unit: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = each["low"], each["high"]
    if unit in ("fraction", "score", ""):
        decimals = decimals_for(None if low is None or high is None else (high - low) / 2)
        shown, ends = fixed(each["value"], decimals, sign=True), interval(low, high, decimals, sign=True)
    else:
        shown = quantity(each["value"], unit)
        ends = "" if low is None or high is None else f"[{quantity(low, unit)}, {quantity(high, unit)}]"
    return (
        run.label, measure, str(each["group"]), str(each["against"]), shown, ends or NONE,
        p_value(each.get("p_holm")), f"{count(each['n'])} and {count(each['n_against'])}",
        str(each.get("note") or ""),
    )  # fmt: skip


def control_tables(runs: Sequence[RunView], column: str, metric: str) -> list[Table]:
    """The gap again within each level of every control column: whether it is there among the like."""
    tables = []
    names = dict.fromkeys(name for run in runs for name in (_column(run, column).get("control") or {}))
    for name in names:
        rows = []
        for run in runs:
            levels = (_column(run, column).get("control") or {}).get(name) or {}
            for level, detail in levels.items():
                gap = ((detail.get("metrics") or {}).get(metric) or {}).get("gap")
                rows.append((run.label, str(level), *_gap_cells(gap)))
        columns = ("run", name, "best group", "worst group", "gap", "by chance up to", "p")
        tables.append(Table(f"The gap in {metric} within each {name}", columns, rows, frozenset({4, 5, 6})))
    return tables


def _gap_cells(gap: Mapping[str, Any] | None) -> tuple[str, ...]:
    if gap is None:
        return (NONE,) * 5
    return (
        str(gap["best"]), str(gap["worst"]), fixed(gap["value"]), fixed(gap.get("chance_gap_p95")),
        p_value(gap.get("p")),
    )  # fmt: skip
