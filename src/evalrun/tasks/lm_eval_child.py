"""The child process that holds lm_eval, run as a file by the interpreter that has it.

That interpreter need not have evalrun, so nothing but the standard library and lm_eval is imported here. It
reads one JSON document a line on standard input and answers each by one on standard output; what lm_eval
prints goes to standard error. All contact with lm_eval is in this file: loading, templates, few-shot picks,
filters, `process_results`, aggregation. Documents and answers pass as files, one JSON line a document.

Why a process of its own: lm_eval takes a second to import, sets the global random seeds, brings its own
`datasets`, and opens pools of processes for its bootstrap.
"""

from __future__ import annotations

import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]  # the modules beside this file are none of its own

import contextlib
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".gz": "json"}
SEED = 1234
_SPLITS = ("test", "validation", "train", "dev")


class Fault(Exception):
    """What the user got wrong: what, and what to do about it."""

    def __init__(self, what: str, remedy: str = "", kind: str = "task") -> None:
        super().__init__(what)
        self.what, self.remedy, self.kind = what, remedy, kind


# --- where data comes from ---------------------------------------------------------------------------------


class Data:
    """Sends `datasets.load_dataset` to local files: those of one task, else those in a folder for all."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.files: dict[str, dict[str, str]] = {}
        self.task = ""
        self.used: dict[str, str] = {}

    def install(self) -> None:
        """Stand in front of `load_dataset`, and note which task is being loaded."""
        import datasets
        from lm_eval.api.task import ConfigurableTask

        original, download = datasets.load_dataset, ConfigurableTask.download

        def load(path: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
            return self.load(original, path, name, *args, **kwargs)

        def noting(task: Any, *args: Any, **kwargs: Any) -> Any:
            self.task = str(task.config.task)
            return download(task, *args, **kwargs)

        datasets.load_dataset = load
        ConfigurableTask.download = noting

    def load(self, original: Any, path: str, name: str | None, *args: Any, **kwargs: Any) -> Any:
        """The data set, from local files where there are any. Raises Fault that names it."""
        shown = f"{path}{f' ({name})' if name else ''}"
        try:
            if self.task in self.files:
                self.used[self.task] = f"files of {self.task}"
                return self._of_files(original, self.files[self.task])
            local = self._in_folder(path, name)
            if isinstance(local, dict):
                self.used[self.task] = f"{shown} from {self.folder}"
                return self._of_files(original, local)
            if local is not None:
                self.used[self.task] = f"{shown} from {local[0]}"
                kwargs.pop("revision", None)
                return original(local[0], local[1], *args, **kwargs)
            self.used[self.task] = shown
            return original(path, name, *args, **kwargs)
        except Fault:
            raise
        except Exception as error:
            files = {**(kwargs.get("data_files") or {})} if isinstance(kwargs.get("data_files"), dict) else {}
            of = f" ({', '.join(map(str, files.values()))})" if files else ""
            raise Fault(
                f"the data set {shown}{of} of task {self.task} cannot be read: {_first_line(error)}",
                f"Give its files: --data {self.task}=test.jsonl,train=train.jsonl; or name a folder that has "
                f"{path}/ by task_data or EVALRUN_TASK_DATA.",
                "data",
            ) from error

    def _of_files(self, original: Any, files: dict[str, str]) -> Any:
        for split, file in files.items():
            if not Path(file).is_file():
                raise Fault(f"there is no file '{file}' (split {split} of task {self.task})", "", "data")
        kinds = {SUFFIXES.get(Path(file).suffix.lower(), "json") for file in files.values()}
        if len(kinds) > 1:
            raise Fault(f"the files of task {self.task} are of several formats", "Use one format.", "data")
        return original(kinds.pop(), data_files=dict(files))

    def _in_folder(self, path: str, name: str | None) -> tuple[str, str | None] | dict[str, str] | None:
        """A data set's folder with its configuration, or its files by split; None where there is none."""
        if not self.folder or path in ("json", "csv", "parquet", "text", "arrow"):
            return None
        for folder in (Path(self.folder, path), Path(self.folder, path.rpartition("/")[2])):
            if not folder.is_dir():
                continue
            if name and (folder / name).is_dir():
                return _split_files(folder / name) or (str(folder / name), None)
            if _has_configs(folder):
                return str(folder), name
            if name and (named := _split_files(folder, name)):
                return named
            return _split_files(folder) or (str(folder), None)
        return None


