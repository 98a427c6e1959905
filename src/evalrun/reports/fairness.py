"""Fairness as the report tells it: for each column a sentence, a chart, and tables in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports.charts.groups import by_group, contrasts_of, gap_of, groups_of
from evalrun.reports.numbers import NONE, count, decimals_for, fixed, interval, listing, plural, quantity
from evalrun.reports.view import Chart, RunView, Table

Z = 1.96
ALPHA = 0.05
SURE = 0.01
_RIGHT = ("exact_match", "accuracy", "choice", "multiple_choice", "contains", "number", "quasi_exact_match")


def p_value(value: float | None) -> str:
    """A p value as text: three decimals, "< 0.001" below."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def says_right(metric: str, unit: str) -> bool:
    """Whether the metric is a share of answers that are right, so that it may be called that."""
    return unit == "fraction" and metric.rpartition(".")[2] in _RIGHT


def plain_table(run: RunView, column: str, metric: str, shown: str) -> Table:
    """One row a group of the run: how often right, and what that amounts to beside the others."""
    found = ((run.details.get("groups") or {}).get(column) or {}).get("metrics", {}).get(metric) or {}
    unit = str(found.get("unit") or "")
    right = says_right(metric, unit)
    contrasts = {str(each["group"]): each for each in contrasts_of(run, column, metric)}
    if len(contrasts) == 2 and all(each["against"] == "the rest" for each in contrasts.values()):
        one, other = contrasts
        contrasts = {one: {**contrasts[one], "against": other}, other: {**contrasts[other], "against": one}}
        reference = ""
    else:
        reference = _reference(contrasts)
    rows = []
    for each in groups_of(run, column, metric):
        group = str(each["group"])
        value = _share(each["value"]) if right else quantity(each["value"], unit)
        words = _group_words(
            each, contrasts.get(group), metric if not right else "", unit, reference == group
        )
        rows.append((group, count(each["n"]), value, words))
    title = "answers right" if right else metric
    return Table(
        f"{run.label} by {shown}, in words", (shown, "n", title, "in words"), rows, frozenset({1, 2})
    )


def _reference(contrasts: Mapping[str, Mapping[str, Any]]) -> str:
    """The group that the others are held against; empty where each is held against the rest."""
    return next((str(each["against"]) for each in contrasts.values() if each["against"] != "the rest"), "")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _group_words(
    group: Mapping[str, Any], contrast: Mapping[str, Any] | None, metric: str, unit: str, reference: bool
) -> str:
    if reference:
        return "The group that the others are held against."
    if group["group"] == "(missing)":
        return "Samples without a group: compared with nothing."
    if not group["n"]:
        return "No samples."
    if not group["compared"]:
        return "Too few samples to say anything."
    if contrast is None or contrast["value"] is None:
        return "Compared with nothing: no other group is large enough."
    return contrast_words(contrast, metric, unit)


def contrast_words(contrast: Mapping[str, Any], metric: str, unit: str) -> str:
    """A contrast as a sentence; `metric` is empty for shares of right answers."""
    value, low, high = contrast["value"], contrast["low"], contrast["high"]
    against = "all other groups" if contrast["against"] == "the rest" else str(contrast["against"])
    size = abs(value)
    if value == 0:
        lead = f"The same as for {against}"
    elif not metric:
        lead = f"Right {_points(size)} {'more' if value > 0 else 'less'} often than for {against}"
    else:
        amount = _points(size) if unit == "fraction" else quantity(size, unit)
        lead = f"{amount} {'higher' if value > 0 else 'lower'} than for {against}"
    scale = 100 if unit == "fraction" else 1
    ends = "" if low is None or high is None else f" {_range(value, low, high, scale, unit)}"
    chance = _by_chance(contrast, unit)
    return f"{lead}{ends}{chance}. {_verdict(contrast)}"


def _points(value: float) -> str:
    number = _whole(100 * value)
    return f"{number} point{'' if number == '1' else 's'}"


def _whole(value: float) -> str:
    """Whole points; one decimal below one."""
    return f"{value:.0f}" if value >= 0.95 or value == 0 else f"{value:.1f}"


