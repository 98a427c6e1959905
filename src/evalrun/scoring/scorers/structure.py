"""Scorers of answers that have a structure: JSON, XML, SQL, tool calls."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evalrun.errors import UserError
from evalrun.scoring.base import (
    NOT_APPLICABLE,
    Example,
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.text import slugs
from evalrun.types import JSON, Score, Status

MAX_CHARACTERS = 1_000_000
_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def _inside(text: str) -> str:
    """What stands in the code fence that a text is, else the text."""
    fence = _FENCE.fullmatch(text)
    return fence[1] if fence else text


class NotJson(ValueError):
    """Why a text is no JSON; completes a sentence that begins with the output."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def json_of(text: str, *, fenced: bool = False) -> JSON:
    """The value of a text that is JSON and nothing else. Raises NotJson."""
    if len(text) > MAX_CHARACTERS:
        raise NotJson(f"the output is longer than {MAX_CHARACTERS:,} characters")
    try:
        return json.loads(_inside(text) if fenced else text, parse_constant=_refuse)
    except RecursionError:
        raise NotJson("the output is nested too deeply") from None
    except ValueError as error:
        raise NotJson(f"the output is not valid JSON: {error}") from None


def value_of(value: JSON) -> JSON:
    """A target or answer as a value: text that is JSON is read, everything else is as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json_of(value, fenced=True)
    except NotJson:
        return value


def leaves(value: JSON, path: str = "", depth: int = 0) -> Iterator[tuple[str, JSON]]:
    """Dotted paths and values of everything in a JSON value that holds nothing itself.

    An empty object or list is a leaf, and so is whatever lies deeper than 50 levels.
    """
    if value and isinstance(value, dict) and depth < 50:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif value and isinstance(value, list) and depth < 50:
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{at}" if path else str(at), depth + 1)
    else:
        yield path, value


def at_path(value: JSON, path: str) -> tuple[bool, JSON]:
    """Whether there is a value at a dotted path, and which."""
    for key in path.split(".") if path else ():
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False, None
    return True, value


def same_value(left: JSON, right: JSON, *, ignore_case: bool = False, tolerance: float = 0.0) -> bool:
    """Whether two JSON values are equal. 1 equals 1.0; true is no number; keys have no order."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        if left == right:
            return True
        try:
            return abs(left - right) <= tolerance
        except OverflowError:
            return False
    if isinstance(left, str) and isinstance(right, str):
        a, b = left.strip(), right.strip()
        return a.casefold() == b.casefold() if ignore_case else a == b
    options = {"ignore_case": ignore_case, "tolerance": tolerance}
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            same_value(a, b, **options)  # type: ignore[arg-type]
            for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same_value(value, right[key], **options)  # type: ignore[arg-type]
            for key, value in left.items()
        )
    return left is None and right is None


class JsonValidOptions(ScorerOptions):
    """Options of the scorer `json_valid`."""

    kind: Literal["any", "object", "array"] = Field(default="any", description="What the value must be.")
    fenced: bool = Field(default=False, description="Whether a Markdown code fence around it is forgiven.")


