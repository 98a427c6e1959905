"""What a suite says of personal data: what is searched for in texts, and what is stored of columns."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evalrun.suite.findings import complaint
from evalrun.suite.values import Spec


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as a truth value."""
    return "off" if value is False else value


JudgesSee = Literal["raw", "redacted"]
ColumnRule = Literal["full", "redact", "hmac", "drop", "withhold"]


class RecogniserSpec(Spec):
    """A recogniser of one's own: a pattern, or a function of a text that gives the spans to remove."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] = Field(
        description="Name of what it recognises; a text then has <NAME_1> in its place."
    )
    pattern: str | None = Field(default=None, description="Regular expression (Python's).")
    python: str | None = Field(
        default=None,
        description="A function text -> list of (start, end), as package.module:function. Modules beside the "
        "suite are found.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pattern is None) == (self.python is None):
            raise complaint("give exactly one of pattern and python")
        if self.pattern is not None:
            try:
                matches_nothing = re.compile(self.pattern).match("") is not None
            except re.error as error:
                raise complaint(f"is no regular expression: {error}", path=("pattern",)) from error
            if matches_nothing:
                raise complaint("it matches the empty text, so everywhere", path=("pattern",))
        return self


class PresidioSpec(Spec):
    """How presidio is used: without a model by default, and never with the network."""

    language: str = Field(default="en", description="Language of the texts, as presidio names it.")
    model: str | None = Field(
        default=None,
        description="Folder of a spaCy model on this machine, for names and places. Default: patterns alone.",
    )
    threshold: float = Field(
        default=0.4, ge=0, le=1, description="Findings that presidio is less sure of are left."
    )


class PrivacySpec(Spec):
    """What is removed from texts before they are stored. Scores are made of the texts as they were."""

    redact: Annotated[Literal["off", "standard", "strict", "presidio"], BeforeValidator(_off)] = Field(
        default="standard",
        description="Recognisers that search all texts: standard (those with a check: e-mail, phone, IBAN, "
        "card, IP address, US social security number, secrets), strict (national numbers of more countries, "
        "and looser forms, too), presidio (standard and what presidio finds), off (only columns and known).",
    )
    entities: list[str] = Field(
        default_factory=list, description="Search for these only. Default: all of the recognisers."
    )
    columns: dict[str, ColumnRule] = Field(
        default_factory=dict,
        description="What is stored of a dataset's column: redact (searched, as all are), full (as it is), "
        "hmac (a keyed hash: the same value, the same text), withhold (<WITHHELD>), drop (nothing). The "
        "values of the last three are removed from all other texts of the row too.",
    )
    known: list[str] = Field(
        default_factory=list,
        description="Columns whose values (names, addresses) are removed wherever they occur in the row's "
        "texts: prompt, answer, reasoning, tool calls, what a judge said.",
    )
    outputs: Literal["redact", "full"] = Field(
        default="redact", description="full: what models said is stored as it is."
    )
    subject: str | None = Field(
        default=None,
        description="Column that says whose data a row is, for `evalrun erase --subject`; stored as hmac "
        "unless `columns` says otherwise.",
    )
    judges: JudgesSee | dict[str, JudgesSee] = Field(
        default="raw",
        description="What judges, embedding models and scorers that take long are given: texts as they were "
        "(kept encrypted until the run is scored), or what is stored, where a judge is somebody else's. By "
        "the id of a judge, for that one alone: {theirs: redacted}.",
    )
    cache: Annotated[Literal["off", "encrypted"], BeforeValidator(_off)] = Field(
        default="off",
        description="off: answers are not cached, since the cache keeps them as they came. encrypted: they "
        "are, under the store's key (needs the package cryptography).",
    )
    min_group: int = Field(
        default=0,
        ge=0,
        description="Groups of fewer samples are not shown in results, reports and exports (10, say).",
    )
    recognisers: list[RecogniserSpec] = Field(default_factory=list, description="Recognisers of one's own.")
    presidio: PresidioSpec = Field(default_factory=PresidioSpec, description="Settings of redact: presidio.")

    @property
    def rules(self) -> dict[str, ColumnRule]:
        """What is stored of columns, with that of the subject."""
        subject: dict[str, ColumnRule] = {} if self.subject is None else {self.subject: "hmac"}
        return {**subject, **self.columns}

    @property
    def active(self) -> bool:
        """Whether anything is removed at all."""
        removes = any(rule != "full" for rule in self.rules.values())
        return self.redact != "off" or removes or bool(self.known or self.recognisers)

    def sees_raw(self, judge: str) -> bool:
        """Whether a judge is given texts as they were."""
        return (self.judges.get(judge, "raw") if isinstance(self.judges, dict) else self.judges) == "raw"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in self.known:
            if self.columns.get(name) == "full":
                raise complaint(f"'{name}' is stored as it is, and known", "Choose one.", ("columns", name))
        names = [each.name for each in self.recognisers]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise complaint(f"two recognisers are called '{name}'", path=("recognisers", at))
        return self


def _days(value: Any) -> Any:
    """180d, 6 months as 26w, 10y; a whole number of days."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value}d"
    return value


Duration = Annotated[str, BeforeValidator(_days), Field(pattern=r"^[1-9][0-9]*[dwy]$")]
"""A time to keep something: 180d, 26w or 10y."""
_DAYS = {"d": 1, "w": 7, "y": 365}


class RetentionSpec(Spec):
    """How long a sweep of the suite is kept; `evalrun retain` says what is due, and does it with --yes."""

    samples: Duration | None = Field(
        default=None, description="After this time texts are erased; scores and times stay. Such as 180d."
    )
    sweeps: Duration | None = Field(default=None, description="After this time the sweep is deleted.")
    minimum: Duration | None = Field(
        default=None, description="Nothing goes by retention before this time, whatever the others say."
    )

    def days(self, key: str) -> int | None:
        """A time in days; None where nothing is said."""
        text = getattr(self, key)
        return None if text is None else int(text[:-1]) * _DAYS[text[-1]]
