"""What a suite says of fairness: which groups are compared, by which decisions, against whom."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from evalrun.suite.components import Spec
from evalrun.suite.findings import complaint, describe


def _label(value: Any) -> Any:
    """A label as text. A bare yes, no, on or off in YAML is a truth value: that is said, not guessed at."""
    if isinstance(value, bool):
        raise complaint(
            f"expected a label, found {describe(value)}",
            'YAML reads a bare yes, no, on, off, true or false as a truth value: quote it ("yes").',
        )
    return str(value) if isinstance(value, int | float) else value


Label = Annotated[
    str,
    BeforeValidator(_label),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]}),
]
"""A label of answers or groups; a number stands for its text."""


class FairnessSpec(Spec):
    """Which groups are compared, by which decisions, and against whom."""

    by: list[str] = Field(min_length=1, description="Sensitive columns: each score is given by their groups.")
    min_group: int = Field(
        default=30, ge=1, description="Groups with fewer samples are marked as too small to judge."
    )
    positive: Label | None = Field(
        default=None,
        description="The favourable answer: demographic parity, equal opportunity and equalized odds are "
        "made for it, with selection, true and false positive rates by group.",
    )
    one_vs_rest: bool = Field(
        default=False, description="Make them for every label that is a target, each against the rest."
    )
    reference: dict[str, Label] = Field(
        default_factory=dict,
        description="The group that the others of a column are held against: column to group. "
        "Default: each group against all others together.",
    )
    intersections: list[Annotated[list[str], Field(min_length=2)]] = Field(
        default_factory=list,
        description="Sensitive columns whose combinations are compared as groups, such as "
        "[[dialect, gender]].",
    )
    control: list[str] = Field(
        default_factory=list,
        description="Sensitive columns that groups may rightly differ by: gaps are also given within each of "
        "their values.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.positive is not None and self.one_vs_rest:
            raise complaint("positive and one_vs_rest exclude each other", path=("one_vs_rest",))
        compared = [*self.by, *("-".join(each) for each in self.intersections)]
        for name in self.reference:
            if name not in compared:
                raise complaint(
                    f"'{name}' is not compared, so it needs no reference",
                    f"Compared are: {', '.join(compared)}.",
                    ("reference", name),
                )
        for index, names in enumerate(self.intersections):
            if len(set(names)) < len(names):
                raise complaint("a column stands twice", "Name each once.", ("intersections", index))
        return self
