"""The provider `transformers` against the model itself, asked in this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

torch = pytest.importorskip("torch", reason="needs the extra 'transformers'")
pytest.importorskip("transformers", reason="needs the extra 'transformers'")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from evalrun.errors import ExitCode, UserError  # noqa: E402
from evalrun.providers.base import BatchProvider, ProviderContext, create  # noqa: E402
from evalrun.suite.components import ModelSpec  # noqa: E402
from evalrun.types import Ask, ErrorKind, Message, ProviderError, Request, Response  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPTS = ["w1", "w5 w38 w37", "w9 w8", "w20 w27 w18 w13 w36 w23"]


def made(folder: Path, model: Path | str, **keys: Any) -> BatchProvider:
    entry = {"id": "m", "provider": "transformers", "model": str(model), "threads": 1, **keys}
    provider = create(ModelSpec.model_validate(entry), ProviderContext(folder, folder / "logs"))
    assert isinstance(provider, BatchProvider)
    return provider


def text(prompt: str, ask: Ask | None = None, **params: Any) -> Request:
    return Request(prompt, 0, (), prompt, {"temperature": 0, "max_tokens": 8, **params}, {}, ask=ask)


async def asked(provider: BatchProvider, requests: Sequence[Request]) -> list[Response]:
    answers = await provider.generate_batch(requests)
    for answer in answers:
        assert isinstance(answer, Response), answer
    return [answer for answer in answers if isinstance(answer, Response)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def completions(trained: Path) -> AsyncIterator[BatchProvider]:
    provider = made(trained, "out/checkpoint-60", api="completions", batch=3)
    await provider.start()
    yield provider
    await provider.close()


@pytest.fixture(scope="module")
def itself(trained: Path) -> tuple[Any, Any]:
    folder = trained / "out" / "checkpoint-60"
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


async def test_greedy_answers_are_those_of_generate(completions: BatchProvider, itself: Any) -> None:
    """Four prompts of unlike lengths in batches of three, against each alone in `model.generate`."""
    model, tokenizer = itself
    answers = await asked(completions, [text(prompt) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert answer.output == tokenizer.decode(whole, skip_special_tokens=True)
        assert answer.prompt_tokens == ids["input_ids"].shape[1]
        assert answer.completion_tokens == len(whole)
        assert answer.finish_reason == ("stop" if 2 in whole.tolist() else "length")


async def test_times_are_of_the_tokens(completions: BatchProvider) -> None:
    (answer,) = await asked(completions, [text("w1 w2", max_tokens=20)])
    timing = answer.timing
    assert timing is not None and timing.first_ns is not None
    assert timing.sent_ns < timing.first_ns < timing.last_ns


async def test_rows_of_one_batch_have_limits_and_seeds_of_their_own(completions: BatchProvider) -> None:
    """What is drawn with a seed is the same alone and beside others."""
    drawn = [text(prompt, temperature=1.0, seed=at, max_tokens=3 + at) for at, prompt in enumerate(PROMPTS)]
    together = await asked(completions, drawn)
    alone = [(await asked(completions, [one]))[0] for one in drawn]
    assert [answer.output for answer in together] == [answer.output for answer in alone]
    assert [answer.completion_tokens for answer in together] == [3, 4, 5, 6]
    others = await asked(completions, [text("w1", temperature=1.0, seed=seed) for seed in range(40)])
    assert len({answer.output for answer in others}) > 20


async def test_tokens_are_drawn_by_their_probability(completions: BatchProvider, itself: Any) -> None:
    model, tokenizer = itself
    with torch.inference_mode():
        p = torch.softmax(model(**tokenizer("w1", return_tensors="pt")).logits[0, -1], -1)
    n = 600
    drawn = await asked(
        completions, [text("w1", temperature=1.0, seed=seed, max_tokens=1) for seed in range(n)]
    )
    likeliest = int(p.argmax())
    share = sum(answer.output == tokenizer.decode([likeliest]) for answer in drawn) / n
    expected = float(p[likeliest])
    assert abs(share - expected) < 4 * (expected * (1 - expected) / n) ** 0.5
    (top,) = await asked(completions, [text("w1", temperature=5.0, top_k=1, seed=0, max_tokens=1)])
    assert top.output == tokenizer.decode([likeliest])


async def test_a_stop_ends_the_answer_before_it(completions: BatchProvider) -> None:
    (whole,) = await asked(completions, [text("w1", max_tokens=12)])
    third = whole.output.split()[2]
    (cut, other) = await asked(completions, [text("w1", max_tokens=12, stop=[third]), text("w9 w8")])
    assert cut.output == whole.output[: whole.output.index(third)]
    assert (cut.finish_reason, cut.completion_tokens) == ("stop", 3)
    assert other.completion_tokens == 8


async def test_likelihoods_are_those_of_one_text_alone(completions: BatchProvider, itself: Any) -> None:
    model, tokenizer = itself
    texts = ["w1 w10 w15", "w3", "w7 w52 w19 w20 w27 w18"]
    longer = [one for one in texts if " " in one]
    answers = await asked(completions, [text(one, Ask("perplexity")) for one in longer])
    for one, answer in zip(longer, answers, strict=True):
        ids = tokenizer(one, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            known = torch.log_softmax(model(ids).logits[0, :-1], -1)
        expected = float(known.gather(-1, ids[0, 1:, None]).sum())
        assert answer.likelihood["logprob"] == pytest.approx(expected, abs=1e-4)
        assert answer.likelihood["tokens"] == ids.shape[1] - 1
        assert answer.completion_tokens == 0
    (alone,) = await completions.generate_batch([text("w3", Ask("perplexity"))])
    assert isinstance(alone, ProviderError)  # one token with nothing before it


@pytest.mark.parametrize("trim", [False, True])
async def test_tokens_add_up_to_any_text(trim: bool) -> None:
    """Bytes of characters, white space that a tokenizer leaves out of its offsets: all has its place."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from evalrun.providers.likelihood import scored
    from evalrun.providers.transformers_child import Engine, Entry

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    made.train_from_iterator(["hello world new line two spaces"] * 20, trainer)
    engine = Engine.__new__(Engine)
    engine.tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    for text in (
        "hello  world, h\u00e9\u00e9 \u65e5\u672c \U0001f600 two\n\nnew   line  end ",
        "\u65e5\u65e5",
        " lead",
        "x",
    ):
        ids = engine.tokenizer(text)["input_ids"]
        shown = engine._shown(Entry(0, text, ids, {}, 0))
        known = scored(text, {**shown, "token_logprobs": [-1.0] * len(ids)})
        assert len(known.spans) == len(ids)
        assert known.spans[0][0] == 0 and known.spans[-1][1] == len(text)
        assert list(known.spans) == sorted(known.spans)


