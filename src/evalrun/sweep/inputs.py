"""What a sweep was made from and its samples do not hold: kept in the sweep's folder, for `checkout`.

Rows of ordinary datasets stand in the samples (`vars.*`). Few-shot examples do not, nor do the rows that
versions of samples were made from: these are written when the sweep begins, as gzipped JSON lines.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from evalrun.atomic import private_folder, replacing
from evalrun.canonical import digest
from evalrun.tracking.folder import INPUTS
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.datasets import Dataset
    from evalrun.suite.dataset import DatasetSpec
    from evalrun.sweep.prepare import PreparedSweep
    from evalrun.tracking.folder import SweepFolder


def examples_path(folder: SweepFolder, prompt: str, dataset: str) -> Path:
    """Where the few-shot examples of a prompt for a dataset are kept."""
    return folder.path / INPUTS / f"examples-{digest([prompt, dataset])[:16]}.jsonl.gz"


def rows_path(folder: SweepFolder, dataset: str) -> Path:
    """Where the rows of a dataset are kept whose samples are versions of them."""
    return folder.path / INPUTS / f"rows-{digest(dataset)[:16]}.jsonl.gz"


def keep_inputs(folder: SweepFolder, prepared: PreparedSweep) -> None:
    """Write what the samples will not hold. Does nothing for a suite without examples and versions."""
    for prompt, dataset, api in prepared.renderers:
        pool = prepared.renderers[prompt, dataset, api].pool
        path = examples_path(folder, prompt, dataset)
        if pool is None or path.exists():
            continue
        spec = next(each.dataset for each in prepared.specs if each.dataset.id == dataset)
        in_order = sorted(pool.examples, key=lambda item: item.position)
        stored = _as_it_is if prepared.redactor is None else prepared.redactor.row
        _write(path, (stored(_without(item.row, spec.columns)) for item in in_order))
    for spec in {each.dataset.id: each.dataset for each in prepared.specs}.values():
        if spec.counterfactual or spec.perturb:
            rows = prepared.datasets[spec.id].source_rows()
            _write(rows_path(folder, spec.id), (_without(row, spec.withheld) for row in rows))


def keep_rows(folder: SweepFolder, spec: DatasetSpec, dataset: Dataset, samples: Path) -> None:
    """Write a dataset's rows too where the samples tell them inexactly: Parquet knows neither a missing value
    from null, nor 1 from 1.0 in a column that has both."""
    path = rows_path(folder, spec.id)
    if path.exists() or not (dataset.partial or _has_whole_floats(samples)):
        return
    _write(path, (_without(row, spec.withheld) for row in dataset.source_rows()))


def _has_whole_floats(samples: Path) -> bool:
    import numpy as np
    import pyarrow as pa

    from evalrun.tracking.parquet import reading

    with reading(samples) as file:
        schema = file.schema_arrow
        doubles = [
            each.name for each in schema if each.name.startswith("vars.") and each.type == pa.float64()
        ]
        for batch in file.iter_batches(columns=doubles) if doubles else ():
            for column in batch.columns:
                values = column.to_numpy(zero_copy_only=False)
                if np.any(values == np.floor(values)):
                    return True
    return False


def _as_it_is(row: dict[str, JSON]) -> dict[str, JSON]:
    return row


def _without(row: Mapping[str, JSON], names: Iterable[str]) -> dict[str, JSON]:
    left_out = frozenset(names)
    return {name: value for name, value in row.items() if name not in left_out}


def _write(path: Path, rows: Iterable[Mapping[str, JSON]]) -> None:
    private_folder(path.parent)
    with replacing(path) as temporary, gzip.open(temporary, "wb", compresslevel=3) as file:
        for row in rows:
            file.write(_line(row))


def _line(row: Mapping[str, JSON]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a whole number beyond 64 bits
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
