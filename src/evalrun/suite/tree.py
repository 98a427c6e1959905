"""YAML with a memory: every value knows the line it stands on, or the option that put it there.

Environment variables: `${NAME}` in any text value; `$${` stands for a plain `${`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from evalrun.errors import Problem
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.secrets import is_secret_variable, scrub
from evalrun.suite.findings import DataPath, describe
from evalrun.types import JSON

MAX_VALUES = 2_000_000
"""Values in a suite at most. Aliases that expand each other could ask for more than memory holds."""

MAX_DEPTH = 60


@frozen
class Place:
    """Where a value stands: a line of a file, or an option of the command line (then `line` is 0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@frozen
class Unexpanded:
    """Text with `${` in it. `plain`: written without quotes, so that the result may be a number."""

    text: str
    plain: bool


Scalar: TypeAlias = bool | int | float | str | Unexpanded | None


@dataclass(slots=True)
class Node:
    """A value with its place. `key_place` is that of the key before it, where it has one."""

    value: Scalar | list[Node] | dict[str, Node]
    place: Place
    key_place: Place | None = None

    def child(self, step: str | int) -> Node | None:
        """The value under a key or an index, or None."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def deepest(self, path: DataPath) -> Node:
        """The value at a path, or the nearest value above it where the path leads nowhere."""
        node = self
        for step in path:
            below = node.child(step)
            if below is None:
                break
            node = below
        return node

    def shown_place(self) -> Place:
        """The place to point at: for a mapping or list its key's, for a scalar its own."""
        return self.key_place if self.key_place and isinstance(self.value, dict | list) else self.place

    def plain(self) -> JSON:
        """The data without the places. Text that was not expanded stays as it is written."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value.text if isinstance(self.value, Unexpanded) else self.value

    def walk(self, path: DataPath = ()) -> Iterator[tuple[DataPath, Node]]:
        """Every value from here down, with its path."""
        yield path, self
        if isinstance(self.value, dict):
            for key, item in self.value.items():
                yield from item.walk((*path, key))
        elif isinstance(self.value, list):
            for index, item in enumerate(self.value):
                yield from item.walk((*path, index))


def parse_yaml(text: str, source: str, *, lines: bool = True) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document.

    Returns the tree (None for an empty document or a syntax error) and everything that is wrong with it:
    syntax, repeated keys, unknown tags, numbers that are not finite. `lines=False` when `source` is an
    option, where a line number says nothing.
    """
    builder = _Builder(source, lines)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1 if mark and lines else 0)
        return None, [Problem(f"not valid YAML: {_explain(error)}", str(place), _syntax_remedy(error, text))]
    except yaml.YAMLError as error:
        line = _line_of(text, error) if lines else 0
        return None, [Problem("not valid YAML: a character that is not allowed", str(Place(source, line)))]
    finally:
        loader.dispose()
    if node is not None and "*" in text and _multiplies(node):
        builder.problem(node, f"the suite holds more than {MAX_VALUES:,} values", "Put rows into a file.")
        return None, builder.problems
    return (None if node is None else builder.build(node)), builder.problems


