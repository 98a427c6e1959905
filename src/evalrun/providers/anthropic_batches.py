"""The Message Batches API of Anthropic: requests are handed over in one document, without a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import aiohttp
import orjson

from evalrun.providers.answers import load
from evalrun.providers.batch_api import BatchAPI, BatchOptions, BatchState
from evalrun.providers.faults import error_of_exception, error_of_payload, error_of_status
from evalrun.providers.http_client import HTTPClient
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

_PATH = "messages/batches"
_ANSWER_S = 600.0
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class AnthropicBatches(BatchAPI):
    """`client` gives the provider's HTTP client, `body` what a request is, `parse` reads an answer."""

    most_requests: ClassVar[int] = 100_000
    most_bytes: ClassVar[int] = 256_000_000
    names_files: ClassVar[bool] = False

    def __init__(
        self,
        options: BatchOptions,
        client: Callable[[], HTTPClient],
        body: Callable[[Request], Mapping[str, JSON]],
        parse: Callable[[JSON, Timing | None], Response],
    ) -> None:
        super().__init__(options)
        self._client, self._body, self._parse = client, body, parse

    def line(self, key: str, request: Request) -> bytes:
        try:
            return orjson.dumps({"custom_id": key, "params": self._body(request)})
        except TypeError as error:
            what = f"the request cannot be written as JSON: {error}"
            raise ProviderError(ErrorKind.BAD_REQUEST, what) from error

    async def create(self, path: Path, file: str, label: str) -> BatchState:
        client = self._client()
        body = b'{"requests":[%b]}' % path.read_bytes().strip().replace(b"\n", b",")
        return await client.post(client.below(_PATH), body, lambda document, _: _state(document))

    async def state(self, batch: str) -> BatchState:
        return _state(await self._get(f"{_PATH}/{batch}"))

    async def cancel(self, batch: str) -> None:
        client = self._client()
        await client.post(client.below(f"{_PATH}/{batch}/cancel"), b"", lambda document, _: document)

    async def listed(self) -> AsyncIterator[BatchState]:
        after: dict[str, str] = {}
        while True:
            page = await self._get(_PATH, {"limit": "100", **after})
            for batch in page["data"]:
                yield _state(batch)
            if not (page.get("has_more") and page.get("last_id")):
                return
            after = {"after_id": page["last_id"]}

    async def fetch(self, state: BatchState, path: Path) -> None:
        # By its id, and not by the address that it names: our key is for this server alone.
        status, body, headers = await self._answer(f"{_PATH}/{state.id}/results")
        if status != 200:
            raise error_of_status(status, body, headers)
        path.write_bytes(body)

    def read(self, line: bytes) -> tuple[str, Response | ProviderError]:
        document = load(line)
        key, result = document["custom_id"], document["result"]
        kind = result["type"]
        if kind == "succeeded":
            try:
                return key, self._parse(result["message"], None)
            except (LookupError, TypeError, AttributeError):
                return key, ProviderError(ErrorKind.PROTOCOL, "the answer is not of the expected form")
        if kind == "expired":
            return key, ProviderError(ErrorKind.TIMEOUT, "the batch expired before it was answered")
        if kind == "canceled":
            return key, ProviderError(ErrorKind.TIMEOUT, "the batch was cancelled before it was answered")
        error = result.get("error") or {}
        return key, error_of_payload(error.get("error") or error)

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> JSON:
        status, body, headers = await self._answer(path, query)
        if status != 200:
            raise error_of_status(status, body, headers)
        try:
            return load(body)
        except orjson.JSONDecodeError:
            raise ProviderError(ErrorKind.PROTOCOL, "the answer is not JSON") from None

    async def _answer(
        self, path: str, query: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        client = self._client()
        try:
            return await client.get(client.below(path).update_query(query or {}), _ANSWER_S)
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_exception(error, answering=False) from error


def _state(batch: JSON) -> BatchState:
    counts = batch["request_counts"]
    total = sum(int(counts.get(name) or 0) for name in _COUNTS)
    ended = batch["processing_status"] == "ended"
    return BatchState(
        id=batch["id"],
        ended=ended,
        total=total,
        done=total - int(counts.get("processing") or 0),
        created_s=datetime.fromisoformat(batch["created_at"]).timestamp(),
        cancelled=ended and bool(counts.get("canceled")),
    )
