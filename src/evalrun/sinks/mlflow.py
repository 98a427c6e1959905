"""MLflow by its REST API: a run of MLflow's for each run, numbers, intervals, parameters, data, files.

All calls can be repeated: a run is found again by its tag, metrics have the run's own time, and MLflow keeps
one of two that are alike.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from pydantic import BeforeValidator, Field

from evalrun.results import RunResults
from evalrun.secrets import scrub, scrub_json
from evalrun.sinks import otlp
from evalrun.sinks.base import Item, Partly, Refused, Sink, Url, UrlOptions, call, sink
from evalrun.suite.findings import complaint
from evalrun.tracking.changes import PROMOTE, current, placed
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

METRICS_AT_ONCE, PARAMS_AT_ONCE, TRACES_AT_ONCE = 1000, 100, 50
LONGEST_NAME, LONGEST_PARAM, LONGEST_DIGEST = 240, 6000, 32
LONGEST_TAG = 4000
KEY_TAG, NONFINITE_TAG = "evalrun.key", "evalrun.nonfinite"

_STATUS = {"complete": "FINISHED", "incomplete": "FAILED", "running": "RUNNING"}


_CLIENTS_OF_THEIR_OWN = re.compile(
    r"(databricks|sagemaker|arn)\b|https?://[^/]*\.(azure)?databricks\.(com|net|us)(:|/|$)", re.IGNORECASE
)


def _open_server(url: Any) -> Any:
    """MLflow of Databricks and SageMaker has names, files and keys of its own."""
    if _CLIENTS_OF_THEIR_OWN.match(str(url).strip()):
        raise complaint(
            f"'{scrub(str(url))}' is no MLflow server that is spoken to here",
            "Databricks and SageMaker want clients of their own; `evalrun export --as csv` has the figures.",
        )
    return url


class MlflowOptions(UrlOptions):
    """MLflow by its REST API; needs no package."""

    url: Annotated[Url, BeforeValidator(_open_server)] = Field(
        description="Address of the server: http://HOST:PORT or https://HOST."
    )
    experiment: str = Field(default="", description="Name of the experiment. Default: the project.")
    samples: Literal["failures", "all", "none"] = Field(
        default="failures",
        description="Which samples become traces with assessments: those that were not scored, or whose "
        "score lies in the worse half; all; or none.",
    )
    most_samples: int = Field(default=200, ge=1, description="So many traces of each run at most.")
    content: bool = Field(
        default=False, description="Prompts, answers, targets and reasons in the traces too."
    )
    report: bool = Field(default=True, description="The HTML report as an artifact. It shows samples.")


@sink("mlflow")
class MlflowSink(Sink):
    """`MLFLOW_TRACKING_TOKEN`, or `…_USERNAME` and `…_PASSWORD`, are read from the environment, not kept."""

    Options = MlflowOptions
    summary = "An MLflow server: runs, metrics, datasets, files, samples as traces with assessments."

    def __init__(self, options: MlflowOptions) -> None:
        self.address = options.url
        self._options = options
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, dict[str, Any]] = {}
        self._kept_back = ""

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """The sweep, where it has several runs; each finished run with its samples; report; aliases."""
        sweep = _Sweep(folder, folder.read_manifest(), self._options.experiment)
        finished = [run_id for run_id in folder.run_ids() if folder.is_finished(run_id)]
        sweep.nested = len(finished) > 1
        if sweep.nested:
            yield Item("sweep", _digest(sweep.name), partial(self._sweep_run, sweep))
        for run_id in finished:
            run_json = (folder.run_dir(run_id) / "run.json").read_bytes()
            yield Item(f"run/{run_id}", _digest(run_json, sweep.name), partial(self._send_run, sweep, run_id))
            yield from self._samples(sweep, run_id)
        if finished and self._options.report:
            digest = _digest((folder.path / "sweep.json").read_bytes(), sweep.name)
            yield Item("report", digest, partial(self._report, sweep, finished[0]))
        yield from self._aliases(sweep)

    def send(self, item: Item) -> str:
        """Make it there, or fill up what an earlier try began. Returns MLflow's id of it."""
        self._kept_back = ""
        remote = str(item.body())
        if self._kept_back:
            raise Partly(self._kept_back, remote)
        return remote

    def withdraw(
        self, folder: SweepFolder, run_id: str, remote: str, samples: Sequence[tuple[str, int]]
    ) -> int | None:
        """Delete the traces of samples; the report and the run's own file are replaced when they are sent."""
        if not remote:
            return 0
        info = self._call("GET", f"/api/2.0/mlflow/runs/get?run_id={quote(remote, safe='')}")["run"]["info"]
        run = otlp.Run(folder, folder.read_manifest(), run_id, None)
        deleted = 0
        for part in _parts([{"sample_id": name, "repeat": at} for name, at in samples], TRACES_AT_ONCE):
            ids = [f"tr-{run.own_trace(row)}" for row in part]
            document = {"experiment_id": info["experiment_id"], "request_ids": ids}
            deleted += int(self._post("traces/delete-traces", document, "3.0").get("traces_deleted") or 0)
        return deleted

    def _sweep_run(self, sweep: _Sweep) -> str:
        """The run that those of a sweep are under."""
        ended = sweep.manifest.get("finished_at") or sweep.manifest["started_at"]
        status = _STATUS.get(sweep.manifest["status"], "FAILED")
        info = self._run(sweep, None)
        self._end(info, status, _milliseconds(ended))
        return str(info["run_id"])

    def _send_run(self, sweep: _Sweep, run_id: str) -> str:
        results = sweep.folder.run(run_id)
        ended = _milliseconds(
            results.timings.finished_at or results.timings.started_at or sweep.manifest["started_at"]
        )
        info = self._run(sweep, results)
        metrics, names = metric_rows(results, ended)
        for part in _parts(metrics, METRICS_AT_ONCE):
            self._post("runs/log-batch", {"run_id": info["run_id"], "metrics": part})
        if lost := [row["key"] for row in metrics if row["value"] == "NaN"]:
            tag = {"key": NONFINITE_TAG, "value": ", ".join(lost)[:LONGEST_TAG]}
            self._post("runs/set-tag", {"run_id": info["run_id"], **tag})
        for part in _parts(_params(results), PARAMS_AT_ONCE):
            self._post("runs/log-batch", {"run_id": info["run_id"], "params": part})
        datasets = _dataset(results, sweep.manifest)
        self._post("runs/log-inputs", {"run_id": info["run_id"], "datasets": datasets})
        run_json = orjson.loads((sweep.folder.run_dir(run_id) / "run.json").read_bytes())
        self._file(info, "run.json", orjson.dumps(scrub_json(run_json)))
        self._file(info, "metric_names.json", orjson.dumps(names))
        self._end(info, _STATUS.get(results.status, "FAILED"), ended)
        return str(info["run_id"])

    def _end(self, info: Mapping[str, Any], status: str, ended: int) -> None:
        self._post("runs/update", {"run_id": info["run_id"], "status": status, "end_time": ended})

    def _samples(self, sweep: _Sweep, run_id: str) -> Iterator[Item]:
        """Traces of samples, a batch an item."""
        if self._options.samples == "none":
            return
        results = sweep.folder.run(run_id)
        kind = f"{self._options.samples}|{self._options.most_samples}|{self._options.content}"
        digest = _digest(str(results.digests.get("samples_sha256")), sweep.name, kind)
        chosen: list[dict[str, Any]] = []
        for row in otlp.read_rows(sweep.folder, run_id, self._options.content):
            if self._options.samples == "all" or failing(row, results):
                chosen.append(row)
            if len(chosen) == self._options.most_samples:
                break
        for number, rows in enumerate(_parts(chosen, TRACES_AT_ONCE)):
            yield Item(f"traces/{run_id}/{number}", digest, partial(self._traces, sweep, run_id, rows))

    def _traces(self, sweep: _Sweep, run_id: str, rows: Sequence[Mapping[str, Any]]) -> str:
        """A trace a sample in the run's, and an assessment for each score that it does not have yet."""
        run = otlp.Run(sweep.folder, sweep.manifest, run_id, None)
        info = self._run(sweep, run.results)
        spans = []
        for row in rows:
            span = run.sample_span(row)
            span.pop("parentSpanId")
            spans.append({**span, "traceId": run.own_trace(row)})
        headers = {"x-mlflow-experiment-id": info["experiment_id"], "x-mlflow-run-id": info["run_id"]}
        self._call("POST", "/v1/traces", orjson.dumps(scrub_json(otlp.traces(spans))), headers)
        for row in rows:
            trace = f"tr-{run.own_trace(row)}"
            known = self._call("GET", f"/api/3.0/mlflow/traces/{trace}")["trace"]["trace_info"]
            there = {each.get("assessment_name") for each in known.get("assessments", ())}
            for assessment in _assessments(row, run.results, trace):
                if assessment["assessment_name"] not in there:
                    self._post(f"traces/{trace}/assessments", {"assessment": assessment}, version="3.0")
        return str(info["run_id"])

    def _report(self, sweep: _Sweep, only: str) -> str:
        """The report, made anew, at the sweep's run; at its only run where it has one."""
        from tempfile import TemporaryDirectory

        from evalrun.reports.report import write_report

        info = self._run(sweep, None if sweep.nested else sweep.folder.run(only))
        with TemporaryDirectory(prefix="evalrun-") as folder:
            write_report(sweep.folder, Path(folder) / "report.html", scrubbed=True)
            self._file(info, "report.html", (Path(folder) / "report.html").read_bytes())
        return str(info["run_id"])

    def _aliases(self, sweep: _Sweep) -> Iterator[Item]:
        """A model version's alias for each promotion of a run of the sweep that stands."""
        resolved = sweep.manifest["suite"].get("resolved") or {}
        versions = {
            model["id"]: model["mlflow"] for model in resolved.get("models") or () if "mlflow" in model
        }
        if not versions or not any(event["action"] == PROMOTE for event in sweep.folder.events()):
            return
        standing = current(placed(Store(sweep.folder.path.parent.parent)))
        for place in standing.values():
            model = place.kind == PROMOTE and place.sweep == sweep.folder.ulid and sweep.folder.run(place.run)
            if model and (version := versions.get(model.model)):
                name, _, number = version.rpartition("/")
                document = {"name": name, "alias": place.name, "version": number}
                post = partial(self._post, "registered-models/alias", document)
                yield Item(f"alias/{place.name}", _digest(version, place.ts), post)

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

    def _run(self, sweep: _Sweep, results: RunResults | None) -> dict[str, Any]:
        """MLflow's run of a run, or of the sweep: found by its tag, else made."""
        key = f"{sweep.folder.ulid}/{results.run}" if results else sweep.folder.ulid
        if key in self._runs:
            return self._runs[key]
        experiment = self._experiment(sweep.name)
        wanted = f"tags.`{KEY_TAG}` = '{key}'"
        runs = self._post("runs/search", {"experiment_ids": [experiment], "filter": wanted, "max_results": 1})
        info = runs["runs"][0]["info"] if runs.get("runs") else self._make(sweep, results, experiment, key)
        self._runs[key] = dict(info)
        return self._runs[key]

    def _make(self, sweep: _Sweep, results: RunResults | None, experiment: str, key: str) -> dict[str, Any]:
        manifest = sweep.manifest
        tags = {
            KEY_TAG: key,
            "evalrun.sweep": manifest["sweep"],
            "evalrun.project": manifest.get("project") or "",
            "evalrun.spec_digest": manifest.get("spec_digest") or "",
            "mlflow.source.name": "evalrun",
        }
        if results and sweep.nested:
            tags["mlflow.parentRunId"] = self._run(sweep, None)["run_id"]
        begun = (results and results.timings.started_at) or manifest["started_at"]
        made = {
            "experiment_id": experiment,
            "start_time": _milliseconds(begun),
            "run_name": f"{manifest['name']}/{results.run}" if results else f"{manifest['name']} {key}",
            "tags": [{"key": name, "value": str(value)} for name, value in tags.items()],
        }
        return dict(self._post("runs/create", made)["run"]["info"])

    def _file(self, info: Mapping[str, Any], name: str, data: bytes) -> None:
        """Where the server takes files itself; a bucket's keys are not evalrun's to have."""
        scheme = str(info.get("artifact_uri", "")).partition(":")[0]
        if scheme != "mlflow-artifacts":
            self._kept_back = f"files were not sent: the server keeps them itself, at {scheme[:40]}"
            return
        where = f"{info['experiment_id']}/{info['run_id']}/artifacts/evalrun/{name}"
        self._call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{where}", data)

    def _post(self, endpoint: str, document: Mapping[str, Any], version: str = "2.0") -> dict[str, Any]:
        return self._call("POST", f"/api/{version}/mlflow/{endpoint}", orjson.dumps(scrub_json(document)))

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        sent = {"Content-Type": "application/json", **_credentials(), **headers}
        said = call(method, self.address + path, body, sent)
        try:
            document = orjson.loads(said) if said else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Refused("it did not answer as an MLflow server does")
        return document