def _multiplies(root: yaml.Node) -> bool:
    """Whether aliases stand for more values than a suite may hold: counted without writing any out. One
    within itself is left to who builds."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.ScalarNode) or depth > MAX_DEPTH:
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = 1
            parts = (
                node.value
                if isinstance(node, yaml.SequenceNode)
                else [n for pair in node.value for n in pair]
            )
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(node)]

    return size(root, 0) > MAX_VALUES


def core_value(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar by the core schema of YAML 1.2.

    Raises ValueError for a number that JSON cannot hold.
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if _NOT_FINITE.fullmatch(text) or _FLOAT.fullmatch(text):
        raise ValueError("not a finite number")
    return text


_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = "plain"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's parser, in C where it is there, that leaves the type of plain scalars to `core_value`."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool] | bool) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if isinstance(implicit, tuple) and implicit[0] else _PREFIX + "str"
        return _PREFIX + ("map" if kind is yaml.MappingNode else "seq")


class _Builder:
    """Turns PyYAML's graph of nodes into our tree, and collects what is wrong with it."""

    def __init__(self, source: str, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self.problems: list[Problem] = []
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.source, node.start_mark.line + 1 if self.lines else 0)

    def problem(self, node: yaml.Node, what: str, remedy: str = "") -> None:
        self.problems.append(Problem(what, str(self.place(node)), remedy))

    def build(self, node: yaml.Node, depth: int = 0) -> Node:
        place = self.place(node)
        if self.too_much(node, depth):
            return Node(None, place)
        if isinstance(node, yaml.ScalarNode):
            return Node(self.scalar(node), place)
        if node.tag not in (_PREFIX + "map", _PREFIX + "seq"):
            self.problem(node, f"the tag {_shown(node.tag)} is not understood here", "Remove it.")
        if isinstance(node, yaml.MappingNode):
            return Node(self.mapping(node, depth), place)
        return Node([self.build(item, depth + 1) for item in node.value], place)

    def too_much(self, node: yaml.Node, depth: int) -> bool:
        """Whether to stop here: an alias within itself, or aliases that multiply. Said once."""
        self.count += 1
        if self.count == MAX_VALUES + 1:
            self.problem(node, f"the suite holds more than {MAX_VALUES:,} values", "Put rows into a file.")
        elif depth == MAX_DEPTH and self.count <= MAX_VALUES:
            self.problem(node, "values are nested too deeply", "Does an alias stand within its own anchor?")
            self.count = MAX_VALUES + 1
        return self.count > MAX_VALUES

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if not isinstance(key_node, yaml.ScalarNode):
                remedy = 'Put templates in quotes: "{{ text }}".'
                self.problem(key_node, "a key cannot be a list or a mapping", remedy)
            elif key == "<<" and key_node.tag == _PLAIN:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            elif key in result:
                first = result[key].key_place
                self.problem(key_node, f"the key '{key}' appears twice (first at {first})", "Remove one.")
            else:
                result[key] = self.build(value_node, depth + 1)
                result[key].key_place = self.place(key_node)
        for base in merged:
            if not isinstance(base, yaml.MappingNode):
                self.problem(base, "'<<' takes a mapping, or a list of mappings")
            elif not self.too_much(base, depth):
                for key, item in self.mapping(base, depth + 1).items():
                    result.setdefault(key, item)
        return result

    def scalar(self, node: yaml.ScalarNode) -> Scalar:
        text, kind = str(node.value), node.tag.removeprefix(_PREFIX)
        if kind == "str" or (kind == _PLAIN and "${" in text):
            return Unexpanded(text, kind == _PLAIN) if "${" in text else text
        try:
            value = core_value(text)
        except ValueError:
            self.problem(node, f"'{text[:40]}' is not a finite number", "Put it in quotes if text is meant.")
            return None
        if kind == _PLAIN or isinstance(value, _TAGGED.get(kind, ())):
            return value
        self.problem(node, f"the tag {_shown(node.tag)} does not fit here", "Remove it.")
        return None


_TAGGED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def _shown(tag: str) -> str:
    return "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag


def _explain(error: yaml.MarkedYAMLError) -> str:
    context = f" {error.context}" if error.context else ""
    return f"{error.problem or 'it cannot be read'}{context}"


def _syntax_remedy(error: yaml.MarkedYAMLError, text: str) -> str:
    problem, mark = error.problem or "", error.problem_mark
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "while parsing a flow" in (error.context or "") and ("${" in line or "{{" in line):
        return 'Within { } and [ ], put text with braces in quotes: "${NAME}", "{{ text }}".'
    if "mapping values are not allowed" in problem:
        return 'Put text that holds ": " in quotes, and check the indentation.'
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "Indent with spaces; YAML does not allow tabs."
    if "expected a single document" in (error.context or "") + problem:
        return "A suite is one document: remove the '---' between two."
    if "'%'" in problem or "'@'" in problem or "'`'" in problem:
        return "Put the text in quotes."
    return "Check quotes, brackets and indentation on this line and the one before."


def _line_of(text: str, error: yaml.YAMLError) -> int:
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1


