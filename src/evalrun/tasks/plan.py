"""From `tasks:` of a suite to what is run: documents, prompts, cells."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError
from evalrun.registry import nearest
from evalrun.suite.plan import RunSpec, named_cells
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.tasks import LM_EVAL, TASK_DATA_VARIABLE, WRITTEN, TaskDataset, TaskSpec, metric_name
from evalrun.tasks.documents import TaskDocuments
from evalrun.tasks.lmeval import LmEval, Names, known_names
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.load import LoadedSuite
    from evalrun.suite.schema import Suite

Narrow = Callable[[Mapping[str, JSON]], dict[str, JSON]]
LIKELIHOODS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
SEED = 1234
_MOST_STOPS = 4
"""Of texts that end an answer, a chat API takes no more; lm_eval sends it the first four."""
_PATHS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class TaskCells:
    """One task of an entry, for the models of one API."""

    entry: int
    key: str
    task: str
    chat: bool
    dataset: TaskDataset
    documents: TaskDocuments
    described: Mapping[str, Any]

    @property
    def output_type(self) -> str:
        """What lm_eval asks of a document, or `written`."""
        return str(self.described["output_type"])

    @property
    def prompt(self) -> PromptSpec:
        """What stands in the place of a prompt."""
        return PromptSpec(id=WRITTEN if self.output_type == WRITTEN else LM_EVAL, text="{{ doc_id }}")


@dataclass(slots=True)
class TaskPlan:
    """The tasks of a suite, built, with the process that built them and that scores them."""

    lm_eval: LmEval
    folder: Path
    cells: list[TaskCells] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the key of an entry: its groups, each with the names of its tasks."""

    def of(self, spec: RunSpec) -> TaskCells | None:
        """What a run of the matrix asks of a task; None for a run of prompts and datasets."""
        if not isinstance(spec.dataset, TaskDataset):
            return None
        return next((each for each in self.cells if each.dataset is spec.dataset), None)

    def close(self) -> None:
        """End lm_eval's process and remove what it built."""
        self.lm_eval.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def specs(self, suite: Suite, of_likelihoods: Narrow) -> list[RunSpec]:
        """The runs: every model with every task that is built for its API, and the axes of the matrix.

        `of_likelihoods` gives of a model's parameters those that likelihoods depend on.
        """
        points = [dict(zip(suite.sweep, values, strict=True)) for values in product(*suite.sweep.values())]
        return named_cells(
            [
                RunSpec(
                    "",
                    model,
                    cells.prompt,
                    cells.dataset,
                    params_of(cells, model, swept, of_likelihoods),
                    swept,
                    int(cells.described["repeats"]),
                )
                for model in suite.models
                for cells in self.cells
                if cells.chat == is_chat(model)
                for swept in points
            ],
            suite,
        )


def is_chat(model: ModelSpec) -> bool:
    """Whether a model is sent messages."""
    return getattr(model.options, "api", "chat") == "chat"


def params_of(
    cells: TaskCells, model: ModelSpec, swept: Mapping[str, JSON], of_likelihoods: Narrow
) -> dict[str, JSON]:
    """The parameters that are sent: the task's before the model's, and an axis of the matrix before both."""
    if cells.output_type in LIKELIHOODS:
        return of_likelihoods({**model.params, **swept})
    if cells.output_type == WRITTEN:
        return {"temperature": 0, "max_tokens": 32, **model.params, **swept}
    task = dict(cells.documents.generation or {})
    task.pop("do_sample", None)
    most = task.pop("max_gen_toks", 256)
    params = {"max_tokens": task.pop("max_tokens", most), "temperature": task.pop("temperature", 0)}
    until = task.pop("until", None) or []
    stop = [until] if isinstance(until, str) else list(until)
    if stop:
        params["stop"] = stop[:_MOST_STOPS] if cells.chat else stop
    return {**model.params, **params, "seed": SEED, **task, **swept}


