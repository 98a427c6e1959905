"""Documents that others have a standard for: Hugging Face's evaluation results, OpenLineage, Croissant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import yaml

from evalrun.errors import UserError
from evalrun.exports.main import Export
from evalrun.exports.tables import scores
from evalrun.reports import numbers
from evalrun.results import RunResults


def as_hugging_face(export: Export) -> None:
    """`.eval_results/<dataset>_<run>.yaml` of a model's repository, one a run on a dataset of the Hub.

    The value is that of the metric that leads, on the benchmark's own scale, which is asked for; n and
    interval stand in the notes, since the format has no place for them.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    out = export.place("hf")
    if export.scale is None:
        remedy = "Say what 1.0 is there: --scale 1 or --scale 100 (see the benchmark's leaderboard)."
        raise UserError("the scale of a benchmark is its own and is not guessed", remedy=remedy)
    for run in export.source.runs:
        source: dict[str, Any] = (export.source.manifest.datasets.get(run.dataset) or {}).get("source") or {}
        leading = _leading(export, run)
        if not source.get("hub") or leading is None or leading.value is None:
            export.leave_out(run.run, "its dataset is not from the Hub" if leading else "it has no score")
            continue
        said = (
            f"{leading.name}; n = {leading.n}; 95 % interval {numbers.metric_interval(leading) or 'unknown'}"
        )
        entry = EvalResultEntry(
            dataset_id=str(source["hub"]), task_id=str(source.get("config") or "default"),
            value=leading.value * export.scale, dataset_revision=source.get("revision"),
            date=run.timings.finished_at, notes=f"{said}; prompt {run.prompt}; evalrun",
        )  # fmt: skip
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
        export.write(text, out / ".eval_results" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', run.run)}.yaml")
    if not export.files:
        raise UserError("no run is on a dataset of the Hub", remedy="Hugging Face lists only such results.")


def _leading(export: Export, run: RunResults) -> Any:
    primary = export.source.results.primary
    name = run.headline or (primary.metric if primary else "")
    return run.metric(name) or next(iter(scores(run)), None)


def as_openlineage(export: Export) -> None:
    """Run events, one a line."""
    from evalrun.sinks.openlineage import events

    export.write("".join(orjson.dumps(event).decode() + "\n" for event in events(export.folder)))


_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean"}
_FORMATS = {"jsonl": "application/jsonlines", "csv": "text/csv", "parquet": "application/x-parquet"}
_WORDS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes "
    "isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated "
    "replace samplingRate separator source subField transform"
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{word: f"cr:{word}" for word in _WORDS.split()},
}
"""The context of Croissant 1.0, by which its readers know the words."""


def as_croissant(export: Export) -> None:
    """The file of a dataset as Croissant 1.0: its digest and the columns that samples know.

    A sweep with several writes `<dataset>.json` for each into the folder. The file's address is relative to
    the document.
    """
    runs = {run.dataset: run for run in export.source.runs}
    many = len(runs) > 1
    for name, run in runs.items():
        source: dict[str, Any] = (export.source.manifest.datasets.get(name) or {}).get("source") or {}
        if source.get("kind") != "file" or not source.get("sha256") or source.get("format") not in _FORMATS:
            export.leave_out(
                name, "only files of JSON lines, CSV or Parquet with a digest have a place there"
            )
            continue
        out = export.place("croissant") / f"{name}.json" if many else export.out
        document = _croissant(export, name, run, source, out)
        export.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n", out)
    if not export.files and not export.text:
        raise UserError("no dataset of the sweep is a file", remedy=export.left_out[0]["why"])


def _croissant(
    export: Export, name: str, run: RunResults, source: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    import os

    import pyarrow.parquet as pq

    columns = [
        (field.name.removeprefix("vars."), _TYPES.get(str(field.type), "sc:Text"))
        for field in pq.read_schema(export.folder.samples_path(run.run))
        if field.name.startswith("vars.")
    ]
    file = Path(str(export.source.manifest.suite.path or ".")).parent / str(source["path"])
    there = out is not None and file.exists()
    url = os.path.relpath(file, out.parent) if there and out is not None else str(source["path"])
    id_ = Path(str(source["path"])).name
    fields = [
        {
            "@type": "cr:Field", "@id": f"rows/{column}", "name": column, "dataType": kind,
            "source": {"fileObject": {"@id": id_}, "extract": {"column": column}},
        }
        for column, kind in columns
    ]  # fmt: skip
    return {
        "@context": _CONTEXT, "@type": "sc:Dataset", "name": name,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "datePublished": str(export.source.manifest.started_at)[:10],
        "description": f"Rows that {export.source.manifest.name} asks about.",
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": id_, "name": id_, "contentUrl": url,
                "contentSize": f"{source['bytes']} B", "encodingFormat": _FORMATS[str(source["format"])],
                "sha256": source["sha256"],
            }
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }  # fmt: skip
