"""The versions in which a dataset's samples are asked: made from what the suite declares.

A counterfactual version sets attributes to values, in a variable or by replacing words; a perturbed one
changes the texts. What is random in it depends on the seed, the sample's id and the version's name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from evalrun.canonical import derived_seed
from evalrun.datasets.shape import BadRow
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.registry import import_attribute, importable_from
from evalrun.suite.dataset import ORIGINAL, PERTURB
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.dataset import AttributeSpec, DatasetSpec, PerturbationSpec


_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_NEAR: Final[Mapping[str, str]] = {
    "a": "qsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc", "g": "ftyhbv",
    "h": "gyujnb", "i": "ujko", "j": "huikmn", "k": "jiolm", "l": "kop", "m": "njk", "n": "bhjm",
    "o": "iklp", "p": "ol", "q": "wa", "r": "edft", "s": "awedxz", "t": "rfgy", "u": "yhji", "v": "cfgb",
    "w": "qase", "x": "zsdc", "y": "tghu", "z": "asx",
}  # fmt: skip
"""Keys beside a key (QWERTY)."""


def typos(text: str, rate: float, rng: random.Random) -> str:
    """One slip in a share `rate` of the words of four letters or more: two letters swapped, one left out,
    doubled, or a neighbouring key. First letters, digits and marks stay; at least one word changes."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    chosen = [word for word in words if rng.random() < rate] or [rng.choice(words)]
    for word in reversed(chosen):
        text = text[: word.start()] + _slip(word.group(), rng) + text[word.end() :]
    return text


def _slip(word: str, rng: random.Random) -> str:
    for _ in range(20):
        at = rng.randrange(1, len(word) - 1)
        letter = word[at]
        match rng.randrange(4):
            case 0:
                made = word[:at] + word[at + 1] + letter + word[at + 2 :]
            case 1:
                made = word[:at] + word[at + 1 :]
            case 2:
                made = word[:at] + letter + word[at:]
            case _:
                near = _NEAR.get(letter.lower())
                new = rng.choice(near) if near else letter
                made = word[:at] + (new.upper() if letter.isupper() else new) + word[at + 1 :]
        if made != word:
            return made
    return word


def letter_case(text: str, how: str, rng: random.Random) -> str:
    """All letters upper, lower, title, or each either way."""
    match how:
        case "upper":
            return text.upper()
        case "lower":
            return text.lower()
        case "title":
            return re.sub(r"[^\W\d_]+('[^\W\d_]+)?", lambda word: word.group().capitalize(), text)
    return "".join(letter.upper() if rng.random() < 0.5 else letter.lower() for letter in text)


_WIDER: Final = ("  ", "   ", " \t", "\n", " \n ")


def whitespace(text: str, rate: float, rng: random.Random) -> str:
    """A share `rate` of the single spaces made wider, at least one of them."""
    places = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", text)]
    if not places:
        return f"{text} "
    for at in reversed([place for place in places if rng.random() < rate] or [rng.choice(places)]):
        text = text[:at] + rng.choice(_WIDER) + text[at + 1 :]
    return text


