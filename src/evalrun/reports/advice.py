"""What follows from the answer: which run to ship, whom it serves worse, and one line over all datasets."""

from __future__ import annotations

from collections.abc import Sequence

from evalrun.reports.charts.groups import gap_of
from evalrun.reports.numbers import count, fixed, listing, plural, ratio
from evalrun.reports.standings import E2E, equal
from evalrun.reports.view import Answer, Phrase, RunView, Sentence
from evalrun.reports.visible import visible

FEW_SAMPLES = 30
"""Below this many samples an interval says little, and the answer says so."""

ALIKE = 1.05
"""Speeds within this ratio are called alike."""

MUCH_FASTER = 1.2
MARGIN = 0.05
"""A run that is so much faster, and worse by no more than this, is recommended in place of the best."""

ALPHA = 0.05
WINNERS = 3
"""So many runs that lead on some dataset are named; of more it is only said that they differ."""


def said(run: RunView) -> Phrase:
    """A run's name in a sentence."""
    return Phrase(run.spoken, "run")


def timed(runs: Sequence[RunView]) -> list[RunView]:
    """The runs that have a median end-to-end time."""
    return [run for run in runs if run.value(E2E)]


def median(run: RunView) -> float:
    """Its median end-to-end time in seconds; infinite where there is none."""
    return run.value(E2E) or float("inf")


def advice(best: RunView, runs: Sequence[RunView]) -> Sentence:
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
    own = best.value(E2E)
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
    """Where no other run could be held against the first one."""
    without = [run for run in runs[1:] if run.primary is None or run.primary.value is None]
    if not without:
        return []
    who = plural(len(without), "other run")
    has = "has" if len(without) == 1 else "have"
    return [Phrase(f"There is nothing to choose between: {who} {has} no score.")]


def _at_worst(best: RunView, other: RunView) -> float | None:
    """By how much the other run may be worse: the far end of the difference's interval."""
    found = other.difference
    if found is None or found.low is None or found.high is None:
        return None
    lower = best.primary is not None and best.primary.direction == "lower"
    return max(0.0, -found.low if lower else found.high)


def _slower(best: RunView, runs: Sequence[RunView]) -> bool:
    times = [median(run) for run in timed(runs)]
    return bool(times) and (best.value(E2E) or 0.0) > ALIKE * min(times)


def unequal(best: RunView) -> list[str]:
    """The columns whose groups the best run serves unequally, by more than chance gives."""
    if best.primary is None:
        return []
    found = []
    for column in best.details.get("groups") or {}:
        gap = gap_of(best, column, best.primary.name)
        if not gap or gap.get("p") is None or gap["p"] >= ALPHA or not gap["value"]:
            continue
        chance = gap.get("chance_gap_p95")
        than = "" if chance is None else f" (up to {fixed(chance)})"
        found.append(
            f"By {visible(column)}, {best.spoken} is worse for {visible(str(gap['worst']))} than for "
            f"{visible(str(gap['best']))}: a gap of {fixed(gap['value'])}, wider than chance gives{than}."
        )
    return found


def overall(answers: Sequence[Answer]) -> Sentence:
    """Which run leads over several datasets; empty where there is one dataset, or on some nobody leads."""
    led: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.best is None:
            return []
        led.setdefault(answer.best.spoken, []).append(answer)
    if len(answers) < 2:
        return []
    every = f"all {len(answers)} datasets" if len(answers) > 2 else "both datasets"
    if len(led) == 1:
        (name,) = led
        ties = "" if any(answer.has_tied for answer in answers) else ", ahead of every other run"
        return [Phrase(name, "run"), Phrase(f" leads on {every}{ties}.")]
    if len(led) > WINNERS:
        return [
            Phrase(f"No run leads everywhere: {len(led)} of them do on some of the {len(answers)} datasets.")
        ]
    phrases: list[Phrase] = []
    for name, where in sorted(led.items(), key=lambda each: -len(each[1])):
        phrases += [Phrase("; " if phrases else ""), Phrase(name, "run")]
        phrases.append(Phrase(f" leads on {listing([each.dataset for each in where])}"))
    return [*phrases, Phrase(".")]
