"""OpenLineage: a sweep and its runs as run events, by HTTP or as JSON lines.

The ULID of a sweep has 128 bits, which are its UUID there; a run's UUID comes from sweep and run.
`OPENLINEAGE_URL` is the address where the suite names none, `OPENLINEAGE_API_KEY` a key.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from pydantic import Field

from evalrun._version import __version__
from evalrun.errors import UserError
from evalrun.results import RunResults
from evalrun.secrets import scrub_json
from evalrun.sinks.base import Item, Sink, Url, call, check_url, sink
from evalrun.suite.values import Spec
from evalrun.tracking.folder import SweepFolder

PRODUCER = f"https://pypi.org/project/evalrun-llm/{__version__}"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
NAMESPACE = "evalrun"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class OpenLineageOptions(Spec):
    """Marquez, or whatever takes OpenLineage's events."""

    url: Url | None = Field(default=None, description="Address of the server. Default: OPENLINEAGE_URL.")


@sink("openlineage")
class OpenLineageSink(Sink):
    """Events go to `/api/v1/lineage`."""

    Options = OpenLineageOptions
    summary = "OpenLineage: sweep and runs as run events, with their datasets and gates."

    def __init__(self, options: OpenLineageOptions) -> None:
        url = options.url or os.environ.get("OPENLINEAGE_URL")
        if not url:
            remedy = "Name one, or set OPENLINEAGE_URL."
            raise UserError("no address is named", where="openlineage: url", remedy=remedy)
        self.address = check_url(url)
        key = os.environ.get("OPENLINEAGE_API_KEY")
        self._headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }

    def items(self, folder: SweepFolder) -> Iterator[Item]:
        """An item for each event; an event that is sent again says the same."""
        for number, event in enumerate(events(folder)):
            body = orjson.dumps(event)
            yield Item(f"event/{number}", hashlib.sha256(body).hexdigest(), partial(bytes, body))

    def send(self, item: Item) -> str:
        """Post one event."""
        call("POST", f"{self.address}/api/v1/lineage", item.body(), self._headers)
        return ""


def sweep_uuid(ulid: str) -> str:
    """The 128 bits of a ULID, written as a UUID."""
    value = 0
    for char in ulid:
        value = value * 32 + _CROCKFORD.index(char)
    return str(uuid.UUID(int=value & (1 << 128) - 1))


def events(folder: SweepFolder) -> Iterator[dict[str, Any]]:
    """START of the sweep, START and end of each finished run, end of the sweep: RunEvents of OpenLineage."""
    manifest = folder.read_manifest()
    ended = manifest.get("finished_at") or manifest["started_at"]
    project = str(manifest.get("project") or manifest["name"])
    sweep = {"run": {"runId": sweep_uuid(folder.ulid), "facets": {}}, "job": _job(project)}
    runs = [folder.run(run_id) for run_id in folder.run_ids() if folder.is_finished(run_id)]
    yield _event("START", manifest["started_at"], sweep)
    parent = {
        **_facet("1-1-0/ParentRunFacet.json#/$defs/ParentRunFacet"),
        "run": {"runId": sweep["run"]["runId"]}, "job": {"namespace": NAMESPACE, "name": project},
    }  # fmt: skip
    for results in runs:
        digest = hashlib.sha256(f"{folder.ulid}|{results.run}".encode()).digest()
        own = str(uuid.UUID(bytes=digest[:16], version=4))
        about = {
            "run": {"runId": own, "facets": {"parent": parent}},
            "job": _job(f"{project}.{results.run}"),
            "inputs": [_dataset(results.dataset, manifest, results)],
            "outputs": [_folder(f"{folder.path.name}/runs/{results.run}")],
        }  # fmt: skip
        begun = results.timings.started_at or manifest["started_at"]
        yield _event("START", begun, about)
        state = "COMPLETE" if results.status == "complete" else "FAIL"
        yield _event(state, results.timings.finished_at or ended, about)
    datasets = dict.fromkeys(results.dataset for results in runs)
    done = {
        **sweep,
        "inputs": [_dataset(name, manifest, None) for name in datasets],
        "outputs": [_folder(folder.path.name)],
    }
    yield _event("COMPLETE" if manifest["status"] == "complete" else "FAIL", ended, done)


def _event(kind: str, moment: str, about: Mapping[str, Any]) -> dict[str, Any]:
    event = {"eventType": kind, "eventTime": moment, "producer": PRODUCER, "schemaURL": SCHEMA, **about}
    return dict(scrub_json(event))


def _job(name: str) -> dict[str, Any]:
    kind = {**_facet("2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet")}
    kind |= {"processingType": "BATCH", "integration": "EVALRUN", "jobType": "EVALUATION"}
    return {"namespace": NAMESPACE, "name": name, "facets": {"jobType": kind}}


def _folder(name: str) -> dict[str, Any]:
    return {"namespace": "file", "name": name, "facets": {}}


def _facet(schema: str) -> dict[str, str]:
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/{schema}"}


def _dataset(name: str, manifest: Mapping[str, Any], results: RunResults | None) -> dict[str, Any]:
    """An input with its version; of a run also its rows, and its gates as assertions on them."""
    known = manifest["datasets"].get(name) or {}
    source = known.get("source") or {}
    version = {**_facet("1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet")}
    version["datasetVersion"] = str(known.get("digest") or "unknown")
    of_input: dict[str, Any] = {}
    if known.get("n") is not None:
        rows = "1-0-2/DataQualityMetricsInputDatasetFacet.json#/$defs/DataQualityMetricsInputDatasetFacet"
        of_input["dataQualityMetrics"] = {**_facet(rows), "rowCount": known["n"], "columnMetrics": {}}
    gates = [gate for gate in manifest["gates"] if results and gate["run"] == results.run]
    if gates:
        schema = "1-0-1/DataQualityAssertionsDatasetFacet.json#/$defs/DataQualityAssertionsDatasetFacet"
        told = [{"assertion": gate["gate"], "success": gate["verdict"] == "pass"} for gate in gates]
        of_input["dataQualityAssertions"] = {**_facet(schema), "assertions": told}
    namespace = "hf" if source.get("hub") else "file"
    said = str(source.get("hub") or source.get("path") or name)
    return {"namespace": namespace, "name": said, "facets": {"version": version}, "inputFacets": of_input}
