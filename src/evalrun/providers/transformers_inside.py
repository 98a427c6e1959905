"""What only a model in this process can tell: gradients of a likelihood, attention, the likeliest tokens.

Part of the child process of the provider `transformers`; loaded when it is first asked for.
"""

from __future__ import annotations

import base64
import copy
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from evalrun.providers.transformers_child import Engine

STEPS = (32, 64, 128, 256)
CONVERGED = 0.05
_PATHS = 8
MOST_TOKENS = 128
_NEUTRAL = " ."
_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm")
"""What the last norm of a model is called in most families."""


class Inside:
    """Looks into the model of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._full: Any = None

    def look(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises ValueError for what cannot be told."""
        kinds: dict[str, Callable[..., dict[str, Any]]] = {
            "chat_text": self.chat_text,
            "gradients": self.gradients,
            "attention": self.attention,
        }
        given = {key: value for key, value in request.items() if key != "what"}
        return kinds[request["what"]](**given)

    def chat_text(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the chat template makes of messages, without the token that every text is given anyway."""
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        begin = self._tokenizer.bos_token
        plain = self._tokenizer("a")["input_ids"]
        if begin and plain[:1] == [self._tokenizer.bos_token_id]:
            text = text.removeprefix(begin)
        return {"text": text}

    # --- gradients --------------------------------------------------------------------------------------

    def gradients(
        self, prompt: str, texts: Sequence[str], spans: Sequence[Sequence[int]], method: str
    ) -> dict[str, Any]:
        """What each token of the prompt within `spans` adds to log p(texts[0]), less log p(texts[1]).

        `integrated_gradients` (Sundararajan et al. 2017) over input embeddings, from that of a neutral token,
        by Gauss-Legendre quadrature with 32 to 256 steps until the sum is within 5 % of the difference of the
        values; `gradient` is gradient times input, one backward pass.
        """
        model = self._in_float32()
        found: dict[int, float] = {}
        result = {"full": 0.0, "empty": 0.0, "sum": 0.0, "steps": 1}
        places: dict[int, list[int]] = {}
        converged = True
        for sign, text in zip((1.0, -1.0), texts, strict=False):
            ids, offsets, start = self._cut(prompt, text)
            feature = [
                at for at in range(start) if any(s <= _inner(prompt, *offsets[at]) < e for s, e in spans)
            ]
            path = _Path(model, ids, start, feature, self._baseline())
            if method == "gradient":
                values, steps, done = path.times_input(), 1, True
            else:
                values, steps, done = path.integrated()
            for at, value in zip(feature, values, strict=True):
                found[at] = found.get(at, 0.0) + sign * value
                places[at] = [_inner(prompt, *offsets[at]), offsets[at][1]]
            result["full"] += sign * path.full
            result["empty"] += sign * path.empty
            result["steps"] = max(result["steps"], steps)
            converged &= done
        result["sum"] = sum(found.values())
        tokens = [[*places[at], found[at]] for at in sorted(found)]
        return {**result, "converged": converged, "tokens": tokens}

    def _in_float32(self) -> Any:
        engine = self._engine
        if next(engine.model.parameters()).dtype is torch.float32:
            return engine.model
        if self._full is None:
            self._full = copy.deepcopy(engine.model).float()
        return self._full

    def _baseline(self) -> int:
        """A neutral token: " ." where that is one, else the end of text. Never a zero embedding: norms are
        singular there."""
        ids = self._tokenizer(_NEUTRAL, add_special_tokens=False)["input_ids"]
        unknown = self._tokenizer.unk_token_id
        if len(ids) == 1 and ids[0] != unknown:
            return int(ids[0])
        return min(self._engine.ends, default=int(self._engine.pad))

    def _cut(self, prompt: str, text: str) -> tuple[list[int], list[tuple[int, int]], int]:
        """Ids and places of the tokens of prompt and text, and the first token that is the text's."""
        if not self._tokenizer.is_fast:
            raise ValueError("the tokenizer does not tell where its tokens stand in a text")
        coded = self._tokenizer(prompt + text, return_offsets_mapping=True)
        ids, offsets = coded["input_ids"], [tuple(span) for span in coded["offset_mapping"]]
        if len(ids) > self._engine.context:
            raise ValueError(f"{len(ids)} tokens are more than the context of {self._engine.context}")
        start = next((at for at, (s, e) in enumerate(offsets) if e > len(prompt) and s < e), len(ids))
        if not 0 < start < len(ids):
            raise ValueError("nothing stands before the answer, or it has no tokens")
        return ids, offsets, start

    # --- attention --------------------------------------------------------------------------------------

    def attention(self, prompt: str, text: str, top: int = 5) -> dict[str, Any]:
        """Maps of every head over prompt and text (its last 128 tokens), and the likeliest tokens at each
        place of the text."""
        ids, offsets, start = self._cut(prompt, text)
        model, whole = self._engine.model, prompt + text
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")  # the fast kernels give no map
        try:
            with torch.inference_mode():
                given = torch.tensor([ids], device=self._engine.device)
                out = model(given, output_attentions=True, output_hidden_states=True)
        finally:
            model.set_attn_implementation(before)
        maps = [layer for layer in out.attentions or () if layer is not None]
        if not maps:
            raise ValueError("the model gives no attention, also with attn_implementation='eager'")
        stacked = torch.stack([layer[0].float().cpu() for layer in maps]).numpy()
        first = float(stacked[:, :, start - 1, 0].mean())
        worst = float(np.abs(stacked.sum(-1) - 1).max())
        kept = stacked[:, :, -MOST_TOKENS:, -MOST_TOKENS:]
        coded = np.rint(kept * 255).astype(np.uint8)
        known = torch.log_softmax(out.logits[0, start - 1 : -1].float(), -1)
        values, likeliest = known.topk(min(top, known.shape[-1]))
        return {
            "layers": coded.shape[0],
            "heads": coded.shape[1],
            "tokens": coded.shape[2],
            "values": base64.b64encode(zlib.compress(coded.tobytes(), 9)).decode(),
            "spans": [list(span) for span in offsets[-MOST_TOKENS:]],
            "texts": [whole[s:e] for s, e in offsets[-MOST_TOKENS:]],
            "first": first,
            "start": start - max(0, len(ids) - MOST_TOKENS),
            "cut": len(ids) > MOST_TOKENS,
            "row_error": worst,
            "lens": self._lens(out, start - 1, ids[start]),
            "alternatives": [
                [
                    [self._tokenizer.decode([int(token)]), float(value)]
                    for token, value in zip(t, v, strict=True)
                ]
                for t, v in zip(likeliest, values, strict=True)
            ],
        }

    def _lens(self, out: Any, at: int, answer: int) -> list[list[Any]]:
        """What each layer would say at a place: the final norm and the unembedding on its output. Empty for a
        model in which these are not known."""
        model = self._engine.model
        body, head = model.base_model, model.get_output_embeddings()
        norm = next((found for name in _NORMS if (found := getattr(body, name, None)) is not None), None)
        if norm is None or head is None:
            return []
        made = []
        with torch.inference_mode():
            for number, layer in enumerate(out.hidden_states[1:], 1):
                last = number == len(out.hidden_states) - 1  # that one is past the norm already
                state = layer[0, at] if last else norm(layer[0, at])
                known = torch.log_softmax(head(state).float(), -1)
                token = int(known.argmax())
                made.append([self._tokenizer.decode([token]), float(known[token]), float(known[answer])])
        return made


def _inner(text: str, start: int, end: int) -> int:
    """Where a token's first character that is no white space stands."""
    while start < end - 1 and start < len(text) and text[start].isspace():
        start += 1
    return start


class _Path:
    """log p(text) as a function of the input embeddings of some tokens, between a baseline and themselves."""

    def __init__(
        self, model: Any, ids: Sequence[int], start: int, feature: Sequence[int], neutral: int
    ) -> None:
        self._model, self._start = model, start
        embed = model.get_input_embeddings()
        device = embed.weight.device
        self._ids = torch.tensor(ids, device=device)
        with torch.no_grad():
            self._input = embed(self._ids)
            self._base = self._input.clone()
            self._base[list(feature)] = embed(torch.tensor([neutral], device=device))
        self._feature = list(feature)
        self.full, self.empty = self._values(torch.stack([self._input, self._base])).tolist()

    def _values(self, embeddings: Any) -> Any:
        logits = self._model(inputs_embeds=embeddings).logits[:, self._start - 1 : -1]
        known = torch.log_softmax(logits.float(), -1)
        wanted = self._ids[self._start :].expand(len(embeddings), -1)
        return known.gather(-1, wanted[..., None])[..., 0].sum(-1)

    def _gradients(self, points: Sequence[float]) -> Any:
        """Gradients at points of the straight line, of shape (points, tokens, width)."""
        scale = torch.tensor(points, device=self._input.device, dtype=self._input.dtype)[:, None, None]
        embeddings = (self._base + scale * (self._input - self._base)).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(self._values(embeddings).sum(), embeddings)
        return gradients

    def times_input(self) -> list[float]:
        """Gradient times input."""
        products = (self._gradients([1.0])[0] * self._input).sum(-1)
        return [float(products[at]) for at in self._feature]

    def integrated(self) -> tuple[list[float], int, bool]:
        """Values, steps, and whether they add up."""
        difference, values, steps = self.full - self.empty, [0.0] * len(self._feature), 0
        for steps in STEPS:
            nodes, weights = np.polynomial.legendre.leggauss(steps)
            total = torch.zeros_like(self._input)
            for at in range(0, steps, _PATHS):
                points = ((nodes[at : at + _PATHS] + 1) / 2).tolist()
                share = torch.tensor(weights[at : at + _PATHS] / 2, device=total.device, dtype=total.dtype)
                total += (self._gradients(points) * share[:, None, None]).sum(0)
            products = (total * (self._input - self._base)).sum(-1)
            values = [float(products[at]) for at in self._feature]
            gap = abs(math.fsum(values) - difference)
            if gap <= CONVERGED * abs(difference):
                return values, steps, True
        return values, steps, False
