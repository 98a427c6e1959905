"""Kinds of values in a suite: paths, patterns, fractions, formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from evalrun.suite.components import Spec
from evalrun.suite.findings import complaint, describe
from evalrun.suite.formula import FormulaError, parse_formula

LocalPath = Annotated[Path, Field(strict=False)]
"""A path as written: relative ones start at the suite's folder."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    list[str],
    BeforeValidator(_one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One pattern, or a list of them."""


def _fraction(value: Any) -> Any:
    """0.02 from "2%"; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return float(value.removesuffix("%")) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise complaint(f"expected a fraction or a percentage, found {describe(value)}") from None


Fraction = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(ge=0, le=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"},
            ]
        }
    ),
]
"""A share between 0 and 1, or a percentage such as "2%"."""


def _formula(value: str) -> str:
    try:
        parse_formula(value)
    except FormulaError as error:
        raise complaint(str(error), error.remedy) from None
    return value


Formula = Annotated[str, AfterValidator(_formula)]
"""Arithmetic over the scores of a sample."""


def exactly_one(spec: Spec, keys: tuple[str, ...]) -> None:
    """Complain unless exactly one of the keys is given."""
    given = [key for key in keys if getattr(spec, key) is not None]
    if len(given) == 1:
        return
    choice = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if given:
        raise complaint(f"{' and '.join(given)} exclude each other", f"Give exactly one of {choice}.")
    raise complaint(f"one of {choice} is missing")
