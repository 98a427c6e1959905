"""Embeddings over HTTP, and the provider that gathers single texts into requests of many.

The runner asks for one text at a time, so that each has its place in the cache and the journal; what is in
flight at the same moment is sent together.
"""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter_ns
from typing import Any, ClassVar

from evalrun.providers.base import Embeds, Provider, capability
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and what the server counted for all of them together."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int | None = None
    model: str | None = None


def read_embeddings(document: Any, wanted: int) -> Embedded:
    """What the API's answer holds. Raises ProviderError where a vector is missing or is no vector."""
    try:
        entries = sorted(document["data"], key=lambda entry: entry["index"])
        vectors = [[float(value) for value in entry["embedding"]] for entry in entries]
        usage = document.get("usage") or {}
    except (LookupError, TypeError, ValueError) as error:
        what = f"the answer holds no embeddings: {type(error).__name__}: {error}"
        raise ProviderError(ErrorKind.PROTOCOL, what) from error
    if len(vectors) != wanted or not all(vectors) or len({len(vector) for vector in vectors}) > 1:
        what = f"{wanted} embeddings of one length were asked for, and there are {len(vectors)}"
        raise ProviderError(ErrorKind.PROTOCOL, what)
    return Embedded(vectors, usage.get("prompt_tokens"), document.get("model"))


def packed(vector: Sequence[float]) -> str:
    """A vector as text: 32-bit floats in base64."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def unpacked(text: str) -> array[float]:
    """The vector that `packed` wrote."""
    vector = array("f")
    vector.frombytes(base64.b64decode(text))
    return vector


class EmbeddingProvider(Provider):
    """Another provider, asked for embeddings: `generate` answers the request's prompt with its vector.

    The other one is started, and closed, by whoever made it.
    """

    summary: ClassVar[str] = "embeddings of another provider"

    def __init__(self, other: Provider, batch: int) -> None:
        super().__init__(other.spec, other.context)
        embeds = capability(other, Embeds)
        assert embeds is not None, "checked when the suite is prepared"
        self._other, self._embeds, self._batch = other, embeds, batch
        self._waiting: list[tuple[str, asyncio.Future[Response]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return self._other.endpoint

    @property
    def default_concurrency(self) -> int | None:
        return 2 * self._batch  # two full requests: one is made while the other is answered

    async def close(self) -> None:
        """End what is in flight."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def identity(self) -> dict[str, JSON]:
        return {**self._other.identity(), "wanted": "embedding"}

    def credentials(self) -> dict[str, str]:
        return self._other.credentials()

    async def generate(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((request.prompt or "", future))
        return await future

    def _flush(self) -> None:
        """Send what has gathered in this turn of the event loop."""
        waiting, self._waiting = [entry for entry in self._waiting if not entry[1].done()], []
        for start in range(0, len(waiting), self._batch):
            task = asyncio.get_running_loop().create_task(self._send(waiting[start : start + self._batch]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, batch: Sequence[tuple[str, asyncio.Future[Response]]]) -> None:
        sent_ns = perf_counter_ns()
        try:
            embedded = await self._embeds.embed([text for text, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(_again(error))
            if not isinstance(error, ProviderError):
                raise
            return
        timing = Timing(sent_ns, perf_counter_ns())
        lengths = list(accumulate(len(text) or 1 for text, _ in batch))
        for at, ((_, future), vector) in enumerate(zip(batch, embedded.vectors, strict=True)):
            if not future.done():
                tokens = _share(embedded.prompt_tokens, lengths, at)
                future.set_result(Response(packed(vector), "stop", tokens, 0, timing, model=embedded.model))


def _share(tokens: int | None, lengths: Sequence[int], at: int) -> int | None:
    """What of a request's tokens the text at a place has, by its length; all shares add up to the tokens.

    `lengths` are those of the texts up to each one, together.
    """
    if tokens is None:
        return None
    before = lengths[at - 1] if at else 0
    return round(tokens * lengths[at] / lengths[-1]) - round(tokens * before / lengths[-1])


def _again(error: BaseException) -> BaseException:
    """An exception of its own for each who waits: it is changed by who catches it."""
    if isinstance(error, ProviderError):
        return ProviderError(
            error.kind, error.message, http_status=error.http_status, retry_after_s=error.retry_after_s
        )
    if isinstance(error, Exception):
        return ProviderError(ErrorKind.APPLICATION, f"{type(error).__name__}: {error}")
    return ProviderError(ErrorKind.CONNECTION, "the request was cancelled")
