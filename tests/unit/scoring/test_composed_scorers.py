"""Negation, thresholds, own parser chains and derived scores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import analyse
from evalrun.errors import UserError
from evalrun.scoring.base import Scorer
from evalrun.scoring.derived import Derived
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.components import ScorerSpec
from evalrun.suite.formula import FormulaError, bounds_of, parse_formula
from evalrun.suite.load import parse_suite
from evalrun.types import SampleRecord, Status


def built(entry: object) -> Scorer:
    made: Scorer = ScorerSpec.model_validate(entry).build()
    return made


def parser(name: str, **options: object) -> object:
    kind = registry.load("parser", name)
    return kind(kind.Options(**options))


def suite(**more: object) -> object:
    base = {
        "name": "s",
        "models": [{"id": "m", "provider": "recorded", "column": "out"}],
        "prompts": [{"id": "p", "text": "x"}],
        "datasets": [{"id": "d", "rows": [{"q": "1"}]}],
        "scorers": ["exact_match"],
    }
    return parse_suite({**base, **more})


def test_not_turns_a_check_round_and_is_named_after_it() -> None:
    spec = ScorerSpec.model_validate({"not": {"includes": {"values": ["sorry"]}}})
    assert spec.id == "not_includes"
    pipeline = Pipeline([], [spec.build()])
    assert pipeline.evaluate("Of course", None, {}).scores == {"not_includes": 1.0}
    assert pipeline.evaluate("I am sorry", None, {}).scores == {"not_includes": 0.0}
    assert pipeline.evaluate("", None, {}, True).scores == {"not_includes": 0.0}
    assert ScorerSpec.model_validate({"not": "refusal"}).id == "not_refusal"
    refusal = Pipeline([], [built({"not": "refusal"})])
    assert refusal.evaluate("I cannot help", None, {}).scores == {"not_refusal": 0.0}
    assert refusal.evaluate("", None, {}, True).scores == {"not_refusal": 0.0}
    named = ScorerSpec.model_validate({"not": {"scorer": {"regex": "[0-9]"}, "name": "no_digits"}})
    assert (named.id, named.build().name) == ("no_digits", "no_digits")
    assert "includes" in pipeline.scorers[0].metrics()[0].definition


def test_what_wraps_a_scorer_survives_being_stored() -> None:
    for entry in (
        {"not": {"includes": "sorry"}},
        {"threshold": {"rouge": {}, "at_least": 0.3, "part": "rouge_2"}},
        {"exact_match": {"parse": ["first_line", {"regex": "A: (.*)"}]}},
    ):
        spec = ScorerSpec.model_validate(entry)
        again = ScorerSpec.model_validate(spec.resolved())
        assert again.resolved() == spec.resolved()
        assert again.id == spec.id
        assert again.build().name == spec.build().name


def test_a_mistake_inside_a_negated_scorer_is_found() -> None:
    with pytest.raises(ValidationError, match="unknown scorer 'incldes'"):
        ScorerSpec.model_validate({"not": {"incldes": "x"}})
    with pytest.raises(ValidationError, match="ignore_cas"):
        ScorerSpec.model_validate({"not": {"includes": {"ignore_cas": True}}})
    with pytest.raises(ValidationError):
        ScorerSpec.model_validate({"not": {}})


def test_threshold() -> None:
    made = built({"threshold": {"token_f1": {}, "at_least": 0.6}})
    assert made.name == "pass_token_f1"
    pipeline = Pipeline([], [made])
    assert pipeline.evaluate("cat dog", "cat", {}).scores == {"pass_token_f1": 1.0}
    assert pipeline.evaluate("cat dog cow", "cat", {}).scores == {"pass_token_f1": 0.0}
    low = Pipeline([], [built({"threshold": {"wer": {}, "at_most": 0.5, "name": "few_errors"}})])
    assert low.evaluate("a b", "a b", {}).scores == {"few_errors": 1.0}
    assert low.evaluate("a b", "c d", {}).scores == {"few_errors": 0.0}
    assert low.evaluate("a b", "c d", {}, True).scores == {"few_errors": 0.0}
    with pytest.raises(ValidationError, match="at_least, at_most or both"):
        ScorerSpec.model_validate({"threshold": {"wer": {}}})
    with pytest.raises(UserError, match="no part 'rouge_9'"):
        built({"threshold": {"rouge": {}, "part": "rouge_9", "at_least": 0.1}})


def test_a_scorer_with_parsers_of_its_own_sees_its_own_answer() -> None:
    own = built({"exact_match": {"name": "label", "parse": [{"regex": r"Label: (\w+)"}]}})
    pipeline = Pipeline([parser("first_line")], [built("exact_match"), own])
    scored = pipeline.evaluate("bug\nLabel: billing", "bug", {})
    assert (scored.answer, scored.status) == ("bug", Status.SCORED)
    assert scored.scores == {"exact_match": 1.0, "label": 0.0}
    assert "'billing'" in scored.reasons["label"]
    unread = pipeline.evaluate("bug", "bug", {})
    assert unread.scores == {"exact_match": 1.0, "label": 0.0}
    assert unread.reasons["label"].startswith("unparsed: ")
    assert unread.status is Status.SCORED
    main = Pipeline([parser("regex", pattern="X: (.*)")], [built("exact_match"), own])
    reads = main.evaluate("Label: bug", "bug", {})
    assert reads.status is Status.UNPARSED
    assert reads.scores == {"exact_match": 0.0, "label": 1.0}
    assert main.evaluate("Label: bug", "bug", {}, True).scores == {"exact_match": 0.0, "label": 0.0}


def test_own_parsers_are_checked_and_refused_where_they_would_mislead() -> None:
    with pytest.raises(ValidationError, match="unknown parser 'regx'"):
        ScorerSpec.model_validate({"exact_match": {"parse": ["regx"]}})
    with pytest.raises(ValidationError, match="the suite's own parse"):
        ScorerSpec.model_validate({"classification": {"labels": ["a", "b"], "parse": ["first_line"]}})


def test_a_derived_score_is_computed_for_each_sample() -> None:
    overall = Derived("overall", "0.7*exact_match + 0.3*rouge.rouge_l")
    better = Derived("both", "min(overall, exact_match) >= 0.5 and exact_match == 1")
    pipeline = Pipeline([], [built("exact_match"), built("rouge"), overall, better])
    scores = pipeline.evaluate("the cat", "the dog", {}).scores
    assert scores["overall"] == pytest.approx(0.3 * 0.5)
    assert scores["both"] == 0
    right = pipeline.evaluate("the cat", "the cat", {})
    assert (right.scores["overall"], right.scores["both"]) == (pytest.approx(1.0), 1)
    assert "exact_match = 1" in right.reasons["overall"]
    assert pipeline.evaluate("", "the cat", {}, True).scores["overall"] == 0
    assert pipeline.evaluate("x", None, {}).scores["overall"] is None


def test_a_derived_score_has_a_mean_an_interval_and_its_formula_as_definition() -> None:
    scorers = [built("exact_match"), built("token_f1"), Derived("overall", "(exact_match + token_f1) / 2")]
    pipeline = Pipeline([], scorers)
    records = []
    for number in range(40):
        scored = pipeline.evaluate("a b" if number % 3 else "a c", "a b", {})
        records.append(SampleRecord(f"s{number}", 0, number, {}, "a b", scored.status, scores=scored.scores))
    analysis = analyse(sample_table(records), scorers, SystemSummary())
    metric = next(each for each in analysis.metrics if each.name == "overall")
    values = [record.scores["overall"] for record in records]
    assert metric.value == pytest.approx(sum(values) / 40)  # type: ignore[arg-type]
    assert metric.ci_low is not None
    assert "(exact_match + token_f1) / 2" in analysis.details.definitions["overall"].definition


def test_names_of_metrics_stand_for_their_scores() -> None:
    accuracy = Derived("x", "classification.accuracy * 2")
    made = Pipeline([], [built({"classification": ["a", "b"]}), accuracy])
    assert made.evaluate("a", "a", {}).scores["x"] == 2
    assert made.evaluate("a", "c", {}).scores["x"] is None


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("0.5*exact_mach", r"there is no score 'exact_mach'\s+Did you mean 'exact_match'"),
        ("classification.f1_macro", "a figure of all samples together"),
        ("later + 1", "there is no score 'later'"),
    ],
)
def test_unknown_names_are_errors_before_anything_is_sent(formula: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Pipeline([], [built("exact_match"), built({"classification": ["a", "b"]}), Derived("mine", formula)])


@pytest.mark.parametrize(
    "formula",
    ["__import__('os')", "exact_match.__class__.__mro__()", "exact_match ** 9", "[exact_match]", "lambda: 1",
     "exact_match if 1 else 2", "f'{exact_match}'", "exact_match[0]", "max(exact_match)", "max(*exact_match)",
     "sum(exact_match, 1)", "abs(exact_match, 2)", "'a' + exact_match", "1 + 1", "", "exact_match +", "a; b",
     "x := exact_match", "min(a, key=b)", "1j*exact_match", "-" * 600 + "a", "(a).b()", "True*a",
     "a and 'b'"],
)  # fmt: skip
def test_a_formula_holds_nothing_but_arithmetic(formula: str) -> None:
    with pytest.raises(FormulaError):
        parse_formula(formula)
    with pytest.raises(UserError):
        suite(derive={"mine": formula})


def test_derive_in_a_suite() -> None:
    made = suite(derive={"overall": "2*exact_match"})
    assert made.resolved()["derive"] == {"overall": "2*exact_match"}  # type: ignore[attr-defined]
    assert "derive" in made.work_digest_payload()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="a scorer is called 'exact_match' too"):
        suite(derive={"exact_match": "exact_match"})
    with pytest.raises(UserError, match="'Over all' cannot be the name of a score"):
        suite(derive={"Over all": "exact_match"})
    with pytest.raises(UserError, match="there is no function 'mix'"):
        suite(derive={"overall": "mix(exact_match, 1)"})


@pytest.mark.parametrize(
    ("formula", "bounds"),
    [
        ("0.7*a + 0.3*b", (0, 1)),
        ("a - b", (-1, 1)),
        ("-2*a", (-2, 0)),
        ("a / 4 + (b > 0.5)", (0, 1.25)),
        ("a / b", (None, None)),
        ("free + a", (0, None)),
        ("min(a, free)", (0, 1)),
        ("max(a, free)", (0, None)),
        ("abs(a - b)", (0, 1)),
        ("a and b", (None, None)),
    ],
)
def test_the_bounds_of_a_formula_follow_from_those_of_its_scores(formula: str, bounds: object) -> None:
    known = {"a": (0.0, 1.0), "b": (0.0, 1.0), "free": (0.0, None)}
    assert bounds_of(parse_formula(formula), known) == bounds


THOUSANDTHS = st.integers(-10_000, 10_000).map(lambda number: number / 1000)


@settings(max_examples=200, deadline=None)
@given(THOUSANDTHS, THOUSANDTHS)
def test_formulas_compute_what_python_would(a: float, b: float) -> None:
    formula = "max(a, b) - abs(a*b) / 3 + (a < b) - (not a) * 2"
    derived = Derived("d", formula)
    derived.bind({"a": "a", "b": "b"}, {})
    value, _ = derived.derive({"a": a, "b": b})
    assert value == pytest.approx(eval(formula, {"a": a, "b": b}))


def test_a_division_by_zero_has_no_value() -> None:
    derived = Derived("d", "1 / a")
    derived.bind({"a": "a"}, {})
    assert derived.derive({"a": 0.0})[0] is None
    assert derived.derive({"a": None})[1] == "there is no score a"


def test_a_formula_is_blind_to_the_rounding_of_its_sums() -> None:
    scores = {"a": 1.0, "b": 1.0, "c": 1.0}
    weights = "0.6*a + 0.3*b + 0.1*c"
    for formula, value in (
        (weights, 1.0),
        (f"{weights} >= 1", 1.0),
        (f"{weights} < 1", 0.0),
        (f"1 <= {weights} <= 1", 1.0),
        (f"({weights}) == 1", 1.0),
        ("a / 3", 1 / 3),
    ):
        derived = Derived("overall", formula)
        derived.bind({name: name for name in derived.wanted}, dict.fromkeys(scores, (0.0, 1.0)))
        assert derived.derive(scores)[0] == value
