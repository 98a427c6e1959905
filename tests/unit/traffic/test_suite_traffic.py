"""`traffic:` of a suite: production records as its dataset, with weights, redaction, alerts with state."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

from evalrun.gates.alarms import episodes
from evalrun.tracking.store import Store

from . import otlp_lines as otlp

SUITE = """name: live
models: [{id: live, provider: recorded, column: output}]
prompts: [{id: asked, messages: "{{ messages }}"}]
datasets:
  - id: traffic
    target: "{{ 'billing' }}"
    traffic: %s
scorers: [exact_match]
%s
"""


def write(folder: Path, n: int = 80, wrong: int = 10, word: str = "refund") -> None:
    """Traces of which head sampling kept every second; some answers are wrong."""
    answers = ["billing"] * (n - wrong) + ["bug"] * wrong
    lines = []
    for at, answer in enumerate(answers):
        sent = [{"role": "user", "parts": [{"type": "text", "content": f"{word} {at} to ann@example.org"}]}]
        out = [{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]
        own = {"gen_ai.input.messages": json.dumps(sent), "gen_ai.output.messages": json.dumps(out),
               "user.id": f"u{at % 40}"}  # fmt: skip
        state = "ot=th:8" if answer == "billing" else "ot=th:0"
        lines.append(otlp.line(otlp.newest(at + 1, own=own, traceState=state)))
    (folder / "traces.jsonl").write_text("\n".join([*lines, otlp.line(otlp.newest(1))[:-30], ""]))


def run(folder: Path, traffic: str, more: str = "", *words: str) -> tuple[dict[str, Any], str]:
    (folder / "live.yaml").write_text(SUITE % (traffic, more))
    done = evalrun("live.yaml", "--store", "st", "--json", *words, cwd=folder)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_suite_scores_its_traffic_by_weight(tmp_path: Path) -> None:
    write(tmp_path)
    document, said = run(tmp_path, "{path: 'traces*.jsonl', source: otlp}")
    metric = next(m for m in document["runs"][0]["metrics"] if m["name"] == "exact_match" and not m["slice"])
    # 70 right ones of weight 2, 10 wrong ones of weight 1
    assert metric["value"] == pytest.approx(140 / 150) and metric["n"] == 80
    assert "left out: 1 lines that are no JSON (torn)" in said
    folder = Store(tmp_path / "st").resolve("latest")
    manifest = folder.read_manifest()
    assert manifest["kind"] == "traffic" and manifest["tags"] == {"kind": "traffic"}
    assert manifest["datasets"]["traffic"]["source"]["read"]["matching"] == 80
    kept = folder.samples_path(document["runs"][0]["run"]).read_bytes()
    assert b"ann@example.org" not in kept and b"@example" not in json.dumps(manifest).encode()
    again, _ = run(tmp_path, "{path: 'traces*.jsonl', source: otlp}")
    assert (
        Store(tmp_path / "st").resolve(again["sweep"]).read_manifest()["datasets"]["traffic"]["digest"]
        == (manifest["datasets"]["traffic"]["digest"])
    ), "pseudonyms are the store's"


def test_a_sample_of_it_is_of_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path)
    spec = "{path: traces.jsonl, unit: each_generation, sample: {rate: %s, always: 'output == \"bug\"'}}"
    ids = []
    for rate in ("0.2", "0.5"):
        document, _ = run(tmp_path, spec % rate)
        shown = evalrun(
            "samples", document["sweep"], "--store", "st", "--json", "--limit", "99", cwd=tmp_path
        )
        ids.append({row["sample_id"] for row in json.loads(shown.stdout)["samples"]})
    assert ids[0] < ids[1] and len(ids[0]) >= 10


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ("{path: nothing.jsonl}", "there is no such file"),
        ("{path: traces.jsonl, unit: every}", "is no unit"),
        ("{path: traces.jsonl, where: 'modle == \"x\"'}", "Did you mean 'model'?"),
        ("{path: traces.jsonl, since: 24hours}", "is no time"),
        ("{path: traces.jsonl, since: 1h, until: 2h}", "ends before it begins"),
        ("{path: traces.jsonl, sample: {n: 5, rate: 0.1}}", "exclude each other"),
        ("{path: traces.jsonl, redact: standart}", "redact"),
        ("{path: traces.jsonl, where: 'model == \"none\"'}", "no record is left"),
        ("{path: traces.jsonl, sourec: otlp}", "Did you mean 'source'?"),
    ],
)
def test_what_is_wrong_with_it_is_said_before_anything_is_written(
    tmp_path: Path, traffic: str, said: str
) -> None:
    write(tmp_path, 4, 0)
    (tmp_path / "live.yaml").write_text(SUITE % (traffic, ""))
    done = evalrun("live.yaml", "--store", "st", cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    heard: list[str]

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    heard: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Own", (Hook,), {"heard": heard}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", heard
    server.shutdown()


def test_alerts_against_what_was_promoted_tell_an_episode_once(
    tmp_path: Path, hook: tuple[str, list[str]]
) -> None:
    url, heard = hook
    write(tmp_path, 200, 10)
    spec = "{path: traces.jsonl, redact: none}"
    alerts = (
        f"alerts: {{webhook: '{url}', when: ['score.exact_match worse than promoted by 0.1', "
        "'drift(text) auc > 0.6', 'drift(inputs)', 'feedback.down > 0.3', 'slo burn']}"
    )
    first, said = run(tmp_path, spec, alerts)
    assert "Traceback" not in said
    chosen = f"{first['sweep']}/{first['runs'][0]['run']}"
    evalrun(
        "promote", chosen, "--as", "production", "--reason", "good", "--store", "st", cwd=tmp_path
    )  # fmt: skip
    run(tmp_path, spec, alerts)
    store = Store(tmp_path / "st")
    assert not episodes(store, "live") and not heard, "nothing changed"
    write(tmp_path, 200, 120, word="the gift card does not work at the till")
    for _ in range(2):
        bad, _ = run(tmp_path, spec, alerts)
    opened = {each.name: each for each in episodes(store, "live")}
    assert set(opened) == {
        "score.exact_match worse than promoted by 0.1",
        "drift(text) auc > 0.6",
        "drift(inputs)",
    }
    assert len(heard) == 3 and any("worse than promoted" in text for text in heard), "one message an episode"
    assert "difference" in opened["score.exact_match worse than promoted by 0.1"].why
    thumbs = tmp_path / "thumbs.jsonl"
    ids = [f"{at + 1:032x}-{at + 1:016x}" for at in range(40)]
    thumbs.write_text("".join(json.dumps({"request_id": each, "thumb": "down"}) + "\n" for each in ids))
    done = evalrun(
        "feedback", "import", "thumbs.jsonl", "--sweep", bad["sweep"], "--store", "st", cwd=tmp_path
    )
    assert "alert: feedback.down > 0.3" in done.stdout and len(heard) == 4
    told = evalrun("whatis", "production", "--store", "st", cwd=tmp_path).stdout
    assert "traffic" in told and "drift(text) auc > 0.6" in told
