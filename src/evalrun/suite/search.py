"""What a suite says of a search: which candidates, by which metric, and when it ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from evalrun.suite.components import Chain, ParserSpec
from evalrun.suite.findings import complaint
from evalrun.suite.values import Fraction, Spec
from evalrun.types import JSON

SELECTS = ("models", "prompts")
"""Axes whose values are ids of the suite."""

SHOTS = "few_shot.count"
"""The axis of how many worked examples are shown: each prompt with each of the numbers."""

PARSE = "parse"
"""The axis of what reads the answers: each prompt with each chain of parsers. It costs no further request."""


_CHAIN: TypeAdapter[list[ParserSpec]] = TypeAdapter(Chain)


class ProposeRules(Spec):
    """Who writes new prompts, and what of them."""

    model: str = Field(description="A model of the suite that writes; it is no candidate.")
    sections: list[str] = Field(
        default_factory=list,
        description="The sections ({% section NAME %}) that are written anew. Default: all there are, else "
        "the whole text of each message.",
    )
    candidates: int = Field(default=10, ge=1, description="How many proposals are made.")
    minibatch: int = Field(default=8, ge=2, description="Rows that the writer is shown at a time.")


class SearchRules(Spec):
    """A search for the best prompt, model or parameters: `evalrun search SUITE`."""

    by: Literal["race", "tpe", "gepa"] = Field(
        default="race",
        description="race: blocks of the same rows to every candidate that is left; who is shown to be worse "
        "is asked no more. tpe: parameters from ranges, proposed by Optuna (extra `search`). gepa: prompts "
        "that a model of the suite writes (extra `search`).",
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
    over: dict[str, Annotated[list[JSON], Field(min_length=1)] | dict[str, float]] = Field(
        default_factory=dict,
        description="The candidates: `models` and `prompts` to ids of the suite, `few_shot.count` to numbers "
        "of worked examples (0: none), `params.NAME` to values, with `tpe` also to a range {from: 0, to: 1}, "
        "which may have a step; `parse` to lists of parsers, which all read the same answers. Default: the "
        "whole matrix.",
    )
    trials: int = Field(default=20, ge=1, description="How many settings `tpe` tries.")
    propose: ProposeRules | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Who writes the prompts of `gepa`, and how many.",
    )
    guards: list[str] = Field(
        default_factory=list,
        description="What a winner must hold, as gates are written: METRIC no worse than baseline by MARGIN, "
        "METRIC <= NUMBER. A candidate that does not is not chosen, however good it is.",
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
        self._check_ways()
        for name, values in self.over.items():
            if isinstance(values, dict):
                self._check_range(name, values)
            elif name in SELECTS:
                if not all(isinstance(value, str) for value in values):
                    raise complaint(f"{name} are ids", "Name some of the suite.", ("over", name))
            elif name == SHOTS:
                if not all(type(value) is int and value >= 0 for value in values):
                    raise complaint("few_shot.count are whole numbers", "Write [0, 2, 4].", ("over", name))
            elif name == PARSE:
                self._check_chains(values)
            elif not name.startswith("params.") or name == "params.":
                axes = ", ".join((*SELECTS, SHOTS, PARSE))
                remedy = f"Axes are {axes} and params.NAME (params.temperature)."
                raise complaint(f"'{name}' is no axis of a search", remedy, ("over", name))
        if self.hold_out >= 1:
            raise complaint("no rows are left to search by", "Hold out less, such as 30%.", ("hold_out",))
        return self

    @property
    def chains(self) -> dict[str, list[ParserSpec]]:
        """The chains of parsers of the axis `parse`, each under a name."""
        made: dict[str, list[ParserSpec]] = {}
        for value in self.over.get(PARSE, ()):
            chain = _CHAIN.validate_python(value if isinstance(value, list) else [value])
            name = "_then_".join(re.sub(r"\W", "_", each.id) for each in chain) or "as_is"
            same = sum(other == name or other.startswith(f"{name}_") for other in made)
            made[f"{name}_{same + 1}" if same else name] = chain
        return made

    def _check_chains(self, values: Sequence[JSON]) -> None:
        for at, value in enumerate(values):
            try:
                _CHAIN.validate_python(value if isinstance(value, list) else [value])
            except ValidationError as error:
                said = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise complaint(said, "Each value is a list of parsers.", ("over", PARSE, at)) from None

    def _check_ways(self) -> None:
        if self.by == "gepa" and self.propose is None:
            raise complaint("nobody writes the prompts", "Write propose: {model: WRITER}.", ("by",))
        if self.by == "tpe":
            if not self.over:
                raise complaint("tpe has nothing to try", "Write over: {params.temperature: …}.", ("by",))
            if any(name in (*SELECTS, SHOTS, PARSE) for name in self.over):
                what = "tpe is over parameters; models, prompts, examples, parsers are few enough for a race"
                raise complaint(what, "Write by: race, or over: {params.temperature: …}.", ("over",))

    def _check_range(self, name: str, values: dict[str, float]) -> None:
        if self.by != "tpe":
            raise complaint("a range is for by: tpe", "Write a list of values.", ("over", name))
        if not {"from", "to"} <= set(values) <= {"from", "to", "step"} or not values["from"] < values["to"]:
            raise complaint(
                "this is no range", "Write {from: 0, to: 1}, if need be with step.", ("over", name)
            )
        if not name.startswith("params.") or name == "params.":
            raise complaint(f"'{name}' has no range", "Ranges are of params.NAME.", ("over", name))
        if values.get("step", 1) <= 0:
            raise complaint("a step is above 0", "Leave it out, or write such as 0.1.", ("over", name))


class EarlyRules(Spec):
    """When the runs of an ordinary sweep end before all rows are asked. What decides, and every interval that
    is reported, holds however often one looks."""

    decided: bool = Field(
        default=False,
        description="End a run when its gates are decided; where no gate can be looked at, when the runs of "
        "its dataset are told apart.",
    )
    until: float | None = Field(
        default=None,
        gt=0,
        description="End a run when the interval of its first scorer's mean is this wide to either side.",
    )
    of: Literal["dataset", "population"] = Field(
        default="dataset",
        description="What `until` speaks of. dataset: the score on all rows of the data set, drawn without "
        "replacement; population: what the rows are drawn from, which takes more of them.",
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="The level, over all looks together.")
    block: int = Field(default=25, ge=1, description="Rows (or clusters) asked before one looks again.")

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        if not self.decided and self.until is None:
            raise complaint("nothing is said of when to end", "Write decided: true or until: 0.03.", ())
        return self
