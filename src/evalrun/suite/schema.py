"""The suite language: what a suite may say, as frozen pydantic models.

These models are the one source: the JSON Schema for editors and the reference in `docs/` are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    PrivateAttr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from evalrun.spans import hours_of
from evalrun.suite.checkpoints import CheckpointRules
from evalrun.suite.components import (
    Id,
    ModelSpec,
    ParserSpec,
    ScorerSpec,
    SinkSpec,
)
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.explain import ExplainRules
from evalrun.suite.findings import complaint, describe
from evalrun.suite.levels import LoadSpec
from evalrun.suite.privacy import PrivacySpec, RetentionSpec
from evalrun.suite.probe import ProbeSpec
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.search import EarlyRules, SearchRules
from evalrun.suite.tasks import Files, TaskEntry
from evalrun.suite.values import BudgetSpec, Formula, Fraction, Patterns, Spec
from evalrun.types import JSON


def _label(value: Any) -> Any:
    """A label as text. A bare yes, no, on or off in YAML is a truth value: that is said, not guessed at."""
    if isinstance(value, bool):
        raise complaint(
            f"expected a label, found {describe(value)}",
            'YAML reads a bare yes, no, on, off, true or false as a truth value: quote it ("yes").',
        )
    return str(value) if isinstance(value, int | float) else value


Label = Annotated[
    str,
    BeforeValidator(_label),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]}),
]
"""A label of answers or groups; a number stands for its text."""


class FairnessSpec(Spec):
    """Which groups are compared, by which decisions, and against whom."""

    by: list[str] = Field(min_length=1, description="Sensitive columns: each score is given by their groups.")
    min_group: int = Field(
        default=30, ge=1, description="Groups with fewer samples are marked as too small to judge."
    )
    positive: Label | None = Field(
        default=None,
        description="The favourable answer: demographic parity, equal opportunity and equalized odds are "
        "made for it, with selection, true and false positive rates by group.",
    )
    one_vs_rest: bool = Field(
        default=False, description="Make them for every label that is a target, each against the rest."
    )
    reference: dict[str, Label] = Field(
        default_factory=dict,
        description="The group that the others of a column are compared with: column to group. "
        "Default: each group against all others together.",
    )
    intersections: list[Annotated[list[str], Field(min_length=2)]] = Field(
        default_factory=list,
        description="Sensitive columns whose combinations are compared as groups, such as "
        "[[dialect, gender]].",
    )
    control: list[str] = Field(
        default_factory=list,
        description="Sensitive columns that groups may rightly differ by: gaps are also given within each of "
        "their values.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.positive is not None and self.one_vs_rest:
            raise complaint("positive and one_vs_rest exclude each other", path=("one_vs_rest",))
        compared = [*self.by, *("-".join(intersection) for intersection in self.intersections)]
        for name in self.reference:
            if name not in compared:
                raise complaint(
                    f"'{name}' is not compared, so it needs no reference",
                    f"Compared are: {', '.join(compared)}.",
                    ("reference", name),
                )
        for index, names in enumerate(self.intersections):
            if len(set(names)) < len(names):
                raise complaint("a column stands twice", "Name each once.", ("intersections", index))
        return self


def _address(value: str) -> str:
    """An http:// or https:// address with a host. The address is a secret: no message repeats it."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or not value.isprintable() or " " in value:
        raise complaint("expected an http:// or https:// address with a host", "Such as ${SLACK_WEBHOOK}.")
    return value


class ReportSpec(Spec):
    """What else is told of the scores."""

    by: list[str] = Field(
        min_length=1,
        description="Columns by whose values every score is given too, with the mean in which every value "
        "counts alike (macro): subjects, sources. Nothing is tested between them: fairness does that.",
    )


def _hours(text: str) -> str:
    hours_of(text)
    return text


class AlertsSpec(Spec):
    """Alerts: conditions that are reported when they hold. They never change the exit code."""

    when: list[str] = Field(
        min_length=1,
        description="Conditions: a metric against a number (exact_match < 0.5), against the sweeps before "
        "(exact_match worse than last 5; better than last 5; better than ever) or against what was promoted "
        "(exact_match worse than promoted by 0.05), drift from it (drift(text) auc > 0.6; drift(label) "
        "significant; drift(answers)), what users said (feedback.down > 0.1), slo burn.",
    )
    webhook: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None,
        exclude=True,
        description="Address that alerts are posted to as JSON that Slack understands; write it as ${NAME}. "
        "It is stored nowhere.",
    )
    quiet_hours: Annotated[str, AfterValidator(_hours)] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Hours in which nothing is posted: 22:00-07:00, or 22:00-07:00 Europe/Berlin. What is "
        "still so afterwards is posted then.",
    )
    private_network: bool = Field(
        default=False,
        description="Let the webhook's host name stand for a private address. Addresses written out may be "
        "private anyhow.",
    )


