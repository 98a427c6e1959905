"""Whether the answer is SQL that can be read."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import Field, field_validator

from evalrun.errors import UserError
from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, as_text, fraction
from evalrun.types import Score

MAX_CHARACTERS = 20_000
_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
_REMEDY = 'Install it: pip install "evalrun[sql]".'


class SqlParseOptions(ScorerOptions):
    """Options of the scorer `sql_parse`."""

    dialect: str | None = Field(
        default=None,
        description="Dialect as sqlglot calls it: postgres, mysql, sqlite, bigquery, snowflake and others. "
        "Default: what all have in common.",
    )
    query_only: bool = Field(default=False, description="Whether only queries (SELECT, WITH, UNION) will do.")
    fenced: bool = Field(default=True, description="Whether a Markdown code fence around it is forgiven.")

    @field_validator("dialect")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            from sqlglot.dialects.dialect import Dialect
        except ImportError:
            return value  # the scorer says so when it is made
        try:
            Dialect.get_or_raise(value)
        except ValueError as error:
            raise ValueError(str(error)) from None
        return value


class SqlParse(Scorer):
    """1 where the answer is one SQL statement."""

    Options: ClassVar[type[SqlParseOptions]] = SqlParseOptions
    shorthand = "dialect"
    registered = "sql_parse"
    summary = (
        "1 where the answer is one SQL statement that sqlglot can read (needs the extra `sql`). Nothing is "
        "executed, and whether its tables and columns exist is not known."
    )

    def __init__(self, options: SqlParseOptions) -> None:
        super().__init__(options)
        try:
            import sqlglot
        except ImportError:
            raise UserError(
                "the scorer 'sql_parse' needs the package sqlglot", where="scorers", remedy=_REMEDY
            ) from None
        self._sqlglot = sqlglot

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0."""
        text = as_text(sample.answer).strip()
        inner = _FENCE.fullmatch(text) if self.options.fenced else None
        text = inner[1] if inner else text
        if len(text) > MAX_CHARACTERS:
            return Score(0.0, f"the answer is longer than {MAX_CHARACTERS:,} characters")
        try:
            found = [
                each for each in self._sqlglot.parse(text, dialect=self.options.dialect) if each is not None
            ]
        except self._sqlglot.errors.SqlglotError as error:
            return Score(0.0, f"the answer is not SQL: {_first_line(error)}")
        except RecursionError:
            return Score(0.0, "the answer is nested too deeply")
        if len(found) != 1:
            return Score(0.0, f"the answer holds {len(found)} statements, not one")
        return self._verdict(found[0])

    def _verdict(self, statement: Any) -> Score:
        kinds = self._sqlglot.expressions
        kind = type(statement).__name__
        if isinstance(statement, kinds.Query):
            return Score(1.0, f"the answer is a query ({kind})")
        if self.options.query_only:
            return Score(0.0, f"the answer is no query, but {kind}")
        # Anything may be read as an expression ("hello world" as a column with an alias): no statement.
        statements = (kinds.DML, kinds.DDL, kinds.Drop, kinds.Alter, kinds.TruncateTable, kinds.Describe)
        if isinstance(statement, statements):
            return Score(1.0, f"the answer is a statement ({kind})")
        return Score(0.0, "the answer is no SQL statement")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of readable answers."""
        text = (
            "Share of samples whose answer is one SQL statement that the parser sqlglot can read in the "
            "suite's dialect: mean of 1 where it is and 0 where not. Unparsed and refused answers count as "
            "0; failed samples are left out."
        )
        return (fraction(name, text),)


def _first_line(error: Exception) -> str:
    # sqlglot underlines the place with escape codes for terminals.
    return re.sub(r"\x1b\[\d*m", "", str(error)).split("\n")[0][:200]