def _has_configs(folder: Path) -> bool:
    readme = folder / "README.md"
    return readme.is_file() and "configs:" in readme.read_text(encoding="utf-8", errors="replace")[:20_000]


def _split_files(folder: Path, name: str = "") -> dict[str, str]:
    """Files that are named for a split: test.jsonl, train_head200.jsonl, main-test.parquet."""
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        stem = file.name.removesuffix(".gz").rpartition(".")[0].lower()
        if file.suffix.lower() not in SUFFIXES or not stem.startswith(name.lower()):
            continue
        words = stem.removeprefix(name.lower()).replace("-", "_").strip("_").split("_")
        for split in _SPLITS:
            if split in words:
                found.setdefault(split, str(file))
    return found


# --- names -------------------------------------------------------------------------------------------------


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
            "dataset": _dataset_name(config),
            "unsafe": bool(config.get("unsafe_code")),
            "members": _members(config) if kind == "group" else sorted(entry.tags) if kind == "tag" else [],
        }
    broken = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.yaml")):
            try:
                yaml.compose(file.read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                broken.append({"path": str(file), "why": _first_line(error)})
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


def _dataset_name(config: dict[str, Any]) -> str | None:
    path = config.get("dataset_path")
    if not path:
        return None
    name = config.get("dataset_name")
    return f"{path} ({name})" if name else str(path)


def version() -> str:
    """Of lm_eval."""
    return importlib.metadata.version("lm_eval")


# --- building ----------------------------------------------------------------------------------------------


class Built:
    """What was loaded of one entry of a suite: its tasks and groups, with their requests built."""

    def __init__(self, loaded: dict[str, Any], limit: Any) -> None:
        self.tasks: dict[str, Any] = loaded["tasks"]
        self.groups: dict[str, Any] = loaded.get("groups") or {}
        self.limit = limit
        self.instances: dict[str, list[Any]] = {}


def build(data: Data, job: dict[str, Any]) -> tuple[Built, dict[str, Any]]:
    """Load an entry and write the requests of each of its tasks to a file."""
    import numpy
    from lm_eval.tasks import TaskManager

    options = job["options"]
    data.folder, data.files = job.get("task_data"), job.get("task_files") or {}
    random.seed(0)
    numpy.random.seed(SEED)
    manager = TaskManager(
        include_path=job["include"] or None,
        include_defaults=False,
        metadata=options.get("metadata") or {},
    )
    try:
        loaded = manager.load(job["specs"])
    except Fault:
        raise
    except KeyError as error:
        raise Fault(f"{job['name']}: {_first_line(error)}") from error
    except ModuleNotFoundError as error:
        raise Fault(
            f"task {data.task or job['name']} needs the package {error.name}, which is not there",
            f"Run: pip install {error.name}",
        ) from error
    built = Built(loaded, options.get("limit"))
    described = []
    for name, task in built.tasks.items():
        _check(name, task, job)
        _configure(name, task, options)
        described.append(_build_task(built, name, task, job))
    groups = {
        name: {
            "tasks": [task.task_name for task in group.get_all_tasks()],
            "aggregated": bool(group.has_aggregation),
            "alias": group.alias,
        }
        for name, group in built.groups.items()
    }
    return built, {"tasks": described, "groups": groups, "version": version()}


def _check(name: str, task: Any, job: dict[str, Any]) -> None:
    if getattr(task, "UNSAFE_CODE", False) and not job.get("allow_code"):
        raise Fault(
            f"task {name} runs code that models wrote, which the suite does not allow",
            "Say 'allow: [code_execution]' in the suite if you want that.",
        )
    if getattr(task, "MULTIMODAL", False):
        raise Fault(f"task {name} asks about pictures or sounds, which is not supported")


def _configure(name: str, task: Any, options: dict[str, Any]) -> None:
    """As `simple_evaluate` does it: parameters of generation, the number of shots, the seed."""
    if options.get("generation") and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(options["generation"]), update=True)
    shots = options.get("num_fewshot")
    if shots is not None:
        if task.get_config("num_fewshot") != 0:  # 0 in the YAML is meant
            task.set_config(key="num_fewshot", value=shots)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


