"""The cards of a sweep's models: what their folders say of architecture and parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from evalrun.errors import UserError
from evalrun.suite.components import ModelSpec
from evalrun.types import JSON


def model_cards(models: Iterable[ModelSpec], base_dir: Path) -> dict[str, dict[str, JSON]]:
    """By model id, for models that are folders here: the card (`training.architecture`), of an adapter also
    that of its base under `base_model`. What cannot be read is left out: the run has said so, or did not need
    it."""
    cards: dict[str, dict[str, JSON]] = {}
    for model in models:
        adapter = getattr(model.options, "adapter", None)
        places = [
            _folder(each, base_dir) for each in (adapter, model.model) if isinstance(each, str) and each
        ]
        folders = [place for place in places if place is not None]
        if not folders:
            continue
        from evalrun.training.architecture import architecture_of

        with contextlib.suppress(UserError, OSError):
            card = architecture_of(folders[0])
            base = folders[1] if len(folders) > 1 else _folder(str(card.get("base") or ""), base_dir)
            if base is not None:
                card["base_model"] = architecture_of(base)
            if card:
                cards[model.id] = card
    return cards


def _folder(name: str, base_dir: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        place = base_dir / Path(name).expanduser()
        return place if name and place.is_dir() else None
    return None