def _range(value: float, low: float, high: float, scale: float, unit: str) -> str:
    """The interval, turned so that it goes with the size that the sentence gives."""
    ends = (low, high) if value >= 0 else (-high, -low)
    if unit == "fraction":
        return "[" + ", ".join(fixed(scale * end, 0) for end in ends) + "]"
    return "[" + ", ".join(quantity(end, unit) for end in ends) + "]"


def _by_chance(contrast: Mapping[str, Any], unit: str) -> str:
    """How large a difference chance alone gives: 19 times in 20 no larger than 1.96 standard errors."""
    se = contrast.get("se")
    if not se:
        return ""
    expected = Z * se
    shown = f"{_whole(100 * expected)}" if unit == "fraction" else quantity(expected, unit)
    return f"; by chance one would see up to {shown}"


def _verdict(contrast: Mapping[str, Any]) -> str:
    p = contrast.get("p_holm")
    if p is None:
        return ""
    if p < SURE:
        return "Hardly chance."
    if p < ALPHA:
        return "Unlikely to be chance alone."
    alone = contrast.get("p")
    if alone is not None and alone < ALPHA:
        return "May be chance: among several groups one looks so different easily."
    return "May well be chance."


CRITERIA: Mapping[str, str] = {
    "demographic_parity": "is the answer given equally often to every group?",
    "equal_opportunity": "is it given equally often where it should be?",
    "equalized_odds": "and equally seldom where it should not be?",
}


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


PLAIN = 12
"""So many runs are told in plain words; the tables of gaps and contrasts have them all."""

_RATES = ("error_rate", "unparsed_rate", "refused_rate")


@dataclass(frozen=True, slots=True)
class FairnessView:
    """One sensitive column (or several taken together) on one dataset.

    `plain` has a table in everyday words for each run, the best first; `warnings` say what cannot be said;
    `notes` tell of endings that fall on some group more often; `more` are tables for those who want them.
    `compared` is False where no run has two groups that are large enough.
    """

    column: str
    dataset: str
    sentence: str
    chart: Chart | None
    plain: Sequence[tuple[RunView, Table]]
    gaps: Table
    warnings: Sequence[str]
    notes: Sequence[str]
    more: Sequence[Table]
    compared: bool = True


def fairness(
    runs: Sequence[RunView], metric: str, dataset: str, *, named: bool, at: int,
    titles: Mapping[str, str] | None = None,
) -> list[FairnessView]:  # fmt: skip
    """A view for every sensitive column that the runs (best first) were compared by.

    `titles` says how columns that stand for several are called ("a-b": "a by b").
    """
    columns = dict.fromkeys(column for run in runs for column in (run.details.get("groups") or {}))
    where = f", {dataset}" if named else ""
    views: list[FairnessView] = []
    for column in columns:
        shown = (titles or {}).get(column, column)
        having = [run for run in runs if groups_of(run, column, metric)]
        refused = [note for run in runs if (note := _column(run, column).get("note"))]
        if not having:
            if refused:
                views.append(_refused(shown, dataset, refused[0]))
            continue
        chart = by_group(f"groups-{at}-{len(views)}", f"{metric} by {shown}{where}", column, metric, having)
        views.append(
            FairnessView(
                column=shown,
                dataset=dataset,
                sentence=_sentence(having[0], column, metric, shown),
                chart=chart,
                plain=[
                    (run, plain_table(run, column, metric, shown))
                    for run in having[:PLAIN]
                    if any(each["n"] for each in groups_of(run, column, metric))
                ],
                gaps=_gaps(having, column, metric, shown),
                warnings=[*dict.fromkeys(refused), *_warnings(having, column, metric)],
                notes=_notes(having, column),
                more=_more(having, column, metric),
                compared=any(gap_of(run, column, metric) for run in having),
            )
        )
    return views


def _refused(column: str, dataset: str, note: str) -> FairnessView:
    nothing = Table("", (), ())
    return FairnessView(
        column, dataset, f"By {column} nothing was compared: {note}.", None, [], nothing, [], [], []
    )