class _Messages(list):  # type: ignore[type-arg]
    """The messages of a chat in the place of a text."""


def _build_task(built: Built, name: str, task: Any, job: dict[str, Any]) -> dict[str, Any]:
    options, out = job["options"], Path(job["out"]) / f"{_file_name(job['key'])}-{_file_name(name)}.jsonl"
    limit = _size(task, built.limit)
    written = options.get("ask") == "written"
    try:
        if written:
            rows = _written(task, name, limit, options)
        else:
            rows = _as_published(built, name, task, limit, options)
        count = _write(out, name, rows)
    except Fault:
        raise
    except KeyError as error:
        missing = error.args[0] if error.args else error
        raise Fault(
            f"task {name} finds no '{missing}' in its data, which has no such split or column", kind="data"
        ) from error
    except Exception as error:
        raise Fault(
            f"the prompts of task {name} cannot be made: {type(error).__name__}: {_first_line(error)}"
        ) from error
    config = task.dump_config() if hasattr(task, "dump_config") else {}
    higher = task.higher_is_better()
    aggregation = task.aggregation()
    filters = [getattr(each, "name", "none") for each in getattr(task, "_filters", [])] or ["none"]
    metrics = [
        {
            "key": f"{metric},{name_of}",
            "higher": bool(higher.get(metric, True)),
            "aggregation": getattr(function, "__name__", "mean"),
        }
        for metric, function in aggregation.items()
        for name_of in filters
    ]
    return {
        "task": name,
        "file": str(out),
        "documents": count,
        "output_type": "written" if written else task.OUTPUT_TYPE,
        "metrics": metrics,
        "repeats": int(task.get_config("repeats") or 1) if not written else 1,
        "num_fewshot": task.get_config("num_fewshot") or 0,
        "generation": _plain(task.get_config("generation_kwargs"))
        if task.OUTPUT_TYPE == "generate_until"
        else None,
        "version": _plain(getattr(task, "VERSION", None)),
        "dataset": _dataset_name({**config, "dataset_path": task.get_config("dataset_path")}),
        "description": str(task.get_config("description") or "")[:500],
        "unsafe": bool(getattr(task, "UNSAFE_CODE", False)),
    }


def _as_published(built: Built, name: str, task: Any, limit: int | None, options: dict[str, Any]) -> Any:
    """The documents with their requests, as lm_eval itself builds them."""
    chat = bool(options.get("chat"))

    def template(history: Any, add_generation_prompt: bool = True) -> _Messages:
        return _Messages(history)

    with _one_template():
        task.build_all_requests(
            limit=limit,
            system_instruction=options.get("system"),
            apply_chat_template=chat,
            fewshot_as_multiturn=bool(options.get("multiturn", True)) if chat else False,
            chat_template=template if chat else None,
        )
    instances = list(task.instances)
    built.instances[name] = instances
    by_document: dict[int, list[Any]] = defaultdict(list)
    for instance in instances:
        by_document[instance.doc_id].append(instance)
    kinds = {instance.request_type for instance in instances}
    if len(kinds) > 1:
        raise Fault(
            f"task {name} asks {' and '.join(sorted(kinds))} about one document, which is not supported"
        )
    for doc_id, together in by_document.items():
        together.sort(key=lambda instance: instance.idx)
        yield (
            doc_id,
            together[0].doc,
            _target(task, together[0].doc),
            [{"type": each.request_type, "args": _arguments(each.args)} for each in together],
            _choices(task, together[0].doc),
        )


