"""Explanations by the provider `transformers`, against the model itself, captum, and sums that are known."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import program

torch = pytest.importorskip("torch", reason="needs the extra 'transformers'")
pytest.importorskip("transformers", reason="needs the extra 'transformers'")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from evalrun import open_store  # noqa: E402
from evalrun.explain.games import Coalition, flat, leave_one_out, shared  # noqa: E402
from evalrun.explain.kept import read_explanations  # noqa: E402
from evalrun.providers.transformers_inside import Inside  # noqa: E402
from evalrun.tracking.store import Store  # noqa: E402

SECTIONS = "{% section one %}w1 w10{% endsection %} {% section two %}w15 w50{% endsection %} w5"
PROMPT, TARGET = "w1 w10 w15 w50 w5 w38", " w37 w30"


class Held:
    """What the child process holds, in this one."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.device = torch.device("cpu")
        self.context, self.ends, self.pad = 128, frozenset({2}), 0


@pytest.fixture(scope="module")
def held(trained: Path) -> Held:
    return Held(trained / "out" / "checkpoint-60")


def value(held: Held, prompt: str, embeddings: Any = None) -> Any:
    """log p(TARGET) after a prompt, by hand."""
    ids = torch.tensor(held.tokenizer(prompt + TARGET)["input_ids"])
    given = {"input_ids": ids[None]} if embeddings is None else {"inputs_embeds": embeddings}
    logits = held.model(**given).logits[:, -3:-1]
    return torch.log_softmax(logits, -1).gather(-1, ids[-2:].expand(len(logits), -1)[..., None]).sum((1, 2))


def told(held: Held, **more: Any) -> dict[str, Any]:
    asked = {"prompt": PROMPT, "texts": [TARGET], "spans": [[0, len(PROMPT)]], **more}
    return Inside(held).look({"what": "gradients", **asked})  # type: ignore[arg-type]


def test_integrated_gradients_add_up_and_are_captums(held: Held) -> None:
    captum = pytest.importorskip("captum.attr", reason="needs the package captum")
    found = told(held, method="integrated_gradients")
    assert found["converged"] and found["full"] == pytest.approx(
        float(value(held, PROMPT).detach()), abs=1e-4
    )
    assert found["sum"] == pytest.approx(found["full"] - found["empty"], rel=0.05)
    embed = held.model.get_input_embeddings()
    whole = embed(torch.tensor([held.tokenizer(PROMPT + TARGET)["input_ids"]])).detach()
    base = whole.clone()
    base[:, :6] = embed(torch.tensor([2])).detach()  # the end of text: " ." is no token of this vocabulary
    integrated = captum.IntegratedGradients(lambda rows: value(held, PROMPT, rows))
    steps = {"n_steps": found["steps"], "method": "gausslegendre", "internal_batch_size": 8}
    theirs = integrated.attribute(whole, base, **steps).sum(-1)[0, :6].tolist()
    assert [each for *_, each in found["tokens"]] == pytest.approx(theirs, abs=1e-3)


def test_a_constant_direction_needs_no_steps_and_gradient_times_input_is_autograds(held: Held) -> None:
    found = told(held, method="gradient")
    embed = held.model.get_input_embeddings()
    whole = embed(torch.tensor([held.tokenizer(PROMPT + TARGET)["input_ids"]])).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(held, PROMPT, whole).sum(), whole)
    by_hand = (gradient * whole).sum(-1)[0, :6].tolist()
    assert [each for *_, each in found["tokens"]] == pytest.approx(by_hand, abs=1e-4)
    against = told(held, method="gradient", texts=[TARGET, TARGET])
    assert against["full"] == pytest.approx(0, abs=1e-6)
    assert all(abs(each) < 1e-6 for *_, each in against["tokens"])


