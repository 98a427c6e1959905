"""Whether a ranking of parts says more than a random one: comprehensiveness and sufficiency (DeYoung et al.
2020, ERASER) as means over the shares 10, 20 and 50 %, against rankings drawn at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean, pstdev

from evalrun.explain.games import Game
from evalrun.explanations import Curve, Explanation, Faithfulness, OverSamples, Word

SHARES = (0.1, 0.2, 0.5)
RANDOM = 20
NOTHING = 1e-6
"""Below this many nats nothing depends on the prompt."""
_ALIKE = 1e-9


def faithfulness(
    game: Game, level: str, values: Sequence[float], *, rankings: int, seed: int
) -> Faithfulness:
    """Judge the ranking of players 0 to n-1 by their values, highest first.

    It is faithful where at least 95 % of random rankings, which begin with another player, have a lower
    comprehensiveness; between equal ones the player that stands first decides. (Where one player alone
    matters, all rankings that have it near their top are as comprehensive.)
    """
    n = len(values)
    order = sorted(range(n), key=lambda player: -values[player])
    shares = {max(1, round(share * n)): share for share in reversed(SHARES)}
    sizes = sorted(shares)
    drawn = _rankings(order, rankings, random.Random(seed))
    everyone = frozenset(range(n))
    sets = [[frozenset(ranking[:size]) for size in (1, *sizes)] for ranking in (order, *drawn)]
    asked = [everyone - top for tops in sets for top in tops] + [top for tops in sets for top in tops[1:]]
    asked = list(dict.fromkeys([everyone, frozenset(), *asked]))
    known = dict(zip(asked, game(asked), strict=True))
    full, empty = known[everyone], known[frozenset()]
    first, *comprehensive = zip(
        *([full - known[everyone - top] for top in tops] for tops in sets), strict=True
    )
    sufficient = list(zip(*([full - known[top] for top in tops[1:]] for tops in sets), strict=True))
    own, *others = map(fmean, zip(*comprehensive, strict=True))
    curve = tuple(
        Curve(
            shares[size], size, c[0], s[0],
            fmean(c[1:]) if drawn else None, fmean(s[1:]) if drawn else None,
        )
        for size, c, s in zip(sizes, comprehensive, sufficient, strict=True)
    )  # fmt: skip
    beaten = sum(
        other < own - _ALIKE or (other <= own + _ALIKE and top < first[0] - _ALIKE)
        for other, top in zip(others, first[1:], strict=True)
    )
    spread = pstdev(others) if len(others) > 1 else 0.0
    z = (own - fmean(others)) / spread if spread > _ALIKE else None
    word: Word = "no better than chance"
    if abs(full - empty) < NOTHING and max(map(abs, values), default=0.0) < NOTHING:
        word = "nothing to explain"
    elif others and beaten >= 0.95 * len(others):
        word = "faithful"
    sufficiency = fmean(each[0] for each in sufficient)
    return Faithfulness(word, level, own, sufficiency, len(others), beaten, z, curve)


def over_samples(explained: Sequence[Explanation]) -> tuple[OverSamples, ...]:
    """For each method and target by which at least two samples were set beside random rankings: how far their
    rankings are more comprehensive than those, by the paired difference over samples."""
    import numpy as np

    from evalrun.analysis.paired import paired_difference

    grouped: dict[tuple[str, str, str], list[Faithfulness]] = {}
    for one in explained:
        judged = one.faithfulness
        if judged.random is not None:
            grouped.setdefault((one.method, one.target, judged.level), []).append(judged)
    made = []
    for (method, target, level), every in grouped.items():
        if len(every) < 2:
            continue
        drawn = np.array([each.random for each in every], dtype=np.float64)
        own = np.array([each.comprehensiveness for each in every])
        found = paired_difference(drawn, own)
        faithful = sum(each.word == "faithful" for each in every)
        made.append(
            OverSamples(
                method, target, level, len(every), faithful, float(own.mean()), float(drawn.mean()),
                float((own - drawn).mean()), found.ci_low, found.ci_high, found.p,
            )
        )  # fmt: skip
    return tuple(made)


def _rankings(order: Sequence[int], count: int, rng: random.Random) -> list[list[int]]:
    """Random rankings that begin with another player than the given one, no two alike."""
    drawn: list[list[int]] = []
    for _ in range(10 * count):
        ranking = list(order)
        rng.shuffle(ranking)
        if ranking[0] != order[0] and ranking not in drawn:
            drawn.append(ranking)
        if len(drawn) == count:
            break
    return drawn
