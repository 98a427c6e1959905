"""From a suite file to a validated suite: everything that is wrong with it is reported at once, by line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.registry import load, nearest
from evalrun.suite import overrides as changes
from evalrun.suite.checkpoints import Awaiting, CheckpointsSpec, NothingYetError, expand_models
from evalrun.suite.components import PYTHON, ModelSpec
from evalrun.suite.dataset import PERTURB, column_name
from evalrun.suite.findings import DataPath, Finding, did_you_mean, from_pydantic, without_mistyped
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import EMPTY_MATRIX, matrix
from evalrun.suite.schema import Suite
from evalrun.suite.settings import with_model_settings
from evalrun.suite.tree import Node, expand, parse_yaml
from evalrun.suite.values import url_of


def check_data(
    data: Mapping[str, Any], base_dir: Path | None, declared: Mapping[str, Sequence[str]] | None
) -> list[Finding]:
    """Everything that is wrong across entries.

    `base_dir` is where relative paths start (None: files are not looked for); `declared` gives the ids of
    each section before the command line left any out (None: those in the data).
    """
    found = [
        *_nothing_to_ask(data),
        *_repeated_ids(data),
        *_fairness_columns(data),
        *_filters(data, declared),
        *_repeated_sweep_values(data),
        *_load_in_sweep(data),
    ]
    if base_dir is not None:
        found += _files(data, base_dir)
    return found


def _nothing_to_ask(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Prompts, datasets and scorers go together; where there are no tasks there must be all three."""
    parts = ("prompts", "datasets", "scorers")
    if data.get("tasks") and not any(data.get(key) for key in parts):
        return
    for key in parts:
        if key not in data:
            description = Suite.model_fields[key].description
            yield Finding((), f"'{key}' is missing", f"{key}: {description}", missing=key)
        elif data[key] == []:
            yield Finding((key,), f"{key}: needs at least 1 entry")