@scorer(
    "json_valid",
    summary="1 where the whole output is valid JSON (RFC 8259: no comments, no trailing commas, no NaN); "
    "with fenced: true also inside one code fence.",
    metric="Share of samples whose whole output is valid JSON (RFC 8259), and of the kind that the suite "
    "asks for. Refused answers count as 0; failed samples are left out.",
    example=Example("{json_valid: object}", '{"name": "Ann",}', None, 0),
)
class JsonValid(Scorer[JsonValidOptions]):
    """1 where the raw output is JSON and nothing else."""

    shorthand = "kind"

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; goes by the raw output, whatever the parsers made of it."""
        kind = self.options.kind
        try:
            value = json_of(sample.output, fenced=self.options.fenced)
        except NotJson as error:
            return Score(0.0, str(error))
        if not isinstance(value, {"object": dict, "array": list, "any": object}[kind]):
            return Score(0.0, f"the output is JSON, but no {kind}")
        return Score(1.0, "the output is valid JSON")

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """The same, for outputs that a parser could not read; a refusal is 0."""
        return self.score(sample) if sample.status == "unparsed" else super().unanswered(sample, reason)


with warnings.catch_warnings():
    # The natural name of the option is that of an old method of pydantic, which warns about it.
    warnings.filterwarnings("ignore", message=".*shadows an attribute in parent.*")

    class JsonSchemaOptions(ScorerOptions):
        """Options of the scorer `json_schema`."""

        schema: dict[str, JSON] | None = Field(  # type: ignore[assignment]
            default=None, description="The schema (draft 2020-12, or the draft that its $schema names)."
        )
        column: str | None = Field(
            default=None, description="Column of the dataset that holds each row's own schema instead."
        )
        formats: bool = Field(
            default=False, description="Whether `format` is checked too (date, ipv4 and the like)."
        )

        @model_validator(mode="after")
        def _one_schema(self) -> Self:
            given: Any = self.schema
            if (given is None) == (self.column is None):
                raise ValueError("give exactly one of schema and column")
            if given is not None:
                _check(given)
            return self


def _check(schema: dict[str, JSON]) -> None:
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise ValueError(
            f"not a JSON Schema: {error.message}" + (f" (at {place})" if place else "")
        ) from None


@scorer(
    "json_schema",
    summary="1 where the answer is JSON that fits a schema; the reason names the first violation and its "
    "place. References to other documents are not fetched.",
    metric="Share of samples whose answer is JSON that fits the suite's JSON Schema: mean of 1 where it "
    "does and 0 where not. Unparsed and refused answers count as 0; failed samples are left out.",
    example=Example("{json_schema: {schema: {type: object, required: [name]}}}", '{"name": "Ann"}', None, 1),
)
class JsonSchema(Scorer[JsonSchemaOptions]):
    """1 where the answer is JSON that fits the schema."""

    parts = ("errors",)

    def __init__(self, options: JsonSchemaOptions) -> None:
        super().__init__(options)
        given: Any = options.schema
        self._validator = None if given is None else self._made(given)

    def _made(self, schema: dict[str, JSON]) -> Any:
        from jsonschema.validators import validator_for
        from referencing import Registry

        kind = validator_for(schema)
        checker = kind.FORMAT_CHECKER if self.options.formats else None
        # An empty registry of its own: without one, references to web addresses would be fetched.
        return kind(schema, registry=Registry(), format_checker=checker)

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0, and the number of violations; None where the row's schema is none."""
        validator = self._validator
        try:
            if validator is None:
                given = sample.row.get(self.options.column or "")
                schema: Any = json_of(given) if isinstance(given, str) else given
                _check(schema)
                validator = self._made(schema)
        except Exception as error:
            return Score(None, f"column {shown(self.options.column)} holds no JSON Schema: {error}")
        value = sample.answer
        if isinstance(value, str):
            try:
                value = json_of(value, fenced=True)
            except NotJson as error:
                return Score(0.0, str(error), {"errors": None})
        return self._verdict(validator, value)

    @staticmethod
    def _verdict(validator: Any, value: JSON) -> Score:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            errors = list(validator.iter_errors(value))
        except Unresolvable as error:
            return Score(None, f"the schema refers to {error.ref}, which is not in it")
        except RecursionError:
            return Score(None, "the value or its schema is nested too deeply")
        if not errors:
            return Score(1.0, "the answer fits the schema", {"errors": 0.0})
        first = best_match(errors)
        place = ".".join(map(str, first.absolute_path)) or "the top"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        return Score(0.0, f"at {place}: {first.message[:200]}{more}", {"errors": float(len(errors))})

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0, and no count of violations: there is no value to check."""
        return Score(0.0, reason, {"errors": None})


_STAY = " Unparsed and refused answers count as 0; failed samples are left out."


class JsonFieldsOptions(ScorerOptions):
    """Options of the scorer `json_fields`."""

    fields: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Dotted paths to compare (address.city, items.0.price), each a metric of its own. "
        "Default: every leaf of the target.",
    )
    ignore_case: bool = Field(default=False, description="Whether text is the same in either case.")
    abs_tolerance: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Greatest difference of equal numbers."
    )


@scorer(
    "json_fields",
    summary="Share of the target's JSON fields that the answer has with the same value, field by field; and "
    "whether all are right. Fields that only the answer has do not count.",
    metric=(
        fraction(
            "share",
            "Mean over samples of the share of the target's JSON fields (its leaves, or those that the "
            "suite names) that the answer has with the same value." + _STAY,
        ),
        fraction("all", "Share of samples whose answer has every one of the compared fields right." + _STAY),
    ),
    example=Example(
        "{json_fields: {fields: [name, address.city]}}",
        {"name": "Ann", "address": {"city": "Bonn"}},
        {"name": "Ann", "address": {"city": "Ulm"}},
        0.5,
    ),
)
class JsonFields(Scorer[JsonFieldsOptions]):
    """The share of the target's fields that the answer has right."""

    shorthand = "fields"
    needs_target = True

    def __init__(self, options: JsonFieldsOptions) -> None:
        super().__init__(options)
        paths = list(dict.fromkeys(options.fields or []))
        names = slugs(paths, other=r"[^a-z0-9]+", empty="field", taken=("all", "share"))
        self._slugs = dict(zip(paths, names, strict=True))
        self.parts = ("all", *self._slugs.values())

    def score(self, sample: ScoringInput) -> Score:
        """Between 0 and 1; None where the target is no JSON with fields, or lacks those to compare."""
        options = self.options
        target, answer = value_of(sample.target), value_of(sample.answer)
        if not isinstance(target, dict | list):
            return Score(None, f"the target {shown(sample.target)} is no JSON object or list")
        wanted = dict(leaves(target))
        if options.fields is not None:
            wanted = {path: at_path(target, path)[1] for path in options.fields if at_path(target, path)[0]}
        if not wanted or wanted == {"": target}:
            return Score(None, f"{NOT_APPLICABLE}: the target {shown(sample.target)} has none of the fields")
        right: dict[str, bool] = {}
        for path, value in wanted.items():
            there, given = at_path(answer, path)
            right[path] = there and same_value(
                given, value, ignore_case=options.ignore_case, tolerance=options.abs_tolerance
            )
        hits = sum(right.values())
        parts: dict[str, float | None] = {"all": float(hits == len(right))}
        parts |= {slug: float(right[path]) if path in right else None for path, slug in self._slugs.items()}
        wrong = [path for path, same in right.items() if not same]
        reason = f"{hits} of {len(right)} fields are right"
        if wrong:
            reason += f"; not {', '.join(wrong[:5])}" + (" and others" if len(wrong) > 5 else "")
        return Score(hits / len(right), reason, parts)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same as `describe`, and one metric for each field that the suite names."""
        fields = tuple(
            fraction(
                f"{self.name}.{slug}",
                f"Share of samples whose answer has the target's value in the field {path}." + _STAY,
            )
            for path, slug in self._slugs.items()
        )
        return (*self.describe(self.name), *fields)


class XmlValidOptions(ScorerOptions):
    """Options of the scorer `xml_valid`."""

    root: str | None = Field(
        default=None, min_length=1, description="Name that the outermost element must have."
    )
    fenced: bool = Field(default=True, description="Whether a Markdown code fence around it is forgiven.")


class _Doctype(Exception):
    pass


@scorer(
    "xml_valid",
    summary="1 where the answer is a well-formed XML document, and its outermost element is the one asked "
    "for. A document type declaration is not accepted: it could name files or blow itself up.",
    metric="Share of samples whose answer is a well-formed XML 1.0 document without a document type "
    "declaration: mean of 1 where it is and 0 where not. Unparsed and refused answers count as 0; "
    "failed samples are left out.",
    example=Example("{xml_valid: note}", "<note><to>Ann</to></note>", None, 1),
    shorthand="root",
)
def xml_valid(answer: JSON, options: XmlValidOptions) -> Score:
    """1 or 0."""
    text = as_text(answer).strip()
    if len(text) > MAX_CHARACTERS:
        return Score(0.0, f"the answer is longer than {MAX_CHARACTERS:,} characters")
    try:
        root = _root(_inside(text).strip() if options.fenced else text)
    except _Doctype:
        return Score(0.0, "the answer has a document type declaration")
    except ValueError as error:
        return Score(0.0, f"the answer is not well-formed XML: {error}")
    if options.root is not None and root != options.root:
        return Score(0.0, f"the outermost element is {shown(root)}, not {shown(options.root)}")
    return Score(1.0, f"the answer is well-formed XML, {shown(root)}")


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


MAX_SQL = 20_000
_REMEDY = "Install it: pip install 'sqlglot>=26'."


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


@scorer(
    "sql_parse",
    summary="1 where the answer is one SQL statement that sqlglot can read (needs the extra `sql`). Nothing "
    "is executed, and whether its tables and columns exist is not known.",
    metric="Share of samples whose answer is one SQL statement that the parser sqlglot can read in the "
    "suite's dialect: mean of 1 where it is and 0 where not. Unparsed and refused answers count as "
    "0; failed samples are left out.",
    example=Example("{sql_parse: {dialect: postgres}}", "SELECT a::int FROM t", None, 1),
)
class SqlParse(Scorer[SqlParseOptions]):
    """1 where the answer is one SQL statement."""

    shorthand = "dialect"

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
        text = _inside(text) if self.options.fenced else text
        if len(text) > MAX_SQL:
            return Score(0.0, f"the answer is longer than {MAX_SQL:,} characters")
        try:
            statements = [
                each for each in self._sqlglot.parse(text, dialect=self.options.dialect) if each is not None
            ]
        except self._sqlglot.errors.SqlglotError as error:
            return Score(0.0, f"the answer is not SQL: {_first_line(error)}")
        except RecursionError:
            return Score(0.0, "the answer is nested too deeply")
        if len(statements) != 1:
            return Score(0.0, f"the answer holds {len(statements)} statements, not one")
        return self._verdict(statements[0])

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


def _first_line(error: Exception) -> str:
    # sqlglot underlines the place with escape codes for terminals.
    return re.sub(r"\x1b\[\d*m", "", str(error)).split("\n")[0][:200]


_CALLS = (
    " Calls are those of the response, else those in the answer as JSON. Refused answers, and answers "
    "without calls, count like empty lists of calls; failed samples are left out."
)


class ToolCallsOptions(ScorerOptions):
    """Options of the scorer `tool_calls`."""

    ordered: bool = Field(default=False, description="Whether the calls must come in the target's order.")
    ignore_case: bool = Field(
        default=False, description="Whether text in arguments is the same in either case."
    )
    abs_tolerance: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Greatest difference of equal numbers in arguments.",
    )


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's name and its arguments."""

    name: str
    arguments: JSON


