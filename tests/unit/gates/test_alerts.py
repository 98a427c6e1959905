"""Alerts: thresholds, changes against the sweeps before, and the webhook they go to."""

from __future__ import annotations

import http.server
import json
import math
import random
import socket
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from tests.nights import PLAN, RUN, night

from evalrun.errors import Problem
from evalrun.gates.alerts import Alert, AlertResult, check_alerts, message, parse_alert, post
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

N = 400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def scores(wrong: int, seed: int = 0) -> list[float]:
    """So many wrong of N; the rows that are wrong in one are wrong in those with more."""
    order = random.Random(seed).sample(range(N), N)
    return [float(each not in set(order[:wrong])) for each in range(N)]


def check(store: Store, folder: SweepFolder, text: str) -> AlertResult:
    alert = parse_alert(text)
    assert isinstance(alert, Alert), alert
    (result,) = check_alerts([alert], folder, PLAN, store)
    return result


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ("exact_match < 0.5", "threshold", None),
        ("exact_match[group=x] worse than last 5", "change", 5),
        ("performance.e2e_s.p95 worse than the last 12 sweeps by 0.1 for model=m and prompt=p", "change", 12),
        ("exact_match better than ever", "change", None),
    ],
)
def test_what_an_alert_may_say(text: str, kind: str, count: int | None) -> None:
    alert = parse_alert(text)
    assert isinstance(alert, Alert)
    assert (alert.kind, alert.count, alert.text) == (kind, count, text)


@pytest.mark.parametrize(
    "text",
    ["exact_match", "exact_match worse than last 0", "exact_match worse than ever", "exact_match >= baseline",
     "exact_match no worse than baseline by 0.1", "x worse than last 3 for colour=red", "exact_match is low"],
)  # fmt: skip
def test_what_it_may_not(text: str) -> None:
    assert isinstance(parse_alert(text), Problem)


def test_a_threshold_fires_when_it_holds(store: Store) -> None:
    folder = night(store, scores(200))
    assert check(store, folder, "exact_match <= 0.5").fired
    assert not check(store, folder, "exact_match < 0.5").fired
    missing = check(store, folder, "bleu < 0.5")
    assert (missing.fired, missing.checked) == (False, False)
    assert not check(store, folder, "exact_match < 0.5 for model=other").checked


def test_a_drop_fires_against_the_last_sweeps_and_only_when_it_is_shown(store: Store) -> None:
    first = night(store, scores(80))
    assert not check(store, first, "exact_match worse than last 5").checked
    for _ in range(3):
        night(store, scores(80))
    noise, drop = night(store, scores(81)), night(store, scores(110))
    assert not check(store, noise, "exact_match worse than last 5").fired
    fired = check(store, drop, "exact_match worse than last 5")
    assert fired.fired and fired.difference == pytest.approx(-0.0745) and len(fired.compared) == 5
    assert not check(store, drop, "exact_match worse than last 5 by 0.1").fired
    assert not check(store, drop, "exact_match better than last 5").fired
    again = night(store, scores(110))
    assert not check(store, again, "exact_match worse than last 5").fired, "one of the last five was as bad"


def test_only_sweeps_on_the_same_data_and_project_count(store: Store) -> None:
    night(store, scores(10), digest="e" * 64)
    night(store, scores(10), project="other")
    folder = night(store, scores(200))
    assert not check(store, folder, "exact_match worse than last 5").checked


def test_a_breakthrough_is_better_than_the_best_there_was(store: Store) -> None:
    for wrong in (120, 100, 140):
        night(store, scores(wrong))
    assert not check(store, night(store, scores(101)), "exact_match better than ever").fired
    found = check(store, night(store, scores(60)), "exact_match better than ever")
    assert found.fired and found.difference == pytest.approx(0.1)


def test_a_night_that_lost_too_many_rows_is_compared_with_no_other(store: Store) -> None:
    """Neither as the night that is checked nor as one of those before; and a threshold needs both bounds."""
    first = night(store, scores(80))
    lost = night(store, scores(0), between=(0.5, 1.0))
    for text in ("exact_match better than last 1", "exact_match lastingly better"):
        found = check(store, lost, text)
        assert not found.fired and not found.checked and found.reason == "incomplete: 30 of 100 lost"
    undecided = check(store, lost, "exact_match > 0.9")
    assert not undecided.fired and not undecided.checked and undecided.value == 1.0
    assert check(store, lost, "exact_match >= 0.5").fired, "whatever the lost rows would have scored"
    found = check(store, night(store, scores(110)), "exact_match worse than last 1")
    assert found.fired and found.compared == (first.ulid,), "the whole night before the incomplete one"


