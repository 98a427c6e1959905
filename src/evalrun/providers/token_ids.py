"""Likelihoods and answers as lm-evaluation-harness asks a completions server for them: by token ids.

A text sent as text gets a begin-of-text token on most servers and one sent as ids does not, and where a
context ends is counted in tokens of the context alone (`TemplateLM._encode_pair` of lm_eval 0.4.13), not in
characters. Both change the numbers, so published numbers need both. The server's own tokenizer is asked
(`/tokenize` of vLLM and llama.cpp, `/tokenizer_info` for its special tokens), or `tokenizer` of the model
entry names a `tokenizer.json`. Where there is neither, texts are sent as texts, likelihoods are cut by
characters as everywhere else in evalrun, and the answer says so: such numbers are near to lm_eval's, not
equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from evalrun.providers.http_provider import json_bytes
from evalrun.providers.likelihood import EchoLikelihoods, TextLikelihoods, joined, part, read_choices
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.openai_api import OpenAIAPI

SEED = 1234
"""lm_eval sends it with every request."""
GENERATED = 1
"""Tokens that a request for likelihoods generates, since some servers refuse none."""
BY_IDS, BY_CHARACTERS = "token ids", "characters"
"""How the end of a context was found, as `via` of a likelihood says it."""
_INFO_TIMEOUT_S = 5.0
_KEPT = 4096
"""Texts whose tokens are remembered: the contexts of a task recur in its pairs."""


class Tokenizer(Protocol):
    """Makes token ids of texts, without special tokens of its own."""

    prefix: int | None
    """What stands before a text that nothing stands before: begin of text, else end of text."""
    eos: str | None

    async def encode(self, text: str) -> list[int]: ...


@dataclass(slots=True)
class ServerTokenizer:
    """The tokenizer of the server that is asked."""

    api: OpenAIAPI
    prefix: int | None = None
    eos: str | None = None
    _field: str = "prompt"

    async def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises ProviderError."""
        body: dict[str, JSON] = {self._field: text, "add_special_tokens": False}
        if self._field == "content":
            body = {"content": text, "add_special": False}
        return await self._post(body)

    async def find(self) -> bool:
        """Whether the server has one; finds its special tokens."""
        for field in ("prompt", "content"):
            self._field = field
            try:
                if await self.encode("a"):
                    break
            except ProviderError as error:
                if error.kind not in (ErrorKind.NOT_FOUND, ErrorKind.BAD_REQUEST, ErrorKind.PROTOCOL):
                    raise
        else:
            return False
        info = await self._info()
        self.eos = info.get("eos_token") or None
        bos = info.get("bos_token")
        first = (await self.encode(bos))[:1] if bos else []
        if not (first and first[0]) and self.eos:  # as lm_eval: 0 counts as none
            first = (await self.encode(self.eos))[:1] or first
        if not first and not info:
            first = (await self._with_specials())[:1]
        self.prefix = first[0] if first else None
        return True

    async def _with_specials(self) -> list[int]:
        """The ids of an empty text with special tokens: begin of text, where there is one."""
        name = "add_special" if self._field == "content" else "add_special_tokens"
        try:
            return await self._post({self._field: "", name: True})
        except ProviderError:
            return []

    async def _info(self) -> Mapping[str, Any]:
        import aiohttp
        import orjson

        client = self.api.client
        if client is None:
            return {}
        try:
            status, body, _ = await client.get(self.api.beside("tokenizer_info"), _INFO_TIMEOUT_S)
            found = orjson.loads(body) if status == 200 else {}
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError):
            return {}
        return found if isinstance(found, Mapping) else {}

    async def _post(self, body: Mapping[str, JSON]) -> list[int]:
        client = self.api.client
        if client is None:
            raise ProviderError(ErrorKind.ENGINE, "the engine is not running")
        return await client.post(self.api.beside("tokenize"), json_bytes(body), _ids)


def _ids(document: JSON, timing: Timing) -> list[int]:
    return [int(each) for each in document["tokens"]]


@dataclass(slots=True)
class FileTokenizer:
    """A `tokenizer.json`, read by the package `tokenizers`."""

    inner: Any
    prefix: int | None = None
    eos: str | None = None

    @classmethod
    def of(cls, path: str) -> FileTokenizer:
        """Raises ProviderError where the package or the file is missing."""
        try:
            from tokenizers import Tokenizer as Fast

            inner = Fast.from_file(path)
        except ImportError as error:
            raise ProviderError(
                ErrorKind.APPLICATION, "tokenizer needs the package tokenizers: pip install tokenizers"
            ) from error
        except Exception as error:  # it raises Exception itself
            raise ProviderError(ErrorKind.APPLICATION, f"{path} is no tokenizer: {error}") from error
        found = cls(inner)
        plain, special = inner.encode("a", add_special_tokens=False).ids, inner.encode("a").ids
        if special and special[0] != plain[0]:
            found.prefix = special[0]
        for name in ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<eos>"):
            if (known := inner.token_to_id(name)) is not None:
                found.eos = name
                found.prefix = known if found.prefix is None else found.prefix
                break
        return found

    async def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True)
