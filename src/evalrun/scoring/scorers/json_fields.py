"""How many fields of a JSON answer are those of the target."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    fraction,
    shown,
)
from evalrun.scoring.structure import at_path, leaves, same_value, value_of
from evalrun.types import Score

_STAY = " Unparsed and refused answers count as 0; failed samples are left out."


class JsonFieldsOptions(ScorerOptions):
    """Options of the scorer `json_fields`."""

    fields: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Dotted paths to compare (address.city, items.0.price), each a metric of its own. "
        "Default: every leaf of the target.",
    )
    ignore_case: bool = Field(default=False, description="Whether text is the same in either case.")
    abs_tolerance: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Greatest difference of equal numbers."
    )


class JsonFields(Scorer):
    """The share of the target's fields that the answer has right."""

    Options: ClassVar[type[JsonFieldsOptions]] = JsonFieldsOptions
    shorthand = "fields"
    registered = "json_fields"
    needs_target = True
    summary = (
        "Share of the target's JSON fields that the answer has with the same value, field by field; and "
        "whether all are right. Fields that only the answer has do not count."
    )

    def __init__(self, options: JsonFieldsOptions) -> None:
        super().__init__(options)
        self._slugs = _slugs(options.fields or [])
        self.parts = ("all", *self._slugs.values())

    def score(self, sample: ScoringInput) -> Score:
        """Between 0 and 1; None where the target is no JSON with fields, or lacks those to compare."""
        options: JsonFieldsOptions = self.options
        target, answer = value_of(sample.target), value_of(sample.answer)
        if not isinstance(target, dict | list):
            return Score(None, f"the target {shown(sample.target)} is no JSON object or list")
        wanted = dict(leaves(target))
        if options.fields is not None:
            wanted = {path: at_path(target, path)[1] for path in options.fields if at_path(target, path)[0]}
        if not wanted or wanted == {"": target}:
            return Score(None, f"the target {shown(sample.target)} has none of the fields")
        right: dict[str, bool] = {}
        for path, value in wanted.items():
            there, given = at_path(answer, path)
            right[path] = there and same_value(
                given, value, ignore_case=options.ignore_case, tolerance=options.abs_tolerance
            )
        hits = sum(right.values())
        parts: dict[str, float | None] = {"all": float(hits == len(right))}
        parts |= {slug: float(right[path]) if path in right else None for path, slug in self._slugs.items()}
        wrong = [path for path, same in right.items() if not same]
        reason = f"{hits} of {len(right)} fields are right"
        if wrong:
            reason += f"; not {', '.join(wrong[:5])}" + (" and others" if len(wrong) > 5 else "")
        return Score(hits / len(right), reason, parts)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same as `describe`, and one metric for each field that the suite names."""
        fields = tuple(
            fraction(
                f"{self.name}.{slug}",
                f"Share of samples whose answer has the target's value in the field {path}." + _STAY,
            )
            for path, slug in self._slugs.items()
        )
        return (*self.describe(self.name), *fields)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean share of right fields, and the share of answers without a wrong one."""
        return (
            fraction(
                f"{name}.share",
                "Mean over samples of the share of the target's JSON fields (its leaves, or those that the "
                "suite names) that the answer has with the same value." + _STAY,
            ),
            fraction(
                f"{name}.all",
                "Share of samples whose answer has every one of the compared fields right." + _STAY,
            ),
        )


def _slugs(paths: list[str]) -> dict[str, str]:
    """Paths as parts of metric names: lower case, other characters as _; equal ones are numbered."""
    found: dict[str, str] = {}
    for path in paths:
        slug = plain = re.sub(r"[^a-z0-9]+", "_", path.lower()).strip("_") or "field"
        number = 2
        while slug in found.values() or slug in ("all", "share"):
            slug, number = f"{plain}_{number}", number + 1
        found.setdefault(path, slug)
    return found