def _arguments(args: Any) -> list[Any]:
    found = []
    for each in args:
        if isinstance(each, _Messages):
            found.append([dict(message) for message in each])
        elif callable(getattr(each, "to_dict", None)):
            found.append(each.to_dict())
        else:
            found.append(_plain(each))
    return found


def _choices(task: Any, doc: Any) -> list[str] | None:
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    with contextlib.suppress(Exception):
        return [str(each) for each in task.doc_to_choice(doc)]
    return None


def _target(task: Any, doc: Any) -> Any:
    """The right answer as a person reads it: the text of the right choice, else the target."""
    with contextlib.suppress(Exception):
        target = task.doc_to_target(doc)
        choices = _choices(task, doc)
        if choices is not None and isinstance(target, int) and 0 <= target < len(choices):
            return choices[target]
        return _plain(target)
    return None


def _written(task: Any, name: str, limit: int | None, options: dict[str, Any]) -> Any:
    """Multiple choice as a question in words, with the choices lettered: no number of lm_eval's."""
    if task.OUTPUT_TYPE != "multiple_choice":
        raise Fault(
            f"ask: written is for multiple-choice tasks, and {name} is {task.OUTPUT_TYPE}", "Leave 'ask' out."
        )
    shots = int(task.get_config("num_fewshot") or 0)
    for doc_id, doc in task.doc_iterator(limit=limit):
        messages = []
        head = "\n\n".join(part.strip() for part in (options.get("system"), _description(task, doc)) if part)
        if head:
            messages.append({"role": "system", "content": head})
        split = getattr(getattr(task, "fewshot_cfg", None), "split", None)
        own = doc if split is not None and split == task.get_config("test_split") else None
        for shot in task.sampler.sample(n=shots, eval_doc=own) if shots else ():
            question, choices, gold = _lettered(task, shot)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": LETTERS[gold[0]] if gold else ""},
            ]
        question, choices, gold = _lettered(task, doc)
        messages.append({"role": "user", "content": question})
        target = [LETTERS[at] for at in gold]
        yield (
            doc_id,
            doc,
            target[0] if len(target) == 1 else target,
            [{"type": "written", "args": [messages]}],
            choices,
        )


def _description(task: Any, doc: Any) -> str:
    resolve = getattr(task, "resolve_field", None)
    text = task.get_config("description")
    return str(resolve(doc, text) or "") if callable(resolve) else str(text or "")


def _lettered(task: Any, doc: Any) -> tuple[str, list[str], list[int]]:
    """A question with its choices under letters, the choices, and the places of the right ones."""
    text, choices, gold = (
        task.doc_to_text(doc),
        [str(each) for each in task.doc_to_choice(doc)],
        task.doc_to_target(doc),
    )
    if getattr(task, "multiple_input", False) or isinstance(text, int):
        # One context a choice and the same ending: the contexts are the choices.
        gold, text, choices = text, f"Which one goes best before: {gold}", choices
    if len(choices) > len(LETTERS):
        raise Fault(f"a document has {len(choices)} choices, more than there are letters")
    golds = [gold] if isinstance(gold, int | str) else list(gold)
    places = [each if isinstance(each, int) else choices.index(each) for each in golds]
    lines = "\n".join(f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False))
    last = f"Answer with the letter of the right choice (A to {LETTERS[len(choices) - 1]}) and nothing else."
    return f"{str(text).strip()}\n\n{lines}\n\n{last}", choices, places


@contextlib.contextmanager
def _one_template() -> Any:
    """Compile each template once: lm_eval does it anew for every document and field."""
    from functools import lru_cache

    from lm_eval import utils

    env = getattr(utils, "env", None)
    if env is None:
        yield
        return
    original = env.from_string
    cached = lru_cache(maxsize=1024)(original)

    def from_string(source: Any, *args: Any, **kwargs: Any) -> Any:
        return (
            cached(source)
            if isinstance(source, str) and not args and not kwargs
            else original(source, *args, **kwargs)
        )

    env.from_string = from_string
    try:
        yield
    finally:
        env.from_string = original


