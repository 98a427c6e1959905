"""What a suite says of a search: which candidates, by which metric, and when it ends."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evalrun.suite.findings import complaint
from evalrun.suite.values import Fraction, Spec
from evalrun.types import JSON

SELECTS = ("models", "prompts")
"""Axes whose values are ids of the suite."""


class SearchRules(Spec):
    """A search for the best prompt, model or parameters: `evalrun search SUITE`."""

    by: Literal["race"] = Field(
        default="race",
        description="race: blocks of the same rows to every candidate that is left; who is shown to be worse "
        "is asked no more.",
    )
    metric: str | None = Field(
        default=None,
        description="What candidates are compared by: a scorer, or its metric that is the mean of its score, "
        "between known bounds. Default: the first scorer.",
    )
    baseline: str | None = Field(
        default=None,
        description="What the winner is compared with on the rows held out: the id of a prompt, model or run "
        "that one candidate has. Default: the first candidate.",
    )
    over: dict[str, Annotated[list[JSON], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="The candidates: `models` and `prompts` to ids of the suite, `params.NAME` to values. "
        "Default: the whole matrix.",
    )
    hold_out: Fraction = Field(
        default=0.3,
        description="The share of rows that the search never sees. On these winner and baseline are compared "
        "once. 0: no such comparison, and the winner's score is too high.",
    )
    block: int = Field(default=25, ge=1, description="Rows (or clusters) asked before one looks again.")
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="The chance, at most, that the best candidate is ever dropped."
    )
    within: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="End when all candidates left are shown to be this close to one another. 0: never.",
    )

    @model_validator(mode="after")
    def _known_axes(self) -> Self:
        for name, values in self.over.items():
            if name in SELECTS:
                if not all(isinstance(value, str) for value in values):
                    raise complaint(f"{name} are ids", "Name some of the suite.", ("over", name))
            elif not name.startswith("params.") or name == "params.":
                remedy = f"Axes are {', '.join(SELECTS)} and params.NAME, such as params.temperature."
                raise complaint(f"'{name}' is no axis of a search", remedy, ("over", name))
        if self.hold_out >= 1:
            raise complaint("no rows are left to search by", "Hold out less, such as 30%.", ("hold_out",))
        return self
