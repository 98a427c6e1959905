"""Scorers that ask a model: what they have in common.

Their scores are not made while a run is asked, but afterwards, in a phase of its own
(`evalrun.sweep.judging`). Requests are made from the run's samples and sent by the same machinery
as the run's own; what comes back is combined into a score for each sample.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from evalrun.scoring.base import OptionsT, Scorer, ScoringInput
from evalrun.types import JSON, Score, hot_value

Key = tuple[str, int]
"""A sample: its id and repeat."""


@hot_value
class Reply:
    """What one model said to one request about a sample: a place on the menu, or None with the `fault`.

    `asked` is 2 where it had to be asked again.
    """

    code: int | None
    reason: str
    fault: str = ""
    asked: int = 1


@hot_value
class Judged:
    """A sample as it is scored: the replies by model and by order ("" or "ab" and "ba"), and the row."""

    replies: Mapping[str, Mapping[str, Reply]]
    row: Mapping[str, JSON]
    nothing: str = ""
    """Why no model was asked: there was nothing to judge."""


class AskingScorer(Scorer[OptionsT]):
    """A scorer whose scores come from a model that is asked after the run."""

    asks: ClassVar[bool] = True

    @property
    @abstractmethod
    def models(self) -> Sequence[str]:
        """The ids of the models that are asked."""

    def score(self, sample: ScoringInput) -> Score:
        """Nothing yet: it is scored when the run's answers are there."""
        return Score(None, "not judged yet")
