"""The JSON Schema of a suite as people write it, so that editors complete and check it, and the reference in
Markdown, made from that schema so that it cannot differ from the code.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

from pydantic import BaseModel

from evalrun import registry
from evalrun.errors import UserError
from evalrun.suite.components import PYTHON, ModelSpec
from evalrun.suite.schema import Suite

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def suite_json_schema() -> Schema:
    """The schema (draft 2020-12), with every provider, parser and scorer that can be imported here.

    An entry whose package is not installed is accepted with any options.
    """
    schema: Schema = _tidy(Suite.model_json_schema())
    definitions: Schema = schema.pop("$defs")
    properties: Schema = schema["properties"]
    properties["project"].pop("default", None)
    for name in ("BaseModel", "ModelSpec", "ParserSpec", "ScorerSpec", "SinkSpec"):
        definitions.pop(name)
    properties["models"]["items"] = {
        "anyOf": [{"$ref": _define(definitions, name, _model_entry(name))} for name in _provider_names()]
    }
    properties["judges"]["items"] = properties["models"]["items"]
    properties["parse"]["items"] = _component_forms("parser", definitions)
    properties["scorers"]["items"] = _component_forms("scorer", definitions)
    properties["sinks"]["items"] = _component_forms("sink", definitions)
    return {"$schema": DIALECT, "title": "evalrun suite", **schema, "$defs": definitions}


def schema_text() -> str:
    """The same as the text of a file."""
    import orjson

    return orjson.dumps(suite_json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"


def options_schema(options: type[BaseModel], name: str) -> Schema:
    """The schema of an Options model; what it refers to is defined under names that begin with `name`."""
    schema: Schema = _tidy(options.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}"))
    return schema


def _provider_names() -> list[str]:
    return [f"provider.{name}" for name in registry.names("provider")]


def _model_entry(qualified: str) -> Schema:
    """A model entry for one provider: the common keys and the provider's, side by side."""
    name = qualified.removeprefix("provider.")
    common = _tidy(ModelSpec.model_json_schema())
    common["properties"].pop("options")
    common["$defs"].pop("BaseModel")
    common["properties"]["provider"] |= {"const": name}
    component = _component("provider", name)
    if component is None:
        return {**common, "additionalProperties": True, "description": "Its package is not installed here."}
    options = options_schema(component.Options, qualified)
    return {
        "type": "object",
        "description": component.summary,
        "properties": {**common["properties"], **options.get("properties", {})},
        "required": [*common["required"], *options.get("required", [])],
        "additionalProperties": False,
        "$defs": {
            **common.get("$defs", {}),
            **{f"{qualified}.{k}": v for k, v in options.get("$defs", {}).items()},
        },
    }


def _component_forms(kind: registry.Kind, definitions: Schema) -> Schema:
    """The forms in which a parser or scorer can be written."""
    bare: list[Schema] = []
    mapped: Schema = {}
    for name in registry.names(kind):
        component = _component(kind, name)
        summary = component.summary if component else "Its package is not installed here."
        if component is None:
            bare.append({"const": name, "description": summary})
            mapped[name] = {"description": summary}
            continue
        qualified = f"{kind}.{name}"
        options = options_schema(component.Options, qualified)
        options["description"] = summary + _shorthand_note(name, component.shorthand)
        nested = {f"{qualified}.{key}": value for key, value in options.pop("$defs", {}).items()}
        reference = {"$ref": _define(definitions, qualified, {**options, "$defs": nested})}
        forms: list[Schema] = [reference]
        if component.shorthand is not None:
            forms.insert(0, options["properties"][component.shorthand])
        if not options.get("required"):
            bare.append({"const": name, "description": summary})
            forms.append({"type": "null"})
        mapped[name] = {"description": summary, "anyOf": forms}
    one = {"type": "object", "properties": mapped, "additionalProperties": False}
    return {"anyOf": [*bare, {**one, "minProperties": 1, "maxProperties": 1}, _python_form(kind)]}


def _shorthand_note(name: str, shorthand: str | None) -> str:
    return (
        f" Short form: {{{name}: {shorthand.upper()}}} for {{{name}: {{{shorthand}: ...}}}}."
        if shorthand
        else ""
    )


def _python_form(kind: str) -> Schema:
    target = {
        "type": "string",
        "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        "description": f"A {kind} of your own, as package.module:attribute.",
    }
    arguments = {"type": "object", "description": "Its options, or a function's keyword arguments."}
    return {
        "type": "object",
        "description": "Code of your own: a component class or a plain function.",
        "properties": {PYTHON: target, "args": arguments},
        "required": [PYTHON],
        "additionalProperties": False,
    }


