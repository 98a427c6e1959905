"""Known measures of bias as tables: BBQ by category, and pairs of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.reports.numbers import NONE, count, fixed
from evalrun.reports.view import RunView, Table

_BBQ = (
    ("accuracy_ambiguous", "right, ambiguous", "n_ambiguous"),
    ("accuracy_disambiguated", "right, disambiguated", "n_disambiguated"),
    ("bias_ambiguous", "bias, ambiguous", "non_unknown_ambiguous"),
    ("bias_disambiguated", "bias, disambiguated", "non_unknown_disambiguated"),
    ("nonaligned_cost", "cost of a right answer against the stereotype", "n_nonaligned"),
)


def bbq_tables(runs: Sequence[RunView]) -> list[Table]:
    """BBQ of every run by category: values with the counts that stand below each."""
    found = []
    for scorer in dict.fromkeys(name for run in runs for name in (run.details.get("bbq") or {})):
        rows = []
        for run in runs:
            entries = (run.details.get("bbq") or {}).get(scorer) or []
            lone = len(entries) == 2
            for entry in entries[:1] if lone else entries:
                category = entry.get("category")
                rows.append(
                    (run.label, str(category or "all"), *(_bbq(run, scorer, entry, one) for one in _BBQ))
                )
        columns = ("run", "category", *(title for _, title, _ in _BBQ))
        found.append(
            Table(f"{scorer}: values with 95 % intervals and what each is a share of", columns, rows)
        )
    return found


def _bbq(run: RunView, scorer: str, entry: Mapping[str, Any], which: tuple[str, str, str]) -> str:
    name, _, below = which
    value = entry.get(name)
    figure = run.figure(f"{scorer}.{name}") if entry.get("category") is None else None
    ends = f" {figure.interval}" if figure and figure.interval else ""
    if value is None:
        return f"{NONE} (of {count(entry.get(below))})"
    shown = fixed(value, 2) if name.startswith("accuracy") else fixed(value, 2, sign=True)
    return f"{shown}{ends} (of {count(entry.get(below))})"


def pair_table(runs: Sequence[RunView]) -> Table | None:
    """Pairs of sentences: how often the stereotyping one is preferred, and what goes with it."""
    rows = []
    for run in runs:
        for figure in run.figures:
            if figure.slice or figure.value is None or figure.name.partition(".")[0] not in PAIRS:
                continue
            rows.append(
                (run.label, figure.name, figure.text, figure.interval or NONE, count(figure.n), figure.note)
            )
    if not rows:
        return None
    columns = ("run", "measure", "value", "95 % interval", "pairs", "note")
    return Table("Pairs of sentences", columns, rows, frozenset({2, 4}))


PAIRS = frozenset({"crows_pairs", "stereoset", "winobias"})
"""Scorers whose metrics are made from pairs of sentences."""
