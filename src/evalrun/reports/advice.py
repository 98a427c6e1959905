"""What to ship: the best run, unless gates, chance, a judge, few samples or a faster run speak against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.reports.cautions import NAMED, gaps_beyond_chance, reached, tested
from evalrun.reports.leaderboard import E2E
from evalrun.reports.numbers import count, fixed, listing, plural, ratio
from evalrun.reports.view import FEW_SAMPLES, Phrase, RunView, Sentence, behind, equal
from evalrun.reports.visible import visible
from evalrun.results import like_loads
from evalrun.sweep_results import GateVerdict

EVERY_RUN = ""
"""Gates over the whole sweep are kept under this in place of a run."""

ALIKE = 1.05
"""Speeds within this ratio are called alike."""

MUCH_FASTER = 1.2
MARGIN = 0.05
"""A run that is so much faster, and worse by no more than this, is recommended in place of the best."""

NAMED_LONG = 3
"""So many runs are named in a sentence where their names are long; the rest are counted."""

LOST = ": every run lost too many rows. Mend what lost them, and run it again."
CHECK_THE_JUDGE = "Choose nothing by these grades before the judge has been checked."
NOT_BY_ACCURACY = "These questions measure bias: how many are answered rightly is no reason to ship."


def advice(
    best: RunView, runs: Sequence[RunView], failed: Mapping[str, Sequence[GateVerdict]], doubted: str
) -> Sentence:
    """What to ship. It obeys, in this order: gates, the level of chance, rows that were lost, what the judge
    is worth, few samples, groups that are served worse."""
    if failed:
        passing = [run for run in runs if run.id not in failed and EVERY_RUN not in failed]
        leading = [run for run in passing if run is best or run.standing == "tied"]
        if not leading:
            return _ship_nothing(runs, passing, failed)
        bias = any(run.details.bias for run in runs)
        if len(passing) < len(runs) and best not in leading and not bias:
            sighted = [run for run in leading if not run.blind]
            if not sighted:
                return _not_above_chance(leading[0])
            beside = [Phrase(": it passes every gate, and "), said(best), Phrase(" does not.")]
            return [Phrase("Ship "), said(sighted[0]), *beside]
    if best.blind:
        return _not_above_chance(best)
    if len(runs) > 1 and best.primary is not None and best.primary.incomplete:
        return [Phrase("Ship nothing yet", "value"), Phrase(LOST)]  # complete runs stand before such ones
    if doubted:
        return [Phrase(CHECK_THE_JUDGE)]
    if any(run.details.bias for run in runs):
        return _by_bias(best)
    sighted = [run for run in runs if not run.blind]
    if len(sighted) == 1 < len(runs):
        found: Sentence = [Phrase("Ship "), said(best), Phrase(".")]
    else:
        found = _by_standing(best, sighted)
    columns = [column for column, _ in gaps_beyond_chance(best)]
    if found and columns and any(phrase.text.rstrip().lower().endswith("ship") for phrase in found):
        more = f" First look at how unequally {best.spoken} serves {listing(map(visible, columns))}."
        return [*found, Phrase(more)]
    return found


def _by_standing(best: RunView, runs: Sequence[RunView]) -> Sentence:
    """What to ship: the best run, unless a tied one is clearly faster and surely not much worse."""
    tied = [run for run in runs if run.standing == "tied"]
    if tied and best.primary is not None and best.primary.n < FEW_SAMPLES:
        return [
            Phrase(f"So few samples (n = {count(best.primary.n)}) decide nothing: ask more before choosing.")
        ]
    if equal(runs):
        return _by_speed(runs)
    if not any(run.standing in ("tied", "behind") for run in runs):
        return _nothing_beside(runs)
    if not tied:
        return [Phrase("Ship "), said(best), Phrase(" if its speed will do." if _slower(best, runs) else ".")]
    own = None if unlike_loads(runs) else best.value(E2E)
    faster = [run for run in timed(tied) if own and own / median(run) >= MUCH_FASTER]
    if not faster or own is None:
        return [Phrase("Ship "), said(best), Phrase(": no tied run is clearly faster." if own else ".")]
    return _instead(best, min(faster, key=median), own)


def _instead(best: RunView, other: RunView, own: float) -> Sentence:
    """Whether a faster run may take the best one's place."""
    speed = f" is {ratio(own, median(other))} faster"
    worst = _at_worst(best, other)
    if worst is not None and worst <= MARGIN:
        return [
            said(other),
            Phrase(f"{speed} and at most {fixed(worst)} worse: ship "),
            said(other),
            Phrase("."),
        ]
    how_much = "may be worse" if worst is None else f"may be up to {fixed(worst)} worse"
    return [
        Phrase("Ship "), said(best), Phrase(" if quality decides. "), said(other),
        Phrase(f"{speed} but {how_much}: more samples would tell."),
    ]  # fmt: skip


