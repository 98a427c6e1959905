"""Which samples a queue holds, and how feedback agrees with scores. Reads samples, so it runs as a job."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evalrun.errors import UserError
from evalrun.server.durable import read_lines, requests_file
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.running import samples_file
from evalrun.tracking.samples import find_samples
from evalrun.tracking.store import Store

MOST_ITEMS, MOST_TEXT = 5_000, 20_000
_OUTPUTS = ("output", "answer")


def pick_items(
    store: Store,
    *,
    sweep: str,
    run: str,
    other: str,
    where: str,
    pick: str,
    n: int,
    seed: str,
    show_target: bool,
    show: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The items: sample id, run and what is shown. `pick` is query, worst, or sample (stratified by score and
    sensitive columns, with the seed). Raises UserError where the query is wrong or nothing fits."""
    folder = store.resolve(sweep)
    rows = _first_repeats(_rows(folder, run, where))
    if pick == "worst":
        scores = [key for key in next(iter(rows.values()), {}) if key.startswith("score.")]
        if not scores:
            raise UserError("the run has no score to find the worst by")
        order = sorted(rows, key=lambda key: (_worse(rows[key].get(scores[0])), key))[:n]
    elif pick == "sample":
        order = _stratified(rows, n, random.Random(seed))
    else:
        order = [*rows][:n]
    second = _first_repeats(_rows(folder, other, "")) if other else {}
    if other:
        order = [key for key in order if key in second]
    if not order:
        raise UserError("no sample fits")
    columns = [f"vars.{name}" for name in show] or _telling_nothing(folder, rows)
    return [
        {"run": run, "sample_id": key, "shown": _shown(rows[key], second.get(key), columns, show_target)}
        for key in order
    ]


def _telling_nothing(folder: SweepFolder, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The columns of the input that are shown unless others are named: not those that hold the target, nor
    answers that were recorded."""
    resolved = folder.manifest().suite.resolved
    models = resolved.get("models", []) if isinstance(resolved, dict) else []
    recorded = {f"vars.{model.get('column')}" for model in models if isinstance(model, dict)}
    found = []
    for name in next(iter(rows.values()), {}):
        told = [row for row in rows.values() if row.get("target")]
        pairs = [(_text(row.get(name)), _text(row.get("target"))) for row in told]
        same = sum(one.strip() == other.strip() for one, other in pairs)
        if name.startswith("vars.") and name not in recorded and not (pairs and same > len(pairs) / 2):
            found.append(name)
    return found


def _rows(folder: SweepFolder, run: str, where: str) -> Sequence[Mapping[str, Any]]:
    with samples_file(folder, run) as path:
        return find_samples(path, where, limit=100_000).rows


def _first_repeats(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault(str(row["sample_id"]), row)
    return found


def _worse(score: Any) -> float:
    return float(score) if isinstance(score, int | float) else float("-inf")


def _stratified(rows: Mapping[str, Mapping[str, Any]], n: int, draw: random.Random) -> list[str]:
    """As many of each stratum as its share, at least one where there is room; the rest at random."""
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, row in rows.items():
        scores = [
            f"{row[name]:.1f}" for name in row if name.startswith("score.") and isinstance(row[name], float)
        ]
        groups = [str(row[name]) for name in row if name.startswith("sensitive.")]
        strata[(str(row.get("status")), *scores[:1], *groups)].append(key)
    for keys in strata.values():
        draw.shuffle(keys)
    total, chosen = len(rows), list[str]()
    for keys in strata.values():
        chosen += keys[: max(1, int(n * len(keys) / total))]
    draw.shuffle(chosen)
    chosen = chosen[:n]
    rest = [key for key in rows if key not in set(chosen)]
    draw.shuffle(rest)
    return chosen + rest[: n - len(chosen)]


def _shown(
    row: Mapping[str, Any], second: Mapping[str, Any] | None, columns: Sequence[str], show_target: bool
) -> list[dict[str, Any]]:
    """What a person sees: the input and the answer. Nothing that says which model, prompt or run it was."""
    parts: list[dict[str, Any]] = [
        {"name": name[5:], "text": _text(row[name])} for name in columns if row.get(name) is not None
    ]
    if show_target and row.get("target") is not None:
        parts.append({"name": "right answer", "text": _text(row["target"])})
    if second is None:
        parts.append({"name": "answer", "text": _output(row)})
    else:
        parts.append({"pair": [_output(row), _output(second)]})
    return parts


def _output(row: Mapping[str, Any]) -> str:
    return _text(next((row[name] for name in _OUTPUTS if row.get(name) is not None), ""))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " …"


def _of_requests(store: Store, folder: SweepFolder) -> list[dict[str, Any]]:
    """Feedback that names a request, as if it named the sample that scored it (its column `request_id`)."""
    said = {
        str(line.get("request_id")): line
        for line in read_lines(requests_file(store))
        if line.get("project") == folder.manifest().project
    }
    return [
        {**said[key], "run": run, "sample_id": str(row["sample_id"])}
        for run in (folder.run_ids() if said else ())
        for row in _first_repeats(_rows(folder, run, "")).values()
        if (key := str(row.get("vars.request_id"))) in said
    ]


def feedback_agreement(store: Store, sweep: str) -> list[dict[str, Any]]:
    """For each run with feedback: how many ratings, their mean, and how they agree with each score."""
    from evalrun.analysis.feedback import agreements, runs_of
    from evalrun.tracking.people import LABELS_FOLDER, Label, kind_of
    from evalrun.tracking.targets import Target

    folder = store.resolve(sweep)
    lines = read_lines(folder.path / LABELS_FOLDER / "feedback.jsonl") + _of_requests(store, folder)
    found: list[dict[str, Any]] = []
    for run in dict.fromkeys(str(line["run"]) for line in lines):
        labels = [Label(str(x["sample_id"]), float(x["rating"]), run) for x in lines if x["run"] == run]
        mean = sum(float(label.value) for label in labels) / len(labels)
        head = {"run": run, "n": len(labels), "mean": mean}
        for each in agreements(runs_of(Target(folder, run))[0], labels, kind_of(labels)):
            found.append({**each, **head})  # noqa: PERF401
    return found
