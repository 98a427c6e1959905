"""What a run came to, typed: `RunResults` is what `run.json` holds, written once, read by all that shows it.

What is concluded between the runs of a sweep is in `sweep_results`. Values are JSON numbers or None: a figure
that the data could not give has None, and its note says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Literal, Protocol, TypeAlias

from evalrun.frozen import frozen
from evalrun.types import JSON, Clustering, Counts, Direction, MetricValue

ALPHA = 0.05
"""Below this p a difference between groups is called wider than chance."""


# What figures are made of


@frozen
class Estimate:
    """A value with n, standard error and interval. `value` is None without data; `note` says why. `clusters`
    says what clusters do to it, where there are any."""

    value: float | None
    n: int
    se: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""
    clusters: Clustering | None = None


class Described(Protocol):
    """What a metric means, where its scorer or the catalogue says so."""

    @property
    def unit(self) -> str: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def definition(self) -> str: ...
    @property
    def bounds(self) -> tuple[float | None, float | None]: ...


@frozen
class Definition:
    """What a metric meant on the day it was computed. `bounds` are its least and greatest possible values."""

    unit: str = ""
    direction: Direction = "none"
    definition: str = ""
    bounds: tuple[float | None, float | None] = (None, None)

    @classmethod
    def of(cls, info: Described) -> Definition:
        """What a scorer or the catalogue says of a metric."""
        return cls(info.unit, info.direction, info.definition, info.bounds)


HEADLINES = (
    "performance.ttft_s.p50", "performance.e2e_s.p50", "performance.e2e_s.p95",
    "performance.output_tokens_per_s", "cost.usd", "memory.engine_peak_bytes",
)  # fmt: skip
"""What people ask for beside the scores, wherever a run is summed up in a few figures."""


# What run.json holds


@frozen
class BiasCategory:
    """BBQ in one category (None: over all): figures and what each is a share of (scoring/scorers/bbq.py)."""

    category: str | None = None
    accuracy_ambiguous: float | None = None
    accuracy_disambiguated: float | None = None
    bias_ambiguous: float | None = None
    bias_disambiguated: float | None = None
    nonaligned_cost: float | None = None
    n_ambiguous: int | None = None
    right_ambiguous: int | None = None
    non_unknown_ambiguous: int | None = None
    biased_ambiguous: int | None = None
    n_disambiguated: int | None = None
    right_disambiguated: int | None = None
    non_unknown_disambiguated: int | None = None
    biased_disambiguated: int | None = None
    n_aligned: int | None = None
    right_aligned: int | None = None
    n_nonaligned: int | None = None
    right_nonaligned: int | None = None


@frozen
class GroupValue(Estimate):
    """One group's value. Only a `compared` group takes part in the gap."""

    group: str = ""
    compared: bool = False


@frozen
class ByChance:
    """A largest difference between groups beside what shuffled group labels give: mean and 95th percentile,
    p = (1 + as large) / (1 + permutations), and `how` labels were shuffled. `p_corrected` is corrected for
    all differences that were tested in the run, over its columns and metrics."""

    chance_gap_mean: float | None = None
    chance_gap_p95: float | None = None
    p: float | None = None
    permutations: int = 0
    how: str = ""
    note: str = ""
    p_corrected: float | None = None

    @property
    def wider_than_chance(self) -> bool:
        """Whether chance alone gives any so large a difference in the run less than once in twenty."""
        return self.p_decides is not None and self.p_decides < ALPHA

    @property
    def p_decides(self) -> float | None:
        """The corrected p; of documents of earlier versions, which have none, p alone."""
        return self.p if self.p_corrected is None else self.p_corrected


@frozen
class Gap(ByChance):
    """The gap between the best and the worst group."""

    value: float | None = None
    best: str = ""
    worst: str = ""


@frozen
class GroupContrast:
    """Mean of one group minus that of another, or of the rest; `p_holm` is adjusted over the groups."""

    group: str
    against: str
    value: float | None = None
    n: int = 0
    n_against: int = 0
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    method: str = ""
    note: str = ""

    @property
    def by_chance(self) -> float | None:
        """The largest that 19 of 20 differences between two equal groups are: 1.96 standard errors."""
        return 1.96 * self.se if self.se else None


@frozen
class GroupMeasure:
    """One measure by the groups of a column. `withheld` counts groups too small to be shown."""

    unit: str = ""
    direction: Direction = "none"
    groups: tuple[GroupValue, ...] = ()
    gap: Gap | None = None
    contrasts: tuple[GroupContrast, ...] = ()
    withheld: int = 0
    note: str = ""


