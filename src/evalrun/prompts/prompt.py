"""A prompt, compiled: its templates, what they read, and the check against a dataset's columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from evalrun.canonical import canonical_json, digest
from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.prompts.few_shot import FewShotPool
from evalrun.prompts.library import Library, PromptFolder, Use, open_prompt_file
from evalrun.prompts.rendering import Asking, Renderer, compile_ask
from evalrun.prompts.sections import left_out_sections
from evalrun.registry import nearest
from evalrun.templates import TemplateFailure, compile_value, quoted, reference
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.prompt import FewShotSpec, PromptSpec


Render = Callable[[Mapping[str, JSON]], JSON]


def content_text(content: JSON) -> str:
    """The content as one text: as it stands, or its parts as JSON."""
    return content if isinstance(content, str) else canonical_json(content).decode()


def add_content(library: Library, content: JSON, place: Callable[[int], str]) -> Render | None:
    """Compile all templates of a content. Gives None where the library found problems."""
    if isinstance(content, str):
        return library.add(content, place)
    before = len(library.problems)
    render = _compiled(library, content, place)
    return render if len(library.problems) == before else None


def _compiled(library: Library, value: JSON, place: Callable[[int], str]) -> Render:
    """A function from values to the same structure with every text rendered; keys stay as they are."""
    if isinstance(value, str):
        return cast(Render, library.add(value, place))
    if isinstance(value, list):
        each = [_compiled(library, item, place) for item in value]
        return lambda values: [render(values) for render in each]
    if isinstance(value, dict):
        named = {key: _compiled(library, item, place) for key, item in value.items()}
        return lambda values: {key: render(values) for key, render in named.items()}
    return lambda values: value


Api: TypeAlias = Literal["chat", "completions"]

GIVEN = ("row", "examples")
"""Names that a prompt may use besides the columns: the whole row, and the few-shot examples."""


@frozen
class Part:
    """One message of a prompt: who speaks, and the template of what is said."""

    role: str
    source: str
    render: Callable[[Mapping[str, JSON]], JSON]
    place: Callable[[int], str]


@frozen
class Prompt:
    """A compiled prompt for one kind of endpoint.

    `variables` are the names that the templates and their includes read and do not set themselves.
    `digest` is over the texts and the few-shot settings, never over paths. `source` holds the texts by
    their path from the prompt's folder, for provenance. `sections` are the names of its marked sections.
    Where it was made from another prompt by leaving a part out, `ablates` is that prompt's id and `without`
    the part.
    """

    id: str
    api: Api
    parts: tuple[Part, ...]
    uses: tuple[Use, ...]
    folder: PromptFolder
    source: dict[str, str]
    digest: str
    variables: frozenset[str]
    few_shot: FewShotSpec | None
    places_examples: bool
    uses_row: bool
    reads: frozenset[str]
    reads_whole_row: bool
    asking: Asking | None = None
    sections: tuple[str, ...] = ()
    ablates: str = ""
    without: str = ""

    def check(
        self,
        columns: Collection[str],
        where: str = "",
        partial: Mapping[str, str] | None = None,
        binary: Mapping[str, Collection[str]] | None = None,
    ) -> list[Problem]:
        """What keeps the prompt from being rendered for rows with these columns.

        `where` is where the suite names the prompt. `partial` has columns that only some rows have, each
        with a place where it is missing, `binary` those that hold bytes, each with the keys that do.
        """
        problems: dict[str, Problem] = {}
        for use in self.uses:
            for name, line in use.variables.missing(frozenset(columns), GIVEN).items():
                at = use.place(line)
                if where and at.startswith("prompt "):
                    at = f"{where}, {at}"
                problems.setdefault(name, self._unknown(name, at, columns, partial or {}))
        found = [*problems.values(), *self._of_bytes(binary or {}, where)]
        if self.few_shot is not None and "examples" in columns and self.places_examples:
            what = "'examples' could mean the dataset's column or the few-shot examples"
            found.append(Problem(what, where or f"prompt {self.id}", "Write row.examples for the column."))
        return found

    def _of_bytes(self, binary: Mapping[str, Collection[str]], where: str) -> list[Problem]:
        """A prompt is text: bytes cannot stand in it."""
        problems = []
        for column in sorted(self.reads & binary.keys()):
            keys = binary[column]
            looked_up = {key for use in self.uses for key in use.variables.attributes.get(column, {})}
            if looked_up and "" not in keys and not looked_up & set(keys):
                continue
            name = column if "" in keys else f"{column}.{sorted(keys)[0]}"
            problems.append(
                Problem(
                    f"prompt {self.id} uses '{name}', which holds bytes (an image, a sound): a prompt is "
                    "text",
                    where or f"prompt {self.id}",
                    "Write them as text into the data, base64 for a data: address, or give the address of a "
                    "file.",
                )
            )
        return problems

    def left_empty(self, nulls: Mapping[str, tuple[int, str]]) -> list[str]:
        """What is to be said of columns that are null in some rows, where the prompt prints them unasked.

        `nulls` has in how many rows a column is null, and where first.
        """
        guarded = {name for use in self.uses for name in use.variables.guarded}
        return [
            f"prompt {self.id} uses column '{column}', which is null in {nulls[column][0]:,} rows (first: "
            f"{nulls[column][1]}): nothing stands in its place there"
            for column in sorted((self.reads & nulls.keys()) - guarded)
        ]

    def bind(self, pool: FewShotPool | None, seed: int) -> Renderer:
        """A renderer with its examples and seed. Raises UserError when the pool is too small."""
        if pool is None and self.few_shot is not None and self.few_shot.shown:
            raise ValueError(f"prompt {self.id} asks for examples and was given none")
        return Renderer(self, pool, seed)

    def _unknown(
        self, name: str, where: str, columns: Collection[str], partial: Mapping[str, str]
    ) -> Problem:
        if name in partial:
            return Problem(
                f"prompt {self.id} uses column '{name}', which some rows lack (first: {partial[name]})",
                where,
                f"Fill it in every row, or ask for it: {{% if {reference(name)} is defined %}}.",
            )
        near = nearest(name, columns)
        listed = f"Columns: {', '.join(map(reference, columns))}."
        remedy = f"Did you mean {quoted(near)}?" if near else listed
        return Problem(f"prompt {self.id} uses '{name}', which is no column of the data", where, remedy)


def compile_prompt(spec: PromptSpec, base_dir: Path, api: Api = "chat", *, marked: bool = False) -> Prompt:
    """Read and compile a prompt.

    Relative paths start at `base_dir`, the suite's folder. With `api="completions"` the prompt becomes one
    text: the system text, if any, then the template. With `marked`, marked sections stand between marks in
    what is rendered (`sections.unmarked`). Raises UserError with all that is wrong: missing files,
    files outside the prompt's folder, syntax errors, chat messages for a completions endpoint.
    """
    where = f"prompt {spec.id}"
    if spec.messages is not None and api == "completions":
        raise UserError(
            "chat messages cannot be sent to a completions endpoint",
            where=where,
            remedy="Write the prompt as 'text' or 'file', or leave this model out with 'exclude'.",
        )
    folder, written = _templates(spec, base_dir, where)
    library = Library(folder, left_out_sections(spec.without), marked=marked)
    parts = []
    for one in written:
        render = (
            _whole(library, one.source, one.place, where)
            if one.role == WHOLE
            else add_content(library, one.content, one.place)
        )
        if render is not None:
            parts.append(Part(one.role, one.source, render, one.place))
    asking = None if spec.ask is None else compile_ask(spec.ask, library, where)
    if library.problems:
        raise UserError(library.problems)
    return replace(_assemble(spec, api, parts, library, folder, written), asking=asking)


WHOLE = "*"
"""The role of a part that is a list of messages and not one."""


def _whole(
    library: Library, source: str, place: Callable[[int], str], where: str
) -> Callable[[Mapping[str, JSON]], JSON] | None:
    """Renders an expression that gives a list of messages. Raises TemplateFailure for rows that give none."""
    if library.add(source, place) is None:
        return None
    evaluate = compile_value(source, f"{where}, messages").evaluate

    def messages(values: Mapping[str, JSON]) -> JSON:
        found = evaluate(values if "row" in values else {**values, "row": values})
        if not isinstance(found, list | tuple) or not found:
            raise TemplateFailure(f"messages gives no list of messages: {type(found).__name__}")
        for each in found:
            if not isinstance(each, Mapping) or not {"role", "content"} <= set(each):
                raise TemplateFailure("messages gives a list of something else than {role, content}")
        return list(found)

    return messages


@frozen
class _Written:
    """A template as the suite gives it."""

    role: str
    name: str
    content: JSON
    place: Callable[[int], str]

    @property
    def source(self) -> str:
        """The content as one text, for digest and provenance."""
        return content_text(self.content)


def _templates(spec: PromptSpec, base_dir: Path, where: str) -> tuple[PromptFolder, list[_Written]]:
    folder = PromptFolder(base_dir)
    written = []
    if spec.system is not None:
        written.append(_inline("system", "system", spec.system, where))
    if spec.file is not None:
        folder, name = open_prompt_file(spec.file, base_dir, where, allow_outside=spec.allow_outside)
        shown = folder.show(name)
        written.append(_Written("user", name, folder.read(name, where), lambda line: f"{shown}:{line}"))
    elif spec.text is not None:
        written.append(_inline("user", "text", spec.text, where))
    if isinstance(spec.messages, str):
        written.append(_inline(WHOLE, "messages", spec.messages, where))
    for at, message in enumerate(spec.messages if isinstance(spec.messages, list) else []):
        written.append(_inline(message.role, f"messages.{at}", message.content, where))
    if spec.few_shot is not None and not any(one.role == "user" for one in written):
        raise UserError("few-shot examples need a user message to be put before", where=where)
    return folder, written


def _inline(role: str, name: str, content: JSON, where: str) -> _Written:
    return _Written(role, name, content, lambda line: f"{where}, {name}, line {line}")


def _shape_of(few_shot: FewShotSpec) -> dict[str, JSON]:
    shape: dict[str, JSON] = {"count": few_shot.count, "split": few_shot.split}
    more = {"first": few_shot.first, "ids": few_shot.ids, "same": few_shot.same, "of_own": few_shot.of_own}
    shape |= {key: value for key, value in more.items() if value}
    if few_shot.contamination == "leave_out":
        shape["contamination"] = "leave_out"
    return shape


def _assemble(
    spec: PromptSpec,
    api: Api,
    parts: Sequence[Part],
    library: Library,
    folder: PromptFolder,
    written: Sequence[_Written],
) -> Prompt:
    names = {name: use for use in library.uses for name in use.variables.lines}
    looked_up = {name for use in library.uses for name in use.variables.attributes.get("row", {})}
    few_shot = spec.few_shot
    shape: dict[str, JSON] = {
        "messages": [[part.role, part.source] for part in parts],
        "included": library.included,
        "few_shot": _shape_of(few_shot) if few_shot else None,
    }
    if spec.without:
        shape["without"] = spec.without
    if spec.ask is not None:
        shape["ask"] = spec.ask.model_dump(mode="json")
    return Prompt(
        id=spec.id,
        api=api,
        parts=tuple(parts),
        uses=tuple(library.uses),
        folder=folder,
        source={one.name: one.source for one in written} | library.included,
        digest=digest(shape),
        variables=frozenset(names),
        few_shot=few_shot,
        places_examples="examples" in names,
        uses_row="row" in names,
        reads=(frozenset(names) | looked_up) - frozenset(GIVEN),
        reads_whole_row="row" in names and not looked_up,
        sections=library.sections,
        ablates=spec.ablates,
        without=spec.without,
    )
