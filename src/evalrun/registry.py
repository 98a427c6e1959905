"""Where named extensions are found. They are imported only when a suite names them.

A built-in provider, parser, scorer or sink is declared where it is written, by `@provider("name")`,
`@scorer("name", …)`. Another package adds its own by an entry point of the group `evalrun.<kind>s` with
the same name; a suite may also write `python: package.module:attribute`.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from evalrun.errors import UserError

Kind: TypeAlias = Literal["provider", "parser", "scorer", "sink"]

BUILT_IN: Mapping[Kind, Mapping[str, str]] = {}
"""Tables of names in the place of what the packages declare."""

PACKAGES: Mapping[Kind, str] = {
    "provider": "evalrun.providers",
    "parser": "evalrun.scoring.parsers",
    "scorer": "evalrun.scoring.scorers",
    "sink": "evalrun.sinks",
}

_DECLARED = re.compile(
    r'^@(?:provider|parser|scorer|sink)\(\s*"(\w+)".*?^(?:class|def) (\w+)', re.MULTILINE | re.DOTALL
)
"""`@scorer("name", …)` or the like at the beginning of a line, and the class or function below it."""


def built_in(kind: Kind) -> Mapping[str, str]:
    """The names that evalrun itself gives, each with what it stands for, as package.module:attribute."""
    return BUILT_IN[kind] if kind in BUILT_IN else _declared(PACKAGES[kind])


@cache
def _declared(package: str) -> Mapping[str, str]:
    """What the modules of a package declare. They are read as text: importing all takes a second."""
    from importlib import resources

    return {
        name: f"{package}.{file.name.removesuffix('.py')}:{attribute}"
        for file in resources.files(package).iterdir()
        if file.name.endswith(".py")
        for name, attribute in _DECLARED.findall(file.read_text(encoding="utf-8"))
    }


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one most likely meant, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for a mistyped word: the nearest known one, else all of them."""
    names = list(known)
    near = nearest(word, names)
    if near:
        return f"Did you mean '{near}'?"
    return f"Known: {', '.join(sorted(names))}." if names else ""


@cache
def entry_points_of(kind: Kind) -> Mapping[str, str]:
    """The names that installed packages give, with what each stands for; looked up once."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=f"evalrun.{kind}s")}


def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted: the built-in ones and those of installed packages."""
    return sorted({**entry_points_of(kind), **built_in(kind)})


def importable_from(folder: Path) -> None:
    """Let the modules in a folder be imported; none of them can stand before an installed one."""
    entry = str(folder.resolve())
    if entry not in sys.path:
        sys.path.append(entry)
    importlib.invalidate_caches()


def import_attribute(target: str) -> Any:
    """The object that `package.module:attribute` names.

    Raises UserError when the module or the attribute does not exist.
    """
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise UserError(f"'{target}' is not of the form package.module:attribute")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"cannot import '{target}': {error}",
            remedy="Install the package that holds it, or correct the name.",
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(f"module '{module_name}' has no '{attribute}'") from None


def component(made: Any) -> Any:
    """The class of a function that is declared a parser or scorer; anything else as it is."""
    return made.__component__() if hasattr(made, "__component__") else made


def load(kind: Kind, name: str) -> Any:
    """The class registered under a name, or the one made of the function registered under it.

    Raises UserError, with the nearest known name, when there is none.
    """
    target = built_in(kind).get(name) or entry_points_of(kind).get(name)
    if target is None:
        near = nearest(name, names(kind))
        raise UserError(
            f"unknown {kind} '{name}'",
            remedy=f"Did you mean '{near}'?" if near else f"Known: {', '.join(names(kind))}.",
        )
    return component(import_attribute(target))
