"""How likely a model finds texts: negative log-likelihood and perplexity by token, byte and word."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from evalrun.scoring.base import Corpus, MetricInfo, ScoreColumns, Scorer, ScorerOptions, ScoringInput
from evalrun.types import Score

_FIGURES = ("per_token", "per_byte", "per_word", "bits_per_byte")


class Perplexity(Scorer):
    """Negative log-likelihood by token of a sample; the perplexities are of all texts together."""

    Options: ClassVar[type[ScorerOptions]] = ScorerOptions
    registered = "perplexity"
    correctness = False
    reads_likelihood = True
    parts = ("nll", "tokens", "bytes", "words")
    summary = (
        "For prompts with ask: perplexity: negative log-likelihood, and perplexity by token, byte and word "
        "of "
        "all texts together, from their sums."
    )

    def __init__(self, options: Any) -> None:
        super().__init__(options)

    def score(self, sample: ScoringInput) -> Score:
        """-log p / tokens in nats; None where no perplexity was asked for."""
        found = sample.likelihood
        if not found or found.get("kind") != "perplexity":
            return Score(None, "no perplexity was asked for")
        parts: dict[str, float | None] = {name: float(found[name]) for name in self.parts}
        tokens = parts["tokens"] or 0.0
        if not tokens:
            return Score(None, "no token was scored", parts)
        value = found["nll"] / tokens
        shown = math.exp(min(value, 700.0))
        return Score(value, f"{found['nll']:.3f} nats in {tokens:.0f} tokens: perplexity {shown:.4g}", parts)

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """Nothing: there was no text to score."""
        return Score(None, reason)

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Perplexities from the sums over all samples."""
        import numpy as np
        from numpy.typing import NDArray

        n = len(columns.value)
        if n == 0:
            return None

        def figures(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                by = sums[..., :1] / sums[..., 1:4]
                found: NDArray[np.float64] = np.concatenate([np.exp(by), by[..., 1:2] / math.log(2)], axis=-1)
            return np.where(np.isfinite(found), found, np.nan)

        names = tuple(f"{self.name}.{figure}" for figure in _FIGURES)
        infos = {info.name: info for info in self.metrics()}
        statistics = np.column_stack([columns.parts[part] for part in self.parts])
        return Corpus(
            kinds=np.arange(n, dtype=np.int64),
            statistics=statistics,
            figures=figures,
            names=names,
            infos={name: infos[name] for name in names},
            notes={
                names[0]: f"{statistics[:, 1].sum():,.0f} tokens",
                names[2]: "words are cut at white space",
            },
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """Mean negative log-likelihood by token of a sample first, then the perplexities of the whole."""
        left_out = (
            " The first token of a text counts only where something stands before it (a context, or the "
            "tokenizer's begin-of-text token). Failed samples are left out."
        )

        def perplexity(part: str, unit: str, what: str, low: float) -> MetricInfo:
            return MetricInfo(f"{name}.{part}", unit, "lower", what + left_out, (low, None))

        whole = "Of all texts together, from sums: "
        return (
            perplexity(
                "nll_per_token",
                "nats/token",
                "Mean over samples of -log p(text) / its tokens, natural log.",
                0.0,
            ),
            perplexity(
                "per_token",
                "perplexity",
                whole
                + "exp(sum of -log p / sum of tokens). It compares models only with the same tokenizer.",
                1.0,
            ),
            perplexity(
                "per_byte",
                "perplexity",
                whole
                + "exp(sum of -log p / sum of UTF-8 bytes). It compares models whatever their tokenizers.",
                1.0,
            ),
            perplexity(
                "per_word",
                "perplexity",
                whole + "exp(sum of -log p / number of words), words being what white space parts.",
                1.0,
            ),
            perplexity("bits_per_byte", "bits/byte", whole + "sum of -log2 p / sum of UTF-8 bytes.", 0.0),
            perplexity("nll", "nats", "Mean over samples of -log p(text), natural log.", 0.0),
            MetricInfo(
                f"{name}.tokens", "tokens", "none", "Mean number of tokens scored." + left_out, (0.0, None)
            ),
        )
