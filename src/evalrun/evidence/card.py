"""Makes a document of evidence: the facts of a sweep and the answers of `card.yaml`, in the form asked for.

What a document holds stands in `documents/<kind>.yaml`: sections with the subjects that the sweep knows of
(`facts`) and questions that only people can answer (`ask`, by their keys in `card.yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.evidence.document import Answers, Document, Section
from evalrun.evidence.facts import Facts, lines_of
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import SweepFolder

KINDS = ("hf", "annex-iv", "nist", "iso42001", "ll144", "cyclonedx", "record")
SETTINGS = frozenset({"ll144"})
"""Keys of `card.yaml` that are no answers: which columns of the data hold what a document needs."""


def make(folder: SweepFolder, kind: str, answers: Path | None = None, run: str = "") -> Document:
    """A document of a finished sweep. Raises UserError: for a card.yaml that cannot be used, an unknown run,
    and where what the document is about was not measured."""
    facts, said = Facts.of(folder, run), read_answers(answers)
    said.check(questions(), SETTINGS)
    form = _form(kind)
    document = Document(
        kind,
        form["title"],
        folder.ulid,
        facts.runs[0].run,
        utc_now(),
        " ".join(filter(None, [form["intro"].strip(), _which(facts)])),
        tuple(_section(facts, said, part) for part in form["sections"]),
    )
    if kind == "hf":
        from evalrun.evidence.hf import front

        return replace(document, front=front(facts, said))
    if kind == "cyclonedx":
        from evalrun.evidence.cyclonedx import bom

        return replace(document, native=bom(facts, said))
    if kind == "ll144":
        from evalrun.evidence.ll144 import sections

        return replace(document, sections=(*document.sections, *sections(facts, said)))
    return document


def read_answers(path: Path | None) -> Answers:
    """The answers of a `card.yaml`. Raises UserError where it cannot be read as a mapping."""
    if path is None:
        return Answers()
    from evalrun.suite.tree import parse_yaml

    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError:
        raise UserError("is no text in UTF-8", where=str(path)) from None
    node, problems = parse_yaml(text, str(path))
    if problems:
        raise UserError(problems)
    said = {} if node is None or node.value is None else node.plain()
    if not isinstance(said, dict):
        raise UserError("is no mapping of questions to answers", where=str(path))
    return Answers(path.name, said)


@cache
def questions() -> Mapping[str, str]:
    """Every question that any document asks, by its key."""
    return {
        key: label
        for kind in KINDS
        for part in _form(kind)["sections"]
        for key, label in part.get("ask", {}).items()
    }


def template(document: Document) -> str:
    """A `card.yaml` with the questions of a document that are not answered yet, to be filled in."""
    import json

    lines = [line for section in document.sections for line in section.lines]
    return "".join(
        f"# {each.label}\n{each.key}: {json.dumps('')}\n"
        for each in lines
        if each.state == "to be completed" and each.key
    )


def _section(facts: Facts, answers: Answers, part: Mapping[str, Any]) -> Section:
    lines = lines_of(facts, part.get("facts", ()))
    lines += [answers.line(key, label) for key, label in part.get("ask", {}).items()]
    note = "" if lines else "Nothing of it was measured in this evaluation."
    return Section(part["title"], str(part.get("reference", "")), tuple(lines), note)


def _which(facts: Facts) -> str:
    """Which of the sweep's runs the document speaks of, where there are others."""
    others = len(facts.source.runs) - len(facts.runs)
    if not others:
        return ""
    run = facts.runs[0]
    standing = next((s for s in facts.source.results.standings if s.run == run.run), None)
    stands = f", {standing.verdict} by {standing.metric}" if standing else ""
    return (
        f"It speaks of {run.run}{stands}; {others} more run{'s' * (others > 1)} of the sweep are not in it."
    )


@cache
def _form(kind: str) -> Mapping[str, Any]:
    import yaml

    form: Mapping[str, Any] = yaml.safe_load(
        (files(__package__) / "documents" / f"{kind}.yaml").read_text("utf-8")
    )
    return form
