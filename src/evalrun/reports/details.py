"""The report's quieter parts: confusion matrices, failures, how numbers were made, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.card import card_rows as card_rows
from evalrun.reports.numbers import NONE, count, moment, plural, size
from evalrun.reports.source import Manifest, Performance, Suite
from evalrun.reports.view import RunView, Table
from evalrun.reports.visible import visible
from evalrun.results import Confusion, Definition
from evalrun.sweep_results import TaskGroup
from evalrun.tracking.naming import plain_value
from evalrun.types import JSON, MetricValue

MOST_CAUSES = 12
"""Causes of failures that are told one by one."""


@frozen
class ConfusionCell:
    """A count, its share of the row, and a shade from 0 to 9. `right` where target and answer agree."""

    count: int
    share: str
    shade: int
    right: bool


@frozen
class ConfusionView:
    """A confusion matrix: rows are targets with their totals, columns answers."""

    run: RunView
    scorer: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ConfusionCell], int]]


def confusions(runs: Sequence[RunView]) -> list[ConfusionView]:
    """The matrices of the runs, in their order, without those of too many classes."""
    return [
        ConfusionView(run, scorer, found.columns, [_row(found, at) for at in range(len(found.labels))])
        for run in runs
        for scorer, found in run.details.confusion.items()
        if found.labels
    ]


def _row(found: Confusion, at: int) -> tuple[str, list[ConfusionCell], int]:
    counts = [int(each) for each in found.counts[at]]
    total = sum(counts)
    cells = [
        ConfusionCell(each, f"{each / total:.0%}" if total else NONE, round(9 * each / total) if total else 0,
                      at == column)
        for column, each in enumerate(counts)
    ]  # fmt: skip
    return found.labels[at], cells, total


def _errors(run: RunView) -> list[tuple[str, str, int]]:
    """Why samples failed or could not be parsed: the ending, the reason, how many; the commonest first."""
    listed = [(status, kind, n) for status, kinds in run.details.errors.items() for kind, n in kinds.items()]
    return sorted(listed, key=lambda each: -each[2])


def task_groups(groups: Sequence[TaskGroup]) -> Table | None:
    """Groups of published tasks, with the interval that lm_eval's standard error gives; None without any."""
    rows = [
        (
            " ".join([group.group, *(f"{name}={value}" for name, value in group.params.items())]),
            group.model,
            value.name,
            f"{numbers.metric(value)} {numbers.metric_interval(value)}".strip(),
            count(value.n),
            count(len(group.tasks)),
            "" if group.exact else "not comparable to lm_eval, or documents are missing",
        )
        for group in groups
        for value in group.metrics
    ]
    if not rows:
        return None
    names = ("group", "model", "metric", "value", "documents", "tasks", "")
    shown = len(names) if any(row[-1] for row in rows) else len(names) - 1
    cut = [row[:shown] for row in rows]
    return Table("Groups of tasks, as lm_eval aggregates them", names[:shown], cut, frozenset({3, 4, 5}))


def causes(runs: Sequence[RunView]) -> Table | None:
    """Why answers failed or could not be parsed over all runs, the commonest first; None where one run, or
    none, has any."""
    totals: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        for status, kind, times in _errors(run):
            totals.setdefault((status, kind), []).append(times)
    if not any(len(counts) > 1 for counts in totals.values()):
        return None
    samples = max(1, sum(run.counts.samples for run in runs))
    ordered = sorted(totals.items(), key=lambda item: -sum(item[1]))
    rows = [
        (status, kind, count(sum(counts)), f"{sum(counts) / samples:.1%}", count(len(counts)))
        for (status, kind), counts in ordered[:MOST_CAUSES]
    ]
    rest = [sum(counts) for _, counts in ordered[MOST_CAUSES:]]
    if rest:
        kinds = plural(len(rest), "rarer cause")
        rows.append(("", kinds, count(sum(rest)), f"{sum(rest) / samples:.1%}", ""))
    names = ("ending", "cause", "samples", "share of samples", "runs")
    title = "Answers that failed or could not be parsed, by cause over all runs"
    return Table(title, names, rows, frozenset({2, 3, 4}))


def failures(runs: Sequence[RunView]) -> Table | None:
    """The same counted by run; None where all went well."""
    rows = [
        (run.full, status, kind, count(times), f"{times / max(1, run.counts.samples):.1%}")
        for run in runs
        for status, kind, times in _errors(run)
    ]
    names = ("run", "ending", "cause", "samples", "share of samples")
    title = "Answers that failed or could not be parsed, by run and cause"
    return Table(title, names, rows, frozenset({3, 4})) if rows else None


@frozen
class DefinitionView:
    """What a metric means, and how its values here were made."""

    name: str
    definition: str
    unit: str
    better: str
    n: str
    methods: str
    notes: Sequence[str]