def test_maps_of_attention_are_the_models_and_rows_add_up(held: Held) -> None:
    found = Inside(held).look({"what": "attention", "prompt": PROMPT, "text": TARGET})  # type: ignore[arg-type]
    size = found["tokens"]
    raw = zlib.decompress(base64.b64decode(found["values"]))
    assert (found["layers"], found["heads"], size) == (2, 4, 8) and len(raw) == 2 * 4 * 8 * 8
    assert found["row_error"] < 1e-4
    for row in range(0, len(raw), size):
        assert abs(sum(raw[row : row + size]) / 255 - 1) <= size / 255
    held.model.set_attn_implementation("eager")
    ids = torch.tensor([held.tokenizer(PROMPT + TARGET)["input_ids"]])
    maps = torch.stack(held.model(ids, output_attentions=True).attentions)[:, 0]
    assert raw[-size:] == bytes((maps[-1, -1, -1] * 255).round().int().tolist())
    assert found["first"] == pytest.approx(float(maps[:, :, 5, 0].mean().detach()), abs=1e-5)
    (token, logprob), *_ = found["alternatives"][0]
    known = torch.log_softmax(held.model(ids).logits[0, 5], -1)
    assert logprob == pytest.approx(float(known.max()), abs=1e-4)
    assert token.strip() == held.tokenizer.decode([int(known.argmax())])
    *_, last = found["lens"]  # what the last layer would answer is what the model answers
    assert len(found["lens"]) == 2 and last[1] == pytest.approx(logprob, abs=1e-4)
    assert last[2] == pytest.approx(float(known[ids[0, 6]]), abs=1e-4)


def test_values_of_parts_are_captums(held: Held) -> None:
    captum = pytest.importorskip("captum.attr", reason="needs the package captum")
    words = PROMPT.split()[:4]

    def text(present: Sequence[int]) -> str:
        return " ".join([*(words[at] for at in present), *PROMPT.split()[4:]])

    def game(coalitions: Sequence[Coalition]) -> list[float]:
        with torch.no_grad():
            return [float(value(held, text(sorted(each)))) for each in coalitions]

    def forward(mask: Any) -> Any:
        return torch.tensor(game([frozenset(at for at in range(4) if row[at]) for row in mask]))

    ones, zeros = torch.ones(1, 4), torch.zeros(1, 4)
    exact = shared(game, flat(range(4)), most=100, seed=0).values
    theirs = captum.ShapleyValues(forward).attribute(ones, zeros)[0].tolist()
    assert [exact[frozenset({at})] for at in range(4)] == pytest.approx(theirs, abs=1e-4)
    left_out = leave_one_out(game, frozenset(range(4)), [frozenset({at}) for at in range(4)])
    theirs = captum.FeatureAblation(forward).attribute(ones, zeros)[0].tolist()
    assert left_out == pytest.approx(theirs, abs=1e-4)


def test_a_chat_is_explained_by_what_its_template_makes_of_it(
    trained: Path, held: Held, tmp_path: Path
) -> None:
    model = {"id": "m", "provider": "transformers", "model": str(trained / "out" / "checkpoint-60")}
    suite = {
        "name": "inside",
        "models": [{**model, "threads": 1, "params": {"temperature": 0, "max_tokens": 3}}],
        "prompts": [{"id": "p", "text": SECTIONS}],
        "datasets": [{"id": "d", "rows": [{"id": "a", "t": "w38"}], "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    done = program.evalrun("suite.yaml", "--no-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = ("explain", "latest/m-p-d/a", "--target", "target", "--units", "section,word")
    for more in (["--attention", "--html", "a.html"], ["--method", "integrated_gradients"]):
        done = program.evalrun(*words, *more, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        ids = held.tokenizer("user w1 w10 w15 w50 w5 assistantw38")["input_ids"]  # one token of both
        known = torch.log_softmax(held.model(torch.tensor([ids])).logits[0, -2], -1)
        if document["method"] == "occlusion":
            assert document["v_full"] == pytest.approx(float(known[ids[-1]]), abs=1e-3)
    kept = read_explanations(Store(tmp_path / ".evalrun").resolve("latest"), "m-p-d")
    assert kept is not None and kept.samples[0].attention is not None
    run = open_store(tmp_path / ".evalrun").sweep("latest").runs[0]
    maps = run.attention(kept.samples[0])
    assert maps.shape[:2] == (2, 4) and maps.sum(-1) == pytest.approx(1, abs=maps.shape[2] / 255)
    assert "where heads look" in (tmp_path / "a.html").read_text()
    done = program.evalrun(*words, "--method", "integrated_gradients", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["faithfulness"] in (
        "faithful",
        "no better than chance",
        "did not converge",
    )


def test_what_does_not_converge_has_no_ranking(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalrun.providers import transformers_inside as inside

    monkeypatch.setattr(inside, "STEPS", (1,))
    monkeypatch.setattr(inside, "CONVERGED", 1e-9)
    assert told(held, method="integrated_gradients")["converged"] is False
