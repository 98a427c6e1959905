"""The two sides of a comparison: files of rows, sweeps, or what stands for a name such as production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalrun.errors import UserError

if TYPE_CHECKING:
    from evalrun.analysis.drift import Asked, Side
    from evalrun.drift_results import DriftResults
    from evalrun.tracking.folder import SweepFolder
    from evalrun.tracking.store import Store
    from evalrun.tracking.targets import Target

NO_COLUMNS = frozenset({
    "sample_id", "request_id", "trace_id", "span_id", "ts", "weight", "stratum", "user_key", "conversation",
    "messages", "prompt", "repeat", "attempts", "cached", "warmup", "sent_s", "done_s", "scheduled_s",
    "cluster", "target", "target_json", "client_queue_s", "feedback", "id", "cached_prompt_tokens",
    "model_reported", "position", "seed",
})  # fmt: skip
"""Columns that name rows, or say when and how they were asked."""
_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".json", ".gz")
EVENT = "drift"


def compare(store: Store, live: str, against: str, asked: Asked, project: str | None = None) -> DriftResults:
    """Compare LIVE with what it is held against; each is a file, SWEEP[/RUN], or a name that was promoted.

    Where LIVE is a sweep the outcome is kept among its events. Raises UserError for what is not there.
    """
    from evalrun.analysis.drift import drift

    one, _ = side_of(store, against, project)
    other, target = side_of(store, live, project)
    named = ((asked.text, "--text"), (asked.by, "--by"), (asked.confidence, "--confidence"))
    for name, role in named:
        head = name.removesuffix(".length")
        if name and not (name in one.columns or head in one.columns):
            raise UserError(
                f"there is no column '{name}'", where=role, remedy=f"Columns: {', '.join(one.columns)}."
            )
    found = drift(one, other, asked)
    if not found.columns and not found.texts:
        raise UserError(
            "the two have no column in common",
            where=f"{live} against {against}",
            remedy=f"{live}: {', '.join(other.columns)}; {against}: {', '.join(one.columns)}.",
        )
    if target is not None and not store.is_read_only:
        with store.changing(target.folder):
            target.folder.append_event(EVENT, kept(found, against), target=target.run)
    return found


def compare_run(store: Store, folder: SweepFolder, run: str, against: str) -> DriftResults:
    """Compare a run of a sweep that is being finished with another (SWEEP/RUN); kept among its events."""
    from evalrun.analysis.drift import Asked, drift
    from evalrun.tracking.targets import Target, find_run_target

    found = drift(_run_side(find_run_target(store, against)), _run_side(Target(folder, run)), Asked())
    folder.append_event(EVENT, kept(found, against), target=run)
    return found


def kept(found: DriftResults, against: str) -> dict[str, Any]:
    """What the audit trail keeps of a comparison."""
    return {
        "against": against,
        "drifted": [each.column for each in found.tested if each.drift],
        "tests": len(found.columns) + len(found.texts),
        "rows": found.n_live,
        "inputs_changed": found.inputs_changed,
        "answers_worse": found.answers_worse,
        "sentences": list(found.sentences),
    }


def document(found: DriftResults) -> dict[str, Any]:
    """What `--json` prints."""
    made = asdict(found)
    first, text = next(iter(found.scores), None), next(iter(found.texts), None)
    return {
        **made,
        "drifted": found.drifted,
        "text": asdict(text) if text is not None else None,
        "mix": None if first is None else first.mix.value,
        "quality": None if first is None else first.quality.value,
    }


def side_of(store: Store, name: str, project: str | None) -> tuple[Side, Target | None]:
    """One side, and the run that it is where it is one."""
    path = Path(name)
    if path.is_file() or (path.suffix.lower() in _SUFFIXES and not _is_sweep(store, name)):
        return _file_side(path), None
    target = find(store, name, project)
    return _run_side(target), target


def _is_sweep(store: Store, name: str) -> bool:
    try:
        store.resolve(name)
    except UserError:
        return False
    return True


def find(store: Store, name: str, project: str | None) -> Target:
    """The run of a promoted or deployed name, or SWEEP[/RUN]."""
    from evalrun.tracking.changes import whatis
    from evalrun.tracking.targets import find_run_target

    try:
        now = whatis(store, name, project)[0]
    except UserError as unknown:
        try:
            return find_run_target(store, name)
        except UserError as other:
            raise (unknown if "stands for something in" in str(unknown) else other) from None
    return find_run_target(store, f"{now.sweep}/{now.run}")


def _file_side(path: Path) -> Side:
    from evalrun.datasets.source import Findings, open_source
    from evalrun.suite.dataset import DatasetSpec

    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"the file cannot be read: {str(error).splitlines()[0]}", where=str(path)
            ) from error
        return _side(str(path), {name: table.column(name) for name in table.column_names}, table.num_rows)
    findings = Findings()
    source = open_source(DatasetSpec(id="rows", path=path.resolve()), Path())
    rows = [row for _, _, row in source.records(findings)]
    findings.raise_if_any()
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _side(str(path), {name: [row.get(name) for row in rows] for name in names}, len(rows))


def _run_side(target: Target) -> Side:
    """The samples of a run: its input columns under their own names, answers, scores, times."""
    import pyarrow.parquet as pq

    path = target.folder.samples_path(target.run)
    if not path.exists():
        raise UserError("its samples are not there", where=f"{target.folder.path.name}/{target.run}")
    table = pq.read_table(path)
    columns = {name: table.column(name) for name in table.column_names}
    own = {
        name: values
        for name, values in columns.items()
        if not name.startswith(("vars.", "reason.", "sensitive."))
    }
    inputs = {
        name.removeprefix(head): values
        for head in ("sensitive.", "vars.")
        for name, values in columns.items()
        if name.startswith(head)
    }
    merged = {
        **own,
        **{
            name: values
            for name, values in inputs.items()
            if name not in own or own[name].null_count == table.num_rows
        },
    }
    results = target.folder.run(target.run)
    better = {metric.name: metric.direction for metric in results.metrics if not metric.slice}
    merged |= {"clusters": own["cluster"]} if "cluster" in own else {}
    return _side(f"{target.folder.path.name}/{target.run}", merged, table.num_rows, better)


def _side(name: str, columns: Mapping[str, Any], rows: int, better: Mapping[str, str] | None = None) -> Side:
    from evalrun.analysis.drift import Side

    if not rows:
        raise UserError("holds no row", where=name)
    made = {}
    for column, values in columns.items():
        if column in NO_COLUMNS or column == "clusters":
            continue
        if (values := _values(values)) is not None:
            made[column] = values
    weights = _values(columns["weight"]) if "weight" in columns else None
    if not isinstance(weights, np.ndarray) or not (np.isfinite(weights).all() and (weights > 0).all()):
        weights = None
    return Side(name, made, rows, weights, _clusters(columns), better or {})


def _clusters(columns: Mapping[str, Any]) -> Any:
    """Codes of what rows belong to together: the cluster of the samples, else people, else conversations."""
    for name in ("clusters", "user_key", "conversation"):
        values = _values(columns[name]) if name in columns else None
        if isinstance(values, list) and any(value is not None for value in values):
            known = {value: at for at, value in enumerate(dict.fromkeys(v for v in values if v is not None))}
            codes = [len(known) + at if value is None else known[value] for at, value in enumerate(values)]
            made = np.unique(np.array(codes), return_inverse=True)[1].astype(np.int64)
            return made if int(made.max()) + 1 < len(made) else None
    return None


def _values(column: Any) -> Any:
    """A column as numbers (NaN: missing), texts (None: missing) or vectors; None for what is neither."""
    values: Sequence[Any] = column if isinstance(column, list) else column.to_pylist()
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if all(isinstance(value, str | bool) for value in known):
        return [value if value is None else str(value) for value in values]
    if len(known) == len(values) and all(isinstance(v, list) and len(v) == len(known[0]) > 1 for v in known):
        try:
            return np.array(values, np.float64)
        except (TypeError, ValueError):
            return None
    return None
