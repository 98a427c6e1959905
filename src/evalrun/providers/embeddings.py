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
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from pydantic import BaseModel

from evalrun.providers.base import Provider
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.chat_client import ChatClient


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and what the server counted for all of them together."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int | None = None
    model: str | None = None


async def embed_over_http(client: ChatClient, texts: Sequence[str]) -> Embedded:
    """POST /embeddings of the OpenAI API. Raises ProviderError for every fault."""
    import aiohttp

    from evalrun.providers.faults import error_of_exception, error_of_status

    body = {"input": list(texts), "encoding_format": "float", **client.target.extra_body}
    if client.target.model is not None:
        body["model"] = client.target.model
    answering = False
    try:
        async with client.session().post(
            client.below("embeddings"), data=orjson.dumps(body), allow_redirects=False
        ) as answer:
            answering = True
            data = await answer.read()
            if answer.status >= 300:
                for name, value in client.target.headers.items():
                    if name.lower() == "authorization":
                        data = data.replace(value.removeprefix("Bearer ").encode(), b"***")
                raise error_of_status(answer.status, data, answer.headers)
    except (aiohttp.ClientError, OSError) as error:
        raise error_of_exception(error, answering) from error
    try:
        return read_embeddings(orjson.loads(data), len(texts))
    except orjson.JSONDecodeError as error:
        raise ProviderError(ErrorKind.PROTOCOL, "the embeddings are not JSON") from error


def read_embeddings(document: Any, wanted: int) -> Embedded:
    """What the API's answer holds. Raises ProviderError where a vector is missing or is no vector."""
    try:
        entries = sorted(document["data"], key=lambda entry: entry["index"])
        vectors = [[float(value) for value in entry["embedding"]] for entry in entries]
        usage = document.get("usage") or {}
    except (LookupError, TypeError, ValueError) as error:
        what = f"the answer holds no embeddings: {type(error).__name__}: {error}"
        raise ProviderError(ErrorKind.PROTOCOL, what) from error
    if len(vectors) != wanted or not all(vectors) or len({len(each) for each in vectors}) > 1:
        what = f"{wanted} embeddings of one length were asked for, and there are {len(vectors)}"
        raise ProviderError(ErrorKind.PROTOCOL, what)
    return Embedded(vectors, usage.get("prompt_tokens"), document.get("model"))


def packed(vector: Sequence[float]) -> str:
    """A vector as text: 32-bit floats in base64."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def unpacked(text: str) -> array[float]:
    """The vector that `packed` wrote."""
    found = array("f")
    found.frombytes(base64.b64decode(text))
    return found


class EmbeddingProvider(Provider):
    """Another provider, asked for embeddings: `generate` answers the request's prompt with its vector."""

    Options: ClassVar[type[BaseModel]] = BaseModel
    summary: ClassVar[str] = "embeddings of another provider"
    supports: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def __init__(self, inner: Provider, batch: int) -> None:
        super().__init__(inner.spec, inner.context)
        self._inner, self._batch = inner, batch
        self._waiting: list[tuple[str, asyncio.Future[Response]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return self._inner.endpoint

    @property
    def default_concurrency(self) -> int | None:
        return 2 * self._batch  # two full requests: one is made while the other is answered

    async def start(self) -> None:
        """Nothing: the other provider is started by whoever made it."""

    async def close(self) -> None:
        """End what is in flight."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def identity(self) -> dict[str, JSON]:
        return {**self._inner.identity(), "wanted": "embedding"}

    async def generate(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((request.prompt or "", future))
        return await future

    def _flush(self) -> None:
        """Send what has gathered in this turn of the event loop."""
        waiting, self._waiting = [each for each in self._waiting if not each[1].done()], []
        for start in range(0, len(waiting), self._batch):
            task = asyncio.get_running_loop().create_task(self._send(waiting[start : start + self._batch]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, batch: Sequence[tuple[str, asyncio.Future[Response]]]) -> None:
        sent_ns = perf_counter_ns()
        try:
            found = await self._inner.embed([text for text, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(_again(error))
            if not isinstance(error, ProviderError):
                raise
            return
        timing = Timing(sent_ns, perf_counter_ns())
        sizes = [len(text) or 1 for text, _ in batch]
        for (_, future), vector, size in zip(batch, found.vectors, sizes, strict=True):
            if not future.done():
                # The server counts a request; each text is given its share of it by length.
                tokens = None if found.prompt_tokens is None else found.prompt_tokens * size / sum(sizes)
                share = None if tokens is None else round(tokens)
                future.set_result(Response(packed(vector), "stop", share, 0, timing, model=found.model))


def _again(error: BaseException) -> BaseException:
    """An exception of its own for each who waits: it is changed by who catches it."""
    if isinstance(error, ProviderError):
        return ProviderError(
            error.kind, error.message, http_status=error.http_status, retry_after_s=error.retry_after_s
        )
    if isinstance(error, Exception):
        return ProviderError(ErrorKind.APPLICATION, f"{type(error).__name__}: {error}")
    return ProviderError(ErrorKind.CONNECTION, "the request was cancelled")
