"""Code between fences."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import Options, Parser, Unparsed, as_text
from evalrun.types import JSON

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)


class CodeBlockOptions(Options):
    """Options of the parser `code`."""

    language: str | None = Field(
        default=None,
        description="Take only blocks that say this language, or none at all. Default: any block.",
    )
    which: Literal["first", "last", "longest", "all"] = Field(
        default="first", description="Which block, where there are several; all joins them."
    )
    unfenced: Literal["take", "unparsed"] = Field(
        default="take",
        description="What becomes of an output without a block: it is taken whole, or counts as unparsed.",
    )


class CodeBlock(Parser):
    """The code in an answer."""

    Options: ClassVar[type[CodeBlockOptions]] = CodeBlockOptions
    shorthand = "language"
    summary = "The code between Markdown fences (``` or ~~~); an output without any is taken whole."

    def parse(self, value: JSON) -> str:
        """The block. A fence that is never closed, as in an answer that was cut off, ends with the text."""
        text = as_text(value)
        options: CodeBlockOptions = self.options
        blocks = [
            code for language, code in _blocks(text) if options.language in (None, language) or not language
        ]
        if not blocks:
            if options.unfenced == "take" and not _FENCE.search(text):
                return text.strip("\n")
            wanted = f" of {options.language}" if options.language else ""
            raise Unparsed(f"there is no block{wanted} between fences")
        if options.which == "all":
            return "\n\n".join(blocks)
        if options.which == "longest":
            return max(blocks, key=len)
        return blocks[0 if options.which == "first" else -1]


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language in small letters, code) of each block."""
    found = []
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        fence = opening.group(1)
        begin = opening.end() + 1
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
        end = closing.search(text, begin)
        found.append((opening.group(2).lower(), text[begin : end.start() if end else len(text)].rstrip("\n")))
        if end is None:
            break
        at = end.end()
    return found