class Window:
    """What is sent at once: the ids, of which those from `start` are scored."""

    ids: Sequence[int]
    start: int


def window(context: Sequence[int], continuation: Sequence[int], most: int) -> Window:
    """A context and what follows it, cut on the left to `most` tokens.

    Raises ProviderError where nothing of the context is left (lm_eval: "Context length must be greater
    than 0").
    """
    whole = [*context, *continuation]
    start = len(context) - max(0, len(whole) - most)
    if start <= 0:
        raise ProviderError(
            ErrorKind.BAD_REQUEST,
            f"the text of {len(continuation)} tokens leaves no room for a context within {most} tokens",
        )
    return Window(whole[-most:], start)


def rolling(ids: Sequence[int], prefix: int, most: int) -> list[Window]:
    """Windows in which every token of a text is scored once: lm_eval's `get_rolling_token_windows` with one
    token of context, then `make_disjoint_window`."""
    size, windows, predicted = most - 1, [], 0
    while predicted < len(ids):
        count = min(size, len(ids) - predicted)
        end = predicted + count
        before = [prefix, *ids[: count - 1]] if not predicted else list(ids[max(0, end - size - 1) : end - 1])
        context = before[: len(before) - (count - 1)]
        windows.append(window(context, ids[predicted:end], most))
        predicted = end
    return windows


class TokenIds:
    """Asks one completions server as lm_eval does."""

    def __init__(self, api: OpenAIAPI, tokenizer: str | None = None) -> None:
        self._api = api
        self._path = tokenizer
        self._finding: asyncio.Task[Tokenizer | None] | None = None
        self._known: dict[str, list[int]] = {}
        self._together = True
        self._texts: TextLikelihoods | None = None

    async def tokenizer(self) -> Tokenizer | None:
        """What makes token ids; None where there is nothing. Looked for once."""
        if self._finding is None or (self._finding.done() and self._finding.exception() is not None):
            self._finding = asyncio.ensure_future(self._find())
        return await asyncio.shield(self._finding)

    async def _find(self) -> Tokenizer | None:
        if self._path is not None:
            return FileTokenizer.of(self._path)
        server = ServerTokenizer(self._api)
        return server if await server.find() else None

    async def _encode(self, tokenizer: Tokenizer, text: str) -> list[int]:
        known = self._known.get(text)
        if known is None:
            known = await tokenizer.encode(text)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[text] = known
        return known

    async def generate(self, request: Request) -> Response:
        """An answer in words. Raises ProviderError."""
        tokenizer = await self.tokenizer()
        body = self._api.common(request.params, request.stream)
        prompt: str | list[int] = request.prompt or ""
        if tokenizer is not None:
            stop = body.get("stop") or []
            stop = [stop] if isinstance(stop, str) else list(stop)
            if tokenizer.eos and tokenizer.eos not in stop:
                stop.append(tokenizer.eos)
            body["stop"] = stop
            room = request.exact - 1 - int(body.get("max_tokens") or 0)
            prompt = (await self._encode(tokenizer, request.prompt or ""))[-room:]
        return await self._api.post(
            None, json_bytes({**body, "prompt": prompt}), self._api.parse, self._api.Stream, request.stream
        )

    async def answer(self, request: Request, ask: Ask) -> Response:
        """Likelihoods of pairs, or of a text in windows. Raises ProviderError."""
        tokenizer = await self.tokenizer()
        if tokenizer is None:
            return await self._by_characters(request, ask)
        most = ask.max_length - 1
        if ask.kind == "rolling":
            ids = await self._encode(tokenizer, request.prompt or "")
            windows = rolling(ids, self._prefix(tokenizer), most)
            response, scores = await self._scored(request.params, windows)
            total = sum([value for value, _, _ in scores])
            likelihood: dict[str, JSON] = {"logprob": total, "tokens": len(ids), "via": BY_IDS}
            return replace(response, likelihood=likelihood)
        # One after the other: a burst of short requests for each sample is more than small servers accept.
        cut = [await self._pair(tokenizer, *pair) for pair in ask.pairs]
        windows = [window(context, continuation, most) for context, continuation, _ in cut]
        response, scores = await self._scored(request.params, windows)
        pairs = [{"logprob": value, "greedy": greedy, "tokens": count} for value, greedy, count in scores]
        crossed = sum(over for _, _, over in cut)
        likelihood = {"pairs": pairs, "via": BY_IDS, **({"crossed": crossed} if crossed else {})}
        return replace(response, likelihood=likelihood)

    @staticmethod
    def _prefix(tokenizer: Tokenizer) -> int:
        if tokenizer.prefix is None:
            what = "the tokenizer names no begin- or end-of-text token to stand before a text"
            raise ProviderError(ErrorKind.BAD_REQUEST, what)
        return tokenizer.prefix

    async def _pair(
        self, tokenizer: Tokenizer, context: str, continuation: str
    ) -> tuple[list[int], list[int], bool]:
        """The tokens of a context and of what follows it, and whether a token reaches over the boundary.

        Spaces at the end of the context go to what follows; then the tokens of the context alone are counted
        off those of both.
        """
        if context == "":
            ids, prefix = await self._encode(tokenizer, continuation), self._prefix(tokenizer)
            if not ids:
                raise ProviderError(ErrorKind.BAD_REQUEST, "there is no text to score")
            return ([prefix], ids, False) if ids[0] != prefix else (ids[:1], ids[1:], False)
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        whole = await self._encode(tokenizer, context + continuation)
        alone = await self._encode(tokenizer, context)
        return alone, whole[len(alone) :], whole[: len(alone)] != alone

    async def _scored(
        self, params: Mapping[str, JSON], windows: Sequence[Window]
    ) -> tuple[Response, list[tuple[float, bool, int]]]:
        """Log-likelihood, whether every token is the likeliest, and the tokens of each window."""
        if not windows:
            return Response(""), []
        if self._together and len(windows) > 1:
            try:
                return await self._ask(params, windows)
            except ProviderError as error:
                if error.kind not in (ErrorKind.BAD_REQUEST, ErrorKind.PROTOCOL):
                    raise
                self._together = False
        tasks = [asyncio.ensure_future(self._ask(params, [each])) for each in windows]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return joined([response for response, _ in answers]), [one for _, some in answers for one in some]

    async def _ask(
        self, params: Mapping[str, JSON], windows: Sequence[Window]
    ) -> tuple[Response, list[tuple[float, bool, int]]]:
        body = {**self._api.common(params, stream=False), "temperature": 0, "max_tokens": GENERATED}
        body |= {"logprobs": 1, "seed": SEED, "echo": True, "prompt": [list(each.ids) for each in windows]}
        body.pop("stream_options", None)
        return await self._api.post(
            None, json_bytes(body), lambda document, timing: read_windows(document, windows, timing)
        )

    async def _by_characters(self, request: Request, ask: Ask) -> Response:
        """The same by evalrun's own rule for the boundary, where there is no tokenizer."""
        if self._texts is None:
            self._texts = self._api.text_likelihoods()
        return await by_characters(self._texts, request, ask)