@frozen
class Criterion(ByChance):
    """A criterion of decisions (demographic parity, equal opportunity, equalized odds) over the groups.

    `groups` are the rates by their names, and the group's own name under "group".
    """

    label: str | None = None
    difference: float | None = None
    ratio: float | None = None
    groups: tuple[Mapping[str, JSON], ...] = ()


@frozen
class GroupLevel:
    """A column's measures within one value of a control column."""

    metrics: Mapping[str, GroupMeasure] = field(default_factory=dict)
    criteria: Mapping[str, Criterion] = field(default_factory=dict)


@frozen
class ColumnGroups:
    """Everything by the groups of one column (`a-b` for an intersection).

    `decisions` says why there are no criteria, where there are none. `control` is by control column, then by
    its value. `correction` says in a sentence over how many tests p values were corrected.
    """

    note: str = ""
    min_group: int | None = None
    reference: str | None = None
    decisions: str = ""
    metrics: Mapping[str, GroupMeasure] = field(default_factory=dict)
    criteria: Mapping[str, Criterion] = field(default_factory=dict)
    control: Mapping[str, Mapping[str, GroupLevel]] = field(default_factory=dict)
    correction: str = ""


@frozen
class VersionFlips(Estimate):
    """How often one version has another answer than the reference."""

    version: str = ""


@frozen
class Flips:
    """How often another version of a sample has another answer, and how often asking again has."""

    overall: Estimate = Estimate(None, 0)
    by_version: tuple[VersionFlips, ...] = ()
    resample_flip_rate: Estimate | None = None
    flip_rate_beyond_resampling: Estimate | None = None


@frozen
class VersionDifference(Estimate):
    """One version minus the reference, unit by unit; `p_holm` is adjusted over the versions."""

    version: str = ""
    against: str = ""
    mean: float | None = None
    mean_against: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = ""
    discordant: tuple[int, int] | None = None


@frozen
class Robustness:
    """A score as the data stand, on average over the changes, and at each sample's worst version."""

    original: Estimate = Estimate(None, 0)
    perturbed: Estimate = Estimate(None, 0)
    worst: Estimate = Estimate(None, 0)
    worst_drop: Estimate = Estimate(None, 0)


@frozen
class VersionExample:
    """Two versions of one sample whose answers differ."""

    base: str
    version: str
    sample_id: str
    answer: str | None
    against: str
    against_id: str
    against_answer: str | None


@frozen
class AxisVersions:
    """What the versions of samples along one axis (an attribute, or a perturbation) came to."""

    versions: tuple[str, ...] = ()
    reference: str = ""
    units: int = 0
    note: str = ""
    flips: Flips = Flips()
    differences: Mapping[str, tuple[VersionDifference, ...]] = field(default_factory=dict)
    robustness: Mapping[str, Robustness] = field(default_factory=dict)
    examples: tuple[VersionExample, ...] = ()


@frozen
class Confusion:
    """Counts by target (rows) and answer (columns); without labels where there are too many classes."""

    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    counts: tuple[tuple[float, ...], ...] = ()
    note: str = ""


@frozen
class Curve:
    """A distribution function: values and the share of samples up to each."""

    x: tuple[float, ...] = ()
    p: tuple[float, ...] = ()