async def test_choices_by_prompts_and_by_the_first_token(completions: BatchProvider) -> None:
    (greedy,) = await asked(completions, [text("w1", max_tokens=1)])
    best = greedy.output.strip()
    options = ("w40", best, "w41")
    for via in ("prompt_logprobs", "first_token"):
        ask = Ask("choose", via=via, options=options, answers=options, separator=" ", top=64)
        (answer,) = await asked(completions, [text("w1", ask)])
        values = [option["logprob"] for option in answer.likelihood["options"]]
        assert max(values) == values[1], via


async def test_what_does_not_fit_fails_alone(completions: BatchProvider) -> None:
    long = " ".join(["w1"] * 128)
    answers = await completions.generate_batch([text("w1"), text(long), text("")])
    assert isinstance(answers[0], Response)
    for answer in answers[1:]:
        assert isinstance(answer, ProviderError) and answer.kind is ErrorKind.BAD_REQUEST
    (rest,) = await asked(completions, [text(" ".join(["w1"] * 120), max_tokens=None)])
    assert rest.completion_tokens is not None and rest.completion_tokens <= 8


async def test_chat_goes_through_the_template_and_a_crash_is_a_failure(trained: Path, itself: Any) -> None:
    model, tokenizer = itself
    provider = made(trained, "out/checkpoint-60")
    try:
        await provider.start()
        messages = (Message("user", "w5 w38"),)
        request = Request("s", 0, messages, None, {"temperature": 0, "max_tokens": 4, "logprobs": True}, {})
        (answer,) = await asked(provider, [request])
        ids = tokenizer("user w5 w38 assistant", return_tensors="pt")
        with torch.inference_mode():
            known = torch.log_softmax(model(**ids).logits[0, -1], -1)
        assert answer.prompt_tokens == 4
        first = answer.logprobs["content"][0]
        assert first["logprob"] == pytest.approx(float(known.max()), abs=1e-4)
        pid = provider.engine_pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        (lost,) = await provider.generate_batch([request])
        assert isinstance(lost, ProviderError) and lost.kind is ErrorKind.ENGINE
        assert "SIGKILL" in lost.message
    finally:
        await provider.close()


