"""Why a sample's answer is, or is not, in the response cache: for a suite, or for a sweep on disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import UserError
from evalrun.runner.cache import (
    SALT,
    KeyMaker,
    credentials_part,
    likelihood_params,
    secret_digest,
    secret_params,
    sent_params,
)
from evalrun.runner.cache_look import Explanation, explain, kept_credentials
from evalrun.runner.source import Prepared, Source, SourceOptions, sample_seed
from evalrun.suite.load import load_suite
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import RunSpec
from evalrun.sweep.prepare import PreparedSweep, prepare
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.naming import pick_run
from evalrun.tracking.samples import find_samples
from evalrun.types import JSON, Message, Request

if TYPE_CHECKING:
    from evalrun.prompts.rendering import Asking
    from evalrun.tracking.model import SweepManifest


@dataclass(frozen=True, slots=True)
class Explained:
    """One request of one run, and what the cache has for it."""

    run: str
    sample_id: str
    repeat: int
    explanation: Explanation


def explain_suite(
    suite: Path, overrides: Overrides, cache: Path, sample_id: str, run: str | None
) -> list[Explained]:
    """Explain what the suite would ask now. Starts the models (engines of ours too) to know what they are,
    and asks them nothing. Raises UserError where no run has the sample."""
    with tempfile.TemporaryDirectory(prefix="evalrun-") as folder:
        prepared = prepare(load_suite(suite, overrides), Path(folder))
        found = []
        for spec in prepared.specs:
            if run is None or spec.run_id.startswith(run):
                provider = prepared.providers[spec.model.id]
                items = [item for item in prepared.dataset(spec) if item.sample_id == sample_id]
                if items and provider.measured:
                    found += asyncio.run(_explain_run(prepared, spec, items, cache))
        prepared.close()
    if not found:
        raise _missing(sample_id, str(suite))
    return found


async def _explain_run(
    prepared: PreparedSweep, spec: RunSpec, items: list[Any], cache: Path
) -> list[Explained]:
    provider = prepared.providers[spec.model.id]
    try:
        await provider.start()
        params = sent_params(spec)
        secrets = {**provider.credentials(), **secret_params(params)}
        keys = KeyMaker(provider.identity(), params, _credentials(secrets, cache))
    finally:
        await provider.close()
    source = Source(
        items,
        prepared.renderer(spec),
        SourceOptions(sent_params(spec), spec.repeats, prepared.loaded.suite.seed, stream=False),
        skip=frozenset(),
        cache=None,
        keys=keys,
        on_hit=_no_hit,
    )
    found = []
    while (asked := await source.take()) is not None:
        assert asked.key is not None
        request = asked.request
        explanation = explain(cache, keys, asked.key, request)
        found.append(Explained(spec.run_id, request.sample_id, request.repeat, explanation))
    return found


def _credentials(secrets: dict[str, str], cache: Path) -> JSON:
    """What keys of this cache hold of secrets."""
    salt = cache.with_name(SALT)
    if not secrets or not salt.exists():
        return None
    return credentials_part(secrets, secret_digest(secrets, salt.read_bytes()))


def _no_hit(prepared: Prepared, response: object) -> None:
    raise AssertionError("there is no cache to hit")


def explain_sweep(folder: SweepFolder, cache: Path, sample_id: str, run: str | None) -> list[Explained]:
    """Explain what a sweep asked, by its folder alone. Raises UserError where no run has the sample."""
    manifest = folder.manifest()
    root = int(manifest.seeds.get("root") or 0)
    wanted = None if run is None else pick_run(folder, run)
    found = []
    for planned in manifest.plan:
        path = folder.samples_path(planned.run)
        if not path.exists() or (wanted is not None and planned.run not in wanted):
            continue
        asking = _asking(manifest, planned.prompt)
        params = planned.params if asking is None else likelihood_params(planned.params)
        identity = manifest.models.get(planned.model, {})
        # The folder does not say which secrets the model was asked with: those of which an answer is kept.
        known = [KeyMaker(identity, params, each) for each in kept_credentials(cache, identity, params)]
        for request in _requests(path, sample_id, SourceOptions(params, 1, root, stream=False), asking):
            seed = request.params.get("seed") if "seed" not in params else None
            made = [
                (keys, keys.key(request.messages, request.prompt, request.repeat, seed, request.ask))
                for keys in known
            ]
            every = [explain(cache, keys, key, request) for keys, key in made]
            explanation = next((each for each in every if each.stored_at is not None), every[0])
            found.append(Explained(planned.run, sample_id, request.repeat, explanation))
    if not found:
        raise _missing(sample_id, str(folder.path))
    return found


def _asking(manifest: SweepManifest, prompt_id: str) -> Asking | None:
    """What a prompt of the sweep asks for in place of an answer in words."""
    suite = manifest.suite.resolved
    prompts = suite.get("prompts") if isinstance(suite, dict) else None
    for prompt in prompts if isinstance(prompts, list) else ():
        if isinstance(prompt, dict) and prompt.get("id") == prompt_id and prompt.get("ask"):
            from evalrun.prompts.library import Library, PromptFolder
            from evalrun.prompts.rendering import compile_ask
            from evalrun.suite.prompt import AskSpec

            library = Library(PromptFolder(Path()))
            return compile_ask(AskSpec.model_validate(prompt["ask"]), library, f"prompt {prompt_id}")
    return None


def _requests(path: Path, sample_id: str, options: SourceOptions, asking: Asking | None) -> Iterator[Request]:
    """What was sent for a sample, as its rows tell."""
    for row in find_samples(path, f"sample_id == {sample_id!r}").rows:
        values = {name[5:]: value for name, value in row.items() if name.startswith("vars.")}
        sent = options.params
        if options.samples_randomly and asking is None:
            sent = {**sent, "seed": sample_seed(options.seed, sample_id, row["repeat"])}
        yield Request(
            sample_id=sample_id,
            repeat=row["repeat"],
            messages=tuple(Message(message["role"], message["content"]) for message in row["messages"] or ()),
            prompt=row["prompt"],
            params=sent,
            row={},
            ask=None if asking is None else asking.make({"row": values, **values}),
        )


def _missing(sample_id: str, where: str) -> UserError:
    return UserError(
        f"there is no sample '{sample_id}' in a run that asks a model",
        where=where,
        remedy="`evalrun samples RUN` lists the ids of a sweep's samples; without a key column, an id is a "
        "digest of the row.",
    )
