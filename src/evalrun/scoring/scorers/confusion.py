"""Confusion counts and the figures made from them. Imported only when a run is analysed (it needs numpy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, Labelled, MetricInfo, shown
from evalrun.scoring.text import slugs, truth_values
from evalrun.types import JSON, Status

UNPARSED, REFUSED, OTHER = "(unparsed)", "(refused)", "(other)"
"""Columns of the matrix for answers that name no class."""

MOST_CLASSES = 300
"""With more classes than this the macro figures have no interval (free text, most likely, and not labels)."""

SHOWN_CLASSES = 30
"""With more classes than this only the macro figures are metrics, and the matrix is not shown."""

OVERALL = ("f1_macro", "precision_macro", "recall_macro", "f1_micro", "mcc")
"""Figures over all classes."""

RARE = 10
"""A class with fewer samples than this may not have shown how its answers vary: a note says so."""

_ENDINGS = 3
"""Unparsed, refused, other."""

Floats = NDArray[np.float64]

_CODES = {status: code for code, status in enumerate(Status)}


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pairs of target and answer. `target` and `answer` hold a code a sample.

    An answer code of len(classes), +1 or +2 means unparsed, refused, or a label that is none of the classes;
    a target code of len(classes) is a target that is none of them, and such a sample adds nothing.
    """

    classes: tuple[str, ...]
    target: NDArray[np.int64]
    answer: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        targets: Labelled,
        answers: Labelled,
        status: NDArray[np.int8],
        key: Callable[[str], str],
        labels: Sequence[str],
    ) -> Confusion:
        """From label columns. Without `labels` the classes are all that occur, sorted."""
        answered = status == _CODES[Status.SCORED]
        answers = Labelled(answers.codes, truth_values(answers.labels, targets.labels))
        shown = _names(targets, np.ones(len(status), bool), key) | _names(answers, answered, key)
        names = {key(label): label for label in labels} or {each: shown[each] for each in sorted(shown)}
        index = {each: at for at, each in enumerate(names)}
        size = len(index)
        target = _indices(targets, index, key, missing=size)
        answer = _indices(answers, index, key, missing=size + 2)
        answer[status == _CODES[Status.UNPARSED]] = size
        answer[status == _CODES[Status.REFUSED]] = size + 1
        return cls(tuple(names.values()), target, answer)

    def counts(self) -> NDArray[np.int64]:
        """Matrix of classes x (classes + unparsed, refused, other)."""
        size, width = len(self.classes), len(self.classes) + 3
        flat = np.bincount(self.target * width + self.answer, minlength=(size + 1) * width)
        return flat.reshape(size + 1, width)[:size]

    def corpus(self, name: str, infos: Mapping[str, MetricInfo]) -> Corpus:
        """The figures as a function of sums: per class the hits, the answers and the targets, and how many
        answers were unparsed, refused or none of the classes."""
        if len(self.classes) > MOST_CLASSES:
            return self._large(name, infos)
        size, width = len(self.classes), len(self.classes) + 3
        cells = self.target * width + self.answer
        occurs = np.bincount(cells) > 0
        pairs, kinds = np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[cells]
        target, answer = pairs // width, pairs % width
        statistics = np.zeros((len(pairs), 3 * size + _ENDINGS))
        known = target < size
        for where, column in (
            (known & (target == answer), target),
            (known & (answer < size), size + answer),
            (known, 2 * size + target),
            (known & (answer >= size), 2 * size + answer),
        ):
            statistics[np.flatnonzero(where), column[where]] = 1
        listed = size <= SHOWN_CLASSES
        labels = slugs(self.classes) if listed else []
        names = [f"{name}.{figure}" for figure in OVERALL]
        described = {each: infos[each.removeprefix(f"{name}.")] for each in names}
        shares: dict[str, tuple[int, int]] = {}
        sizes: dict[str, int] = {}
        for figure in ("f1", "precision", "recall"):
            for at, slug in enumerate(labels):
                full = f"{name}.{figure}.{slug}"
                names.append(full)
                described[full] = replace(infos[f"{figure}.<label>"], name=full)
                sizes[full] = (size if figure == "precision" else 2 * size) + at
                if figure != "f1":
                    shares[full] = (at, sizes[full])
        note = self._rare(np.bincount(self.target[self.target < size], minlength=size))
        return Corpus(
            kinds=kinds.astype(np.int64),
            statistics=statistics,
            figures=lambda sums: figures(sums, per_class=listed),
            names=tuple(names),
            infos=described,
            shares=shares,
            sizes=sizes,
            notes={} if not note else {f"{name}.{figure}": note for figure in OVERALL if "macro" in figure},
            details={"confusion": self.matrix()},
        )

    def _rare(self, targets: NDArray[np.int64]) -> str:
        """A note where a class has too few samples for a macro figure's interval, else empty."""
        least = int(targets.min()) if len(targets) else RARE
        if least >= RARE:
            return ""
        return (
            f"the rarest class, {shown(self.classes[int(targets.argmin())])}, has {least} samples: below "
            f"{RARE} the interval may be too narrow"
        )

    def _large(self, name: str, infos: Mapping[str, MetricInfo]) -> Corpus:
        """The macro figures alone: all samples are one kind, which adds the mean sample."""
        size = len(self.classes)
        hits = self.target[self.target == self.answer]
        answers = np.bincount(self.answer[self.target < size], minlength=size + _ENDINGS)
        sums = [np.bincount(each, minlength=size + 1)[:size] for each in (hits, self.target)]
        sums = [sums[0], answers[:size], sums[1], answers[size:]]
        names = tuple(f"{name}.{figure}" for figure in OVERALL)
        note = f"{size} classes: too many for an interval"
        return Corpus(
            kinds=np.zeros(len(self.target), np.int64),
            statistics=np.concatenate(sums)[None, :] / len(self.target),
            figures=lambda sums: figures(sums, per_class=False),
            names=names,
            infos={each: infos[each.removeprefix(f"{name}.")] for each in names},
            notes=dict.fromkeys(names, note),
            details={"confusion": self.matrix()},
        )

    def matrix(self) -> dict[str, JSON]:
        """The matrix for display: rows are targets, columns are answers; empty extra columns are left out."""
        size = len(self.classes)
        if size > SHOWN_CLASSES:
            note = f"{size} classes: a matrix is shown up to {SHOWN_CLASSES}"
            return {"labels": [], "columns": [], "counts": [], "note": note}
        counts = self.counts()
        extra = [
            (name, size + at)
            for at, name in enumerate((UNPARSED, REFUSED, OTHER))
            if name == UNPARSED or counts[:, size + at].any()
        ]
        keep = [*range(size), *(column for _, column in extra)]
        return {
            "labels": list(self.classes),
            "columns": [*self.classes, *(name for name, _ in extra)],
            "counts": counts[:, keep].tolist(),
            "note": "",
        }


