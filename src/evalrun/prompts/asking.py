"""What is asked for with a prompt in place of an answer in words: its options, made from each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from evalrun.errors import UserError
from evalrun.prompts.library import Library
from evalrun.templates import TemplateFailure, compile_value, is_template
from evalrun.types import JSON, Ask

if TYPE_CHECKING:
    from evalrun.suite.asking import AskSpec, ChooseSpec

Values = Mapping[str, JSON]
_Texts = Callable[[Values], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Asking:
    """Makes the `Ask` of a sample. Raises TemplateFailure for rows that give none."""

    make: Callable[[Values], Ask]
    separator: str | None
    """What stands between question and answer where options follow the prompt; None for other kinds."""


def compile_ask(spec: AskSpec, library: Library, where: str) -> Asking | None:
    """Compile the templates of an ask; what is wrong with them stands in the library's problems."""
    if spec.choose is not None:
        return _choose(spec.choose, library, f"{where}, ask")
    assert spec.perplexity is not None
    render = library.add(spec.perplexity.context, lambda line: f"{where}, ask, context, line {line}")
    if render is None:
        return None
    return Asking(lambda values: Ask("perplexity", context=render(values)), None)


def _choose(spec: ChooseSpec, library: Library, where: str) -> Asking | None:
    options = _texts(spec.options, library, f"{where}, options")
    answers = options if spec.answers is None else _texts(spec.answers, library, f"{where}, answers")
    if options is None or answers is None:
        return None
    own = spec.answers is not None

    def make(values: Values) -> Ask:
        texts = options(values)
        named = answers(values) if own else texts
        _check(texts, named, spec)
        return Ask("choose", spec.via, spec.by, texts, named, spec.separator, top=spec.top)

    return Asking(make, spec.separator)


def _texts(source: list[str] | str, library: Library, where: str) -> _Texts | None:
    if isinstance(source, str):
        return _listed(source, library, where)
    renders = [library.add(each, lambda line: where) for each in source]
    known = [render for render in renders if render is not None]
    if len(known) < len(renders):
        return None
    return lambda values: tuple(render(values) for render in known)


def _listed(source: str, library: Library, where: str) -> _Texts | None:
    """A column, or an expression, that gives a list."""
    template = source if is_template(source) else f"{{{{ row[{source!r}] }}}}"
    if library.add(template, lambda line: where) is None:
        return None
    value_of = compile_value(template, where).evaluate

    def texts(values: Values) -> tuple[str, ...]:
        value = value_of(values if "row" in values else {**values, "row": values})
        if not isinstance(value, list | tuple):
            raise TemplateFailure(f"'{source}' gives no list: {type(value).__name__}")
        if any(isinstance(each, dict | list | bool) or each is None for each in value):
            raise TemplateFailure(f"'{source}' gives a list of something else than texts")
        return tuple(str(each) for each in value)

    return texts


def _check(options: tuple[str, ...], answers: tuple[str, ...], spec: ChooseSpec) -> None:
    """Raises TemplateFailure for options between which nothing can be chosen."""
    if len(options) < 2:
        raise TemplateFailure(f"a choice needs two options at least, and there is {len(options)}")
    if len(options) != len(answers):
        raise TemplateFailure(f"there are {len(options)} options and {len(answers)} answers")
    if not all(options):
        raise TemplateFailure("an option is empty")
    if len(set(options)) < len(options):
        raise TemplateFailure("two options are the same text")
    if spec.via == "first_token":
        words = [option.strip() for option in options]
        for one, other in permutations(words, 2):
            if not one or other.startswith(one):
                raise TemplateFailure(f"the first token cannot tell '{one}' from '{other}'")


def as_failure(failure: TemplateFailure, prompt: str, sample: str) -> UserError:
    """The failure of one sample's options, for the user."""
    return UserError(
        f"the options of prompt '{prompt}' cannot be made for sample '{sample}': {failure}",
        where=f"prompt {prompt}, ask",
    )
