"""A promptfoo configuration as a suite: prompts, providers, tests; what has no counterpart is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tasks.promptfoo.checks import why_not
from evalrun.tasks.promptfoo.models import models_of
from evalrun.tasks.promptfoo.notes import Notes, id_of
from evalrun.tasks.promptfoo.prompts import prompts_of
from evalrun.tasks.promptfoo.tests import loaded, rows_of, scenario_tests, tests_of
from evalrun.tasks.reading import as_mapping, as_whole

_TAKEN = {
    "description", "prompts", "providers", "targets", "tests", "defaultTest", "evaluateOptions", "tags",
    "$schema", "sharing", "outputPath", "env", "commandLineOptions",
    "scenarios", "assertionTemplates", "$defs",
}  # fmt: skip


@dataclass(slots=True)
class Converted:
    """A suite as data, its rows, and what was not taken over."""

    suite: dict[str, Any]
    rows: list[dict[str, Any]]
    taken_over: int
    left_out: list[dict[str, str]] = field(default_factory=list)
    digest: str = ""


def convert(path: Path) -> Converted:
    """Read a configuration. Raises UserError for one that is none."""
    return _converted(Notes(path))


def _converted(notes: Notes) -> Converted:
    config = notes.config
    for key in config.keys() - _TAKEN:
        notes.leave(key, "has no counterpart here")
    for key in ("env", "sharing", "outputPath", "commandLineOptions"):
        if config.get(key):
            notes.leave(key, "belongs to promptfoo's own running, not to what is asked")
    prompts = list(prompts_of(notes, config["prompts"]))
    models = list(models_of(notes, config.get("providers") or config.get("targets") or []))
    default = config.get("defaultTest") or {}
    default = loaded(notes, default) if isinstance(default, str) else as_mapping(default, "defaultTest")
    tests = tests_of(notes, config.get("tests")) + scenario_tests(notes, config.get("scenarios"))
    rows = rows_of(notes, tests or [{}], default)
    if not prompts or not models:
        missing = "prompts" if not prompts else "providers"
        reasons = "; ".join(f"{each['what']}: {each['why']}" for each in notes.left_out[:5])
        raise UserError(
            f"none of the {missing} of {notes.path} can be taken over",
            where=str(notes.path),
            remedy=reasons,
        )
    suite: dict[str, Any] = {
        "name": id_of(
            config.get("description") or notes.path.stem.removeprefix("promptfooconfig") or "promptfoo"
        )
    }
    if config.get("description"):
        suite["description"] = str(config["description"])
    suite["models"], suite["prompts"] = models, prompts
    suite["datasets"] = [{"id": "tests", "path": "", "key": notes.columns["test"]}]
    _add_scorer(notes, suite, rows)
    _add_judge(notes, suite, rows)
    _fill(prompts, rows)
    _run_options(notes, as_mapping(config.get("evaluateOptions") or {}, "evaluateOptions"), suite)
    tags = config.get("tags")
    if isinstance(tags, dict):
        suite["tags"] = {str(key): str(value) for key, value in tags.items()}
    columns = dict.fromkeys(name for row in rows for name in row)
    rows = [
        {name: row.get(name, "" if name != notes.columns["assertions"] else []) for name in columns}
        for row in rows
    ]
    return Converted(
        suite, rows, len(rows) + len(prompts) + len(models) + notes.checks, notes.left_out, notes.digest
    )


def _add_scorer(notes: Notes, suite: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """What checks the assertions that rows bring along, with a gate as strict as promptfoo's exit code."""
    checks = notes.columns["assertions"]
    if not any(row[checks] for row in rows):
        suite["scorers"] = [{"length": {"min": 1}}]
        notes.leave(
            "tests without assertions", "nothing says what is right; the scorer asks for any answer at all"
        )
        return
    named = {str(check["metric"]) for row in rows for check in _flat(row[checks]) if check.get("metric")}
    options: dict[str, Any] = {"metrics": sorted(named)} if named else {}
    for option, name in (("column", "assertions"), ("threshold_column", "threshold")):
        if notes.columns[name] != name:
            options[option] = notes.columns[name]
    suite["scorers"] = [{"assertions": options} if options else "assertions"]
    suite["gates"] = ["assertions.passed >= 1"]


def _add_judge(notes: Notes, suite: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Rubrics become a judge where every test has one; else some rows would be graded by nothing."""
    if not notes.rubrics:
        return
    key, rubric = notes.columns["test"], notes.columns["rubric"]
    if any(not notes.rubrics.get(row[key]) for row in rows):
        notes.leave("assertion llm-rubric", "only some tests have one: " + why_not("llm-rubric"))
        return
    for row in rows:
        row[rubric] = "\n".join(dict.fromkeys(notes.rubrics[row[key]]))
    suite["judges"] = [{"id": "grader", "provider": "openai", "model": "gpt-4o-mini"}]
    suite["scorers"].append({"judge": {"model": "grader", "rubric": f"{{{{ {rubric} }}}}"}})
    notes.leave("llm-rubric in pass or fail",
               "a figure beside assertions.passed, by gpt-4o-mini until judges "
               "names another; promptfoo's grading prompt is not copied")  # fmt: skip


def _fill(prompts: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Variables that no test sets are empty, as they are in promptfoo."""
    from jinja2 import Environment, TemplateError, meta

    texts = [str(prompt.get("text") or json.dumps(prompt.get("messages"))) for prompt in prompts]
    for text in texts:
        try:
            wanted = meta.find_undeclared_variables(Environment(autoescape=True).parse(text))
        except TemplateError:
            continue
        for name in wanted:
            for row in rows:
                row.setdefault(name, "")


def _run_options(notes: Notes, options: Mapping[str, Any], suite: dict[str, Any]) -> None:
    if options.get("repeat"):
        suite["repeats"] = as_whole(options["repeat"], "evaluateOptions.repeat")
    if options.get("maxConcurrency"):
        most = as_whole(options["maxConcurrency"], "evaluateOptions.maxConcurrency")
        suite["performance"] = {"concurrency": most}
    if options.get("cache") is False:
        notes.leave("evaluateOptions.cache", "run with --no-cache")
    for key in options.keys() - {"repeat", "maxConcurrency", "showProgressBar", "cache", "delay"}:
        notes.leave(f"evaluateOptions.{key}", "has no counterpart here")
    if options.get("delay"):
        notes.leave(
            "evaluateOptions.delay", "limits: {requests_per_minute: …} of the model holds requests back"
        )


def _flat(checks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for check in checks:
        yield check
        yield from _flat(check.get("assert") or ())


def written(converted: Converted, to: Path) -> list[Path]:
    """Write the suite and its rows beside it; the files."""
    from evalrun.suite.build import suite_text

    rows = to.with_name(f"{to.stem}.tests.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)
    converted.suite["datasets"][0]["path"] = rows.name
    rows.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in converted.rows), encoding="utf-8"
    )
    head = f"# Made by `evalrun import promptfoo` (SHA-256 of the configuration: {converted.digest}).\n"
    listed = "".join(f"# Not taken over: {each['what']}: {each['why']}\n" for each in converted.left_out)
    to.write_text(head + listed + suite_text(converted.suite), encoding="utf-8")
    return [to, rows]
