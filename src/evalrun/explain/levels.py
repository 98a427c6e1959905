"""Games over the parts of a prompt: what an answer is worth when only some of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from evalrun.explain.asking import Asker, Likelihood
from evalrun.explain.games import Coalition
from evalrun.explain.texts import Remover
from evalrun.explanations import Unit


@dataclass
class TextGame:
    """What texts after prompts are worth; every prompt is asked about once."""

    asker: Asker
    texts: Sequence[str]
    known: dict[str, Likelihood]

    def values(self, prompts: Sequence[str]) -> list[float]:
        """The log-likelihood of the first text after each prompt, less that of the second where there is
        one."""
        new = [text for text in dict.fromkeys(prompts) if text not in self.known]
        if new:
            self.known |= zip(new, self.asker.likelihoods(new, self.texts), strict=True)
        return [self._value(self.known[prompt]) for prompt in prompts]

    def _value(self, found: Likelihood) -> float:
        first, *second = found.logprobs[: len(self.texts)]
        return first - (second[0] if second else 0.0)


@dataclass
class Level:
    """A game whose players are some units of a prompt: those that are not in a coalition are removed."""

    game: TextGame
    remover: Remover
    units: Sequence[Unit]

    def __call__(self, coalitions: Sequence[Coalition]) -> list[float]:
        return [fmean(draws) for draws in self._draws(coalitions)]

    def _draws(self, coalitions: Sequence[Coalition]) -> list[list[float]]:
        count = self.remover.draws
        texts = [self.text(each, draw) for each in coalitions for draw in range(count)]
        values = self.game.values(texts)
        return [values[at : at + count] for at in range(0, len(values), count)]

    def text(self, coalition: Coalition, draw: int = 0) -> str:
        """The prompt with these units alone."""
        return self.remover.without([u for at, u in enumerate(self.units) if at not in coalition], draw)

    @property
    def everything(self) -> float:
        """The value of the whole prompt."""
        return self([frozenset(range(len(self.units)))])[0]

    @property
    def nothing(self) -> float:
        """The value with all units removed."""
        return self([frozenset()])[0]

    def left_out(self, player: int) -> tuple[float, float]:
        """What a unit adds to all others, and its standard error over the texts that took its place."""
        everyone = frozenset(range(len(self.units)))
        (draws,) = self._draws([everyone - {player}])
        error = stdev(draws) / len(draws) ** 0.5 if len(draws) > 1 else 0.0
        return self.everything - fmean(draws), error