def figures(sums: NDArray[np.float64], *, per_class: bool) -> NDArray[np.float64]:
    """The figures of OVERALL, then each class's F1, precision and recall.

    `sums` has shape (..., 3 L + 3): hits, answers, targets of each of L classes, then the answers that name
    no class, by ending. Result (..., 5 + 3 L), NaN for 0/0. In the macro means a class with neither answers
    nor targets is left out, and 0/0 counts as 0.
    """
    size = (sums.shape[-1] - _ENDINGS) // 3
    hits, answers = sums[..., :size], sums[..., size : 2 * size]
    targets, nameless = sums[..., 2 * size : 3 * size], sums[..., 3 * size :]
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * hits / (answers + targets)
        precision = hits / answers
        recall = hits / targets
        occurs = answers + targets > 0
        macro = [
            np.where(occurs, np.nan_to_num(each), 0.0).sum(axis=-1) / occurs.sum(axis=-1)
            for each in (f1, precision, recall)
        ]
        micro = 2 * hits.sum(axis=-1) / (answers.sum(axis=-1) + targets.sum(axis=-1))
    overall = [*macro, micro, _mcc(hits, answers, targets, nameless)]
    parts = [np.stack(overall, axis=-1)]
    return np.concatenate([*parts, f1, precision, recall] if per_class else parts, axis=-1)


def _mcc(hits: Floats, answers: Floats, targets: Floats, nameless: Floats) -> Floats:
    """(c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) with c hits among s samples, p answers and t
    targets by class (Gorodkin 2004); 0 where the root is 0, as in scikit-learn."""
    s = targets.sum(axis=-1)
    above = hits.sum(axis=-1) * s - (answers * targets).sum(axis=-1)
    named = s * s - (answers**2).sum(axis=-1) - (nameless**2).sum(axis=-1)
    below = np.sqrt(np.maximum(named * (s * s - (targets**2).sum(axis=-1)), 0.0))
    value: Floats = np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)
    return value


def _names(column: Labelled, where: NDArray[np.bool_], key: Callable[[str], str]) -> dict[str, str]:
    """Key to label of the labels that occur; of several spellings the first in sorted order."""
    names: dict[str, str] = {}
    for code in np.flatnonzero(np.bincount(column.codes[where] + 1)[1:]):
        label = column.labels[code].strip()
        names.setdefault(key(label), label)
    return names


def _indices(
    column: Labelled, index: Mapping[str, int], key: Callable[[str], str], missing: int
) -> NDArray[np.int64]:
    """The class of each sample; `missing` where it has no label or one that is no class."""
    table = np.array([index.get(key(label), missing) for label in column.labels] + [missing], np.int64)
    return table[column.codes]