def _entries(data: Mapping[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data.get(section)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry


def _repeated_ids(data: Mapping[str, Any]) -> Iterator[Finding]:
    models: dict[str, str] = {}  # a judge is named like a model: the two share their ids
    for section in ("models", "judges", "prompts", "datasets"):
        seen = models if section in ("models", "judges") else {}
        for index, entry in _entries(data, section):
            name = entry.get("id")
            if not isinstance(name, str):
                continue
            if name.casefold() in seen:
                other = seen[name.casefold()]
                what = f"the id '{name}' is used twice among the {section}"
                if other != name:
                    what = f"the ids '{other}' and '{name}' differ only in case"
                yield Finding((section, index, "id"), what, "Ids name files and results: choose another.")
            seen.setdefault(name.casefold(), name)


def _fairness_columns(data: Mapping[str, Any]) -> Iterator[Finding]:
    if data.get("tasks"):  # their columns are known when their documents are
        return
    sensitive = {
        column
        for _, entry in _entries(data, "datasets")
        if isinstance(entry.get("sensitive"), list)
        for column in map(column_name, entry["sensitive"])
        if column is not None
    } | _version_columns(data)
    for path, column in _compared_columns(data.get("fairness")):
        if column not in sensitive:
            remedy = (
                did_you_mean(column, sorted(sensitive)) or "Add it to the 'sensitive' columns of a dataset."
            )
            yield Finding(path, f"no dataset lists '{column}' as sensitive", remedy)


def _compared_columns(fairness: Any) -> Iterator[tuple[DataPath, str]]:
    """Every sensitive column that the fairness section names, with its place."""
    if not isinstance(fairness, dict):
        return
    for key in ("by", "control"):
        columns = fairness.get(key)
        for index, column in enumerate(columns if isinstance(columns, list) else []):
            if isinstance(column, str):
                yield ("fairness", key, index), column
    crossed = fairness.get("intersections")
    for index, columns in enumerate(crossed if isinstance(crossed, list) else []):
        for number, column in enumerate(columns if isinstance(columns, list) else []):
            if isinstance(column, str):
                yield ("fairness", "intersections", index, number), column


def _version_columns(data: Mapping[str, Any]) -> set[str]:
    """What the versions of counterfactual samples differ in: each is a column of groups too."""
    return {
        name
        for _, entry in _entries(data, "datasets")
        if isinstance(entry.get("counterfactual"), dict)
        for name in entry["counterfactual"]
        if isinstance(name, str)
    } | {PERTURB for _, entry in _entries(data, "datasets") if entry.get("perturb")}


def _filters(data: Mapping[str, Any], declared: Mapping[str, Sequence[str]] | None) -> Iterator[Finding]:
    if declared is None:
        declared = {
            section: [str(entry.get("id")) for _, entry in _entries(data, section)]
            for section in ("models", "prompts", "datasets")
        }
    tunable = _parameter_names(data)
    for section in ("include", "exclude"):
        for index, entry in _entries(data, section):
            params = entry.get("params")
            for name in params if isinstance(params, dict) else ():
                if name not in tunable:
                    what = f"no model and no sweep has a parameter '{name}'"
                    yield Finding(
                        (section, index, "params", name), what, did_you_mean(name, tunable), at_key=True
                    )
            for axis in ("model", "prompt", "dataset"):
                path: DataPath = (section, index, axis)
                given = entry.get(axis)
                patterns = given if isinstance(given, list) else [given]
                for number, pattern in enumerate(patterns):
                    ids = declared[f"{axis}s"]
                    if isinstance(pattern, str) and not _names_any(pattern, ids):
                        at = (*path, number) if isinstance(given, list) else path
                        yield Finding(at, f"no {axis} matches '{pattern}'", did_you_mean(pattern, ids))


def _names_any(pattern: str, ids: Sequence[str]) -> bool:
    """Whether a pattern fits an id, or the id of a model before the step of a checkpoint (triage@500)."""
    return any(fnmatchcase(name, form) for name in ids for form in (pattern, pattern.partition("@")[0]))


def _parameter_names(data: Mapping[str, Any]) -> list[str]:
    """The generation parameters that cells can differ in."""
    holders = [data.get("sweep"), *(entry.get("params") for _, entry in _entries(data, "models"))]
    return sorted({name for holder in holders if isinstance(holder, dict) for name in holder})


def _repeated_sweep_values(data: Mapping[str, Any]) -> Iterator[Finding]:
    sweep = data.get("sweep")
    for name, values in sweep.items() if isinstance(sweep, dict) else ():
        for index, value in enumerate(values if isinstance(values, list) else []):
            if any(
                value == other and isinstance(value, bool) == isinstance(other, bool)
                for other in values[:index]
            ):
                yield Finding(("sweep", name, index), f"this value of '{name}' appears twice", "Remove one.")


_OF_LOAD = {"concurrency": "concurrency: [1, 4, 16]", "workers": "concurrency: [1, 4, 16]",
            "rate": "rates: [1/s, 4/s]", "rates": "rates: [1/s, 4/s]"}  # fmt: skip


def _load_in_sweep(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Axes of load where parameters of generation stand: they would be sent to the model as such."""
    sweep = data.get("sweep")
    for name in sweep if isinstance(sweep, dict) else ():
        plain = str(name).rpartition(".")[2]
        if plain in _OF_LOAD and str(name) in (plain, f"performance.{plain}", f"load.{plain}"):
            what = f"'{name}' is no parameter of generation, and load is an axis of its own"
            yield Finding(("sweep", name), what, f"Write load: {{{_OF_LOAD[plain]}}}.", at_key=True)


def _files(data: Mapping[str, Any], base_dir: Path) -> Iterator[Finding]:
    for path, name in _file_names(data):
        if path[-1] != "file" and url_of(Path(name)) is not None:
            continue  # rows on object storage: looked for when they are opened
        file = base_dir / name
        # These two, unlike the methods of Path, also bear names that no file system allows.
        if os.path.isdir(file):  # noqa: PTH112
            yield Finding(path, f"'{name}' is a folder, not a file")
        elif not os.path.exists(file):  # noqa: PTH110
            shown = name if len(name) <= 100 else name[:97] + "..."
            yield Finding(path, f"there is no file '{shown}'", _missing_file(file, base_dir, path))


def _file_names(data: Mapping[str, Any]) -> Iterator[tuple[DataPath, str]]:
    """Every local file that the suite names, with its place in the data."""
    for index, entry in _entries(data, "prompts"):
        few_shot = entry.get("few_shot")
        if isinstance(entry.get("file"), str):
            yield ("prompts", index, "file"), entry["file"]
        if isinstance(few_shot, dict) and isinstance(few_shot.get("path"), str):
            yield ("prompts", index, "few_shot", "path"), few_shot["path"]
    for index, entry in _entries(data, "datasets"):
        if isinstance(entry.get("path"), str):
            yield ("datasets", index, "path"), entry["path"]
        splits = entry.get("splits")
        for split, path in splits.items() if isinstance(splits, dict) else ():
            if isinstance(path, str):
                yield ("datasets", index, "splits", split), path


def nearest_file(file: Path) -> str | None:
    """The name in the same folder that a mistyped file name most likely meant."""
    with suppress(OSError, ValueError):
        return nearest(file.name, sorted(other.name for other in file.parent.iterdir()))
    return None


def _missing_file(file: Path, base_dir: Path, path: DataPath) -> str:
    near = nearest_file(file)
    if near:
        return f"Did you mean '{near}' in the same folder?"
    where = f"Looked for {file}; relative paths start at {base_dir}."
    if path[0] == "datasets" and path[-1] == "path":
        return where + " --data ID=PATH points a dataset at another copy."
    return where


@frozen
class LoadedSuite:
    """A suite, the file it came from, and the way back from a value to its line.

    `text` is the file as read, `base_dir` the folder that relative paths start at. `declared` are the ids of
    each section ("models"), also those that the command line left out.
    """

    suite: Suite
    path: Path
    text: str
    base_dir: Path
    tree: Node
    declared: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()
    """What should be said before it runs: checkpoints that are not whole."""

    def locate(self, *path: str | int) -> str:
        """The file:line of the value at a path such as ("gates", 0), or of the nearest value above it.

        Where an option of the command line put the value there, that option is named instead.
        """
        return str(self.tree.deepest(path).shown_place())


def load_suite(
    path: Path,
    overrides: Overrides | None = None,
    env: Mapping[str, str] | None = None,
    awaiting: Awaiting | None = None,
    *,
    look: bool = True,
) -> LoadedSuite:
    """Read, change by the command line's options, and validate a suite.

    `env` is where `${NAME}` is looked up (default: the process environment). `awaiting`: a training goes on,
    and writes checkpoints. `look=False`: files that it names need not be here. Raises UserError with every
    problem found, in the order of lines, those of options first.
    """
    return load_text(_read(path), path, overrides, env, awaiting, look=look)


def load_text(
    text: str,
    path: Path,
    overrides: Overrides | None = None,
    env: Mapping[str, str] | None = None,
    awaiting: Awaiting | None = None,
    *,
    look: bool = True,
) -> LoadedSuite:
    """The same for the text of a suite; `path` is where it stands, or would: relative paths start there."""
    env = os.environ if env is None else env
    tree, problems = parse_yaml(text.removeprefix("\ufeff"), str(path))
    if tree is None:
        raise UserError(problems or [Problem("the suite is empty", str(path), "'evalrun init' writes one.")])
    if not isinstance(tree.value, dict):
        raise UserError(
            "a suite is a mapping: name, models, prompts, datasets, scorers", where=str(tree.place)
        )
    declared, found = changes.apply(tree, overrides or Overrides(), env)
    expansion = expand(tree, env)
    problems += [expansion.redacted(item, ()) for item in found] + expansion.problems
    base_dir = path.parent.resolve()
    suite, findings = _validate(tree.plain(), base_dir, declared, look=look)
    problems += [
        expansion.redacted(Problem(item.what, _where(tree, item), item.remedy), item.path)
        for item in findings
        if item.path not in expansion.failed
    ]
    if suite is None or problems:
        raise UserError(_in_order(problems, str(path)))
    if unknown := list(unknown_parameters(suite)):
        raise UserError(
            _in_order([Problem(item.what, _where(tree, item), item.remedy) for item in unknown], str(path))
        )
    notes: tuple[str, ...] = ()
    if any(model.checkpoints is not None for model in suite.models):
        try:
            suite, notes = _with_checkpoints(suite, base_dir, overrides, awaiting)
        except NothingYetError:
            raise
        except UserError as error:
            raise UserError([_placed(problem, suite, tree) for problem in error.problems]) from None
        declared["models"] += [model.id for model in suite.models if model.id not in declared["models"]]
    suite.hide(expansion.secrets())
    loaded = LoadedSuite(suite, path, text, base_dir, tree, declared, notes)
    if not matrix(suite) and not suite.tasks:
        raise UserError(EMPTY_MATRIX, where=loaded.locate("include" if suite.include else "exclude"))
    return loaded


def _with_checkpoints(
    suite: Suite, base_dir: Path, overrides: Overrides | None, awaiting: Awaiting | None
) -> tuple[Suite, tuple[str, ...]]:
    """The suite with a model for each checkpoint, those that the command line names; and what is left out."""
    made = expand_models(suite.models, base_dir, awaiting)
    models = list(made.models)
    wanted = overrides.models if overrides is not None else None
    if wanted is not None:
        models = [
            model
            for model in models
            if model.id in wanted or (model.checkpoint is not None and model.checkpoint.of in wanted)
        ]
        for name in wanted:
            if "@" in name and all(model.id != name for model in models):
                known = [model.id for model in made.models]
                raise UserError(f"there is no checkpoint '{name}'", remedy=did_you_mean(name, known))
    return suite.model_copy(update={"models": models}), made.notes


def _placed(problem: Problem, suite: Suite, tree: Node) -> Problem:
    """A problem with a model's checkpoints, with the line in the place of the path."""
    for index, model in enumerate(suite.models):
        prefix = f"models.{model.id}."
        if problem.where.startswith(prefix):
            path: DataPath = ("models", index, *problem.where.removeprefix(prefix).split("."))
            return Problem(problem.what, str(tree.deepest(path).shown_place()), problem.remedy)
    return problem


def written_checkpoints(path: Path, overrides: Overrides | None = None) -> dict[str, CheckpointsSpec]:
    """What the models of a suite that loads say under `checkpoints`, by the models' ids."""
    tree, _ = parse_yaml(_read(path).removeprefix("\ufeff"), str(path))
    assert tree is not None
    changes.apply(tree, overrides or Overrides(), os.environ)
    expand(tree, os.environ)
    return {
        str(entry["id"]): CheckpointsSpec.model_validate(entry["checkpoints"])
        for _, entry in _entries(tree.plain(), "models")
        if isinstance(entry.get("checkpoints"), dict)
    }


def unknown_parameters(suite: Suite) -> Iterator[Finding]:
    """Generation parameters, of models and of the sweep, that no server of their provider knows."""
    for section, models in (("models", suite.models), ("judges", suite.judges)):
        for index, model in enumerate(models):
            if (known := _known_to(model)) is None:
                continue
            for name in model.params.keys() - known:
                yield _unknown_parameter((section, index, "params", name), name, known, model)
    for name in suite.sweep:
        for model in suite.models:
            if (known := _known_to(model)) is not None and name not in known:
                yield _unknown_parameter(("sweep", name), name, known, model)
                break


def _known_to(model: ModelSpec) -> frozenset[str] | None:
    known: frozenset[str] | None = getattr(load("provider", model.provider), "parameters", None)
    return None if model.allow_unknown else known


def _unknown_parameter(path: DataPath, name: str, known: frozenset[str], model: ModelSpec) -> Finding:
    near = nearest(name, sorted(known))
    by_body = path[0] != "sweep" and hasattr(model.options, "extra_body")
    remedy = "Write allow_unknown: true beside the model's params if it is right"
    remedy += ", or send it by extra_body." if by_body else "."
    if near:
        remedy = f"Did you mean '{near}'? {remedy}"
    what = f"'{name}' is no parameter that provider {model.provider} (model '{model.id}') is known to have"
    return Finding(path, what, remedy, at_key=True)


def parse_suite(data: Mapping[str, Any], base_dir: Path | None = None) -> Suite:
    """A suite from data in the shape of the YAML, as Python code makes it.

    Environment variables are not expanded. Local files are looked for only when `base_dir` is given.
    Raises UserError with every problem; each names its place as a dotted path.
    """
    suite, findings = _validate(dict(data), base_dir, None)
    if suite is None or findings:
        raise UserError([Problem(item.what, ".".join(map(str, item.path)), item.remedy) for item in findings])
    return suite


def _validate(
    data: dict[str, Any],
    base_dir: Path | None,
    declared: Mapping[str, Sequence[str]] | None,
    *,
    look: bool = True,
) -> tuple[Suite | None, list[Finding]]:
    findings = check_data(data, base_dir if look else None, declared)
    data = with_model_settings(data)
    try:
        with _own_code(data, base_dir):
            return Suite.model_validate(data), findings
    except ValidationError as error:
        return None, without_mistyped([*from_pydantic(error.errors(), data, Suite), *findings])


@contextmanager
def _own_code(data: Mapping[str, Any], base_dir: Path | None) -> Iterator[None]:
    """Let `python:` find modules beside the suite and in the current folder, after all installed ones."""
    own = [each.get("parse") for each in _listed(data.get("prompts")) if isinstance(each, dict)]
    search = data.get("search")
    over = search.get("over") if isinstance(search, dict) else None
    own += _listed(over.get("parse")) if isinstance(over, dict) else []
    lists = map(_listed, (data.get("parse"), data.get("scorers"), *own))
    entries = [*chain.from_iterable(lists)]
    if not any(isinstance(entry, dict) and PYTHON in entry for entry in entries):
        yield
        return
    before = list(sys.path)
    sys.path += [str(folder) for folder in (base_dir, Path.cwd()) if folder is not None]
    try:
        yield
    finally:
        sys.path[:] = before


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _where(tree: Node, item: Finding) -> str:
    node = tree.deepest(item.path)
    return str(node.key_place if item.at_key and node.key_place else node.shown_place())


def _in_order(problems: Iterable[Problem], source: str) -> list[Problem]:
    """Each problem once; those of options first, then by line."""

    def line(problem: Problem) -> int:
        name, _, number = problem.where.rpartition(":")
        return int(number) if name == source and number.isdecimal() else 0

    return sorted(dict.fromkeys(problems), key=line)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no suite '{path}'", remedy=_similar_file(path)) from None
    except IsADirectoryError:
        raise UserError(f"'{path}' is a folder, not a suite", remedy="Name the YAML file in it.") from None
    except OSError as error:
        raise UserError(f"the suite '{path}' cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            where=f"{path}:{line}",
            remedy="Save the file as UTF-8.",
        ) from None


def _similar_file(path: Path) -> str:
    near = nearest_file(path)
    return f"Did you mean '{path.parent / near}'?" if near else "'evalrun init' writes one to begin with."
