"""Whether the code that a model wrote passes the tests of its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, as_text, fraction
from evalrun.templates import Compiled, TemplateFailure, compile_value, is_template
from evalrun.types import JSON, Score


class CodeOptions(ScorerOptions):
    """Options of the scorer `code`."""

    tests: str = Field(
        min_length=1,
        description="The tests: a column of the row (text, or a list of lines), or a template where it holds "
        "{{ }} or {% %}. They run after the answer, in the same module; an exception fails the sample.",
    )
    before: str | None = Field(
        default=None,
        description="What stands before the answer: a column, or a template. For models that go on writing "
        "where the prompt ended, such as {{ prompt }}.",
    )
    language: Literal["python"] = Field(default="python", description="The language of answer and tests.")
    timeout_s: float = Field(default=10, gt=0, le=600, description="Seconds that one program may take.")
    memory_mb: int = Field(default=512, ge=64, description="Megabytes that one program may use.")

    @field_validator("tests", "before")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and is_template(value):
            try:
                compile_value(value, "a template")
            except UserError as error:
                raise ValueError(error.problems[0].what) from None
        return value


class Code(Scorer):
    """1 where the program of answer and tests runs to its end without an exception, else 0."""

    Options: ClassVar[type[CodeOptions]] = CodeOptions
    shorthand = "tests"
    registered = "code"
    late = True
    runs_code = True
    summary = (
        "The answer's tests are run, in a locked-down child process. The suite must say "
        "`allow: [code_execution]`. With repeats, pass@k is among the metrics."
    )

    def __init__(self, options: CodeOptions) -> None:
        super().__init__(options)
        from evalrun.scoring.code.locked import Running

        self._running = Running()
        self._tests = _Source(options.tests)
        self._before = None if options.before is None else _Source(options.before)

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """Columns that are not there, and machines on which nothing can be locked down."""
        found = [
            Problem(f"the scorer {self.name} reads '{name}', which is no column of the data", where)
            for source in (self._tests, self._before)
            if source is not None
            for name in source.missing(columns)
        ]
        from evalrun.scoring.code.locked import cannot_run

        reason = cannot_run()
        if reason:
            found.append(Problem(f"the scorer {self.name} cannot run code here: {reason}", where))
        return found

    def abandon(self) -> None:
        """Kill the programs that are running; no other begins."""
        self._running.end()

    def score(self, sample: ScoringInput) -> Score:
        """Run the program. It takes as long as that runs, so it is called in threads, when a run is over."""
        from evalrun.scoring.code.locked import Limits, run_locked

        try:
            before = "" if self._before is None else self._before.text(sample.row) + "\n"
            tests = self._tests.text(sample.row)
        except TemplateFailure as failure:
            return Score(None, f"the tests cannot be made: {failure}")
        options: CodeOptions = self.options
        if self._before is not None:
            before = before[:-1]  # the answer goes on where the text ended
        program = f"{before}{as_text(sample.answer)}\n\n{tests}\n"
        limits = Limits(options.timeout_s, options.memory_mb * 1_000_000)
        ran = run_locked(program, limits, self._running)
        said = f"in force: {', '.join(ran.in_force) or 'nothing'}"
        if ran.missing:
            said += f"; not to be had: {', '.join(ran.missing)}"
        return Score(float(ran.passed), f"{ran.reason} ({ran.seconds:.2f} s; {said})")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers that pass."""
        return (
            fraction(
                name,
                "Share of answers whose tests pass: the program of answer and tests runs to its end without "
                "an exception, within its time and memory. With repeats the mean over a sample's answers "
                "first, which is pass@1.",
            ),
        )


class _Source:
    """A column, or a template over the row."""

    def __init__(self, source: str) -> None:
        self._template: Compiled | None = compile_value(source, "code") if is_template(source) else None
        self._column = source

    def missing(self, columns: Sequence[str]) -> list[str]:
        if self._template is not None:
            return list(self._template.variables.missing(frozenset(columns)))
        return [] if self._column in columns else [self._column]

    def text(self, row: JSON) -> str:
        """Raises TemplateFailure where the row lacks what is needed."""
        if self._template is not None:
            value = self._template.evaluate({"row": row, **row})
        elif self._column in row:
            value = row[self._column]
        else:
            raise TemplateFailure(f"there is no column '{self._column}'")
        return "\n".join(map(as_text, value)) if isinstance(value, list) else as_text(value)