class NightlySpec(Spec):
    """How often gates and alerts may be wrong in a year where nothing changed."""

    false_alarms_a_year: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="The chance of even one false alarm in a year, over all paired gates (and over all "
        "alerts on changes), runs and nights.",
    )
    nights: int = Field(default=365, ge=1, description="How often the suite runs in a year.")


class PerformanceSpec(Spec):
    """How requests are sent and timed."""

    stream: bool = Field(default=False, description="Stream the answers, which measures time to first token.")
    warmup: int = Field(
        default=0,
        ge=0,
        description="First samples of each run that no figure of speed counts; their scores count.",
    )
    concurrency: Annotated[int, Field(ge=1)] | Literal["adaptive"] | None = Field(
        default=None,
        description="Requests in flight at most. adaptive: as many as the endpoint bears, for throughput; "
        "runs that differ in it are not compared by speed. Default: one small number for all runs where "
        "there are several, or a gate or alert is about speed (8, or what the smallest engine takes); else "
        "adaptive.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Processes that send the requests, where one core is not enough for them; for models "
        "that are asked over a network. Results are the same with any number. 0: evalrun sends them itself.",
    )
    timeout_s: float = Field(
        default=120, gt=0, description="Seconds that a sample may take, retries and waits included."
    )
    retries: int = Field(default=4, ge=0, description="Further attempts after the first one failed, at most.")


LOST_TOLERATED = 0.05
"""The share of its rows that a figure may have lost where the suite does not say."""


class ErrorsSpec(Spec):
    """How many failed samples a run, and how many lost rows a figure bears."""

    tolerate: Fraction | None = Field(
        default=None,
        description="Stop a run once more than this share of its samples failed, and call a figure "
        "incomplete that lost more than this share of its rows: 0.02 or 2%. Without it a run stops after 20 "
        "failures of one kind in a row, and a figure bears 5%; 1, written out, goes on past those and bears "
        "everything.",
    )

    @property
    def bears_all(self) -> bool:
        """Whether the suite says that every sample may fail."""
        return self.tolerate is not None and self.tolerate >= 1

    @property
    def stop_above(self) -> float:
        """The share of failed samples above which a run is stopped."""
        return 1.0 if self.tolerate is None else self.tolerate

    @property
    def incomplete_above(self) -> float:
        """The share of lost rows above which a figure is incomplete."""
        return LOST_TOLERATED if self.tolerate is None else self.tolerate


def _gate_text(value: Any) -> Any:
    """`served_model: same` is a mapping to YAML, and a gate as it is written."""
    if isinstance(value, dict) and list(value) == ["served_model"]:
        return f"served_model: {value['served_model']}"
    return value


