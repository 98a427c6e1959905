"""docs/scorers.md is what the code says, and its examples are true."""

import json
from pathlib import Path

import pytest
import yaml

from evalrun import registry
from evalrun.scoring.examples import EXAMPLES
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.reference import scorer_reference
from evalrun.suite.components import ParserSpec, ScorerSpec

NEED_A_ROW = {
    "bbq",
    "code",
    "crows_pairs",
    "embedding",
    "hub",
    "judge",
    "meteor",
    "option_likelihood",
    "perplexity",
    "stereoset",
    "winobias",
}
"""Scorers that read columns of the dataset or likelihoods, or need what not every machine has: an answer and
a target make no example for them."""

PAGE = Path(__file__).parents[3] / "docs" / "scorers.md"


def test_every_scorer_has_an_example() -> None:
    assert list(EXAMPLES) == [name for name in sorted(registry.SCORERS) if name not in NEED_A_ROW]


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


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == scorer_reference(), (
        "run `evalrun docs scorers --out docs/scorers.md`"
    )
