"""What of a load cannot be done, found before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from evalrun.errors import Problem, UserError
from evalrun.providers.base import BatchProvider, Provider
from evalrun.runner.limits import connections_allowed
from evalrun.suite.levels import right_of, slo_of

if TYPE_CHECKING:
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.load import LoadedSuite


def load_problems(
    loaded: LoadedSuite, providers: Mapping[str, Provider], pipeline: Pipeline | None
) -> Iterator[Problem]:
    """Levels that a provider cannot hold, promises that cannot be judged, traces that cannot be read."""
    suite, load = loaded.suite, loaded.suite.load
    assert load is not None
    where = loaded.locate("load")
    searched = int(load.search.most) if load.search is not None and not load.search.rate else 0
    highest = max([*(load.concurrency or ()), searched])
    for provider in providers.values():
        yield from _provider(loaded, provider, highest, where)
    room = connections_allowed(len(providers) or 1)
    if highest > room:
        what = f"{highest} requests in flight need more connections than the {room} that open files allow"
        yield Problem(what, where, "Raise the limit (ulimit -n), or leave the highest levels out.")
    for at, text in enumerate(load.slo):
        bound, place = slo_of(text), loaded.locate("load", "slo", at)
        if bound.of in ("ttft_s", "ttft_scheduled_s", "tpot_s") and not suite.performance.stream:
            what = f"'{text}' cannot be judged: answers are not streamed"
            yield Problem(what, place, "Write performance: {stream: true}.")
        for model in suite.models:
            timeout = model.timeout_s or suite.performance.timeout_s
            if bound.of != "tpot_s" and timeout <= bound.bound:
                what = (
                    f"timeout_s ({timeout:g} s) is not above the promise '{text}': the tail would be cut off"
                )
                yield Problem(what, place, "Raise performance.timeout_s.")
                break
    if load.right is not None and pipeline is not None:
        name = right_of(load.right).of
        known = [scorer.name for scorer in pipeline.scorers]
        if name not in known and name.partition(".")[0] not in known and name not in suite.derive:
            what = f"no scorer '{name}' says when an answer is right"
            yield Problem(what, loaded.locate("load", "right"), f"Scores of this suite: {', '.join(known)}.")
    if not isinstance(load.arrivals, str) and load.arrivals.trace is not None:
        yield from _trace(loaded)


def _provider(loaded: LoadedSuite, provider: Provider, highest: int, where: str) -> Iterator[Problem]:
    spec = provider.spec
    if spec.concurrency is not None and highest > spec.concurrency:
        most = f"{spec.concurrency} requests in flight at most (concurrency)"
        what = f"model '{spec.id}' takes {most}, not {highest}"
        yield Problem(what, where, "Leave the higher levels out, or concurrency of the model.")
    if isinstance(provider, BatchProvider) or not provider.measured:
        what = (
            f"model '{spec.id}' cannot be put under load: provider '{spec.provider}' sends no single requests"
        )
        yield Problem(what, where, "Leave load out, or --models names the others.")
    if spec.limits is not None:
        what = f"model '{spec.id}' has limits, which would hold back the requests that load is to send"
        yield Problem(what, where, "Leave limits out of the model.")


def _trace(loaded: LoadedSuite) -> Iterator[Problem]:
    from evalrun.runner.load.trace import trace_offsets

    arrivals = loaded.suite.load.arrivals if loaded.suite.load is not None else ""
    assert not isinstance(arrivals, str) and arrivals.trace is not None
    try:
        for _ in trace_offsets(loaded.base_dir / arrivals.trace):
            pass
    except UserError as error:
        yield from error.problems
