"""What speaks against an answer: groups that are served worse, gates, chance, few samples, what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.reports import numbers
from evalrun.reports.charts.groups import gap_of
from evalrun.reports.numbers import fixed, listing
from evalrun.reports.view import FEW_SAMPLES, RunView
from evalrun.reports.visible import visible
from evalrun.results import Gap
from evalrun.sweep_results import Chance, GateVerdict, Primary

MANY_FAILED = 0.02
NAMED = 4
"""So many runs are named in a sentence; the rest are counted."""

ALL_WRONG = (
    "Every answer was scored 0. Read some samples: a parser or a target that does not fit is a "
    "commoner reason than a model that is never right."
)
ALL_WORST = (
    "The judge gave every answer the lowest grade. Read some samples and what it wrote of them: a rubric "
    "that asks for something else, or a judge too weak to tell, is a commoner reason than a model that is "
    "never right."
)


def cautions(
    best: RunView,
    runs: Sequence[RunView],
    primary: Primary,
    failed_gates: Mapping[str, Sequence[GateVerdict]],
) -> list[str]:
    """All of them, gates first."""
    return [
        *_gate_cautions(best, runs, failed_gates),
        *_blind(best, runs),
        *_samples(best, runs, primary),
        *_incomplete(runs),
        *_failures(runs),
        *_client(runs),
    ]


def some(names: Sequence[str]) -> str:
    """The first names as a listing, and how many more there are."""
    rest = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listing([*names[:NAMED], *rest])


def gaps_beyond_chance(best: RunView) -> list[tuple[str, Gap]]:
    """The columns whose groups the run serves unequally, by more than chance gives."""
    if best.primary is None:
        return []
    gaps = ((column, gap_of(best, column, best.primary.name)) for column in best.details.groups)
    return [(column, gap) for column, gap in gaps if gap and gap.wider_than_chance]


def unequal(best: RunView) -> list[str]:
    """The groups that the best run serves worse, by more than chance gives, as sentences."""
    found = []
    for column, gap in gaps_beyond_chance(best):
        than = "" if gap.chance_gap_p95 is None else f" (up to {fixed(gap.chance_gap_p95)})"
        found.append(
            f"By {visible(column)}, {best.spoken} is worse for {visible(gap.worst)} than for "
            f"{visible(gap.best)}: a gap of {fixed(gap.value)}, wider than chance gives{than}."
        )
    return found


def reached(chance: Chance) -> str:
    """`always "yes" reaches 0.70`."""
    return f"{visible(chance.by)} reaches {fixed(chance.level)}"


def tested(chance: Chance) -> str:
    """The run against chance: `+0.19 [+0.05, +0.43], p = 0.018 corrected for 4 runs`."""
    ends = chance.difference, chance.ci_low, chance.ci_high
    apart = "" if chance.difference is None else f"{numbers.measured(*ends, sign=True)}, "
    corrected = f" corrected for {chance.tests} runs" if chance.tests > 1 else ""
    return f"{apart}{numbers.tested(chance.p)}{corrected}"


def _blind(best: RunView, runs: Sequence[RunView]) -> list[str]:
    """The other runs that are not shown to be better than chance, each with its difference: the interval of
    the run alone may well lie above what chance reaches."""
    if best.blind:
        return []
    alike: dict[str, list[str]] = {}
    for run in runs:
        if run.chance is not None and run.blind and run is not best:
            alike.setdefault(reached(run.chance), []).append(f"{run.label} ({tested(run.chance)})")
    return [f"Not shown to beat chance ({level}): {some(names)}." for level, names in alike.items()]


def _gate_cautions(
    best: RunView, runs: Sequence[RunView], failed_gates: Mapping[str, Sequence[GateVerdict]]
) -> list[str]:
    """The gates that the best run, or one that is tied with it, does not pass."""
    leading = [best, *(run for run in runs[1:] if run.standing == "tied")]
    return [
        f"{run.spoken} does not pass {listing(gate.gate for gate in failed_gates[run.id][:NAMED])}."
        for run in leading[:NAMED]
        if run.id in failed_gates
    ]


def _samples(best: RunView, runs: Sequence[RunView], primary: Primary) -> list[str]:
    """What so many samples cannot show."""
    found = []
    assert best.primary is not None
    if best.primary.n < FEW_SAMPLES:
        found.append(f"n = {best.primary.n} is small: an interval from so few samples says little.")
    unseen = [run.difference.detectable for run in runs if run.standing == "tied" and run.difference]
    known = [value for value in unseen if value]
    if known:
        found.append(
            f"With these samples a true difference below about {fixed(max(known), 2)} would often go unseen."
        )
    if _all_wrong(runs):
        found.append(ALL_WORST if primary.judged else ALL_WRONG)
    if not primary.exact and any(run.difference for run in runs):
        found.append(
            f"{primary.metric} has no value for a single sample; runs are compared by the score "
            f"{primary.score} of each sample."
        )
    return found


def _incomplete(runs: Sequence[RunView]) -> list[str]:
    """The runs whose figure lost too many rows to be believed."""
    found = [run for run in runs if run.primary is not None and run.primary.incomplete]
    if not found:
        return []
    ranked = "" if len(found) == len(runs) else "; ranked after the others"
    named = some([run.label for run in found])
    return [f"Incomplete, too many rows were lost{ranked}: {named}."]


def _all_wrong(runs: Sequence[RunView]) -> bool:
    figures = [run.primary for run in runs if run.primary is not None and run.primary.value is not None]
    return all(f.value == 0 and f.direction == "higher" and f.unit == "fraction" for f in figures)


def _failures(runs: Sequence[RunView]) -> list[str]:
    many = [run for run in runs if run.counts.failed > MANY_FAILED * max(1, run.counts.samples)]
    if not many:
        return []
    shown = [f"{run.label} ({run.counts.failed} of {run.counts.samples})" for run in many]
    return [f"Requests failed and are left out of n: {some(shown)}."]


def _client(runs: Sequence[RunView]) -> list[str]:
    limited = [run.label for run in runs if run.details.client_limited]
    if not limited:
        return []
    return [
        f"evalrun itself may have slowed these runs, so their latencies are too high: {listing(limited)}."
    ]
