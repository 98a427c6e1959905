"""What is said of why a model answered as it did: what `runs/RUN/explain.json` holds. It holds no text of a
sample, only places in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evalrun.types import JSON

Word: TypeAlias = Literal["faithful", "no better than chance", "did not converge", "nothing to explain"]


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of the prompt: of the message with that number (0 for a prompt that is one text), from a
    character to the one after the last."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the prompt and its weight. `parent` is the place in the list of the unit that it lies in, or
    -1. `value` is in nats of the target: what it adds, below 0 what it takes away; None where it was not
    asked about. `other` is its value by another way of removal, and `flips` says that its sign is then
    another. `tokens` is None where the backend does not tell."""

    level: str
    name: str
    places: tuple[Place, ...]
    parent: int = -1
    value: float | None = None
    se: float | None = None
    tokens: int | None = None
    other: float | None = None
    flips: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """Faithfulness at one share of the units: what removing the top ones takes away (comprehensiveness), what
    remains to be had with them alone (sufficiency), and the means of both over random rankings."""

    share: float
    units: int
    comprehensiveness: float
    sufficiency: float
    random_comprehensiveness: float | None
    random_sufficiency: float | None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Attention:
    """Where heads look from the last position of the prompt on: base64 of zlib of uint8 (times 1/255), layers
    by heads by tokens by tokens. It is no importance. `spans` are the tokens' places in what the model read,
    which is `frame` and the messages; `texts` the tokens that belong to no message."""

    layers: int
    heads: int
    tokens: int
    values: str
    places: tuple[Place | None, ...]
    first: float
    """Mean share of attention that the first token gets, from the last position."""
    note: str = ""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanations of one run, with who was asked and how."""

    run: str
    model: str
    identity: dict[str, JSON] = field(default_factory=dict)
    samples: tuple[Explanation, ...] = ()
    created_at: str = ""


GRADIENTS = ("gradient", "integrated_gradients")
"""The methods that need the model at hand."""

EXPLANATIONS = "explain.json"
"""Their file in the folder of a run."""
