"""Rows as aligned text. What a model or a person wrote cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def print_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], widest: int = 60) -> None:
    """Print a table; cells longer than `widest` characters are cut, numbers stand to the right."""
    texts = [[cell(value, widest) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    numeric = [
        bool(rows) and all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(header)
    for line in [list(header), *texts]:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def cell(value: Any, widest: int = 60) -> str:
    """A value as one printable line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if len(text) > 4 * widest:
        text = text[: 4 * widest]
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= widest else text[: widest - 1] + "…"
