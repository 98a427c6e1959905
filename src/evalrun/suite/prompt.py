"""`prompts:` of a suite, and what they ask for: an answer in words, a choice by likelihood, a perplexity."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    field_serializer,
    model_validator,
)
from pydantic_core import core_schema

from evalrun.suite.components import Chain, Id, ParserSpec
from evalrun.suite.findings import complaint
from evalrun.suite.values import LocalPath, Spec, exactly_one
from evalrun.types import JSON

Listed = list[str] | str


def _texts(value: Any) -> Any:
    """Numbers as texts; a bare yes, no, on or off in YAML is a truth value: that is said, not guessed at."""
    if not isinstance(value, list):
        return value
    if any(isinstance(each, bool) for each in value):
        raise complaint('true and false are no texts: quote them ("true")')
    return [str(each) if isinstance(each, int | float) else each for each in value]


Options = Annotated[Listed, BeforeValidator(_texts)]


class ChooseSpec(Spec):
    """Which of several texts the model finds likeliest after the prompt. The chosen one is the answer."""

    options: Options = Field(
        description="The texts: a list of templates, or a column that holds a list, or one {{ expression }} "
        "that gives a list.",
    )
    answers: Options | None = Field(
        default=None,
        description="What each option stands for as an answer, in the same order and any of the same forms. "
        "Default: the options themselves.",
    )
    separator: str = Field(
        default=" ",
        description="What stands between prompt and option. Where the prompt ends with a space: ''.",
    )
    by: Literal["sum", "per_token", "per_byte"] = Field(
        default="sum",
        description="What decides: the log-likelihood of the option, or that by its tokens or its UTF-8 "
        "bytes, which does not favour short options. All three are recorded.",
    )
    via: Literal["prompt_logprobs", "first_token"] = Field(
        default="prompt_logprobs",
        description="prompt_logprobs: each option is sent behind the prompt, and its own tokens are scored "
        "(api: completions). first_token: one token is generated, and the likeliest alternatives to it say "
        "which option begins; for options with different beginnings, such as letters.",
    )
    top: int = Field(
        default=20, ge=1, le=1000, description="For first_token: so many alternatives are asked for."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        lists = [each for each in (self.options, self.answers) if isinstance(each, list)]
        if isinstance(self.options, list) and len(self.options) < 2:
            raise complaint("a choice needs two options at least", path=("options",))
        if len(lists) == 2 and len(lists[0]) != len(lists[1]):
            what = f"{len(lists[0])} options need {len(lists[0])} answers, and there are {len(lists[1])}"
            raise complaint(what, path=("answers",))
        if self.via == "first_token" and self.by != "sum":
            remedy = "Leave 'by' out: with first_token one token of each option is looked at."
            raise complaint("'by' is for via: prompt_logprobs", remedy, ("by",))
        return self


class PerplexitySpec(Spec):
    """How likely the prompt's text is. Nothing is generated, and there is no answer."""

    context: str = Field(
        default="",
        description="A template for what stands before the text and is not counted. Without one, the first "
        "token of the text has no probability, and is left out, unless the tokenizer puts a begin-of-text "
        "token there.",
    )


