"""What a judge is asked. Short, concrete and in one message, so that a small model can follow it too.

What is judged stands between tags, and the instructions after it: an answer that gives orders to the judge is
then the least likely to be obeyed. Nothing can rule it out (docs/judges.md).
"""

from __future__ import annotations

from pathlib import Path

from evalrun.errors import UserError
from evalrun.scoring.judge.options import JudgeOptions
from evalrun.suite.prompt import PromptSpec

GIVEN = ("question", "answer", "reference", "grades", "example", "first", "second")
"""The names that a judge's prompt may use besides the columns."""

_RIGHT = (
    "Is the answer right?{% if reference %} Compare it with the reference: the meaning counts, not the "
    "wording.{% endif %}"
)
_BETTER = (
    "Which answer is more correct and more helpful?{% if reference %} The reference is right.{% endif %}"
)
_QUESTION = """<question>
{{ question }}
</question>
{% if reference %}<reference>
{{ reference }}
</reference>
{% endif %}"""
_GRADE = """You grade an answer to a question.

[question]<answer>
{{ answer }}
</answer>

[rubric]
The grade is {{ grades }}. Write JSON and nothing else:
{{ example }}"""
_PAIR = """You compare two answers to a question.

[question]<answer_A>
{{ first }}
</answer_A>
<answer_B>
{{ second }}
</answer_B>

[rubric]
Neither the order nor the length of the answers counts. Grade "A" if A is better, "B" if B is better, "tie" if
they are equally good. Write JSON and nothing else:
{{ example }}"""

ASK_AGAIN = "There is no such grade. The grade is {grades}. Write only: {example}"
"""The second question to a judge whose grade could not be read."""


def judge_prompt(options: JudgeOptions, name: str, base_dir: Path) -> PromptSpec:
    """The prompt of a judge. Raises UserError where a file cannot be read."""
    if options.prompt_file is not None:
        return PromptSpec(id=name, file=options.prompt_file)
    if options.prompt is not None:
        return PromptSpec(id=name, text=options.prompt)
    rubric = options.rubric
    if options.rubric_file is not None:
        rubric = _text(base_dir / options.rubric_file, name)
    if rubric is None:
        rubric = _RIGHT if options.pairwise is None else _BETTER
    text = _GRADE if options.pairwise is None else _PAIR
    return PromptSpec(id=name, text=text.replace("[question]", _QUESTION).replace("[rubric]", rubric.strip()))


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the rubric '{path}' cannot be read: {error}", where=f"scorer {name}") from None
