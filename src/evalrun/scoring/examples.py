"""One example of every scorer that needs no row of a dataset, shown in docs/scorers.md and executed by the
tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalrun.types import JSON


@dataclass(frozen=True, slots=True)
class Example:
    """What a suite says (`entry`, YAML), an answer, a target, and the score that comes of it (4 digits)."""

    entry: str
    answer: JSON
    target: JSON
    value: float


_CALL: JSON = [{"name": "search", "arguments": {"query": "weather", "days": 3}}]
_TEXT = "the cat sat on the mat"

EXAMPLES: Mapping[str, Example] = {
    "bleu": Example("bleu", "the cat sat on a mat", _TEXT, 53.7285),
    "calibration": Example("calibration", {"answer": "yes", "confidence": 0.9}, "no", 0.81),
    "cer": Example("cer", "the cat", "the cut", 0.1429),
    "chrf": Example("{chrf: {word_order: 2}}", "the cat sat on a mat", _TEXT, 67.4444),
    "classification": Example("{classification: [billing, bug, other]}", "bug", "bug", 1),
    "contains_all": Example("{contains_all: [cat, mat]}", _TEXT, None, 1),
    "contains_any": Example("{contains_any: [dog, mat]}", _TEXT, None, 1),
    "correlation": Example("correlation", "I would give it 7 of 10", 8, 2),
    "edit_distance": Example("{edit_distance: {ignore_case: true}}", "Kitten", "sitting", 0.4286),
    "ends_with": Example("{ends_with: ['.', '!']}", "Done!", None, 1),
    "exact_match": Example("{exact_match: {ignore_case: true}}", "Paris", "paris", 1),
    "includes": Example("{includes: {whole_word: true}}", "It is Paris.", "paris", 1),
    "json_fields": Example(
        "{json_fields: {fields: [name, address.city]}}",
        {"name": "Ann", "address": {"city": "Bonn"}},
        {"name": "Ann", "address": {"city": "Ulm"}},
        0.5,
    ),
    "json_schema": Example(
        "{json_schema: {schema: {type: object, required: [name]}}}", '{"name": "Ann"}', None, 1
    ),
    "json_valid": Example("{json_valid: object}", '{"name": "Ann",}', None, 0),
    "length": Example("{length: {min: 3, max: 10}}", _TEXT, None, 1),
    "math": Example("math", r"\boxed{\frac{1}{2}}", "50 %", 1),
    "not": Example("{not: {includes: {values: [sorry]}}}", "With pleasure.", None, 1),
    "numeric": Example("{numeric: {units: {km: 1000, m: 1}}}", "about 3 km", "3000 m", 1),
    "refusal": Example("refusal", "I'm sorry, but I can't help with that.", None, 1),
    "regex": Example(r"{regex: '\d{4}-\d{2}-\d{2}'}", "on 2024-05-01", None, 1),
    "rouge": Example("rouge", "the cat was on the mat", _TEXT, 0.8333),
    "sql_parse": Example("{sql_parse: {dialect: postgres}}", "SELECT a::int FROM t", None, 1),
    "squad": Example("squad", "The cat!", ["a cat sat", "dog"], 0.6667),
    "starts_with": Example("starts_with", "Yes, it does.", "yes", 1),
    "ter": Example("ter", "the cat sat on a mat", _TEXT, 16.6667),
    "threshold": Example("{threshold: {rouge: {}, at_least: 0.5}}", "the cat was on the mat", _TEXT, 1),
    "token_f1": Example("token_f1", "the big cat", "a cat", 0.6667),
    "tool_calls": Example("tool_calls", _CALL, _CALL, 1),
    "wer": Example("wer", "the cat was on the mat", _TEXT, 0.1667),
    "xml_valid": Example("{xml_valid: note}", "<note><to>Ann</to></note>", None, 1),
}
"""Scorer to example, in the order of names."""
