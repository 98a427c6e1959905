"""The versions in which a dataset's samples are asked: made from what the suite declares.

A counterfactual version sets attributes to values, in a variable or by replacing words; a perturbed one
changes the texts. What is random in it depends on the seed, the sample's id and the version's name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import orjson

from evalrun.datasets import perturb
from evalrun.datasets.shape import BadRow
from evalrun.errors import UserError
from evalrun.registry import import_attribute, importable_from
from evalrun.suite.versions import ORIGINAL, PERTURB
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.schema import DatasetSpec
    from evalrun.suite.versions import AttributeSpec, PerturbationSpec

Change: TypeAlias = Callable[[dict[str, JSON], str], dict[str, JSON] | None]
"""From a row and its sample id to the changed row; None where this sample has no such version."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One attribute, or all perturbations: the name of each version and how it changes a row."""

    name: str
    changes: Mapping[str, Change]


@dataclass(frozen=True, slots=True)
class Versions:
    """What the versions of every sample are. `keeps_target` says that they all have the original's target,
    groups and cluster; `identity` is all that shapes them, for the dataset's digest."""

    axes: Sequence[Axis]
    keeps_target: bool
    identity: JSON

    def of(
        self, row: dict[str, JSON], sample_id: str
    ) -> list[tuple[str, dict[str, str | None], dict[str, JSON]]]:
        """The versions of a row: what its id ends in, its value of each axis, and the changed row.

        An attribute that makes no difference to a row (none of its words occurs) makes no versions of it;
        its value is then None. Raises BadRow where a row cannot be changed.
        """
        found: list[tuple[str, dict[str, str | None], dict[str, JSON]]] = []
        choices = [self._differing(axis, row, sample_id) for axis in self.axes]
        for combination in product(*choices):
            changed: dict[str, JSON] | None = row
            suffix, labels = "", {}
            for axis, label in zip(self.axes, combination, strict=True):
                labels[axis.name] = label
                if label is not None and changed is not None:
                    changed = axis.changes[label](changed, sample_id)
                    suffix += "" if label == ORIGINAL and axis.name == PERTURB else f"~{axis.name}={label}"
            if changed is not None:
                found.append((suffix, labels, changed))
        return found

    @staticmethod
    def _differing(axis: Axis, row: dict[str, JSON], sample_id: str) -> list[str | None]:
        """The versions along one axis that differ from those before them; [None] where all are the same."""
        seen: list[dict[str, JSON]] = []
        labels: list[str | None] = []
        for label, change in axis.changes.items():
            changed = change(row, sample_id)
            if changed is not None and changed not in seen:
                seen.append(changed)
                labels.append(label)
        return labels if len(labels) > 1 or axis.name == PERTURB else [None]


def open_versions(spec: DatasetSpec, base_dir: Path, seed: int) -> Versions:
    """What a dataset declares, ready to be applied. Raises UserError for a bad file or function."""
    if spec.counterfactual:
        axes = [
            Axis(name, {value: _setter(name, each, at) for at, value in enumerate(each.values)})
            for name, each in spec.counterfactual.items()
        ]
        declared = {name: each.model_dump(mode="json") for name, each in spec.counterfactual.items()}
        return Versions(axes, keeps_target=False, identity={"counterfactual": declared})
    changes: dict[str, Change] = {ORIGINAL: lambda row, _: row}
    identity = []
    for each in spec.perturb:
        where = f"dataset {spec.id}, perturb {each.id}"
        changes[each.id], shaping = _perturbation(each, base_dir, seed, where)
        identity.append({**each.model_dump(mode="json", exclude={"paraphrases"}), **shaping})
    return Versions([Axis(PERTURB, changes)], keeps_target=True, identity={"perturb": identity, "seed": seed})


def _setter(name: str, attribute: AttributeSpec, at: int) -> Change:
    value = attribute.values[at]
    if not attribute.columns:
        return lambda row, _: {**row, name: value}
    rows = attribute.words or [attribute.values]
    table = {word: words[at] for words in rows for word in words}
    replace = perturb.word_replacer(table)
    return lambda row, _: _with_texts(row, attribute.columns, lambda text, _: replace(text))


