"""The parts of a prompt that are left out in turn: sections, sentences, words, each within the one above."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from evalrun.errors import UserError
from evalrun.explanations import Place, Unit
from evalrun.registry import nearest

LEVELS = ("section", "sentence", "word")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SENTENCE = re.compile(r"[.!?]+[\"')\]\u201d\u2019]*(?=\s)|[\u3002\uff01\uff1f]+|\n+")
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_PARAGRAPH = re.compile(r"\n\s*\n")

Span = tuple[int, int]
Named = tuple[str, int, int]


def check_levels(levels: Sequence[str]) -> tuple[str, ...]:
    """The levels in their order, coarse before fine. Raises UserError for an unknown one, or none."""
    for level in levels:
        if level not in LEVELS:
            near = nearest(level, LEVELS)
            remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(LEVELS)}."
            raise UserError(f"unknown unit '{level}'", where="units", remedy=remedy)
    if not levels:
        raise UserError("no units are named", where="units", remedy=f"There are: {', '.join(LEVELS)}.")
    return tuple(level for level in LEVELS if level in levels)


def make_units(
    contents: Sequence[str],
    roles: Sequence[str],
    marked: Mapping[int, Sequence[Named]],
    levels: Sequence[str],
) -> list[Unit]:
    """The units of a prompt, parents before their children.

    `contents` are its messages (or its one text) with their `roles`; `marked` are the marked sections of
    messages. Sections are: the marked ones, what stands between them, an example's question with its answer,
    and else the paragraphs of a message.
    """
    units: list[Unit] = []
    sections = _sections(contents, roles, marked)
    if "section" not in levels:
        whole = [Place(at, 0, len(text)) for at, text in enumerate(contents) if text.strip()]
        for place in whole:
            _add_below(units, contents, place, -1, list(levels))
        return units
    for name, places in sections:
        units.append(Unit("section", name, tuple(places)))
        parent = len(units) - 1
        for place in places:
            _add_below(units, contents, place, parent, [each for each in levels if each != "section"])
    return units


def _add_below(
    units: list[Unit], contents: Sequence[str], place: Place, parent: int, levels: Sequence[str]
) -> None:
    if not levels:
        return
    text = contents[place.message][place.start : place.end]
    split = sentences if levels[0] == "sentence" else words
    for start, end in split(text):
        made = Place(place.message, place.start + start, place.start + end)
        units.append(Unit(levels[0], "", (made,), parent))
        _add_below(units, contents, made, len(units) - 1, levels[1:])


def _sections(
    contents: Sequence[str], roles: Sequence[str], marked: Mapping[int, Sequence[Named]]
) -> list[tuple[str, list[Place]]]:
    found: list[tuple[str, list[Place]]] = []
    at, examples = 0, 0
    while at < len(contents):
        if roles[at : at + 2] == ["user", "assistant"]:
            examples += 1
            both = [Place(one, *span) for one in (at, at + 1) for span in _whole(contents[one])]
            found.append((f"example {examples}", both))
            at += 2
            continue
        for name, start, end in _of_message(contents[at], roles[at], marked.get(at, ())):
            known = next((places for other, places in found if other == name), None)
            if known is not None and any(name == mark[0] for mark in marked.get(at, ())):
                known.append(Place(at, start, end))  # a section that stands in several places
            else:
                found.append((name, [Place(at, start, end)]))
        at += 1
    return [(name, places) for name, places in found if places]


def _of_message(text: str, role: str, marked: Sequence[Named]) -> Iterator[Named]:
    """The sections of one message: those that are marked (outermost), and the paragraphs of the rest."""
    outer: list[Named] = []
    for section in marked:
        if not outer or section[1] >= outer[-1][2]:
            outer.append(section)
    borders = [0, *(border for _, start, end in outer for border in (start, end)), len(text)]
    between = list(zip(borders[::2], borders[1::2], strict=True))
    pieces: list[Named] = []
    for start, end in between:
        pieces += [(role or "prompt", start + s, start + e) for s, e in _paragraphs(text[start:end])]
    plain = len(pieces)
    numbered = iter(range(1, plain + 1))
    every = sorted([*pieces, *outer], key=lambda piece: piece[1])
    for name, start, end in every:
        if (name, start, end) in outer:
            for s, e in _whole(text[start:end]):
                yield name, start + s, start + e
        else:
            number = next(numbered)
            yield (f"{name} {number}" if plain > 1 else name), start, end


def _whole(text: str) -> list[Span]:
    """Where the text is without white space around it; nothing for white space alone."""
    bare = text.strip()
    return [(text.index(bare), text.index(bare) + len(bare))] if bare else []


def _paragraphs(text: str) -> list[Span]:
    borders = [0, *(end for mark in _PARAGRAPH.finditer(text) for end in mark.span()), len(text)]
    return [
        (start + s, start + e)
        for start, end in zip(borders[::2], borders[1::2], strict=True)
        for s, e in _whole(text[start:end])
    ]


def sentences(text: str) -> list[Span]:
    """Where sentences are: up to a mark that ends one and has white space after it, or to a line's end."""
    borders = [0, *(mark.end() for mark in _SENTENCE.finditer(text)), len(text)]
    return [(start + s, start + e) for start, end in pairwise(borders) for s, e in _whole(text[start:end])]


def words(text: str) -> list[Span]:
    """Where words are: what stands between white space; each character of Chinese and Japanese."""
    return [mark.span() for mark in _WORD.finditer(text)]
