"""An explanation in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from evalrun.explanations import GRADIENTS, Explanation, OverSamples

CAUTION = "This says what the model used, not why the answer is right or wrong."
_TEXT = 80


def headline(one: Explanation, texts: Sequence[str]) -> Iterator[str]:
    """What is to be known of it first. `texts` are those of its units."""
    what = {"answer": "the answer", "target": "the target"}.get(
        one.target, f"the answer against {one.against}"
    )
    word = one.faithfulness.word
    if word == "nothing to explain":
        yield f"Nothing to explain: leaving out parts of the prompt does not change {what}."
        return
    top = max(
        (
            at
            for at, unit in enumerate(one.units)
            if unit.level == one.units[0].level and unit.value is not None
        ),
        key=lambda at: abs(one.units[at].value or 0.0),
        default=None,
    )
    if top is not None and word != "did not converge":
        value = one.units[top].value or 0.0
        text = " ".join(texts[top].split())
        text = text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
        verb = "loses" if value >= 0 else "gains"
        factor = math.exp(min(abs(value), 700.0))
        likely = "less" if value >= 0 else "more"
        if one.method in GRADIENTS:
            yield f"By gradients “{text}” weighs most for {what}: {value:+.2f} nats."
        else:
            times = f"{_three_digits(factor)} times {likely} likely"
            yield f"Without “{text}” {what} {verb} {abs(value):.2f} nats ({times})."
    yield verdict(one)
    with_and_without = f"With the whole prompt {one.v_full:.3f}, without its parts {one.v_empty:.3f}"
    yield f"{with_and_without}, gap {one.gap:.3f} nats."
    yield CAUTION


def together(found: OverSamples) -> str:
    """How faithful the explanations of a run's samples are together."""
    interval = "" if found.ci_low is None else f" (95 % interval {found.ci_low:.3f} to {found.ci_high:.3f})"
    p = "" if found.p is None else ", p < 0.0001" if found.p < 0.0001 else f", p = {found.p:.2g}"
    how = "more" if found.difference >= 0 else "less"
    return (
        f"Over {found.n} samples by {found.method} (target {found.target}): removing the top {found.level}s "
        f"costs {abs(found.difference):.3f} nats {how} than random rankings do{interval}{p}; "
        f"{found.faithful} of {found.n} are faithful."
    )


def _three_digits(factor: float) -> str:
    """`54.6`, `9,010`, `1.2e+12`."""
    rounded = float(f"{factor:.3g}")
    return f"{rounded:,.0f}" if 100 <= rounded < 1e9 else f"{rounded:g}"


def verdict(one: Explanation) -> str:
    """Whether it is faithful, and by what."""
    judged = one.faithfulness
    if judged.word == "did not converge":
        return "The gradients did not converge: there is no ranking."
    if not judged.rankings:
        return "Not compared with random rankings."
    word = judged.word[0].upper() + judged.word[1:]
    return (
        f"{word}: removing its top {judged.level}s costs {judged.comprehensiveness:.3f} nats, more than in "
        f"{judged.beaten} of {judged.rankings} random rankings."
    )