def _with_texts(
    row: dict[str, JSON], columns: Sequence[str], change: Callable[[str, str], str]
) -> dict[str, JSON]:
    """The row with each column's text changed; `change` gets the text and the column's name."""
    changed = dict(row)
    for column in columns:
        if column not in row:
            raise BadRow(f"there is no column '{column}' whose text a version could change")
        text = row[column]
        if isinstance(text, str):
            changed[column] = change(text, column)
        elif text is not None:
            raise BadRow(f"column '{column}' holds no text, so no version can change it")
    return changed


def _perturbation(
    spec: PerturbationSpec, base_dir: Path, seed: int, where: str
) -> tuple[Change, dict[str, JSON]]:
    """The change, and what shapes it besides the suite."""
    if spec.paraphrases is not None:
        return _paraphrases(base_dir / spec.paraphrases, spec.columns, where)
    shaping: dict[str, JSON] = {}
    if spec.python is not None:
        change, shaping = _function(spec.python, base_dir, where)
    else:
        change = _text_change(spec)

    def apply(row: dict[str, JSON], sample_id: str) -> dict[str, JSON]:
        def one(text: str, column: str) -> str:
            return change(text, random.Random(_seed(seed, sample_id, spec.id, column)))

        return _with_texts(row, spec.columns, one)

    return apply, shaping


def _seed(root: int, sample_id: str, version: str, column: str) -> int:
    digest = hashlib.sha256(f"{root}\0{sample_id}\0{version}\0{column}".encode()).digest()
    return int.from_bytes(digest[:8])


def _text_change(spec: PerturbationSpec) -> Callable[[str, random.Random], str]:
    if spec.typos is not None:
        rate = spec.typos
        return lambda text, rng: perturb.typos(text, rate, rng)
    if spec.case is not None:
        how = spec.case
        return lambda text, rng: perturb.letter_case(text, how, rng)
    if spec.whitespace is not None:
        share = spec.whitespace
        return lambda text, rng: perturb.whitespace(text, share, rng)
    if spec.gendered is not None:
        gender = spec.gendered
        return lambda text, _: perturb.gendered(text, gender)
    replace = perturb.word_replacer(spec.words or {})
    return lambda text, _: replace(text)


def _function(
    target: str, base_dir: Path, where: str
) -> tuple[Callable[[str, random.Random], str], dict[str, JSON]]:
    importable_from(base_dir)
    try:
        function = import_attribute(target)
    except UserError as error:
        raise UserError(str(error.problems[0].what), where=where, remedy=error.problems[0].remedy) from error
    except Exception as error:
        what = f"importing '{target}' failed: {type(error).__name__}: {error}"
        raise UserError(what, where=where, remedy="Mend that code, or name another function.") from error
    if not callable(function):
        raise UserError(f"'{target}' is no function", where=where)
    seeded = "seed" in inspect.signature(function).parameters

    def change(text: str, rng: random.Random) -> str:
        try:
            made = function(text, seed=rng.getrandbits(31)) if seeded else function(text)
        except Exception as error:
            raise BadRow(f"'{target}' failed: {type(error).__name__}: {error}") from error
        if not isinstance(made, str):
            raise BadRow(f"'{target}' gave a {type(made).__name__} and no text")
        return made

    module = importlib.util.find_spec(target.partition(":")[0])
    path = Path(module.origin) if module and module.origin else None
    code = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else None
    return change, {"code_sha256": code}


def _paraphrases(path: Path, columns: Sequence[str], where: str) -> tuple[Change, dict[str, JSON]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the paraphrases cannot be read: {error.strerror}", where=str(path)) from error
    texts: dict[str, dict[str, str]] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
            sample_id = str(entry.pop("sample_id"))
            kept = {name: text for name, text in entry.items() if not columns or name in columns}
        except (orjson.JSONDecodeError, AttributeError, KeyError):
            what = "expected an object with 'sample_id' and a text for each column"
            raise UserError(what, where=f"{path}:{number}") from None
        if not kept or not all(isinstance(text, str) for text in kept.values()):
            raise UserError("expected a text for each column that is changed", where=f"{path}:{number}")
        if sample_id in texts:
            raise UserError(f"sample '{sample_id}' stands twice", where=f"{path}:{number}")
        texts[sample_id] = kept
    if not texts:
        raise UserError("there are no paraphrases in it", where=str(path), remedy=f"See {where}.")

    def change(row: dict[str, JSON], sample_id: str) -> dict[str, JSON] | None:
        new = texts.get(sample_id)
        if new is None:
            return None
        return _with_texts(row, list(new), lambda _, column: new[column])

    return change, {"paraphrases_sha256": hashlib.sha256(data).hexdigest()}
