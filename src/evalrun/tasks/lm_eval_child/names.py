"""The names that lm_eval's registry, or folders, have."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from .values import Fault, first_line


def index_of(folders: list[str], defaults: bool) -> dict[str, Any]:
    """All names in lm_eval's registry, or below folders, each with what `tasks list` shows of it."""
    import yaml
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folders or None, include_defaults=defaults)
    entries = {}
    for name, entry in manager.task_index.items():
        config = entry.cfg or {}
        kind = entry.kind.name.lower()
        entries[name] = {
            "kind": "task" if kind == "py_task" else kind,
            "path": str(entry.yaml_path) if entry.yaml_path else None,
            "output_type": config.get("output_type"),
            "dataset": dataset_name(config),
            "unsafe": bool(config.get("unsafe_code")),
            "members": _members(config) if kind == "group" else sorted(entry.tags) if kind == "tag" else [],
        }
    broken = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.yaml")):
            try:
                yaml.compose(file.read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                broken.append({"path": str(file), "why": first_line(error)})
    return {"version": version(), "entries": entries, "broken": broken}


def _members(config: dict[str, Any]) -> list[str]:
    listed = config.get("task")
    found = []
    for member in [listed] if isinstance(listed, str) else listed or []:
        if isinstance(member, str):
            found.append(member)
        elif isinstance(member, dict):
            inner = member.get("task")
            if isinstance(inner, str):
                found.append(inner)
            elif isinstance(inner, list):
                found += _members(member)
    return found


def dataset_name(config: dict[str, Any]) -> str | None:
    path = config.get("dataset_path")
    if not path:
        return None
    name = config.get("dataset_name")
    return f"{path} ({name})" if name else str(path)


def version() -> str:
    """Of lm_eval."""
    return importlib.metadata.version("lm_eval")


def tasks_folder() -> str:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise Fault("lm_eval is not installed")
    return str(Path(next(iter(spec.submodule_search_locations))) / "tasks")
