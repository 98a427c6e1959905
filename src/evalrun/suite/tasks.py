"""`tasks:` of a suite: published tasks, by name, as lm-evaluation-harness has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from evalrun.suite.components import Id
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.findings import complaint
from evalrun.suite.values import Spec
from evalrun.types import JSON

LM_EVAL, WRITTEN = "lm_eval", "written"
"""What stands in the place of a prompt's id: who made the prompts of a task."""

TASK_DATA_VARIABLE = "EVALRUN_TASK_DATA"


def _files(value: Any) -> Any:
    return {"test": value} if isinstance(value, str) else value


Files = Annotated[dict[str, str], BeforeValidator(_files), Field(min_length=1)]
"""Files of a data set by split; one alone is the test split."""


class TaskSpec(Spec):
    """One entry: a task, a group, a tag or a pattern of lm_eval's registry, or a task's YAML of one's own."""

    lm_eval: str = Field(
        min_length=1,
        description="Name of a task, group or tag, a pattern with * and ?, or a path of a task's YAML "
        "(relative to the suite). `evalrun tasks list` lists the names.",
    )
    id: Id | None = Field(
        default=None,
        description="Name of the task in results, for the same task twice or a YAML of one's own. Of a "
        "group, what stands before its tasks' names.",
    )
    num_fewshot: int | None = Field(
        default=None, ge=0, description="Worked examples before each question. Default: the task's own."
    )
    limit: int | float | None = Field(
        default=None,
        gt=0,
        description="The first so many documents of each task, or below 1 that share of them.",
    )
    ask: Literal["published", "written"] = Field(
        default="published",
        description="published: as lm_eval asks it. written: multiple choice for models that only chat: the "
        "choices stand under letters in the question and the letter is read from the answer. That is another "
        "measure than lm_eval's, and has another name (acc.written).",
    )
    chat: bool | None = Field(
        default=None, description="Send messages. Default: as the model's `api` says (chat or completions)."
    )
    multiturn: bool = Field(
        default=True,
        description="With chat: each worked example is a turn of its own, not all in one message.",
    )
    system: str | None = Field(default=None, description="System instruction before the task's description.")
    generation: dict[str, JSON] = Field(
        default_factory=dict,
        description="Parameters of generation laid over the task's own: max_gen_toks, temperature, until.",
    )
    headline: str | None = Field(
        default=None,
        description="The metric that leads, such as acc_norm, exact_match.strict_match. Default: the first.",
    )
    metadata: dict[str, JSON] = Field(
        default_factory=dict,
        description="What tasks with data made by code are given (lm_eval's --metadata).",
    )
    max_length: int = Field(
        default=2048,
        ge=2,
        description="Tokens of the model's context: longer texts are cut on the left, as lm_eval does.",
    )
    bootstrap: int = Field(
        default=100_000, ge=0, description="Draws for standard errors that have no formula; 0 for none."
    )
    data: Files | None = Field(
        default=None,
        description="Local files in the place of the task's data set: split to path, or the path of the test "
        "split.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> TaskSpec:
        if self.ask == "written" and self.generation.get("until"):
            raise complaint("'until' is of no use with ask: written", path=("generation",))
        return self


def _entry(value: Any) -> Any:
    return {"lm_eval": value} if isinstance(value, str) else value


TaskEntry = Annotated[
    TaskSpec,
    BeforeValidator(_entry),
    WithJsonSchema({"anyOf": [{"type": "string"}, TaskSpec.model_json_schema()]}),
]


class TaskDataset(DatasetSpec):
    """The documents of one task in the place of a dataset. Never written in a suite."""

    _metrics: tuple[dict[str, JSON], ...] = PrivateAttr(default=())
    _headline: str = PrivateAttr(default="")
    _likelihoods: bool = PrivateAttr(default=False)

    @property
    def metrics(self) -> tuple[dict[str, JSON], ...]:
        """Its metrics as lm_eval names them (`key`), with the direction and the name of the aggregation."""
        return self._metrics

    @property
    def asks_likelihoods(self) -> bool:
        """Whether its documents are asked for likelihoods of given texts."""
        return self._likelihoods

    @property
    def headline(self) -> str:
        """The name of the metric that leads."""
        return self._headline

    @classmethod
    def of(
        cls,
        name: str,
        file: str,
        metrics: tuple[dict[str, JSON], ...],
        headline: str,
        *,
        likelihoods: bool,
        groups: list[str],
    ) -> TaskDataset:
        """A task whose documents stand in a file; `groups` are columns of theirs for fairness."""
        made = cls(id=name, path=Path(file), sensitive=groups)
        made._metrics, made._headline, made._likelihoods = metrics, headline, likelihoods
        return made


def metric_name(key: str) -> str:
    """evalrun's name of lm_eval's `metric,filter`: exact_match,strict-match is exact_match.strict_match, and
    the filter none is left out."""
    metric, _, of = key.partition(",")
    name = metric if of in ("", "none") else f"{metric}.{of}"
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._" else "_" for c in name.lower())
