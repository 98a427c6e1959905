"""Tests and intervals that hold however often one looks, for code of one's own.

from evalrun.stats import EProcess

better = EProcess()
for new, old in scores:             # between 0 and 1, rows in random order
    if better.update(new - old) > math.log(20):
        break                       # shown at 5 %, whenever one looks
"""

from evalrun.analysis.race import Race
from evalrun.analysis.sequential import (
    ConfidenceSequence,
    EProcess,
    Equivalence,
    e_bh,
    e_value,
    e_value_two_sided,
)

__all__ = [
    "ConfidenceSequence",
    "EProcess",
    "Equivalence",
    "Race",
    "e_bh",
    "e_value",
    "e_value_two_sided",
]
