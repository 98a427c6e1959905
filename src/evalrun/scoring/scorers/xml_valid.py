"""Whether the answer is well-formed XML."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, as_text, fraction, shown
from evalrun.types import Score

MAX_CHARACTERS = 1_000_000
_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


class XmlValidOptions(ScorerOptions):
    """Options of the scorer `xml_valid`."""

    root: str | None = Field(
        default=None, min_length=1, description="Name that the outermost element must have."
    )
    fenced: bool = Field(default=True, description="Whether a Markdown code fence around it is forgiven.")


class _Doctype(Exception):
    pass


class XmlValid(Scorer):
    """1 where the answer is one well-formed XML document."""

    Options: ClassVar[type[XmlValidOptions]] = XmlValidOptions
    shorthand = "root"
    registered = "xml_valid"
    summary = (
        "1 where the answer is a well-formed XML document, and its outermost element is the one asked for. A "
        "document type declaration is not accepted: it could name files or blow itself up."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0."""
        text = as_text(sample.answer).strip()
        if len(text) > MAX_CHARACTERS:
            return Score(0.0, f"the answer is longer than {MAX_CHARACTERS:,} characters")
        inner = _FENCE.fullmatch(text) if self.options.fenced else None
        try:
            root = _root(inner[1].strip() if inner else text)
        except _Doctype:
            return Score(0.0, "the answer has a document type declaration")
        except ValueError as error:
            return Score(0.0, f"the answer is not well-formed XML: {error}")
        wanted = self.options.root
        if wanted is not None and root != wanted:
            return Score(0.0, f"the outermost element is {shown(root)}, not {shown(wanted)}")
        return Score(1.0, f"the answer is well-formed XML, {shown(root)}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of well-formed answers."""
        text = (
            "Share of samples whose answer is a well-formed XML 1.0 document without a document type "
            "declaration: mean of 1 where it is and 0 where not. Unparsed and refused answers count as 0; "
            "failed samples are left out."
        )
        return (fraction(name, text),)


def _root(text: str) -> str:
    """The name of the outermost element. Raises ValueError where the text is no XML."""
    from xml.parsers import expat

    names: list[str] = []

    def begin(name: str, _: object) -> None:
        if not names:
            names.append(name)

    def doctype(*_: object) -> None:
        raise _Doctype

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from None
    return names[0]
