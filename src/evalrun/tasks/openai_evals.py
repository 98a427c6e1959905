"""An eval of openai/evals' registry as a suite: Match, Includes and FuzzyMatch on their JSON lines."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tasks.promptfoo.main import Converted
from evalrun.tasks.reading import as_list, as_mapping, as_whole, json_lines, parse_yaml, text_of

SCORERS: dict[str, dict[str, Any]] = {
    "Match": {"starts_with": {"ignore_case": False}},
    "Includes": {"includes": {"ignore_case": False, "whole_word": False}},
    "FuzzyMatch": {"token_f1": {}},
}


def convert(path: Path) -> Converted:
    """Read a registry file. Raises UserError for one that holds nothing that can be taken over."""
    text = text_of(path)
    document = parse_yaml(text, path)
    if not isinstance(document, dict):
        raise UserError(f"{path} is no registry of openai/evals", where=str(path))
    left: list[dict[str, str]] = []
    for name, entry in document.items():
        if not isinstance(entry, dict) or "class" not in entry:
            continue
        kind = str(entry["class"]).rpartition(":")[2]
        if kind not in SCORERS:
            left.append({"what": f"eval {name}", "why": f"its class {kind} has no counterpart"})
            continue
        rows = _rows(path, as_mapping(entry.get("args") or {}, f"args of {name}"), name, left)
        if rows:
            return _suite(name, kind, rows, left, hashlib.sha256(text.encode()).hexdigest())
    why = "; ".join(f"{each['what']}: {each['why']}" for each in left)
    raise UserError(f"nothing of {path} can be taken over", where=str(path), remedy=why)


def _rows(path: Path, args: dict[str, Any], name: str, left: list[dict[str, str]]) -> list[dict[str, Any]]:
    listed = str(args.get("samples_jsonl") or "")
    places = [path.parent / listed, path.parent.parent / "data" / listed, path.parent / "data" / listed]
    file = next((each for each in places if listed and each.is_file()), None)
    if file is None:
        left.append({"what": f"eval {name}", "why": f"its samples {listed} are not at hand"})
        return []
    if text_of(file).startswith("version https://git-lfs"):
        left.append({"what": f"eval {name}", "why": f"{listed} is a pointer of Git LFS: run git lfs pull"})
        return []
    shots: list[dict[str, Any]] = []
    if args.get("num_few_shot"):
        few = next(
            (
                each
                for each in (
                    path.parent / str(args.get("few_shot_jsonl")),
                    path.parent.parent / "data" / str(args.get("few_shot_jsonl")),
                )
                if each.is_file()
            ),
            None,
        )
        if few is None:
            left.append({"what": f"eval {name}: few_shot_jsonl", "why": "is not at hand"})
        else:
            for line in islice(json_lines(few), as_whole(args["num_few_shot"], "num_few_shot")):
                shots += as_list(line.get("sample"), f"sample in {few}")
    rows = []
    shown = _messages(shots, "system", f"few-shot examples of {name}")
    for at, row in enumerate(json_lines(file)):
        given = row.get("input")
        listed_as = given if isinstance(given, list) else [{"role": "user", "content": given}]
        messages = _messages(listed_as, "user", f"{file}: sample {at + 1}")
        ideal = row.get("ideal")
        rows.append({"id": f"{at:04d}", "input": [*messages[:-1], *shown, messages[-1]], "ideal": ideal})
    return rows


def _messages(given: list[Any], role: str, where: str) -> list[dict[str, Any]]:
    """Messages with a role, `role` where they have none. Raises UserError for what is no message."""
    for message in given:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | list):
            raise UserError("a message without content", where=where)
    if not given and role == "user":
        raise UserError("no message", where=where)
    return [{"role": message.get("role", role), "content": message["content"]} for message in given]


def _suite(
    name: str, kind: str, rows: list[dict[str, Any]], left: list[dict[str, str]], digest: str
) -> Converted:
    scorer = dict(SCORERS[kind])
    if kind == "FuzzyMatch":
        left.append(
            {"what": "FuzzyMatch", "why": "near to token_f1: its accuracy asks for one text within the other"}
        )
    suite = {
        "name": name.replace("/", "-"),
        "models": [
            {"id": "model", "provider": "openai", "model": "gpt-4o-mini", "params": {"temperature": 0}}
        ],
        "prompts": [{"id": "as_given", "messages": "{{ input }}"}],
        "datasets": [{"id": "samples", "path": "", "key": "id", "target": "{{ ideal }}"}],
        "scorers": [scorer],
    }
    left.append(
        {"what": "the model", "why": "an eval names none: models holds gpt-4o-mini until you change it"}
    )
    return Converted(suite, rows, len(rows), left, digest)


def written(converted: Converted, to: Path) -> list[Path]:
    """Write the suite and its rows beside it; the files."""
    from evalrun.tasks.promptfoo.main import written as write

    return write(converted, to)
