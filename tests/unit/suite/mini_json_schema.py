"""As much of JSON Schema as the suite schema uses, to check documents with it."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}

KNOWN = {
    *("$defs", "$ref", "$schema", "title", "description", "default", "format"),
    *("type", "const", "enum", "anyOf"),
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "patternProperties",
    *("items", "minItems", "minLength", "maxLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum"),
}


def fits(value: Any, schema: Any, root: Any) -> bool:
    """Whether a document satisfies a schema. Fails on any word of JSON Schema that is not known here."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if not fits(value, root["$defs"][name], root):
            return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, item, root) for item in schema["anyOf"]):
        return False
    kinds = schema.get("type", list(TYPES))
    if not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, dict):
        return _object(value, schema, root)
    if isinstance(value, list):
        enough = len(value) >= schema.get("minItems", 0)
        return enough and all(fits(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, str):
        long = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return long and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        above = value >= schema.get("minimum", value) and value <= schema.get("maximum", value)
        return above and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
    return True


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])


def _object(value: dict[str, Any], schema: Any, root: Any) -> bool:
    properties = schema.get("properties", {})
    if any(key not in value for key in schema.get("required", [])):
        return False
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return False
    other = schema.get("additionalProperties", True)
    patterns = schema.get("patternProperties", {})
    for key, item in value.items():
        named = [properties[key]] if key in properties else []
        named += [inner for pattern, inner in patterns.items() if re.search(pattern, key)]
        if named:
            if not all(fits(item, inner, root) for inner in named):
                return False
        elif other is False or (isinstance(other, dict) and not fits(item, other, root)):
            return False
    return True
