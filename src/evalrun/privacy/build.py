"""From a suite's settings to a redactor: which recognisers, and that each of them works."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrun.errors import UserError
from evalrun.privacy.keys import store_key
from evalrun.privacy.national import STRICT
from evalrun.privacy.recognisers import STANDARD, Recogniser, Span, may_hold
from evalrun.privacy.redact import Redactor
from evalrun.registry import import_attribute, importable_from, nearest
from evalrun.suite.privacy import PrivacySpec, RecogniserSpec

GROUP = "evalrun.recognisers"
"""The group of entry points: name to a function text -> list of (start, end)."""
SECRET, PERSON = "secret", "person"
_PROBE = "Ana Souza, ana@example.org, +49 30 1234567, 4111 1111 1111 1111, \u00e9\U0001f600 {} \n\t"
"""Every recogniser of others is tried on this before anything is sent."""


def build_redactor(settings: PrivacySpec | Mapping[str, Any], store: Path | None, base_dir: Path) -> Redactor:
    """See `evalrun.privacy.redactor`."""
    spec = _checked(settings)
    kinds: dict[str, Recogniser] = {}
    if spec.redact != "off":
        kinds = dict(STRICT if spec.redact == "strict" else STANDARD)
    own = {each.name: _own(each, base_dir) for each in spec.recognisers}
    installed: dict[str, str] = {}
    if spec.redact == "strict" or not set(spec.entities) <= {*STRICT, *own}:  # to look takes a while
        installed = {point.name: point.value for point in entry_points(group=GROUP)}
    if spec.redact == "strict" or set(spec.entities) & installed.keys():
        own |= {name: import_attribute(value) for name, value in installed.items() if name not in own}
    if spec.redact == "presidio":
        from evalrun.privacy.by_presidio import presidio_recognisers

        own |= presidio_recognisers(spec.presidio, spec.entities)
    available = {**STRICT, **kinds, **own}
    _check_entities(spec, [*available, *installed])
    secrets = spec.redact != "off"
    if spec.entities:
        kinds = {name: available[name] for name in available if name in spec.entities}
        secrets = secrets and SECRET in spec.entities
    else:
        kinds |= own
    for name in own.keys() & kinds.keys():
        _try(name, kinds[name])
        kinds[name] = partial(_spans, own[name])
    plain = kinds.keys() <= STANDARD.keys()
    key = os.urandom(32) if store is None else store_key(store)
    return Redactor(spec, key, kinds, secrets=secrets, quick=may_hold if plain else None)


def _checked(settings: PrivacySpec | Mapping[str, Any]) -> PrivacySpec:
    if isinstance(settings, PrivacySpec):
        return settings
    try:
        return PrivacySpec.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("privacy", *first["loc"])))
        raise UserError(first["msg"].removeprefix("Value error, "), where=where) from error


def _check_entities(spec: PrivacySpec, known: Iterable[str]) -> None:
    every = sorted({*known, SECRET, PERSON})
    for name in spec.entities:
        if name not in every:
            near = nearest(name, every)
            remedy = f"Did you mean '{near}'?" if near else f"Known: {', '.join(every)}."
            raise UserError(f"unknown entity '{name}'", where="privacy.entities", remedy=remedy)
    if PERSON in spec.entities and not spec.known and PERSON not in known:
        raise UserError(
            "names are found by no pattern",
            where="privacy.entities: person",
            remedy="Name the columns that hold them under `known`, or use redact: presidio with "
            "presidio: {model: FOLDER}.",
        )


def _own(spec: RecogniserSpec, base_dir: Path) -> Recogniser:
    if spec.pattern is not None:
        pattern = re.compile(spec.pattern)
        return lambda text: [match.span() for match in pattern.finditer(text)]
    importable_from(base_dir)
    function: Recogniser = import_attribute(spec.python or "")
    return function


def _spans(recognise: Recogniser, text: str) -> list[Span]:
    """What a recogniser of others gives, checked: spans that lie in the text."""
    spans = [(int(begin), int(end)) for begin, end in recognise(text)]
    if any(not 0 <= begin <= end <= len(text) for begin, end in spans):
        raise ValueError("a span lies outside the text")
    return spans


def _try(name: str, recognise: Recogniser) -> None:
    try:
        _spans(recognise, _PROBE)
    except Exception as error:
        raise UserError(
            f"the recogniser raised {type(error).__name__}: {error}",
            where=f"privacy, recogniser '{name}'",
            remedy="It takes a text and gives (start, end) pairs. Nothing was sent or stored.",
        ) from error
