"""From a row to what is sent: messages, or one text for a completions endpoint."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.prompts.few_shot import FewShotPool, question_of, target_text
from evalrun.prompts.library import Library
from evalrun.prompts.sections import left_out_examples
from evalrun.templates import TemplateFailure, compile_value, is_template
from evalrun.types import JSON, Ask, Message, Row, hot_value

if TYPE_CHECKING:
    from evalrun.prompts.prompt import Part, Prompt
    from evalrun.suite.prompt import AskSpec, ChooseSpec


Values = Mapping[str, JSON]
_Texts = Callable[[Values], tuple[str, ...]]


@frozen
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


@hot_value
class Rendered:
    """What is sent for one sample: `messages`, or for a completions endpoint `prompt`. `ask` is None where an
    answer in words is wanted; `exact` as in `Request`."""

    messages: tuple[Message, ...]
    prompt: str | None
    ask: Ask | None = None
    exact: int = 0


class Renderer:
    """A prompt bound to its examples and seed. Rendering depends on the item alone."""

    def __init__(self, prompt: Prompt, pool: FewShotPool | None, seed: int) -> None:
        self._prompt, self._pool, self._seed = prompt, pool, seed
        self._count = prompt.few_shot.shown if prompt.few_shot and pool is not None else 0
        self._fixed: list[int] = self._named() if self._count else []
        self._shown: dict[int, tuple[str, str]] = {}
        self._questions: dict[tuple[str, tuple[str, ...]], Hashable] = {}
        self._dropped = sorted(left_out_examples(prompt.without), reverse=True)
        self._last_user = max((at for at, part in enumerate(prompt.parts) if part.role == "user"), default=-1)
        if pool is not None and len(pool) < self._count:
            raise self._too_few(pool)

    @property
    def pool(self) -> FewShotPool | None:
        """Where the examples come from; None where none are shown."""
        return self._pool

    def render(self, item: Item) -> Rendered:
        """What is sent for an item.

        Raises UserError naming prompt and sample where the template cannot be rendered for it.
        """
        values = self._values(item)
        ask = self._ask(values, item) if self._prompt.asking is not None else None
        texts = [self._text(part, values, item) for part in self._prompt.parts]
        shown: list[tuple[str, str]] = []
        if self._count and not self._prompt.places_examples:
            shown = [self._example(place) for place in self._picks(item)]
        if self._prompt.api == "completions":
            return Rendered((), self._one_text(texts, shown), ask)
        if self._prompt.parts and self._prompt.parts[0].role == "*":  # a list of messages from the row
            given = tuple(Message(each["role"], each["content"]) for each in texts[0])
            return Rendered(given, None, ask)
        messages = [Message(part.role, text) for part, text in zip(self._prompt.parts, texts, strict=True)]
        if shown:
            pairs = [Message(role, text) for pair in shown for role, text in zip(_PAIR, pair, strict=True)]
            messages[self._last_user : self._last_user] = pairs
        if self._prompt.without:  # a message that was nothing but the part left out is not sent at all
            messages = [message for message in messages if message.role == "user" or _says(message.content)]
        return Rendered(tuple(messages), None, ask)

    def _ask(self, values: Mapping[str, JSON], item: Item) -> Ask:
        assert self._prompt.asking is not None
        try:
            return self._prompt.asking.make(values)
        except TemplateFailure as failure:
            raise as_failure(failure, self._prompt.id, item.sample_id) from failure

    def _values(self, item: Item) -> Mapping[str, JSON]:
        """The row, with what else the template asks for. Columns go before names of our own."""
        prompt, row = self._prompt, item.row
        extra: dict[str, JSON] = {}
        if prompt.uses_row and "row" not in row:
            extra["row"] = row
        if prompt.places_examples and "examples" not in row:
            extra["examples"] = self._example_rows(item) if self._count else []
        return {**extra, **row} if extra else row

    def _text(self, part: Part, values: Mapping[str, JSON], item: Item) -> JSON:
        try:
            return part.render(values)
        except TemplateFailure as failure:
            where = part.place(failure.line or 1)
            if failure.name:  # an included file
                where = f"{self._prompt.folder.show(failure.name)}:{failure.line or 1}"
            raise UserError(
                f"prompt '{self._prompt.id}' cannot be rendered for sample '{item.sample_id}': {failure}",
                where=where,
            ) from failure

    def _one_text(self, texts: Sequence[str], shown: Sequence[tuple[str, str]]) -> str:
        *before, text = texts
        head = "".join(f"{part}\n\n" for part in before)
        # Where options are to follow the prompt, the examples show how.
        asking = self._prompt.asking
        between = "\n" if asking is None or asking.separator is None else asking.separator
        return head + "".join(f"{question}{between}{answer}\n\n" for question, answer in shown) + text

    def _picks(self, item: Item) -> list[int]:
        assert self._pool is not None
        # Versions of one sample are shown the same examples: they differ in nothing but the version.
        sample_id = item.base or item.sample_id
        few_shot = self._prompt.few_shot
        assert few_shot is not None
        unfit = self._unfit(item)
        if self._fixed:
            fitting = [
                place
                for place in self._fixed
                if self._pool.examples[place].sample_id != sample_id and not unfit(self._pool.examples[place])
            ]
            picks = fitting[: self._count]
        else:
            drawn_for = "" if few_shot.same else sample_id
            picks = self._pool.pick(drawn_for, self._count, self._seed, unfit)
        if len(picks) < self._count and not few_shot.ids:
            raise self._too_few(self._pool)
        for place in self._dropped:
            del picks[place]
        return picks

    def _named(self) -> list[int]:
        """The places of examples that are fixed, in the order in which they are shown: all rows in theirs for
        `first`, those that `ids` names. Raises UserError for an id that is not there."""
        assert self._pool is not None
        few_shot, examples = self._prompt.few_shot, self._pool.examples
        assert few_shot is not None
        if few_shot.ids:
            places = {example.sample_id: place for place, example in enumerate(examples)}
            missing = [name for name in few_shot.ids if name not in places]
            if missing:
                raise UserError(
                    f"{self._pool.name} has no row '{missing[0]}'",
                    where=f"prompt {self._prompt.id}, few_shot, ids",
                    remedy="Ids are those of the dataset's key, or the digests that `evalrun samples` shows.",
                )
            return [places[name] for name in few_shot.ids]
        if few_shot.first:
            return sorted(range(len(examples)), key=lambda place: examples[place].position)
        return []

    def _unfit(self, item: Item) -> Callable[[Item], bool]:
        """Whether an example asks what the sample asks, or is of another category than it must be."""
        same = self._same_question(item.row)
        few_shot = self._prompt.few_shot
        column = None if few_shot is None else few_shot.of_own
        if column is None:
            drawn = item.sample_id
            return lambda example: example.sample_id == drawn or same(example)
        own = item.row.get(column)
        return lambda example: (
            example.row.get(column) != own or example.sample_id == item.sample_id or same(example)
        )

    def _same_question(self, row: Row) -> Callable[[Item], bool]:
        """Whether an example asks what the sample asks: the same value, apart from case, white space and
        punctuation, in every column that the prompt reads. It keeps a sample's own answer out of its prompt
        where the pool holds the row, or a copy of it, under another id."""
        columns = self._asked(row)
        if not columns:
            return lambda example: False
        asked = question_of(row, columns)
        return lambda example: self._question(example, columns) == asked

    def _asked(self, row: Row) -> tuple[str, ...]:
        """The columns that say what a row asks."""
        if self._prompt.reads_whole_row:
            return tuple(row)
        return tuple(sorted(name for name in self._prompt.reads if name in row))

    def _question(self, example: Item, columns: tuple[str, ...]) -> Hashable:
        key = (example.sample_id, columns)
        if key not in self._questions:
            self._questions[key] = question_of(example.row, columns)
        return self._questions[key]

    def tested(self, items: Iterable[Item]) -> set[int]:
        """The places in the pool of examples that ask what one of these items asks, or nearly so."""
        if self._pool is None:
            return set()
        asked: dict[tuple[str, ...], set[Hashable]] = {}
        for item in items:
            columns = self._asked(item.row)
            if columns:
                asked.setdefault(columns, set()).add(question_of(item.row, columns))
        return {
            place
            for place, example in enumerate(self._pool.examples)
            if any(self._question(example, columns) in questions for columns, questions in asked.items())
        }

    def shows(self, item: Item, places: set[int]) -> bool:
        """Whether an item is shown one of the examples in these places."""
        return not places.isdisjoint(self._picks(item))

    def _example(self, place: int) -> tuple[str, str]:
        """Question and answer of one example, rendered once."""
        known = self._shown.get(place)
        if known is None:
            item = self._pool.examples[place]  # type: ignore[union-attr]
            part = self._prompt.parts[self._last_user]
            values = {"row": item.row, **item.row} if self._prompt.uses_row else item.row
            known = self._shown[place] = (self._text(part, values, item), self._answer(item))
        return known

    def _example_rows(self, item: Item) -> list[JSON]:
        examples = self._pool.examples  # type: ignore[union-attr]
        return [
            {**examples[place].row, "target": self._answer(examples[place])} for place in self._picks(item)
        ]

    def _answer(self, example: Item) -> str:
        try:
            return target_text(example.target)
        except ValueError as error:
            raise UserError(
                f"example '{example.sample_id}' cannot be shown: {error}", where=f"prompt {self._prompt.id}"
            ) from error

    def _too_few(self, pool: FewShotPool) -> UserError:
        return UserError(
            f"{self._count} examples are asked for, and {pool.name} has {len(pool)}, "
            "of which none may be the sample itself",
            where=f"prompt {self._prompt.id}",
            remedy="Lower few_shot.count, or give more examples.",
        )


def _says(content: JSON) -> bool:
    return bool(content.strip()) if isinstance(content, str) else True


_PAIR = ("user", "assistant")
