"""Checks that differ from row to row, as promptfoo's test cases have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from evalrun.scoring.base import (
    NOT_APPLICABLE,
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    fraction,
    shown,
)
from evalrun.scoring.functions import scorer
from evalrun.types import JSON, Score

SET = "assert-set"
_REFUSALS = (
    "i cannot", "i can't", "i can\u2019t", "i'm sorry", "i am sorry", "i apologize", "as an ai", "i'm unable",
    "i am unable",
    "i won't", "i will not", "not able to",
)  # fmt: skip


class AssertionsOptions(ScorerOptions):
    """Where the checks stand."""

    column: str = Field(
        default="assertions",
        description="Column with a list of checks: {type, value, weight, threshold, metric}; types as "
        "promptfoo's (equals, contains, icontains, contains-any, regex, is-json, …), `not-` before "
        "one for its opposite, assert-set for several that count as one.",
    )
    threshold_column: str = Field(
        default="threshold",
        description="Column with the score from which a row passes. Where empty, every check must hold.",
    )
    metrics: list[str] = Field(
        default_factory=list, description="Names that checks have as `metric`: each is a figure of its own."
    )


@scorer(
    "assertions",
    summary="Checks that each row brings along, weighted: the score is the sum of weight times score over "
    "the sum of weights, and a row passes where every check holds, or where the score reaches its threshold. "
    "What `evalrun import promptfoo` makes of test cases.",
    shorthand="column",
)
class Assertions(Scorer[AssertionsOptions]):
    """The checks of a row."""

    def __init__(self, options: AssertionsOptions) -> None:
        super().__init__(options)
        self.parts = ("passed", *(_part(name) for name in options.metrics))

    def metrics(self) -> tuple[MetricInfo, ...]:
        named = [
            fraction(
                f"{self.name}.{_part(name)}", f"Mean over rows of the score of their checks named '{name}'."
            )
            for name in self.options.metrics
        ]
        return (
            fraction(
                self.name,
                "Mean over rows of the weighted mean of their checks: the sum of weight times score over "
                "the sum of weights. Rows without checks are left out.",
            ),
            fraction(
                f"{self.name}.passed",
                "Share of rows that pass: every check holds, or the weighted mean reaches the threshold.",
            ),
            *named,
        )

    def score(self, sample: ScoringInput) -> Score:
        """The weighted mean, with `passed` and the named figures as parts."""
        listed = sample.row.get(self.options.column)
        if not listed:
            return Score(None, f"{NOT_APPLICABLE}: this row has no checks")
        checked = Checked.of(listed, sample, sample.row.get(self.options.threshold_column))
        parts: dict[str, float | None] = {"passed": float(checked.passed)}
        for name in self.options.metrics:
            values = checked.named.get(name)
            parts[_part(name)] = sum(values) / len(values) if values else None
        return Score(checked.score, checked.reason, parts)

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """A refusal is an answer that checks may ask for."""
        return self.score(sample)


class Checked:
    """What several checks came to."""

    def __init__(self, score: float, passed: bool, reason: str, named: Mapping[str, list[float]]) -> None:
        self.score, self.passed, self.reason, self.named = score, passed, reason, named

    @classmethod
    def of(cls, checks: Sequence[Mapping[str, JSON]], sample: ScoringInput, threshold: JSON) -> Checked:
        """Check them all. A weight of 0 counts for its metric alone."""
        total, weights, failed = 0.0, 0.0, []
        named: dict[str, list[float]] = {}
        for check in checks:
            weight = float(check.get("weight", 1) if check.get("weight") is not None else 1)
            if check["type"] == SET:
                inner = cls.of(check.get("assert") or (), sample, check.get("threshold"))
                value, holds, why = inner.score, inner.passed, inner.reason
                for name, values in inner.named.items():
                    named.setdefault(name, []).extend(values)
            else:
                value, holds, why = _check(check, sample)
            total += weight * value
            weights += weight
            if check.get("metric"):
                named.setdefault(str(check["metric"]), []).append(value)
            if not holds and weight:
                failed.append(why)
        score = total / weights if weights else 1.0
        passed = score >= float(threshold) if threshold not in (None, "") else not failed
        return cls(score, passed, "; ".join(failed) or "every check holds", named)


def _part(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "metric"


def _check(check: Mapping[str, JSON], sample: ScoringInput) -> tuple[float, bool, str]:
    """Score, whether it holds, and why not."""
    kind = str(check["type"])
    opposite = kind.startswith("not-")
    base = kind.removeprefix("not-")
    known = CHECKS.get(base)
    if known is None:
        raise ValueError(f"unknown check '{kind}'")
    try:
        value = float(known(sample.output, check, sample))
        holds = value >= 1 if base not in _BY_THRESHOLD else value >= _threshold(check, base)
    except (ValueError, TypeError, re.error) as error:
        return 0.0, False, f"{kind}: {error}"
    if opposite:
        value, holds = 1 - value, not holds
    elif base in _BY_THRESHOLD and base == "levenshtein":
        value = float(holds)
    return value, holds, f"{kind} {shown(check.get('value'), 60)} does not hold"


_BY_THRESHOLD: dict[str, float] = {"rouge-n": 0.75, "bleu": 0.5, "meteor": 0.5, "levenshtein": 0.0}


def _threshold(check: Mapping[str, JSON], base: str) -> float:
    if base == "levenshtein":  # the score is minus the distance: at most so many edits
        most = check.get("threshold")
        return -float(5 if most is None else most)
    given = check.get("threshold")
    return float(_BY_THRESHOLD[base] if given is None else given)


Check = Callable[[str, Mapping[str, JSON], ScoringInput], float | bool]


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(value: JSON) -> list[str]:
    """A list, or a text with commas."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return [part.strip() for part in _text(value).split(",")]