def _write(out: Path, name: str, rows: Any) -> int:
    """One line a document. Documents that are alike are told apart by a number."""
    seen: dict[str, int] = {}
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for doc_id, doc, target, requests, choices in rows:
            digest = _doc_hash(doc)[:12]
            seen[digest] = seen.get(digest, 0) + 1
            again = f"-{seen[digest]}" if seen[digest] > 1 else ""
            line = {
                "id": f"{name}-{digest}{again}",
                "doc_id": doc_id,
                "doc": _plain(doc) if isinstance(doc, dict) else {"doc": _plain(doc)},
                "target": target,
                "requests": requests,
                "choices": choices,
            }
            file.write(json.dumps(line, ensure_ascii=True) + "\n")
            count += 1
    return count


def _doc_hash(doc: Any) -> str:
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _size(task: Any, limit: Any) -> int | None:
    if limit is None:
        return None
    return math.ceil(len(task.eval_docs) * limit) if limit < 1.0 else int(limit)


# --- scoring -----------------------------------------------------------------------------------------------


def score(built: Built, job: dict[str, Any]) -> dict[str, Any]:
    """Values of one run: aggregated by lm_eval, with its standard errors, and per document in a file."""
    task, name = built.tasks[job["task"]], job["task"]
    answers: dict[int, list[list[Any]]] = {}
    with Path(job["answers"]).open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            answers[entry["doc_id"]] = entry["resps"]
    kept = [instance for instance in built.instances[name] if instance.doc_id in answers]
    by_document: dict[int, list[Any]] = defaultdict(list)
    for instance in kept:
        by_document[instance.doc_id].append(instance)
    for doc_id, together in by_document.items():
        together.sort(key=lambda instance: instance.idx)
        for instance, resps in zip(together, answers[doc_id], strict=True):
            instance.resps = [tuple(each) if isinstance(each, list) else each for each in resps]
            instance.filtered_resps = {}
    raw: dict[tuple[str, str], list[Any]] = defaultdict(list)
    values: dict[int, dict[str, Any]] = {doc_id: {"values": {}, "answers": {}} for doc_id in by_document}
    if kept:
        everything, task._instances = task._instances, kept
        try:
            task.apply_filters()
            _process(task, kept, by_document, _size(task, built.limit), raw, values)
        finally:
            task._instances = everything
    with Path(job["out"]).open("w", encoding="utf-8") as file:
        for doc_id, entry in values.items():
            file.write(json.dumps({"doc_id": doc_id, **entry}, ensure_ascii=True, default=str) + "\n")
    metrics, size = _aggregate(task, raw, job.get("bootstrap", 100_000))
    return {"metrics": metrics, "sample_len": size, "documents": len(values)}


def _process(task: Any, kept: list[Any], by_document: Any, limit: int | None, raw: Any, values: Any) -> None:
    for filter_key in kept[0].filtered_resps:
        for doc_id, doc in task.doc_iterator(limit=limit):
            if doc_id not in by_document:
                continue
            requests = by_document[doc_id]
            filtered = [request.filtered_resps[filter_key] for request in requests]
            for metric, value in task.process_results(doc, filtered).items():
                raw[metric, filter_key].append(value)
                values[doc_id]["values"][f"{metric},{filter_key}"] = _plain(value)
            if task.OUTPUT_TYPE == "generate_until":
                values[doc_id]["answers"][filter_key] = _plain(
                    filtered[0] if len(filtered) == 1 else filtered
                )


def _aggregate(task: Any, raw: Any, iterations: int) -> tuple[dict[str, Any], int]:
    """As lm_eval's evaluator does it: metric and standard error by `metric,filter`, and the number of
    documents."""
    from lm_eval.api.metrics import mean, stderr_for_metric

    found: dict[str, Any] = {}
    size = 0
    functions = task.aggregation()
    for (metric, filter_key), items in raw.items():
        function = functions.get(metric, mean)
        found[f"{metric},{filter_key}"] = _number(function(items))
        size = max(size, len(items))
        error: Any = "N/A"
        if iterations > 0:
            few = metric in ("bleu", "chrf", "chrf++", "ter")
            of = stderr_for_metric(
                metric=function, bootstrap_iters=min(iterations, 100) if few else iterations
            )
            error = _number(of(items)) if of and len(items) > 1 else "N/A"
        found[f"{metric}_stderr,{filter_key}"] = error
    return found, size


