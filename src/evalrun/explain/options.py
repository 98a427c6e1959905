"""How answers are explained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evalrun.errors import UserError
from evalrun.explain.faithful import RANDOM
from evalrun.explain.subject import Target
from evalrun.explain.units import LEVELS, check_levels
from evalrun.explanations import GRADIENTS
from evalrun.registry import nearest

METHODS: tuple[str, ...] = ("occlusion", "shapley", "owen", *GRADIENTS)
REMOVALS: tuple[str, ...] = ("auto", "delete", "mask", "resample")
TARGETS = ("auto", "answer", "target", "contrast")


@dataclass(frozen=True, slots=True)
class Options:
    """How to explain. `most` prompts are asked about at most for each level of a sample, `rankings` random
    rankings are set beside one."""

    method: str = "occlusion"
    units: tuple[str, ...] = LEVELS
    target: Target = "auto"
    removal: str = "auto"
    most: int = 400
    rankings: int = RANDOM
    faithfulness: bool = True
    attention: int = 0
    """Of so many samples, maps of attention and the likeliest tokens are kept (provider transformers)."""

    def check(self) -> Options:
        """Itself, with units in their order. Raises UserError for what is unknown."""
        for name, known in (("method", METHODS), ("removal", REMOVALS), ("target", TARGETS)):
            value = getattr(self, name)
            if value not in known:
                near = nearest(value, known)
                remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(known)}."
                raise UserError(f"unknown {name} '{value}'", where=name, remedy=remedy)
        return replace(self, units=check_levels(self.units))
