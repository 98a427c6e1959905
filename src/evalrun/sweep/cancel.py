"""Gives up the batches of an unfinished sweep that run at a provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import Provider
from evalrun.providers.batch_api import BatchAPI, batch_api_of
from evalrun.runner.batch_journal import NAME, Batch, read_batches
from evalrun.suite.load import load_suite
from evalrun.sweep.options import SweepOptions
from evalrun.sweep.prepare import PreparedSweep, prepare
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.types import ErrorKind, ProviderError


def cancel_batches(suite: Path, options: SweepOptions) -> list[str]:
    """Cancel what the unfinished sweep of a suite has at batch APIs; gives the ids of those batches.

    What they have answered by then is paid for: the same command without `--cancel` takes it. Raises
    UserError: exit 2 where there is nothing to cancel, 3 where a provider does not do it.
    """
    store = Store(options.store)
    prepared = prepare(load_suite(suite, options.overrides), options.store / "engines", options.store)
    try:
        folder = store.find_incomplete(prepared.work_digest)
        batches = [] if folder is None else list(_open(prepared, folder))
        if not batches:
            raise UserError(
                "no unfinished sweep of this suite has batches at a provider",
                where=str(suite),
                remedy="Name the suite, options and store with which it was begun.",
            )
        return asyncio.run(_cancel(batches))
    finally:
        prepared.close()


def _open(prepared: PreparedSweep, folder: SweepFolder) -> Iterator[tuple[Batch, list[Provider]]]:
    """The batches whose answers are not taken, each with the models that it may be of."""
    asked = {folder.run_dir(spec.run_id): spec.model.id for spec in prepared.specs}
    judges = list(prepared.judging.providers.values()) if prepared.judging is not None else []
    for path in sorted(folder.path.glob(f"runs/**/{NAME}")):
        model = asked.get(path.parent)
        providers = judges if model is None else [prepared.providers[model]]
        for batch in read_batches(path):
            if not batch.taken and batch.file is not None:
                yield batch, [each for each in providers if batch_api_of(each) is not None]


async def _cancel(batches: list[tuple[Batch, list[Provider]]]) -> list[str]:
    started: list[Provider] = []
    cancelled = []
    try:
        for batch, providers in batches:
            for provider in providers:
                api = batch_api_of(provider)
                if provider not in started:
                    await provider.start()
                    started.append(provider)
                if api is not None and (name := await _cancelled(api, batch)):
                    cancelled.append(name)
                    break
    finally:
        for provider in started:
            await provider.close()
    return cancelled


async def _cancelled(api: BatchAPI, batch: Batch) -> str | None:
    """The id of the batch that was cancelled; None where this provider has none of that id."""
    try:
        name = batch.id or await _adopted(api, batch)
        if name is not None:
            await api.cancel(name)
        return name
    except ProviderError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return None
        raise UserError(
            f"batch {batch.id} was not cancelled: {error.message}",
            remedy="Run the command again, or cancel it on the provider's pages.",
            exit_code=ExitCode.INCOMPLETE,
        ) from error


async def _adopted(api: BatchAPI, batch: Batch) -> str | None:
    """The batch of a file of which nobody noted that it was made; only OpenAI's say of what they are."""
    if api.names_files:
        async for state in api.listed():
            if state.file == batch.file:
                return state.id
    return None
