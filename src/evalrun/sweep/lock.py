"""`evalrun.lock`: the digests that a suite is held to. What is otherwise when it runs is an error.

One file beside the suites, JSON with sorted keys, one entry a suite by the name of its file. It pins rows,
prompts, few-shot examples, weights, Hub commits and the code of scorers; the suite itself may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun._version import __version__
from evalrun.atomic import replacing
from evalrun.canonical import digest
from evalrun.errors import Problem, UserError
from evalrun.suite.load import LoadedSuite
from evalrun.suite.overrides import Overrides
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.prompting import api_of
from evalrun.tracking.plain import document_bytes, read_document
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec


_NOT_IN_A_CELL = ("id", "price", "limits", "resources", "checkpoint", "mlflow")
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
    shared_load = prepared.loaded.suite.resolved().get("load")
    own = spec.prompt.parse
    return digest(
        {
            **shared,
            **({"parse": [each.resolved() for each in own]} if own is not None else {}),
            "model": model,
            "weights": known["models"][spec.model.id],
            "price": spec.model.price.model_dump(mode="json", exclude_none=True)
            if spec.model.price is not None
            else None,
            "params": dict(spec.params),
            "repeats": spec.repeats,
            **({"load": [spec.load.value, shared_load]} if spec.load is not None else {}),
            "prompt": prepared.prompts[spec.prompt.id, api_of(spec.model)].digest,
            "examples": prepared.examples.get(f"{spec.prompt.id}/{dataset.id}"),
            "dataset": prepared.datasets[dataset.id].digest,
            "groups": [list(dataset.sensitive), list(dataset.withheld), dataset.cluster],
        }
    )


LOCK = "evalrun.lock"
_KINDS = {
    "datasets": "dataset", "prompts": "prompt", "examples": "examples", "models": "model", "code": "code",
}  # fmt: skip
_WORDS = {
    "rows": "the selected rows", "file": "the file", "commit": "the commit", "weights_sha256": "the weights",
    "source_sha256": "the code", "modules": "modules that its code imports",
    "answers_sha256": "the file of answers",
}  # fmt: skip


def lock_path(loaded: LoadedSuite) -> Path:
    """Where the lock of a suite is."""
    return loaded.base_dir / LOCK


def write_lock(prepared: PreparedSweep) -> tuple[Path, list[Problem]]:
    """Pin what the suite is made of now; returns the file, and what differs from what was pinned before.

    Raises UserError where the file that is there cannot be read.
    """
    path = lock_path(prepared.loaded)
    document = read_document(path) if path.exists() else {}
    suites: dict[str, Any] = dict(document.get("suites") or {})
    name = prepared.loaded.path.name
    now = pins(prepared)
    before = suites.get(name)
    changed = list(_differences(before, now, str(path))) if isinstance(before, Mapping) else []
    suites[name] = now
    data = document_bytes({"schema_version": 1, "suites": {key: suites[key] for key in sorted(suites)}})
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    path.chmod(0o644)  # it is committed beside the suite
    return path, changed


def drift(prepared: PreparedSweep, overrides: Overrides | None = None) -> list[Problem] | None:
    """What differs from the suite's entry in the lock; None where there is no lock, or none for this suite.

    Where the command line limits the rows or names other data, the selected rows are not compared.
    """
    path = lock_path(prepared.loaded)
    if not path.exists():
        return None
    pinned = (read_document(path).get("suites") or {}).get(prepared.loaded.path.name)
    if not isinstance(pinned, Mapping):
        return None
    return list(_differences(pinned, _comparable(pins(prepared), overrides or Overrides()), str(path)))


def check_lock(prepared: PreparedSweep, overrides: Overrides) -> str | None:
    """Check a sweep against its lock. UserError names what changed. Returns the lock's digest, if any."""
    found = drift(prepared, overrides)
    if found:
        last = found[-1]
        remedy = "Take the change over by `evalrun lock SUITE`, or run with --no-lock."
        raise UserError([*found[:-1], Problem(last.what, last.where, remedy)])
    if found is None:
        return None
    from evalrun.tracking.folder import file_sha256

    return file_sha256(lock_path(prepared.loaded))


def _comparable(now: dict[str, dict[str, Any]], overrides: Overrides) -> dict[str, dict[str, Any]]:
    datasets = {name: dict(each) for name, each in now["datasets"].items() if name not in overrides.data}
    if overrides.limit is not None:
        for dataset in datasets.values():
            dataset.pop("rows")
    return {**now, "datasets": datasets}


def _differences(
    pinned: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]], path: str
) -> Iterator[Problem]:
    """Only what is used now is compared: parts that the command line left out are no drift."""
    for kind, entries in now.items():
        known = pinned.get(kind) or {}
        for name, value in entries.items():
            what = f"{_KINDS.get(kind, kind)} {name}"
            if name not in known:
                yield Problem(f"{what} is not pinned", path)
                continue
            before = known[name]
            if not isinstance(value, Mapping) or not isinstance(before, Mapping):
                if value != before:
                    yield Problem(f"{what} has changed ({_short(before)} -> {_short(value)})", path)
                continue
            for key, each in value.items():
                if before.get(key) != each:
                    detail = f"({_short(before.get(key))} -> {_short(each)})"
                    yield Problem(f"{what}: {_WORDS.get(key, key)} changed {detail}", path)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 20 else text[:12]
