"""What a sweep came to, typed: `SweepResults` is what `sweep.json` holds beside the manifest.

Standings, effects, gates, comparisons and where it broke: everything that is found between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal, TypeAlias

from evalrun.frozen import frozen
from evalrun.results import Estimate, Lost, RunResults, ScoreInTime
from evalrun.types import JSON, Direction, MetricValue

NO_ESTIMATE = Estimate(None, 0)

StandingVerdict: TypeAlias = Literal["best", "tied", "behind", "incomparable"]
"""Where a run stands against the best of its dataset. "tied": not distinguishable from it; where all runs
have the same value all are tied and nobody is best. "incomparable": it has no value, or shares no sample."""

Word: TypeAlias = Literal["better", "worse", "higher", "lower", "equivalent", "inconclusive", "unchanged"]
"""What a difference amounts to. `higher` and `lower` are for metrics that have no better end; `unchanged` is
for the very same answers."""


@frozen
class Verdict:
    """`word` is b's, compared with a."""

    word: Word
    sentence: str


@frozen
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


@frozen
class Primary:
    """The metric that runs are ranked by, and the score of each sample that stands behind it.

    `exact` says that the metric is the mean of that score; else pairs can only be compared by the score.
    `judged` says that a judge gave it.
    """

    metric: str
    score: str | None = None
    exact: bool = True
    judged: bool = False


@frozen
class Chance:
    """What a run's first metric is beside what is reached without reading the input.

    `level` is reached `by` the commonest target always, or by one of k labels at random. `above`: the run is
    better than that, by a test (p, corrected for the `tests` runs of the dataset). `difference` is the run
    minus the level, with bounds that agree with that p.
    """

    run: str
    dataset: str
    metric: str
    level: float
    by: str
    p: float
    n: int
    above: bool
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    tests: int = 1


def leading(run: RunResults | None, primary: Primary | None) -> Primary | None:
    """What a run is ranked by: its own headline, else the sweep's primary metric."""
    if run is None or not run.headline:
        return primary
    metric = run.metric(run.headline)
    mean = metric is not None and metric.method != ""
    return Primary(run.headline, run.headline, exact=mean)


@frozen
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


@frozen
class StoppedEarly:
    """A sweep whose runs end as soon as enough is known: `decided` when gates or comparisons are, `until` at
    that half width of the headline's interval, which is `of` the dataset or of the population. `asked` of
    `rows` were asked, by run. What decided holds at `alpha` however often one looked."""

    decided: bool
    until: float | None
    of: str
    alpha: float
    asked: Mapping[str, int]
    rows: Mapping[str, int]


@frozen
class Level:
    """One value of an axis: the mean over all the rest, and its difference from the axis' first value."""

    value: JSON
    mean: Estimate
    against_first: PairedResult | None = None
    p_corrected: float | None = None
    verdict: Verdict | None = None


@frozen
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


@frozen
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


@frozen
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
    left_out: PairedResult | None = None
    """With Shapley values in `gain`: what the part adds to all others, by leaving out it alone."""


@frozen
class Interaction:
    """What two parts of a prompt do together beyond what each does, over all combinations of the others
    (Shapley's interaction index): below 0 they say the same, above 0 they need one another."""

    parts: tuple[str, str]
    effect: PairedResult
    p_corrected: float | None = None
    word: str = "tied"
    """"say the same", "need one another", or "tied" where that may be chance."""


@frozen
class PromptAblation:
    """One prompt of one model on one dataset, taken apart, over the `n` samples that all its runs have.

    `whole` is the metric with the whole prompt. With a swept parameter, samples are averaged over its values.
    `method` is loo (each part left out by itself) or shapley (`gain` is then a part's mean addition over all
    orders; with the parts' gains `nothing`, the metric without any part, adds up to the whole).
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
    method: str = "loo"
    nothing: Estimate | None = None
    interactions: tuple[Interaction, ...] = ()


@frozen
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


@frozen
class PooledEstimate:
    """One metric of one model and prompt over several datasets: `macro` with each dataset counting alike,
    `micro` with each sample. The datasets are strata and no sample of datasets: the errors say how well these
    are known. `sentence` is for people."""

    metric: str
    model: str
    prompt: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    macro: Estimate = NO_ESTIMATE
    micro: Estimate = NO_ESTIMATE
    note: str = ""
    sentence: str = ""


@frozen
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


@frozen
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


@frozen
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


@frozen
class GradeShare(Estimate):
    """How often one grade of the menu was given; "undecided": judges who voted equally often for two; "no
    grade": none could be read."""

    grade: str = ""
    hits: int = 0


