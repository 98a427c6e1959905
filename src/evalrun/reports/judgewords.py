"""What the figures of a judge mean, in plain words."""

from __future__ import annotations

from evalrun.reports.advice import FEW_SAMPLES
from evalrun.reports.numbers import fixed
from evalrun.reports.view import Figure, RunView

GUESSING = 0.5
"""A judge that contradicts itself in half of the pairs decides by their order."""

OFTEN = 0.2
MANY_UNSCORED = 0.05
CONCLUSIVE, RELIABLE = 0.667, 0.8
"""Krippendorff's bounds (Content Analysis, chapter 11): below the first no conclusions are drawn from grades,
below the second only tentative ones."""

POOR = 0.4
"""Grades that agree with people's no better than this must not decide anything."""

_KAPPA = (
    (0.0, "no better than chance; do not rely on these grades"),
    (0.2, "hardly better than chance; do not rely on these grades"),
    (POOR, "weak agreement; do not let these grades decide"),
    (0.6, "moderate agreement; read the disagreements before these grades decide"),
    (0.8, "good agreement"),
)


def kappa_words(value: float | None, low: float | None, n: int) -> str:
    """What Cohen's kappa of a judge and a person says of the judge."""
    if value is None:
        return (
            "no figure: nothing differs, so there is nothing to agree on"
            if n
            else "no sample has both grades"
        )
    said = next((words for limit, words in _KAPPA if value <= limit), "as close as two people are")
    if n < FEW_SAMPLES:
        return f"{said}; n = {n} is small, grade more answers by hand"
    if low is not None and low <= 0 and value > _KAPPA[1][0]:
        return f"{said}, and perhaps chance: the interval reaches 0"
    return said


def alpha_words(value: float | None, n: int) -> str:
    """What Krippendorff's alpha says of several judges."""
    if value is None:
        return "no figure: all gave the same grade" if n else "no sample has two grades"
    if value <= 0:
        return "no better than chance: the judges do not measure the same thing"
    if value < CONCLUSIVE:
        return "too little for conclusions (0.67 is the usual bound)"
    if value < RELIABLE:
        return "enough for tentative conclusions"
    return "the judges agree, which is not to say that they are right"


def rank_words(value: float | None) -> str:
    """What a rank correlation of judge and person says."""
    if value is None:
        return "no figure: one of the two gave one grade only"
    if value < OFTEN:
        return "orders the answers hardly as the person does"
    return f"orders the answers {'much' if value >= RELIABLE else 'roughly'} as the person does"


def order_words(inconsistent: float | None) -> str:
    """What the share of pairs says that were decided differently in the two orders."""
    if inconsistent is None:
        return ""
    if inconsistent >= GUESSING:
        return "the order decides, not the answers: do not rely on these verdicts"
    return "often decided by the order" if inconsistent >= OFTEN else "seldom decided by the order"


def position_words(figure: Figure) -> str:
    """Which of two answers a judge prefers for its place, if that is shown."""
    if figure.low is None or figure.high is None or figure.low <= GUESSING <= figure.high:
        return "no preference for a place is shown"
    return f"prefers the answer that it reads {'first' if figure.low > GUESSING else 'second'}"


def doubt(run: RunView, scorer: str) -> str:
    """Why the grades of a run cannot carry a ranking, in half a sentence; empty where nothing says so."""
    people = run.figure(f"{scorer}.human.kappa")
    if people is not None and people.value is not None:
        if people.value > POOR and (people.low is None or people.low > 0):
            return ""
        words = kappa_words(people.value, people.low, people.n)
        return f"agreement with people's grades is {words} (kappa {_said(people)})"
    order = run.figure(f"{scorer}.inconsistent")
    if order is not None and order.value is not None and order.value >= GUESSING:
        return f"{order_words(order.value)} ({_said(order)} of the pairs changed with it)"
    several = run.figure(f"{scorer}.alpha")
    if several is not None and several.value is not None and several.value < CONCLUSIVE:
        return f"the judges' agreement is {alpha_words(several.value, several.n)} (alpha {_said(several)})"
    return ""


def _said(figure: Figure) -> str:
    return f"{fixed(figure.value, figure.decimals)} {ends(figure)}".strip() + f", n = {figure.n}"


def ends(figure: Figure) -> str:
    """The interval without a unit."""
    if figure.low is None or figure.high is None:
        return ""
    return f"[{fixed(figure.low, figure.decimals)}, {fixed(figure.high, figure.decimals)}]"