def plan_tasks(loaded: LoadedSuite, work_dir: Path) -> TaskPlan:
    """Load and build the tasks of a suite. Raises UserError with everything that is wrong with them."""
    suite = loaded.suite
    lm_eval = LmEval()
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = TaskPlan(lm_eval, Path(tempfile.mkdtemp(prefix="tasks-", dir=work_dir)))
    try:
        names = known_names(lm_eval)
        problems: list[Problem] = []
        for at, entry in enumerate(suite.tasks):
            where = loaded.locate("tasks", at)
            try:
                for chat in _variants(entry, suite, where):
                    _build(plan, loaded, names, at, chat)
            except UserError as error:
                problems += [Problem(each.what, each.where or where, each.remedy) for each in error.problems]
        problems += _headlines(plan, loaded)
        if problems:
            raise UserError(list(dict.fromkeys(problems)))
    except BaseException:
        plan.close()
        raise
    return plan


def _variants(entry: TaskSpec, suite: Suite, where: str) -> list[bool]:
    """Whether the entry is built for models that chat, for those that do not, or for both."""
    found = []
    for chat in dict.fromkeys(is_chat(model) for model in suite.models):
        unlike = [model.id for model in suite.models if is_chat(model) == chat]
        if entry.ask == WRITTEN and not chat:
            raise UserError(
                f"ask: written sends messages, and model {unlike[0]} has api: completions",
                where=where,
                remedy="Set api: chat for the model, or leave 'ask' out.",
            )
        if entry.chat is not None and entry.chat != chat:
            form = "messages" if entry.chat else "a text"
            raise UserError(
                f"chat: {str(entry.chat).lower()} sends {form}, and model {unlike[0]} has "
                f"api: {'chat' if chat else 'completions'}",
                where=where,
                remedy="Change the model's api, or leave 'chat' out.",
            )
        found.append(chat)
    return found


def _build(plan: TaskPlan, loaded: LoadedSuite, names: Names, at: int, chat: bool) -> None:
    suite, entry = loaded.suite, loaded.suite.tasks[at]
    specs, include = _resolve(entry, loaded, names, plan.lm_eval)
    if "code_execution" not in suite.allow and (unsafe := names.unsafe(specs)):
        raise UserError(
            f"task {unsafe[0]} runs code that models wrote, which the suite does not allow",
            remedy="Say 'allow: [code_execution]' in the suite if you want that.",
        )
    key = f"{at}-{'chat' if chat else 'text'}"
    options = entry.model_dump(mode="json", exclude={"lm_eval", "id", "headline", "data"})
    described = plan.lm_eval.ask(
        "build",
        key=key,
        name=entry.lm_eval,
        specs=specs,
        include=include,
        options={**options, "chat": chat},
        out=str(plan.folder),
        task_data=_task_data(loaded),
        task_files=_files(loaded, entry, specs),
        allow_code="code_execution" in suite.allow,
        where=loaded.locate("tasks", at),
    )
    plan.groups[key] = described["groups"]
    groups = suite.fairness.by if suite.fairness is not None else []
    for one in described["tasks"]:
        if chat and one["output_type"] in LIKELIHOODS:
            model = next(model.id for model in suite.models if is_chat(model))
            raise UserError(
                f"task {one['task']} needs the likelihoods of given texts, which model {model} cannot give: "
                "it is asked by chat",
                remedy="Set api: completions for the model, or ask: written for the task.",
            )
        name = _name(entry, one["task"], bool(described["groups"]) or len(described["tasks"]) > 1)
        taken = next((each for each in plan.cells if each.dataset.id == name and each.chat == chat), None)
        documents = TaskDocuments(
            name,
            Path(one["file"]),
            {**one, "version_of_lm_eval": described["version"]},
            entry.max_length,
            groups,
        )
        one["bootstrap"] = entry.bootstrap
        if taken is not None:
            if taken.documents.digest == documents.digest:
                continue  # through a group and by its own name
            raise UserError(
                f"task {name} stands twice with different settings", remedy="Give one of the entries an id."
            )
        if name in {each.id for each in suite.datasets}:
            raise UserError(
                f"a dataset is called '{name}' too", remedy="Give the task or the dataset another id."
            )
        metrics = tuple(one["metrics"]) or ({"key": "acc.written", "higher": True, "aggregation": "mean"},)
        if one["output_type"] == WRITTEN:
            metrics = ({"key": "acc.written", "higher": True, "aggregation": "mean"},)
        headline = _headline(entry, metrics)
        dataset = TaskDataset.of(
            name,
            one["file"],
            metrics,
            headline,
            likelihoods=one["output_type"] in LIKELIHOODS,
            groups=[column for column in groups if column in documents.columns],
        )
        if suite.repeats > 1:
            documents.warnings.append(
                f"task {name} is asked as often as lm_eval asks it: repeats says nothing of it"
            )
        plan.cells.append(TaskCells(at, key, one["task"], chat, dataset, documents, one))


