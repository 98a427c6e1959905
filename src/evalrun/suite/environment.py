"""Environment variables in a suite: `${NAME}` in any text value; `$${` stands for a plain `${`.

An unset variable is an error at its line. The value of a variable is never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from evalrun.errors import Problem
from evalrun.registry import nearest
from evalrun.secrets import is_secret_variable, scrub
from evalrun.suite.findings import DataPath, describe
from evalrun.suite.tree import Node, Unexpanded, core_value
from evalrun.types import JSON

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
