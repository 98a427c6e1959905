"""Settings of models as axes: `sweep: {model.slots: [1, 4]}` makes of every model one for each value.

What an engine is started with (slots, batch size, quantisation) is part of the model, not of what is sent to
it; so each value is a model of its own, started and stopped by itself, and comparisons are between models.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

from evalrun.canonical import digest

PREFIX = "model."


def with_model_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a suite with a model for each combination of values under `sweep: {model.…}`, and without
    these axes. Data of another shape are left as they are: what is wrong with them is found elsewhere."""
    sweep, models = data.get("sweep"), data.get("models")
    if not isinstance(sweep, Mapping) or not isinstance(models, list):
        return dict(data)
    axes = {
        name: values
        for name, values in sweep.items()
        if isinstance(name, str) and name.startswith(PREFIX) and isinstance(values, list) and values
    }
    if not axes:
        return dict(data)
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    made = [_with(model, point) for model in models for point in points]
    return {**data, "models": made, "sweep": {name: each for name, each in sweep.items() if name not in axes}}


def _with(model: Any, point: Mapping[str, Any]) -> Any:
    if not isinstance(model, Mapping):
        return model
    entry = copy.deepcopy(dict(model))
    for name, value in point.items():
        *steps, last = name.removeprefix(PREFIX).split(".")
        place = entry
        for step in steps:
            inner = place.get(step)
            place[step] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[step]
        place[last] = value
    if isinstance(entry.get("id"), str):
        said = "-".join(f"{name.rpartition('.')[2]}{_word(value)}" for name, value in point.items())
        entry["id"] = f"{entry['id']}-{said}"[:100]
    return entry


def _word(value: Any) -> str:
    """A value in a model's id: 4, q4_k_m; the beginning of a digest for what is no word."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9._-]{1,40}", text):
        return text if text[0].isdigit() else f"-{text}"
    return f"-{digest(text)[:8]}"