_METHODS = {
    "wilson": "Wilson score interval",
    "t": "Student's t",
    "clustered-t": "Student's t over clusters",
    "bootstrap": "bootstrap percentile",
    "order-statistic": "order statistics",
    "betting": "confidence sequence by betting, which holds however often one looks",
    "woodruff": "Woodruff, answers as clusters",
    "block-bootstrap": "bootstrap of blocks of time",
    "moving-blocks": "bootstrap of blocks of neighbouring requests",
    "fisher-z": "influence of each sample, Fisher's z",
    "logit-t": "influence of each sample, logit scale",
    "log-t": "influence of each sample, log scale",
    "influence": "influence of each sample",
}
_BETTER = {"higher": "higher is better", "lower": "lower is better"}
_NOTES = 4


def definitions(runs: Sequence[RunView], first: Sequence[str]) -> list[DefinitionView]:
    """Every metric over all samples, those named in `first` at the front, gaps last."""
    known = {name: found for run in runs for name, found in run.details.definitions.items()}
    figures: dict[str, list[MetricValue]] = {}
    for run in runs:
        for metric in run.results.metrics:
            if not metric.slice:
                figures.setdefault(metric.name, []).append(metric)
    ordered = sorted(figures, key=lambda name: (name not in first, name.startswith("fairness.")))
    return [_definition(name, known.get(name), figures[name]) for name in ordered]


def _definition(name: str, own: Definition | None, figures: Sequence[MetricValue]) -> DefinitionView:
    """`own` is what the folder says of the metric; folders of earlier versions do not say it of all."""
    from evalrun.analysis.definitions import definition

    sizes = sorted({figure.n for figure in figures})
    n = count(sizes[0]) if len(sizes) == 1 else f"{count(sizes[0])} to {count(sizes[-1])}"
    methods = dict.fromkeys(_METHODS.get(f.method, f.method) for f in figures if f.method)
    notes = dict.fromkeys(figure.note for figure in figures if figure.note)
    return DefinitionView(
        name=name,
        definition=own.definition if own and own.definition else definition(name).definition,
        unit=figures[0].unit,
        better=_BETTER.get(figures[0].direction, "descriptive"),
        n=n,
        methods=", ".join(methods) or "no interval",
        notes=list(notes)[:_NOTES],
    )


def pipeline(suite: Suite) -> list[tuple[str, str]]:
    """What was done to each answer, in words: parsers, scorers, repeats, warm-up."""
    asked = suite.performance or Performance()
    none = "none: the output, stripped, is the answer"
    own = [
        (f"parsers of prompt {prompt.id}", " → ".join(map(_component, prompt.parse)) or none)
        for prompt in suite.prompts or ()
        if prompt.parse is not None
    ]
    deadline = NONE if asked.timeout_s is None else f"{asked.timeout_s:g}"
    found = [
        ("parsers, in order", " → ".join(map(_component, suite.parse or ())) or none),
        *own,
        ("scorers", ", ".join(_component(scorer) for scorer in suite.scorers or ())),
        ("unparsed answers", "left out of scores" if suite.unparsed == "exclude" else "count as wrong"),
        ("repeats of each row", str(suite.repeats or 1)),
        ("streaming", "yes" if asked.stream else "no: there is no time to first token"),
        ("warm-up requests per run", f"{asked.warmup or 0}, left out of speed"),
        (
            "deadline per sample",
            f"{deadline} s, retries included" if not suite.load else f"{deadline} s; nothing is asked twice",
        ),
        *_load(suite.load or {}),
    ]
    return [(name, value) for name, value in found if value]


