"""`datasets:` of a suite."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from evalrun.suite.components import Id, Spec
from evalrun.suite.findings import complaint
from evalrun.suite.sensitive import SENSITIVE, check_withheld, split_sensitive
from evalrun.suite.values import LocalPath, exactly_one
from evalrun.suite.versions import AttributeSpec, PerturbationSpec, check_versions
from evalrun.types import JSON


class DatasetSpec(Spec):
    """Rows to ask about: a local file, a dataset on the Hugging Face Hub, or rows written in the suite."""

    id: Id = Field(description="Name of the dataset in this suite, in results and on the command line.")
    path: LocalPath | None = Field(
        default=None, description="Local file: JSONL (also .gz), JSON, CSV, Parquet."
    )
    hub: str | None = Field(default=None, description="Name of a dataset on the Hugging Face Hub.")
    rows: list[dict[str, JSON]] | None = Field(
        default=None, min_length=1, description="The rows themselves, each a mapping of column to value."
    )
    format: Literal["jsonl", "csv", "parquet", "json"] | None = Field(
        default=None, description="Format of the local file. Default: by its suffix."
    )
    config: str | None = Field(default=None, description="Configuration of the Hub dataset.")
    revision: str | None = Field(
        default=None, description="Revision of the Hub dataset: commit, tag or branch."
    )
    split: str | None = Field(default=None, description="Split of the Hub dataset.")
    splits: dict[str, LocalPath] = Field(
        default_factory=dict,
        description="Further splits in local files, for few-shot examples: name to path. Where a "
        "suffix does not tell the format, it is that of `format`.",
    )
    limit: int | None = Field(default=None, ge=1, description="Use this many rows at most.")
    shuffle: bool = Field(default=False, description="Shuffle the rows by the suite's seed before the limit.")
    where: str | None = Field(
        default=None, description="Keep only rows for which this Jinja2 expression over the columns is true."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Further columns made from the others: name to template."
    )
    target: str | None = Field(
        default=None, description="The right answer: a column's name, or a template where it holds {{ }}."
    )
    key: str | None = Field(
        default=None, description="Column that names each row. Default: a digest of the row's content."
    )
    sensitive: Annotated[list[str], WithJsonSchema(SENSITIVE)] = Field(
        default_factory=list,
        description="Columns that hold the groups for fairness. {column: gender, store: drop} uses one for "
        "aggregates and stores it nowhere.",
    )
    withheld: list[str] = Field(
        default_factory=list, description="The sensitive columns that are not stored (store: drop)."
    )
    cluster: str | None = Field(
        default=None,
        description="Column of rows that belong together (one template, one document); "
        "standard errors are clustered by it.",
    )
    counterfactual: dict[str, AttributeSpec] = Field(
        default_factory=dict,
        description="Ask every sample in versions that differ in an attribute: {name: [Emily, Lakisha]} for "
        "a variable of the template. Several attributes are combined.",
    )
    perturb: list[PerturbationSpec] = Field(
        default_factory=list,
        description="Ask every sample as it stands and once more for each of these changes of its text.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Notes for display and search.")

    @model_validator(mode="before")
    @classmethod
    def _split_sensitive(cls, data: Any) -> Any:
        return split_sensitive(data)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, ("path", "hub", "rows"))
        check_withheld(self)
        check_versions(self)
        for key in ("config", "revision", "split"):
            if getattr(self, key) is not None and self.hub is None:
                raise complaint(f"'{key}' belongs to a dataset from the Hub", path=(key,))
        if self.format is not None and self.path is None:
            raise complaint("'format' belongs to a dataset with a path", path=("format",))
        return self