@frozen
class GradesOf:
    """The grades that one judge, or all of them together, gave the `n` answers that were asked about."""

    judge: str
    n: int = 0
    shares: tuple[GradeShare, ...] = ()


@frozen
class JudgeKappa(Estimate):
    """Cohen's kappa of a judge with another, or with people (`other` is "")."""

    judge: str = ""
    other: str = ""


@frozen
class JudgeExample:
    """A sample on which grades differ: `what` says between whom, `grades` are the judges' in their order; ""
    where there is none. `reason` is the beginning of what the judges wrote."""

    sample_id: str
    repeat: int = 0
    what: str = ""
    person: str = ""
    grades: tuple[str, ...] = ()
    reason: str = ""


@frozen
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


@frozen
class StepPoint:
    """One checkpoint on a curve. `low` and `high` hold for all steps of the curve at once. `behind` is how
    much worse than the step that looks best it is, sample by sample, with bounds and p for all pairs of steps
    at once; None for that step itself. `verdict` "behind": shown to be worse by more than the margin."""

    step: int
    run: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    behind: float | None = None
    behind_low: float | None = None
    behind_high: float | None = None
    p: float | None = None
    verdict: StandingVerdict = "incomparable"
    note: str = ""


@frozen
class Trend:
    """Whether a metric goes with the steps: Kendall's tau between step and mean (positive: it gets better), p
    by turning the order of steps around in random samples; and the last third of the steps minus the middle
    third, sample by sample, in the metric's own sign."""

    tau: float | None = None
    p: float | None = None
    late: PairedResult | None = None


@frozen
class StepCurve:
    """One metric over the steps of a line of checkpoints, over the `n` samples that all steps have.

    `looks_best` is the step with the best mean; `best` the earliest that is not shown to be worse than it by
    more than `margin`. `worth` is what picking the best mean is worth on samples that did not pick: the mean
    over random halves of the score, on the other half, of the step that one half picked.
    """

    metric: str
    unit: str
    direction: Direction
    n: int = 0
    points: tuple[StepPoint, ...] = ()
    best: int | None = None
    looks_best: int | None = None
    margin: float = 0.0
    worth: float | None = None
    trend: Trend = Trend()
    note: str = ""


@frozen
class GapPoint:
    """The gap between groups at one step, what chance alone gives 19 times in 20, p corrected for all steps
    (Holm), and bounds that hold for all pairs of groups at all steps at once."""

    step: int
    run: str
    value: float | None = None
    chance_p95: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None


@frozen
class GapCurve:
    """The gap between the groups of a column by one metric, over the steps."""

    column: str
    metric: str
    unit: str
    points: tuple[GapPoint, ...] = ()


@frozen
class Forgotten:
    """Samples that an earlier step answered right and the last one does not: `share` of the `n` samples, the
    first of them by `sample_ids`. `against_best` compares the last step with the best one."""

    metric: str
    last: int
    count: int
    n: int
    share: float
    sample_ids: tuple[str, ...] = ()
    against_best: PairedResult | None = None


@frozen
class LossPoint:
    """The training's own loss at a step, the loss that it found on its evaluation data, and evalrun's
    negative log-likelihood by token; `gap` is the last minus the first."""

    step: int
    train_loss: float | None = None
    eval_loss: float | None = None
    nll: float | None = None
    gap: float | None = None


@frozen
class CheckpointLine:
    """The checkpoints of one model under one prompt, on one dataset, in step order. The first of `curves` is
    the metric that decides. `sentence` is for people."""

    of: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    training: str = ""
    curves: tuple[StepCurve, ...] = ()
    gaps: tuple[GapCurve, ...] = ()
    forgotten: Forgotten | None = None
    losses: tuple[LossPoint, ...] = ()
    sentence: str = ""


@frozen
class RateAtLoad:
    """How many of the `n` samples that both asked ended in one way (truncated, unparsed, refused, failed) at
    the reference and at the level."""

    what: str
    before: int
    after: int
    n: int
    difference: PairedResult
    p_corrected: float | None = None


