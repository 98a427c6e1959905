"""Reasoning that a model writes into its answer, told apart from it before any parser reads it.

Servers that know a model's template send its reasoning in a field of its own; others leave it in the text,
in tags: <think>…</think>, <thinking>, <reasoning>, <thought>, [THINK]…[/THINK] and a few more. The text is
read the same whoever sent it:

- a block at the beginning of the text, or further ones after it, is reasoning;
- so is a block of <think> (or of a mark that no prose uses) that begins a line, unless the text is a document
  of tags itself;
- where a closing tag has no opening one (templates put that into the prompt), all before it is reasoning;
- a block at the beginning that is never closed is all reasoning: the model did not come to an answer.

A tag in quotes or backticks is spoken of, and is none.
"""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = "think|thinking|reasoning|thought|thoughts|seed:think"
_OPENING: Final = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>"
_CLOSING: Final = rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>"
_TAG: Final = re.compile(rf"(?<![`\"'])(?:({_OPENING})|({_CLOSING}))(?![`\"'])", re.IGNORECASE)
_SURE: Final = re.compile(r"<(?:seed:)?think>|\[THINK\]|◁think▷|<\|", re.IGNORECASE)
"""Opening marks that are none of XML's that answers are written in."""
_MAY_BEGIN: Final = ("<", "[", "◁")

CLOSING_TAGS: Final = frozenset(f"</{name}>" for name in _NAMES.split("|")) | {"[/THINK]", "◁/think▷"}


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a model's text; without reasoning the text as it is."""
    if not any(mark in text for mark in _MAY_BEGIN):
        return "", text
    reasoning: list[str] = []
    answer: list[str] = []
    at = 0
    for opening, closing, start, end in _blocks(text):
        if start < at:
            continue
        if not opening and reasoning and not text[at:start].strip():
            pass  # the tag was closed twice
        elif not opening and not reasoning:
            reasoning.append(text[:start])
        elif opening and (reasoning or _begins(text, opening, start)):
            answer.append(text[at:start])
            reasoning.append(text[start + len(opening) : closing])
        else:
            continue
        at = end
    if not reasoning:
        return "", text
    answer.append(text[at:])
    return "\n\n".join(filter(None, map(str.strip, reasoning))), "".join(answer).lstrip()


def _blocks(text: str) -> list[tuple[str, int, int, int]]:
    """Of each block: its opening tag (empty where there is none), where its inside ends, its place. Tags
    within a block belong to it."""
    blocks: list[tuple[str, int, int, int]] = []
    opened: re.Match[str] | None = None
    depth = 0
    for tag in _TAG.finditer(text):
        if tag[1]:
            depth = depth + 1 if opened is not None and tag[1].lower() == opened[1].lower() else depth
            opened, depth = (tag, 1) if opened is None else (opened, depth)
        elif opened is None:
            blocks.append(("", tag.start(), tag.start(), tag.end()))
        elif _closes(tag[2], opened[1]):
            depth -= 1
            if not depth:
                blocks.append((opened[1], tag.start(), opened.start(), tag.end()))
                opened = None
    if opened is not None:
        # Never closed. Where tags were opened twice and closed once, the one closing tag ended the reasoning.
        closing = [tag for tag in _TAG.finditer(text, opened.end()) if tag[2] and _closes(tag[2], opened[1])]
        last = closing[-1] if closing else None
        inside, end = (len(text), len(text)) if last is None else last.span()
        if last is not None or not text[: opened.start()].strip() or blocks:
            blocks.append((opened[1], inside, opened.start(), end))
    return blocks


def _closes(closing: str, opening: str) -> bool:
    begun = closing.lower().replace("end_of", "begin_of").replace("end_thinking", "start_thinking")
    return re.sub(r"\W", "", begun) == re.sub(r"\W", "", opening.lower())


def _begins(text: str, opening: str, start: int) -> bool:
    """Whether an opening tag stands where reasoning begins."""
    before = text[:start]
    if not before.strip():
        return True
    own_line = before.rstrip(" \t").endswith("\n")
    return bool(_SURE.match(opening)) and own_line and not before.lstrip().startswith("<")
