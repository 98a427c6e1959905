"""The JSON Schema for editors agrees with the loader, and says something of every key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from mini_json_schema import fits
from suite_parts import PARTS

from evalrun import registry
from evalrun.suite.load import parse_suite
from evalrun.suite.reference import DIALECT, suite_json_schema
from evalrun.suite.tree import parse_yaml


@pytest.fixture(scope="module")
def schema(module_parts) -> dict[str, Any]:
    return suite_json_schema()


@pytest.fixture(scope="module")
def module_parts() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "BUILT_IN", PARTS)
    yield
    patch.undo()


def data(text: str) -> dict[str, Any]:
    node, problems = parse_yaml(text, "f")
    assert node is not None
    assert not problems
    return node.plain()


VALID = [
    "",
    "parse: [trim, {pattern: x}, {pattern: {pattern: x, group: 0}}, {labels: [a, b]}, {trim: }]\n",
    "parse: [{python: 'suite_parts:shout', args: {marks: 2}}]\n",
    "errors: {tolerate: 2%}\nexclude: [{model: a, params: {temperature: 1}}, {prompt: [p]}]\n",
    "sweep: {temperature: [0, 1]}\ngates: [x]\nfairness: null\ntags: {a: b}\nunparsed: exclude\n",
    "performance: {stream: true, warmup: 4, concurrency: 16, timeout_s: 0.5}\n",
]

WRONG = [
    "sed: 1\n",
    "seed: -1\n",
    "repeats: 1.5\n",
    "parse: [patern]\n",
    "parse: [pattern]\n",
    "parse: [{pattern: {group: 1}}]\n",
    "parse: [{pattern: x, labels: [a]}]\n",
    "parse: [{python: no-colon}]\n",
    "parse: [{trim: {x: 1}}]\n",
    "errors: {tolerate: 2}\n",
    "sweep: {temperature: []}\n",
    "unparsed: excluded\n",
    "performance: {streem: true}\n",
    "tags: {a: 1}\n",
    "exclude: [{model: 1}]\n",
]


@pytest.mark.parametrize("addition", VALID)
def test_it_accepts_what_loads(schema, minimal, addition: str) -> None:
    document = data(minimal + addition)
    parse_suite(document)
    assert fits(document, schema, schema)


@pytest.mark.parametrize("addition", WRONG)
def test_it_refuses_what_does_not_load(schema, minimal, problems, addition: str) -> None:
    problems(minimal + addition)
    assert not fits(data(minimal + addition), schema, schema)


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        ("params: {temperature: 0}", "mode: slow, stop: [x], level: 2", True),
        ("params: {temperature: 0}", "price: {input_per_million_usd: 1, output_per_million_usd: 2}", True),
        ("params: {temperature: 0}", "mode: fasst", False),
        ("params: {temperature: 0}", "temperature: 0", False),
        ("provider: echo", "provider: ecko", False),
        ('base_url: "http://127.0.0.1:2/v1"', "level: 1", False),
        ("provider: echo", "provider: missing_package, anything: 1", True),
    ],
)
def test_a_model_entry_takes_the_keys_of_its_provider(
    schema, minimal, old: str, new: str, good: bool
) -> None:
    assert fits(data(minimal.replace(old, new)), schema, schema) is good


def test_the_resolved_suite_fits(schema, load, minimal) -> None:
    assert fits(load(minimal).suite.resolved(), schema, schema)


def test_every_property_is_described(schema) -> None:
    missing = [path for path, item in properties(schema) if "description" not in item]
    assert missing == []
    assert schema["$schema"] == DIALECT


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in schema.get("properties", {}).items():
        yield f"{path}/{key}", item
        yield from properties(item, f"{path}/{key}")
    for name, item in schema.get("$defs", {}).items():
        yield from properties(item, name)
    for item in [schema.get("items"), *schema.get("anyOf", [])]:
        if item:
            yield from properties(item, path)


def test_every_reference_leads_somewhere(schema) -> None:
    text = orjson.dumps(schema).decode()
    names = {part.partition('"')[0] for part in text.split('"$ref":"#/$defs/')[1:]}
    assert names <= set(schema["$defs"])
    assert "BaseModel" not in schema["$defs"]
