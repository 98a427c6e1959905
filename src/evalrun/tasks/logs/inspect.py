"""inspect_ai: `.eval` archives and JSON."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tasks.logs.model import (
    ImportedResults,
    ImportedRun,
    ImportedSample,
    as_text,
    file_digest,
    number,
    score_name,
)

CHOICES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""inspect's words for right, partly right, wrong, no answer."""
_ZSTANDARD = 93
_MOST_BYTES = 1 << 30
"""A member of an archive at most, unpacked: a few kilobytes can be packed from any number of zeros."""


def read_inspect(path: Path) -> ImportedResults:
    """A log (.eval or .json), or a folder of them."""
    files = sorted([*path.rglob("*.eval"), *path.rglob("*.json")]) if path.is_dir() else [path]
    results = ImportedResults("inspect", path.resolve().stem, path, [], {})
    for file in files:
        if path.is_dir() and file.suffix == ".json" and file.name in ("logs.json", "eval-set.json"):
            continue
        results.digests[file.name] = file_digest(file)
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
            own[score_name(score["name"])] = (number(value), number(metrics.get("stderr")))
    made = [_inspect_sample(each) for each in samples]
    made.sort(key=lambda each: (each.sample_id, each.repeat))
    config = {**(spec.get("model_generate_config") or {}), **(header.get("plan", {}).get("config") or {})}
    params = {
        key: config[key]
        for key in ("temperature", "max_tokens", "top_p", "seed")
        if config.get(key) is not None
    }
    notes = []
    if any(each.e2e_s is not None for each in made):
        notes.append("times are by inspect's clock (working_time), which counts all calls of a sample")
    said = (header.get("results") or {}).get("total_samples")
    if isinstance(said, int) and said != len(made):
        notes.append(f"the log holds {len(made):,} of the {said:,} samples that inspect counted")
    return ImportedRun(model, task, task, made, own, frozenset(), params, notes)


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
            "input": as_text(whole(raw.get("input"))),
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
        _add_score(sample, score_name(scorer), score)
    return sample


def _add_score(sample: ImportedSample, name: str, score: Mapping[str, Any]) -> None:
    value = score.get("value")
    if isinstance(value, dict):
        for part, inner in value.items():
            sample.scores[f"{name}.{score_name(part)}"] = _inspect_value(inner)
        numbers = [each for each in map(_inspect_value, value.values()) if each is not None]
        sample.scores[name] = sum(numbers) / len(numbers) if numbers else None
    else:
        sample.scores[name] = _inspect_value(value)
    sample.reasons[name] = str(score.get("explanation") or score.get("answer") or "")[:400]
    if sample.answer is None:
        sample.answer = score.get("answer")


def _inspect_value(value: Any) -> float | None:
    return CHOICES[value] if isinstance(value, str) and value in CHOICES else number(value)


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
