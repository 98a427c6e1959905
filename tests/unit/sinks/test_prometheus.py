"""The text that Prometheus reads, and the dashboard that is drawn from it."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.sinks.prometheus import BOUNDS, NAMES, Metrics
from evalrun.types import Attempt, SampleRecord, Status

ROOT = Path(__file__).parents[3]
RECORD = SampleRecord("a", 0, 0, {}, None, Status.SCORED, e2e_s=0.03, prompt_tokens=5, completion_tokens=2)
LINE = re.compile(r'(\w+)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\} (\S+)')


def _values(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines)
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_samples_are_counted_by_how_they_ended_and_timed_where_they_were_asked() -> None:
    metrics = Metrics("p")
    metrics.begin("r", 4)
    metrics.sample("r", RECORD)
    metrics.sample("r", replace(RECORD, cached=True))
    tries = (Attempt(0, 1, "rate_limit"), Attempt(1, 1, "rate_limit"), Attempt(2, 1))
    metrics.sample("r", replace(RECORD, status=Status.FAILED, e2e_s=None, attempt_log=tries))
    seen = _values(metrics.text())
    assert seen['evalrun_samples_planned{project="p",run="r"}'] == 4
    assert seen['evalrun_samples_total{project="p",run="r",status="scored"}'] == 2
    assert seen['evalrun_samples_total{project="p",run="r",status="failed"}'] == 1
    assert seen['evalrun_cached_total{project="p",run="r"}'] == 1
    assert seen['evalrun_retries_total{project="p",run="r",cause="rate_limit"}'] == 2
    assert seen['evalrun_tokens_total{project="p",run="r",direction="input"}'] == 10
    assert seen['evalrun_e2e_seconds_count{project="p",run="r"}'] == 1


def test_requests_in_flight_are_summed_by_endpoint_when_it_is_looked() -> None:
    metrics, asked = Metrics("p"), {"a": 3, "b": 4, "c": 5}
    for run, endpoint in (("a", "http://h:1"), ("b", "http://h:1"), ("c", "local:x")):
        metrics.asking(run, endpoint, lambda run=run: asked[run])
    seen = _values(metrics.text())
    assert seen['evalrun_requests_in_flight{project="p",endpoint="http://h:1"}'] == 7
    assert seen['evalrun_requests_in_flight{project="p",endpoint="local:x"}'] == 5
    asked["a"] = 1
    metrics.asking("b", "http://h:1", int)
    assert _values(metrics.text())['evalrun_requests_in_flight{project="p",endpoint="http://h:1"}'] == 1


@given(st.lists(st.floats(0, 200), min_size=1, max_size=30))
def test_a_histogram_counts_up_to_each_bound(values: list[float]) -> None:
    metrics = Metrics("p")
    for value in values:
        metrics.sample("r", replace(RECORD, e2e_s=value))
    seen = _values(metrics.text())
    for bound in BOUNDS:
        counted = seen[f'evalrun_e2e_seconds_bucket{{project="p",run="r",le="{bound}"}}']
        assert counted == sum(value <= bound for value in values)
    assert seen['evalrun_e2e_seconds_bucket{project="p",run="r",le="+Inf"}'] == len(values)
    assert seen['evalrun_e2e_seconds_sum{project="p",run="r"}'] == pytest.approx(sum(values))


@given(st.text(), st.text())
def test_whatever_names_hold_a_line_stays_a_line(project: str, run: str) -> None:
    metrics = Metrics(project)
    metrics.begin(run, 1)
    lines = [line for line in metrics.text().split("\n") if line and not line.startswith("#")]
    assert len(lines) == 1 and lines[0].endswith(" 1")
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus_client")
    (family,) = parser.text_string_to_metric_families(metrics.text())
    assert family.samples[0].labels == {"project": project, "run": run}


def test_it_is_served_and_kept(tmp_path: Path) -> None:
    metrics = Metrics("p", "127.0.0.1:0", tmp_path / "m.prom")
    try:
        metrics.begin("r", 3)
        with urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=10) as answer:
            assert "version=0.0.4" in answer.headers["Content-Type"]
            assert _values(answer.read().decode()) == {'evalrun_samples_planned{project="p",run="r"}': 3}
    finally:
        metrics.close()
    assert (tmp_path / "m.prom").exists()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", ""])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UserError, match="no address"):
        Metrics("p", address)


def test_a_port_that_is_taken_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot listen"):
            Metrics("p", f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(UserError, match="cannot be written"):
        Metrics("p", file=tmp_path / "missing" / "m.prom")


def test_the_dashboard_draws_what_there_is() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    said = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    said += [variable["query"] for variable in dashboard["templating"]["list"]]
    used = {name for text in said for name in re.findall(r"evalrun_\w+", text)}
    known = {*NAMES, *(f"{name}_bucket" for name, (kind, _) in NAMES.items() if kind == "histogram")}
    assert used <= known and {name.removesuffix("_bucket") for name in used} == {*NAMES}
