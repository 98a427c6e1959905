"""The published schemas hold for what real sweeps leave behind, and refuse what is no such thing."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from evalrun.evidence.schemas import run_schema, sample_schema, sweep_schema
from evalrun.tracking.folder import SweepFolder


def faults(schema: dict[str, Any], document: Any) -> list[str]:
    Draft202012Validator.check_schema(schema)
    return [
        f"{'.'.join(map(str, e.path))}: {e.message}"[:200]
        for e in Draft202012Validator(schema).iter_errors(document)
    ]


def test_a_sweep_holds_to_its_schemas(sweep: SweepFolder) -> None:
    assert faults(sweep_schema(), json.loads((sweep.path / "sweep.json").read_text())) == []
    for run in sweep.run_ids():
        assert faults(run_schema(), json.loads((sweep.path / "runs" / run / "run.json").read_text())) == []
        for row in pq.read_table(sweep.samples_path(run)).to_pylist():
            assert faults(sample_schema(), row) == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("sweep", "status", "done"),
        ("sweep", "plan", "none"),
        ("run", "counts", {"samples": "many"}),
        ("run", "metrics", [{"name": "a"}]),
        ("sample", "status", "right"),
        ("sample", "score.exact_match", "1"),
        ("sample", "sample_id", None),
    ],
)
def test_what_is_no_such_thing_is_refused(sweep: SweepFolder, name: str, key: str, value: Any) -> None:
    (run,) = sweep.run_ids()
    documents = {
        "sweep": (sweep_schema(), json.loads((sweep.path / "sweep.json").read_text())),
        "run": (run_schema(), json.loads((sweep.path / "runs" / run / "run.json").read_text())),
        "sample": (sample_schema(), pq.read_table(sweep.samples_path(run)).to_pylist()[0]),
    }
    schema, document = documents[name]
    assert key.split(".")[0] in str(document) and faults(schema, {**document, key: value})


def test_what_a_later_version_adds_is_allowed(sweep: SweepFolder) -> None:
    document = json.loads((sweep.path / "sweep.json").read_text()) | {"new_key": {"a": 1}}
    assert faults(sweep_schema(), document) == []


def test_schemas_have_a_version() -> None:
    assert [make()["$id"] for make in (sweep_schema, run_schema, sample_schema)] == [
        "urn:evalrun:schema:sweep:1", "urn:evalrun:schema:run:1", "urn:evalrun:schema:sample:1",
    ]  # fmt: skip