def _name(entry: TaskSpec, task: str, several: bool) -> str:
    safe = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in task)[:100]
    if entry.id is None:
        return safe if safe[:1].isalnum() else f"t{safe}"
    return f"{entry.id}.{safe}"[:100] if several else entry.id


def _resolve(
    entry: TaskSpec, loaded: LoadedSuite, names: Names, lm_eval: LmEval
) -> tuple[list[str], list[str]]:
    """What lm_eval is to load, and the folders that hold it."""
    text = entry.lm_eval
    if text.endswith(_PATHS) or "/" in text:
        path = (loaded.base_dir / text).resolve()
        if not path.is_file():
            raise UserError(f"there is no file '{text}'", remedy=f"Looked for {path}.")
        own = lm_eval.ask("index", folders=[str(path.parent)], defaults=False)
        for broken in own["broken"]:
            if Path(broken["path"]) == path:
                raise UserError(f"{text} is no YAML: {broken['why']}")
        mine = {name: each for name, each in own["entries"].items() if each["path"] == str(path)}
        if not mine:
            raise UserError(
                f"{text} defines no task",
                remedy="A task's YAML has the key 'task', a group's 'group' and 'task'.",
            )
        members = [
            member for each in mine.values() for member in each["members"] if member not in own["entries"]
        ]
        return list(mine), [*names.folders([each for each in members if each in names]), str(path.parent)]
    chosen = names.chosen(text) if any(c in text for c in "*?[") else [names.get(text).name]
    return chosen, names.folders(chosen)


def _task_data(loaded: LoadedSuite) -> str | None:
    named = loaded.suite.task_data or os.environ.get(TASK_DATA_VARIABLE, "").strip() or None
    if named is None:
        return None
    folder = (loaded.base_dir if loaded.suite.task_data else Path.cwd()) / Path(named).expanduser()
    if not folder.is_dir():
        where = loaded.locate("task_data") if loaded.suite.task_data else TASK_DATA_VARIABLE
        raise UserError(f"task_data names no folder: {folder}", where=where)
    return str(folder.resolve())


def _files(loaded: LoadedSuite, entry: TaskSpec, specs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Local files by lm_eval's name of a task."""
    found: dict[str, dict[str, str]] = {}
    for name, files in loaded.suite.task_files.items():
        own = entry.lm_eval if name == entry.id else name
        found[own] = {split: str((loaded.base_dir / path).absolute()) for split, path in files.items()}
    if entry.data is not None:
        found[entry.lm_eval] = {
            split: str((loaded.base_dir / path).absolute()) for split, path in entry.data.items()
        }
    for split_files in found.values():
        for path in split_files.values():
            if not Path(path).is_file():
                raise UserError(f"there is no file '{path}'")
    return found


def _headline(entry: TaskSpec, metrics: Sequence[Mapping[str, JSON]]) -> str:
    known = [metric_name(str(each["key"])) for each in metrics]
    wanted = metric_name(entry.headline) if entry.headline else ""
    return wanted if wanted in known else known[0] if known else ""


def _headlines(plan: TaskPlan, loaded: LoadedSuite) -> Iterator[Problem]:
    """Headlines that no task of their entry has."""
    for at, entry in enumerate(loaded.suite.tasks):
        known = [
            metric_name(str(m["key"]))
            for each in plan.cells
            if each.entry == at
            for m in each.dataset.metrics
        ]
        if entry.headline and known and metric_name(entry.headline) not in known:
            near = nearest(entry.headline, known)
            remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(dict.fromkeys(known))}."
            yield Problem(
                f"task {entry.lm_eval} has no metric '{entry.headline}'",
                loaded.locate("tasks", at, "headline"),
                remedy,
            )
