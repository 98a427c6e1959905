"""Batch APIs: many requests handed over at once, answered within a day at half the price.

A provider that has one gives a `BatchAPI` where its model says `batch: true`; `runner.batched` asks by it.
Here is only what goes over the wire. Nothing here retries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from evalrun.frozen import frozen
from evalrun.providers.base import Provider, ProviderOptions, capability
from evalrun.types import ProviderError, Request, Response

BATCH_KEY = "Hand the requests to the batch API: half the price, answers within a day, no latency."


class BatchOptions(ProviderOptions):
    """How a model is asked through a batch API, where not all is as usual."""

    requests: int | None = Field(
        default=None, ge=1, description="Requests in one batch at most. Default: as many as the API takes."
    )
    poll_s: float = Field(default=60, gt=0, description="Seconds between two looks at a batch.")
    rounds: int = Field(
        default=3,
        ge=1,
        description="How often a request is handed over that expired or failed in a way that may pass.",
    )


@frozen
class BatchState:
    """How a batch stands. `total` counts its requests, `done` those that ended so far.

    `file` is the uploaded file that it was made of, `results` the files that hold its results, both where the
    API has files. `refused` says why the API took none of it, `limited` that it did so because too much was
    handed over already. `cancelled`: somebody ended it at the provider.
    """

    id: str
    ended: bool
    total: int
    done: int
    created_s: float
    file: str = ""
    results: tuple[str, ...] = ()
    refused: str = ""
    limited: bool = False
    cancelled: bool = False


class BatchAPI(ABC):
    """One provider's batch API. All calls raise ProviderError."""

    most_requests: ClassVar[int]
    most_bytes: ClassVar[int]
    names_files: ClassVar[bool]
    """Whether a batch says which uploaded file it was made of, so that it is known again for certain."""

    def __init__(self, options: BatchOptions) -> None:
        self.options = options

    @property
    def requests(self) -> int:
        """The most requests in one batch."""
        return min(self.options.requests or self.most_requests, self.most_requests)

    @abstractmethod
    def line(self, key: str, request: Request) -> bytes:
        """One request as a line of the file that is handed over, without its end."""

    async def upload(self, path: Path) -> str:
        """Hand the file over where that is a step of its own: its id."""
        return ""

    @abstractmethod
    async def create(self, path: Path, file: str, label: str) -> BatchState:
        """Make a batch of the file; `label` is for people who look at the provider's pages."""

    @abstractmethod
    async def state(self, batch: str) -> BatchState:
        """How a batch stands."""

    @abstractmethod
    async def cancel(self, batch: str) -> None:
        """End a batch early; what is answered by then is paid for."""

    @abstractmethod
    def listed(self) -> AsyncIterator[BatchState]:
        """All batches of the account, the newest first."""

    @abstractmethod
    async def fetch(self, state: BatchState, path: Path) -> None:
        """Write the results of an ended batch into a file, a JSON document a line."""

    @abstractmethod
    def read(self, line: bytes) -> tuple[str, Response | ProviderError]:
        """The key and the answer in a line of results."""


class Batches:
    """May be asked through a batch API."""

    batch_api: BatchAPI | None = None
    """There where the model says `batch`."""


def batch_api_of(provider: Provider) -> BatchAPI | None:
    """The batch API through which a provider's model is asked, where it is."""
    batches = capability(provider, Batches)
    return None if batches is None else batches.batch_api


def batch_options(said: bool | BatchOptions) -> BatchOptions | None:
    """What `batch` of a model says: None where it is asked request by request."""
    if isinstance(said, BatchOptions):
        return said
    return BatchOptions() if said else None
