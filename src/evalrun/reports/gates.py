"""Gates and alerts as they are shown: report, terminal, JUnit XML, Markdown, lines of GitHub Actions.

Texts in these come from suites and models, and may be meant to harm: control characters that XML cannot hold
are replaced, Markdown and HTML are taken as text, and a line break cannot begin a command of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from evalrun.atomic import disk_errors
from evalrun.reports.numbers import count, decimals_for, fixed, interval, quantity
from evalrun.reports.view import Figure, RunView
from evalrun.reports.visible import terminal
from evalrun.types import JSON


@dataclass(frozen=True, slots=True)
class GateView:
    """One gate on one run. `verdict` is "pass", "inconclusive" (the samples cannot tell) or "fail"."""

    gate: str
    run: str
    verdict: str
    value: str
    interval: str
    n: str
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the gate holds."""
        return self.verdict == "pass"


VERDICTS = ("fail", "inconclusive", "pass")


def tally(views: Sequence[GateView]) -> list[tuple[str, int]]:
    """How many gate checks ended how, the failed ones first; what did not occur is left out."""
    counts = [(verdict, sum(view.verdict == verdict for view in views)) for verdict in VERDICTS]
    return [(verdict, count) for verdict, count in counts if count]


def gates(results: Sequence[Mapping[str, JSON]], runs: Sequence[RunView]) -> list[GateView]:
    """The gates' verdicts, the failed ones first, with the figure each was held against."""
    by_id = {run.run: run for run in runs}
    views = []
    for result in results:
        run = by_id.get(result.get("run") or "")
        text = str(result.get("gate") or "")
        figure = run.figure(text.split(" ")[0]) if run else None
        value = result.get("value")
        verdict = str(result.get("verdict") or "")
        shown = quantity(value, figure.unit, figure.decimals) if figure else fixed(value, 3)
        views.append(
            GateView(
                gate=text,
                run=run.full if run else str(result.get("run") or "all runs"),
                verdict=verdict if verdict in VERDICTS else "fail",
                value=shown,
                interval=_gate_interval(result, figure),
                n=count(result.get("n") or figure.n) if figure else count(result.get("n")),
                reason=str(result.get("reason") or ""),
            )
        )
    return sorted(views, key=lambda view: VERDICTS.index(view.verdict))


def _gate_interval(result: Mapping[str, JSON], figure: Figure | None) -> str:
    """That of the difference to the baseline where the gate tested one, else the metric's own."""
    low, high = result.get("ci_low"), result.get("ci_high")
    if low is None or high is None:
        return figure.interval if figure else ""
    decimals = decimals_for((high - low) / 2)
    change = fixed(result.get("difference"), decimals, sign=True)
    return f"change {change} {interval(low, high, decimals, sign=True)}"


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>@$:])")
_VERDICTS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}
_MOST_RUNS = 50


def junit(manifest: Mapping[str, Any], strict: bool = False) -> str:
    """The gates as JUnit XML, one test case a gate and run. Inconclusive: skipped, or failed if `strict`."""
    gates = list(manifest["gates"])
    failed = [gate for gate in gates if _fails(gate, strict)]
    skipped = sum(gate["verdict"] == "inconclusive" for gate in gates) if not strict else 0
    name = _attribute(f"evalrun {manifest['name']}")
    counts = f'tests="{len(gates)}" failures="{len(failed)}" errors="0" skipped="{skipped}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites name={name} {counts}>"]
    lines.append(f"<testsuite name={name} {counts} timestamp={_attribute(manifest['started_at'][:19])}>")
    for gate in gates:
        place = _attribute(gate["run"] or manifest["name"])
        lines.append(f"<testcase classname={place} name={_attribute(gate['gate'])}>")
        said = _sentence(gate)
        if _fails(gate, strict):
            lines.append(f"<failure message={_attribute(said)}>{_text(said)}</failure>")
        elif gate["verdict"] == "inconclusive":
            lines.append(f"<skipped message={_attribute('inconclusive: ' + said)}/>")
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite>", "</testsuites>"]) + "\n"