def _by_speed(runs: Sequence[RunView]) -> Sentence:
    """Of runs that are equally good: the fastest, if it clearly is."""
    known = sorted(timed(runs), key=median)
    if len(known) < len(runs) or median(known[1]) / median(known[0]) < MUCH_FASTER:
        return []
    return [Phrase("Ship "), said(known[0]), Phrase(": it is as good as the others and the fastest.")]


def _nothing_beside(runs: Sequence[RunView]) -> Sentence:
    """Where no other run could be compared with the first one."""
    without = [run for run in runs[1:] if run.primary is None or run.primary.value is None]
    if not without:
        return []
    who = plural(len(without), "other run")
    has = "has" if len(without) == 1 else "have"
    return [Phrase(f"There is nothing to choose between: {who} {has} no score.")]


def _at_worst(best: RunView, other: RunView) -> float | None:
    """By how much the other run may be worse: the far end of the difference's interval."""
    if other.difference is None:
        return None
    _, low, high = behind(other.difference)
    lower = best.primary is not None and best.primary.direction == "lower"
    end = high if lower else low
    return None if end is None else max(0.0, end if lower else -end)


def _slower(best: RunView, runs: Sequence[RunView]) -> bool:
    times = [median(run) for run in timed(runs)]
    return bool(times) and (best.value(E2E) or 0.0) > ALIKE * min(times)


def _not_above_chance(best: RunView) -> Sentence:
    """Nothing to ship: the leading run has not shown that it reads its input."""
    assert best.chance is not None
    return [
        Phrase("Ship nothing", "value"), Phrase(": "), said(best),
        Phrase(f" is not shown to beat chance ({reached(best.chance)}; {tested(best.chance)})."),
    ]  # fmt: skip


def _by_bias(best: RunView) -> Sentence:
    """What the measures of bias say of the run that is right most often."""
    said_of = [finding.sentence for finding in best.details.bias]
    shown = f" Of {best.spoken}: {'; '.join(said_of)}." if said_of else ""
    return [Phrase(NOT_BY_ACCURACY + shown)]


def _ship_nothing(
    runs: Sequence[RunView], passing: Sequence[RunView], failed: Mapping[str, Sequence[GateVerdict]]
) -> Sentence:
    """No run that leads passes its gates: how many fail, by how much at worst, and who else passes."""
    ids = {EVERY_RUN, *(run.id for run in runs)}
    checks = [gate for run, gates in failed.items() if run in ids for gate in gates]
    fail = f"{plural(len(checks), 'gate')} {'fails' if len(checks) == 1 else 'fail'}"
    changes = [gate for gate in checks if gate.difference is not None]
    worst = max(changes, key=lambda gate: abs(gate.difference or 0.0), default=None)
    against = "" if worst is None else f", {fixed(worst.difference, sign=True)} against the baseline"
    found = [Phrase("Ship nothing", "value"), Phrase(f": {fail}{against}.")]
    if passing:
        alone = "passes every gate, but is" if len(passing) == 1 else "pass every gate, but are"
        found += [Phrase(" "), *several(passing), Phrase(f" {alone} behind.")]
    return found


def said(run: RunView) -> Phrase:
    """A run's name in a sentence."""
    return Phrase(run.spoken, "run")


def several(runs: Sequence[RunView]) -> list[Phrase]:
    """`a`, `b` and `c`; where there are more (or their names are long) the first ones and how many more."""
    named = NAMED if all(len(run.parts) == 1 for run in runs) else NAMED_LONG
    shown = list(runs) if len(runs) <= named else list(runs[: named - 1])
    rest = len(runs) - len(shown)
    phrases: list[Phrase] = []
    for at, run in enumerate(shown):
        last = at == len(shown) - 1 and not rest
        if at:
            phrases.append(Phrase(" and " if last else ", "))
        phrases.append(said(run))
    return [*phrases, Phrase(f" and {rest} more")] if rest else phrases


def timed(runs: Sequence[RunView]) -> list[RunView]:
    """The runs that have a median end-to-end time; none where these were taken under unlike loads."""
    known = [run for run in runs if run.value(E2E)]
    return [] if unlike_loads(known) else known


def unlike_loads(runs: Sequence[RunView]) -> list[str]:
    """The loads under which runs were asked, where they are not the same: then their speeds say nothing of
    which is faster. A load that is not known stands in nobody's way."""
    loads = [run.results.load_words for run in runs if run.value(E2E)]
    return [] if like_loads(loads) else list(dict.fromkeys(load for load in loads if load))


def median(run: RunView) -> float:
    """Its median end-to-end time in seconds; infinite where there is none."""
    return run.value(E2E) or float("inf")
