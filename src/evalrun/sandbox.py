"""The environment that templates run in: Jinja2's immutable sandbox, strict, deterministic and bounded.

Beyond what Jinja2's sandbox refuses (attributes that lead out of the data, changes to it), one rendering may
spend only so many loop rounds and calls, and one operation may make only so much text. What would make the
same template give different texts is gone: `random`, `lipsum`. `tojson` writes plain JSON, since a prompt is
no HTML page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from types import FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, cast

from jinja2 import BaseLoader, StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from evalrun.canonical import canonical_json

MAX_STEPS = 1_000_000
"""Loop rounds that one rendering may spend; a call costs as much as twenty."""

_CALL = 20

MAX_TEXT = 10_000_000
"""Characters that one operation may make."""

BUDGET = "evalrun: budget"
"""Where a rendering keeps its remaining steps among its values: no identifier, so no template can name it."""

_STEPS, _SIZED, _PRINTED = "evalrun_steps", "evalrun_sized", "evalrun_printed"
_PLAIN = frozenset({str, int, float, bool})
_MAX_BITS = 4096
_WIDE_FIELD = re.compile(r"\d{7,}|\*|:[^}]*\{")


_JINJA_ARGUMENTS = frozenset({"_loop_vars", "_block_vars"})


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """For prompts and dataset templates: undefined names are errors, nothing is escaped."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, loader: BaseLoader | None = None) -> None:
        super().__init__(
            undefined=StrictUndefined, autoescape=False, loader=loader, auto_reload=False, finalize=_printed
        )
        del self.globals["lipsum"], self.filters["random"]
        self.filters.update(
            {
                _STEPS: _charge_for_rounds,
                _SIZED: _refuse_long,
                _PRINTED: _printed,
                "tojson": _to_json,
                "replace": _bounded(self.filters["replace"], _replaced_size),
                "join": _bounded(self.filters["join"], _joined_size),
                "format": _bounded(self.filters["format"], _formatted_size),
                **{name: _bounded(self.filters[name], _largest) for name in _WIDTH_FILTERS},
            }
        )
        self.filters.update({name: _of_text(self.filters[name]) for name in _TEXT_FILTERS})
        self.filters["join"] = _without_nulls(self.filters["join"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _Bounds(self).visit(tree)  # type: ignore[no-any-return]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An arithmetic operation, refused where its result would be absurdly large."""
        _check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Jinja2's own rule, with a short way for plain values, which hold nothing that could be changed."""
        if type(obj) in _PLAIN:
            return not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call made by a template: it costs steps, and is refused where its result would be too large."""
        _spend(__context, _CALL)
        inner = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped by Jinja2
        text = getattr(inner, "__self__", None)
        if isinstance(text, str):
            # Inside loops and blocks Jinja2 adds arguments of its own, meant for templates' macros.
            given = {name: value for name, value in kwargs.items() if name not in _JINJA_ARGUMENTS}
            if size := _METHOD_SIZES.get(inner.__name__):
                _refuse_size(size(text, *args, *given.values()))
            if type(text) is str:  # a method of plain text is safe, and most calls are such
                return __obj(*args, **given)
        return super().call(__context, __obj, *args, **kwargs)


class _Bounds(NodeTransformer):
    """Puts the counting filters around what loops iterate over and around concatenations.

    Every included or imported file sees the row's columns and draws on the same budget; Jinja2 alone would
    run imported macros apart from the rendering, where nothing counts their steps.
    """

    def __init__(self, environment: SandboxEnvironment) -> None:
        self.environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filter(cast(nodes.Expr, node.iter), _STEPS)
        return node

    def visit_Include(self, node: nodes.Include) -> nodes.Node:
        return self._with_context(node)

    def visit_Import(self, node: nodes.Import) -> nodes.Node:
        return self._with_context(node)

    def visit_FromImport(self, node: nodes.FromImport) -> nodes.Node:
        return self._with_context(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        _refuse_way_out(node.attr, node.lineno)
        return self.generic_visit(node)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, str):
            _refuse_way_out(node.value, node.lineno)
        return node

    def _with_context(self, node: nodes.Include | nodes.Import | nodes.FromImport) -> nodes.Node:
        node.with_context = True
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [self._filter(part, _PRINTED) for part in node.nodes]
        return self._filter(node, _SIZED)

    def _filter(self, node: nodes.Expr, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=self.environment)


_WAY_OUT = re.compile(r"\s*__\w+__\s*|.*\{[^}]*__\w+__[^}]*\}.*", re.DOTALL)
"""A name of Python's own, alone or as a field of a format: by those a template leaves its data."""
_DUNDER = re.compile(r"__\w+?__(?!\w)")
_PYTHONS = frozenset(
    name
    for kind in (object, type, dict, FunctionType, MethodType, GeneratorType, ModuleType, Exception)
    for name in dir(kind)
) | {"__builtins__", "__import__", "__mro__", "__loader__", "__spec__"}
"""Columns may have names of that form too (`__key__`)."""


def _refuse_way_out(text: str, line: int) -> None:
    """Jinja2's sandbox refuses it too, but only when the place is reached, which may be in the last row."""
    if "__" in text and _WAY_OUT.fullmatch(text) and not _PYTHONS.isdisjoint(_DUNDER.findall(text)):
        raise TemplateSyntaxError(f"it leads out of the sandbox: {text.strip()[:60]}", line)


def reaches_by_computed_names(source: str) -> bool:
    """Whether a template may look up attributes by names that only its rendering makes."""
    return _COMPUTED.search(source) is not None


_COMPUTED = re.compile(r"\|\s*attr\b|\bformat|\[[^\]]*[~+|(]")


def _printed(value: Any) -> Any:
    """What a value is printed as: null as nothing, where Python would write None."""
    return "" if value is None else value


_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "string",
    "striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordcount", "wordwrap",
)  # fmt: skip
"""Filters that make a text of what they are given."""


def _of_text(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, which takes null for an empty text."""
    at = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def of_text(*args: Any, **kwargs: Any) -> Any:
        if len(args) > at and args[at] is None:
            args = (*args[:at], "", *args[at + 1 :])
        return filter_(*args, **kwargs)

    return of_text


def _without_nulls(join: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `join`, for lists that hold nulls."""
    at = 1 if hasattr(join, "jinja_pass_arg") else 0

    @wraps(join)
    def without_nulls(*args: Any, **kwargs: Any) -> Any:
        items = args[at] if len(args) > at else None
        if isinstance(items, list | tuple) and None in items:
            args = (*args[:at], [_printed(item) for item in items], *args[at + 1 :])
        return join(*args, **kwargs)

    return without_nulls


def _spend(context: Context, steps: int) -> None:
    budget = context.parent[BUDGET]
    budget[0] -= steps
    if budget[0] < 0:
        raise SecurityError("too many loop rounds and calls in one rendering")


@pass_context
def _charge_for_rounds(context: Context, iterable: Any) -> Any:
    if not hasattr(iterable, "__len__"):
        iterable = list(iterable)
    _spend(context, len(iterable))
    return iterable


@pass_context  # with the context, so that the compiler does not fold it away
def _refuse_long(context: Context, text: str) -> str:
    _refuse_size(len(text))
    return text


def _refuse_size(size: int) -> None:
    if size > MAX_TEXT:
        raise SecurityError(f"an operation would make more than {MAX_TEXT:,} characters or items")


def _check_operation(operator: str, left: Any, right: Any) -> None:
    numbers = isinstance(left, int) and isinstance(right, int)
    if operator == "%":
        if isinstance(left, str):
            _refuse_size(_formatted_size(left, *(right if isinstance(right, tuple) else (right,))))
    elif operator == "+":
        if not numbers and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _refuse_size(len(left) + len(right))
    elif numbers:
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MAX_BITS:
            raise SecurityError(f"a number of more than {_MAX_BITS} bits")
    elif operator == "*":
        _refuse_size(_length(left) * _length(right))


def _length(value: Any) -> int:
    if isinstance(value, int):
        return value
    return len(value) if hasattr(value, "__len__") else 0


def _largest(_: Any, *args: Any) -> int:
    return max((value for value in args if isinstance(value, int)), default=0)


def _replaced_size(text: Any, old: Any = "", new: Any = "", *_: Any) -> int:
    return len(str(text)) + str(text).count(str(old)) * len(str(new))


def _joined_size(items: Any, glue: Any = "", *_: Any) -> int:
    return len(str(glue)) * len(items) if hasattr(items, "__len__") else len(str(glue))


def _formatted_size(text: Any, *args: Any) -> int:
    """No exact size: large only where the format states a huge width or takes one from an argument."""
    found = _WIDE_FIELD.findall(str(text))
    if any(field.isdigit() for field in found):
        return MAX_TEXT + 1
    return _largest(text, *args) if found else 0


_WIDTH_FILTERS = ("batch", "center", "indent", "slice")

_METHOD_SIZES: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("ljust", "rjust", "center", "zfill"), _largest),
    "expandtabs": lambda text, *args: text.count("\t") * _largest(text, *args),
    "replace": _replaced_size,
    "join": lambda glue, items=(): _joined_size(items, glue),
    "format": _formatted_size,
    "format_map": lambda text, values: _formatted_size(text, *values.values()),
}


def _bounded(filter_: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
    """The filter, refused where the size of its result would be too much."""
    skip = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _refuse_size(size(*args[skip:], *kwargs.values()))
        return filter_(*args, **kwargs)

    return bounded


def _to_json(value: Any, indent: int | None = None) -> str:
    if indent is None:
        return canonical_json(value).decode()
    import json

    return json.dumps(value, indent=min(indent, 16), ensure_ascii=False, sort_keys=True)
