"""What all ways of searching have in common as a sweep's conduct: they come to results, and change no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evalrun.search_results import SearchResults

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.search.space import Space
    from evalrun.suite.plan import RunSpec


class Searching:
    """The part of `evalrun.sweep.phase.Conduct` that does not depend on how candidates are asked.

    `results` are there once the search has looked.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.results: SearchResults | None = None

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """As they are: what a search decides by, it says itself."""
        return analysis

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """A search has none."""
        return list(results)

    def document(self) -> dict[str, Any]:
        """What the search came to, as far as it went."""
        said = {"search": asdict(self.results)} if self.results is not None else {}
        return {"previous": None, **said}
