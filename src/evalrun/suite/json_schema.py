"""The JSON Schema of a suite as people write it, so that editors complete and check it.

Made from the pydantic models, with two things put in that they cannot say: a model entry takes the keys of
its provider, and a parser or scorer may be written in short forms.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import BaseModel

from evalrun import registry
from evalrun.errors import UserError
from evalrun.suite.components import PYTHON
from evalrun.suite.schema import ModelSpec, Suite

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
    for name in ("BaseModel", "ModelSpec", "ParserSpec", "ScorerSpec"):
        definitions.pop(name)
    properties["models"]["items"] = {
        "anyOf": [{"$ref": _define(definitions, name, _model_entry(name))} for name in _provider_names()]
    }
    properties["judges"]["items"] = properties["models"]["items"]
    properties["parse"]["items"] = _component_forms("parser", definitions)
    properties["scorers"]["items"] = _component_forms("scorer", definitions)
    return {"$schema": DIALECT, "title": "evalrun suite", **schema, "$defs": definitions}


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
