"""The Batch API of OpenAI and Azure OpenAI, by the SDK: a file is uploaded, and a batch made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import orjson

from evalrun.providers.answers import load, read_document
from evalrun.providers.batch_api import BatchAPI, BatchOptions, BatchState
from evalrun.providers.faults import error_of_payload, error_of_status, provider_error, transport_errors
from evalrun.providers.openai_api import PATHS, Api, parse_completion
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

T = TypeVar("T")

_ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
_UNANSWERED = frozenset({"batch_expired", "batch_cancelled"})
"""Codes of requests that a batch ended without."""
_LIMITED = "token_limit_exceeded"
"""The code with which the API refuses a batch because of what waits already."""


class OpenAIBatches(BatchAPI):
    """`client` gives the SDK's client, `body` the JSON that is sent for a request."""

    most_requests: ClassVar[int] = 50_000
    most_bytes: ClassVar[int] = 200_000_000
    names_files: ClassVar[bool] = True

    def __init__(
        self,
        options: BatchOptions,
        client: Callable[[], Any],
        body: Callable[[Request], Mapping[str, JSON]],
        api: Api,
        *,
        azure: bool,
        key: str | None,
    ) -> None:
        super().__init__(options)
        self._client, self._body, self._key = client, body, key
        self._url = f"/{PATHS[api]}" if azure else f"/v1/{PATHS[api]}"

    def line(self, key: str, request: Request) -> bytes:
        body = self._body(request)
        try:
            return orjson.dumps({"custom_id": key, "method": "POST", "url": self._url, "body": body})
        except TypeError as error:
            what = f"the request cannot be written as JSON: {error}"
            raise ProviderError(ErrorKind.BAD_REQUEST, what) from error

    async def upload(self, path: Path) -> str:
        with path.open("rb") as file:
            made = await self._asked(
                self._client().files.create(file=(path.name, file, "application/jsonl"), purpose="batch")
            )
        return str(made.id)

    async def create(self, path: Path, file: str, label: str) -> BatchState:
        endpoint: Any = self._url
        return _state(
            await self._asked(
                self._client().batches.create(
                    input_file_id=file,
                    endpoint=endpoint,
                    completion_window="24h",
                    metadata={"evalrun": label},
                )
            )
        )

    async def state(self, batch: str) -> BatchState:
        return _state(await self._asked(self._client().batches.retrieve(batch)))

    async def cancel(self, batch: str) -> None:
        await self._asked(self._client().batches.cancel(batch))

    async def listed(self) -> AsyncIterator[BatchState]:
        page = await self._asked(self._client().batches.list(limit=100))
        while True:
            for batch in page.data:
                yield _state(batch)
            if not (page.data and page.has_next_page()):
                return
            page = await self._asked(page.get_next_page())

    async def fetch(self, state: BatchState, path: Path) -> None:
        with path.open("wb") as target:
            for file in state.results:
                await self._asked(self._append(file, target))

    async def _append(self, file: str, target: Any) -> None:
        last = b"\n"
        async with self._client().files.with_streaming_response.content(file) as answer:
            async for piece in answer.iter_bytes():
                target.write(piece)
                last = piece[-1:] or last
        if last != b"\n":
            target.write(b"\n")

    def read(self, line: bytes) -> tuple[str, Response | ProviderError]:
        document = load(line)
        key, error, response = document["custom_id"], document.get("error"), document.get("response")
        if error and not response:
            if error.get("code") in _UNANSWERED:
                what = error.get("message") or "the batch ended before it was answered"
                return key, ProviderError(ErrorKind.TIMEOUT, what)
            return key, error_of_payload(error)
        body = orjson.dumps(response.get("body"))
        if response["status_code"] >= 300:
            return key, error_of_status(response["status_code"], body, {})
        try:
            return key, read_document(body, parse_completion, None)
        except ProviderError as fault:
            return key, fault

    async def _asked(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except transport_errors() as error:
            raise provider_error(error, False, self._key) from error


def _state(batch: Any) -> BatchState:
    counts = batch.request_counts
    errors = (batch.errors.data if batch.errors else None) or []
    refused = f"{errors[0].code}: {errors[0].message}" if errors else "the file was refused"
    done = counts.completed + counts.failed if counts else 0
    return BatchState(
        id=batch.id,
        ended=batch.status in _ENDED,
        total=counts.total if counts else 0,
        done=done,
        created_s=float(batch.created_at),
        file=batch.input_file_id,
        results=tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
        refused=refused if batch.status == "failed" else "",
        limited=any(error.code == _LIMITED for error in errors),
        cancelled=batch.status == "cancelled",
    )
