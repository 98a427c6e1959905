"""Documents with their requests, as lm_eval builds them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from .data import Data
from .names import dataset_name, version
from .values import Fault, file_name, first_line, plain
from .written import written_rows

SEED = 1234


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
    data.task, data.used = "", {}
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
        if data.task not in data.used:
            raise Fault(f"{job['name']}: {first_line(error)}") from error
        raise Fault(
            f"task {data.task} finds no '{first_line(error)}' in its data ({data.used[data.task]})",
            f"Say which file is which split: --data {data.task}=test.jsonl,train=train.jsonl.",
            "data",
        ) from error
    except ModuleNotFoundError as error:
        raise Fault(
            f"task {data.task or job['name']} needs the package {error.name}, which is not there",
            f"Run: pip install {error.name}",
        ) from error
    except Exception as error:
        of = f" with {data.used[data.task]}" if data.task in data.used else ""
        why = f"{type(error).__name__}: {first_line(error)}"
        raise Fault(
            f"task {data.task or job['name']} cannot be loaded{of}: {why}",
            "See its YAML, and what columns it wants: evalrun tasks show.",
            "data",
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
    options, out = job["options"], Path(job["out"]) / f"{file_name(job['key'])}-{file_name(name)}.jsonl"
    limit = size_of(task, built.limit)
    written = options.get("ask") == "written"
    try:
        if written:
            rows = written_rows(task, name, limit, options)
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
            f"the prompts of task {name} cannot be made: {type(error).__name__}: {first_line(error)}"
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
        "generation": plain(task.get_config("generation_kwargs"))
        if task.OUTPUT_TYPE == "generate_until"
        else None,
        "version": plain(getattr(task, "VERSION", None)),
        "dataset": dataset_name({**config, "dataset_path": task.get_config("dataset_path")}),
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
            found.append(plain(each))
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
        return plain(target)
    return None


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
                "doc": plain(doc) if isinstance(doc, dict) else {"doc": plain(doc)},
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


def size_of(task: Any, limit: Any) -> int | None:
    if limit is None:
        return None
    return math.ceil(len(task.eval_docs) * limit) if limit < 1.0 else int(limit)


def show(data: Data, job: dict[str, Any]) -> dict[str, Any]:
    """A task's YAML after its includes, with its first prompt where its data is at hand."""
    import yaml
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=job["include"] or None, include_defaults=False)
    entry = manager.task_index.get(job["name"])
    config = dict(entry.cfg or {}) if entry is not None else {}
    text = yaml.dump(
        {key: plain(value) for key, value in config.items()}, sort_keys=False, allow_unicode=True
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
        found["why_no_prompt"] = f"{type(error).__name__}: {first_line(error)}"
    return found
