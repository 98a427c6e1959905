"""`evalrun explain`, from a finished sweep to its answer, with a model that looks at planted words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import program
from tests.planted import TEXT, Chatting, Planted, suite

from evalrun.explain.kept import read_explanations
from evalrun.tracking.store import Store


@pytest.fixture(scope="module")
def server() -> Iterator[Planted]:
    running = Planted()
    with running:
        yield running


@pytest.fixture(scope="module")
def swept(server: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that has one sweep."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "suite.yaml").write_text(json.dumps(suite(server)))
    done = program.evalrun("suite.yaml", "--no-report", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def explain(folder: Path, *words: str, code: int = 0) -> Any:
    done = program.evalrun("explain", *words, "--json", cwd=folder)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if not code else done.stderr


def weights(document: dict[str, Any], level: str) -> dict[str, float]:
    return {unit["text"]: unit["value"] for unit in document["units"] if unit["level"] == level}


def test_planted_words_are_found_at_every_level(swept: Path) -> None:
    found = explain(swept, "latest/m-p-d/a", "--target", "answer")
    assert found["v_full"] == pytest.approx(-6.0) and found["v_empty"] == pytest.approx(-9.0)
    assert found["faithfulness"] == "faithful"
    sections = weights(found, "section")
    assert sections["Be brief."] == pytest.approx(-1.0) and sections["You sort messages."] == 0
    assert weights(found, "sentence")["I was charged twice."] == pytest.approx(4.0)
    words = weights(found, "word")
    assert words["charged"] == pytest.approx(4.0) and words["weather"] == 0
    (charged,) = [unit for unit in found["units"] if unit["text"] == "charged"]
    assert charged["se"] == 0 and charged["other"] == pytest.approx(4.0) and not charged["flips"]
    assert found["gap"] == pytest.approx(0)


def test_a_choice_is_explained_against_the_target_or_the_runner_up(swept: Path) -> None:
    right = explain(swept, "latest/m-p-d/a", "--units", "word")
    assert right["target"] == "contrast" and right["against"] == "the runner-up"
    assert weights(right, "word")["charged"] == pytest.approx(4.0)
    wrong = explain(swept, "latest/m-p-d/b", "--units", "word", "--method", "shapley", "--most", "60")
    assert wrong["against"] == "the target" and wrong["answer"] == " account"
    assert weights(wrong, "word")["late."] == pytest.approx(-3.0)


def test_exact_shapley_and_owen_share_everything_out(swept: Path) -> None:
    found = explain(
        swept, "latest/m-p-d/a", "--method", "shapley", "--units", "section", "--target", "answer"
    )
    assert weights(found, "section")["Be brief."] == pytest.approx(-1.0) and found["gap"] == 0
    assert [unit["left_out"] for unit in found["units"]] == pytest.approx([0.0, 4.0, -1.0, 0.0])
    owen = explain(
        swept, "latest/m-p-d/a", "--method", "owen", "--units", "section,sentence", "--target", "answer"
    )
    assert owen["gap"] == pytest.approx(0, abs=1e-9)
    assert weights(owen, "sentence")["I was charged twice."] == pytest.approx(4.0)


def test_another_rows_part_in_the_place_of_one(swept: Path) -> None:
    found = explain(
        swept, "latest/m-p-d/a", "--removal", "resample", "--units", "section", "--target", "answer"
    )
    sections = weights(found, "section")
    assert sections["Be brief."] == 0  # the other row says the same there
    assert sections["I was charged twice. The weather is fine today. My name is Sam."] == pytest.approx(4.0)


def test_what_was_explained_is_kept_without_texts_and_audited(swept: Path) -> None:
    explain(swept, "latest/m-p-d/a", "--target", "answer")
    folder = Store(swept / ".evalrun").resolve("latest")
    kept = read_explanations(folder, "m-p-d")
    assert kept is not None and kept.samples
    raw = (folder.run_dir("m-p-d") / "explain.json").read_text()
    assert "charged" not in raw and len(raw) / len(kept.samples) < 20_000
    assert "explain" in [event["action"] for event in folder.events()]
    assert program.evalrun("audit", "verify", cwd=swept).returncode == 0


def test_in_words(swept: Path) -> None:
    done = program.evalrun("explain", "latest/m-p-d/a", "--target", "answer", cwd=swept)
    assert done.returncode == 0, done.stderr
    assert "the answer loses 4.00 nats (54.6 times less likely)" in done.stdout
    assert "Faithful: removing its top words" in done.stdout and "not why the answer is right" in done.stdout


def test_the_second_time_comes_from_the_cache(swept: Path, server: Planted) -> None:
    words = ("latest/m-p-d/a", "--units", "section", "--target", "target")
    explain(swept, *words)
    before = len(server.bodies)
    assert explain(swept, *words)["evaluations"] > 0 and len(server.bodies) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["latest/m-p-d/zz"], "no sample 'zz'"),
        (["latest/m-p-d/a", "--units", "words"], "Did you mean 'word'"),
        (["latest/m-p-d/a", "--method", "shaply"], "Did you mean 'shapley'"),
        (["latest/m-p-d/a", "--removal", "cut"], "unknown removal"),
        (["latest/m-p-d", "--where", "score.exact_match > 2"], "no sample is as asked for"),
        (["latest/nowhere/a"], "no run 'nowhere'"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(
    swept: Path, server: Planted, words: list[str], said: str
) -> None:
    before = len(server.bodies)
    assert said in explain(swept, *words, code=2)
    assert len(server.bodies) == before


def run_once(folder: Path, document: dict[str, Any]) -> None:
    (folder / "suite.yaml").write_text(json.dumps(document))
    done = program.evalrun("suite.yaml", "--no-report", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_models_and_prompts_that_cannot_be_explained(tmp_path: Path, server: Planted) -> None:
    recorded = [{"id": "m", "provider": "recorded", "column": "t"}]
    run_once(tmp_path, suite(server, models=recorded))
    assert "no log-probabilities of prompts, so its answers cannot be explained" in explain(
        tmp_path, "latest/m-p-d/a", code=2
    )
    run_once(tmp_path, suite(server, prompts=[{"id": "p", "text": "{{ text }}"}]))
    said = explain(tmp_path, "latest/m-p-d/a", "--removal", "delete", code=2)
    assert "nothing stands before the answer when all is left out" in said
    assert explain(tmp_path, "latest/m-p-d/a", "--units", "sentence")["removal"] == "mask"


def test_a_model_that_is_not_the_sweeps_is_refused(tmp_path: Path, server: Planted) -> None:
    run_once(tmp_path, suite(server))
    manifest = next((tmp_path / ".evalrun" / "sweeps").glob("*/sweep.json"))
    document = json.loads(manifest.read_text())
    document["models"]["m"]["model"] = "another"
    manifest.write_text(json.dumps(document))
    before = len(server.bodies)
    said = explain(tmp_path, "latest/m-p-d/a", code=2)
    assert "the model is not the one that answered: its model was another and is scripted" in said
    assert len(server.bodies) == before


def test_a_chat_is_explained_by_the_text_that_the_server_makes_of_it(tmp_path: Path) -> None:
    with Chatting() as server:
        assert isinstance(server, Chatting)
        document = suite(server)
        del document["models"][0]["api"]
        run_once(tmp_path, document)
        found = explain(tmp_path, "latest/m-p-d/a", "--target", "answer", "--units", "section,word")
        sections = {unit["name"]: unit["value"] for unit in found["units"] if unit["name"]}
        assert sections["form"] == pytest.approx(-1.0) and sections["message"] == pytest.approx(4.0)
        assert weights(found, "word")["charged"] == pytest.approx(4.0)
        asked = [body["prompt"] for body in server.bodies if "prompt" in body]
        # The frame stays whatever is left out, and the token that every text gets anyway is not sent twice.
        frame = ("<|user|>", "<|end|><|assistant|> billing")
        assert asked and all(text.startswith(frame[0]) and text.endswith(frame[1]) for text in asked)


def test_faithfulness_over_a_runs_samples(swept: Path) -> None:
    words = ("latest/m-p-d", "--units", "word", "--target", "target", "--samples", "2", "--removal", "mask")
    one, two = explain(swept, *words)
    together = one["over_samples"]
    assert together == two["over_samples"] and (together["n"], together["faithful"]) == (2, 2)
    drawn = [
        sum(curve["random_comprehensiveness"] for curve in each["faithful"]["curve"]) / 3
        for each in (one, two)
    ]
    own = [each["faithful"]["comprehensiveness"] for each in (one, two)]
    assert together["difference"] == pytest.approx((sum(own) - sum(drawn)) / 2)
    assert together["ci_low"] < together["difference"] < together["ci_high"]


def test_which_parts_weight_changed_between_two_runs(tmp_path: Path, server: Planted) -> None:
    prompts = [{"id": "p", "text": TEXT}, {"id": "q", "text": TEXT.replace("Be brief.", "Be nice.")}]
    run_once(tmp_path, suite(server, prompts=prompts))
    words = ("--units", "section,word", "--target", "target", "--samples", "2")
    found = explain(tmp_path, "latest/m-p-d", "latest/m-q-d", *words)
    assert (found["a"], found["b"]) == ("m-p-d", "m-q-d")
    (form,) = [each for each in found["changes"] if each["part"] == "form"]
    # Of two samples one has billing as its target, of which "brief" took 1 nat away.
    assert form["n"] == 2 and form["before"] == pytest.approx(-0.5) and form["after"] == 0
    assert form["difference"] == pytest.approx(0.5) and form["ci_low"] < 0.5 < form["ci_high"]
    (message,) = [each for each in found["changes"] if each["part"] == "message"]
    assert message["difference"] == pytest.approx(0) and message["before"] == pytest.approx(3.5)


def test_a_suite_explains_its_worst_answers(tmp_path: Path, server: Planted) -> None:
    rules = {"samples": 1, "units": ["section", "word"], "target": "target"}
    document = suite(server, explain=rules)
    (tmp_path / "suite.yaml").write_text(json.dumps(document))
    done = program.evalrun("suite.yaml", "--report", "r.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = read_explanations(Store(tmp_path / ".evalrun").resolve("latest"), "m-p-d")
    assert kept is not None and [one.sample_id for one in kept.samples] == ["b"]  # the wrong one
    assert 'id="why"' in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"explain": {"units": ["words"]}}, "words"),
        ({"explain": {"models": ["n"]}}, "there is no model 'n'"),
        ({"explain": {"samples": {"where": "score.exact_match =="}}}, "score.exact_match =="),
        (
            {"explain": {}, "models": [{"id": "m", "provider": "recorded", "column": "t"}]},
            "so its answers cannot be explained",
        ),
    ],
)
def test_a_suite_that_cannot_be_explained_sends_nothing(
    tmp_path: Path, server: Planted, changes: dict[str, Any], said: str
) -> None:
    before = len(server.bodies)
    (tmp_path / "suite.yaml").write_text(json.dumps(suite(server, **changes)))
    done = program.evalrun("suite.yaml", cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr
    assert len(server.bodies) == before


def test_from_python(swept: Path) -> None:
    import evalrun

    sweep = evalrun.open_store(swept / ".evalrun").sweep("latest")
    found = sweep.runs[0].explain("a", target="answer", units=("section",), method="shapley")
    assert found.gap == 0 and found.v_full == pytest.approx(-6.0)


def test_redacted_texts_cannot_be_explained(tmp_path: Path, server: Planted) -> None:
    run_once(tmp_path, suite(server, privacy={"redact": "standard"}))
    assert "redacted before they were stored" in explain(tmp_path, "latest/m-p-d/a", code=2)
    (tmp_path / "suite.yaml").write_text(
        json.dumps(suite(server, privacy={"redact": "standard"}, explain={}))
    )
    done = program.evalrun("suite.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "needs them as they were" in done.stderr
