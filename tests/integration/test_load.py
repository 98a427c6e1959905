"""`load:` through the whole program, against servers with known truth: each remembers by the machine's clock
when it began and ended, so that what is asserted holds on a busy machine too."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest
import yaml
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer, completion

from evalrun.runner.load.schedule import schedule_of
from evalrun.suite.levels import LoadSpec, levels_of
from evalrun.tracking.parquet import iter_samples


class Fifo(ChatServer):
    """Answers the question's last word after `service_s`, `places` at a time, first come, first served.

    Above `wrong_above` requests within it answers are wrong. `begun` and `ended` are by question and order of
    arrival; `most` is how many were within it at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places, self.service_s, self.wrong_above = 1, 0.05, 10_000
        self.came: list[int] = []
        self.ended: list[int] = []
        self.within = self.most = 0
        self.failing: set[int] = set()
        self.behaviour = self._serve_in_turn
        self._turn: asyncio.Semaphore | None = None

    async def _serve_in_turn(self, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        self._turn = self._turn or asyncio.Semaphore(self.places)
        number = len(self.came)
        self.came.append(perf_counter_ns())
        self.ended.append(0)
        self.within += 1
        self.most = max(self.most, self.within)
        wrong = self.within > self.wrong_above
        async with self._turn:
            await asyncio.sleep(self.service_s)
        self.within -= 1
        self.ended[number] = perf_counter_ns()
        if number in self.failing:
            return web.json_response({"error": {"message": "no"}}, status=500)
        text = body["messages"][-1]["content"].split()[-1]
        return web.json_response(completion("wrong" if wrong else text))


@pytest.fixture
def fifo() -> Iterator[Fifo]:
    with Fifo() as server:
        assert isinstance(server, Fifo)
        yield server


def write(folder: Path, server: ChatServer, load: dict[str, Any], rows: int = 10, **more: Any) -> Path:
    suite = {
        "name": "loaded",
        "models": [{"id": "m", "provider": "openai_compatible", "base_url": server.base_url, "model": "m"}],
        "prompts": [{"id": "p", "text": "say {{ w }}"}],
        "datasets": [{"id": "d", "rows": [{"w": f"w{at}"} for at in range(rows)], "target": "{{ w }}"}],
        "scorers": ["exact_match"],
        "load": {"reference": "none", **load},
        **more,
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


def run(suite: Path, *words: str, code: int = 0) -> dict[str, Any]:
    done = evalrun(suite, "--no-report", "--json", "--store", suite.parent / "store", *words)
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def load_of(document: dict[str, Any], at: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["runs"][at]["details"]["load"]
    return found


def value(document: dict[str, Any], name: str, at: int = 0) -> float:
    return next(m["value"] for m in document["runs"][at]["metrics"] if m["name"] == name)


def samples(document: dict[str, Any], run_id: str) -> list[dict[str, Any]]:
    path = Path(document["folder"]) / "runs" / run_id / "samples.parquet"
    return sorted(iter_samples(path), key=lambda row: row["scheduled_s"])


def test_a_server_over_capacity_is_seen_to_be_and_keeps_its_schedule(tmp_path: Path, fifo: Fifo) -> None:
    load = {"rates": ["40/s"], "arrivals": "constant", "requests": 40, "slo": ["e2e_s <= 0.5"]}
    document = run(write(tmp_path, fifo, load))
    rows = samples(document, "m-p-d-load=40rps")
    due = [row["scheduled_s"] for row in rows]
    assert [b - a for a, b in itertools.pairwise(due)] == pytest.approx([0.025] * 39, abs=1e-6)
    # The server's own clock is the truth: what it took from the moment a request was due.
    response = [row["done_s"] - row["scheduled_s"] for row in rows]
    offset = rows[0]["sent_s"] - fifo.came[0] / 1e9
    truth = [end / 1e9 + offset - at for end, at in zip(fifo.ended, due, strict=True)]
    late = [mine - theirs for mine, theirs in zip(response, truth, strict=True)]
    assert sorted(late)[len(late) // 2] < 0.2 and max(response) > 0.9
    assert document["runs"][0]["load"] == {"rate": 40.0}
    found = load_of(document)
    assert found["verdict"] == "growing" and any("over capacity" in said for said in found["banners"])
    kept = sum(each <= 0.5 for each in response)
    assert value(document, "performance.attainment") == pytest.approx(kept / 40)
    assert value(document, "performance.goodput_rps") == pytest.approx(kept)  # 40 requests are a second
    assert value(document, "performance.offered_rps") == pytest.approx(40)
    # What was answered a second, and not what was under way: a place that takes 0.05 s gives no more than 20.
    assert value(document, "performance.requests_per_s") <= 20.5


def test_what_a_cap_holds_back_is_part_of_the_response_time(tmp_path: Path, fifo: Fifo) -> None:
    fifo.service_s = 0.2
    load = {"rates": ["20/s"], "arrivals": "constant", "requests": 6, "max_in_flight": 1}
    document = run(write(tmp_path, fifo, load))
    rows = samples(document, "m-p-d-load=20rps")
    assert fifo.most == 1
    for number, row in enumerate(rows):
        assert row["e2e_s"] < row["done_s"] - row["scheduled_s"] + 1e-9
        assert row["done_s"] - row["scheduled_s"] >= 0.2 + 0.15 * number - 1e-3
    assert load_of(document)["capped"] == 5
    assert load_of(document)["banners"][0].startswith("limited by max_in_flight (1): 5 of 6")


def test_attainment_counts_failures_and_right_goodput_only_what_is_right(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 100, 0.01
    fifo.failing = set(range(10, 20))
    fifo.answer = lambda body: ""
    load = {"concurrency": [2], "requests": 100, "slo": ["e2e_s <= 30"], "right": "exact_match >= 1"}
    suite = write(tmp_path, fifo, load, rows=20, errors={"tolerate": 0.5})
    text = yaml.safe_load(suite.read_text())
    for row in text["datasets"][0]["rows"][:1]:  # one row of twenty is wrong: 5 of the 100 requests
        row["t"] = "other"
    text["datasets"][0]["target"] = "{{ t or w }}"
    text["datasets"][0]["rows"] = [{"t": None, **row} for row in text["datasets"][0]["rows"]]
    suite.write_text(yaml.safe_dump(text))
    document = run(suite)
    (counts,) = (each["counts"] for each in document["runs"])
    assert counts["failed"] == 10 and counts["retried"] == 0 and len(fifo.came) == 100
    rows = samples(document, "m-p-d-load=2")
    right = sum(row["status"] == "scored" and row["score.exact_match"] == 1 for row in rows)
    assert value(document, "performance.attainment") == pytest.approx(0.9)
    ratio = value(document, "performance.goodput_right_rps") / value(document, "performance.goodput_rps")
    assert ratio == pytest.approx(right / 90)
    assert all(row["scheduled_s"] is not None and row["done_s"] is not None for row in rows)


def test_levels_neither_read_nor_write_the_cache_and_are_kept_apart(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 10, 0.001
    suite = write(tmp_path, fifo, {"concurrency": [1, 2], "requests": 20, "reference": 1})
    document = run(suite)
    assert [each["run"] for each in document["runs"]] == [
        "m-p-d-load=1",
        "m-p-d-load=2",
        "m-p-d-load=1-again",
    ]
    assert [each["load"] for each in document["runs"]] == [{"concurrency": n} for n in (1, 2, 1)]
    assert run(suite)["runs"][0]["counts"]["cached"] == 0 and len(fifo.bodies) == 120
    salts = [body["cache_salt"] for body in fifo.bodies[:60]]
    # One for each pass of each level, and the reference comes first and last.
    assert sorted(salts.count(salt) for salt in set(salts)) == [10] * 6
    asked = list(fifo.questions[:60])
    assert asked[:10] == asked[10:20] == asked[50:]
    assert fifo.most == 2


def test_a_gate_speaks_of_a_level_and_compares_with_another(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s, fifo.wrong_above = 100, 0.01, 4
    gates = [
        "exact_match at load=2 no worse than load=reference by 0.05",
        "exact_match at load=8 no worse than load=reference by 0.05",
        "performance.goodput_rps at load=8 >= 1000000",
        "performance.attainment at load=1 >= 0.5",
    ]
    load = {"concurrency": [2, 8], "requests": 60, "reference": 1}
    document = run(write(tmp_path, fifo, load, rows=60, gates=gates), code=1)
    assert [(gate["run"], gate["verdict"]) for gate in document["gates"]] == [
        ("m-p-d-load=2", "pass"),
        ("m-p-d-load=8", "fail"),
        ("m-p-d-load=8", "fail"),
        ("m-p-d-load=1", "pass"),
    ]


@pytest.mark.parametrize(
    ("load", "more", "said"),
    [
        ({"concurrency": [1], "slo": ["e2e_s <= 200"]}, {}, "timeout_s (120 s) is not above the promise"),
        ({"concurrency": [1], "slo": ["ttft_s <= 1"]}, {}, "answers are not streamed"),
        ({"concurrency": [10_000_000]}, {}, "open files"),
        ({"arrivals": {"trace": "none.csv"}}, {}, "the trace cannot be read"),
        ({"concurrency": [1], "right": "rouge >= 1"}, {}, "no scorer 'rouge'"),
        ({"concurrency": [1]}, {"gates": ["exact_match at load=9 >= 1"]}, "the load '9'"),
        (
            {"concurrency": [1]},
            {"gates": ["exact_match at load=1 no worse than load=7 by 0.1"]},
            "the load '7'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(
    tmp_path: Path, fifo: Fifo, load: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    done = evalrun(write(tmp_path, fifo, load, **more), "--no-report", "--store", tmp_path / "store")
    assert done.returncode == 2 and said in done.stderr and not fifo.bodies


def test_recorded_answers_bear_no_load(tmp_path: Path, fifo: Fifo) -> None:
    models = [{"id": "m", "provider": "recorded", "column": "w"}]
    done = evalrun(write(tmp_path, fifo, {"concurrency": [1]}, models=models), "--store", tmp_path / "store")
    assert done.returncode == 2 and "cannot be put under load" in done.stderr


def test_a_level_that_the_model_does_not_hold_is_refused(tmp_path: Path, fifo: Fifo) -> None:
    models = [{"id": "m", "provider": "openai_compatible", "base_url": fifo.base_url, "model": "m",
               "concurrency": 4}]  # fmt: skip
    suite = write(tmp_path, fifo, {"concurrency": [2, 8]}, models=models)
    done = evalrun(suite, "--store", tmp_path / "store")
    assert done.returncode == 2 and "4 requests in flight at most" in done.stderr and not fifo.bodies


def test_the_load_command_does_it_to_any_suite(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 10, 0.001
    suite = write(tmp_path, fifo, {"concurrency": [1]})
    text = yaml.safe_load(suite.read_text())
    del text["load"]
    suite.write_text(yaml.safe_dump(text))
    words = ("--no-report", "--json", "--store", tmp_path / "store")
    bare = evalrun("load", suite, *words)
    assert bare.returncode == 2 and "no levels are named" in bare.stderr
    done = evalrun("load", suite, "--rates", "50,100/s", "--seconds", "0.5", "--slo", "e2e_s <= 9", *words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [each["load"] for each in document["runs"]] == [
        {"rate": 50.0}, {"rate": 100.0}, {"concurrency": 1}, {"concurrency": 1},
    ]  # fmt: skip
    first, second = (each["counts"]["samples"] for each in document["runs"][:2])
    assert first < second
    names = {metric["name"] for metric in document["runs"][0]["metrics"]}
    assert {
        "performance.offered_rps", "performance.response_s.p95", "performance.attainment",
        "performance.goodput_rps", "performance.goodput_right_rps",
    } <= names  # fmt: skip
    assert load_of(document)["verdict"] in ("steady", "growing", "undecided")


def test_half_a_level_is_no_level(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 10, 0.02
    suite = write(tmp_path, fifo, {"concurrency": [1, 2, 3], "requests": 30})
    command = [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(fifo.came) < 45 and time.monotonic() < end:  # one level, and half of the next
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(fifo.came)
    document = run(suite)
    assert document["resumed"] and any("begun anew" in warning for warning in document["warnings"])
    assert [each["counts"]["samples"] for each in document["runs"]] == [30, 30, 30]
    assert len(fifo.came) - before == 60  # the level that was done is kept


def test_speeds_under_unlike_loads_are_not_compared(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 100, 0.005
    document = run(write(tmp_path, fifo, {"concurrency": [1, 8]}))
    shown = evalrun("show", document["sweep"], "--store", tmp_path / "store").stdout
    assert "Speeds are not compared" in shown and "8 at once" in shown and "faster" not in shown


def test_runs_whose_speeds_are_compared_get_one_small_number(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 100, 0.005
    suite = write(tmp_path, fifo, {"concurrency": [1]}, rows=40)
    text = yaml.safe_load(suite.read_text())
    del text["load"]
    text["prompts"].append({"id": "q", "text": "tell {{ w }}"})
    suite.write_text(yaml.safe_dump(text))
    document = run(suite)
    assert [each["load"] for each in document["runs"]] == [{"concurrency": 8}] * 2 and fifo.most == 8
    text["performance"] = {"concurrency": "adaptive"}
    suite.write_text(yaml.safe_dump(text))
    document = run(suite, "--no-cache")
    assert [each["load"].get("adaptive") for each in document["runs"]] == [True, True]


def test_a_level_whose_answers_get_worse_is_found_by_a_paired_test_and_said_first(
    tmp_path: Path, fifo: Fifo
) -> None:
    fifo.places, fifo.service_s, fifo.wrong_above = 4, 0.02, 3
    load = {"concurrency": [2, 8], "slo": ["e2e_s <= 20"], "reference": 1}
    suite = write(tmp_path, fifo, load, rows=40)
    report = tmp_path / "report.html"
    done = evalrun(suite, "--report", report, "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    (curve,) = json.loads(evalrun("show", "latest", "--json", "--store", tmp_path / "store").stdout)[
        "results"
    ]["load"]
    assert [point["level"] for point in curve["points"]] == [1, 2, 8]
    # A closed loop has no queue that could grow, though the first four found an idle server.
    assert "growing" not in {point["verdict"] for point in curve["points"]}
    same, worse = (point["quality"] for point in curve["points"][1:])
    assert same["verdict"]["word"] != "worse" and same["lost"] == 0 and same["changed"]["value"] == 0
    assert worse["verdict"]["word"] == "worse" and worse["p_corrected"] < 0.001
    # What got lost are the answers that changed; the two runs of the reference agree.
    assert worse["lost"] == round(worse["changed"]["value"] * 40) > 8 and worse["gained"] == 0
    assert worse["changed_by_noise"]["value"] == 0 and worse["excess_p"] < 0.001
    assert curve["capacity"] == "8 at once" and curve["slo"] == ["e2e_s <= 20"]
    assert "bears 8 requests in flight within the promise" in curve["sentence"]
    assert "answers get worse under load" in curve["sentence"]
    shown = " ".join(done.stdout.split())
    assert shown.index("m bears 8 requests in flight") < shown.index("exact_match (n = 40)")
    assert "Ship" not in shown and "requests/s" in shown
    page = report.read_text()
    assert 'id="load"' in page and "load-pareto" in page and "load-backlog-0" in page
    assert "Quality against time" not in page


def test_a_search_finds_what_the_server_bears(tmp_path: Path, fifo: Fifo) -> None:

    async def refuses_above_four(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        fifo.within += 1
        refused = fifo.within > 4
        await asyncio.sleep(0.05)  # refusing takes as long: what is in flight stays so on a busy machine
        fifo.within -= 1
        if refused:
            return web.json_response({"error": {"message": "busy"}}, status=503)
        return web.json_response(completion(body["messages"][-1]["content"].split()[-1]))

    fifo.behaviour = refuses_above_four
    search = {"attain": 0.7, "up_to": 16, "probe_s": 1.5}
    document = run(write(tmp_path, fifo, {"search": search, "slo": ["e2e_s <= 60"]}))
    (curve,) = document["load"]
    assert curve["capacity"] in ("4 at once", "5 at once", "6 at once")  # of 6, a third is refused
    assert "requests in flight within the promise" in curve["sentence"]
    decisions = {point["concurrency"]: point["verdict"] for point in curve["points"]}
    assert decisions[4] == "pass" and decisions[8] == "fail" and len(decisions) <= 4
    # What was found is held once more, and nothing ends that early.
    held = load_of(document)["probes"][-1]
    assert held["confirms"] and held["n"] > 30 and "requests kept it in" in curve["sentence"]
    assert load_of(document)["role"] == "search" and document["runs"][0]["counts"]["retried"] == 0


def test_a_search_over_rates_probes_with_arrivals_of_its_own(tmp_path: Path, fifo: Fifo) -> None:
    fifo.places, fifo.service_s = 100, 0.001
    search = {"attain": 0.5, "up_to": "200/s", "probe_s": 0.4}
    document = run(write(tmp_path, fifo, {"search": search, "slo": ["e2e_s <= 60"]}))
    (curve,) = document["load"]
    assert document["runs"][0]["load"] == {"rate": 200.0} and load_of(document)["open_loop"]
    probes = load_of(document)["probes"]
    assert [(probe["rate"], probe["confirms"]) for probe in probes] == [
        (25, False), (50, False), (100, False), (200, False), (200, True),
    ]  # fmt: skip
    assert curve["capacity"] == "200/s arriving" and "bears 200 requests/s" in curve["sentence"]
    rows = samples(document, "m-p-d-load=search")
    assert all(row["sent_s"] >= row["scheduled_s"] for row in rows)
    # Each probe has the same draws at its own rate, and the one that confirms has others.
    due = [row["scheduled_s"] for row in rows]
    gaps = [
        [b - a for a, b in itertools.pairwise([at for at in due if probe["start_s"] <= at < probe["end_s"]])][
            :5
        ]
        for probe in probes
    ]
    assert [2 * gap for gap in gaps[1]] == pytest.approx(gaps[0], abs=1e-6)
    assert gaps[4] != pytest.approx(gaps[3], abs=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_request_is_sent_before_its_moment(tmp_path: Path, fifo: Fifo, workers: int) -> None:
    fifo.places, fifo.service_s = 100, 0.001
    load = {"rates": ["60/s"], "requests": 60}
    document = run(write(tmp_path, fifo, load, performance={"workers": workers}))
    due = [row["scheduled_s"] for row in samples(document, "m-p-d-load=60rps")]
    spec = LoadSpec.model_validate({**load, "reference": "none"})
    drawn = list(schedule_of(spec, levels_of(spec)[0], seed=0, rows=10, base_dir=tmp_path))
    # Every worker's requests are of one and the same drawing, and none is sent before its moment.
    assert [at - due[0] for at in due] == pytest.approx([at - drawn[0] for at in drawn], abs=1e-6)
    assert len(fifo.came) == 60
    rows = samples(document, "m-p-d-load=60rps")
    assert all(row["sent_s"] >= row["scheduled_s"] and row["client_queue_s"] >= 0 for row in rows)


class Remembering(Fifo):
    """Answers sooner what it was asked before, and passes over `cache_salt`. Where `forgets`, it can be told
    to empty its cache."""

    def __init__(self, *, forgets: bool) -> None:
        super().__init__()
        self.forgets, self.told = forgets, 0
        self.known: set[str] = set()
        self.behaviour = self._from_cache

    async def _from_cache(self, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        text = body["messages"][-1]["content"]
        hit = text in self.known
        self.known.add(text)
        await asyncio.sleep(0.002 if hit else 0.02)
        document = completion(text.split()[-1])
        document["usage"] = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11,
                             "prompt_tokens_details": {"cached_tokens": 9 if hit else 0}}  # fmt: skip
        return web.json_response(document)

    async def _forget(self, request: web.Request) -> web.StreamResponse:
        self.told += 1
        self.known.clear()
        return web.Response()

    def more_routes(self, app: web.Application) -> None:
        if self.forgets:
            app.router.add_post("/reset_prefix_cache", self._forget)


def test_a_server_is_told_to_forget_the_level_before(tmp_path: Path) -> None:
    with Remembering(forgets=True) as server:
        load = {"concurrency": [1, 2], "prefix_cache": "reset"}
        document = run(write(tmp_path, server, load))
    assert isinstance(server, Remembering) and server.told == 2
    found = [load_of(document, at)["prefix_cache"] for at in (0, 1)]
    assert found == [{"mode": "reset", "by": "/reset_prefix_cache", "hit_rate": 0.0}] * 2
    assert not any("prefix cache" in said for said in document["warnings"])


def test_a_cache_that_levels_share_is_said(tmp_path: Path) -> None:
    with Remembering(forgets=False) as server:
        document = run(write(tmp_path, server, {"concurrency": [1, 2], "prefix_cache": "keep"}))
        refused = evalrun(
            write(tmp_path, server, {"concurrency": [1], "prefix_cache": "reset"}),
            "--store", tmp_path / "store", "--no-report",
        )  # fmt: skip
    rates = [load_of(document, at)["prefix_cache"]["hit_rate"] for at in (0, 1)]
    assert sorted(rates) == [0.0, 0.9]
    assert any("90% of this level's prompt tokens" in said for said in document["warnings"])
    assert refused.returncode == 3 and "does not empty its prefix cache" in refused.stderr