def _component(kind: registry.Kind, name: str) -> Any:
    """The registered class, or None where what it needs is not installed."""
    try:
        return registry.load(kind, name)
    except (UserError, ImportError):
        return None


def _define(definitions: Schema, name: str, schema: Schema) -> str:
    """Put a schema, and what it defines itself, among the definitions; returns the reference to it."""
    definitions.update(schema.pop("$defs", {}))
    definitions[name] = schema
    return f"#/$defs/{name}"


def _tidy(schema: Any) -> Any:
    """Without pydantic's titles, and with "T or null" written as one type where T is simple."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: {name: _tidy(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _tidy(value)
        for key, value in schema.items()
        if key != "title"
    }
    match result.get("anyOf"):
        case [{"type": str() as kind} as some, {"type": "null"}] if "enum" not in some:
            del result["anyOf"]
            return {**some, "type": [kind, "null"], **result}
    return result


_INTRODUCTION = """\
# Suite reference

A suite is one YAML file. It names models, prompts and datasets; every combination of them, and of the values
under `sweep`, is a run. This page is made from the code by `evalrun docs suite`. `evalrun schema` prints the
same as JSON Schema, which editors use to complete and check a suite when its first line is

```yaml
# yaml-language-server: $schema=suite.schema.json
```

Unknown keys are errors. Relative paths start at the suite's folder.
"""

_AROUND = """\
## Environment variables

`${NAME}` in any text value stands for the environment variable; one that is not set is an error. Without
quotes the result may be a number or `true`/`false`; in quotes it is text. Write `$${` for a plain `${`. Keys
for services are never written into a suite: providers take the name of the variable (`api_key_env`). In
prompts, rows and scorers, which are stored with every sample, a variable whose name says that it is secret is
an error.

## YAML

Plain scalars follow YAML 1.2: `yes`, `no`, `on` and `off` are text. Repeated keys are errors; anchors,
aliases and `<<` work. Templates (`{{ }}`) must stand in quotes where they begin a value.

## From the command line

| option | what it changes |
|---|---|
| `--limit N` | the limit of every dataset |
| `--models ID,…` `--prompts ID,…` `--datasets ID,…` | keep only these |
| `--data ID=PATH` | read a dataset from a local file (relative to the current folder), not from its source |
| `--set PATH=VALUE` | any value; see below |

