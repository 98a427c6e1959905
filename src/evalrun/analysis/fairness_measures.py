"""What is compared between groups: scores, endings, length and time of answers, and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.fairness_definitions import DECISIONS, FPR, SELECTION, TPR
from evalrun.analysis.fairness_groups import FairnessPlan
from evalrun.analysis.quality import Units, counted, score_column, score_infos, units
from evalrun.analysis.rates import RATES
from evalrun.analysis.table import SampleTable
from evalrun.registry import nearest
from evalrun.scoring.base import Labelled, MetricInfo, Scorer
from evalrun.types import Status

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_LABELS = 30
"""With more labels than this there is no one-against-the-rest: they are texts, most likely, and no labels."""

NUMBERS = ("completion_tokens", "e2e_s", "ttft_s")


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is compared between groups: what it is, one value a unit, and a note on all of it."""

    info: MetricInfo
    units: Units
    note: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The rates of one positive label: who is given it, of those who should be, and of those who should not.

    `suffix` is what its metrics' names end in: empty for a declared positive label, else `.<label>`.
    """

    label: str
    suffix: str
    selection: Measure
    true_positives: Measure
    false_positives: Measure


def plain_measures(table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan) -> list[Measure]:
    """Every score and rate of the run, and length and time of its answers where they were measured."""
    return [*_scores(table, scorers, plan.exclude_unparsed), *_rates(table), *_numbers(table)]


def _scores(table: SampleTable, scorers: Sequence[Scorer], exclude_unparsed: bool) -> list[Measure]:
    within = counted(table, exclude_unparsed)
    measures = []
    for scorer in scorers:
        for name, info in score_infos(scorer):
            values = score_column(table, name)
            measures.append(Measure(info, units(table, values, within & ~np.isnan(values))))
    return measures


def _rates(table: SampleTable) -> list[Measure]:
    return [
        Measure(rate.info, units(table, rate.hits(table).astype(np.float64), rate.within(table)))
        for rate in RATES
    ]


def _numbers(table: SampleTable) -> list[Measure]:
    """Tokens of every answer; times of those that this run sent and timed itself."""
    measures = []
    timed = table.answered & ~table.cached & ~table.warmup
    for name in NUMBERS:
        values = table.number(name)
        keep = (table.answered if name == "completion_tokens" else timed) & ~np.isnan(values)
        if keep.any():
            info = performance_info(f"performance.{name}.mean")
            measures.append(Measure(info, units(table, values, keep)))
    return measures


def decisions(
    table: SampleTable, scorers: Sequence[Scorer], plan: FairnessPlan
) -> tuple[list[Decision], str]:
    """The decisions that the suite asks about, and a sentence on why there are none."""
    if plan.positive is None and not plan.one_vs_rest:
        return [], ""
    fold = any(
        scorer.registered == "classification" and getattr(scorer.options, "ignore_case", False)
        for scorer in scorers
    )
    answers, targets = (_keyed(column, fold) for column in table.texts())
    answered = table.is_status(Status.SCORED)
    given = np.where(answered, answers.codes, -1)
    targets_known = np.unique(targets.codes[targets.codes >= 0])
    labels = sorted(
        {answers.labels[code] for code in np.unique(given[given >= 0])}
        | {targets.labels[code] for code in targets_known}
    )
    within = counted(table, plan.exclude_unparsed)
    if plan.positive is not None:
        wanted = _key(plan.positive, fold)
        note = "" if wanted in labels else _never(plan.positive, labels)
        return [_decision(table, given, answers, targets, wanted, within, "", note)], note
    from evalrun.scoring.scorers.confusion import _slugs as slugs

    # What counts as a label are the targets: an answer that names none of them is no class of its own.
    classes = [targets.labels[code] for code in targets_known] or labels
    if len(classes) > MOST_LABELS:
        return [], f"{len(classes)} labels: one against the rest is made up to {MOST_LABELS}"
    found = [
        _decision(table, given, answers, targets, label, within, f".{slug}", "")
        for label, slug in zip(sorted(classes), slugs(sorted(classes)), strict=True)
    ]
    return found, "" if found else "there are no labels"


def _never(positive: str, labels: Sequence[str]) -> str:
    near = nearest(positive, labels)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"neither an answer nor a target is the positive label '{positive}'{hint}"


def _decision(
    table: SampleTable,
    given: NDArray[np.int32],
    answers: Labelled,
    targets: Labelled,
    label: str,
    within: Mask,
    suffix: str,
    note: str,
) -> Decision:
    selected = (given == _code(answers, label)).astype(np.float64)
    known = within & (targets.codes >= 0)
    positive = targets.codes == _code(targets, label)
    nothing = np.zeros(len(table), np.bool_)
    keeps = (within, known & positive, known & ~positive)
    made = []
    for name, keep in zip((SELECTION, TPR, FPR), keeps, strict=True):
        info = replace(DECISIONS[name], name=name + suffix)
        made.append(Measure(info, units(table, selected, nothing if note else keep), note))
    return Decision(label, suffix, *made)


def _code(column: Labelled, label: str) -> int:
    return column.labels.index(label) if label in column.labels else -2


def _keyed(column: Labelled, fold: bool) -> Labelled:
    """The column with labels that mean the same under one code."""
    keys = [_key(label, fold) for label in column.labels]
    labels = tuple(sorted(set(keys)))
    table = np.array([*(labels.index(key) for key in keys), -1], np.int32)
    return Labelled(table[column.codes], labels)


def _key(label: str, fold: bool) -> str:
    """A label as it is compared: without space at its ends, whole numbers in one form (1, 1.0, "1")."""
    text = label.strip()
    whole, dot, rest = text.partition(".")
    if dot and rest.strip("0") == "" and whole.lstrip("-").isdecimal():
        text = whole
    return text.casefold() if fold else text


def groups_of_units(codes: Ints, sample_units: Units) -> Ints:
    """The group of each unit: that of its first sample."""
    first = np.zeros(len(sample_units.values), np.int64)
    # The rows are in the order of units, so writing backwards leaves each unit's first row.
    first[sample_units.unit[::-1]] = sample_units.rows[::-1]
    return codes[first].astype(np.int64)


def subset(sample_units: Units, keep: Mask) -> Units:
    """Only some of the units."""
    rows = keep[sample_units.unit]
    renumbered = np.cumsum(keep) - 1
    clusters = None if sample_units.clusters is None else sample_units.clusters[keep]
    return Units(
        sample_units.values[keep],
        sample_units.rows[rows],
        renumbered[sample_units.unit[rows]],
        clusters,
        sample_units.repeated,
    )
