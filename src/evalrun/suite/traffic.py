"""`traffic:` of a dataset: which production records are its rows."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from evalrun.spans import span_s
from evalrun.suite.findings import complaint
from evalrun.suite.values import Spec

Source = Literal["auto", "otlp", "openinference", "langfuse", "openai_logs", "jsonl", "parquet"]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _unit(text: str) -> str:
    if not re.fullmatch(r"each_generation|last_generation|root|named:\s*\S.*", text):
        raise ValueError(f"'{text}' is no unit: each_generation, last_generation, root or named:NAME")
    return text


def _span(text: str) -> str:
    if span_s(text) is None:
        raise ValueError(f"'{text}' is no span of time: write 10m or 1h")
    return text


class TrafficSampleSpec(Spec):
    """Which of the records are taken, by a hash of their ids: every machine takes the same."""

    n: int | None = Field(default=None, ge=1, description="So many rows, alike of each stratum.")
    rate: float | None = Field(default=None, gt=0, le=1, description="This share of the rows.")
    strata: Annotated[list[str], BeforeValidator(_listed)] = Field(
        default_factory=list, description="Columns (or attributes) of whose values rare ones are to be seen."
    )
    always: str = Field(default="", description="Rows that are taken in any case, with weight 1.")
    seed: Annotated[str, Field(coerce_numbers_to_str=True)] = Field(
        default="0", description="Another text takes other rows; `day`: others every day (UTC)."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.n is not None and self.rate is not None:
            raise complaint("n and rate exclude each other", path=("rate",))
        return self


class TrafficSpec(Spec):
    """Production records as rows: read, filtered, sampled and redacted before anything is stored."""

    path: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)] = Field(
        description="Files of records, patterns or folders; relative ones start at the suite's folder."
    )
    source: Source = Field(default="auto", description="What wrote the records; auto goes by content.")
    where: str = Field(
        default="",
        description='Keep records for which this is true: \'service == "triage" and attributes["env"] == '
        '"prod"\'.',
    )
    since: str = Field(default="", description="Not before: 24h ago, 7d, or an ISO 8601 time.")
    until: str = Field(default="", description="Before this. Default: now, less `late` where that is given.")
    late: Annotated[str, AfterValidator(_span)] | None = Field(
        default=None, description="So long after its end a window is open still: spans come late (10m)."
    )
    unit: Annotated[str, AfterValidator(_unit)] = Field(
        default="last_generation",
        description="What a row is: each_generation, the last_generation of a trace, root, named:NAME.",
    )
    sample: TrafficSampleSpec = Field(
        default_factory=TrafficSampleSpec, description="Which of them are taken. Default: all."
    )
    kept: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The share of traces that was recorded, where the records do not say it (also: rate).",
    )
    map: dict[str, str] = Field(
        default_factory=dict,
        description="Where a column is found: {text: messages[-1].content, output: reply.text}.",
    )
    columns: list[str] = Field(default_factory=list, description="Attributes to keep as columns.")
    redact: str = Field(
        default="standard",
        description="Before anything is stored: standard, strict, presidio, none, package.module:function.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rate(cls, data: Any) -> Any:
        if isinstance(data, dict) and "rate" in data and "kept" not in data:
            return {("kept" if key == "rate" else key): value for key, value in data.items()}
        return data


DEFAULTS = {
    "key": "request_id",
    "weight": "weight",
    "strata": "stratum",
    "cluster": "{{ user_key or conversation or trace_id or request_id }}",
}
"""What a dataset of traffic names its columns of rows, weights, strata and clusters by, unless it says so."""


def with_defaults(data: Any) -> Any:
    """The entry of a dataset, with the columns that every row of traffic has."""
    if not isinstance(data, dict) or not data.get("traffic"):
        return data
    return {**data, **{key: value for key, value in DEFAULTS.items() if key not in data}}
