"""`datasets:` of a suite: sources, sensitive columns, and the versions in which samples are asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from evalrun.suite.components import Id
from evalrun.suite.findings import complaint, describe
from evalrun.suite.traffic import TrafficSpec, with_defaults
from evalrun.suite.values import Fraction, LocalPath, Spec, exactly_one
from evalrun.types import JSON
from evalrun.types import PERTURB as PERTURB

SENSITIVE: dict[str, Any] = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "column": {"type": "string", "description": "The column's name."},
                    "store": {
                        "enum": ["keep", "drop"],
                        "description": "drop: used for aggregates, and stored nowhere.",
                    },
                },
                "required": ["column"],
                "additionalProperties": False,
            },
        ]
    },
}
"""The JSON Schema of the list."""


def split_sensitive(data: Any) -> Any:
    """The dataset entry with plain names under `sensitive`, and those of `store: drop` under `withheld`."""
    listed = data.get("sensitive") if isinstance(data, dict) else None
    if not isinstance(listed, list) or not any(isinstance(each, dict) for each in listed):
        return data
    names: list[Any] = []
    withheld = list(data.get("withheld") or [])
    for index, each in enumerate(listed):
        if not isinstance(each, dict):
            names.append(each)
            continue
        path = ("sensitive", index)
        if not isinstance(each.get("column"), str) or set(each) - {"column", "store"}:
            raise complaint("expected a column's name, or {column: NAME, store: drop}", path=path)
        if each.get("store", "keep") not in ("keep", "drop"):
            raise complaint("'store' is keep or drop", path=(*path, "store"))
        names.append(each["column"])
        if each.get("store") == "drop":
            withheld.append(each["column"])
    return {**data, "sensitive": names, "withheld": withheld}


def column_name(entry: Any) -> str | None:
    """The column that an entry of the list names, or None where it names none."""
    name = entry.get("column") if isinstance(entry, dict) else entry
    return name if isinstance(name, str) else None


def check_withheld(dataset: DatasetSpec) -> None:
    """Refuses what would store a dropped column all the same."""
    for index, column in enumerate(dataset.withheld):
        if column not in dataset.sensitive:
            raise complaint(f"'{column}' is not among the sensitive columns", path=("withheld", index))
    if not dataset.withheld:
        return
    if dataset.rows is not None:
        raise complaint(
            "rows written in the suite are stored with it, so none of their columns can be dropped",
            "Put them into a file.",
            ("rows",),
        )
    if dataset.key is None:
        raise complaint(
            "a row's name is made from its content where there is no key, so what is dropped could be "
            "guessed from it",
            "Name a column of ids: key: id.",
        )


def _value(value: Any) -> Any:
    """A value as text. A bare yes, no, on or off in YAML is a truth value: that is said, not guessed at."""
    if isinstance(value, bool):
        remedy = 'YAML reads a bare yes, no, on, off, true or false as a truth value: quote it ("yes").'
        raise complaint(f"expected a text, found {describe(value)}", remedy)
    return str(value) if isinstance(value, int | float) else value


Value = Annotated[str, BeforeValidator(_value)]


class AttributeSpec(Spec):
    """An attribute that the versions of a sample differ in, and nothing else does."""

    values: list[Value] = Field(
        min_length=2,
        max_length=50,
        description="The values it takes, one version of each sample for each. Without 'columns' they are "
        "values of a variable of that name for the templates.",
    )
    columns: list[str] = Field(
        default_factory=list,
        description="Columns of text in which the words are replaced: each of the values, or of 'words'.",
    )
    words: list[Annotated[list[Value], Field(min_length=2)]] = Field(
        default_factory=list,
        description="Words that correspond to each other, each list in the order of the values: "
        "[[he, she], [his, her]].",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: Any) -> Any:
        return {"values": data} if isinstance(data, list) else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        twice = sorted({value for value in self.values if self.values.count(value) > 1})
        if twice:
            raise complaint(f"the value '{twice[0]}' stands twice", path=("values",))
        if self.words and not self.columns:
            raise complaint("words are replaced in columns, and none is named", path=("words",))
        for index, row in enumerate(self.words):
            if len(row) != len(self.values):
                what = f"{len(self.values)} values need {len(self.values)} words, and there are {len(row)}"
                raise complaint(what, path=("words", index))
        return self


KINDS = ("typos", "case", "whitespace", "gendered", "words", "paraphrases", "python")


class PerturbationSpec(Spec):
    """One way to change a text that should not change the answer. Exactly one kind is given."""

    id: Id = Field(default="", validate_default=False, description="Name of the version. Default: the kind.")
    columns: list[str] = Field(
        default_factory=list,
        description="Columns of text that are changed (paraphrases: by default those of the file).",
    )
    typos: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the words (of four letters or more) with a slip of a key.",
    )
    case: Literal["upper", "lower", "title", "random"] | None = Field(
        default=None, description="Write all letters so; random: each either way."
    )
    whitespace: float | None = Field(
        default=None, gt=0, le=1, description="Share of the spaces that become two or three, a tab or a line."
    )
    gendered: Literal["male", "female", "swap"] | None = Field(
        default=None, description="Make English gendered words male or female, or swap the two."
    )
    words: dict[str, Value] | None = Field(
        default=None, min_length=1, description="Whole words to replace: word to its replacement (a dialect)."
    )
    paraphrases: LocalPath | None = Field(
        default=None,
        description="JSONL file with 'sample_id' and the new text of each column. Samples that it lacks have "
        "no such version.",
    )
    python: str | None = Field(
        default=None,
        description="A function text -> text, as package.module:function; it may take seed=. Modules beside "
        "the suite are found.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("id") is None:
            given = [kind for kind in KINDS if data.get(kind) is not None]
            if len(given) == 1:
                return {**data, "id": given[0]}
        return data

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} exclude each other" if given else "it says not what to change"
            raise complaint(what, f"Give exactly one of {', '.join(KINDS)}.")
        if not self.columns and self.paraphrases is None:
            raise complaint("the columns to change are missing", "Name them: columns: [text].")
        if self.id == ORIGINAL:
            raise complaint(f"'{ORIGINAL}' is the sample as it stands in the data", path=("id",))
        return self


ORIGINAL = "original"
"""The version of a sample that is not perturbed."""

MOST_VERSIONS = 100
"""Versions of each sample at most."""


def check_versions(dataset: DatasetSpec) -> None:
    """Refuses versions that cannot be told apart, and far too many."""
    if dataset.counterfactual and dataset.perturb:
        raise complaint(
            "counterfactual and perturb exclude each other", "Name the dataset twice, with another id."
        )
    if PERTURB in dataset.counterfactual or any(
        "~" in name or "=" in name for name in dataset.counterfactual
    ):
        raise complaint("an attribute cannot be called so", "Choose another name.", ("counterfactual",))
    names = [each.id for each in dataset.perturb]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise complaint(f"two changes are called '{name}'", "Give one an id.", ("perturb", index))
    versions = 1
    for attribute in dataset.counterfactual.values():
        versions *= len(attribute.values)
    if versions > MOST_VERSIONS:
        raise complaint(
            f"{versions} versions of each sample are more than {MOST_VERSIONS}",
            "Name the dataset several times with fewer attributes each.",
            ("counterfactual",),
        )


class PartSpec(Spec):
    """One of two parts of a dataset. Which part a row is in depends on the seed and on the row's cluster, key
    or content, and on nothing else: rows that come later move no other, and clusters stay whole."""

    take: Literal["search", "held_out"] = Field(
        description="held_out: the rows that nothing is chosen by; search: the others."
    )
    held_out: Fraction = Field(default=0.3, description="The share of rows that is held out.")
    seed: int = Field(default=0, ge=0, description="Another seed draws another part.")


class DatasetSpec(Spec):
    """Rows to ask about: a local file, a dataset on the Hugging Face Hub, rows written in the suite, or
    production records."""

    id: Id = Field(description="Name of the dataset in this suite, in results and on the command line.")
    path: LocalPath | None = Field(
        default=None,
        description="File of rows: JSONL (also .gz), JSON, CSV, Parquet; local, or s3://, gs://, hf://. "
        "Parquet there is read by row group, and may be a folder or a pattern of names.",
    )
    hub: str | None = Field(default=None, description="Name of a dataset on the Hugging Face Hub.")
    rows: list[dict[str, JSON]] | None = Field(
        default=None, min_length=1, description="The rows themselves, each a mapping of column to value."
    )
    traffic: TrafficSpec | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Production records as rows: traces, logs, exports. Key, weight, strata and cluster are "
        "set by it.",
    )
    format: Literal["jsonl", "csv", "parquet", "json"] | None = Field(
        default=None, description="Format of the local file. Default: by its suffix."
    )
    separator: str | None = Field(
        default=None,
        exclude=True,
        min_length=1,
        max_length=1,
        description="What separates the cells of a CSV file. Default: the comma, semicolon, tab or bar that "
        "stands most often in its header.",
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
    weight: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Column that says how many rows each stands for (a sample of traffic): means and "
        "figures are weighted by it.",
    )
    strata: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Column of the strata that the rows were drawn from; intervals of weighted means use it.",
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
    part: PartSpec | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Use only one part of the rows, drawn by a hash: those held out, or the others.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Notes for display and search.")

    @model_validator(mode="before")
    @classmethod
    def _split_sensitive(cls, data: Any) -> Any:
        return split_sensitive(with_defaults(data))

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, ("path", "hub", "rows", "traffic"))
        check_withheld(self)
        check_versions(self)
        if self.strata is not None and self.weight is None:
            raise complaint(
                "strata belong to rows with weights", "Name their column: weight: weight.", ("strata",)
            )
        for key in ("config", "revision", "split"):
            if getattr(self, key) is not None and self.hub is None:
                raise complaint(f"'{key}' belongs to a dataset from the Hub", path=(key,))
        if self.format is not None and self.path is None:
            raise complaint("'format' belongs to a dataset with a path", path=("format",))
        return self
