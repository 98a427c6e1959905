"""What identifies the work of a sweep before anything is sent: digests of data, prompts, weights and code.

`pins` is what `evalrun.lock` holds; `cell_digests` name each cell by all that shapes its results, so that one
that was run before is known again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalrun._version import __version__
from evalrun.canonical import digest
from evalrun.sweep.prepare import PreparedSweep, api_of
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec

_NOT_IN_A_CELL = ("id", "price", "limits")
"""Keys of a model that shape none of its answers and none of their measurements."""


def pins(prepared: PreparedSweep) -> dict[str, dict[str, JSON]]:
    """Digests by kind (datasets, prompts, examples, models, code) and name.

    May read weights once, and Hub revisions as they were resolved when the datasets were opened.
    """
    return {
        "datasets": {
            name: _dataset(dataset.digest, dataset.source) for name, dataset in prepared.datasets.items()
        },
        "prompts": {f"{name}/{api}": prompt.digest for (name, api), prompt in prepared.prompts.items()},
        "examples": dict(prepared.examples),
        "models": {name: _model(prepared, name) for name in prepared.providers},
        "code": dict(prepared.code),
    }


def _dataset(rows: str, source: Mapping[str, JSON]) -> dict[str, JSON]:
    """The selected rows, and what they were selected from."""
    found: dict[str, JSON] = {"rows": rows}
    for key, name in (("sha256", "file"), ("commit", "commit")):
        if source.get(key) is not None:
            found[name] = source[key]
    return found


def _model(prepared: PreparedSweep, name: str) -> dict[str, JSON]:
    from evalrun.providers.base import Pinned, capability

    provider = prepared.providers[name]
    pinned = capability(provider, Pinned)
    digests = pinned.pins() if pinned is not None else {}
    return {"provider": provider.spec.provider, "model": provider.spec.model, **digests}


def cell_digests(prepared: PreparedSweep) -> dict[str, str]:
    """One digest for each run of the sweep, by run id.

    Equal digests mean: the same model, weights and parameters were asked the same, in the same way, and
    scored the same by the same version of evalrun. What a remote endpoint serves under a name only it knows.
    """
    known = pins(prepared)
    suite: dict[str, Any] = prepared.loaded.suite.work_digest_payload()
    resolved = prepared.loaded.suite.resolved()
    shared = {
        "evalrun": __version__,
        "code": known["code"],
        "judging": prepared.judging.digest if prepared.judging is not None else None,
        **{
            key: suite.get(key)
            for key in ("seed", "parse", "scorers", "derive", "performance", "deterministic", "judges")
        },
        **{key: resolved.get(key) for key in ("fairness", "unparsed")},
    }
    return {spec.run_id: _cell(prepared, spec, known, shared) for spec in prepared.specs}


def _cell(
    prepared: PreparedSweep,
    spec: RunSpec,
    known: Mapping[str, Mapping[str, JSON]],
    shared: Mapping[str, JSON],
) -> str:
    model = {key: value for key, value in spec.model.resolved().items() if key not in _NOT_IN_A_CELL}
    dataset = spec.dataset
    return digest(
        {
            **shared,
            "model": model,
            "weights": known["models"][spec.model.id],
            "price": spec.model.price.model_dump(mode="json") if spec.model.price is not None else None,
            "params": dict(spec.params),
            "repeats": spec.repeats,
            "prompt": prepared.prompts[spec.prompt.id, api_of(spec.model)].digest,
            "examples": prepared.examples.get(f"{spec.prompt.id}/{dataset.id}"),
            "dataset": prepared.datasets[dataset.id].digest,
            "groups": [list(dataset.sensitive), list(dataset.withheld), dataset.cluster],
        }
    )