def word_replacer(replacements: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces whole words, or phrases, all at once and the longest first, in any case.

    A word in capitals, or with a capital first, is replaced in the same form.
    """
    table = {word.casefold(): new for word, new in replacements.items()}
    longest = sorted(replacements, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![\w])(?:" + "|".join(re.escape(word) for word in longest) + r")(?![\w])", re.IGNORECASE
    )
    exact = dict(replacements)

    def one(match: re.Match[str]) -> str:
        word = match.group()
        if word in exact:
            return exact[word]
        return _in_case_of(word, table.get(word.casefold(), word))

    return lambda text: pattern.sub(one, text)


def _in_case_of(word: str, new: str) -> str:
    if len(word) > 1 and word.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if word[:1].isupper() else new


GENDERED: Final[Sequence[tuple[str, str]]] = (
    ("he", "she"), ("himself", "herself"), ("man", "woman"), ("men", "women"), ("boy", "girl"),
    ("boys", "girls"), ("male", "female"), ("males", "females"), ("father", "mother"), ("fathers", "mothers"),
    ("dad", "mom"), ("son", "daughter"), ("sons", "daughters"), ("brother", "sister"),
    ("brothers", "sisters"), ("husband", "wife"), ("husbands", "wives"), ("uncle", "aunt"),
    ("nephew", "niece"), ("grandfather", "grandmother"), ("grandpa", "grandma"),
    ("grandson", "granddaughter"), ("boyfriend", "girlfriend"), ("gentleman", "lady"),
    ("gentlemen", "ladies"), ("sir", "madam"), ("mr", "ms"), ("king", "queen"), ("prince", "princess"),
    ("actor", "actress"), ("waiter", "waitress"), ("host", "hostess"), ("widower", "widow"),
    ("groom", "bride"), ("stepfather", "stepmother"), ("stepson", "stepdaughter"),
    ("businessman", "businesswoman"), ("policeman", "policewoman"),
    ("salesman", "saleswoman"), ("chairman", "chairwoman"), ("spokesman", "spokeswoman"),
)  # fmt: skip
"""English words that differ in gender alone: male, female. "his", "him", "her", "hers" are treated apart."""

_NOT_OWNED = """
    a an and about after again all also any as at away back because before but by down every for from her his
    if in into is it its just later like my no not now of off on or our out over so some than that the their
    them then there this to today tomorrow too until up was when where while who why with yesterday your
"""
_NO_OWNED: Final = frozenset(_NOT_OWNED.split())
"""Words before which "her" stands for "him" and "his" for "hers": what follows is not owned."""


def gendered(text: str, how: str) -> str:
    """English gendered words made male, female, or swapped.

    Whether "her" is "him" or "his" is guessed from the next word, so single sentences may come out wrong:
    look at some before leaning on it.
    """
    table: dict[str, str] = {}
    for male, female in GENDERED:
        if how in ("male", "swap"):
            table[female] = male
        if how in ("female", "swap"):
            table[male] = female
    words = re.compile(
        r"(?<![\w])(" + "|".join([*table, "his", "him", "her", "hers"]) + r")(?![\w])", re.IGNORECASE
    )

    def one(match: re.Match[str]) -> str:
        word = match.group()
        low = word.lower()
        if low in table:
            return _in_case_of(word, table[low])
        following = re.match(r"\s+([^\W\d_]+)", text[match.end() :])
        owns = following is not None and following[1].lower() not in _NO_OWNED
        if low in ("his", "him") and how != "male":
            new = "her" if low == "him" or owns else "hers"
        elif low in ("her", "hers") and how != "female":
            new = "his" if low == "hers" or owns else "him"
        else:
            return word
        return _in_case_of(word, new)

    return words.sub(one, text)


Change: TypeAlias = Callable[[dict[str, JSON], str], dict[str, JSON] | None]
"""From a row and its sample id to the changed row; None where this sample has no such version."""


@frozen
class Axis:
    """One attribute, or all perturbations: the name of each version and how it changes a row."""

    name: str
    changes: Mapping[str, Change]


@frozen
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
    replace = word_replacer(table)
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
            return change(text, random.Random(derived_seed(seed, sample_id, spec.id, column)))

        return _with_texts(row, spec.columns, one)

    return apply, shaping


def _text_change(spec: PerturbationSpec) -> Callable[[str, random.Random], str]:
    if spec.typos is not None:
        rate = spec.typos
        return lambda text, rng: typos(text, rate, rng)
    if spec.case is not None:
        how = spec.case
        return lambda text, rng: letter_case(text, how, rng)
    if spec.whitespace is not None:
        share = spec.whitespace
        return lambda text, rng: whitespace(text, share, rng)
    if spec.gendered is not None:
        gender = spec.gendered
        return lambda text, _: gendered(text, gender)
    replace = word_replacer(spec.words or {})
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
        raise UserError(what, where=where, remedy="Fix that code, or name another function.") from error
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
