"""What a finished sweep says of a system (one model with one prompt and its parameters), by subject.

Each function of FACTS gives the lines of one subject; none computes a figure: they are those of `run.json`
and `sweep.json`, written when the sweep was concluded. A subject of which nothing is known gives no line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from evalrun.analysis.catalogue import FINDINGS
from evalrun.errors import UserError
from evalrun.evidence.document import Evidence, Line
from evalrun.evidence.monitoring import monitoring
from evalrun.reports import numbers
from evalrun.reports.source import Source
from evalrun.results import HEADLINES, Gap, RunResults
from evalrun.tracking.folder import EVENTS, MANIFEST, RUN, SAMPLES, SIGN, SweepFolder
from evalrun.types import MetricValue


@dataclass(frozen=True)
class Facts:
    """A sweep and the runs of the system that a document speaks of, one for each dataset."""

    folder: SweepFolder
    source: Source
    runs: tuple[RunResults, ...]

    @classmethod
    def of(cls, folder: SweepFolder, name: str = "") -> Facts:
        """The system of the run that is named, else of the one that stands best. Raises UserError."""
        from evalrun.tracking.samples import find_run

        source = Source.of(folder)
        if not source.runs:
            raise UserError("no run is finished: there is nothing to say of it", where=folder.path.name)
        best = next((s.run for s in source.results.standings if s.verdict == "best"), source.runs[0].run)
        name = find_run(folder, name) if name else best
        chosen = next(run for run in source.runs if run.run == name)
        same = [r for r in source.runs if _system(r) == _system(chosen) and r.dataset != chosen.dataset]
        return cls(folder, source, (chosen, *same))

    @cached_property
    def manifest(self) -> Any:
        """What `sweep.json` says, typed."""
        return self.source.manifest

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The trail of the sweep."""
        return self.folder.events()

    @property
    def primary(self) -> str:
        """The metric that runs are ranked by; empty where there is none."""
        primary = self.source.results.primary
        return primary.metric if primary else ""


def _system(run: RunResults) -> tuple[str, str, str]:
    return run.model, run.prompt, repr(sorted(run.params.items(), key=str))


def in_manifest(at: str) -> Evidence:
    """The manifest, at a key."""
    return Evidence(MANIFEST, at)


def in_run(run: RunResults, at: str, command: str = "") -> Evidence:
    """A run's results, at a key."""
    return Evidence(f"runs/{run.run}/{RUN}", at, command)


def metric_line(facts: Facts, run: RunResults, metric: MetricValue, label: str = "") -> Line:
    """A figure with its unit, interval and n."""
    slice_ = "".join(f"[{name}={value}]" for name, value in metric.slice.items())
    of = f" ({run.dataset})" if len(facts.runs) > 1 else ""
    low, high = (
        (metric.bound_low, metric.bound_high) if metric.incomplete else (metric.ci_low, metric.ci_high)
    )
    parts = [numbers.metric(metric), numbers.metric_interval(metric), f"n = {metric.n:,}"]
    if metric.value is None:
        parts = [f"not known: {metric.note or 'the data cannot support it'}", f"n = {metric.n:,}"]
    return Line(
        f"{label or metric.name}{slice_}{of}",
        ", ".join(filter(None, parts)),
        value=metric.value,
        unit=metric.unit,
        n=metric.n,
        low=low,
        high=high,
        evidence=in_run(run, f"metrics: {metric.name}{slice_}", _samples(facts, run)),
    )


def _samples(facts: Facts, run: RunResults) -> str:
    return f"evalrun samples {facts.folder.ulid}/{run.run}"


def scored(facts: Facts, run: RunResults) -> list[MetricValue]:
    """The metrics of a run's scorers over all samples, MOST at most: the one that leads, then those over all
    classes, then those of one class."""
    lead = run.headline or facts.primary
    own = [m for m in run.metrics if m.scorer and not m.slice and not m.name.startswith("fairness.")]
    return sorted(own, key=lambda metric: (metric.name != lead, metric.name.count(".") > 1))[:MOST]


def _system_facts(facts: Facts) -> Iterator[Line]:
    manifest, run = facts.manifest, facts.runs[0]
    yield Line("Evaluation", f"{manifest.name}, sweep {manifest.sweep}", evidence=in_manifest("sweep"))
    when = f"{numbers.moment(manifest.started_at)} to {numbers.moment(manifest.finished_at)}"
    yield Line("When", when, evidence=in_manifest("started_at"))
    model: Mapping[str, Any] = manifest.models.get(run.model) or {}
    names = [run.model, model.get("model"), model.get("revision")]
    yield Line(
        "Model",
        ", ".join(str(n) for n in dict.fromkeys(filter(None, names))),
        evidence=in_manifest(f"models.{run.model}"),
    )
    for key, label in (
        ("weights_sha256", "SHA-256 of the weights"),
        ("base_url", "Served at"),
        ("provider", "Adapter"),
    ):
        if isinstance(model.get(key), str):
            yield Line(label, model[key], evidence=in_manifest(f"models.{run.model}.{key}"))
    card: Mapping[str, Any] = manifest.cards.get(run.model) or {}
    if card:
        from evalrun.reports.card import card_line

        yield Line("Architecture", card_line(card), evidence=in_manifest(f"cards.{run.model}"))


