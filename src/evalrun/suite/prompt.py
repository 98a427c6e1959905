"""`prompts:` of a suite."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from evalrun.suite.asking import Asked
from evalrun.suite.components import Id, Spec
from evalrun.suite.findings import complaint
from evalrun.suite.values import LocalPath, exactly_one
from evalrun.types import JSON


class FewShotSpec(Spec):
    """Worked examples that are shown to the model before the question."""

    count: int = Field(ge=0, description="How many examples each sample is given.")
    split: str | None = Field(default=None, description="The split of the same dataset they come from.")
    path: LocalPath | None = Field(default=None, description="The file they come from instead.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, ("split", "path"))
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
    text: str | None = Field(default=None, description="A Jinja2 template over the row's columns.")
    messages: list[PromptMessage] | None = Field(
        default=None, min_length=1, description="Chat messages, each a template."
    )
    system: str | None = Field(
        default=None, description="System message put before a file or text prompt; a template too."
    )
    few_shot: FewShotSpec | None = Field(default=None, description="Worked examples before the question.")
    ask: Asked = Field(
        default=None,
        description="What is wanted: generate (an answer in words, the default), {choose: …} (the likeliest "
        "of several texts) or perplexity (how likely the prompt's text is).",
    )
    ablate: bool = Field(
        default=False,
        description="Run the prompt also without each of its marked sections ({% section NAME %}… "
        "{% endsection %}) and without each few-shot example, to see what each of them adds.",
    )

    _ablates: str = PrivateAttr(default="")
    _without: str = PrivateAttr(default="")

    @property
    def ablates(self) -> str:
        """Id of the prompt that this one is made from by leaving a part out; "" for one of the suite's."""
        return self._ablates

    @property
    def without(self) -> str:
        """The part that is left out, such as "section rules" or "example 2"; "" where there is none."""
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