The path of `--set` is keys, list indices and ids with dots between, its value is YAML:
`--set models.smollm2.params.temperature=0.7`, `--set scorers.exact_match.ignore_case=true`.
"""

_SECTIONS: tuple[tuple[str, str, str], ...] = (
    ("PromptSpec", "prompts", "Exactly one of `file`, `text` and `messages`."),
    ("PromptMessage", "prompts: messages", ""),
    ("FewShotSpec", "prompts: few_shot", "Exactly one of `split` and `path`."),
    ("AskSpec", "prompts: ask", "`generate` and `perplexity` may stand for themselves."),
    ("ChooseSpec", "prompts: ask: choose", ""),
    ("PerplexitySpec", "prompts: ask: perplexity", ""),
    ("AblateSpec", "prompts: ablate", ""),
    ("DatasetSpec", "datasets", "Exactly one of `path`, `hub`, `rows` and `traffic`."),
    ("TrafficSpec", "datasets: traffic", "See [traffic](traffic.md)."),
    ("TrafficSampleSpec", "datasets: traffic: sample", "At most one of `n` and `rate`."),
    (
        "AttributeSpec",
        "datasets: counterfactual",
        "`name: [a, b]` is short for `name: {values: [a, b]}`.",
    ),
    ("PerturbationSpec", "datasets: perturb", ""),
    ("PartSpec", "datasets: part", ""),
    ("FairnessSpec", "fairness", ""),
    ("PerformanceSpec", "performance", ""),
    ("ErrorsSpec", "errors", ""),
    ("LoadSpec", "load", "See [load](load.md)."),
    ("ArrivalsSpec", "load: arrivals", ""),
    ("RampSpec", "load: arrivals: ramp", ""),
    ("SearchSpec", "load: search", ""),
    ("ExplainRules", "explain", "See [why this answer](explain.md)."),
    ("ExplainSamples", "explain: samples", ""),
    ("SearchRules", "search", ""),
    ("ProposeRules", "search: propose", ""),
    ("EarlyRules", "stop_early", ""),
    ("PrivacySpec", "privacy", "See [privacy](privacy.md)."),
    ("PresidioSpec", "privacy: presidio", ""),
    ("RecogniserSpec", "privacy: recognisers", ""),
    ("RetentionSpec", "retention", ""),
    ("ProbeSpec", "probe", "See [production](production.md)."),
    ("SloSpec", "probe: slo", ""),
    ("ReportSpec", "report", ""),
    ("BudgetSpec", "budget", ""),
    ("NightlySpec", "nightly", ""),
    ("AlertsSpec", "alerts", ""),
    ("CheckpointRules", "checkpoints", ""),
    ("WatchSpec", "checkpoints: watch", ""),
    ("CellFilter", "include and exclude", ""),
)


def suite_reference() -> str:
    """The reference: one table for each section of a suite, and one for each provider, parser and scorer."""
    schema = suite_json_schema()
    definitions = schema["$defs"]
    parts = [_INTRODUCTION, _section(2, "suite", schema), *_models(definitions)]
    for name, title, note in _SECTIONS:
        parts.append(_section(3 if ":" in title else 2, title, definitions[name], note))
        if name == "PerturbationSpec":
            parts += _components("parser", "parse", definitions)
            parts += _components("scorer", "scorers", definitions)
        if name == "AlertsSpec":
            parts += _components("sink", "sinks", definitions)
    return "\n".join([*parts, _AROUND])


def _models(definitions: Schema) -> Iterator[str]:
    entries = _of_kind("provider", definitions)
    common = {"type": "object", **ModelSpec.model_json_schema()}
    first = next(iter(entries.values()))["properties"]
    properties = {key: first[key] for key in common["properties"] if key in first}
    properties["provider"] = {"enum": list(entries), "description": first["provider"]["description"]}
    yield f"## models\n\n{ModelSpec.__doc__}\n"
    yield options_table(properties, common["required"])
    yield _section(3, "models: price", definitions["PriceSpec"])
    yield _section(3, "models: limits", definitions["LimitsSpec"])
    yield _section(3, "models: resources", definitions["ResourcesSpec"])
    yield _section(3, "models: checkpoints", definitions["CheckpointsSpec"])
    yield _section(3, "models: checkpoint", definitions["CheckpointSpec"])
    for name, schema in entries.items():
        yield _section(3, f"provider: {name}", schema, leave_out=properties)


def _of_kind(kind: str, definitions: Schema) -> dict[str, Schema]:
    """The definitions of all providers, parsers or scorers by name, without what they define inside."""
    split = ((name.split("."), schema) for name, schema in definitions.items())
    return {parts[1]: schema for parts, schema in split if len(parts) == 2 and parts[0] == kind}


def _components(kind: str, title: str, definitions: Schema) -> Iterator[str]:
    yield (
        f"## {title}\n\n"
        "Each entry is a name (`name`), a name with options (`{name: {option: value}}`), or "
        f"a {kind} of your own: "
        '`{python: "package.module:attribute", args: {option: value}}`. Modules beside the suite or in the '
        "current folder are found.\n"
    )
    for name, schema in _of_kind(kind, definitions).items():
        yield _section(3, f"{kind}: {name}", schema)


def _section(level: int, title: str, schema: Schema, note: str = "", leave_out: Collection[str] = ()) -> str:
    properties = {key: item for key, item in schema.get("properties", {}).items() if key not in leave_out}
    text = [f"{'#' * level} {title}\n"]
    if schema.get("description"):
        text.append(f"{_sentence(schema['description'])} {note}".strip() + "\n")
    text.append(
        options_table(properties, schema.get("required", [])) if properties else "No keys of its own.\n"
    )
    return "\n".join(text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "…")) else ".")


def options_table(properties: Schema, required: Collection[str]) -> str:
    """Keys with their types, defaults and descriptions."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema in properties.items():
        default = "required" if key in required else _default(schema)
        cells = (f"`{key}`", type_text(schema), default, schema.get("description", ""))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(schema: Schema) -> str:
    value = schema.get("default")
    return "" if value in (None, "", [], {}) else f"`{json.dumps(value)}`"


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
}


def type_text(schema: Schema) -> str:
    """The type of a value in words: "whole number ≥ 1", "list of text"."""
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return "name"
    if "anyOf" in schema:
        names = (type_text(item) for item in schema["anyOf"] if item.get("type") != "null")
        return " or ".join(dict.fromkeys(names))
    kinds = schema.get("type", "object" if "$ref" in schema else "")
    kind = next((each for each in kinds if each != "null"), "") if isinstance(kinds, list) else kinds
    return _collection(kind, schema) + _bounds(schema)


def _collection(kind: str, schema: Schema) -> str:
    name = _NAMES.get(kind, "any value")
    inner: Any = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    if kind in ("array", "object") and isinstance(inner, dict) and inner:
        several = type_text(inner).replace("mapping", "mappings").replace("name or", "names or")
        return f"{name} of {several}"
    return name


def _bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {schema[key]}" for key, sign in signs.items() if key in schema)
