"""Compiled templates over the columns of a row: for prompts, and for what a dataset derives or filters by.

Compiled once, rendered often. A template knows which variables it reads and on which line, so that a
mistyped one is found before anything is sent.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from types import TracebackType
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.environment import Template as JinjaTemplate
from jinja2.runtime import Context, Undefined

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.sandbox import BUDGET, MAX_STEPS, SandboxEnvironment
from evalrun.types import JSON

_VALUE = "evalrun_value"
_PLAIN = frozenset({str, int, float, bool, type(None)})


BYTES = re.compile(r"<\d+ bytes, sha256 [0-9a-f]{64}>")
"""What stands in a row for bytes (`evalrun.datasets.source.json_value`)."""


def holds_bytes(value: JSON) -> bool:
    """Whether a value of a row is, or holds, bytes."""
    if isinstance(value, str):
        return value[:1] == "<" and BYTES.fullmatch(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_bytes, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_bytes, value))


class TemplateFailure(Exception):
    """A template that could not be rendered for these values. `line` is the template's line, if known."""

    def __init__(self, message: str, line: int | None = None, name: str | None = None) -> None:
        self.message = message
        self.line = line
        self.name = name
        super().__init__(message)


@frozen
class Variables:
    """What a template reads: `lines` has every undeclared variable with the line of its first use.

    `tested` are those that it asks about with `is defined`: they may be absent. `attributes` are the
    constant names looked up on each variable (`row.question`, `row["question"]`), with their lines.
    """

    lines: Mapping[str, int]
    tested: frozenset[str]
    attributes: Mapping[str, Mapping[str, int]]
    guarded: frozenset[str] = frozenset()
    """Those that it looks at before it prints them: `{% if hint %}`, `hint or "none"`, `hint is none`."""

    def missing(self, columns: Container[str], given: Container[str] = ("row",)) -> dict[str, int]:
        """The columns that the template needs and that are not there, each with the line of its use.

        `given` are names that exist besides the columns; `row` is the whole row, so what is looked up on
        it must be a column.
        """
        absent = {
            name: line
            for name, line in self.lines.items()
            if name not in self.tested and name not in columns and name not in given
        }
        if "row" in given and "row" not in columns:
            looked_up = self.attributes.get("row", {})
            absent |= {name: line for name, line in looked_up.items() if name not in columns}
        return absent


@frozen
class Compiled:
    """A template as a function of a row: its text, or for an expression its value as it is."""

    evaluate: Callable[[Mapping[str, JSON]], JSON]
    variables: Variables


def is_template(text: str) -> bool:
    """Whether a setting that may be a column's name or a template is a template."""
    return "{{" in text or "{%" in text


RESERVED = frozenset(
    {"row", "true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else",
     "elif", "for", "recursive", "import", "from", "as", "self", "super", "caller", "loop", "varargs",
     "kwargs",      "range", "dict", "lipsum", "cycler", "joiner", "namespace"}
)  # fmt: skip
"""Names that mean something else in a template than the column of that name."""


def reference(column: str) -> str:
    """A column as a template names it: `text`, or `row['Message text']` where the name is no identifier."""
    if column.isidentifier() and column.isascii() and column not in RESERVED:
        return column
    return f"row[{column!r}]"


def quoted(column: str) -> str:
    """A column as a message proposes it for a template: 'text', or row['Message text']."""
    named = reference(column)
    return f"'{named}'" if named == column else named


def compile_value(source: str, where: str) -> Compiled:
    """A template for a derived value: a single `{{ expression }}` keeps its type, all else is text.

    `where` names the template's place in error messages. Raises UserError for a syntax error.
    """
    with _SyntaxErrors(where):
        return _compile_value(source)


def compile_condition(source: str, where: str) -> Compiled:
    """A Jinja2 expression (without braces) as a function that gives True or False.

    Raises UserError for a syntax error.
    """
    if is_template(source):
        raise UserError(
            "a filter is a bare expression",
            where=where,
            remedy="Write it without braces, for instance: label != 'other'.",
        )
    with _SyntaxErrors(where):
        return _compile_condition(source)


@cache
def _environment() -> SandboxEnvironment:
    return SandboxEnvironment()


