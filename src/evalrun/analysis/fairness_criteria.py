"""Demographic parity, equal opportunity and equalized odds, from the rates of decisions by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalrun.analysis.fairness import Compared, seed_of
from evalrun.analysis.fairness_definitions import criterion_info
from evalrun.analysis.fairness_groups import FairnessPlan
from evalrun.analysis.fairness_measures import Decision
from evalrun.analysis.intervals import Estimate
from evalrun.analysis.permutation import Chance, chance_of_largest
from evalrun.analysis.quality import metric
from evalrun.types import JSON, MetricValue

_NO_GROUPS = "two groups that are large enough are needed, and there are none"


def criteria(
    results: Sequence[Compared], decided: Sequence[Decision], plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """The criteria of every decision; `results` holds selection, true and false positive rate of each."""
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    for at, decision in enumerate(decided):
        selection, true_positives, false_positives = results[3 * at : 3 * at + 3]
        for kind, parts in (
            ("demographic_parity", (selection,)),
            ("equal_opportunity", (true_positives,)),
            ("equalized_odds", (true_positives, false_positives)),
        ):
            found, detail = _criterion(kind, parts, decision, plan)
            metrics += found
            details[f"{kind}{decision.suffix}"] = detail
    return metrics, details


def _criterion(
    kind: str, parts: Sequence[Compared], decision: Decision, plan: FairnessPlan
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Difference and ratio over the groups that are compared in every part."""
    split = parts[0].split
    column = split.groups.name
    difference = criterion_info(column, f"{kind}.difference", decision.suffix)
    ratio = criterion_info(column, f"{kind}.ratio", decision.suffix)
    codes = [code for code in parts[0].groups if all(code in part.groups for part in parts)]
    n = sum(part.groups[code].estimate.n for part in parts for code in codes)
    if len(codes) < 2:
        notes = [_NO_GROUPS, *dict.fromkeys(part.split.measure.note for part in parts)]
        missing = Estimate(None, n, note="; ".join(each for each in notes if each))
        metrics = [metric(difference, missing), metric(ratio, missing)]
        detail: dict[str, JSON] = {"label": decision.label, "difference": None, "ratio": None}
        return [replace(each, slice=dict(split.within)) for each in metrics], {**detail, "note": missing.note}
    rates = [{code: part.groups[code].estimate.value or 0.0 for code in codes} for part in parts]
    gap = max(max(each.values()) - min(each.values()) for each in rates)
    chance = _chance(parts, codes, seed_of(difference.name, plan.seed))
    ratios = [min(each.values()) / max(each.values()) for each in rates if max(each.values()) > 0]
    note = (
        "all groups have the same rates"
        if chance.permutations == 0
        else f"with shuffled groups 95 % are at most {chance.gap_p95:.3g}, {chance.gap_mean:.3g} on average "
        f"(p = {chance.p:.2g})"
    )
    # 0/0: nobody was given the label. fairlearn gives 0 or NaN there, neither of which was measured.
    least = min(ratios) if len(ratios) == len(rates) else None
    undefined = "" if least is not None else "a rate is 0 in every group, so there is no ratio"
    made = [
        metric(difference, Estimate(gap, n, note=note)),
        metric(ratio, Estimate(least, n, note=undefined)),
    ]
    detail = {
        "label": decision.label,
        "difference": gap,
        "ratio": least,
        "groups": _shown(parts, codes),
        "chance_gap_mean": chance.gap_mean,
        "chance_gap_p95": chance.gap_p95,
        "p": chance.p,
        "permutations": chance.permutations,
        "how": chance.how,
        "note": "; ".join(each for each in (note, undefined) if each),
    }
    return [replace(each, slice=dict(split.within)) for each in made], detail


def _chance(parts: Sequence[Compared], codes: Sequence[int], seed: int) -> Chance:
    return chance_of_largest([part.part(codes) for part in parts], seed)


def _shown(parts: Sequence[Compared], codes: Sequence[int]) -> list[Mapping[str, JSON]]:
    """The rates of each group, by the name of the rate."""
    return [
        {
            "group": parts[0].groups[code].group,
            **{part.split.measure.info.name: part.groups[code].estimate.value for part in parts},
        }
        for code in codes
    ]
