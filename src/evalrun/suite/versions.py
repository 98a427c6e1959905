"""What a dataset says of versions of its samples: counterfactual values, and perturbations of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evalrun.suite.components import Id, Spec
from evalrun.suite.findings import complaint, describe

if TYPE_CHECKING:
    from evalrun.suite.schema import DatasetSpec

LocalPath = Annotated[Path, Field(strict=False)]


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
        twice = sorted({each for each in self.values if self.values.count(each) > 1})
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

PERTURB = "perturb"
"""The column of groups that says of a perturbed dataset's samples which version they are."""

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
