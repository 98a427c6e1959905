"""The result of comparing runs: frozen values, and the same as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from evalrun.analysis.correction import Correction
from evalrun.analysis.measures import RunInfo
from evalrun.analysis.standings import DatasetStandings
from evalrun.results import AxisEffect, PairedResult, PromptAblation, PromptSensitivity, Verdict
from evalrun.types import JSON, Direction

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Flips:
    """Ids of samples whose 0/1 score changed: from 1 in a to 0 in b, and the other way."""

    lost: tuple[str, ...]
    won: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one pair of runs: b against a.

    `only_a`, `only_b` count sample ids that are in one run alone, `changed` those with other content. `flips`
    is None for scores other than 0 and 1. `p_corrected` is corrected over all comparisons that were made.
    """

    metric: str
    unit: str
    direction: Direction
    a: RunInfo
    b: RunInfo
    differs: tuple[str, ...]
    result: PairedResult
    p_corrected: float | None
    verdict: Verdict
    only_a: int = 0
    only_b: int = 0
    changed: int = 0
    flips: Flips | None = None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, JSON]:
        """As JSON: the figures of `result` stand beside the rest."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "direction": self.direction,
            "a": self.a.document(),
            "b": self.b.document(),
            "differs": list(self.differs),
            **asdict(self.result),
            "p_corrected": self.p_corrected,
            "verdict": self.verdict.word,
            "sentence": self.verdict.sentence,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "changed": self.changed,
            "flips": None if self.flips is None else asdict(self.flips),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was compared, `tests` of which gave a p value that `correction` takes into account.

    `standings`, `effects`, `sensitivity` and `ablations` are there where a sweep was compared within itself.
    """

    compared: tuple[Compared, ...]
    correction: Correction
    tests: int
    alpha: float
    margin: float | None
    common: bool
    unmatched: tuple[RunInfo, ...] = ()
    standings: tuple[DatasetStandings, ...] = ()
    effects: tuple[AxisEffect, ...] = ()
    sensitivity: tuple[PromptSensitivity, ...] = ()
    ablations: tuple[PromptAblation, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def document(self) -> dict[str, JSON]:
        """One JSON-able document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "correction": self.correction,
            "tests": self.tests,
            "alpha": self.alpha,
            "margin": self.margin,
            "common": self.common,
            "comparisons": [each.document() for each in self.compared],
            "unmatched": [each.document() for each in self.unmatched],
            "standings": [each.document() for each in self.standings],
            "effects": [asdict(each) for each in self.effects],
            "sensitivity": [_sensitivity(each) for each in self.sensitivity],
            "ablations": [_ablation(each) for each in self.ablations],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{each.metric}: {each.b.run} against {each.a.run}: {each.verdict.word}, {each.verdict.sentence}"
            for each in self.compared
        ]
        return "\n".join(lines) or "nothing compared"

    def verdicts(self) -> Mapping[str, int]:
        """How often each verdict was given."""
        found: dict[str, int] = {}
        for each in self.compared:
            found[each.verdict.word] = found.get(each.verdict.word, 0) + 1
        return found


def _sensitivity(found: PromptSensitivity) -> dict[str, JSON]:
    named = [{"prompt": name, **asdict(estimate)} for name, estimate in found.prompts]
    return {**asdict(found), "prompts": named, "best": found.prompts[0][0], "worst": found.prompts[-1][0]}


def _ablation(found: PromptAblation) -> dict[str, JSON]:
    parts = [{**asdict(part), "verdict": part.verdict and part.verdict.word} for part in found.parts]
    return {**asdict(found), "parts": parts}