@scorer(
    "tool_calls",
    summary="1 where the model called the target's tools with the target's arguments and no others; F1 over "
    'calls, and over names alone. Targets: [{"name": …, "arguments": {…}}], or as the chat API writes '
    "them.",
    metric=(
        fraction(
            "match",
            "Share of samples whose tool calls are the target's: the same names with equal arguments, "
            "each as often, in any order unless the suite says otherwise." + _CALLS,
        ),
        fraction(
            "f1",
            "Mean over samples of F1 over tool calls, 2 x (calls of the answer that are in the target, "
            "each matched once) / (calls of answer + calls of target); 1 where neither has any." + _CALLS,
        ),
        fraction(
            "name_f1", "The same F1 over the names of the tools alone, whatever the arguments." + _CALLS
        ),
    ),
    example=Example(
        "tool_calls",
        [{"name": "search", "arguments": {"query": "weather", "days": 3}}],
        [{"name": "search", "arguments": {"query": "weather", "days": 3}}],
        1,
    ),
)
class ToolCalls(Scorer[ToolCallsOptions]):
    """1 where the calls are those of the target, and F1 over calls and over names."""

    needs_target = True
    parts = ("f1", "name_f1")

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0 with two F1; None where the target is no list of calls."""
        wanted = calls_of(value_of(sample.target))
        if wanted is None:
            return Score(None, f"the target {shown(sample.target)} is no list of tool calls")
        given = calls_of(sample.tool_calls) if sample.tool_calls else calls_of(value_of(sample.answer))
        given = given or []
        hits = matched(given, wanted, self._same)
        names = matched(given, wanted, lambda one, other: one.name == other.name)
        exact = hits == len(given) == len(wanted)
        if exact and self.options.ordered:
            exact = all(self._same(one, other) for one, other in zip(given, wanted, strict=True))
        size = len(given) + len(wanted)
        f1, name_f1 = (2 * common / size if size else 1.0 for common in (hits, names))
        reason = f"{hits} of {len(wanted)} calls are right, {len(given)} were made"
        if given:
            reason += f": {', '.join(call.name for call in given[:5])}"
        return Score(float(exact), reason, {"f1": f1, "name_f1": name_f1})

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """Calls need no parser; a refusal makes none."""
        if sample.status is Status.UNPARSED and sample.tool_calls:
            return self.score(sample)
        return super().unanswered(sample, reason)

    def _same(self, one: Call, other: Call) -> bool:
        return one.name == other.name and same_value(
            one.arguments,
            other.arguments,
            ignore_case=self.options.ignore_case,
            tolerance=self.options.abs_tolerance,
        )


def calls_of(value: JSON) -> list[Call] | None:
    """The calls in a list, or in one call; None where the value is neither.

    A call is {"name", "arguments"}, or as the chat API has it {"function": {"name", "arguments"}}; arguments
    may be JSON text, as they are there.
    """
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    calls = []
    for entry in entries:
        inner = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return None
        arguments = value_of(inner.get("arguments", inner.get("parameters")))
        calls.append(Call(inner["name"], {} if arguments in (None, "") else arguments))
    return calls


def matched(given: list[Call], wanted: list[Call], same: Callable[[Call, Call], bool]) -> int:
    """How many of the given calls have one of their own among the wanted."""
    left = list(wanted)
    hits = 0
    for call in given:
        at = next((at for at, other in enumerate(left) if same(call, other)), None)
        if at is not None:
            hits += 1
            del left[at]
    return hits