def _load(load: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """What was offered, as the suite says it, and how its figures are to be read."""
    if not load:
        return []
    words = {
        "concurrency": "requests in flight (closed loop: the next is sent when an answer is there)",
        "rates": "requests a second (open loop: sent when due, however slow the server is)",
        "search": "the highest that keeps the promise, by probes",
    }
    given = [f"{plain_value(load[key])} {said}" for key, said in words.items() if load.get(key)]
    arrivals = load.get("arrivals") or "poisson"
    own = isinstance(arrivals, Mapping) and ("trace" in arrivals or "ramp" in arrivals)
    lasting = load.get("seconds")
    until = f"{lasting} s" if lasting else f"{load.get('requests') or 'every row once:'} requests"
    found = [
        ("load", "; ".join(given)),
        ("arrivals", plain_value(arrivals) if load.get("rates") or own else ""),
        ("each level", "" if load.get("search") else until.replace("once: requests", "once")),
        ("promise", ", ".join(map(str, slo)) if isinstance(slo := load.get("slo"), list) else ""),
        ("right is", str(load.get("right") or "")),
    ]
    return [(name, value) for name, value in found if value]


def _component(entry: JSON) -> str:
    """`regex(pattern=Label: (\\w+))`: the name and the options that are set."""
    if not isinstance(entry, Mapping) or not entry:
        return str(entry)
    name, options = next(iter(entry.items()))
    if name == "python":
        name, options = str(options), entry.get("args")
    if not isinstance(options, Mapping):
        return str(name) if options is None else f"{name}({plain_value(options)})"
    given = ", ".join(
        f"{key}={plain_value(value)}" for key, value in options.items() if value not in (None, False, [], {})
    )
    return f"{name}({given})" if given else str(name)


def provenance(manifest: Manifest) -> list[tuple[str, str]]:
    """Where the sweep came from, as name and value."""
    found = manifest.provenance
    git, machine, python = found.get("git") or {}, found.get("machine") or {}, found.get("python") or {}
    rows = [
        ("sweep", manifest.sweep),
        ("project", manifest.project),
        ("started", moment(manifest.started_at)),
        ("finished", moment(manifest.finished_at)),
        ("command", " ".join(["evalrun", *map(str, found.get("argv") or [])])),
        ("evalrun", found.get("evalrun")),
        ("git commit", _git(git)),
        ("git branch", git.get("branch") if isinstance(git, Mapping) else None),
        ("Python", python.get("version") if isinstance(python, Mapping) else python),
        *_machine(machine),
        ("user", found.get("user")),
        ("CI job", found.get("ci_url")),
        ("root seed", manifest.seeds.get("root")),
        ("suite", manifest.suite.path),
        ("suite digest", manifest.suite.digest),
        ("tags", ", ".join(f"{key}={value}" for key, value in manifest.tags.items())),
    ]
    return [(name, _text(value)) for name, value in rows if value not in (None, "", NONE)]


SHORT = 10
"""Letters of a commit that name it."""


def commit_of(manifest: Manifest) -> str:
    """The commit that a sweep was run at, in short; "" where none is known."""
    git = manifest.provenance.get("git")
    commit = git.get("commit") if isinstance(git, Mapping) else None
    if not isinstance(git, Mapping) or not commit:
        return ""
    return f"{str(commit)[:SHORT]}{' with uncommitted changes' if git.get('dirty') else ''}"


def _git(git: JSON) -> str | None:
    if not isinstance(git, Mapping):
        return None
    commit = git.get("commit")
    if not commit:
        why = str(git.get("unavailable") or "")
        return "not a git repository" if "not a git repository" in why else why or None
    dirty = git.get("dirty")
    return f"{commit}{' with uncommitted changes' if dirty else ''}"


def _machine(machine: JSON) -> list[tuple[str, JSON]]:
    if not isinstance(machine, Mapping):
        return []
    rows = []
    for key, value in machine.items():
        if isinstance(value, (int, float)) and key.endswith("_bytes"):
            rows.append((f"machine: {key.removesuffix('_bytes').replace('_', ' ')}", size(value)))
        elif value not in (None, "", [], {}):
            rows.append((f"machine: {key.replace('_', ' ')}", value))
    return rows


def _text(value: JSON) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value if isinstance(value, str) else plain_value(value)


def facts_of(document: Mapping[str, JSON], skip: Sequence[str] = ()) -> list[tuple[str, str]]:
    """A mapping of the manifest as rows, nested mappings flattened by dots, nothing empty."""
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        if key in skip or value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", text) for inner, text in facts_of(value)]
        else:
            rows.append((key.replace("_", " "), _text(value)))
    return rows


def texts_of(source: Mapping[str, JSON], under: str = "") -> list[tuple[str, str]]:
    """The texts of a prompt's source, each with the name or path it has there."""
    found: list[tuple[str, str]] = []
    for key, value in source.items():
        name = f"{under}{key}"
        if isinstance(value, Mapping):
            found += texts_of(value, f"{name} / ")
        elif isinstance(value, str):
            found.append((name, value))
        elif value not in (None, [], {}):
            found.append((name, plain_value(value)))
    return found


def packages(manifest: Manifest) -> list[str]:
    """Installed packages as `name version`."""
    found = manifest.provenance.get("packages") or []
    if isinstance(found, Mapping):
        return [f"{name} {version}" for name, version in found.items() if name != "unavailable"]
    return [f"{each.get('name')} {each.get('version')}" for each in found if isinstance(each, Mapping)]


def all_metrics(runs: Sequence[RunView]) -> Table:
    """Every metric of every run, for reading and download."""
    rows = []
    for run in runs:
        for metric in run.results.metrics:
            where = visible(", ".join(f"{key}={value}" for key, value in metric.slice.items()))
            ends = (
                NONE if end is None else f"{end:.6g}" for end in (metric.value, metric.ci_low, metric.ci_high)
            )
            rows.append(
                (
                    run.full,
                    metric.name,
                    where,
                    *ends,
                    count(metric.n),
                    metric.unit,
                    metric.method,
                    visible(metric.note),
                )
            )
    columns = ("run", "metric", "slice", "value", "low", "high", "n", "unit", "method", "note")
    return Table("Every metric of every run", columns, rows, frozenset({3, 4, 5, 6}))