@lru_cache(maxsize=256)
def _compile_value(source: str) -> Compiled:
    environment = _environment()
    tree = environment.parse(source.strip())
    expression = _single_expression(tree)
    if expression is None:
        return Compiled(renderer(environment.from_string(source)), variables(tree))
    used = variables(tree)
    return Compiled(_evaluator(environment, expression), used)


@lru_cache(maxsize=256)
def _compile_condition(source: str) -> Compiled:
    environment = _environment()
    tree = environment.parse("{{ (" + source + "\n) }}")
    expression = _single_expression(tree)
    if expression is None:
        raise jinja2.TemplateSyntaxError("expected one expression", 1)
    used, value = variables(tree), _evaluator(environment, expression)
    return Compiled(lambda row: bool(value(row)), used)


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    """The expression of a template that is nothing but one `{{ expression }}`."""
    match tree.body:
        case [nodes.Output(nodes=[nodes.Expr() as only])] if not isinstance(only, nodes.TemplateData):
            return only
    return None


def _evaluator(environment: SandboxEnvironment, expression: nodes.Expr) -> Callable[..., JSON]:
    if isinstance(expression, nodes.Name):
        return _column(expression.name)
    target = nodes.Name(_VALUE, "store", lineno=1)
    tree = nodes.Template([nodes.Assign(target, expression, lineno=1)], lineno=1)
    tree.set_environment(environment)
    template = environment.from_string(tree)
    new_context, root = _contexts(template), template.root_render_func

    def evaluate(row: Mapping[str, JSON]) -> JSON:
        context = new_context(row)
        try:
            for _ in root(context):
                pass
            value = context.vars[_VALUE]
            return value if type(value) in _PLAIN else _plain(value)
        except Exception as error:
            raise failure(error) from error

    return evaluate


def _column(name: str) -> Callable[[Mapping[str, JSON]], JSON]:
    """An expression that is one column's name needs no template."""

    def read(row: Mapping[str, JSON]) -> JSON:
        try:
            return row[name]
        except KeyError:
            raise TemplateFailure(f"'{name}' is undefined", 1) from None

    return read


def renderer(template: JinjaTemplate) -> Callable[[Mapping[str, JSON]], str]:
    """A Jinja2 template as a function from values to text. It raises TemplateFailure, and nothing else."""
    new_context, root, join = _contexts(template), template.root_render_func, "".join

    def render(values: Mapping[str, JSON]) -> str:
        try:
            return join(root(new_context(values)))
        except Exception as error:
            raise failure(error) from error

    return render


def _contexts(template: JinjaTemplate) -> Callable[[Mapping[str, JSON]], Context]:
    """Makes the context of one rendering: what `Template.new_context` does, with the globals copied once."""
    environment, name, blocks = template.environment, template.name, template.blocks
    known = dict(template.globals)

    def new_context(values: Mapping[str, JSON]) -> Context:
        return Context(environment, {**known, **values, BUDGET: [MAX_STEPS]}, name, blocks)

    return new_context


def _plain(value: Any) -> JSON:
    """What an expression gave, as a JSON value."""
    if isinstance(value, Undefined):
        return str(value)  # raises the error that says which name or attribute is undefined
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, list | tuple | set | range | Iterator):
        return [_plain(item) for item in value]
    raise TypeError(f"the expression gives a {type(value).__name__}, which is no value for a column")


def failure(error: Exception) -> TemplateFailure:
    """An exception out of a rendering as a message, with the template's own line where it is known."""
    if isinstance(error, TemplateFailure):
        return error
    line, name = _template_line(error.__traceback__)
    if isinstance(error, RecursionError):
        return TemplateFailure("templates call each other without end", line, name)
    if isinstance(error, jinja2.TemplateError):
        return TemplateFailure(str(error.message or error), line, name)
    return TemplateFailure(f"{type(error).__name__}: {error}", line, name)


def _template_line(traceback: TracebackType | None) -> tuple[int | None, str | None]:
    found: tuple[int | None, str | None] = (None, None)
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            found = template.get_corresponding_lineno(traceback.tb_lineno), template.name
        traceback = traceback.tb_next
    return found


