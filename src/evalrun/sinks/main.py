"""The room's door: send finished sweeps to sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from evalrun.errors import UserError
from evalrun.registry import import_attribute, nearest
from evalrun.sinks.base import Options, Sink
from evalrun.sinks.outbox import Sent, deliver
from evalrun.tracking.folder import SweepFolder

BUILT_IN: Mapping[str, str] = {
    "mlflow": "evalrun.sinks.mlflow:MlflowSink",
    "otlp": "evalrun.sinks.otlp:OtlpSink",
}


def make_sinks(
    targets: Sequence[str], content: bool = False, experiment: str = ""
) -> dict[str, tuple[str, Sink]]:
    """Name to (address, sink) of texts NAME=URL. Raises UserError for an unknown sink or a wrong address."""
    known = {**{point.name: point.value for point in entry_points(group="evalrun.sinks")}, **BUILT_IN}
    sinks: dict[str, tuple[str, Sink]] = {}
    for target in targets:
        name, _, url = target.partition("=")
        if name not in known:
            near = nearest(name, known)
            remedy = f"Did you mean '{near}'?" if near else f"Known: {', '.join(sorted(known))}."
            raise UserError(f"unknown sink '{name}'", where="--to", remedy=remedy)
        if name in sinks:
            raise UserError(f"'{name}' is named twice", where="--to")
        sinks[name] = (url.rstrip("/"), import_attribute(known[name])(Options(url, content, experiment)))
    return sinks


def sync(
    folders: Sequence[SweepFolder], sinks: Mapping[str, tuple[str, Sink]], *, dry_run: bool = False
) -> list[Sent]:
    """Send what the sinks do not have yet of these sweeps. Raises UserError where a sweep is at work."""
    outcome = []
    for folder in folders:
        with folder.lock():
            outcome += [
                deliver(folder, name, address, sink, dry_run=dry_run)
                for name, (address, sink) in sinks.items()
            ]
    return outcome
