"""What `load:` may say, and the levels that it makes."""

from typing import Any

import pytest

from evalrun.errors import UserError
from evalrun.suite.levels import LoadSpec, levels_of
from evalrun.suite.load import parse_suite
from evalrun.suite.plan import cells
from evalrun.suite.schema import Suite

SUITE: dict[str, Any] = {
    "name": "s",
    "models": [{"id": "m", "provider": "echo", "base_url": "here"}],
    "prompts": [{"id": "p", "text": "say {{ w }}"}],
    "datasets": [{"id": "d", "rows": [{"w": "a"}], "target": "{{ w }}"}],
    "scorers": ["same"],
}  # fmt: skip


def suite(**load: Any) -> Suite:
    return parse_suite({**SUITE, "load": load})


def test_every_level_is_a_run_with_a_name_and_a_value_on_the_axis() -> None:
    runs = cells(suite(concurrency=[4, 1]))
    assert [run.run_id for run in runs] == ["m-p-d-load=4", "m-p-d-load=1", "m-p-d-load=1-again"]
    assert [run.axes["load"] for run in runs] == [4, 1, "1 again"]
    assert [run.load and run.load.role for run in runs] == ["level", "reference", "again"]
    assert runs[0].load is not None and runs[0].load.document() == {"concurrency": 4}
    assert all("load" not in run.params for run in runs)


def test_rates_are_compared_with_one_request_in_flight() -> None:
    runs = cells(suite(rates=["120/min", "0.5/s"]))
    assert [run.run_id for run in runs] == [
        "m-p-d-load=2rps", "m-p-d-load=0.5rps", "m-p-d-load=1", "m-p-d-load=1-again",
    ]  # fmt: skip
    assert runs[0].load is not None and runs[0].load.document() == {"rate": 2.0}
    assert [each.value for each in levels_of(LoadSpec(rates=[2.0], reference="none"))] == ["2/s"]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({}, "no levels"),
        ({"scenario": "mlperf-server"}, "needs rates"),
        ({"scenario": "mlperf-server", "rates": [1], "seconds": 60}, "600 s at least"),
        ({"scenario": "mlperf"}, "scenario"),
        ({"concurrency": [1], "rates": [1]}, "exclude each other"),
        ({"concurrency": [0]}, "at least 1"),
        ({"concurrency": []}, "concurrency"),
        ({"concurrency": [2, 2]}, "stands twice"),
        ({"rates": ["1/s", "60/min"]}, "stands twice"),
        ({"rates": [0]}, "a rate of 0"),
        ({"rates": [4], "requests": 20, "warmup_s": 5}, "lie in the warm-up"),
        ({"rates": [-1]}, "a rate of -1"),
        ({"rates": ["fast"]}, "expected a rate"),
        ({"rates": [True]}, "expected a rate"),
        ({"rates": [1], "arrivals": {}}, "exactly one of gamma, ramp and trace"),
        ({"rates": [1], "arrivals": {"gamma": 0}}, "arrivals"),
        ({"rates": [1], "arrivals": {"ramp": {"from": 1, "to": 2, "seconds": 3}}}, "rates of its own"),
        ({"arrivals": {"ramp": {"from": 0, "to": 0, "seconds": 3}}}, "a rate of 0"),
        ({"arrivals": {"gamma": 2, "speed": 2}, "rates": [1]}, "speed is for a trace"),
        ({"concurrency": [1], "seconds": 1, "requests": 1}, "exclude each other"),
        ({"search": {"up_to": 4}}, "a search needs a promise"),
        ({"search": {"up_to": 0}, "slo": ["e2e_s <= 1"]}, "at least one request in flight"),
        ({"search": {"up_to": "0/s"}, "slo": ["e2e_s <= 1"]}, "a rate of 0"),
        ({"rates": ["1000000000/s"]}, "one machine does not send 1,000,000,000 requests a second"),
        ({"rates": [1e6]}, "does not send 1,000,000 requests"),
        ({"search": {"up_to": "60000001/min"}, "slo": ["e2e_s <= 1"]}, "does not send 1,000,000 requests"),
        ({"arrivals": {"ramp": {"from": 1, "to": 2e5, "seconds": 9}}}, "does not send 200,000 requests"),
        ({"search": {"up_to": "many"}, "slo": ["e2e_s <= 1"]}, "expected a number or a rate"),
        ({"concurrency": [1], "slo": ["p99 <= 1"]}, "cannot read the objective"),
        ({"concurrency": [1], "slo": ["e2e_s >= 1"]}, "cannot read the objective"),
        ({"concurrency": [1], "slo": ["e2e_s <= 0"]}, "no answer can keep"),
        ({"concurrency": [1], "right": "good"}, "SCORER >= NUMBER"),
        ({"concurrency": [1], "levles": 1}, "levles"),
    ],
)
def test_what_cannot_be_meant_is_said(load: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        suite(**load)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["concurrency", "workers", "performance.concurrency", "rates"])
def test_load_under_sweep_names_load(name: str) -> None:
    with pytest.raises(UserError, match="Write load: "):
        parse_suite({**SUITE, "sweep": {name: [1, 4]}})


def test_in_open_loop_promises_are_about_the_schedule() -> None:
    spec = LoadSpec(rates=[1.0], slo=["e2e_s <= 2", "ttft_s < 0.5", "tpot_s <= 0.1"])
    assert [str(each) for each in spec.objectives(open_loop=True)] == [
        "response_s <= 2", "ttft_scheduled_s < 0.5", "tpot_s <= 0.1",
    ]  # fmt: skip
    assert str(spec.objectives(open_loop=False)[0]) == "e2e_s <= 2"


def test_a_suite_without_load_is_the_same_work_as_before_there_was_any() -> None:
    assert "load" not in parse_suite(SUITE).work_digest_payload()
    assert "load" in suite(concurrency=[1]).work_digest_payload()


def test_settings_of_models_are_axes() -> None:
    data = {**SUITE, "sweep": {"model.base_url": ["a", "b"], "temperature": [0, 1]}}
    runs = cells(parse_suite(data))
    assert [run.model.id for run in runs] == ["m-base_url-a"] * 2 + ["m-base_url-b"] * 2
    assert [run.params for run in runs] == [{"temperature": 0}, {"temperature": 1}] * 2
    assert runs[2].model.resolved()["base_url"] == "b"
    nested = parse_suite({**SUITE, "sweep": {"model.params.max_tokens": [1, 2]}})
    assert [model.params["max_tokens"] for model in nested.models] == [1, 2]
    with pytest.raises(UserError, match="slots"):
        parse_suite({**SUITE, "sweep": {"model.slots": [1]}})


def test_a_scenario_sets_what_the_suite_does_not() -> None:
    server = LoadSpec.model_validate({"scenario": "mlperf-server", "rates": [2]})
    assert (server.arrivals, server.seconds, server.rates) == ("poisson", 600, [2])
    stream = LoadSpec.model_validate({"scenario": "mlperf-single-stream", "requests": 1_024})
    assert (stream.concurrency, stream.seconds, stream.requests) == ([1], None, 1_024)
    offline = LoadSpec.model_validate({"scenario": "mlperf-offline", "concurrency": [64]})
    assert (offline.concurrency, offline.requests) == ([64], 24_576)
