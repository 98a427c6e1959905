"""What trackers keep: trackio's SQLite files, MLflow by its REST API, W&B by its own client."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import os
import re
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalrun.errors import ExitCode, UserError
from evalrun.training.readers import Reading, number, unix_s, whole_step

TRACKIO, MLFLOW, WANDB = "trackio", "mlflow", "wandb"

_INFINITE = 1.7976931348623157e308
"""What MLflow's databases keep instead of infinity."""
_PAGE, _TIMEOUT_S, _MOST_BYTES = 25_000, 60.0, 256 << 20
_MLFLOW_RUN = re.compile(r"[0-9a-f]{32}")


def find_trackio(folder: Path) -> list[Path]:
    """The SQLite files of trackio in a folder."""
    return [path for path in sorted(folder.glob("*.db")) if _has_metrics(path)]


def _has_metrics(path: Path) -> bool:
    with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(_open(path)) as database:
        return {"run_name", "step", "metrics"} <= _columns(database, "metrics")
    return False


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro", uri=True)


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")}


def read_trackio(path: Path, run: str = "") -> Reading:
    """One run of a trackio project. NaN and infinity stand there as texts.

    Raises UserError where the file is none of trackio's, has several runs and none is named, or not that one.
    """
    reading = Reading(TRACKIO, files=[path])
    try:
        with contextlib.closing(_open(path)) as database:
            runs = [
                str(row[0])
                for row in database.execute("SELECT DISTINCT run_name FROM metrics ORDER BY run_name")
            ]
            name = _chosen(runs, run, str(path))
            reading.name = name
            rows = database.execute(
                "SELECT step, timestamp, metrics FROM metrics WHERE run_name = ? ORDER BY id", [name]
            )
            for step, time, text in rows:
                _add_row(reading, step, unix_s(time), _object(text))
            if "config" in _columns(database, "configs"):
                for (text,) in database.execute("SELECT config FROM configs WHERE run_name = ?", [name]):
                    reading.hyperparameters |= {
                        k: v for k, v in _object(text).items() if not k.startswith("_")
                    }
    except sqlite3.Error as error:
        raise UserError(
            f"is no SQLite file of trackio: {error}",
            where=str(path),
            remedy="Copy it again, or name another file.",
        ) from error
    reading.note("steps are those that were logged, not shifted")
    return reading


def _chosen(runs: Sequence[str], run: str, where: str) -> str:
    if run in runs:
        return run
    if len(runs) == 1 and not run:
        return runs[0]
    listed = ", ".join(runs[:20]) or "none"
    what = f"has no run '{run}'" if run else f"has {len(runs)} runs"
    raise UserError(what, where=where, remedy=f"Name one: --run NAME. There are: {listed}.")


def _object(text: Any) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _add_row(reading: Reading, step: Any, wall_s: float, values: Mapping[str, Any]) -> None:
    step = whole_step(step)
    if step is None:
        reading.note("rows without a whole step are left out")
        return
    reading.steps = max(reading.steps, step)
    for name, value in values.items():
        got = number(value)
        if got is not None and not name.startswith("_"):
            reading.points.add(step, name, got, wall_s)


