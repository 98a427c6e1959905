"""What is said of why a model answered as it did: what `runs/RUN/explain.json` holds. It holds no text of a
sample, only places in it."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from evalrun.frozen import frozen
from evalrun.types import JSON

Word: TypeAlias = Literal["faithful", "no better than chance", "did not converge", "nothing to explain"]


@frozen
class Place:
    """A stretch of the prompt: of the message with that number (0 for a prompt that is one text), from a
    character to the one after the last."""

    message: int
    start: int
    end: int


@frozen
class Unit:
    """A part of the prompt and its weight. `parent` is the place in the list of the unit that it lies in, or
    -1. `value` is in nats of the target: what it adds, below 0 what it takes away; None where it was not
    asked about. `other` is its value by another way of removal, and `flips` says that its sign is then
    another. `left_out` is what is lost when it alone is removed, where `value` says something else (parts of
    the top level by Shapley's and Owen's values). `tokens` is None where the backend does not tell."""

    level: str
    name: str
    places: tuple[Place, ...]
    parent: int = -1
    value: float | None = None
    se: float | None = None
    tokens: int | None = None
    other: float | None = None
    flips: bool = False
    left_out: float | None = None


@frozen
class Curve:
    """Faithfulness at one share of the units: what removing the top ones takes away (comprehensiveness), what
    remains to be had with them alone (sufficiency), and the means of both over random rankings."""

    share: float
    units: int
    comprehensiveness: float
    sufficiency: float
    random_comprehensiveness: float | None
    random_sufficiency: float | None


@frozen
class Faithfulness:
    """Whether the ranking of one level tells more than a random one. `comprehensiveness` and `sufficiency`
    are means over the curve; of `rankings` random ones `beaten` have a lower comprehensiveness; `z` is how
    many standard deviations of theirs the ranking lies above their mean."""

    word: Word
    level: str
    comprehensiveness: float
    sufficiency: float
    rankings: int
    beaten: int
    z: float | None
    curve: tuple[Curve, ...] = ()

    @property
    def random(self) -> float | None:
        """The mean comprehensiveness of the random rankings; None where there were none."""
        drawn = [each.random_comprehensiveness for each in self.curve]
        known = [each for each in drawn if each is not None]
        return sum(known) / len(known) if known else None


@frozen
class OverSamples:
    """How faithful the explanations of a run's samples by one method are together: of `n` samples `faithful`
    are. `comprehensiveness` and `random` are means in nats, of the rankings and of the random ones beside
    them; then their paired difference, with interval and p."""

    method: str
    target: str
    level: str
    n: int
    faithful: int
    comprehensiveness: float
    random: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None


@frozen
class Rows:
    """The answer's tokens, and how much each unit of the finest level adds to each of them.

    `spans` are places in the answer's text, `logprobs` what the model thought of them with the whole prompt.
    `units` are places in the list of units; `values` is base64 of int8, units by tokens, times `scale`.
    `alternatives` are the likeliest tokens at each place with their log-probabilities, where asked for.
    """

    spans: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...]
    units: tuple[int, ...] = ()
    values: str = ""
    scale: float = 0.0
    alternatives: tuple[tuple[tuple[str, float], ...], ...] = ()


@frozen
class Attention:
    """Where heads look. It is no importance.

    `answer` are the rows of every head at the `made` places that make the first tokens of the answer, the
    last of the prompt first: layers by heads by `made` by tokens; `answer_from` is the first token of the
    answer. `means` are whole maps, the mean of all heads of `span` layers each: maps by tokens by tokens.
    Both are base64 of zlib of bytes b for shares of (b / 15)^2; shares below `least` of them are left out, so
    that a sample takes little room. The whole maps of all heads are in `attention.npz` beside the
    explanations, under `key`. `places` are the tokens' places in the messages, None for those of the frame
    and the answer.
    """

    layers: int
    heads: int
    tokens: int
    made: int
    answer_from: int
    answer: str
    means: str
    span: int
    least: tuple[float, float]
    places: tuple[Place | None, ...]
    first: float
    """Mean share of attention that the first token gets, from the last position of the prompt."""
    lens: tuple[Lens, ...] = ()
    key: str = ""
    note: str = ""


@frozen
class Lens:
    """What a layer would answer, by the final norm and the unembedding on its last position (logit lens):
    the likeliest token, its log-probability, and that of the answer's first token."""

    token: str
    logprob: float
    answer: float


@frozen
class Explanation:
    """Why a model gave one answer, as far as removing parts of its prompt can tell.

    `target` says whose likelihood is explained: the answer, the target, or their difference (`contrast`, with
    `against` naming what the answer is set against). `v_full` and `v_empty` are its log-likelihood with the
    whole prompt and with all units removed. `gap` is v_full - v_empty less the sum of the top level's values:
    0 for Shapley and Owen values, what single removals miss for occlusion, the completeness gap of gradients.
    """

    sample_id: str
    repeat: int
    method: str
    removal: str
    target: str
    against: str
    v_full: float
    v_empty: float
    gap: float
    units: tuple[Unit, ...]
    faithfulness: Faithfulness
    evaluations: int
    seconds: float
    rows: Rows | None = None
    attention: Attention | None = None
    notes: tuple[str, ...] = ()


@frozen
class Explained:
    """The explanations of one run, with who was asked and how."""

    run: str
    model: str
    identity: dict[str, JSON] = field(default_factory=dict)
    samples: tuple[Explanation, ...] = ()
    created_at: str = ""
    over: tuple[OverSamples, ...] = ()


GRADIENTS = ("gradient", "integrated_gradients")
"""The methods that need the model at hand."""

EXPLANATIONS = "explain.json"
"""Their file in the folder of a run."""

MAPS = "attention.npz"
"""Whole maps of attention beside it: uint8 (times 1/255), layers by heads by tokens by tokens."""
