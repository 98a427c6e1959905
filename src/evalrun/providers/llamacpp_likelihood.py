"""Likelihoods of texts from llama.cpp's server, which gives no log-probabilities of prompts.

It says how likely the token was that it generated, by the model's own distribution, before any bias or
sampling. So each token of a text is asked for by itself: the tokens before it are the prompt, a bias makes
it the one that is generated, and the answer holds its log-probability. The engine keeps what it has read of
the prompt, so a text costs one step of the model for each of its tokens.

It says nothing of a token that ends within a character. In the place of such a one another is made to be
generated, and its log-probability is among those of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from evalrun.providers.likelihood import (
    Scored,
    Span,
    asked_texts,
    common_boundary,
    joined,
    likelihood_of,
    spans,
)
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Timing

Post: TypeAlias = Callable[[str, Mapping[str, JSON], Callable[[JSON, Timing], Any]], Awaitable[Any]]
"""Posts a document to a path of the server, and gives what a function makes of the answer."""

_VOCABULARY = 1_000_000
"""So many log-probabilities are asked for where those of all tokens are wanted."""
_CERTAIN = 10_000.0
"""A bias by which a token is generated whatever the model makes of it."""


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text as the engine's tokens."""

    text: str
    ids: Sequence[int]
    spans: Sequence[Span]
    whole: Sequence[bool]
    """Which of the tokens hold whole characters."""


class ForcedLikelihoods:
    """Asks for the likelihoods of texts token by token."""

    def __init__(self, post: Post, *, cache_prompt: bool) -> None:
        self._post = post
        self._cache_prompt = cache_prompt
        self._a: int | None = None

    async def answer(self, request: Request, ask: Ask) -> Response:
        """Answer one request. Raises ProviderError."""
        context, texts = asked_texts(request.prompt or "", ask)
        cut = [await self._tokens(text) for text in texts]
        boundary = common_boundary([Scored(text.text, text.spans, ()) for text in cut], context)
        known: list[Scored] = []
        responses: list[Response] = []
        for text in cut:
            logprobs: list[float | None] = []
            for at, (begin, _) in enumerate(text.spans):
                if begin < boundary or at == 0:  # what is not counted, and what nothing stands before
                    logprobs.append(None)
                    continue
                response, logprob = await self._forced(text.ids[:at], text.ids[at], text.whole[at])
                responses.append(response)
                logprobs.append(logprob)
            known.append(Scored(text.text, text.spans, logprobs))
        likelihood = likelihood_of(ask, known, context)
        tokens = sum(len(text.ids) for text in cut)
        return replace(joined(responses), likelihood=likelihood, prompt_tokens=tokens, completion_tokens=0)

    async def _tokens(self, text: str) -> _Tokens:
        body = {"content": text, "add_special": True, "parse_special": True, "with_pieces": True}
        ids, pieces = await self._post("/tokenize", body, _read_tokens)
        known = spans(text, [_shown(piece) for piece in pieces])
        if known is None or len(known) != len(ids):
            what = "the engine's tokens do not add up to the text that was sent"
            raise ProviderError(ErrorKind.BAD_REQUEST, what)
        return _Tokens(text, ids, known, [isinstance(piece, str) for piece in pieces])

    async def _forced(self, before: Sequence[int], token: int, whole: bool) -> tuple[Response, float]:
        """How likely a token is after others."""
        made = token if whole else await self._some_token()
        body = {
            "prompt": list(before),
            "n_predict": 1,
            "n_probs": 1 if whole else _VOCABULARY,
            "temperature": -1.0,  # the likeliest, with probabilities
            "logit_bias": [[made, _CERTAIN]],
            "cache_prompt": self._cache_prompt,
            "stream": False,
        }

        def read(document: JSON, timing: Timing) -> tuple[Response, float]:
            first = document["completion_probabilities"][0]
            entries = [first] if whole else first["top_logprobs"]
            logprob = next((entry["logprob"] for entry in entries if entry["id"] == token), None)
            if logprob is None:
                raise ProviderError(ErrorKind.PROTOCOL, "the engine says nothing of a token of the text")
            return Response("", timing=timing, model=document.get("model")), float(logprob)

        answered: tuple[Response, float] = await self._post("/completion", body, read)
        return answered

    async def _some_token(self) -> int:
        """A token that is a whole character."""
        if self._a is None:
            ids, _ = await self._post("/tokenize", {"content": "a", "with_pieces": True}, _read_tokens)
            self._a = int(ids[-1])
        return self._a


def _read_tokens(document: JSON, timing: Timing) -> tuple[list[int], list[str | list[int]]]:
    """Ids and texts; a token that holds only some bytes of a character comes as a list of them."""
    tokens = document["tokens"]
    return [token["id"] for token in tokens], [token["piece"] for token in tokens]


def _shown(piece: str | list[int]) -> str:
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")
