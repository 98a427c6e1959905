"""The published form of what a sweep leaves behind: JSON Schemas of `sweep.json`, `run.json` and a sample.

They are made from the types that read and write these files. Keys that a later version adds are allowed: a
reader leaves alone what it does not know. `schema_version` changes when what is known changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.tracking.columns import (
    AS_JSON,
    BOOLEAN,
    FACTS,
    IDENTITY,
    INTEGER,
    NUMBER,
    SOMETIMES,
    STRING,
    TEXTS,
)
from evalrun.tracking.model import SCHEMA_VERSION

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {STRING: "string", INTEGER: "integer", NUMBER: "number", BOOLEAN: "boolean", AS_JSON: "string"}
_REQUIRED = {"sample_id": "string", "repeat": "integer", "position": "integer", "status": "string"}


def run_schema() -> Schema:
    """`runs/<run>/run.json`: what one run came to."""
    from pydantic import TypeAdapter

    from evalrun.results import RunResults

    schema = TypeAdapter(RunResults).json_schema()
    return _published("run", schema, "What one run of a sweep came to: counts, metrics with n and interval.")


def sweep_schema() -> Schema:
    """`sweep.json`: what was asked for, of whom, with what, how it ended, and what came of it together."""
    from pydantic import TypeAdapter

    from evalrun.sweep_results import SweepResults
    from evalrun.tracking.model import SweepManifest

    schema = TypeAdapter(SweepManifest).json_schema()
    together = TypeAdapter(SweepResults).json_schema()
    definitions = {**together.pop("$defs", {}), **schema.pop("$defs", {})}
    schema["properties"]["results"] = {"$ref": "#/$defs/SweepResults"}
    schema["$defs"] = {**definitions, "SweepResults": together}
    return _published("sweep", schema, "A sweep: suite, plan, provenance, digests, and results between runs.")


def sample_schema() -> Schema:
    """A row of `samples.parquet` as JSON. Columns of the data and of scores are named by what they hold."""
    properties: Schema = {
        name: {
            "type": [_TYPES[kind], "null"],
            **({"contentMediaType": "application/json"} if kind == AS_JSON else {}),
        }
        for name, kind in (*IDENTITY, *TEXTS, *FACTS, *SOMETIMES)
    }
    properties |= {name: {"type": kind} for name, kind in _REQUIRED.items()}
    properties["status"]["enum"] = ["scored", "unparsed", "refused", "failed"]
    schema = {
        "type": "object",
        "properties": properties,
        "patternProperties": {
            r"^vars\.": {"type": ["string", "number", "boolean", "null"]},
            r"^score\.": {"type": ["number", "null"]},
            r"^(reason|sensitive)\.": {"type": ["string", "null"]},
        },
        "required": [name for name, _ in (*IDENTITY, *TEXTS, *FACTS)],
    }
    return _published("sample", schema, "One sample: a dataset row in a run, and what the model made of it.")


def sweep_text() -> str:
    """The schema of `sweep.json`, as the text of a file."""
    return _text(sweep_schema())


def run_text() -> str:
    """The schema of `run.json`, as the text of a file."""
    return _text(run_schema())


def sample_text() -> str:
    """The schema of a row of `samples.parquet`, as the text of a file."""
    return _text(sample_schema())


def _text(schema: Schema) -> str:
    import orjson

    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


def _published(name: str, schema: Mapping[str, Any], description: str) -> Schema:
    return {
        **schema,
        "$schema": DIALECT,
        "$id": f"urn:evalrun:schema:{name}:{SCHEMA_VERSION}",
        "title": f"evalrun {name}, version {SCHEMA_VERSION}",
        "description": description,
    }