async def by_characters(texts: TextLikelihoods, request: Request, ask: Ask) -> Response:
    """Answer by the likelihoods of texts: context and continuation are told apart by characters."""
    if ask.kind == "rolling":
        answered = await texts.answer(request, Ask("perplexity"))
        known = answered.likelihood
        return replace(
            answered,
            likelihood={"logprob": known["logprob"], "tokens": known["tokens"], "via": BY_CHARACTERS},
        )
    if isinstance(texts, EchoLikelihoods):
        return await _echoed_pairs(texts, request, ask)
    answers = []
    for context, continuation in ask.pairs:
        one = replace(request, prompt=continuation, ask=None)
        answers.append(await texts.answer(one, Ask("perplexity", context=context)))
    pairs = [
        {"logprob": each.likelihood["logprob"], "greedy": None, "tokens": each.likelihood["tokens"]}
        for each in answers
    ]
    return replace(joined(answers), likelihood={"pairs": pairs, "via": BY_CHARACTERS})


async def _echoed_pairs(texts: EchoLikelihoods, request: Request, ask: Ask) -> Response:
    whole = [context + continuation for context, continuation in ask.pairs]
    response, known = await texts.by_a_way(request.params, whole)
    pairs = []
    for (context, _), text in zip(ask.pairs, known, strict=True):
        boundary = len(context)
        while over := [start for start, end in text.spans if start < boundary < end]:
            boundary = min(over)
        one = part(text, boundary)
        scored_at = [at for at, (start, _) in enumerate(text.spans) if start >= boundary]
        greedy = all(text.greedy[at] is not False for at in scored_at) if text.greedy else None
        pairs.append({"logprob": one.logprob, "greedy": greedy, "tokens": one.tokens})
    return replace(response, likelihood={"pairs": pairs, "via": BY_CHARACTERS})


def read_windows(
    document: JSON, windows: Sequence[Window], timing: Timing
) -> tuple[Response, list[tuple[float, bool, int]]]:
    """What a server said of the ids that it echoed. Raises ProviderError; for what is not of the expected
    form LookupError, TypeError or AttributeError."""
    choices, response = read_choices(document, len(windows), timing)
    found = []
    for choice, each in zip(choices, windows, strict=True):
        logprobs = choice.get("logprobs")
        if not logprobs or len(logprobs.get("token_logprobs") or ()) < len(each.ids):
            raise ProviderError(
                ErrorKind.BAD_REQUEST,
                "the server gives no log-probabilities of prompts (echo with logprobs in completions)",
            )
        span = slice(each.start, len(each.ids))
        values, tops = logprobs["token_logprobs"][span], (logprobs.get("top_logprobs") or ())[span]
        # One after the other, as lm_eval adds them: the last digit depends on it.
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=False))
        found.append((float(sum(values)), greedy, len(values)))
    return response, found
