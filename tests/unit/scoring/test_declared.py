"""Functions that a decorator makes scorers and parsers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evalrun import registry
from evalrun.scoring.base import Parser, Scorer, ScorerOptions, ScoringInput
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.components import ParserSpec, ScorerSpec
from evalrun.types import Status
from evalrun.usercode import source_file

MODULE = """
from typing import Annotated, Literal

from pydantic import Field

from evalrun import MetricInfo, Score, Unparsed, fraction, parser, scorer
from evalrun.scoring.base import ScorerOptions


@scorer(metric="Share of answers that hold enough of the words.", shorthand="words")
def polite(output, words: Annotated[list[str], Field(min_length=1)], at_least: int = 1):
    \"\"\"1 where the output holds enough of some words.

    More is said here.
    \"\"\"
    return sum(word in output for word in words) >= at_least


class NearOptions(ScorerOptions):
    margin: float = 0.0


@scorer(
    "near",
    summary="How near the numbers are.",
    metric=(
        MetricInfo("", "points", "lower", "Mean distance; the share within it is {name}.within."),
        fraction("within", "Share within the margin."),
    ),
    parts=("within",),
    unanswered_as_empty=True,
    needs_target=True,
)
def nearness(answer, target, options: NearOptions) -> Score:
    apart = abs(float(answer or 0) - target)
    return Score(apart, f"{apart:g} apart", {"within": float(apart <= options.margin)})


@scorer(correctness=False)
def refused(status, row, of: Literal["a", "b"] = "a"):
    return status == "refused", f"{of} {row['n']}"


@scorer(target_unless="wanted")
def has(answer, target, wanted: str | None = None):
    return (wanted or target) in answer


@parser("upto", summary="What stands before a mark.", shorthand="mark")
def before(value, mark: str = "."):
    if mark not in value:
        raise Unparsed(f"there is no {mark}")
    return value.partition(mark)[0]
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("declared")
    path = folder / "declared_here.py"
    path.write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield path
    sys.path.remove(str(folder))
    sys.modules.pop("declared_here", None)


def made(attribute: str, **args: Any) -> Scorer:
    spec = ScorerSpec.model_validate({"python": f"declared_here:{attribute}", "args": args})
    scorer: Scorer = spec.build()
    return scorer


def scored(scorer: Scorer, answer: str, target: Any = None, refused: bool = False) -> dict[str, float | None]:
    return dict(Pipeline([], [scorer]).evaluate(answer, target, {"n": 3}, refused).scores)


def test_arguments_are_options_with_types(module: Path) -> None:
    scorer = made("polite", words=["please", "thank"], at_least=2)
    assert scored(scorer, "please") == {"polite": 0}
    assert scored(scorer, "please, and thank you") == {"polite": 1}
    kind = type(scorer)
    assert kind.summary == "1 where the output holds enough of some words."
    assert [(info.name, info.unit, info.definition) for info in kind.describe("p")] == [
        ("p", "fraction", "Share of answers that hold enough of the words.")
    ]
    for wrong in ({}, {"words": []}, {"words": ["a"], "at_least": "many"}, {"words": ["a"], "atleast": 1}):
        with pytest.raises(ValidationError):
            made("polite", **wrong)


def test_a_model_of_options_and_several_metrics(module: Path) -> None:
    scorer = made("nearness", margin=2, name="close")
    assert scored(scorer, "7", 8) == {"close": 1, "close.within": 1}
    assert scored(scorer, "", 8, refused=True) == {"close": 8, "close.within": 0}
    assert scored(scorer, "7", None, refused=True) == {"close": None}
    names = [info.name for info in scorer.metrics()]
    assert names == ["close", "close.within"]
    assert scorer.metrics()[0].definition.endswith("within it is close.within.")


def test_traits_and_what_a_sample_gives(module: Path) -> None:
    scorer = made("refused", of="b")
    assert scorer.score(ScoringInput("x", "x", None, Status.SCORED, {"n": 3})).reason == "b 3"
    assert scored(scorer, "no", refused=True) == {"refused": None}
    assert scored(made("has"), "abc", None, refused=True) == {"has": None}
    assert scored(made("has", wanted="z"), "abc", None, refused=True) == {"has": 0}
    assert scored(made("has", wanted="b"), "abc") == {"has": 1}


def test_a_parser_with_an_option(module: Path) -> None:
    spec = ParserSpec.model_validate({"python": "declared_here:before", "args": {"mark": "!"}})
    pipeline = Pipeline([spec.build()], [made("has")])
    assert pipeline.evaluate("yes! no", "yes", {}).answer == "yes"
    assert pipeline.evaluate("yes", "yes", {}).error == "there is no !"


def test_own_parsers_come_as_with_any_scorer(module: Path) -> None:
    scorer = made("has", parse=[{"python": "declared_here:before"}])
    assert scored(scorer, "yes. no", "no") == {"has": 0}


def test_the_file_of_a_declared_function_is_known(module: Path) -> None:
    """What is recorded of a suite's own code goes by it."""
    assert source_file(made("has")) == module.resolve()


def test_the_function_itself_stays_what_it_was(module: Path) -> None:
    import declared_here  # type: ignore[import-not-found]

    assert declared_here.has("abc", "b") is True


def test_a_class_takes_its_options_from_its_base() -> None:
    class Mine(ScorerOptions):
        mark: str = "x"

    class Base(Scorer[Mine]):
        def score(self, sample: ScoringInput) -> Any: ...

    class Heir(Base):
        pass

    assert Base.Options is Heir.Options is Mine
    assert Parser.Options.model_fields == {}


def test_every_name_is_declared_once() -> None:
    for kind in ("parser", "scorer"):
        package = Path(registry.__file__).parent / "scoring" / f"{kind}s"
        text = "".join(path.read_text() for path in sorted(package.glob("*.py")))
        assert text.count(f"\n@{kind}(") == len(registry.built_in(kind)), kind