def _sentence(run: RunView, column: str, metric: str, shown: str) -> str:
    """What the first run's gap amounts to, in plain words."""
    gap = gap_of(run, column, metric)
    if gap is None:
        groups = groups_of(run, column, metric)
        return (
            f"{plural(len(groups), 'group')} of {shown}: nothing to compare, "
            "because a gap needs two groups that are large enough."
        )
    value, chance = gap["value"], gap.get("chance_gap_p95")
    best, worst = gap["best"], gap["worst"]
    if value == 0:
        return f"{run.label} treats the groups of {shown} alike: they have the same {metric}."
    lead = f"{run.label} does best for {best} and worst for {worst}: a gap of {fixed(value)} in {metric}."
    if chance is None or gap.get("p") is None:
        return lead
    if gap["p"] < ALPHA:
        return f"{lead} Chance alone seldom gives so wide a gap (95 % of shuffles: at most {fixed(chance)})."
    return f"{lead} Chance alone gives gaps up to {fixed(chance)} here, so no difference can be made out."


def _gaps(runs: Sequence[RunView], column: str, metric: str, shown: str) -> Table:
    rows = []
    for run in runs:
        gap = gap_of(run, column, metric)
        if gap is None:
            rows.append((run.label, NONE, NONE, NONE, NONE, NONE, "not compared"))
            continue
        rows.append(
            (run.label, str(gap["best"]), str(gap["worst"]), fixed(gap["value"]),
             fixed(gap.get("chance_gap_p95")), p_value(gap.get("p")), _fairness_verdict(gap))
        )  # fmt: skip
    columns = ("run", "best group", "worst group", "gap", "by chance up to", "p", "reads as")
    return Table(f"Gap in {metric} between the groups of {shown}", columns, rows, frozenset({3, 4, 5}))


def _fairness_verdict(gap: Mapping[str, Any]) -> str:
    if gap["value"] == 0:
        return "no gap"
    if gap.get("p") is None:
        return NONE
    return "wider than chance" if gap["p"] < ALPHA else "within chance"


def _warnings(runs: Sequence[RunView], column: str, metric: str) -> list[str]:
    """Groups too small to say anything of, groups that are not shown, and how much may have been missed."""
    best = runs[0]
    least = _column(best, column).get("min_group")
    groups = groups_of(best, column, metric)
    found = []
    small = [f"{each['group']} (n = {each['n']})" for each in groups
             if not each["compared"] and each["n"] and each["group"] != "(missing)"]  # fmt: skip
    if small:
        found.append(
            f"Too few samples to say anything of {listing(small)}: fewer than {least} in a group "
            "are shown and not compared."
        )
    withheld = ((_column(best, column).get("metrics") or {}).get(metric) or {}).get("withheld") or 0
    if withheld:
        found.append(f"{plural(withheld, 'group')} with fewer than {least} samples not shown: not stored.")
    gap = gap_of(best, column, metric)
    if gap and (gap.get("p") or 0) >= ALPHA:
        ends = [abs(end) for each in contrasts_of(best, column, metric) for end in (each["low"], each["high"])
                if end is not None]  # fmt: skip
        if ends:
            found.append(
                f"That nothing can be made out is not that nothing is there: with these samples a true "
                f"difference of up to {fixed(max(ends))} would still fit."
            )
    return found


def _notes(runs: Sequence[RunView], column: str) -> list[str]:
    """Unparsed, refused or failed answers that fall on some group more than chance would have it."""
    found = []
    for run in runs:
        for rate in _RATES:
            gap = gap_of(run, column, rate)
            if gap and gap["value"] > 0 and (gap.get("p") or 1) < ALPHA:
                what = rate.removesuffix("_rate").replace("error", "failed")
                found.append(
                    f"{run.label}: the share of {what} answers is {fixed(gap['value'])} higher for "
                    f"{gap['worst']} than for {gap['best']}."
                )
    return found


def _more(runs: Sequence[RunView], column: str, metric: str) -> list[Table]:
    tables = [
        criteria_table(runs, column),
        contrast_table(runs, column, metric),
        *control_tables(runs, column, metric),
    ]
    return [table for table in tables if table is not None]