def read_mlflow(address: str, run: str = "") -> Reading:
    """One run of an MLflow server, by REST: its parameters, and the whole history of each metric.

    `address` is that of the server or of the run's page. `MLFLOW_TRACKING_TOKEN`, or `…_USERNAME` and
    `…_PASSWORD`, are used where they are set. Raises UserError (exit 3 where it cannot be reached).
    """
    parts = urllib.parse.urlsplit(address)
    named = run or next(iter(_MLFLOW_RUN.findall(parts.fragment or parts.path)), "")
    if not named:
        raise UserError("which run?", where=address, remedy="Name it by its id: --run 0123456789abcdef…")
    root = parts.path.split("/api/")[0].rstrip("/") if not parts.fragment else parts.path.rstrip("/")
    base = f"{parts.scheme}://{parts.netloc}{root if not _MLFLOW_RUN.search(root) else ''}"
    found = _get(base, "runs/get", {"run_id": named})
    run_ = found.get("run")
    entry: dict[str, Any] = run_ if isinstance(run_, dict) else {}
    info, data = entry.get("info") or {}, entry.get("data") or {}
    reading = Reading(MLFLOW, name=str(info.get("run_name") or info.get("run_id") or named))
    reading.hyperparameters |= {
        str(each["key"]): _typed(each.get("value")) for each in data.get("params") or ()
    }
    for metric in data.get("metrics") or ():
        for point in _history(base, named, str(metric["key"])):
            value, step = number(point.get("value")), number(point.get("step"))
            if value is None or step is None:
                continue
            value = math.copysign(math.inf, value) if abs(value) >= _INFINITE else value
            wall = (number(point.get("timestamp")) or math.nan) / 1000
            _add_row(reading, int(step), wall, {str(metric["key"]): value})
    if not len(reading.points):
        raise UserError("the run has no metrics", where=f"{base} {named}")
    reading.note(
        "steps are those that were logged, not shifted; MLflow keeps infinity as 1.8e308: mapped back"
    )
    return reading


def _history(base: str, run: str, key: str) -> Iterator[Mapping[str, Any]]:
    token = ""
    while True:
        query = {"run_id": run, "metric_key": key, "max_results": str(_PAGE), "page_token": token}
        page = _get(base, "metrics/get-history", {name: value for name, value in query.items() if value})
        yield from (each for each in page.get("metrics") or () if isinstance(each, dict))
        following = str(page.get("next_page_token") or "")
        if not following or following == token:
            return
        token = following


def _get(base: str, endpoint: str, query: Mapping[str, str]) -> dict[str, Any]:
    address = f"{base}/api/2.0/mlflow/{endpoint}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(address, headers=_authorization())
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            document = json.loads(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            said = _object(error.read(10_000)).get("message") or error.reason
        what = f"the server answered {error.code}: {str(said)[:200]}"
        raise UserError(what, where=base, remedy="Check the run's id and the credentials.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise UserError(f"cannot be reached: {reason}", where=base, exit_code=ExitCode.INCOMPLETE) from error
    except ValueError as error:
        raise UserError("did not answer as an MLflow server does", where=base) from error
    return document if isinstance(document, dict) else {}


def _authorization() -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _typed(value: Any) -> Any:
    """A parameter that is kept as text, as what it was: numbers and truth values."""
    if value in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[value]
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            got = kind(value)
            return got if math.isfinite(got) else value
    return value


def read_wandb(path: str) -> Reading:
    """One run of W&B (entity/project/run) by its own client, every row of it. Raises UserError where that is
    not installed or cannot read the run."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            "reading from W&B needs its package, wandb",
            where=path,
            remedy="pip install wandb, then `wandb login`.",
        ) from error
    try:
        run = wandb.Api().run(path)
        rows = list(run.scan_history())
    except Exception as error:  # its errors come from several libraries
        raise UserError(f"W&B cannot be read: {str(error)[:200]}", where=path) from error
    reading = Reading(WANDB, name=str(run.name or path))
    reading.hyperparameters |= {str(k): v for k, v in dict(run.config).items() if not str(k).startswith("_")}
    add_wandb_rows(reading, rows)
    return reading


def add_wandb_rows(reading: Reading, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a W&B history, at the trainer's own steps where they are logged."""
    steps = next(
        (
            name
            for name in ("train/global_step", "trainer/global_step", "global_step")
            if any(name in row for row in rows)
        ),
        "_step",
    )
    known = 0
    for row in rows:
        step = number(row.get(steps))
        known = int(step) if step is not None and math.isfinite(step) else known
        wall = number(row.get("_timestamp"))
        plain = {name: value for name, value in row.items() if name != steps}
        _add_row(reading, known, math.nan if wall is None else wall, plain)
    counted = "W&B's own, one for each call of log" if steps == "_step" else f"those of '{steps}'"
    reading.note(f"steps are {counted}")
