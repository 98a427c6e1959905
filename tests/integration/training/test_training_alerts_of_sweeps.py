"""Alerts of a suite on the training that its models come from: by what it logged, and by the same samples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.program import evalrun

from evalrun.gates import trainings
from evalrun.gates.alerts import Alert, check_alerts, parse_alert
from evalrun.tracking.store import Store
from evalrun.training.alerts import RULES

STEPS = (10, 20, 30, 40)


def make(place: Path, answers: dict[int, list[str]], history: list[dict[str, float]]) -> Store:
    """A store with a training and a sweep over its checkpoints."""
    (place / "out").mkdir()
    state = {"global_step": 40, "log_history": history}
    (place / "out" / "trainer_state.json").write_text(json.dumps(state))
    rows = [
        {
            "q": f"question {at * 7919 % 1000}",
            "t": "abcdefghij",
            **{f"a{step}": answers[step][at] for step in STEPS},
        }
        for at in range(len(answers[10]))
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = "".join(
        f"  - {{id: m{step}, provider: recorded, column: a{step}, "
        f"checkpoint: {{of: m, step: {step}, training: tiny}}}}\n"
        for step in STEPS
    )
    suite = (
        f"name: alerts\nmodels:\n{models}prompts: [{{id: p, text: '{{{{ q }}}}'}}]\n"
        "datasets: [{id: d, path: rows.jsonl, target: '{{ t }}'}]\nscorers: [cer]\n"
        "alerts: {when: [diverged, eval_loss rising 3]}\n"
    )
    (place / "suite.yaml").write_text(suite)
    store = place / "store"
    done = evalrun("training", "import", place / "out", "--name", "tiny", "--store", store)
    assert done.returncode == 0, done.stderr
    done = evalrun(place / "suite.yaml", "--store", store, "--report", place / "r.html", "--json")
    assert done.returncode == 0, done.stderr
    return Store(store)


def check(store: Store, *texts: str) -> list[tuple[str, bool, bool]]:
    folder = store.resolve("latest")
    alerts = [alert for text in texts if isinstance(alert := parse_alert(text), Alert)]
    results = check_alerts(alerts, folder, folder.read_manifest()["plan"], store)
    return [(each.alert, each.fired, each.checked) for each in results]


def worse_by(count: int) -> str:
    return "x" * count + "abcdefghij"[count:]


def test_alerts_look_at_the_training_and_at_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"step": step, "loss": 1.0, "eval_loss": step / 10} for step in STEPS]
    history[-1]["grad_norm"] = math.nan
    rising = {
        step: [worse_by(at % 3 + place + (at + place) % 2) for at in range(40)]
        for place, step in enumerate(STEPS)
    }
    store = make(tmp_path, rising, history)
    # Without likelihoods in the sweep what was logged decides.
    assert check(store, "diverged", "eval_loss rising 3", "spike") == [
        ("diverged", True, True),
        ("eval_loss rising 3", True, True),
        ("spike", False, True),
    ]
    # Any metric of the same samples in the place of the likelihood: the test is the same.
    monkeypatch.setattr(trainings, "NLL", "cer.sample_mean")
    assert check(store, "eval_loss rising 3") == [("eval_loss rising 3", True, True)]
    assert check(store, "eval_loss rising 4") == [("eval_loss rising 4", False, True)]


def test_means_that_rise_by_chance_are_no_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [{"step": step, "loss": 1.0, "eval_loss": step / 10} for step in STEPS]
    noise = {
        step: [worse_by((at * 7 + place * 3) % 8 + (at == 0 and place)) for at in range(40)]
        for place, step in enumerate(STEPS)
    }
    store = make(tmp_path, noise, history)
    assert check(store, "eval_loss rising 3") == [("eval_loss rising 3", True, True)]
    monkeypatch.setattr(trainings, "NLL", "cer.sample_mean")
    assert check(store, "eval_loss rising 3") == [("eval_loss rising 3", False, True)]


def test_every_rule_of_a_training_is_an_alert_of_a_suite() -> None:
    kinds = {alert.kind for rule in RULES if isinstance(alert := parse_alert(rule), Alert)}
    assert kinds == {"training"}
    assert len([rule for rule in RULES if isinstance(parse_alert(rule), Alert)]) == len(RULES)
