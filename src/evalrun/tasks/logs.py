"""Results of other tools: what was asked, answered and scored, sample by sample, as their files have it."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.suite.tasks import metric_name

CHOICES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""inspect's words for right, partly right, wrong, no answer."""
_ZSTANDARD = 93
_UNREADABLE = (
    LookupError, ValueError, TypeError, AttributeError, StopIteration, OSError, EOFError, OverflowError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    RuntimeError,  # an archive with a password, values nested too deeply
)  # fmt: skip
_MOST_BYTES = 1 << 30
"""A member of an archive at most, unpacked: a few kilobytes can be packed from any number of zeros."""


@dataclass(slots=True)
class ImportedSample:
    """One sample of a run. `scores` are the source's own values."""

    sample_id: str
    output: str | None
    scores: dict[str, float | None]
    repeat: int = 0
    row: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    prompt: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    answer: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    e2e_s: float | None = None
    cost_usd: float | None = None


@dataclass(slots=True)
class ImportedRun:
    """One model on one dataset with one prompt. `own` are the source's values with errors."""

    model: str
    prompt: str
    dataset: str
    samples: list[ImportedSample]
    own: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    lower: frozenset[str] = frozenset()
    params: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ImportedResults:
    """What was read: runs, digests of the files, and what was not taken over."""

    kind: str
    name: str
    path: Path
    runs: list[ImportedRun]
    digests: dict[str, str]
    left_out: list[dict[str, str]] = field(default_factory=list)


def read_results(kind: str, path: Path) -> ImportedResults:
    """Results of a tool. Raises UserError for files that are not of the kind."""
    readers = {
        "lm-eval": _lm_eval,
        "inspect": _inspect,
        "promptfoo-results": _promptfoo,
        "openai-evals": _openai,
    }
    try:
        results = readers[kind](path)
    except _UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as results of {kind}: {type(error).__name__}: {error}", where=str(path)
        ) from error
    if not any(run.samples for run in results.runs):
        raise UserError(f"{path} holds no samples of {kind}", where=str(path))
    return results


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return {"True": 1.0, "False": 0.0}.get(value)
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# --- lm_eval -----------------------------------------------------------------------------------------------


def _lm_eval(path: Path) -> ImportedResults:
    """A folder of `--output_path … --log_samples`, or one of its results files."""
    folder = path if path.is_dir() else path.parent
    found = sorted(folder.rglob("results_*.json")) if path.is_dir() else [path]
    if not found:
        raise ValueError("there is no results_*.json; lm_eval writes them with --output_path --log_samples")
    results = ImportedResults("lm-eval", path.resolve().name, path, [], {})
    for file in found:
        document = json.loads(file.read_text(encoding="utf-8"))
        results.digests[file.name] = _digest(file)
        stamp = file.stem.removeprefix("results_")
        model = str(document.get("model_name") or document.get("config", {}).get("model") or "model")
        for task, values in document["results"].items():
            samples = file.with_name(f"samples_{task}_{stamp}.jsonl")
            if not samples.is_file():
                if task not in document.get("group_subtasks", {}) or not document["group_subtasks"][task]:
                    results.left_out.append(
                        {"what": f"task {task}", "why": "no samples were logged (--log_samples)"}
                    )
                continue
            results.digests[samples.name] = _digest(samples)
            results.runs.append(_lm_eval_run(model, task, values, document, samples))
    return results


