"""The reference of all scorers as Markdown, made from the code: `evalrun docs scorers`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from evalrun import registry
from evalrun.scoring.base import Example, MetricInfo, ScorerOptions
from evalrun.suite.reference import options_schema, options_table

_INTRODUCTION = """\
# Scorers

A scorer gives each sample a score with a reason; metrics are means of scores, or figures of all samples
together. This page is made from the code by `evalrun docs scorers`, and its examples are executed by the
tests.

Wherever a scorer compares with a target, a list of targets means that any of them is right (the best, or the
nearest, counts) unless it says otherwise. Unparsed and refused answers are scored 0, or like an empty answer
where less is better; failed samples have no score. A sample of which a scorer cannot say anything (no target,
no number in it) has no score, leaves n, and is counted in the metric's note.

Every scorer takes two options more than its table lists:

| option | meaning |
|---|---|
| `name` | its name in results; give one where a suite uses the same scorer twice |
| `parse` | parsers of its own, from the raw output to the answer that it sees; default: the suite's |

## Scores made from scores

`derive` in a suite computes further scores of each sample from the others. They have intervals, gates and
paired tests like any score.

```yaml
scorers: [exact_match, rouge, {exact_match: {name: label, parse: [{regex: "Label: (.*)"}]}}]
derive:
  overall: "0.7*exact_match + 0.3*rouge.rouge_l"
  good: "overall >= 0.8 and label"
```

A formula holds numbers, names of scores (`exact_match`, or a part: `rouge.rouge_l`), names derived before it,
`+ - * /`, comparisons (1 where they hold, else 0), `and`, `or`, `not`, brackets, `min`, `max` and `abs`.
Comparisons, here and in gates, are blind to rounding: `0.6*a + 0.3*b + 0.1*c >= 1` holds where all three
are 1. Whole numbers are compared exactly.
Where a score is missing, or it divides by 0, the derived score is missing too. Figures of all samples
together (`bleu.corpus`, `classification.f1_macro`) cannot stand in it.

## Scoring again

`evalrun rescore SWEEP --scorers FILE.yaml` scores the answers of a finished sweep again. The models that
answered are not asked; judges are. FILE is a list of scorers, or a mapping with any of `scorers`, `parse`,
`derive`, `judges`, `gates`, `unparsed` and `fairness`. The result is a sweep of its own, with the first as
its parent; that one stays as it was. Gates are those of the file; derived scores too, where the file names
scorers.

## Your own

`{python: "package.module:function"}` names a function that takes any of `answer`, `target`, `output` and
`row`, and returns a number, a truth value, None, or a pair of number and reason. The decorator
`evalrun.scorer` gives it a name, options and a definition; a package registers it under the entry point group
`evalrun.scorers`. A class (see `evalrun.scoring.base.Scorer`) may have figures of all samples as well.

## The scorers
"""


def scorer_reference() -> str:
    """One section a scorer: what it does, its options, its metrics with formulas and sources, an example."""
    return "\n".join(
        [_INTRODUCTION, *(line for name in sorted(registry.built_in("scorer")) for line in _section(name))]
    )


def _section(name: str) -> Iterator[str]:
    scorer = registry.load("scorer", name)
    yield f"### {name}\n"
    yield f"{scorer.summary}\n"
    schema = options_schema(scorer.Options, name)
    own = {key: item for key, item in schema["properties"].items() if key not in ScorerOptions.model_fields}
    if own:
        yield options_table(own, schema.get("required", []))
    if scorer.shorthand is not None:
        yield f"Short form: `{{{name}: …}}` sets `{scorer.shorthand}`.\n"
    for info in scorer.describe(name):
        yield _metric(info)
    yield ""
    if scorer.example is not None:
        yield _example(scorer.example)


def _metric(info: MetricInfo) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", "none": "descriptive"}[info.direction]
    return f"- `{info.name}` ({info.unit}, {better}): {info.definition}"


def _example(example: Example) -> str:
    lines = [
        "```yaml",
        f"scorers: [{example.entry}]",
        f"# answer {json.dumps(example.answer, ensure_ascii=False)}",
        f"# target {json.dumps(example.target, ensure_ascii=False)}",
        f"# score  {example.value:g}",
        "```\n",
    ]
    return "\n".join(lines)
