"""MLflow by its REST API: a run of MLflow's for each run, numbers, intervals, parameters, data, files.

All calls can be repeated: a run is found again by its tag, metrics have the run's own time, and MLflow keeps
one of two that are alike.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from evalrun.results import RunResults
from evalrun.secrets import scrub, scrub_json
from evalrun.sinks.base import Item, Options, Refused, call, check_url
from evalrun.tracking.folder import SweepFolder

METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
LONGEST_NAME, LONGEST_PARAM, LONGEST_DIGEST = 240, 6000, 32
KEY_TAG = "evalrun.key"

_STATUS = {"complete": "FINISHED", "incomplete": "FAILED", "running": "RUNNING"}


class MlflowSink:
    """`MLFLOW_TRACKING_TOKEN`, or `…_USERNAME` and `…_PASSWORD`, are read from the environment, not kept."""

    def __init__(self, options: Options) -> None:
        self._url = check_url(options.url, "mlflow")
        self._named = options.experiment
        self._experiments: dict[str, str] = {}

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """One for each finished run."""
        manifest = folder.read_manifest()
        name = self._named or str(manifest.get("project") or manifest["name"])
        for run_id in folder.run_ids():
            if folder.is_finished(run_id):
                path = folder.run_dir(run_id) / "run.json"
                digest = hashlib.sha256(path.read_bytes() + name.encode()).hexdigest()
                yield Item(f"run/{run_id}", digest, partial(tuple, (folder, manifest, run_id, name)))

    def send(self, item: Item) -> str:
        """Make the run there, or fill up the one that an earlier try began. Returns MLflow's id of it."""
        folder, manifest, run_id, name = item.body()
        results = folder.run(run_id)
        experiment = self._experiment(name)
        started = _milliseconds(results.timings.started_at or manifest["started_at"])
        ended = _milliseconds(
            results.timings.finished_at or results.timings.started_at or manifest["started_at"]
        )
        found = self._run(experiment, f"{folder.ulid}/{run_id}", results, manifest, started)
        metrics, names = metric_rows(results, ended)
        for part in _parts(metrics, METRICS_AT_ONCE):
            self._post("runs/log-batch", {"run_id": found["run_id"], "metrics": part})
        for part in _parts(_params(results), PARAMS_AT_ONCE):
            self._post("runs/log-batch", {"run_id": found["run_id"], "params": part})
        self._post("runs/log-inputs", {"run_id": found["run_id"], "datasets": _dataset(results, manifest)})
        self._files(found, experiment, folder.run_dir(run_id) / "run.json", names)
        status = _STATUS.get(results.status, "FAILED")
        self._post("runs/update", {"run_id": found["run_id"], "status": status, "end_time": ended})
        return str(found["run_id"])

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            try:
                made = self._post("experiments/create", {"name": name})
            except Refused as refused:
                if "RESOURCE_ALREADY_EXISTS" not in str(refused):
                    raise
                query = f"experiments/get-by-name?experiment_name={quote(name, safe='')}"
                made = self._call("GET", f"/api/2.0/mlflow/{query}")["experiment"]
                if made.get("lifecycle_stage") == "deleted":
                    raise Refused(f"the experiment '{name}' is deleted there: restore or rename it") from None
            self._experiments[name] = str(made["experiment_id"])
        return self._experiments[name]

    def _run(
        self, experiment: str, key: str, results: RunResults, manifest: Mapping[str, Any], started: int
    ) -> dict[str, Any]:
        wanted = f"tags.`{KEY_TAG}` = '{key}'"
        runs = self._post("runs/search", {"experiment_ids": [experiment], "filter": wanted, "max_results": 1})
        if runs.get("runs"):
            return dict(runs["runs"][0]["info"])
        tags = {
            KEY_TAG: key,
            "evalrun.sweep": manifest["sweep"],
            "evalrun.project": manifest.get("project") or "",
            "evalrun.spec_digest": manifest.get("spec_digest") or "",
            "mlflow.source.name": "evalrun",
        }
        made = {
            "experiment_id": experiment,
            "start_time": started,
            "run_name": f"{manifest['name']}/{results.run}",
            "tags": [{"key": name, "value": str(value)} for name, value in tags.items()],
        }
        return dict(self._post("runs/create", made)["run"]["info"])

    def _files(
        self, info: Mapping[str, Any], experiment: str, run_json: Path, names: Mapping[str, str]
    ) -> None:
        """Where the server takes files itself; a bucket's keys are not evalrun's to have."""
        if not str(info.get("artifact_uri", "")).startswith("mlflow-artifacts:"):
            return
        base = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{info['run_id']}/artifacts/evalrun"
        for name, data in {
            "run.json": scrub_json(orjson.loads(run_json.read_bytes())),
            "metric_names.json": names,
        }.items():
            self._call("PUT", f"{base}/{name}", orjson.dumps(data))

    def _post(self, endpoint: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", f"/api/2.0/mlflow/{endpoint}", orjson.dumps(scrub_json(document)))

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        said = call(method, self._url + path, body, {"Content-Type": "application/json", **_credentials()})
        try:
            document = orjson.loads(said) if said else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Refused("it did not answer as an MLflow server does")
        return document


def metric_rows(results: RunResults, moment: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """MLflow's metrics of a run at a time (ms), and the evalrun name of each name that had to change.

    A slice `{dialect: aave}` of `exact_match` is `exact_match/dialect:aave`; an interval is `…/ci_low` and
    `…/ci_high`.
    """
    rows: dict[str, dict[str, Any]] = {}
    renamed: dict[str, str] = {}
    for metric in results.metrics:
        plain = "/".join([metric.name, *(f"{column}:{group}" for column, group in metric.slice.items())])
        name = _name(plain, rows)
        if name != plain:
            renamed[name] = plain
        parts = {"": metric.value, "/ci_low": metric.ci_low, "/ci_high": metric.ci_high}
        for suffix, value in parts.items():
            if value is not None:
                rows[name + suffix] = {
                    "key": name + suffix,
                    "value": float(value),
                    "timestamp": moment,
                    "step": results.step or 0,
                }
    return list(rows.values()), renamed


def _name(plain: str, taken: Mapping[str, Any]) -> str:
    """With MLflow's letters alone; another that would read alike gets a part of its digest."""
    name = re.sub(r"[^\w\-. :/]", "_", scrub(plain), flags=re.ASCII)
    if len(name) <= LONGEST_NAME and name not in taken:
        return name
    return f"{name[: LONGEST_NAME - 9]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def _params(results: RunResults) -> list[dict[str, str]]:
    values = {
        "model": results.model,
        "prompt": results.prompt,
        "dataset": results.dataset,
        "repeats": results.repeats,
        **{f"params.{name}": value for name, value in results.params.items()},
    }
    return [
        {"key": re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:LONGEST_NAME], "value": _text(value)}
        for name, value in values.items()
    ]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return scrub(text)[:LONGEST_PARAM]


def _dataset(results: RunResults, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = manifest.get("datasets", {}).get(results.dataset, {})
    if not known.get("digest"):
        return []
    source = {"kind": known.get("source", {}).get("kind", ""), "sha256": known["digest"]}
    dataset = {
        "name": results.dataset,
        "digest": str(known["digest"])[:LONGEST_DIGEST],
        "source_type": "evalrun",
        "source": orjson.dumps(source).decode(),
        "profile": orjson.dumps({"num_rows": known.get("n"), "digest": known["digest"]}).decode(),
    }
    return [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "eval"}]}]


def _parts(rows: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _milliseconds(moment: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _credentials() -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {"Authorization": f"Bearer {token}"} if token else {}