def markdown(manifest: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """The sweep as a Markdown summary: gates, then the first metrics of each run."""
    title = f"## evalrun: {_plain(manifest['name'])} ({_plain(manifest['status'])})"
    lines = [title, "", f"Sweep `{re.sub(r'[^0-9A-Z]', '', manifest['sweep'])}`"]
    if manifest["gates"]:
        lines += ["", "| gate | run | verdict | value | |", "| --- | --- | --- | ---: | --- |"]
        for gate in manifest["gates"]:
            value = "" if gate["value"] is None else f"{gate['value']:.4g}"
            cells = (_plain(gate["gate"]), _plain(gate["run"]), _VERDICTS[gate["verdict"]], value)
            lines.append("| " + " | ".join((*cells, _plain(gate["reason"]))) + " |")
    fired = [alert for alert in manifest.get("alerts") or () if alert["fired"]]
    if fired:
        lines += ["", "| alert | run | value | |", "| --- | --- | ---: | --- |"]
        for alert in fired:
            value = "" if alert["value"] is None else f"{alert['value']:.4g}"
            cells = (f"🔔 {_plain(alert['alert'])}", _plain(alert["run"]), value, _plain(alert["reason"]))
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| run | samples | failed | metric | value | 95 % interval | n |"]
    lines.append("| --- | ---: | ---: | --- | ---: | --- | ---: |")
    for run in runs[:_MOST_RUNS]:
        whole = [metric for metric in run["metrics"] if not metric["slice"] and metric["value"] is not None]
        for metric in whole[:3]:
            lines.append(_metric_row(run, metric))
    if len(runs) > _MOST_RUNS:
        lines += ["", f"{len(runs) - _MOST_RUNS} more runs are in the report."]
    return "\n".join(lines) + "\n"


def workflow_lines(manifest: Mapping[str, Any], strict: bool = False) -> list[str]:
    """What GitHub Actions shows at the job: `::error` for failed gates, `::warning` for undecided ones."""
    lines = []
    for gate in manifest["gates"]:
        if gate["verdict"] != "pass":
            kind = "error" if _fails(gate, strict) else "warning"
            text = f"{gate['gate']} ({gate['run']}): {gate['verdict']}, {_sentence(gate)}"
            lines.append(f"::{kind} title=evalrun gate::{_command(text)}")
    for alert in manifest.get("alerts") or ():
        if alert["fired"]:
            text = f"{alert['alert']} ({alert['run']}): {_sentence(alert)}"
            lines.append(f"::warning title=evalrun alert::{_command(text)}")
    return lines


def alert_lines(manifest: Mapping[str, Any]) -> list[str]:
    """The alerts that fired, and those that could not be checked, as lines for a terminal."""
    lines = []
    for alert in manifest.get("alerts") or ():
        run = f" ({alert['run']})" if alert["run"] else ""
        if alert["fired"]:
            lines.append(terminal(f"ALERT {alert['alert']}{run}: {_sentence(alert)}", 500))
        elif not alert["checked"]:
            lines.append(terminal(f"alert not checked: {alert['alert']}{run}: {alert['reason']}", 500))
    return lines


def publish(
    manifest: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    *,
    junit_file: Path | None = None,
    summary_file: Path | None = None,
    strict: bool = False,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Write what was asked for, add to `$GITHUB_STEP_SUMMARY` where it is set, and give back the lines to
    print on stderr (none outside GitHub Actions). Raises UserError where a file cannot be written."""
    environment = os.environ if environment is None else environment
    if junit_file is not None:
        _write(junit_file, junit(manifest, strict))
    if summary_file is not None:
        _write(summary_file, markdown(manifest, runs))
    if environment.get("GITHUB_STEP_SUMMARY"):
        target = Path(environment["GITHUB_STEP_SUMMARY"])
        with disk_errors(target.parent), target.open("a", encoding="utf-8", errors="replace") as file:
            file.write(markdown(manifest, runs))
    return workflow_lines(manifest, strict) if environment.get("GITHUB_ACTIONS") == "true" else []


def _write(path: Path, text: str) -> None:
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")


def _fails(gate: Mapping[str, Any], strict: bool) -> bool:
    return gate["verdict"] == "fail" or (strict and gate["verdict"] == "inconclusive")


def _sentence(gate: Mapping[str, Any]) -> str:
    value = "no value" if gate["value"] is None else f"value {gate['value']:.4g}"
    return f"{value}; {gate['reason']}" if gate["reason"] else value


def _metric_row(run: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    interval = ""
    if metric["ci_low"] is not None and metric["ci_high"] is not None:
        interval = f"{metric['ci_low']:.4g} to {metric['ci_high']:.4g}"
    counts = run["counts"]
    cells = (_plain(run["run"]), counts["samples"], counts["failed"], _plain(metric["name"]))
    return "| " + " | ".join(map(str, (*cells, f"{metric['value']:.4g}", interval, metric["n"]))) + " |"


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", value))


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", value), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _plain(value: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table's cell."""
    line = " ".join(_NOT_XML.sub("\ufffd", str(value)).split())[:500]
    return _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))


def _command(value: str) -> str:
    """The data of a workflow command, as GitHub escapes it."""
    printable = "".join(char if char.isprintable() or char in "\r\n" else "?" for char in value)
    return printable.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