def _software(facts: Facts) -> Iterator[Line]:
    provenance = facts.manifest.provenance
    engine = (facts.manifest.models.get(facts.runs[0].model) or {}).get("engine") or {}
    python = provenance.get("python") or {}
    parts = [f"evalrun {provenance.get('evalrun')}", f"Python {python.get('version')}"]
    parts += [f"{name} {version}" for name, version in engine.items() if isinstance(version, str)]
    yield Line("Software", ", ".join(parts), evidence=in_manifest("provenance"))
    git = provenance.get("git") or {}
    if git.get("commit"):
        state = "with changes that the manifest holds" if git.get("dirty") else "without changes"
        yield Line("Commit", f"{git['commit']}, {state}", evidence=in_manifest("provenance.git"))


def _prompts(facts: Facts) -> Iterator[Line]:
    run = facts.runs[0]
    digest = (facts.manifest.prompts.get(run.prompt) or {}).get("digest", "")
    yield Line("Prompt", f"{run.prompt}, SHA-256 {digest}", evidence=in_manifest(f"prompts.{run.prompt}"))
    params = ", ".join(f"{name} {value}" for name, value in run.params.items()) or "the model's own"
    yield Line("Parameters", params, evidence=in_run(run, "params"))


def _data(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        data: Mapping[str, Any] = facts.manifest.datasets.get(run.dataset) or {}
        source = data.get("source") or {}
        # A file's name, not where it lay on somebody's machine.
        named = [
            str(source[k]).rsplit("/", 1)[-1] if k == "path" else source[k]
            for k in ("path", "hub", "config", "revision", "split")
            if source.get(k)
        ]
        of = ", ".join(map(str, [run.dataset, *named]))
        at = in_manifest(f"datasets.{run.dataset}")
        yield Line(
            f"Test data {run.dataset}",
            f"{of}; {numbers.count(data.get('n') or 0)} rows",
            n=data.get("n"),
            evidence=at,
        )
        yield Line(f"Digest of {run.dataset}", str(data.get("digest", "")), evidence=at)


def _procedure(facts: Facts) -> Iterator[Line]:
    suite = facts.source.suite
    scorers = ", ".join(_component(each) for each in suite.scorers or ()) or "none"
    times = "once" if (suite.repeats or 1) == 1 else f"{suite.repeats} times"
    text = f"every row asked {times}, seed {suite.seed or 0}; scorers: {scorers}"
    yield Line("Procedure", text, evidence=in_manifest("suite.resolved"))
    for run in facts.runs:
        c = run.counts
        ends = {"scored": c.scored, "unparsed": c.unparsed, "refused": c.refused, "failed": c.failed}
        text = f"{c.samples:,} samples: " + ", ".join(f"{count:,} {word}" for word, count in ends.items())
        yield Line(
            f"How samples ended ({run.dataset})",
            text,
            n=c.samples,
            evidence=in_run(run, "counts", _samples(facts, run)),
        )
    for run in facts.runs:
        yield Line(
            f"Every answer ({run.dataset})",
            f"{run.counts.samples:,} rows",
            n=run.counts.samples,
            evidence=Evidence(f"runs/{run.run}/{SAMPLES}", "", _samples(facts, run)),
        )


def _logs(facts: Facts) -> Iterator[Line]:
    yield Line(
        "Test logs",
        f"{len(facts.events)} events, each with the hash of the one before",
        n=len(facts.events),
        evidence=Evidence(EVENTS, "", f"evalrun audit verify {facts.manifest.sweep}"),
    )


def _component(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else str(next(iter(value), ""))
        if isinstance(value, Mapping)
        else "one of its own"
    )


def _accuracy(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        yield from (metric_line(facts, run, metric) for metric in scored(facts, run))
    for chance in facts.source.results.chance:
        if chance.run in {run.run for run in facts.runs}:
            above = "better than that" if chance.above else "not shown to be better than that"
            tested = f"{numbers.tested(chance.p)}, n = {chance.n:,}"
            text = f"{numbers.fixed(chance.level)} is reached by {chance.by}; the system is {above}, {tested}"
            yield Line(
                f"Without reading the input ({chance.dataset})",
                text,
                value=chance.level,
                n=chance.n,
                evidence=in_manifest("results.chance"),
            )


def _lead(facts: Facts) -> Iterator[Line]:
    """The metric that leads, of each dataset."""
    for run in facts.runs:
        metric = run.metric(run.headline or facts.primary)
        if metric is not None:
            yield metric_line(facts, run, metric)


def _privacy(facts: Facts) -> Iterator[Line]:
    """What was removed before it was stored, and what a gate on `privacy.findings` counted since."""
    from evalrun.suite.privacy import PrivacySpec

    said = (facts.folder.read_manifest()["suite"].get("resolved") or {}).get("privacy")
    spec = PrivacySpec.model_validate(said) if said else None
    if spec is not None and spec.active:
        parts = [f"recognisers: {spec.redact}"]
        parts += [f"known values: {', '.join(spec.known)}"] if spec.known else []
        parts += [f"{name}: {rule}" for name, rule in spec.rules.items()]
        at = in_manifest("suite.resolved.privacy")
        yield Line("Removed from texts before they were stored", "; ".join(parts), evidence=at)
    for run in facts.runs:
        if (metric := run.metric(FINDINGS.name)) is not None:
            yield metric_line(facts, run, metric)


def _standings(facts: Facts) -> Iterator[Line]:
    """All runs of the sweep on the datasets of the system, by the metric that decides."""
    by_id, datasets = {run.run: run for run in facts.source.runs}, {run.dataset for run in facts.runs}
    shown = [s for s in facts.source.results.standings if s.dataset in datasets and s.run in by_id]
    for standing in shown[:MOST]:
        metric = by_id[standing.run].metric(standing.metric)
        if metric is not None:
            line = metric_line(facts, by_id[standing.run], metric, f"{standing.run}: {metric.name}")
            yield replace(line, text=f"{standing.verdict}: {line.text}")


def _definitions(facts: Facts) -> Iterator[Line]:
    seen = {m.name: run for run in reversed(facts.runs) for m in scored(facts, run)}
    for name, run in seen.items():
        said = run.details.definitions.get(name)
        if said is not None and said.definition:
            yield Line(name, said.definition, evidence=in_run(run, f"details.definitions.{name}"))


def _groups(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        lead = run.headline or facts.primary
        yield from (metric_line(facts, run, m) for m in run.metrics if m.slice and m.name == lead)
        for column, groups in run.details.groups.items():
            measure = groups.metrics.get(lead)
            if measure is not None and measure.gap is not None and measure.gap.value is not None:
                n = sum(group.n for group in measure.groups if group.compared)
                yield Line(
                    f"Gap by {column} in {lead}",
                    f"{_gap(measure.gap)}, n = {n:,}",
                    value=measure.gap.value,
                    n=n,
                    evidence=in_run(run, f"details.groups.{column}"),
                )
        for bias in run.details.bias:
            yield Line(
                f"Bias: {bias.metric}",
                f"{bias.sentence} n = {bias.n:,}",
                value=bias.value,
                n=bias.n,
                low=bias.low,
                high=bias.high,
                evidence=in_run(run, "details.bias"),
            )


def _gap(gap: Gap) -> str:
    text = f"{numbers.fixed(gap.value)} between {gap.best} and {gap.worst}"
    if gap.p_decides is None:
        return text
    word = "wider than" if gap.wider_than_chance else "within"
    return f"{text}; {word} chance, {numbers.tested(gap.p_decides)}"


def _limits(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        for name in ("unparsed_rate", "refused_rate", "error_rate"):
            if (metric := run.metric(name)) is not None:
                yield metric_line(facts, run, metric)
        for lost in run.details.lost:
            if lost.lost:
                yield Line(
                    f"Lost scores of {lost.scorer}",
                    f"{lost.lost:,} of {lost.of:,}: {lost.cause}",
                    n=lost.of,
                    evidence=in_run(run, "details.lost"),
                )
        worst = [
            m
            for m in run.metrics
            if not m.slice and m.value is not None and m.name.startswith("classification.recall.")
        ]
        if worst:
            least = min(worst, key=lambda metric: metric.value or 0.0)
            yield metric_line(facts, run, least, f"least recognised class, {least.name}")


def _robustness(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        for axis, versions in run.details.versions.items():
            flips = versions.flips.overall
            if flips.value is not None:
                share = numbers.measured(flips.value, flips.low, flips.high)
                text = f"{share} of answers change, n = {flips.n:,}"
                yield Line(
                    f"Other versions of a sample: {axis}",
                    text,
                    value=flips.value,
                    n=flips.n,
                    low=flips.low,
                    high=flips.high,
                    evidence=in_run(run, f"details.versions.{axis}"),
                )


def _judges(facts: Facts) -> Iterator[Line]:
    for judged in facts.source.results.judged:
        for kappa in judged.kappas if judged.run in {run.run for run in facts.runs} else ():
            if kappa.value is not None:
                text = f"kappa {numbers.measured(kappa.value, kappa.low, kappa.high)}, n = {kappa.n:,}"
                yield Line(
                    f"{judged.scorer}: {kappa.judge} with {kappa.other or 'people'}",
                    text,
                    value=kappa.value,
                    n=kappa.n,
                    low=kappa.low,
                    high=kappa.high,
                    evidence=in_manifest("results.judged"),
                )


def _gates(facts: Facts) -> Iterator[Line]:
    names = {run.run for run in facts.runs}
    for gate in facts.source.results.gates:
        if not gate.run or gate.run in names:
            value = "" if gate.value is None else f", value {numbers.significant(gate.value)}"
            yield Line(
                f"Gate {gate.gate}",
                f"{gate.verdict}{value}",
                value=gate.value,
                n=gate.n,
                evidence=in_manifest("gates"),
            )


def _resources(facts: Facts) -> Iterator[Line]:
    provenance = facts.manifest.provenance
    machine: Mapping[str, Any] = provenance.get("machine") or {}
    parts = [str(machine.get("cpu")), f"{machine.get('cores_usable')} cores"]
    parts.append(numbers.size(machine.get("memory_bytes")))
    parts += [str(gpu.get("name")) for gpu in provenance.get("gpus") or () if isinstance(gpu, Mapping)]
    yield Line("Machine of the test", ", ".join(parts), evidence=in_manifest("provenance.machine"))
    for run in facts.runs:
        if (wall := run.timings.wall_s) is not None:
            yield Line(
                f"Time of the test ({run.dataset})",
                numbers.seconds(wall),
                value=wall,
                unit="s",
                n=run.counts.samples,
                evidence=in_run(run, "timings.wall_s"),
            )
        for metric in run.metrics:
            if not metric.slice and metric.value is not None and metric.name in RESOURCES:
                yield metric_line(facts, run, metric)


def _speed(facts: Facts) -> Iterator[Line]:
    for run in facts.runs:
        for name in HEADLINES:
            if (metric := run.metric(name)) is not None and metric.value is not None:
                yield metric_line(facts, run, metric)


def _changes(facts: Facts) -> Iterator[Line]:
    previous = facts.manifest.previous
    if previous is not None:
        changed = "; ".join(previous.changed) or "nothing changed"
        text = f"{previous.name} of {numbers.moment(previous.started_at)}: {changed}"
        yield Line("Evaluated before as", text, evidence=in_manifest("previous"))
        for run in previous.runs:
            if run.run in {each.run for each in facts.runs} and run.difference is not None:
                change = numbers.measured(run.difference, run.ci_low, run.ci_high, sign=True)
                text = f"{run.verdict}: {change}, n = {run.n:,}"
                yield Line(
                    f"{previous.metric} against it",
                    text,
                    value=run.difference,
                    n=run.n,
                    low=run.ci_low,
                    high=run.ci_high,
                    evidence=in_manifest("previous"),
                )
    for event in facts.events:
        if event["action"] in ("promote", "deploy"):
            what = event["detail"].get("as") or event["detail"].get("env")
            yield Line(
                f"{event['action']} {what}",
                f"by {event['actor']}, {event['ts'][:19]}: {event['detail'].get('reason', '')}",
                evidence=Evidence(EVENTS, f"event {event['seq']}"),
            )


def _signed(facts: Facts) -> Iterator[Line]:
    for event in facts.events:
        if event["action"] == SIGN:
            detail = event["detail"]
            role = f", {detail['role']}" if detail.get("role") else ""
            yield Line(
                "Signed",
                f"{detail.get('identity')}{role}, {event['ts'][:19]}",
                evidence=Evidence(
                    f"signatures/{detail.get('file')}",
                    "",
                    f"evalrun audit verify {facts.folder.ulid} --signers FILE",
                ),
            )


MOST = 12
"""So many metrics of a run a document shows; the rest are in its `run.json`."""
RESOURCES = ("energy.cpu_j", "energy.gpu_j", "cost.usd")

FACTS: Mapping[str, Callable[[Facts], Iterator[Line]]] = {
    "system": _system_facts, "software": _software, "prompts": _prompts, "data": _data,
    "procedure": _procedure, "accuracy": _accuracy, "standings": _standings, "groups": _groups,
    "definitions": _definitions, "logs": _logs, "lead": _lead, "privacy": _privacy,
    "limits": _limits, "robustness": _robustness, "judges": _judges, "gates": _gates,
    "resources": _resources, "speed": _speed, "changes": _changes, "signed": _signed,
    "monitoring": monitoring,
}  # fmt: skip


def lines_of(facts: Facts, names: Sequence[str]) -> list[Line]:
    """The lines of several subjects."""
    return [line for name in names for line in FACTS[name](facts)]
