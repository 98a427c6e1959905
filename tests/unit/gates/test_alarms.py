"""Alerts with a state keep quiet in quiet hours, and conditions against what was released can be read."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from evalrun.errors import Problem
from evalrun.gates.alarms import Alarm, episodes, tell
from evalrun.gates.alerts import parse_alert
from evalrun.spans import hours_of, within_hours
from evalrun.suite.schema import AlertsSpec
from evalrun.tracking.store import Store

HOUR = 3600.0


def test_hours_go_over_midnight_and_have_a_zone() -> None:
    assert [within_hours("22:00-07:00", h * HOUR) for h in (21.9, 22, 23.9, 0, 6.9, 7)] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    assert [within_hours("9:00-17:30", h * HOUR) for h in (8.9, 9, 17.4, 17.5)] == [False, True, True, False]
    noon = 1_782_000_000 - 1_782_000_000 % 86_400 + 12 * HOUR  # in June: Berlin is two hours ahead
    assert within_hours("13:30-14:30 Europe/Berlin", noon) and not within_hours("13:30-14:30", noon)


@pytest.mark.parametrize("text", ["22-07", "25:00-07:00", "22:00-22:00", "22:00-07:00 Nowhere/City", ""])
def test_hours_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="are no hours"):
        hours_of(text)


def test_what_opens_in_quiet_hours_is_posted_after_them_if_it_still_holds(tmp_path: Path) -> None:
    heard = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    how = AlertsSpec(
        when=["x < 1"], webhook=f"http://127.0.0.1:{server.server_address[1]}/", quiet_hours="22:00-07:00"
    )
    store, slow = Store(tmp_path / "st"), Alarm("slow", "r", True, "p95 9 s")
    for hour in (23, 26, 30.9):
        tell(store, "p", [slow], how, hour * HOUR)
    assert not heard and episodes(store, "p")[0].state == "open"
    for hour in (31, 31.5):
        tell(store, "p", [slow], how, hour * HOUR)
    assert len(heard) == 1 and len(episodes(store, "p")) == 1
    gone = Alarm("gone", "r", True)
    tell(store, "p", [gone], how, 47 * HOUR)
    for hour in (48, 49, 56):
        tell(store, "p", [Alarm("gone", "r", False)], how, hour * HOUR)
    server.shutdown()
    assert len(heard) == 1, "over before anyone woke"
    assert [each.state for each in episodes(store, "p")] == ["open", "closed"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("exact_match worse than promoted", "promoted"),
        ("score.polite worse than promoted by 0.05", "promoted"),
        ("exact_match worse than promoted staging by 0.05 for model=live", "promoted"),
        ("drift(text) auc > 0.6", "drift"),
        ("drift(label) significant", "drift"),
        ("drift(text.length) psi >= 0.2 against staging", "drift"),
        ("drift(answers)", "drift"),
        ("slo burn", "slo"),
        ("feedback.down > 0.1", "threshold"),
        ("exact_match worse than last 5", "change"),
    ],
)
def test_conditions_are_read(text: str, kind: str) -> None:
    alert = parse_alert(text)
    assert not isinstance(alert, Problem) and alert.kind == kind
    if text.startswith("score."):
        assert alert.metric == "polite" and alert.margin == 0.05


@pytest.mark.parametrize(
    "text", ["drift text", "drift() significant", "drift(x) auc", "slo burnt", "x worse than promotd"]
)
def test_others_are_refused(text: str) -> None:
    assert isinstance(parse_alert(text), Problem)