GateText = Annotated[
    str,
    BeforeValidator(_gate_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "served_model": {
                            "const": "same",
                            "description": "The server names model and build as in the baseline.",
                        }
                    },
                    "required": ["served_model"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A gate as it is written; the one that YAML takes for a mapping too."""


class CellFilter(Spec):
    """Picks cells of the matrix. All that is given must match; * and ? stand for any characters."""

    model: Patterns | None = Field(default=None, description="Model ids or patterns.")
    prompt: Patterns | None = Field(default=None, description="Prompt ids or patterns.")
    dataset: Patterns | None = Field(default=None, description="Dataset ids or patterns.")
    params: dict[str, JSON] = Field(
        default_factory=dict, description="Parameter values; a list means any of its values."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.model or self.prompt or self.dataset or self.params):
            raise complaint("an empty filter matches every cell", "Name a model, prompt, dataset or params.")
        return self


MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
"""The name of a metric of one's own, as `evalrun log` takes it."""


class Suite(Spec):
    """A suite: models x prompts x datasets x parameters, how answers are scored, and what must hold."""

    name: Id = Field(description="Name of the suite.")
    project: Id = Field(
        default="", validate_default=False, description="The line of sweeps it belongs to. Default: the name."
    )
    description: str = Field(default="", description="What the suite is for; shown in the report.")
    seed: int = Field(
        default=0, ge=0, description="Root of all randomness: shuffles, few-shot picks, bootstrap."
    )
    models: list[ModelSpec] = Field(min_length=1, description="The models to ask.")
    judges: list[ModelSpec] = Field(
        default_factory=list,
        description="Models that scorers ask (judge, embedding) and that are not evaluated themselves. A "
        "model under `models` may be asked too.",
    )
    tasks: list[TaskEntry] = Field(
        default_factory=list,
        description="Published tasks by name, beside or in place of prompts, datasets and scorers.",
    )
    task_data: str | None = Field(
        default=None,
        description="Folder with copies of the tasks' data sets (`openai/gsm8k/…`), relative to the suite. "
        "Default: EVALRUN_TASK_DATA.",
    )
    task_files: dict[str, Files] = Field(
        default_factory=dict,
        description="Local files of single tasks: task to files by split. --data TASK=FILE puts them here.",
    )
    prompts: list[PromptSpec] = Field(
        default_factory=list, validate_default=True, description="The ways to put each row to a model."
    )
    datasets: list[DatasetSpec] = Field(
        default_factory=list, validate_default=True, description="The rows to ask about."
    )
    sweep: dict[str, Annotated[list[JSON], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="More axes of the matrix: generation parameter to the values it takes.",
    )
    load: LoadSpec | None = Field(
        default=None,
        description="Load as one more axis: levels of requests in flight, or of requests a second.",
    )
    repeats: int = Field(default=1, ge=1, description="How often each row is asked in a run.")
    parse: list[ParserSpec] = Field(
        default_factory=list,
        description="Parsers from raw output to answer, one after the other. Default: the output, stripped.",
    )
    scorers: list[ScorerSpec] = Field(
        default_factory=list, validate_default=True, description="How answers are scored."
    )
    derive: dict[str, Formula] = Field(
        default_factory=dict,
        description="Scores made from the others of a sample: name to formula, such as "
        '"0.7*exact_match + 0.3*rouge.rouge_l".',
    )
    fairness: FairnessSpec | None = Field(default=None, description="Compare groups of samples.")
    report: ReportSpec | None = Field(default=None, description="What else is told of the scores.")
    performance: PerformanceSpec = Field(
        default_factory=PerformanceSpec,
        description="Streaming, warm-up, concurrency, deadline and retries.",
    )
    gates: list[GateText] = Field(
        default_factory=list,
        description='Conditions that decide the exit code, such as "exact_match >= 0.5".',
    )
    baseline: Literal["required", "first"] = Field(
        default="required",
        description="What a gate against a baseline does where there is none yet: fail, or, with `first`, "
        "pass with a notice; the first sweep that passes and is complete becomes the baseline.",
    )
    inconclusive: Literal["warn", "fail"] = Field(
        default="warn",
        description="What a gate does that the samples cannot decide: tell of it, or fail. --inconclusive "
        "goes before.",
    )
    nightly: NightlySpec | None = Field(
        default=None,
        description="Lets paired gates and alerts decide at the level that keeps false alarms of a whole "
        "year rare. Default: 99 % each time.",
    )
    alerts: AlertsSpec | None = Field(default=None, description="What is reported at the end of a sweep.")
    sinks: list[SinkSpec] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="Tools that results are sent to after the sweep: `mlflow`, `otlp`, `wandb`, …",
    )
    checkpoints: CheckpointRules | None = Field(
        default=None, description="How the checkpoints of models that have `checkpoints` are compared."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Notes for display and search.")
    metrics: dict[MetricName, FiniteFloat | None] = Field(
        default_factory=dict,
        description="Own metrics of every run: a number that is known, or null for one that `evalrun log` "
        "will give. Gates and alerts may speak of them.",
    )
    include: list[CellFilter] = Field(
        default_factory=list, description="Keep only cells that one of these matches. Default: all."
    )
    exclude: list[CellFilter] = Field(
        default_factory=list, description="Leave out cells that one of these matches."
    )
    unparsed: Literal["count", "exclude"] = Field(
        default="count",
        description="Whether answers that no parser could read count as wrong or are left out of scores.",
    )
    explain: ExplainRules | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Answers that are explained when a run is over: which parts of the prompt made them.",
    )
    search: SearchRules | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="What `evalrun search` does with the suite; `evalrun SUITE` runs the whole matrix.",
    )
    stop_early: EarlyRules | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="When runs end before all rows are asked (`--stop-when-decided`, `--until`).",
    )
    privacy: PrivacySpec | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Personal data that is removed from all texts before they are stored.",
    )
    probe: ProbeSpec | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="How `evalrun probe` asks the suite of a deployment; `evalrun SUITE` runs it once.",
    )
    retention: RetentionSpec | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="How long sweeps of the suite are kept (`evalrun retain`).",
    )
    budget: BudgetSpec | None = Field(
        default=None,
        description="US dollars, minutes or tokens after which the sweep stops; it can be taken up again.",
    )
    allow: list[Literal["code_execution"]] = Field(
        default_factory=list,
        description="What scorers may do that is dangerous: code_execution runs code that models wrote.",
    )
    errors: ErrorsSpec = Field(
        default_factory=ErrorsSpec, description="How many failed samples and lost scores are borne."
    )
    deterministic: bool = Field(
        default=False, description="Ask engines for the same answers every time, at some cost in speed."
    )

    _secrets: tuple[tuple[str, str], ...] = PrivateAttr(default=())
    """Environment variables with secret-looking names that were expanded, and their values."""

    @model_validator(mode="before")
    @classmethod
    def _default_project(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("project") is None and isinstance(data.get("name"), str):
            return {**data, "project": data["name"]}
        return data

    @model_validator(mode="after")
    def _tasks_keep_texts(self) -> Self:
        if self.tasks and self.privacy is not None and self.privacy.active:
            remedy = "lm_eval scores what is stored: leave privacy out, or the tasks."
            raise complaint("published tasks cannot be scored from redacted texts", remedy, ("privacy",))
        return self

    @model_validator(mode="after")
    def _scorer_names(self) -> Self:
        names = [scorer.id for scorer in self.scorers]
        for index, name in enumerate(names):
            if name in names[:index]:
                remedy = "Scores are kept by name: give one of them another, where it has an option 'name'."
                raise complaint(f"two scorers are called '{name}'", remedy, ("scorers", index))
        sinks = [sink.name for sink in self.sinks]
        for index, name in enumerate(sinks):
            if name in sinks[:index]:
                raise complaint(f"the sink '{name}' is named twice", "Name each once.", ("sinks", index))
        for name in self.derive:
            if name in names:
                raise complaint(f"a scorer is called '{name}' too", "Choose another name.", ("derive", name))
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
                remedy = "Begin with a small letter; then small letters, digits and '_', at most 60 in all."
                raise complaint(f"'{name}' cannot be the name of a score", remedy, ("derive", name))
        return self

    def resolved(self) -> dict[str, JSON]:
        """The suite with every default written out, as JSON-able data in the shape of the YAML.

        Fit to be stored: the value of an environment variable whose name says that it is secret is
        written as `${NAME}`.
        """
        stored: dict[str, JSON] = _without_secrets(self._plain(), self._secrets)
        return stored

    def work_digest_payload(self) -> dict[str, JSON]:
        """Only what shapes samples and scores: two suites with equal payloads ask and score the same.

        Description, tags, gates, fairness and the like may change without new work. It is made to be
        hashed (`evalrun.canonical.digest`), never stored: expanded variables stand in it.
        """
        data = self._plain()
        for key in (
            "description", "tags", "gates", "baseline", "inconclusive", "nightly", "alerts", "fairness",
            "report", "errors", "unparsed", "budget", "metrics", "explain",
        ):  # fmt: skip
            data.pop(key, None)
        data.pop("checkpoints", None)
        data.pop("sinks", None)
        data.pop("retention", None)
        # Where the documents of tasks came from: they themselves are in their datasets' digests.
        data.pop("task_data", None)
        data.pop("task_files", None)
        if not any(dataset.part for dataset in self.datasets):
            data.pop("search", None)  # the whole matrix is run, whatever a search would do
        del data["performance"]["workers"]  # who sends the requests changes no answer
        if data["load"] is None:  # as it was before there was any
            del data["load"]
        for dataset in data["datasets"]:
            del dataset["tags"]
        for model in data["models"]:
            del model["limits"]
            model.pop("mlflow", None)
            model.pop("resources", None)
        return data

    def _plain(self) -> dict[str, JSON]:
        data: dict[str, JSON] = self.model_dump(
            mode="json", exclude={"models", "judges", "parse", "scorers", "sinks"}
        )
        data["models"] = [model.resolved() for model in self.models]
        data["judges"] = [model.resolved() for model in self.judges]
        data["parse"] = [parser.resolved() for parser in self.parse]
        data["scorers"] = [scorer.resolved() for scorer in self.scorers]
        if self.sinks:
            data["sinks"] = [sink.resolved() for sink in self.sinks]
        if data["checkpoints"] is None:  # few suites say anything of them
            del data["checkpoints"]
        for key in ("tasks", "task_data", "task_files", "report"):
            if not data[key]:
                del data[key]
        return {name: data[name] for name in Suite.model_fields if name in data}

    def hide(self, secrets: Mapping[str, str]) -> None:
        """Note values that `resolved` must not show: environment variable to value.

        Values of fewer than 4 characters are not hidden: they occur by chance in every text.
        """
        self._secrets = tuple((name, value) for name, value in secrets.items() if len(value) >= 4)


def _without_secrets(value: Any, secrets: tuple[tuple[str, str], ...]) -> Any:
    if not secrets:
        return value
    if isinstance(value, dict):
        return {key: _without_secrets(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item, secrets) for item in value]
    if isinstance(value, str):
        for name, secret in secrets:
            value = value.replace(secret, f"${{{name}}}")
    return value
