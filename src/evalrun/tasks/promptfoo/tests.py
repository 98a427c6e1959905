"""Test cases as rows: variables, files of tests, and the assertions that each row brings along."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from pathlib import Path
from typing import Any

from evalrun.tasks.promptfoo.checks import check_of, expected
from evalrun.tasks.promptfoo.notes import CODE, Notes
from evalrun.tasks.reading import as_list, as_mapping, as_number, json_lines, parse_yaml, text_of


def tests_of(notes: Notes, tests: Any) -> list[dict[str, Any]]:
    """The test cases, those of files too."""
    if tests is None:
        return []
    if isinstance(tests, str):
        return _test_file(notes, tests)
    found: list[dict[str, Any]] = []
    test: Any
    for test in [tests] if isinstance(tests, dict) else as_list(tests, "tests"):
        if isinstance(test, str):
            found += _test_file(notes, test)
        elif isinstance(test, dict) and "path" in test and "vars" not in test:
            found += _test_file(notes, str(test["path"]))
        elif isinstance(test, dict):
            found.append(test)
        else:
            notes.leave(f"test {str(test)[:60]}", "is no test")
    return found


def scenario_tests(notes: Notes, scenarios: Any) -> list[dict[str, Any]]:
    """The tests of scenarios: each test with each configuration of its scenario, as in promptfoo."""
    found = []
    for at, listed in enumerate(as_list(scenarios, "scenarios")):
        scenario = (
            loaded(notes, listed) if isinstance(listed, str) else as_mapping(listed, f"scenarios[{at}]")
        )
        for key in scenario.keys() - {"config", "tests", "description"}:
            notes.leave(f"scenarios[{at}].{key}", "has no counterpart here")
        for config, test in product(
            tests_of(notes, scenario.get("config")) or [{}], tests_of(notes, scenario.get("tests")) or [{}]
        ):
            shared = {**_vars_of(notes, config.get("vars")), **_vars_of(notes, test.get("vars"))}
            checks = [
                check
                for each in (config, test)
                for check in as_list(each.get("assert"), f"scenarios[{at}].assert")
            ]
            found.append({**config, **test, "vars": shared, "assert": checks})
    return found


def _test_file(notes: Notes, name: str) -> list[dict[str, Any]]:
    path = name.removeprefix("file://")
    found: list[dict[str, Any]] = []
    paths = sorted(glob.glob(str(notes.base / path)))  # noqa: PTH207
    if not paths:
        notes.leave(
            f"tests {name}", "there is no such file" if "://" not in path else "is not on this machine"
        )
    for each in paths:
        file = Path(each)
        if file.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(text_of(file), newline=""))
            found += [_csv_test(row, notes, f"{file}:{rows.line_num}") for row in rows]
        elif file.suffix == ".jsonl":
            found += list(json_lines(file))
        elif file.suffix in (".yaml", ".yml", ".json"):
            found += tests_of(notes, parse_yaml(text_of(file), file))
        else:
            notes.leave(f"tests {name}", "is made by code")
    return found


def loaded(notes: Notes, name: str) -> dict[str, Any]:
    """The mapping in a file that is named by `file://`. Raises UserError."""
    path = notes.base / name.removeprefix("file://")
    return as_mapping(parse_yaml(text_of(path), path), str(path))


def rows_of(
    notes: Notes, tests: Sequence[Mapping[str, Any]], default: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each test and combination of its variables, with its assertions. Sets `notes.columns`."""
    default_vars = _vars_of(notes, default.get("vars"))
    every = [{**default_vars, **_vars_of(notes, test.get("vars"))} for test in tests]
    notes.columns = _columns({name for values in every for name in values})
    rows = []
    for key in default.keys() - {"vars", "assert", "threshold", "description", "options"}:
        notes.leave(f"defaultTest.{key}", "has no counterpart here")
    _test_options(notes, default.get("options"), "defaultTest")
    for at, test in enumerate(tests):
        for key in test.keys() - {"vars", "assert", "threshold", "description", "options"}:
            notes.leave(f"tests[{at}].{key}", "has no counterpart here")
        _test_options(notes, test.get("options"), f"tests[{at}]")
        checks = [*as_list(default.get("assert"), "defaultTest.assert")]
        checks += as_list(test.get("assert"), f"tests[{at}].assert")
        threshold = test.get("threshold", default.get("threshold"))
        for number, values in enumerate(_combinations(every[at])):
            row = f"{at:04d}" + (f"-{number}" if number else "")
            own = {
                "test": row,
                "description": str(test.get("description") or ""),
                "assertions": [c for check in checks if (c := check_of(notes, check, values, at, row))],
                "threshold": threshold,
            }
            rows.append({**{notes.columns[name]: value for name, value in own.items()}, **values})
    return rows


def _test_options(notes: Notes, options: Any, where: str) -> None:
    for key in as_mapping(options or {}, f"{where}.options"):
        notes.leave(f"{where}.options.{key}", "has no counterpart here; parse: of the suite reads answers"
                   if key in ("transform", "postprocess") else "has no counterpart here")  # fmt: skip


def _vars_of(notes: Notes, given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = loaded(notes, given)
    named = as_mapping(given or {}, "vars").items()
    return {str(name): _var_of(notes, str(name), value) for name, value in named}


def _var_of(notes: Notes, name: str, value: Any) -> Any:
    """A value; of `file://` what the file has, of a pattern that of each file, as a list."""
    if not isinstance(value, str) or not value.startswith("file://"):
        return value
    paths = sorted(glob.glob(str(notes.base / value.removeprefix("file://"))))  # noqa: PTH207
    if not paths or any(Path(path).suffix in CODE for path in paths):
        notes.leave(f"var {name}: {value}", "is made by code" if paths else "there is no such file")
        return ""
    texts = []
    for path in map(Path, paths):
        text = text_of(path)
        of_yaml = path.suffix in (".yaml", ".yml")
        texts.append(json.dumps(parse_yaml(text, path), default=str) if of_yaml else text.strip())
    return texts if len(texts) > 1 else texts[0]


def _is_text(first: Sequence[Any]) -> bool:
    return bool(first) and isinstance(first[0], str)


def _combinations(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lists of texts expand to every combination; any other list is one value."""
    names = [name for name, value in values.items() if isinstance(value, list) and _is_text(value[:1])]
    for chosen in product(*(values[name] for name in names)):
        yield {**values, **dict(zip(names, chosen, strict=True))}


def _csv_test(row: Mapping[str, Any], notes: Notes, where: str) -> dict[str, Any]:
    test: dict[str, Any] = {"vars": {}, "assert": []}
    for name, value in row.items():
        if name is None or value is None:
            continue
        if re.fullmatch(r"__expected\d*", name):
            if value:
                test["assert"].append(expected(value))
        elif name == "__threshold":
            test["threshold"] = as_number(value, where) if value else None
        elif name == "__description":
            test["description"] = value
        elif name == "__metric":
            for check in test["assert"]:
                check["metric"] = value
        elif name.startswith("__"):
            notes.leave(f"column {name}", "has no counterpart here")
        else:
            test["vars"][name] = value
    return test


def _columns(taken: AbstractSet[str]) -> dict[str, str]:
    """Names of the columns that are ours, apart from the variables."""
    found = {}
    for name in ("test", "description", "assertions", "threshold", "rubric"):
        own = name
        while own in taken:
            own = f"{own}_"
        found[name] = own
    return found
