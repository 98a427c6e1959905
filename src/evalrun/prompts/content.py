"""The content of a message: a text, or parts as the chat API has them, with templates for all texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from evalrun.canonical import canonical_json
from evalrun.prompts.library import Library
from evalrun.types import JSON

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