def aggregate(built: Built, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The aggregates of an entry's groups from the results of its tasks, children before parents."""
    metrics: dict[str, Any] = {name: dict(each) for name, each in results.items()}
    found = {}
    for name in sorted(built.groups, key=lambda each: len(built.groups[each].get_all_groups())):
        group = built.groups[name]
        metrics[name] = group.aggregate(metrics)
        if group.has_aggregation:
            found[name] = {
                key: _number(value)
                for key, value in metrics[name].items()
                if "," in key or key == "sample_len"
            }
    return found


def _number(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    with contextlib.suppress(TypeError, ValueError):
        number = float(value)
        return number if math.isfinite(number) else None
    return _plain(value)


# --- values ------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A value as JSON has it; what has no such form as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)[:80]


def _first_line(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0]).splitlines()[0][:300]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def show(data: Data, job: dict[str, Any]) -> dict[str, Any]:
    """A task's YAML after its includes, with its first prompt where its data is at hand."""
    import yaml
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=job["include"] or None, include_defaults=False)
    entry = manager.task_index.get(job["name"])
    config = dict(entry.cfg or {}) if entry is not None else {}
    text = yaml.dump(
        {key: _plain(value) for key, value in config.items()}, sort_keys=False, allow_unicode=True
    )
    found: dict[str, Any] = {"yaml": text, "first_prompt": None, "why_no_prompt": None}
    try:
        _, described = build(
            data, {**job, "options": {"limit": 1, **(job.get("options") or {})}, "allow_code": True}
        )
        first = described["tasks"][0]
        with Path(first["file"]).open(encoding="utf-8") as file:
            line = json.loads(file.readline())
        found["first_prompt"] = line["requests"][0]["args"][0]
        found["target"] = line["target"]
        found["metrics"] = [each["key"] for each in first["metrics"]]
        found["num_fewshot"] = first["num_fewshot"]
    except Fault as fault:
        found["why_no_prompt"] = fault.what
    except Exception as error:
        found["why_no_prompt"] = f"{type(error).__name__}: {_first_line(error)}"
    return found


# --- the loop ----------------------------------------------------------------------------------------------


class Server:
    """Answers jobs one after the other."""

    def __init__(self) -> None:
        self.data: Data | None = None
        self.built: dict[str, Built] = {}

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job. Raises Fault."""
        if job["op"] == "version":
            return {"version": version(), "folder": _tasks_folder()}
        if job["op"] == "index":
            return index_of(job["folders"], job["defaults"])
        if job["op"] == "match":
            return {"names": [name for name in job["names"] if fnmatch.fnmatchcase(name, job["pattern"])]}
        if self.data is None:
            self.data = Data()
            self.data.install()
        if job["op"] == "build":
            self.built[job["key"]], described = build(self.data, job)
            return described
        if job["op"] == "show":
            return show(self.data, job)
        if job["op"] == "score":
            return score(self.built[job["key"]], job)
        if job["op"] == "aggregate":
            return {"groups": aggregate(self.built[job["key"]], job["results"])}
        raise Fault(f"unknown operation {job['op']}")


def _tasks_folder() -> str:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise Fault("lm_eval is not installed")
    return str(Path(next(iter(spec.submodule_search_locations))) / "tasks")


def main() -> None:
    """Answer jobs until standard input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # lm_eval prints progress and bootstrap lines
    sys.stdout = sys.stderr
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable(logging.WARNING)
    server = Server()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"ok": server.answer(json.loads(line))}
        except Fault as fault:
            answer = {"fault": {"what": fault.what, "remedy": fault.remedy, "kind": fault.kind}}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {
                "fault": {
                    "what": f"{type(error).__name__}: {_first_line(error)}",
                    "remedy": "",
                    "kind": "bug",
                }
            }
        channel.write(json.dumps(answer, ensure_ascii=True) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