class _SyntaxErrors:
    """Turns Jinja2's syntax errors into a UserError at a place."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UNREADABLE):
            raise syntax_error(error, self.where) from error


UNREADABLE = (jinja2.TemplateSyntaxError, RecursionError)
"""What parsing and compiling a template may raise."""


def syntax_error(error: Exception, where: str) -> UserError:
    """A template that Jinja2 cannot read, as an error for the user."""
    reason = error.message if isinstance(error, jinja2.TemplateSyntaxError) else "it is nested too deeply"
    return UserError(
        f"the template cannot be read: {reason}",
        where=where,
        remedy="Templates are Jinja2: {{ column }}, {{ row['Column with blanks'] }}, {% if … %}…{% endif %}, "
        "{% for … %}…{% endfor %}.",
    )


def variables(tree: nodes.Template) -> Variables:
    """The variables that a parsed template reads and does not define itself."""
    undeclared = meta.find_undeclared_variables(_with_branches_settled(tree))
    lines: dict[str, int] = {}
    for name in tree.find_all(nodes.Name):
        if name.name in undeclared:
            lines[name.name] = min(name.lineno, lines.get(name.name, name.lineno))
    for missing in undeclared.difference(lines):
        lines[missing] = 1
    tested = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    attributes = _attributes(tree, undeclared)
    return Variables(lines, frozenset(tested & undeclared), attributes, _guarded(tree) & undeclared)


def _guarded(tree: nodes.Template) -> frozenset[str]:
    """The names that conditions, `or`, tests and the filter `default` ask about."""
    asked: list[nodes.Node] = [node.test for node in tree.find_all(nodes.If)]
    asked += [node.test for node in tree.find_all(nodes.CondExpr)]
    asked += tree.find_all((nodes.Or, nodes.And, nodes.Test, nodes.Not))
    asked += [node for node in tree.find_all(nodes.Filter) if node.name in ("default", "d")]
    return frozenset(
        name.name
        for node in asked
        for name in (node, *node.find_all(nodes.Name))
        if isinstance(name, nodes.Name)
    )


def _with_branches_settled(tree: nodes.Template) -> nodes.Template:
    """The tree, for Jinja2's analysis: what every branch of an {% if %} sets is set after it.

    Jinja2 takes such a name for one that may be undefined, which here would be a column.
    """
    if not any(_set_by_all(node) for node in tree.find_all(nodes.If)):
        return tree
    settled = copy.deepcopy(tree)
    for parent in [settled, *settled.find_all(nodes.Node)]:
        for field in ("body", "else_"):
            statements = getattr(parent, field, None)
            if isinstance(statements, list):
                statements[:] = [each for one in statements for each in (*_assignments(one), one)]
    return settled


def _assignments(node: nodes.Node) -> list[nodes.Node]:
    """What stands before a statement in the analysed tree: an assignment of each name that it settles."""
    if not isinstance(node, nodes.If):
        return []
    nothing = nodes.Const(None, lineno=node.lineno)
    return [
        nodes.Assign(nodes.Name(name, "store", lineno=node.lineno), nothing, lineno=node.lineno)
        for name in sorted(_set_by_all(node))
    ]


def _set_by_all(node: nodes.If) -> set[str]:
    """The names that every branch sets and no condition reads."""
    branches = [node.body, *(each.body for each in node.elif_), node.else_]
    tests = [node.test, *(each.test for each in node.elif_)]
    read = {
        name.name
        for test in tests
        for name in (test, *test.find_all(nodes.Name))
        if isinstance(name, nodes.Name)
    }
    return set.intersection(*(_set_in(branch) for branch in branches)) - read


def _set_in(statements: Iterable[nodes.Node]) -> set[str]:
    """The names that are set once these statements have run."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, nodes.Assign | nodes.AssignBlock):
            names = (statement.target, *statement.target.find_all(nodes.Name))
            found |= {name.name for name in names if isinstance(name, nodes.Name)}
        elif isinstance(statement, nodes.If):
            found |= _set_by_all(statement)
    return found


def _attributes(tree: nodes.Template, names: set[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for kind in (nodes.Getattr, nodes.Getitem):
        for node in tree.find_all(kind):
            match node:
                case nodes.Getattr(node=nodes.Name(name=name), attr=str(key)) if name in names:
                    found.setdefault(name, {}).setdefault(key, node.lineno)
                case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(key))) if (
                    name in names
                ):
                    found.setdefault(name, {}).setdefault(key, node.lineno)
    return found
