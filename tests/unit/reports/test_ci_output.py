"""What CI shows of gates, with texts that are meant to do harm."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.reports.gates import junit, markdown, publish, workflow_lines
from evalrun.reports.source import Manifest
from evalrun.results import RunResults
from evalrun.sweep_results import Concentration, GateVerdict
from evalrun.types import Counts, MetricValue

HOSTILE = (
    "</failure><x>&\x00\x1b[31m ]]> | `a` <img src=x onerror=alert(1)> "
    "\n::error::owned\r::set-output name=a::b %0A"
)


def gate(verdict: str, text: str = "exact_match >= 0.5", reason: str = "", run: str = "r") -> GateVerdict:
    return GateVerdict(text, run, verdict, 0.4, reason)


def manifest(*gates: GateVerdict, name: str = "triage") -> Manifest:
    return Manifest(
        sweep="01K00000000000000000000000", name=name, status="complete",
        started_at="2026-11-23T07:00:00+00:00", gates=gates,
    )  # fmt: skip


def run(name: str = "r") -> RunResults:
    metric = MetricValue("exact_match", 0.5, 10, "fraction", "higher", ci_low=0.2, ci_high=0.8)
    return RunResults(name, "m", "p", "d", counts=Counts(samples=10), metrics=(metric,))


def test_junit_has_one_case_a_gate_and_run() -> None:
    document = manifest(gate("pass"), gate("fail", reason="too low"), gate("inconclusive"))
    root = ElementTree.fromstring(junit(document))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "1")
    (failure,) = root.iter("failure")
    assert failure.get("message") == "value 0.4; too low"
    strict = ElementTree.fromstring(junit(document, strict=True))
    assert (strict.get("failures"), strict.get("skipped")) == ("2", "0")


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_gives_whole_xml_with_the_same_cases(text: str) -> None:
    document = manifest(gate("fail", text + HOSTILE, HOSTILE + text, text), name=text + HOSTILE)
    root = ElementTree.fromstring(junit(document))
    assert [each.tag for each in root.iter()] == ["testsuites", "testsuite", "testcase", "failure"]


@given(st.text(max_size=60))
@settings(deadline=None)
def test_markdown_keeps_its_rows_and_no_markup_gets_through(text: str) -> None:
    document = manifest(gate("fail", HOSTILE + text, text + HOSTILE, f"r{text}"), name=HOSTILE)
    lines = markdown(document, [run(HOSTILE + text)]).split("\n")
    assert len(lines) == 14
    assert not [line for line in lines if line.startswith(("::", "<")) or "<img" in line]
    cells = lines[6].replace("\\|", "")
    assert cells.count("|") == 6


def test_workflow_lines_are_one_line_each_and_cannot_begin_another() -> None:
    lines = workflow_lines(manifest(gate("fail", reason=HOSTILE), gate("inconclusive"), gate("pass")))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"]
    assert not any(char in line for line in lines for char in "\n\r\x1b\x00")
    assert "%0A::error::owned%0D" in lines[0] and "%250A" in lines[0]
    assert workflow_lines(manifest(gate("inconclusive")), strict=True)[0].startswith("::error ")


def test_the_summary_is_added_to_what_github_names(tmp_path: Path) -> None:
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    environment = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true"}
    lines = publish(manifest(gate("fail")), [run()], environment=environment)
    assert len(lines) == 1
    assert summary.read_text().startswith("before\n## evalrun: triage")
    assert publish(manifest(gate("fail")), [run()], environment={}) == []


def test_a_failed_gate_names_samples_report_and_the_next_command() -> None:
    kitchen = Concentration("dept", "kitchen", 9, 9, 10, 100, 0.001, ("s1", "s2"))
    lost = replace(gate("fail", "exact_match no worse than baseline"), difference=-0.2, where=(kitchen,))
    document = replace(manifest(lost, gate("fail", "error_rate <= 0")), baseline="01JBASE")
    first, second = ElementTree.fromstring(junit(document, report="out/r.html")).iter("failure")
    sweep = document.sweep
    assert (first.text or "").split("\n")[1:] == [
        "Samples: s1, s2",
        "Report: out/r.html",
        f"Next: evalrun compare 01JBASE {sweep} --html compared.html",
    ]
    assert (second.text or "").endswith(f"Next: evalrun samples {sweep}/r 'status == \"failed\"'")
    told = markdown(document, [run()], ["rules is worse", "Ship nothing"], "out/r.html")
    assert told.index("**rules is worse**") < told.index("Ship nothing") < told.index("| gate |")
    assert "Samples: s1, s2" in told.replace("\\", "") and "report out/r.html" in told.replace("\\", "")
