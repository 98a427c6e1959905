"""The fenced blocks of README and docs, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
MADE = {"metrics.md", "scorers.md", "suite-reference.md"}
"""Pages made from the code, whose examples are tested where they are made."""

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in MADE),
]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\s*(?:- run: |run: |\$ )?(?:.*&& )?(?P<command>(?:evalrun|cd)\b.*)$")


@dataclass(frozen=True)
class Command:
    """One command, or a change of folder: its words, and the file that its output goes to."""

    text: str
    words: tuple[str, ...]
    output: str | None

    @classmethod
    def of(cls, text: str) -> Command:
        """As a POSIX shell reads it: quotes, comments, `>`; what follows `|`, `&&`, `>>` is left out."""
        lexer = shlex.shlex(text, posix=True, punctuation_chars="|&>;")
        lexer.whitespace_split = True
        words = list(lexer)
        output = None
        for at, word in enumerate(words):
            if set(word) <= set("|&>;"):
                output = words[at + 1] if word == ">" else None
                words = words[:at]
                break
        return cls(" ".join(text.split()), tuple(words), output)


@dataclass(frozen=True)
class Block:
    """One fenced block; `place` is page and line."""

    place: str
    language: str
    text: str

    @property
    def commands(self) -> list[Command]:
        """The `evalrun` commands, and the changes of folder between them, as a shell would get them."""
        found: list[str] = []
        is_open = False
        for line in self.text.splitlines():
            if is_open:
                found[-1] += "\n" + line.strip()
            elif match := _COMMAND.match(line):
                found.append(match["command"])
            else:
                continue
            is_open = _open_quote(found[-1])
        return [Command.of(each) for each in found]


def _open_quote(text: str) -> bool:
    """Whether a quote is still open at the end of a command."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def blocks() -> list[Block]:
    """Every fenced block of every page that is written by hand."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            indent = len(match["indent"])
            body = "".join(each[indent:] for each in match["text"].splitlines(keepends=True))
            found.append(Block(f"{page.relative_to(ROOT)}:{line}", match["language"], body))
    return found