async def test_an_adapter_is_laid_over_its_base(trained: Path, itself: Any, tmp_path: Path) -> None:
    """A folder with an adapter names its base; answers are those of peft, and both stand in the identity."""
    peft = pytest.importorskip("peft", reason="needs peft")
    base, tokenizer = itself
    folder = trained / "out" / "checkpoint-60"
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    provider = made(tmp_path, "lora", api="completions")
    try:
        await provider.start()
        answers = await asked(provider, [text("w1 w10 w15", Ask("perplexity"))])
    finally:
        await provider.close()
    ids = tokenizer("w1 w10 w15", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        known = torch.log_softmax(adapted(ids).logits[0, :-1], -1)
        plain = torch.log_softmax(base(ids).logits[0, :-1], -1)
    expected = float(known.gather(-1, ids[0, 1:, None]).sum())
    assert abs(expected - float(plain.gather(-1, ids[0, 1:, None]).sum())) > 0.01
    assert answers[0].likelihood["logprob"] == pytest.approx(expected, abs=1e-4)
    identity = provider.identity()
    assert identity["adapter_sha256"] and identity["weights_sha256"] != identity["adapter_sha256"]


async def test_a_diverged_model_answers_nothing(trained: Path, tmp_path: Path) -> None:
    """The greatest of NaN would be an answer like any other."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nan"
    shutil.copytree(trained / "out" / "checkpoint-60", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    provider = made(tmp_path, "nan", api="completions")
    try:
        await provider.start()
        answers = await provider.generate_batch([text("w1 w2"), text("w1 w2", Ask("perplexity"))])
        assert all(isinstance(answer, ProviderError) and "NaN" in answer.message for answer in answers)
    finally:
        await provider.close()


async def test_the_identity_is_of_what_shapes_answers(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(trained / "out" / "checkpoint-60", folder)
    before = made(tmp_path, "c").pins()  # type: ignore[attr-defined]
    (folder / "optimizer.pt").write_bytes(b"other")
    (folder / "trainer_state.json").unlink()
    assert made(tmp_path, "c").pins() == before  # type: ignore[attr-defined]
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "x": 1})
    )
    assert made(tmp_path, "c").pins()["weights_sha256"] != before["weights_sha256"]  # type: ignore[attr-defined]


async def test_without_a_template_and_without_weights(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(trained / "out" / "checkpoint-20", folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template") as raised:
        await made(tmp_path, "c").start()
    assert raised.value.exit_code is ExitCode.INCOMPLETE
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors") as raised:
        await made(tmp_path, "c", api="completions").start()
    with pytest.raises(UserError, match="there is no folder"):
        await made(tmp_path, "./missing").start()
