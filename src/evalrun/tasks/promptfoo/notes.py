"""What the parts of a conversion share: where it reads, and what it could not take over."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tasks.reading import parse_yaml, text_of

CODE = (".py", ".js", ".ts", ".mjs", ".cjs")


DEPTH = 20
"""References of references are followed so far; one within itself leads nowhere."""


class Notes:
    """A configuration on its way to a suite."""

    def __init__(self, path: Path) -> None:
        self.path, self.base = path, path.parent
        self.left_out: list[dict[str, str]] = []
        self.checks = 0
        self.columns: dict[str, str] = {}
        self.rubrics: dict[str, list[str]] = {}
        text = text_of(path)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        document = parse_yaml(text, path)
        if not isinstance(document, dict) or not document.get("prompts"):
            raise UserError(f"{path} is no configuration of promptfoo: it has no prompts", where=str(path))
        self.config: dict[str, Any] = self._referred(document, document, 0)

    def leave(self, what: str, why: str) -> None:
        """Note what is not taken over; once."""
        entry = {"what": what, "why": why}
        if entry not in self.left_out:
            self.left_out.append(entry)

    def _referred(self, value: Any, root: Mapping[str, Any], depth: int) -> Any:
        """A value with each `{$ref: "#/…"}` within it in full, and what stands beside it added."""
        if isinstance(value, list):
            return [self._referred(part, root, depth) for part in value]
        if not isinstance(value, dict):
            return value
        rest = {key: self._referred(part, root, depth) for key, part in value.items() if key != "$ref"}
        if "$ref" not in value:
            return rest
        target: Any = root
        for part in str(value["$ref"]).removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        if target is None or not str(value["$ref"]).startswith("#/") or depth > DEPTH:
            self.leave(f"$ref {value['$ref']}", "leads to nothing")
            return rest
        found = self._referred(target, root, depth + 1)
        return {**found, **rest} if isinstance(found, dict) else found

    def filled(self, value: Any, values: Mapping[str, Any]) -> Any:
        """An assertion's value with the test's variables filled in."""
        if isinstance(value, list):
            return [self.filled(part, values) for part in value]
        if isinstance(value, dict):
            return {key: self.filled(part, values) for key, part in value.items()}
        if not isinstance(value, str) or "{{" not in value:
            return value
        from jinja2 import TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        try:
            return SandboxedEnvironment().from_string(self.jinja(value, "assertion")).render(**values)
        except (TemplateError, TypeError, ValueError) as error:
            self.leave(f"variables in '{value[:60]}'", f"it stands as it is written: {error}")
            return value

    def jinja(self, text: Any, where: str) -> Any:
        """A template of nunjucks as one of Jinja2: they differ in the name of a filter."""
        if not isinstance(text, str):
            return text
        from jinja2.filters import FILTERS

        made = re.sub(r"\|\s*dump(\(\d*\))?", "| tojson", text)
        inside = " ".join(re.findall(r"\{[{%](.*?)[%}]\}", made, flags=re.DOTALL))
        for name in re.findall(r"\|\s*([A-Za-z_]\w*)", inside):
            if name not in FILTERS:
                self.leave(f"{where}: filter {name}", "Jinja2 has none of that name")
        return made


def id_of(text: Any) -> str:
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-._")[:60]
    return made if made and made[0].isalnum() else f"x{made}"


def unique(name: str, used: set[str]) -> str:
    made, number = name, 2
    while made.lower() in used:
        made, number = f"{name}-{number}", number + 1
    used.add(made.lower())
    return made