class AskSpec(Spec):
    """What is asked for in place of an answer in words. Exactly one is given."""

    choose: ChooseSpec | None = Field(default=None, description="A choice by likelihood.")
    perplexity: PerplexitySpec | None = Field(default=None, description="How likely the text is.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.choose is None) == (self.perplexity is None):
            raise complaint("expected either 'choose' or 'perplexity'")
        return self

    @property
    def via(self) -> Literal["prompt_logprobs", "first_token"]:
        """Where the likelihoods come from."""
        return self.choose.via if self.choose is not None else "prompt_logprobs"


def _written_form(value: Any) -> Any:
    if value == "generate":
        return None
    if value == "perplexity":
        return {"perplexity": {}}
    if value == "choose":
        raise complaint("'choose' needs options", "Write ask: {choose: {options: [A, B]}}.")
    if value == {"perplexity": None}:
        return {"perplexity": {}}
    if isinstance(value, str):
        raise complaint(f"expected generate, perplexity or {{choose: …}}, found '{value}'")
    return value


class _ShortForms:
    """The words that may stand in place of a mapping, for the JSON Schema."""

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        inner = handler(core)
        return {"anyOf": [{"enum": ["generate", "perplexity"]}, *inner.get("anyOf", [inner])]}


Asked = Annotated[AskSpec | None, BeforeValidator(_written_form), _ShortForms()]
"""How a prompt is asked; None for an answer in words."""


class FewShotSpec(Spec):
    """Worked examples that are shown to the model before the question."""

    count: int = Field(
        default=0, ge=0, description="How many examples each sample is given, drawn by seed and sample id."
    )
    first: int | None = Field(
        default=None,
        ge=1,
        description="Instead of count: the first so many rows, in their order, for every sample.",
    )
    ids: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Instead of count: these rows by id (key), in this order, for every sample.",
    )
    same: bool = Field(
        default=False, description="With count: one draw for all samples, in place of one for each."
    )
    of_own: str | None = Field(
        default=None,
        description="Column whose value an example must share with the sample: examples of the row's own "
        "category (MMLU's subjects). With first, the first so many of that category.",
    )
    split: str | None = Field(default=None, description="The split of the same dataset they come from.")
    path: LocalPath | None = Field(default=None, description="The file they come from instead.")
    contamination: Literal["warn", "leave_out", "error"] = Field(
        default="warn",
        description="What becomes of examples that ask what a tested row asks, apart from case, white space "
        "and punctuation: they are shown to other samples, with a warning; left out; or the suite is "
        "refused. A sample is never shown its own question.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, ("split", "path"))
        given = [name for name in ("count", "first", "ids") if getattr(self, name)]
        if len(given) > 1:
            raise complaint(f"{given[0]} and {given[1]} exclude each other", path=(given[1],))
        if "count" not in self.model_fields_set and not given:
            raise complaint("expected count, first or ids", "Write few_shot: {count: 4, split: train}.")
        if self.same and not self.count:
            raise complaint("'same' belongs to count: first and ids are the same anyway", path=("same",))
        return self

    @property
    def shown(self) -> int:
        """How many examples each sample is given."""
        return len(self.ids) if self.ids else self.first or self.count


class AblateSpec(Spec):
    """How a prompt is taken apart over a dataset."""

    method: Literal["loo", "shapley"] = Field(
        default="loo",
        description="loo: the prompt without each part, which misses what two parts say alike. shapley: with "
        "every combination of parts (2^n prompts, 8 parts at most), so that what they do together is shared.",
    )
    interactions: bool = Field(
        default=False,
        description="With shapley, also what each pair of parts does beyond the two alone: below 0 they say "
        "the same.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.interactions and self.method == "loo":
            raise complaint(
                "interactions need every combination of parts", "Write method: shapley.", ("interactions",)
            )
        return self


class PromptMessage(Spec):
    """One message of a chat."""

    role: str = Field(min_length=1, description="Who speaks: system, user or assistant.")
    content: str | Annotated[list[dict[str, JSON]], Field(min_length=1)] = Field(
        description="What is said: a Jinja2 template over the row's columns, or a list of parts as the chat "
        "API has them ({type: image_url, image_url: {url: '{{ picture }}'}}), every text in them a template."
    )


class PromptSpec(Spec):
    """One way to put a row to a model: a template in a file, a text, or chat messages."""

    id: Id = Field(description="Name of the prompt in this suite, in results and on the command line.")
    file: LocalPath | None = Field(default=None, description="File with a Jinja2 template.")
    allow_outside: bool = Field(
        default=False,
        exclude=True,
        description="Let `file` lie outside the suite's project: the nearest folder above the suite that has "
        ".git, pyproject.toml or a store.",
    )
    text: str | None = Field(default=None, description="A Jinja2 template over the row's columns.")
    messages: list[PromptMessage] | str | None = Field(
        default=None,
        min_length=1,
        description="Chat messages, each a template; or one {{ expression }} that gives a list of messages "
        "with role and content, such as a column.",
    )
    system: str | None = Field(
        default=None, description="System message put before a file or text prompt; a template too."
    )
    few_shot: FewShotSpec | None = Field(default=None, description="Worked examples before the question.")
    parse: Chain | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Parsers for the answers to this prompt, in place of the suite's `parse`.",
    )
    ask: Asked = Field(
        default=None,
        description="What is wanted: generate (an answer in words, the default), {choose: …} (the likeliest "
        "of several texts) or perplexity (how likely the prompt's text is).",
    )
    ablate: bool | AblateSpec = Field(
        default=False,
        description="Run the prompt also without each of its marked sections ({% section NAME %}… "
        "{% endsection %}) and without each few-shot example, to see what each of them adds. "
        "{method: shapley, interactions: true} runs every combination of them.",
    )

    _ablates: str = PrivateAttr(default="")
    _without: str = PrivateAttr(default="")

    @field_serializer("parse")
    def _as_written(self, chain: list[ParserSpec] | None) -> list[JSON] | None:
        return None if chain is None else [each.resolved() for each in chain]

    @property
    def ablates(self) -> str:
        """Id of the prompt that this one is made from by leaving a part out; "" for one of the suite's."""
        return self._ablates

    @property
    def without(self) -> str:
        """The part that is left out, such as "section rules" or "example 2", several with " + " between
        them; "" where there is none."""
        return self._without

    def leaving_out(self, part: str, prompt_id: str) -> Self:
        """The same prompt under another id with one part left out."""
        made = self.model_copy(update={"id": prompt_id, "ablate": False})
        made._ablates, made._without = self.id, part
        return made

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        exactly_one(self, ("file", "text", "messages"))
        if self.messages is not None and self.system is not None:
            raise complaint(
                "system and messages exclude each other", "Put the system text among the messages."
            )
        return self