@frozen
class Histogram:
    """Counts between `edges`."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@frozen
class Distribution:
    """How one latency is distributed, in seconds."""

    n: int = 0
    cdf: Curve = Curve()
    histogram: Histogram = Histogram()


@frozen
class ThroughputWindow:
    """The span, in seconds after the start, that rates are taken over; `why` it is not a steady one."""

    start_s: float = 0.0
    end_s: float = 0.0
    steady: bool = False
    why: str = ""
    completed: int = 0
    peak_in_flight: int = 0


@frozen
class OverTime:
    """Rates between the edges `t_s` (one more than there are rates)."""

    t_s: tuple[float, ...] = ()
    requests_per_s: tuple[float, ...] = ()
    output_tokens_per_s: tuple[float, ...] = ()
    in_flight: tuple[float, ...] = ()


@frozen
class Backlog:
    """Requests that were due and not ended, between the edges `t_s` (seconds after the first was due)."""

    t_s: tuple[float, ...] = ()
    waiting: tuple[float, ...] = ()


@frozen
class LoadProbe:
    """One probe of a search: `kept` of `n` requests kept the promise with `concurrency` in flight or at
    `rate`; what a test that may be looked at any time made of it. One that `confirms` what was found was not
    ended early."""

    concurrency: int | None = None
    rate: float | None = None
    confirms: bool = False
    start_s: float = 0.0
    end_s: float = 0.0
    n: int = 0
    kept: int = 0
    blocks: int = 0
    decision: Literal["pass", "fail", "undecided"] = "undecided"


@frozen
class ScoreInTime:
    """The mean score of `n` answers of a level that kept its promise, or of those that did not, and their
    mean output tokens (None where none is known): a late answer is often a long one."""

    n: int
    score: float
    tokens: float | None = None


@frozen
class RunLoad:
    """What a level of load came to. `level` is its value on the axis, `role` says whether scores are compared
    with it; `start_s` and `end_s` are the window on the run's clock, in which `requests` were scheduled and
    `kept` kept the promise `slo`. `verdict` is steady, growing or undecided, and `why`; `capped` requests
    waited for `max_in_flight`. `banners` must stand beside every figure. `prefix_cache` is how levels were
    kept apart, and `hit_rate`. `in_time` and `late` are scores of answers within the promise and without it.
    A search has `probes`, and the share `attain` that it looked for."""

    words: str = ""
    level: JSON = None
    role: str = "level"
    open_loop: bool = False
    concurrency: int | None = None
    rate: float | None = None
    arrivals: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    requests: int = 0
    kept: int = 0
    slo: tuple[str, ...] = ()
    right: str = ""
    verdict: str = "undecided"
    why: str = ""
    growth_s: float | None = None
    lateness_p50_s: float | None = None
    lateness_p99_s: float | None = None
    capped: int = 0
    prefix_cache: Mapping[str, JSON] = field(default_factory=dict)
    backlog: Backlog = Backlog()
    banners: tuple[str, ...] = ()
    in_time: ScoreInTime | None = None
    late: ScoreInTime | None = None
    probes: tuple[LoadProbe, ...] = ()
    attain: float | None = None


@frozen
class TimedSamples:
    """How many samples the latencies are over, and how many were left out for which reason."""

    n: int = 0
    cached: int = 0
    warmup: int = 0
    failed: int = 0


@frozen
class Machine:
    """What was seen of the machine, and why what was not seen was not."""

    unavailable: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[Mapping[str, JSON], ...] = ()


@frozen
class JudgeBill:
    """What one model was asked as a judge about a run, and what it cost."""

    scorer: str = ""
    model: str = ""
    requests: int = 0
    cached: int = 0
    failed: int = 0
    unread: int = 0
    asked_again: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    e2e_s_p50: float | None = None


@frozen
class AnsweredBy:
    """What responses said of the model and build that gave them: samples by name, and how often it
    changed."""

    models: Mapping[str, int] = field(default_factory=dict)
    model_changes: int = 0
    fingerprints: Mapping[str, int] = field(default_factory=dict)
    fingerprint_changes: int = 0


@frozen
class Lost:
    """The rows of a run that one scorer has no score of though it should: of `of` rows `lost`, among them
    `failed` ones, of which the model gave no answer. `incomplete` says that they are more than the suite
    tolerates, `cause` what the first of them says, in the words of who said it, `causes` how many say what.
    """

    scorer: str
    run: str = ""
    lost: int = 0
    of: int = 0
    failed: int = 0
    incomplete: bool = False
    cause: str = ""
    causes: Mapping[str, int] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """Whether nothing at all was scored, and the suite does not tolerate that."""
        return self.incomplete and 0 < self.of == self.lost


BiasWord: TypeAlias = Literal["with", "against", "none shown", "unknown"]
"""Where answers lean: with the stereotype or against it, where the interval leaves the neutral value out."""


@frozen
class BiasFinding:
    """What one measure of bias says of a run. `neutral` is its value without bias."""

    metric: str
    unit: str = ""
    neutral: float = 0.0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    word: BiasWord = "unknown"
    sentence: str = ""


@frozen
class Stage:
    """What one stage of a run took: `seconds` of the run, and of requests the sum of their own."""

    stage: str
    seconds: float
    requests_s: float | None = None


@frozen
class RunDetails:
    """What stands behind the metrics of a run.

    `definitions` are by metric name. `errors` counts the commonest reasons of samples that ended in one way:
    {"failed": {"timeout": 3}, "unparsed": {…}}. `confusion`, `signatures` (how sacrebleu computed it) and
    `bbq` (counts and figures by category, the first over all) are by scorer, `bias` is what the measures of
    bias say, `groups` are by sensitive column, `versions` by axis, `latency` by measure. `unparsed` is
    "exclude" where unparsed answers are left out of scores. `client_limited` is a sentence where evalrun
    itself was part of the latencies. `lost` says, of every scorer that lost rows, how many and why. `stages`
    say where the time went, `beside` that others evaluated on this machine or endpoint meanwhile.
    """

    definitions: Mapping[str, Definition] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unparsed: str = "count"
    confusion: Mapping[str, Confusion] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    bbq: Mapping[str, tuple[BiasCategory, ...]] = field(default_factory=dict)
    bias: tuple[BiasFinding, ...] = ()
    groups: Mapping[str, ColumnGroups] = field(default_factory=dict)
    versions: Mapping[str, AxisVersions] = field(default_factory=dict)
    judges: tuple[JudgeBill, ...] = ()
    latency: Mapping[str, Distribution] = field(default_factory=dict)
    throughput_window: ThroughputWindow | None = None
    over_time: OverTime | None = None
    timed: TimedSamples = TimedSamples()
    client_limited: str = ""
    machine: Machine = Machine()
    answered_by: AnsweredBy = AnsweredBy()
    load: RunLoad | None = None
    lost: tuple[Lost, ...] = ()
    stages: tuple[Stage, ...] = ()
    beside: str = ""


@frozen
class Concurrency:
    """How many requests were under way at most: fixed, or found by an adaptive limit."""

    adaptive: bool = False
    final: int | None = None
    changes: tuple[Mapping[str, JSON], ...] = ()

    @property
    def words(self) -> str:
        """What load that is: speeds under unlike ones are not compared. "" where it is not known."""
        if self.final is None:
            return ""
        return f"up to {self.final} at once" if self.moved else f"{self.final} at once"

    @property
    def moved(self) -> bool:
        """Whether an adaptive limit changed while requests were sent: then no other run had that load."""
        return self.adaptive and bool(self.changes)


def like_loads(loads: Collection[str]) -> bool:
    """Whether runs were asked under one load, by what each says of it. A load that is not known stands in
    nobody's way; of adaptive ones no two are known to be the same."""
    known = [load for load in loads if load]
    return len(set(known)) < 2 and not (len(known) > 1 and known[0].startswith("up to "))