_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{([A-Za-z_][A-Za-z0-9_]*):?[-?+=]")

_STORED = {
    "prompts": ("text", "messages", "system", "few_shot"),
    "datasets": ("rows", "target", "columns"),
}
"""What is rendered into every sample, and kept with it; so is all that scorers are told."""

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(slots=True)
class Expansion:
    """What expanding did.

    `used` are the variables with their values; `values` gives for each expanded path the text as written and
    the value it became; at the paths in `failed` a variable was unset.
    """

    used: dict[str, str] = field(default_factory=dict)
    values: dict[DataPath, tuple[str, JSON]] = field(default_factory=dict)
    failed: set[DataPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def secrets(self) -> dict[str, str]:
        """Those variables whose names say that their values are secret."""
        return {name: value for name, value in self.used.items() if _SECRET_NAME.search(name)}

    def redacted(self, problem: Problem, path: DataPath) -> Problem:
        """A problem of the value at a path, with what was written in place of what it expanded to.

        Short values are replaced only where the message quotes a value, or it would not read well.
        """
        return Problem(self._redact(problem.what, path), problem.where, self._redact(problem.remedy, path))

    def _redact(self, text: str, path: DataPath) -> str:
        for place, (source, value) in self.values.items():
            text = text.replace(describe(value), f"the value of {source}").replace(
                f"'{value}'", f"'{source}'"
            )
            about_it = place[: len(path)] == path or path[: len(place)] == place
            if len(str(value)) >= (4 if about_it else 8):
                text = text.replace(str(value), source)
        for name, value in self.used.items():
            if len(value) >= 8:
                text = text.replace(value, f"${{{name}}}")
        return text


def expand(root: Node, env: Mapping[str, str]) -> Expansion:
    """Replace every reference in the tree, in place."""
    result = Expansion()
    for path, node in root.walk():
        if isinstance(node.value, Unexpanded):
            source, known = node.value, len(result.problems)
            _expand_node(path, node, env, result)
            if len(result.problems) > known:
                result.failed.add(path)
            else:
                result.values[path] = (source.text, node.value)
    return result


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Text with its references replaced; those to unset variables stay."""
    return _REFERENCE.sub(lambda match: _replacement(match, env), text)


def _is_secret(name: str, value: str) -> bool:
    return is_secret_variable(name, value) or scrub(value) != value


def _is_kept(path: DataPath) -> bool:
    return path[:1] == ("scorers",) or (len(path) > 2 and path[2] in _STORED.get(str(path[0]), ()))


def _expand_node(path: DataPath, node: Node, env: Mapping[str, str], result: Expansion) -> None:
    source = node.value
    if not isinstance(source, Unexpanded):
        return
    used: dict[str, str] = {}
    problems: list[Problem] = []
    for match in _REFERENCE.finditer(source.text):
        name, fallback = match.groups()
        if fallback:
            what = f"'${{{fallback}' is followed by a default value, which is not supported"
            remedy = f"Write ${{{fallback}}} and set the variable, or $${{ where the text itself is meant."
            problems.append(Problem(what, str(node.place), remedy))
        elif name and name not in env:
            near = nearest(name, env)
            what = f"the environment variable {name} is not set" + (f" (there is {near})" if near else "")
            remedy = f"Set it, or write $${{{name}}} where the text itself is meant."
            problems.append(Problem(what, str(node.place), remedy))
        elif name:
            used[name] = env[name]
        if name and name in env and _is_kept(path) and _is_secret(name, env[name]):
            what = f"the value of {name} would be stored with every sample"
            remedy = "Keys go into api_key_env or headers_env. A value that is no secret needs another name."
            problems.append(Problem(what, str(node.place), remedy))
    node.value = expanded(source.text, env)
    result.used.update(used)
    result.problems += problems
    if source.plain and used and not problems:
        with suppress(ValueError):
            node.value = core_value(node.value)


def _replacement(match: re.Match[str], env: Mapping[str, str]) -> str:
    name = match.group(1)
    if name is None:
        return "${" if match.group(0) == "$${" else match.group(0)
    return env.get(name, match.group(0))
