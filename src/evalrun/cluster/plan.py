"""`plan.json`: what a sweep on a cluster is made of, as digests that every task compares before it asks."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from evalrun._version import __version__
from evalrun.canonical import digest
from evalrun.cluster.place import Place
from evalrun.errors import ExitCode, Problem, UserError

if TYPE_CHECKING:
    from evalrun.suite.schema import Suite
    from evalrun.sweep.prepare import PreparedSweep

PLAN = "plan.json"
SHARD = 5_000
"""Samples that one task asks, where the command does not say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The digests of a sweep by kind and name (`prompt direct/chat`), and the digest of the plan itself."""

    sweep: str
    digests: Mapping[str, str]

    def document(self) -> bytes:
        """The bytes of `plan.json`."""
        return orjson.dumps(
            {"format": 1, "sweep": self.sweep, "digests": dict(self.digests)},
            option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS,
        )

    @property
    def digest(self) -> str:
        """Over all of it."""
        return hashlib.sha256(self.document()).hexdigest()


def plan_of(prepared: PreparedSweep, sweep: str) -> Plan:
    """The plan of a prepared sweep."""
    rows = {f"rows of {name}": each.digest for name, each in prepared.datasets.items()}
    examples = {f"examples of {name}": each for name, each in prepared.examples.items()}
    prompts = {f"prompt {name}/{api}": each.digest for (name, api), each in prepared.prompts.items()}
    code = {f"code {name}": each for name, each in prepared.code.items()}
    return Plan(sweep, {**here(prepared.loaded.suite), **rows, **examples, **prompts, **code})


def here(suite: Suite) -> dict[str, str]:
    """What is known of this machine, and of the suite as it reads here: a digest of each section."""
    payload = suite.work_digest_payload()
    return {
        "evalrun": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{f"suite, {key}": digest(value) for key, value in payload.items()},
    }


def read_plan(place: Place, path: str, node: str = "") -> Plan:
    """The plan that lies there. Raises UserError: exit 2 where there is none or it is none."""
    data = place.get(path)
    where = f"{place.url}/{path}" + (f", as node {node} sees it" if node else "")
    if data is None:
        raise UserError(
            "the plan of the sweep is not there",
            where=where,
            remedy="--at must be a bucket, or a folder that every node shares at the same path.",
        )
    try:
        said: Any = orjson.loads(data)
        return Plan(str(said["sweep"]), {str(key): str(each) for key, each in said["digests"].items()})
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UserError("it is no plan of a sweep", where=where, remedy="Name another --at.") from None


def compare(planned: Mapping[str, str], mine: Mapping[str, str], where: str) -> None:
    """Raises UserError (exit 2) that names all that is otherwise here; what only one knows is passed over."""
    problems = [
        Problem(
            f"{name} differs: {_short(mine[name])} here, {_short(planned[name])} in the plan of the sweep",
            where,
            "Give every node the same files, packages and variables, or begin anew with --fresh.",
        )
        for name in planned
        if name in mine and mine[name] != planned[name]
    ]
    if problems:
        raise UserError(problems, exit_code=ExitCode.USAGE)


def _short(value: str) -> str:
    return value[:12]
