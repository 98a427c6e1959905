"""Writes a document: Markdown, JSON, or HTML that prints."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from evalrun.evidence.document import Document, Line
from evalrun.reports.visible import visible

Format: TypeAlias = Literal["md", "json", "html"]
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|#])")
_MOST = 2_000


def as_document(document: Document) -> dict[str, Any]:
    """The document as JSON values; a bill of materials is itself."""
    if document.native is not None:
        return dict(document.native)
    values = {key: value for key, value in asdict(document).items() if key not in ("native", "front")}
    values["counts"] = {
        "measured": document.count("measured"),
        "answered": document.count("answered"),
        "to_be_completed": document.count("to be completed"),
    }
    return values | ({"metadata": document.front} if document.front else {})


def markdown(document: Document, sweep: Path, out: Path | None) -> str:
    """Markdown with a table a section. Links lead from where it will lie to the files of the sweep."""
    parts = [f"# {_cell(document.title)}", _cell(document.intro), _summary(document)]
    for section in document.sections:
        reference = f"{_cell(section.reference)}: " if section.reference else ""
        parts.append(f"## {reference}{_cell(section.title)}")
        if section.note:
            parts.append(_cell(section.note))
        if section.lines:
            rows = [
                f"| {_cell(line.label)} | {_cell(line.text)} | {_link(line, sweep, out)} |"
                for line in section.lines
            ]
            parts.append("\n".join(["| | | evidence |", "|---|---|---|", *rows]))
    return _front(document) + "\n\n".join(filter(None, parts)) + "\n"


def html(document: Document, sweep: Path, out: Path | None) -> str:
    """One page without scripts, to be printed."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    text = (files(__package__) / "documents" / "page.html.j2").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = lambda value: visible(str(value))[:_MOST]
    page = environment.from_string(text)
    return page.render(
        document=document, summary=_summary(document), target=lambda line: _target(line, sweep, out)
    )


def _summary(document: Document) -> str:
    return (
        f"{document.count('measured')} lines are measured, {document.count('answered')} answered by the "
        f"provider, {document.count('to be completed')} to be completed. Sweep {document.sweep}, made "
        f"{document.made_at[:19]} UTC by evalrun. Intervals are 95 %."
    )


def _front(document: Document) -> str:
    if not document.front:
        return ""
    import yaml

    return f"---\n{yaml.safe_dump(dict(document.front), sort_keys=False, allow_unicode=True)}---\n\n"


def _target(line: Line, sweep: Path, out: Path | None) -> str:
    """The file of a line's evidence, as seen from where the document lies."""
    if line.evidence is None or line.state == "answered":
        return ""
    place = (out.parent if out else Path.cwd()).resolve()
    return quote(os.path.relpath(sweep.resolve() / line.evidence.file, place))


def _link(line: Line, sweep: Path, out: Path | None) -> str:
    if line.evidence is None:
        return ""
    at = f" {_cell(line.evidence.at)}" if line.evidence.at else ""
    target = _target(line, sweep, out)
    file = _cell(line.evidence.file)
    return f"[{file}]({target}){at}" if target else f"{file}{at}"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(visible(str(text)).split())[:_MOST]
    return _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