def test_a_percentile_is_held_against_what_its_values_before_expect(store: Store) -> None:
    for p95 in (1.0, 1.02):
        night(store, scores(1), p95=p95)
    text = "performance.e2e_s.p95 worse than last 5"
    assert "needs 3" in check(store, night(store, scores(1), p95=0.98), text).reason
    assert not check(store, night(store, scores(1), p95=1.04), text).fired
    fired = check(store, night(store, scores(1), p95=1.6), text)
    assert fired.fired and "expected" in fired.reason


def test_the_interval_of_a_percentile_is_that_of_one_more_of_its_kind(store: Store) -> None:
    before = [1.0, 1.1, 0.9, 1.04]
    for p95 in before:
        night(store, scores(1), p95=p95)
    folder = night(store, scores(1), p95=0.5)
    mean, spread = statistics.fmean(before), statistics.stdev(before)
    room = stats.t.ppf(0.995, 3) * spread * math.sqrt(1 + 1 / 4)
    for text, reference, fired in (
        ("performance.e2e_s.p95 better than last 4", mean, False),
        ("performance.e2e_s.p95 better than ever", 0.9, False),
        ("performance.e2e_s.p95 worse than last 4", mean, False),
    ):
        found = check(store, folder, text)
        assert (found.ci_low, found.ci_high) == pytest.approx((mean - room, mean + room)), text
        assert found.difference == pytest.approx(0.5 - reference), text
        assert found.fired is fired and len(found.compared) == 4


def test_a_run_without_results_is_told_of(store: Store) -> None:
    folder = night(store, scores(1))
    alert = parse_alert("exact_match < 0.1")
    assert isinstance(alert, Alert)
    planned = [*PLAN, {**PLAN[0], "run": "gone"}]
    found = check_alerts([alert], folder, planned, store)
    assert [(each.run, each.fired) for each in found] == [("gone", True), (RUN, False)]


# The webhook


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
        status = {"/moved": 307, "/broken": 500}.get(self.path, 200)
        self.send_response(status)
        if status == 307:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


RESULT = AlertResult("exact_match < 0.5 <!channel>", RUN, True, 0.4, "*a* & b\n<http://x|y>")


def test_the_message_is_one_that_slack_takes_and_nobody_is_called_by_it(sink: Any) -> None:
    url = f"http://127.0.0.1:{sink.server_address[1]}/services/T0/B0/secret?x=1"
    assert post(url, message("nightly", "01X", [RESULT])) == ""
    ((path, body),) = sink.got
    assert path == "/services/T0/B0/secret?x=1"
    text = json.loads(body)["text"]
    assert list(json.loads(body)) == ["text"] and "nightly" in text and "0.4" in text
    assert "<" not in text and "&lt;!channel&gt;" in text and "&amp; b &lt;http" in text


def test_a_redirect_is_not_followed_and_a_failure_is_a_sentence_without_the_address(sink: Any) -> None:
    base = f"http://127.0.0.1:{sink.server_address[1]}"
    assert post(f"{base}/moved", {}) == "the webhook answered with status 307"
    assert post(f"{base}/broken", {}) == "the webhook answered with status 500"
    assert [path for path, _ in sink.got] == ["/moved", "/broken"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        said = post(f"http://127.0.0.1:{unused.getsockname()[1]}/secret-path", {})
    assert said.startswith("the webhook cannot be reached") and "secret" not in said


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("hooks.example.com", "10.0.0.7"),
        ("hooks.example.com", "169.254.169.254"),
        ("x.example", "::ffff:127.0.0.1"),
    ],
)
def test_a_name_that_stands_for_a_private_address_is_not_asked(
    sink: Any, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, 0))])
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    assert "private address" in post(f"http://{name}/x", {})


def test_another_spelling_of_a_private_address_is_not_asked_but_with_leave(sink: Any) -> None:
    url = f"http://2130706433:{sink.server_address[1]}/x"  # 127.0.0.1 as one number
    assert "private address" in post(url, {}) and sink.got == []
    assert post(url, {}, private_network=True) == "" and len(sink.got) == 1
    assert post(f"http://localhost:{sink.server_address[1]}/x", {}) == ""