@frozen
class QualityAtLoad:
    """A level's scores against those of the reference, `n` samples that both answered.

    `difference` is level - reference, corrected over the levels. `lost` were right at the reference and are
    wrong here, `gained` the other way round. `changed` is the share of texts that differ from the
    reference's,
    `changed_by_noise` that of the reference's second run. `excess` compares flips (right to wrong or back) of
    the level with those between the two runs of the reference: what load adds to noise. `tokens_ratio` is
    the median of output tokens over the reference's. `changed_at` is the median of the characters at which
    texts first differ.
    """

    against: str
    n: int
    difference: PairedResult
    lost: int = 0
    gained: int = 0
    changed: Estimate = NO_ESTIMATE
    changed_by_noise: Estimate | None = None
    excess: PairedResult | None = None
    excess_p: float | None = None
    rates: tuple[RateAtLoad, ...] = ()
    tokens_ratio: float | None = None
    changed_at: float | None = None
    p_corrected: float | None = None
    verdict: Verdict | None = None


@frozen
class LoadPoint:
    """One level of load of a curve. Response times are from the schedule in open loop, else from sending.
    `in_time` and `late` are the answers that kept the promise, and those that did not."""

    run: str
    level: JSON = None
    words: str = ""
    open_loop: bool = False
    concurrency: int | None = None
    rate: float | None = None
    n: int = 0
    failed: int = 0
    offered_rps: Estimate = NO_ESTIMATE
    requests_per_s: Estimate = NO_ESTIMATE
    output_tokens_per_s: Estimate = NO_ESTIMATE
    response_p50_s: Estimate = NO_ESTIMATE
    response_p95_s: Estimate = NO_ESTIMATE
    attainment: Estimate = NO_ESTIMATE
    goodput_rps: Estimate = NO_ESTIMATE
    goodput_right_rps: Estimate = NO_ESTIMATE
    score: Estimate = NO_ESTIMATE
    verdict: str = "undecided"
    banners: tuple[str, ...] = ()
    quality: QualityAtLoad | None = None
    in_time: ScoreInTime | None = None
    late: ScoreInTime | None = None

    @property
    def size(self) -> float:
        """The level as a number: requests in flight, or a second."""
        return float(self.concurrency or self.rate or 0)

    @property
    def spoken(self) -> str:
        """The level in a sentence: "4 requests in flight", "2 requests/s"."""
        if self.concurrency is not None:
            return f"{self.concurrency} request{'s' if self.concurrency > 1 else ''} in flight"
        return self.words if self.rate is None else f"{self.rate:g} requests/s"


@frozen
class LoadCurve:
    """The levels of load of one model, prompt and dataset, from low to high.

    `capacity` is the highest level at which at least `attain` of the requests keep the promise `slo`, None
    where none does or nothing was promised; `certified` where its lower bound does so too, else `estimated`
    (`not confirmed`: a search found a level that did not hold once more).
    `knee` is the load at which throughput stops rising (`analysis.knee`), a description and no promise.
    `reference` is the run that scores are compared with, `again` its repetition. `sentence` is for people.
    """

    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    metric: str = ""
    unit: str = ""
    direction: Direction = "higher"
    slo: tuple[str, ...] = ()
    attain: float = 0.95
    points: tuple[LoadPoint, ...] = ()
    reference: str = ""
    again: str = ""
    reference_score: Estimate = NO_ESTIMATE
    capacity: str | None = None
    certainty: str = ""
    knee: float | None = None
    sentence: str = ""


@frozen
class TaskGroup:
    """A group of published tasks as lm_eval aggregates it, of one model at one point of the matrix.

    `exact` says that the figures are lm_eval's own: every document answered, with token ids.
    """

    group: str
    model: str
    params: Mapping[str, JSON] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    exact: bool = True
    metrics: tuple[MetricValue, ...] = ()


@frozen
class SweepResults:
    """What a sweep as a whole came to.

    `primary` is None where the suite has neither scorers nor gates. `standings` are from best to worst within
    each dataset. `effects`, `sensitivity` and `ablations` are of the primary metric, empty where the matrix
    has nothing of the kind. `lost` are the scores that rows lack, run by run. `judged` is what judges gave.
    `chance` is where answers are among known labels: what is reached without reading the input. `checkpoints`
    is where models are checkpoints of a training: each line of them over its steps. `load`
    are the curves of what was put under load.
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
    chance: tuple[Chance, ...] = ()
    checkpoints: tuple[CheckpointLine, ...] = ()
    load: tuple[LoadCurve, ...] = ()