@frozen
class Timings:
    """When a run was asked and how: times are ISO 8601, `wall_s` seconds."""

    started_at: str | None = None
    finished_at: str | None = None
    rescored_at: str | None = None
    wall_s: float | None = None
    concurrency: Concurrency = Concurrency()
    workers: int | None = None
    limits: JSON = None
    load: Mapping[str, JSON] = field(default_factory=dict)


@frozen
class CheckpointOf:
    """Which checkpoint a run asked: of the suite's model `of`, at a `step` (optimizer steps done), at `path`.
    `training` names the training that wrote it, as the suite says it; `note` says how the step is known,
    where that is a guess. `train_loss` and `eval_loss` are the last that its Trainer logged."""

    of: str
    step: int
    path: str = ""
    training: str = ""
    weights_sha256: str = ""
    note: str = ""
    train_loss: float | None = None
    eval_loss: float | None = None


ERASED_SINCE = "erased since: the figures are of all that there were then"
"""How the warning ends that a run gets when some of its samples are erased."""


@frozen
class RunResults:
    """What `run.json` holds: the results of one run.

    `step` and `training` are those of its `checkpoint`. `load` is what it was asked under: {"concurrency": 4}
    (with "adaptive": true where that is the most of an adaptive limit) or {"rate": 2.0}.
    """

    run: str
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    repeats: int = 1
    status: Literal["complete", "incomplete", "running"] = "complete"
    counts: Counts = field(default_factory=Counts)
    metrics: tuple[MetricValue, ...] = ()
    details: RunDetails = RunDetails()
    warnings: tuple[str, ...] = ()
    timings: Timings = Timings()
    digests: Mapping[str, str] = field(default_factory=dict)
    step: int | None = None
    training: str = ""
    checkpoint: CheckpointOf | None = None
    headline: str = ""
    """The metric that leads where it is not the sweep's: that of a published task."""
    load: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def load_words(self) -> str:
        """What load its speed was measured under: "4 at once"; "" where that is not known."""
        return str(self.timings.load.get("words") or self.timings.concurrency.words)

    def metric(self, name: str) -> MetricValue | None:
        """The metric of that name over all samples, if the run has it."""
        return next((each for each in self.metrics if each.name == name and not each.slice), None)
