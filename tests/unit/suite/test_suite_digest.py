"""The resolved suite, and what of it identifies the work to be done."""

from __future__ import annotations

import orjson
import pytest

from evalrun.canonical import digest
from evalrun.suite.load import parse_suite


def work(load, text: str, **options: object) -> str:
    return digest(load(text, **options).suite.work_digest_payload())


def test_resolved_is_json_with_every_default_and_loads_again(load, minimal) -> None:
    text = (
        minimal
        + "sweep: {temperature: [0, 1]}\n"
        + "parse: [{pattern: x}, {python: 'suite_parts:shout', args: {marks: 2}}]\n"
    )
    suite = load(text).suite
    resolved = suite.resolved()
    assert orjson.loads(orjson.dumps(resolved)) == resolved
    assert resolved["performance"]["retries"] == 4
    assert resolved["models"][0]["level"] == 1
    assert resolved["parse"][0] == {"pattern": {"pattern": "x", "group": 1}}
    assert list(resolved)[:4] == ["name", "project", "description", "seed"]
    assert parse_suite(resolved).resolved() == resolved


@pytest.mark.parametrize(
    "addition",
    [
        "description: other\n",
        "tags: {team: nlp}\n",
        "gates: ['same > 0']\n",
        "unparsed: exclude\n",
        "errors: {tolerate: 1%}\n",
        "# a comment\n",
        "repeats: 1\n",
    ],
)
def test_what_only_shows_or_judges_changes_no_work(load, minimal, addition: str) -> None:
    assert work(load, minimal + addition) == work(load, minimal)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: small", "name: small\nseed: 1"),
        ("name: small", "name: small\nrepeats: 2"),
        ("name: small", "name: small\nsweep: {temperature: [1]}"),
        ("name: small", "name: small\nperformance: {stream: true}"),
        ("name: small", "name: small\nperformance: {warmup: 1}"),
        ("name: small", "name: small\nperformance: {concurrency: 1}"),
        ("name: small", "name: small\ndeterministic: true"),
        ("name: small", "name: small\nparse: [trim]"),
        ("name: small", "name: small\nexclude: [{model: b}]"),
        ("temperature: 0", "temperature: 0.0001"),
        ("http://127.0.0.1:2/v1", "http://127.0.0.1:3/v1"),
        ("Q: ", "Question: "),
        ("1+1", "1+2"),
        ("target: a", "target: q"),
        ("[same]", "[{same: {lower: true}}]"),
    ],
)
def test_what_shapes_samples_or_scores_is_other_work(load, minimal, old: str, new: str) -> None:
    assert work(load, minimal.replace(old, new)) != work(load, minimal)


def test_two_values_of_a_variable_are_two_works(load, minimal) -> None:
    text = minimal.replace("127.0.0.1:2", "${SECRET_HOST}")
    assert work(load, text, env={"SECRET_HOST": "one-host"}) != work(
        load, text, env={"SECRET_HOST": "two-host"}
    )