def _lm_eval_run(
    model: str, task: str, values: Mapping[str, Any], document: Mapping[str, Any], file: Path
) -> ImportedRun:
    by_document: dict[Any, ImportedSample] = {}
    seen: dict[str, int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        row = json.loads(line)
        sample = by_document.get(row["doc_id"])
        if sample is None:
            digest = str(row.get("doc_hash") or row["doc_id"])[:12]
            seen[digest] = seen.get(digest, 0) + 1
            again = f"-{seen[digest]}" if seen[digest] > 1 else ""
            sample = by_document[row["doc_id"]] = _lm_eval_sample(f"{task}-{digest}{again}", row)
        for metric in row.get("metrics") or ():
            name = metric_name(f"{metric},{row.get('filter', 'none')}")
            sample.scores[name] = _number(row.get(metric))
            if sample.scores[name] is None:
                sample.reasons[name] = (
                    f"not applicable: a figure of all documents together: {str(row.get(metric))[:200]}"
                )
            else:
                sample.reasons[name] = f"read: {str(row.get('filtered_resps'))[:200]}"
    own = {}
    for key, value in values.items():
        metric, comma, of = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            own[metric_name(key)] = (_number(value), _number(values.get(f"{metric}_stderr,{of}")))
    higher = document.get("higher_is_better", {}).get(task, {})
    lower = frozenset(name for name in own if higher.get(name.partition(".")[0]) is False)
    return ImportedRun(model, "lm_eval", task, list(by_document.values()), own, lower)


def _lm_eval_sample(name: str, row: Mapping[str, Any]) -> ImportedSample:
    doc = row.get("doc")
    columns = doc if isinstance(doc, dict) else {"doc": doc}
    arguments = row.get("arguments") or {}
    first = arguments.get("gen_args_0", {}).get("arg_0") if isinstance(arguments, dict) else arguments[0][0]
    resps = row.get("resps") or [[""]]
    told = resps[0][0] if resps and resps[0] else ""
    several = len(resps) > 1 or isinstance(told, list)
    return ImportedSample(
        sample_id=name,
        output=_text(resps) if several else _text(told),
        scores={},
        row={**columns, "doc_id": row["doc_id"]},
        target=row.get("target"),
        prompt=first if isinstance(first, str) else None if first is None else _text(first),
    )


# --- inspect -----------------------------------------------------------------------------------------------


def _inspect(path: Path) -> ImportedResults:
    """A log (.eval or .json), or a folder of them."""
    files = sorted([*path.rglob("*.eval"), *path.rglob("*.json")]) if path.is_dir() else [path]
    results = ImportedResults("inspect", path.resolve().stem, path, [], {})
    for file in files:
        if path.is_dir() and file.suffix == ".json" and file.name in ("logs.json", "eval-set.json"):
            continue
        results.digests[file.name] = _digest(file)
        results.runs.append(_inspect_run(*_inspect_log(file), results))
    return results


def _inspect_log(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if file.suffix == ".json":
        document = json.loads(file.read_text(encoding="utf-8"))
        return document, document.get("samples") or []
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        header_name = "header.json" if "header.json" in names else "_journal/start.json"
        header = json.loads(_unzipped(archive, file, header_name))
        samples = [
            json.loads(_unzipped(archive, file, name))
            for name in names
            if name.startswith("samples/") and name.endswith(".json")
        ]
    return header, samples


def _unzipped(archive: zipfile.ZipFile, file: Path, name: str) -> bytes:
    """A member's bytes; inspect compresses by Zstandard, which Python's zipfile reads from 3.14 on only."""
    info = archive.getinfo(name)
    if info.file_size > _MOST_BYTES:
        raise UserError(f"{name} is larger than {_MOST_BYTES >> 30} GiB unpacked", where=str(file))
    if info.compress_type != _ZSTANDARD:
        return archive.read(name)
    import pyarrow as pa

    with file.open("rb") as raw:
        raw.seek(info.header_offset)
        head = raw.read(30)
        name_size, extra_size = struct.unpack("<HH", head[26:30])
        raw.seek(info.header_offset + 30 + name_size + extra_size)
        data = raw.read(info.compress_size)
    with pa.input_stream(pa.BufferReader(data), compression="zstd") as stream:
        unpacked = bytes(stream.read(_MOST_BYTES + 1))
    if len(unpacked) > _MOST_BYTES:
        raise UserError(f"{name} is larger than {_MOST_BYTES >> 30} GiB unpacked", where=str(file))
    return unpacked


def _inspect_run(
    header: Mapping[str, Any], samples: list[dict[str, Any]], results: ImportedResults
) -> ImportedRun:
    spec = header["eval"]
    task, model = str(spec["task"]).rpartition("/")[2], str(spec["model"])
    if header.get("status") not in (None, "success"):
        results.left_out.append(
            {"what": f"{task}: what was not finished", "why": f"the log's status is {header.get('status')}"}
        )
    own: dict[str, tuple[float | None, float | None]] = {}
    for score in (header.get("results") or {}).get("scores") or ():
        metrics = {name: each.get("value") for name, each in (score.get("metrics") or {}).items()}
        value = metrics.get("accuracy", metrics.get("mean"))
        if value is not None:
            own[_score_name(score["name"])] = (_number(value), _number(metrics.get("stderr")))
    made = [_inspect_sample(each) for each in samples]
    made.sort(key=lambda each: (each.sample_id, each.repeat))
    config = {**(spec.get("model_generate_config") or {}), **(header.get("plan", {}).get("config") or {})}
    params = {
        key: config[key]
        for key in ("temperature", "max_tokens", "top_p", "seed")
        if config.get(key) is not None
    }
    notes = ["times are by inspect's clock (working_time), which counts all calls of a sample"]
    timed = any(each.e2e_s is not None for each in made)
    return ImportedRun(model, task, task, made, own, frozenset(), params, notes if timed else [])


def _score_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", str(text).rpartition("/")[2].lower()).strip("_") or "score"


def _inspect_sample(raw: Mapping[str, Any]) -> ImportedSample:
    attachments = raw.get("attachments") or {}

    def whole(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("attachment://"):
            return attachments.get(value.removeprefix("attachment://"), value)
        if isinstance(value, list):
            return [whole(each) for each in value]
        if isinstance(value, dict):
            return {key: whole(each) for key, each in value.items()}
        return value

    messages = [
        {"role": str(each.get("role")), "content": _content(whole(each.get("content")))}
        for each in raw.get("messages") or ()
    ]
    asked = messages[
        : next((at for at, each in enumerate(messages) if each["role"] == "assistant"), len(messages))
    ]
    output = whole(raw.get("output") or {})
    said = output.get("completion")
    if said is None and output.get("choices"):
        said = _content(output["choices"][0].get("message", {}).get("content"))
    usage: dict[str, int] = {}
    for each in (raw.get("model_usage") or {}).values():
        for key in ("input_tokens", "output_tokens"):
            usage[key] = usage.get(key, 0) + int(each.get(key) or 0)
    sample = ImportedSample(
        sample_id=str(raw["id"]),
        repeat=int(raw.get("epoch") or 1) - 1,
        output=said,
        scores={},
        row={
            "input": _text(whole(raw.get("input"))),
            **({"choices": whole(raw["choices"])} if raw.get("choices") else {}),
            **{str(key): whole(value) for key, value in (raw.get("metadata") or {}).items()},
        },
        target=raw.get("target"),
        messages=asked,
        error=None if not raw.get("error") else f"application: {_error(raw['error'])}",
        prompt_tokens=usage.get("input_tokens"),
        completion_tokens=usage.get("output_tokens"),
        e2e_s=raw.get("working_time"),
    )
    for scorer, score in (raw.get("scores") or {}).items():
        _add_score(sample, _score_name(scorer), score)
    return sample


def _add_score(sample: ImportedSample, name: str, score: Mapping[str, Any]) -> None:
    value = score.get("value")
    if isinstance(value, dict):
        for part, inner in value.items():
            sample.scores[f"{name}.{_score_name(part)}"] = _inspect_value(inner)
        numbers = [each for each in map(_inspect_value, value.values()) if each is not None]
        sample.scores[name] = sum(numbers) / len(numbers) if numbers else None
    else:
        sample.scores[name] = _inspect_value(value)
    sample.reasons[name] = str(score.get("explanation") or score.get("answer") or "")[:400]
    if sample.answer is None:
        sample.answer = score.get("answer")


def _inspect_value(value: Any) -> float | None:
    return CHOICES[value] if isinstance(value, str) and value in CHOICES else _number(value)


def _content(content: Any) -> Any:
    """Text of a message; of parts the texts."""
    if isinstance(content, list):
        return "\n".join(
            str(each.get("text", ""))
            for each in content
            if isinstance(each, dict) and each.get("type") == "text"
        )
    return content


def _error(error: Any) -> str:
    return str(error.get("message") if isinstance(error, dict) else error)[:500]


# --- promptfoo ---------------------------------------------------------------------------------------------


def _promptfoo(path: Path) -> ImportedResults:
    """The JSON of `promptfoo eval -o results.json`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    body = document["results"]
    rows = body["results"] if isinstance(body, dict) else body
    description = (document.get("config") or {}).get("description") if isinstance(document, dict) else None
    results = ImportedResults(
        "promptfoo", str(description or path.stem), path, [], {path.name: _digest(path)}
    )
    runs: dict[tuple[str, str], ImportedRun] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for at, row in enumerate(rows):
        provider = row.get("provider") or {}
        model = str(provider.get("label") or provider.get("id") if isinstance(provider, dict) else provider)
        label = (row.get("prompt") or {}).get("label") or (row.get("prompt") or {}).get("raw") or "prompt"
        prompt = f"prompt{row['promptIdx'] + 1}" if isinstance(row.get("promptIdx"), int) else str(label)[:40]
        run = runs.setdefault((model, prompt), ImportedRun(model, prompt, "tests", []))
        name = (
            f"{int(row['testIdx']):04d}"
            if isinstance(row.get("testIdx"), int)
            else _text(row.get("vars"))[:60]
        )
        key = (model, prompt, name)
        run.samples.append(_promptfoo_sample(row, name, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
        if row.get("latencyMs") is not None and not run.notes:
            run.notes = ["times are promptfoo's latencyMs"]
        del at
    results.runs = list(runs.values())
    return results


def _promptfoo_sample(row: Mapping[str, Any], name: str, repeat: int) -> ImportedSample:
    response = row.get("response") or {}
    usage = response.get("tokenUsage") or row.get("tokenUsage") or {}
    cached = bool(response.get("cached"))
    output = response.get("output")
    error = row.get("error") if output is None else None
    grading = row.get("gradingResult") or {}
    latency = row.get("latencyMs")
    scores: dict[str, float | None] = {
        "score": _number(row.get("score")),
        "passed": _number(bool(row.get("success"))),
    }
    scores |= {
        f"score.{_score_name(key)}": _number(value) for key, value in (row.get("namedScores") or {}).items()
    }
    if error is not None:
        scores = {}
    raw = (row.get("prompt") or {}).get("raw")
    return ImportedSample(
        sample_id=name,
        repeat=repeat,
        output=None if output is None else _text(output),
        scores=scores,
        row={str(key): value for key, value in (row.get("vars") or {}).items()},
        prompt=None if raw is None else _text(raw),
        error=None if error is None else f"application: {str(error)[:500]}",
        reasons={"score": str(grading.get("reason") or "")[:400]},
        prompt_tokens=usage.get("prompt"),
        completion_tokens=usage.get("completion"),
        e2e_s=latency / 1000 if latency and not cached else None,
        cost_usd=row.get("cost") if not cached else None,
    )


# --- openai/evals ------------------------------------------------------------------------------------------


def _openai(path: Path) -> ImportedResults:
    """The JSON lines of `oaieval … --record_path`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    spec = next(each["spec"] for each in events if "spec" in each)
    report: dict[str, Any] = next((each["final_report"] for each in events if "final_report" in each), {})
    model = str((spec.get("completion_fns") or [spec.get("model", "model")])[0])
    name = str(spec.get("eval_name") or spec.get("base_eval") or path.stem)
    samples: dict[str, ImportedSample] = {}
    left: dict[str, int] = {}
    for event in events:
        if "sample_id" not in event:
            continue
        name_ = str(event["sample_id"])
        if not _openai_event(samples.setdefault(name_, ImportedSample(name_, None, {})), event):
            kind = str(event.get("type"))
            left[kind] = left.get(kind, 0) + 1
    for sample in samples.values():
        if sample.output is None and sample.error is None:
            sample.error = "missing: no answer was recorded"
    own: dict[str, tuple[float | None, float | None]] = {}
    if _number(report.get("accuracy")) is not None:
        own["match"] = (_number(report["accuracy"]), None)
    results = ImportedResults("openai-evals", name, path, [], {path.name: _digest(path)})
    results.runs = [ImportedRun(model, name, name, list(samples.values()), own)]
    results.left_out = [
        {"what": f"{count} events of type {kind}", "why": "no counterpart"} for kind, count in left.items()
    ]
    return results


def _openai_event(sample: ImportedSample, event: Mapping[str, Any]) -> bool:
    """Enter one event into its sample; whether it has a counterpart."""
    data, kind = event.get("data") or {}, event.get("type")
    if kind == "sampling":
        said = data.get("sampled")
        sample.output = _text(said[0] if isinstance(said, list) and said else said)
        prompt = data.get("prompt")
        if isinstance(prompt, list):
            sample.messages = [{"role": str(m.get("role")), "content": m.get("content")} for m in prompt]
        else:
            sample.prompt = _text(prompt)
    elif kind == "match":
        sample.scores["match"] = float(bool(data.get("correct")))
        sample.target = data.get("expected")
        if sample.output is None and data.get("sampled") is not None:
            sample.output = _text(data["sampled"])
    elif kind == "metrics":
        numbers = {_score_name(key): _number(value) for key, value in data.items()}
        sample.scores |= {key: value for key, value in numbers.items() if value is not None}
    elif kind == "error":
        sample.error = f"application: {_text(data)[:500]}"
    else:
        return False
    return True


def names_of(run: ImportedRun) -> Iterator[str]:
    """The scores of a run, whole ones before their parts."""
    seen = dict.fromkeys(name for sample in run.samples for name in sample.scores)
    yield from sorted(seen, key=lambda name: name not in run.own)