@dataclass
class _Sweep:
    """A sweep on its way: `named` is the experiment, where one is named; `nested` its runs are under one."""

    folder: SweepFolder
    manifest: Mapping[str, Any]
    named: str
    nested: bool = False

    @property
    def name(self) -> str:
        """The experiment."""
        return self.named or str(self.manifest.get("project") or self.manifest["name"])


def _digest(*parts: str | bytes) -> str:
    return hashlib.sha256(b"|".join(p.encode() if isinstance(p, str) else p for p in parts)).hexdigest()


def failing(row: Mapping[str, Any], results: RunResults) -> bool:
    """Whether a sample is one to look at: not scored, or the score that leads lies in the worse half of its
    scale (0 to 1 where the run says nothing else)."""
    if row["status"] != "scored":
        return True
    score = next((name for name in row if name.startswith("score.")), "")
    value, about = row.get(score), results.details.definitions.get(score.removeprefix("score."))
    if value is None or (about and about.direction == "none"):
        return False
    low, high = about.bounds if about else (None, None)
    middle = ((0.0 if low is None else low) + (1.0 if high is None else high)) / 2
    return bool(value > middle if about and about.direction == "lower" else value < middle)


def _assessments(row: Mapping[str, Any], results: RunResults, trace: str) -> Iterator[dict[str, Any]]:
    """A feedback for each score, with its reason where that was read, and an expectation for the target."""
    judges = {bill.scorer: bill.model for bill in results.details.judges}
    for column, value in row.items():
        name = column.removeprefix("score.")
        if column == name or value is None or not math.isfinite(value):
            continue
        judge = judges.get(name)
        source = {"source_type": "LLM_JUDGE" if judge else "CODE", "source_id": judge or "evalrun"}
        assessment = {"assessment_name": name, "trace_id": trace, "source": source}
        reason = row.get(f"reason.{name}")
        yield {**assessment, "feedback": {"value": value}, **({"rationale": reason} if reason else {})}
    if row.get("target") is not None:
        source = {"source_type": "HUMAN", "source_id": "dataset"}
        expectation = {"value": row["target"]}
        yield {
            "assessment_name": "target", "trace_id": trace, "source": source, "expectation": expectation
        }  # fmt: skip


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
                    "value": float(value) if math.isfinite(value) else "NaN",
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
