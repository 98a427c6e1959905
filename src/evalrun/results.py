"""What a sweep came to, typed: written into its folder once, and read by everything that shows it.

`RunResults` is what `run.json` holds, `SweepResults` what `sweep.json` holds beside the manifest. Reading is
tolerant: keys that this version does not know are left alone, keys that an earlier one did not write get
their defaults. Values are JSON numbers or None: a figure that the data could not give has None, and its note
says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from evalrun.types import JSON, Clustering, Counts, Direction, MetricValue

_T = TypeVar("_T")

ALPHA = 0.05
"""Below this p a difference between groups is called wider than chance."""


# What figures are made of


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class GroupValue(Estimate):
    """One group's value. Only a `compared` group takes part in the gap."""

    group: str = ""
    compared: bool = False


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Gap(ByChance):
    """The gap between the best and the worst group."""

    value: float | None = None
    best: str = ""
    worst: str = ""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class GroupMeasure:
    """One measure by the groups of a column. `withheld` counts groups too small to be shown."""

    unit: str = ""
    direction: Direction = "none"
    groups: tuple[GroupValue, ...] = ()
    gap: Gap | None = None
    contrasts: tuple[GroupContrast, ...] = ()
    withheld: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Criterion(ByChance):
    """A criterion of decisions (demographic parity, equal opportunity, equalized odds) over the groups.

    `groups` are the rates by their names, and the group's own name under "group".
    """

    label: str | None = None
    difference: float | None = None
    ratio: float | None = None
    groups: tuple[Mapping[str, JSON], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupLevel:
    """A column's measures within one value of a control column."""

    metrics: Mapping[str, GroupMeasure] = field(default_factory=dict)
    criteria: Mapping[str, Criterion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class VersionFlips(Estimate):
    """How often one version has another answer than the reference."""

    version: str = ""


@dataclass(frozen=True, slots=True)
class Flips:
    """How often another version of a sample has another answer, and how often asking again has."""

    overall: Estimate = Estimate(None, 0)
    by_version: tuple[VersionFlips, ...] = ()
    resample_flip_rate: Estimate | None = None
    flip_rate_beyond_resampling: Estimate | None = None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Robustness:
    """A score as the data stand, on average over the changes, and at each sample's worst version."""

    original: Estimate = Estimate(None, 0)
    perturbed: Estimate = Estimate(None, 0)
    worst: Estimate = Estimate(None, 0)
    worst_drop: Estimate = Estimate(None, 0)


@dataclass(frozen=True, slots=True)
class VersionExample:
    """Two versions of one sample whose answers differ."""

    base: str
    version: str
    sample_id: str
    answer: str | None
    against: str
    against_id: str
    against_answer: str | None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts by target (rows) and answer (columns); without labels where there are too many classes."""

    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    counts: tuple[tuple[float, ...], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A distribution function: values and the share of samples up to each."""

    x: tuple[float, ...] = ()
    p: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between `edges`."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """How one latency is distributed, in seconds."""

    n: int = 0
    cdf: Curve = Curve()
    histogram: Histogram = Histogram()


@dataclass(frozen=True, slots=True)
class ThroughputWindow:
    """The span, in seconds after the start, that rates are taken over; `why` it is not a steady one."""

    start_s: float = 0.0
    end_s: float = 0.0
    steady: bool = False
    why: str = ""
    completed: int = 0
    peak_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class OverTime:
    """Rates between the edges `t_s` (one more than there are rates)."""

    t_s: tuple[float, ...] = ()
    requests_per_s: tuple[float, ...] = ()
    output_tokens_per_s: tuple[float, ...] = ()
    in_flight: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TimedSamples:
    """How many samples the latencies are over, and how many were left out for which reason."""

    n: int = 0
    cached: int = 0
    warmup: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """What was seen of the machine, and why what was not seen was not."""

    unavailable: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[Mapping[str, JSON], ...] = ()


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """What responses said of the model and build that gave them: samples by name, and how often it
    changed."""

    models: Mapping[str, int] = field(default_factory=dict)
    model_changes: int = 0
    fingerprints: Mapping[str, int] = field(default_factory=dict)
    fingerprint_changes: int = 0


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What stands behind the metrics of a run.

    `definitions` are by metric name. `errors` counts the commonest reasons of samples that ended in one way:
    {"failed": {"timeout": 3}, "unparsed": {…}}. `confusion`, `signatures` (how sacrebleu computed it) and
    `bbq` (counts and figures by category, the first over all) are by scorer, `bias` is what the measures of
    bias say, `groups` are by sensitive column, `versions` by axis, `latency` by measure. `unparsed` is
    "exclude" where unparsed answers are left out of scores. `client_limited` is a sentence where evalrun
    itself was part of the latencies. `lost` says, of every scorer that lost rows, how many and why.
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
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True, slots=True)
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
        return f"up to {self.final} at once" if self.adaptive else f"{self.final} at once"


@dataclass(frozen=True, slots=True)
class Timings:
    """When a run was asked and how: times are ISO 8601, `wall_s` seconds."""

    started_at: str | None = None
    finished_at: str | None = None
    rescored_at: str | None = None
    wall_s: float | None = None
    concurrency: Concurrency = Concurrency()
    workers: int | None = None
    limits: JSON = None


@dataclass(frozen=True, slots=True)
class RunResults:
    """What `run.json` holds: the results of one run."""

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

    def metric(self, name: str) -> MetricValue | None:
        """The metric of that name over all samples, if the run has it."""
        return next((each for each in self.metrics if each.name == name and not each.slice), None)


# What is found between the runs of a sweep

StandingVerdict: TypeAlias = Literal["best", "tied", "behind", "incomparable"]
"""Where a run stands against the best of its dataset. "tied": not distinguishable from it; where all runs
have the same value all are tied and nobody is best. "incomparable": it has no value, or shares no sample."""

Word: TypeAlias = Literal["better", "worse", "higher", "lower", "equivalent", "inconclusive", "unchanged"]
"""What a difference amounts to. `higher` and `lower` are for metrics that have no better end; `unchanged` is
for the very same answers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`word` is b's, compared with a."""

    word: Word
    sentence: str


@dataclass(frozen=True, slots=True)
class PairedResult:
    """What the pairs say of b - a. Figures are None where the data cannot give them, and `note` says why.

    `n` pairs (sample ids), `dropped` ones of which a or b was missing. `n_clusters` is None without clusters.
    `ci_low`, `ci_high` have level 1 - alpha, by `method` (t, score, clustered-t, or "" without interval);
    `inner_low`, `inner_high` level 1 - 2 alpha, for the test of equivalence. `discordant` counts the pairs
    in which only a, only b is 1, for 0/1 data. `mde` is the difference that would be found with 80 % power at
    the level that decides, where pairs disagree as these do; `mde_independent` where they disagreed as those
    of independent runs. Bounds and both differences hold for so many `tests` at once.
    """

    n: int
    dropped: int
    n_clusters: int | None
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    test: str
    discordant: tuple[int, int] | None
    correlation: float | None
    mde: float | None
    method: str
    note: str = ""
    alpha: float = 0.05
    margin: float | None = None
    inner_low: float | None = None
    inner_high: float | None = None
    mde_independent: float | None = None
    tests: int = 1


@dataclass(frozen=True, slots=True)
class Primary:
    """The metric that runs are ranked by, and the score of each sample that stands behind it.

    `exact` says that the metric is the mean of that score; else pairs can only be compared by the score.
    `judged` says that a judge gave it.
    """

    metric: str
    score: str | None = None
    exact: bool = True
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """One run against the best of its dataset by one metric.

    `difference` is best - run over the `n` sample ids that both scored, with bounds and p that hold for all
    pairs of runs at once: a run is behind where p <= alpha, and then the bounds exclude 0. None for the best
    itself and where nothing can be compared. An `incomplete` figure, which lost too many rows, ranks after
    all that are not. `detectable` is the true difference that so many pairs find four
    times in five.
    """

    run: str
    dataset: str
    metric: str
    verdict: StandingVerdict
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    n: int = 0
    method: str = ""
    detectable: float | None = None
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """One value of an axis: the mean over all the rest, and its difference from the axis' first value."""

    value: JSON
    mean: Estimate
    against_first: PairedResult | None = None
    p_corrected: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """What an axis (model, prompt, a swept parameter) does to a metric.

    `cells` combinations of all the rest went into it, `n` samples. `spread` is the greatest minus the least
    mean of its levels.
    """

    metric: str
    unit: str
    direction: Direction
    axis: str
    cells: int
    n: int
    spread: float
    levels: tuple[Level, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class PromptSensitivity:
    """How much the prompts of a sweep move one model on one dataset, over the `n` samples all of them have.

    `mean` is over prompts; `prompts` from best to worst with their means; `sd` the standard deviation of the
    prompts' means, `sd_beyond_chance` what of it is more than the samples' noise would give. `gap` is best
    minus worst with bounds that hold for all pairs of prompts, and its corrected p.
    """

    metric: str
    unit: str
    direction: Direction
    model: str
    dataset: str
    n: int
    mean: Estimate
    prompts: tuple[tuple[str, Estimate], ...]
    sd: float
    sd_beyond_chance: float
    gap: float
    gap_low: float | None
    gap_high: float | None
    p: float


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a prompt. `gain` is the whole prompt minus the prompt without it, sample by sample: what the
    part adds. `verdict` says so in words: better means that the part helps. `tokens` are the prompt tokens
    that it costs a sample, on average; None where they are not known. `sentence` is for people."""

    part: str
    prompt: str
    without: Estimate
    gain: PairedResult
    tokens: float | None = None
    p_corrected: float | None = None
    verdict: Verdict | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class PromptAblation:
    """One prompt of one model on one dataset, taken apart, over the `n` samples that all its runs have.

    `whole` is the metric with the whole prompt. With a swept parameter, samples are averaged over its values.
    """

    metric: str
    unit: str
    direction: Direction
    model: str
    prompt: str
    dataset: str
    n: int
    whole: Estimate
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Concentration:
    """A slice that holds more of the affected samples (regressions, errors) than chance: `inside` of its
    `size` samples, where `affected` of all `total` are. `p` is corrected over all slices that were looked at;
    `sample_ids` are some of them."""

    column: str
    value: str
    inside: int
    size: int
    affected: int
    total: int
    p: float
    sample_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PooledEstimate:
    """One metric of one model and prompt over several datasets: `macro` with each dataset counting alike,
    `micro` with each sample. The datasets are strata and no sample of datasets: the errors say how well these
    are known. `sentence` is for people."""

    metric: str
    model: str
    prompt: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    macro: Estimate = Estimate(None, 0)
    micro: Estimate = Estimate(None, 0)
    note: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """A gate on one run, and what came of it."""

    gate: str
    run: str
    verdict: str
    value: float | None = None
    reason: str = ""
    baseline: float | None = None
    limit: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    detectable: float | None = None
    level: float | None = None
    incomplete: bool = False
    where: tuple[Concentration, ...] = ()


@dataclass(frozen=True, slots=True)
class RunBefore:
    """One run against the run like it of the sweep before: `difference` is this one minus that one, with
    bounds of its own, `p` corrected over the runs that were tested. `better` and `worse` count samples."""

    run: str
    before: str
    verdict: Word
    n: int
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    better: int | None = None
    worse: int | None = None
    where: tuple[Concentration, ...] = ()


@dataclass(frozen=True, slots=True)
class Previous:
    """A sweep against the one before it in its project, by its primary metric.

    `changed` says in words what differs between the two (`prompt rules`), `number` is that of the one before
    in its store. `added` are runs that have no partner there.
    """

    sweep: str
    name: str
    started_at: str
    metric: str
    unit: str
    direction: Direction
    number: int | None = None
    runs: tuple[RunBefore, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GradeShare(Estimate):
    """How often one grade of the menu was given; "undecided": judges who voted equally often for two; "no
    grade": none could be read."""

    grade: str = ""
    hits: int = 0


@dataclass(frozen=True, slots=True)
class GradesOf:
    """The grades that one judge, or all of them together, gave the `n` answers that were asked about."""

    judge: str
    n: int = 0
    shares: tuple[GradeShare, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgeKappa(Estimate):
    """Cohen's kappa of a judge with another, or with people (`other` is "")."""

    judge: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class JudgeExample:
    """A sample on which grades differ: `what` says between whom, `grades` are the judges' in their order; ""
    where there is none. `reason` is the beginning of what the judges wrote."""

    sample_id: str
    repeat: int = 0
    what: str = ""
    person: str = ""
    grades: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """What the judges of one scorer gave the answers of one run.

    `labels` are the grades in the order of the menu, `judges` the judges' ids. `grades` has each judge where
    there are several, then all together. `crossed` counts people's grades (rows) by the judges' (columns).
    `undecided` says that judges voted equally often for two; `only_grade` is the one that all answers got.
    """

    run: str
    scorer: str
    labels: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    grades: tuple[GradesOf, ...] = ()
    kappas: tuple[JudgeKappa, ...] = ()
    crossed: tuple[tuple[int, ...], ...] = ()
    examples: tuple[JudgeExample, ...] = ()
    undecided: bool = False
    only_grade: str = ""


@dataclass(frozen=True, slots=True)
class SweepResults:
    """What a sweep as a whole came to.

    `primary` is None where the suite has neither scorers nor gates. `standings` are from best to worst within
    each dataset. `effects`, `sensitivity` and `ablations` are of the primary metric, empty where the matrix
    has nothing of the kind. `lost` are the scores that rows lack, run by run. `judged` is what judges gave.
    """

    primary: Primary | None = None
    alpha: float = 0.05
    standings: tuple[Standing, ...] = ()
    effects: tuple[AxisEffect, ...] = ()
    sensitivity: tuple[PromptSensitivity, ...] = ()
    ablations: tuple[PromptAblation, ...] = ()
    gates: tuple[GateVerdict, ...] = ()
    false_alarms: str = ""
    pooled: tuple[PooledEstimate, ...] = ()
    lost: tuple[Lost, ...] = ()
    judged: tuple[JudgedRun, ...] = ()


def read(kind: type[_T], document: Mapping[str, Any], where: Path | None = None) -> _T:
    """A document (`run.json`, or `results` of `sweep.json`) as typed values.

    Raises UserError that names the key that cannot be read, and the file `where` it stands. (Pydantic would
    do the same after a tenth of a second in which it compiles all of these classes.)
    """
    from evalrun.errors import UserError

    try:
        value: _T = _reader(cast("Any", kind))(document)
    except _Unreadable as error:
        raise UserError(f"{'.'.join(reversed(error.keys))}: {error.what}", where=str(where or "")) from None
    return value


class _Unreadable(Exception):
    """`what` is wrong with the value under `keys`, the innermost first."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.keys: list[str] = []
        super().__init__(what)


_Reader: TypeAlias = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """What turns a JSON value into a value of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin is Literal:
        return partial(_one_of, arguments)
    if origin is tuple:
        return partial(_tuple, [_reader(argument) for argument in arguments if argument is not Ellipsis])
    if origin in (Union, UnionType):
        inner = _reader(next(argument for argument in arguments if argument is not NoneType))
        return lambda value: None if value is None else inner(value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = _reader(arguments[1])
        return partial(_mapping, inner)
    return {float: _float, int: _int, str: _str}.get(kind, lambda value: value)


def _dataclass_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    needed = [
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    ]
    known = [each.name for each in fields(kind)]

    readers: dict[str, _Reader] = {}

    def make(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Unreadable("not a mapping")
        values = {}
        for name in known:
            if name in value:
                if name not in readers:  # made when first needed: of most kinds a document has none
                    readers[name] = _reader(hints[name])
                try:
                    values[name] = readers[name](value[name])
                except _Unreadable as error:
                    error.keys.append(name)
                    raise
        for name in needed:
            if name not in values:
                raise _Unreadable(f"'{name}' is missing")
        return kind(**values)

    return make


def _tuple(readers: list[_Reader], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _Unreadable("not a list")
    if len(readers) == 1:
        return tuple(map(readers[0], value))
    if len(readers) != len(value):
        raise _Unreadable(f"not a list of {len(readers)}")
    return tuple(read_one(each) for read_one, each in zip(readers, value, strict=True))


def _mapping(inner: _Reader, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unreadable("not a mapping")
    return {str(key): inner(each) for key, each in value.items()}


def _one_of(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise _Unreadable(f"{value!r} is none of {', '.join(map(str, known))}")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unreadable("not a number")
    return float(value)


def _int(value: Any) -> int:
    if not isinstance(value, int | float) or value != int(value):
        raise _Unreadable("not a whole number")
    return int(value)


def _str(value: Any) -> str:
    if isinstance(value, Mapping | list) or value is None:
        raise _Unreadable("not a text")
    return str(value)
