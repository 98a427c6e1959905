"""Word and character error rate as the package jiwer defines them.

jiwer also aligns the two texts, which takes memory that grows with the product of their lengths; the counts
that the rates need come from the edit distance alone. The transforms are jiwer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

Unit = Literal["words", "characters"]
Counter = Callable[[str, str], tuple[int, int]]


def edit_counter(unit: Unit) -> Counter:
    """A function of (target, answer) to (edits, units of the target).

    Edits are the least number of substitutions, deletions and insertions that make the answer the target.
    """
    import jiwer
    from rapidfuzz.distance import Levenshtein

    transform = jiwer.wer_default if unit == "words" else jiwer.cer_default

    def units(text: str) -> Sequence[str]:
        # jiwer gives a list of sentences, each a list of units; an empty text gives none, or an empty one.
        sentences: list[list[str]] = transform([text])
        return sentences[0] if sentences else []

    def count(target: str, answer: str) -> tuple[int, int]:
        wanted, given = units(target), units(answer)
        return Levenshtein.distance(wanted, given), len(wanted)

    return count


def rate(edits: float, size: float) -> float:
    """Edits per unit of the target; for an empty target the number of edits, as in jiwer."""
    return edits / size if size else float(edits)
