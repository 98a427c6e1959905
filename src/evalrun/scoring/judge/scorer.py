"""The scorer `judge`: grades that models give, combined, with how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from evalrun.scoring.asking import AskingScorer, Judged, Reply
from evalrun.scoring.base import Corpus, MetricInfo, ScoreColumns, fraction
from evalrun.scoring.judge.definitions import judge_metrics
from evalrun.scoring.judge.menu import Menu
from evalrun.scoring.judge.options import JudgeOptions
from evalrun.types import Score

if TYPE_CHECKING:
    from evalrun.scoring.judge.agreement import Level

ORDERS = ("ab", "ba")
"""Of a pair: the judged answer first, and second."""

_A, _B, _TIE = 0, 1, 2


class Judge(AskingScorer):
    """Grades by one or several models. See docs/judges.md for what such a number means."""

    Options: ClassVar[type[JudgeOptions]] = JudgeOptions
    registered = "judge"
    summary = (
        "Grades that other models give: on a scale, by choices, or by comparing two answers in both orders; "
        "asked after the run."
    )

    def __init__(self, options: JudgeOptions) -> None:
        super().__init__(options)
        self.menu: Menu = options.menu
        self.pairwise = options.pairwise is not None
        self.combine = options.combine or ("mean" if self.menu.ordered else "majority")
        several = tuple(f"by.{model}" for model in options.model) if len(options.model) > 1 else ()
        pairs = ("first_position", "inconsistent") if self.pairwise else ()
        self.parts = ("unscored", "reasked", *pairs, "grade", "human", *several)

    @property
    def models(self) -> Sequence[str]:
        """The ids of the judges."""
        models: Sequence[str] = self.options.model
        return models

    @property
    def orders(self) -> tuple[str, ...]:
        """The requests that each judge gets about a sample."""
        return ORDERS if self.pairwise else ("",)

    @property
    def level(self) -> Level:
        """How far grades are apart, for alpha."""
        level: Level = self.options.alpha or ("ordinal" if self.menu.ordered else "nominal")
        return level

    def judged(self, sample: Judged) -> Score:
        """The score of a sample from what its judges said."""
        human = self._human(sample.row)
        if sample.nothing:
            worst = self.menu.bounds[0]
            code = self.menu.values.index(worst)
            parts = {"unscored": 0.0, "reasked": 0.0, "grade": float(code), "human": human}
            return Score(worst, f"{sample.nothing}: the lowest grade, without asking", parts)
        codes = {model: self._code(sample.replies.get(model, {})) for model in self.models}
        replies = [reply for each in sample.replies.values() for reply in each.values()]
        given = [code for code in codes.values() if code is not None]
        parts = {
            "unscored": float(not given),
            "reasked": float(any(reply.asked > 1 for reply in replies)),
            "human": human,
            **(self._position(sample.replies) if self.pairwise else {}),
        }
        if len(self.models) > 1:
            parts |= {f"by.{model}": _float(code) for model, code in codes.items()}
        if not given:
            return Score(None, self._unscored(sample.replies), {**parts, "grade": None})
        value, grade = self._combined(given)
        return Score(value, self._reason(codes, sample.replies), {**parts, "grade": _float(grade)})

    def _human(self, row: Mapping[str, object]) -> float | None:
        if self.options.human is None:
            return None
        return _float(self.menu.number(row.get(self.options.human)))

    def _code(self, replies: Mapping[str, Reply]) -> int | None:
        """What one judge says of a sample; of a pair, only what it says in both orders, else a tie."""
        codes = [replies[order].code for order in self.orders if order in replies]
        if len(codes) < len(self.orders) or None in codes:
            return None
        if not self.pairwise:
            return codes[0]
        forward, backward = codes[0], {_A: _B, _B: _A}.get(codes[1] or 0, _TIE)
        return forward if forward == backward else _TIE

    def _combined(self, codes: Sequence[int]) -> tuple[float, int | None]:
        """The value, and the grade that it is (None where it lies between names)."""
        values = self.menu.values
        if self.combine == "mean":
            value = sum(values[code] for code in codes) / len(codes)
            if self.menu.ordered:
                return value, round(value - values[0] + 1e-9)
            return value, codes[0] if len(set(codes)) == 1 else None
        most = max(codes.count(code) for code in codes)
        winners = sorted({code for code in codes if codes.count(code) == most})
        value = sum(values[code] for code in winners) / len(winners)
        return value, winners[0] if len(winners) == 1 else None

    def _position(self, replies: Mapping[str, Mapping[str, Reply]]) -> dict[str, float | None]:
        """How often the answer shown first won, and whether a judge contradicted itself."""
        first, decided, whole, inconsistent = 0, 0, 0, 0
        for each in replies.values():
            codes = [each[order].code for order in self.orders if order in each]
            first += sum(code == _A for code in codes)
            decided += sum(code in (_A, _B) for code in codes)
            if len(codes) == len(ORDERS) and None not in codes:
                whole += 1
                inconsistent += (codes[0], codes[1]) not in ((_A, _B), (_B, _A), (_TIE, _TIE))
        return {
            "first_position": first / decided if decided else None,
            "inconsistent": inconsistent / whole if whole else None,
        }

    def _unscored(self, replies: Mapping[str, Mapping[str, Reply]]) -> str:
        faults = [
            f"{model}: {reply.fault}"
            for model, each in replies.items()
            for reply in each.values()
            if reply.fault
        ]
        return "unscored: " + ("; ".join(dict.fromkeys(faults)) or "no judge gave a grade")

    def _reason(self, codes: Mapping[str, int | None], replies: Mapping[str, Mapping[str, Reply]]) -> str:
        texts = []
        for model, code in codes.items():
            said = replies.get(model, {})
            why = next((reply.reason for reply in said.values() if reply.reason), "")
            grade = "no grade" if code is None else self.menu.labels[code]
            if self.pairwise and code is not None:
                grade = ("better", "worse", "tie")[code]
                if len({reply.code for reply in said.values()}) == 1 and said["ab"].code != _TIE:
                    grade = "tie (the verdict changed with the order)"
            name = f"{model}: " if len(codes) > 1 else ""
            texts.append(f"{name}{grade}" + (f": {why}" if why else ""))
        return "; ".join(texts)

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Agreement among the judges, and with people."""
        if len(columns.value) == 0 or not (len(self.models) > 1 or self.options.human is not None):
            return None
        from evalrun.scoring.judge.figures import agreement_corpus

        return agreement_corpus(self, columns)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """Those of `describe` that this judge has, with the bounds of its grades."""
        found = [each for each in self.describe(self.name) if self._has(each.name.removeprefix(self.name))]
        low, high = self.menu.bounds
        unit = "fraction" if (low, high) == (0.0, 1.0) else "grade"
        return (
            MetricInfo(self.name, unit, "higher", found[0].definition, (low, high)),
            *found[1:],
        )

    def _has(self, suffix: str) -> bool:
        if suffix in (".first_position", ".inconsistent"):
            return self.pairwise
        if suffix == ".alpha":
            return len(self.models) > 1
        if suffix in (".human.spearman", ".human.kendall"):
            return self.options.human is not None and self.menu.ordered
        return self.options.human is not None or not suffix.startswith(".human.")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean of the grades first."""
        return judge_metrics(name, fraction)


def _float(code: int | None) -> float | None:
    return None if code is None else float(code)