def _equals(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    value = check.get("value")
    if isinstance(value, dict | list):
        try:
            return bool(json.loads(output) == value)
        except ValueError:
            return False
    return output == _text(value)


def _json_of(output: str) -> Any:
    return json.loads(output)


def _is_json(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    try:
        document = _json_of(output)
    except ValueError:
        return False
    return _fits(document, check.get("value"))


def _fits(document: Any, schema: JSON) -> bool:
    if not schema:
        return True
    import jsonschema

    return bool(jsonschema.validators.validator_for(schema)(schema).is_valid(document))


def _contains_json(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    decoder = json.JSONDecoder()
    for at, character in enumerate(output):
        if character in "{[":
            try:
                document, _ = decoder.raw_decode(output, at)
            except ValueError:
                continue
            if _fits(document, check.get("value")):
                return True
    return False


def _is_xml(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    from evalrun.suite.components import ScorerSpec

    built = ScorerSpec.model_validate("xml_valid").build()
    return bool(built.score(sample).value == 1)


def _is_sql(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    from evalrun.suite.components import ScorerSpec

    return bool(ScorerSpec.model_validate("sql_parse").build().score(sample).value == 1)


def _levenshtein(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> float:
    from rapidfuzz.distance import Levenshtein

    return -float(Levenshtein.distance(output, _text(check.get("value"))))


def _rouge(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> float:
    """ROUGE-1 recall of words; promptfoo has an implementation of its own, which is near to it."""
    from collections import Counter

    wanted, given = Counter(_text(check.get("value")).lower().split()), Counter(output.lower().split())
    return sum((wanted & given).values()) / sum(wanted.values()) if wanted else 0.0


def _bleu(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> float:
    from sacrebleu.metrics.bleu import BLEU

    value = check.get("value")
    references = [_text(each) for each in value] if isinstance(value, list) else [_text(value)]
    return float(BLEU(effective_order=True).sentence_score(output, references).score) / 100


def _word_count(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    count = len(output.split())
    value: Any = check.get("value")
    if isinstance(value, Mapping):
        return bool(value.get("min", 0) <= count <= value.get("max", count))
    return count == int(value)


def _is_refusal(output: str, check: Mapping[str, JSON], sample: ScoringInput) -> bool:
    from evalrun.types import Status

    text = output.lower()
    return sample.status is Status.REFUSED or not text.strip() or any(phrase in text for phrase in _REFUSALS)


CHECKS: Mapping[str, Check] = {
    "equals": _equals,
    "contains": lambda output, check, _: _text(check["value"]) in output,
    "icontains": lambda output, check, _: _text(check["value"]).lower() in output.lower(),
    "contains-any": lambda output, check, _: any(each in output for each in _texts(check["value"])),
    "contains-all": lambda output, check, _: all(each in output for each in _texts(check["value"])),
    "icontains-any": lambda o, check, _: any(each.lower() in o.lower() for each in _texts(check["value"])),
    "icontains-all": lambda o, check, _: all(each.lower() in o.lower() for each in _texts(check["value"])),
    "starts-with": lambda output, check, _: output.startswith(_text(check["value"])),
    "regex": lambda output, check, _: _matches(_text(check["value"]), output),
    "is-json": _is_json,
    "contains-json": _contains_json,
    "is-xml": _is_xml,
    "is-sql": _is_sql,
    "levenshtein": _levenshtein,
    "rouge-n": _rouge,
    "bleu": _bleu,
    "word-count": _word_count,
    "is-refusal": _is_refusal,
}
"""What is checked here; every other type of promptfoo's is listed as not taken over."""


def _matches(pattern: str, text: str) -> bool:
    from evalrun.scoring.guard import GuardedPattern

    return GuardedPattern(pattern).first(text) is not None
