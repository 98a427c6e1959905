"""Marked sections of a prompt, and the prompts without one of its parts that `ablate: true` asks for.

`{% section NAME %}…{% endsection %}` changes nothing in the prompt itself: it names a stretch of it that can
be left out. The same name may be used in several places, also in other messages and in included files; they
are left out together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from evalrun.errors import Problem, UserError
from evalrun.suite.plan import RunSpec, with_prompt

if TYPE_CHECKING:
    from evalrun.suite.prompt import PromptSpec

SECTION, EXAMPLE = "section", "example"
_IDS = "evalrun_sections"


class Sections(Extension):
    """The tag `section`. Its environment notes the names it saw, in order, and leaves one of them out."""

    tags = {"section"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The section's body, or nothing where it is to be left out."""
        next(parser.stream)
        name = parser.stream.expect("name").value
        body = parser.parse_statements(("name:endsection",), drop_needle=True)
        seen: dict[str, bool] = getattr(self.environment, _IDS)
        return [] if seen.setdefault(name, False) else body


def allow_sections(environment: jinja2.Environment, left_out: str | None) -> dict[str, bool]:
    """Teach an environment the tag. Gives the names as they are found: which are left out."""
    environment.add_extension(Sections)
    seen = {} if left_out is None else {left_out: True}
    setattr(environment, _IDS, seen)
    return seen


def left_out_section(part: str) -> str | None:
    """The section's name in "section rules"; None for other parts."""
    kind, _, name = part.partition(" ")
    return name if kind == SECTION else None


def left_out_example(part: str) -> int | None:
    """The index from 0 in "example 2"; None for other parts."""
    kind, _, number = part.partition(" ")
    return int(number) - 1 if kind == EXAMPLE else None


def with_variants(specs: Sequence[RunSpec], base_dir: Path) -> tuple[RunSpec, ...]:
    """The runs, and after each whose prompt says `ablate` the same with one part of the prompt left out.

    Raises UserError with all that is wrong: a prompt that cannot be read, one that has no part to leave out,
    an id that is taken.
    """
    prompts = {spec.prompt.id: spec.prompt for spec in specs}
    variants: dict[str, list[PromptSpec]] = {}
    problems: list[Problem] = []
    for prompt in prompts.values():
        if prompt.ablate:
            try:
                variants[prompt.id] = list(_variants(prompt, base_dir))
            except UserError as error:
                problems += error.problems
    made = [each for found in variants.values() for each in found]
    problems += [
        Problem(f"the prompt '{each.id}' that 'ablate' makes is there already", f"prompt {each.ablates}")
        for each in made
        if each.id in prompts
    ]
    if problems:
        raise UserError(problems)
    taken = {spec.run_id for spec in specs}
    found = []
    for spec in specs:
        found.append(spec)
        for prompt in variants.get(spec.prompt.id, ()):
            found.append(with_prompt(spec, prompt, taken))
            taken.add(found[-1].run_id)
    return tuple(found)


def _variants(prompt: PromptSpec, base_dir: Path) -> Iterator[PromptSpec]:
    from evalrun.prompts.prompt import compile_prompt

    parts = [f"{SECTION} {name}" for name in compile_prompt(prompt, base_dir).sections]
    if prompt.few_shot is not None:
        parts += [f"{EXAMPLE} {at}" for at in range(1, prompt.few_shot.shown + 1)]
    if not parts:
        raise UserError(
            "there is nothing to leave out of the prompt",
            where=f"prompt {prompt.id}",
            remedy="Mark parts of it with {% section NAME %}…{% endsection %}, or take 'ablate' away.",
        )
    for part in parts:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", part.removeprefix(f"{SECTION} "))
        yield prompt.leaving_out(part, f"{prompt.id}-without-{name}")
