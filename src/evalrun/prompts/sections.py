"""Marked sections of a prompt, and the prompts without one of its parts that `ablate: true` asks for.

`{% section NAME %}…{% endsection %}` changes nothing in the prompt itself: it names a stretch of it that can
be left out. The same name may be used in several places, also in other messages and in included files; they
are left out together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from evalrun.errors import Problem, UserError
from evalrun.suite.plan import RunSpec, with_prompt
from evalrun.suite.prompt import AblateSpec

if TYPE_CHECKING:
    from evalrun.suite.prompt import PromptSpec

SECTION, EXAMPLE = "section", "example"
MOST_PARTS = 8
"""Of a prompt of which every combination of parts is run."""
_IDS, _MARKED = "evalrun_sections", "evalrun_marked"


OPEN, NAMED, CLOSE = "\ue0e0", "\ue0e1", "\ue0e2"
"""What stands around a section's name and text where they are marked in what is rendered."""


class Sections(Extension):
    """The tag `section`. Its environment notes the names it saw, in order, and leaves some of them out."""

    tags = {"section"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The section's body, or nothing where it is to be left out."""
        next(parser.stream)
        name = parser.stream.expect("name").value
        body = parser.parse_statements(("name:endsection",), drop_needle=True)
        seen: dict[str, bool] = getattr(self.environment, _IDS)
        if seen.setdefault(name, False):
            return []
        if not getattr(self.environment, _MARKED):
            return body
        return [_text(f"{OPEN}{name}{NAMED}"), *body, _text(CLOSE)]


def _text(text: str) -> nodes.Node:
    return nodes.Output([nodes.TemplateData(text)])


def allow_sections(
    environment: jinja2.Environment, left_out: Sequence[str] = (), *, marked: bool = False
) -> dict[str, bool]:
    """Teach an environment the tag. Gives the names as they are found: which are left out. With `marked`,
    what is rendered has each section between marks (`unmarked` reads them)."""
    environment.add_extension(Sections)
    seen = dict.fromkeys(left_out, True)
    setattr(environment, _IDS, seen)
    setattr(environment, _MARKED, marked)
    return seen


def unmarked(text: str) -> tuple[str, list[tuple[str, int, int]]]:
    """A text that was rendered with marks without them, and its sections: name, start and end."""
    plain: list[str] = []
    length, at = 0, 0
    open_: list[tuple[str, int]] = []
    found: list[tuple[str, int, int]] = []
    for mark in re.finditer(f"{OPEN}([^{NAMED}]*){NAMED}|{CLOSE}", text):
        plain.append(text[at : mark.start()])
        length, at = length + mark.start() - at, mark.end()
        if mark[1] is not None:
            open_.append((mark[1], length))
        elif open_:
            name, start = open_.pop()
            found.append((name, start, length))
    return "".join(plain) + text[at:], sorted(found, key=lambda section: (section[1], -section[2]))


def parts_of(without: str) -> list[str]:
    """The parts in "section rules + example 2"."""
    return without.split(" + ") if without else []


def left_out_sections(without: str) -> list[str]:
    """The names of the sections among the parts that are left out."""
    return [name for kind, _, name in map(_split, parts_of(without)) if kind == SECTION]


def left_out_examples(without: str) -> list[int]:
    """The indexes from 0 of the examples among the parts that are left out."""
    return [int(number) - 1 for kind, _, number in map(_split, parts_of(without)) if kind == EXAMPLE]


def _split(part: str) -> tuple[str, str, str]:
    return part.partition(" ")


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
    together = 1
    if isinstance(prompt.ablate, AblateSpec) and prompt.ablate.method == "shapley":
        together = len(parts)
        if together > MOST_PARTS:
            raise UserError(
                f"{together} parts have {2**together:,} combinations, and at most {MOST_PARTS} are taken",
                where=f"prompt {prompt.id}, ablate",
                remedy="Mark fewer sections, or use method: loo.",
            )
    for left_out in (each for k in range(1, together + 1) for each in combinations(parts, k)):
        names = [re.sub(r"[^A-Za-z0-9_]+", "-", part.removeprefix(f"{SECTION} ")) for part in left_out]
        yield prompt.leaving_out(" + ".join(left_out), f"{prompt.id}-without-{'-'.join(names)}")
