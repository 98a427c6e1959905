"""The cards of a sweep's models: what their weights' folders and files say of architecture and parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from evalrun.errors import UserError
from evalrun.suite.components import ModelSpec
from evalrun.types import JSON


def model_cards(models: Iterable[ModelSpec], base_dir: Path) -> dict[str, dict[str, JSON]]:
    """By model id, for models whose weights are here: the card (`training.architecture`), of an adapter also
    that of its base under `base_model`. What cannot be read is left out: the run has said so, or did not need
    it. Nothing is fetched."""
    cards: dict[str, dict[str, JSON]] = {}
    for model in models:
        places = [_embedded(model.model, base_dir)] if model.provider == "llamacpp" and model.model else []
        named = (getattr(model.options, "adapter", None), model.model)
        places += [_place(each, base_dir) for each in named if isinstance(each, str)]
        weights = [place for place in places if place is not None]
        if not weights:
            continue
        from evalrun.training.architecture import architecture_of

        with contextlib.suppress(UserError, OSError):
            card = architecture_of(weights[0])
            base = weights[1] if len(weights) > 1 else _place(str(card.get("base") or ""), base_dir)
            if base is not None and card.get("base"):
                card["base_model"] = architecture_of(base)
            if card:
                cards[model.id] = card
    return cards


def _place(name: str, base_dir: Path) -> Path | None:
    """A folder of weights, or a GGUF file, of that name."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        place = base_dir / Path(name).expanduser()
        return place if name and (place.is_dir() or (place.suffix == ".gguf" and place.is_file())) else None
    return None


def _embedded(name: str, base_dir: Path) -> Path | None:
    """The file that the embedded engine loaded, where the name is not that of a file itself."""
    from evalrun.paths import models_dir
    from evalrun.providers import downloads
    from evalrun.providers.catalogue import Catalogue

    with contextlib.suppress(UserError, OSError):
        return downloads.hub_cached(name) if name.startswith("hf:") else Catalogue(models_dir()).where(name)
    return None
