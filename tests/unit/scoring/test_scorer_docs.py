"""The examples in docs/scorers.md are true."""

import json

import pytest
import yaml

from evalrun import registry
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.components import ParserSpec, ScorerSpec

NEED_A_ROW = {
    "bbq",
    "code",
    "crows_pairs",
    "embedding",
    "evaluate",
    "hub",
    "judge",
    "assertions",
    "meteor",
    "option_likelihood",
    "perplexity",
    "stereoset",
    "winobias",
}
"""Scorers that read columns of the dataset or likelihoods, or need what not every machine has: an answer and
a target make no example for them."""

EXAMPLES = {
    name: registry.load("scorer", name).example
    for name in registry.built_in("scorer")
    if registry.load("scorer", name).example is not None
}


def test_every_scorer_has_an_example() -> None:
    assert set(EXAMPLES) == set(registry.built_in("scorer")) - NEED_A_ROW


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_is_true(name: str) -> None:
    example = EXAMPLES[name]
    spec = ScorerSpec.model_validate(yaml.safe_load(example.entry))
    assert spec.name == name
    scorer = spec.build()
    if isinstance(example.answer, str):
        pipeline, output = Pipeline([], [scorer]), example.answer
    else:
        pipeline = Pipeline([ParserSpec.model_validate("json").build()], [scorer])
        output = json.dumps(example.answer)
    value = pipeline.evaluate(output, example.target, {}).scores[scorer.name]
    assert value == pytest.approx(example.value, abs=5e-5)
