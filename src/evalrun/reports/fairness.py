"""Fairness as the report tells it: for each column a sentence, a chart, and tables in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evalrun.frozen import frozen
from evalrun.reports.charts.groups import by_group, column_of, gap_of, measure_of
from evalrun.reports.numbers import (
    NONE,
    count,
    figure,
    fixed,
    interval,
    listing,
    p_value,
    plural,
    quantity,
)
from evalrun.reports.view import FEW_SAMPLES, Chart, RunView, Table, grid_link
from evalrun.results import ALPHA, ByChance, Gap, GroupContrast, GroupValue

REST = "the rest"
"""What a group is compared with where no reference is named."""

SURE = 0.01
_RIGHT = ("exact_match", "accuracy", "choice", "multiple_choice", "contains", "number", "quasi_exact_match")


def says_right(metric: str, unit: str) -> bool:
    """Whether the metric is a share of answers that are right, so that it may be called that."""
    return unit == "fraction" and metric.rpartition(".")[2] in _RIGHT


def plain_table(run: RunView, column: str, metric: str, shown: str) -> Table:
    """One row a group of the run: how often right, and what that amounts to beside the others."""
    found = measure_of(run, column, metric)
    unit = found.unit
    right = says_right(metric, unit)
    contrasts = {contrast.group: contrast for contrast in found.contrasts}
    if len(contrasts) == 2 and all(contrast.against == REST for contrast in contrasts.values()):
        one, other = contrasts
        contrasts = {
            one: replace(contrasts[one], against=other), other: replace(contrasts[other], against=one)
        }  # fmt: skip
        reference = ""
    else:
        reference = _reference(contrasts)
    rows = []
    for group in found.groups:
        value = _share(group.value) if right else quantity(group.value, unit)
        words = _group_words(
            group, contrasts.get(group.group), metric if not right else "", unit, reference == group.group
        )
        rows.append((group.group, count(group.n), value, words))
    title = "answers right" if right else metric
    # Several columns taken together are no column of the samples.
    links = () if shown != column else [grid_link(**{"run": run.id, f"by.{column}": row[0]}) for row in rows]
    heads = (shown, "n", title, "in words")
    return Table(f"{run.label} by {shown}, in words", heads, rows, frozenset({1, 2}), links)


def _reference(contrasts: Mapping[str, GroupContrast]) -> str:
    """The group that the others are compared with; empty where each is compared with the rest."""
    return next((contrast.against for contrast in contrasts.values() if contrast.against != REST), "")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _group_words(
    group: GroupValue, contrast: GroupContrast | None, metric: str, unit: str, reference: bool
) -> str:
    if reference:
        return "The group that the others are compared with."
    if group.group == "(missing)":
        return "Samples without a group: compared with nothing."
    if not group.n:
        return "No samples."
    if not group.compared:
        return "Too few samples to say anything."
    if contrast is None or contrast.value is None:
        return "Compared with nothing: no other group is large enough."
    return contrast_words(contrast, metric, unit)


def contrast_words(contrast: GroupContrast, metric: str, unit: str) -> str:
    """A contrast as a sentence; `metric` is empty for shares of right answers."""
    value, low, high = contrast.value or 0.0, contrast.low, contrast.high
    against = "all other groups" if contrast.against == REST else contrast.against
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


def _by_chance(contrast: GroupContrast, unit: str) -> str:
    """How large a difference chance alone gives."""
    expected = contrast.by_chance
    if expected is None:
        return ""
    shown = f"{_whole(100 * expected)}" if unit == "fraction" else quantity(expected, unit)
    return f"; by chance one would see up to {shown}"


def _verdict(contrast: GroupContrast) -> str:
    if contrast.p_holm is None:
        return ""
    if contrast.p_holm < SURE:
        return "Hardly chance."
    if contrast.p_holm < ALPHA:
        return "Unlikely to be chance alone."
    if contrast.p is not None and contrast.p < ALPHA:
        return "Tied: among several groups one looks so different easily."
    return "Tied: such a difference may be chance."


CRITERIA: Mapping[str, str] = {
    "demographic_parity": "is the answer given equally often to every group?",
    "equal_opportunity": "is it given equally often where it should be?",
    "equalized_odds": "and equally seldom where it should not be?",
}


def criteria_table(runs: Sequence[RunView], column: str) -> Table | None:
    """Demographic parity, equal opportunity and equalized odds of every run; None where none was computed."""
    rows = []
    for run in runs:
        for name, each in column_of(run, column).criteria.items():
            kind, _, label = name.partition(".")
            rows.append(
                (run.label, f"{kind.replace('_', ' ')}: {CRITERIA.get(kind, '')}", each.label or label,
                 fixed(each.difference), fixed(each.chance_gap_p95), fixed(each.ratio),
                 p_value(each.p_decides),
                 _reads(each.difference, each) if each.difference is not None else each.note)
            )  # fmt: skip
    if not rows:
        return None
    columns = ("run", "criterion", "answer", "difference", "by chance up to", "ratio", "p", "reads as")
    return Table("Fairness criteria of decisions", columns, rows, frozenset({3, 4, 5, 6}))


def contrast_table(runs: Sequence[RunView], column: str, metric: str) -> Table | None:
    """Each group against the reference or the rest: all measures for the first run, else `metric`."""
    rows = []
    for at, run in enumerate(runs):
        for name in column_of(run, column).metrics if at == 0 else [metric]:
            found = measure_of(run, column, name)
            rows += [_contrast_row(run, name, found.unit, contrast) for contrast in found.contrasts]
    if not rows:
        return None
    columns = (
        "run",
        "measure",
        "group",
        "against",
        "difference",
        "95 % interval",
        "p (corrected)",
        "n",
        "note",
    )
    return Table(f"Signed differences between groups of {column}", columns, rows, frozenset({4, 6, 7}))


def _contrast_row(run: RunView, measure: str, unit: str, each: GroupContrast) -> tuple[str, ...]:
    return (
        run.label, measure, each.group, each.against,
        figure(each.value, each.low, each.high, unit, sign=True),
        interval(each.low, each.high, unit, sign=True) or NONE, p_value(each.p_holm),
        f"{count(each.n)} and {count(each.n_against)}", each.note,
    )  # fmt: skip


def control_tables(runs: Sequence[RunView], column: str, metric: str) -> list[Table]:
    """The gap again within each level of every control column: whether it is there among the like."""
    tables = []
    names = dict.fromkeys(name for run in runs for name in column_of(run, column).control)
    for name in names:
        rows = []
        for run in runs:
            for level, detail in column_of(run, column).control.get(name, {}).items():
                found = detail.metrics.get(metric)
                rows.append((run.label, level, *_gap_cells(found.gap if found else None)))
        columns = ("run", name, "best group", "worst group", "gap", "by chance up to", "p")
        tables.append(Table(f"The gap in {metric} within each {name}", columns, rows, frozenset({4, 5, 6})))
    return tables


def _gap_cells(gap: Gap | None) -> tuple[str, ...]:
    if gap is None or gap.value is None:
        return (NONE,) * 5
    return (gap.best, gap.worst, fixed(gap.value), fixed(gap.chance_gap_p95), p_value(gap.p_decides))


MOST_ROWS = 40
"""Rows of the overview; the tables of each column have the rest."""


def overview(
    by_dataset: Mapping[str, Sequence[RunView]], titles: Mapping[str, str], *, named: bool
) -> Table | None:
    """All that was compared, in one table: of the best run of each dataset every measure by every column, of
    the others what is wider than chance. None where nothing was compared.

    What is wider than chance comes first.
    """
    rows: list[tuple[int, tuple[str, ...]]] = []
    for dataset, runs in by_dataset.items():
        for at, run in enumerate(runs):
            for column in run.details.groups:
                shown = titles.get(column, column)
                where = (f"{shown}, {dataset}" if named else shown, run.label)
                for metric, size, chance, n in _compared(run, column):
                    wide = chance.wider_than_chance
                    if wide or at == 0:
                        figures = (fixed(size), fixed(chance.chance_gap_p95), p_value(chance.p_decides))
                        rows.append((not wide, (*where, metric, *figures, count(n), _reads(size, chance))))
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    heads = ("attribute", "run", "measure", "gap", "by chance up to", "p (corrected)", "n", "reads as")
    told = [row for _, row in rows[:MOST_ROWS]]
    more = f" ({len(rows)} in all, the first {MOST_ROWS} shown)" if len(rows) > MOST_ROWS else ""
    return Table(f"Gaps between groups{more}", heads, told, frozenset({3, 4, 5, 6}))


def correction(runs: Sequence[RunView]) -> str:
    """Over what p values were corrected, as the first run that was compared says it."""
    said = (groups.correction for run in runs for groups in run.details.groups.values())
    return next(filter(None, said), "")


def _compared(run: RunView, column: str) -> Iterator[tuple[str, float, ByChance, int]]:
    """Every difference between groups of a column that was tested: measure, size, chance, n compared."""
    found = column_of(run, column)
    for metric, measure in found.metrics.items():
        gap = measure.gap
        empty = gap is not None and gap.value == 0 and metric in _RATES  # no answer ended so
        if gap is not None and gap.value is not None and gap.p is not None and not empty:
            yield metric, gap.value, gap, sum(group.n for group in measure.groups if group.compared)
    n = max((sum(g.n for g in m.groups if g.compared) for m in found.metrics.values()), default=0)
    for name, criterion in found.criteria.items():
        if criterion.difference is not None and criterion.p is not None:
            yield name.replace("_", " "), criterion.difference, criterion, n


PLAIN = 12
"""So many runs are told in plain words; the tables of gaps and contrasts have them all."""

_RATES = ("error_rate", "unparsed_rate", "refused_rate")


@frozen
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
    columns = dict.fromkeys(column for run in runs for column in run.details.groups)
    where = f", {dataset}" if named else ""
    views: list[FairnessView] = []
    for column in columns:
        shown = (titles or {}).get(column, column)
        having = [run for run in runs if measure_of(run, column, metric).groups]
        refused = [note for run in runs if (note := column_of(run, column).note)]
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
                    if any(group.n for group in measure_of(run, column, metric).groups)
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
        groups = measure_of(run, column, metric).groups
        return (
            f"{plural(len(groups), 'group')} of {shown}: nothing to compare, "
            "because a gap needs two groups that are large enough."
        )
    if gap.value == 0:
        return _no_gap(run, column, metric, shown, gap)
    lead = f"{run.label} does best for {gap.best} and worst for {gap.worst}: "
    lead += f"a gap of {fixed(gap.value)} in {metric}."
    chance = gap.chance_gap_p95
    if chance is None or gap.p is None:
        return lead
    if gap.wider_than_chance:
        return f"{lead} Chance alone seldom gives so wide a gap (95 % of shuffles: at most {fixed(chance)})."
    if gap.value is not None and gap.value > chance:
        return (
            f"{lead} Chance alone gives gaps up to {fixed(chance)} here; that one of all the gaps tested is "
            f"as wide as this is no surprise (p = {p_value(gap.p_decides)})."
        )
    return f"{lead} Chance alone gives gaps up to {fixed(chance)} here: the groups are tied."


def _no_gap(run: RunView, column: str, metric: str, shown: str, gap: Gap) -> str:
    """Groups with the very same value: what that says depends on how much the samples could have shown."""
    least = min((group.n for group in measure_of(run, column, metric).groups if group.compared), default=0)
    said = f"{run.label}: the groups of {shown} have the same {metric} here."
    if least < FEW_SAMPLES:
        return f"{said} With as few as {plural(least, 'sample')} in a group that says little."
    if gap.chance_gap_p95:
        chance = fixed(gap.chance_gap_p95)
        return f"{said} Chance alone gives gaps up to {chance}: a true gap of that size could be hidden."
    return said


def _gaps(runs: Sequence[RunView], column: str, metric: str, shown: str) -> Table:
    rows = []
    for run in runs:
        gap = gap_of(run, column, metric)
        rows.append((run.label, *_gap_cells(gap), _reads(gap.value, gap) if gap else "not compared"))
    columns = ("run", "best group", "worst group", "gap", "by chance up to", "p", "reads as")
    return Table(f"Gap in {metric} between the groups of {shown}", columns, rows, frozenset({3, 4, 5}))


def _reads(size: float | None, chance: ByChance) -> str:
    if size == 0:
        return "no gap"
    if chance.p is None:
        return NONE
    return "wider than chance" if chance.wider_than_chance else "tied"


def _warnings(runs: Sequence[RunView], column: str, metric: str) -> list[str]:
    """Groups too small to say anything of, groups that are not shown, and how much may have been missed."""
    best = runs[0]
    least = column_of(best, column).min_group
    measure = measure_of(best, column, metric)
    found = []
    small = [f"{group.group} (n = {group.n})" for group in measure.groups
             if not group.compared and group.n and group.group != "(missing)"]  # fmt: skip
    if small:
        found.append(
            f"Too few samples to say anything of {listing(small)}: fewer than {least} in a group "
            "are shown and not compared."
        )
    if measure.withheld:
        few = f"{plural(measure.withheld, 'group')} with fewer than {least} samples"
        alone = (
            " The figure of all and those of the others give one group away." if measure.withheld == 1 else ""
        )
        found.append(f"{few} not shown, to protect who is in it.{alone}")
    gap = gap_of(best, column, metric)
    if gap and gap.p is not None and not gap.wider_than_chance:
        ends = [
            abs(end)
            for contrast in measure.contrasts
            for end in (contrast.low, contrast.high)
            if end is not None
        ]
        if ends:
            found.append(
                f"Tied is not shown to be alike: with these samples a true "
                f"difference of up to {fixed(max(ends))} would still fit."
            )
    return found


def _notes(runs: Sequence[RunView], column: str) -> list[str]:
    """Unparsed, refused or failed answers that fall on some group more than chance would have it."""
    found = []
    for run in runs:
        for rate in _RATES:
            gap = gap_of(run, column, rate)
            if gap and gap.wider_than_chance:
                what = rate.removesuffix("_rate").replace("error", "failed")
                found.append(
                    f"{run.label}: the share of {what} answers is {fixed(gap.value)} higher for "
                    f"{gap.worst} than for {gap.best}."
                )
    return found


def _more(runs: Sequence[RunView], column: str, metric: str) -> list[Table]:
    tables = [
        criteria_table(runs, column),
        contrast_table(runs, column, metric),
        *control_tables(runs, column, metric),
    ]
    return [table for table in tables if table is not None]
