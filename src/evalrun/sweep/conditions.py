"""The gates and alerts of a suite, read and held against what its runs can have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evalrun.errors import Problem, Problems
from evalrun.gates.conditions import Gate, parse_gate

if TYPE_CHECKING:
    from evalrun.gates.alerts import Alert
    from evalrun.scoring.base import Scorer
    from evalrun.suite.load import LoadedSuite
    from evalrun.suite.plan import RunSpec


def parse_gates(loaded: LoadedSuite, problems: Problems) -> tuple[Gate, ...]:
    gates = []
    for at, text in enumerate(loaded.suite.gates):
        gate = parse_gate(text)
        if isinstance(gate, Problem):
            problems.found.append(replace(gate, where=loaded.locate("gates", at)))
        else:
            gates.append(gate)
    return tuple(gates)


def parse_alerts(loaded: LoadedSuite, problems: Problems) -> tuple[Alert, ...]:
    if loaded.suite.alerts is None:
        return ()
    from evalrun.gates.alerts import parse_alert

    alerts = []
    for at, text in enumerate(loaded.suite.alerts.when):
        alert = parse_alert(text)
        if isinstance(alert, Problem):
            problems.found.append(replace(alert, where=loaded.locate("alerts", "when", at)))
        else:
            alerts.append(alert)
    return tuple(alerts)


def unknown_conditions(
    loaded: LoadedSuite,
    specs: Sequence[RunSpec],
    scorers: Sequence[Scorer],
    gates: Sequence[Gate],
    alerts: Sequence[Alert],
) -> Iterator[Problem]:
    """Gates and alerts that speak of what no run of the suite can have."""
    from evalrun.gates.conditions import FEEDBACK, TLS, speakable, unknown

    scopes = {
        "model": {
            *loaded.declared["models"],
            *(spec.model.id for spec in specs),
            *(spec.model.checkpoint.of for spec in specs if spec.model.checkpoint is not None),
        },
        "prompt": {*loaded.declared["prompts"], *(spec.prompt.id for spec in specs)},
        "dataset": {*loaded.declared["datasets"], *(spec.dataset.id for spec in specs)},
        "load": {word for spec in specs for word in _level_words(spec)},
    }
    about = speakable(loaded.suite, scorers, scopes)
    written = [text.strip() for text in loaded.suite.gates]
    for gate in gates:
        where = loaded.locate("gates", written.index(gate.text))
        yield from (replace(each, where=where) for each in unknown(gate, about))
    when = [text.strip() for text in loaded.suite.alerts.when] if loaded.suite.alerts is not None else []
    for alert in alerts:
        if alert.kind in ("training", "slo"):  # of what a training logs nothing is known before
            continue
        if alert.kind == "drift" or alert.metric == TLS or alert.metric.startswith(FEEDBACK):
            continue
        where = loaded.locate("alerts", "when", when.index(alert.text))
        yield from (replace(each, where=where) for each in unknown(alert.gate, about, "alert"))


def _level_words(spec: RunSpec) -> tuple[str, ...]:
    from evalrun.gates.conditions import level_words

    return level_words({"params": spec.axes, "role": spec.load.role}) if spec.load is not None else ()
