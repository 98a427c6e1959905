"""A model's card: what is known of its architecture, in one line and as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.reports.visible import visible
from evalrun.tracking.naming import plain_value


def card_line(card: Mapping[str, Any]) -> str:
    """A model's card in one line; empty where nothing is known."""
    parts = []
    if isinstance(card.get("architectures"), list) and card["architectures"]:
        parts.append(str(card["architectures"][0]))
    if isinstance(card.get("parameters"), int):
        parts.append(f"{card['parameters']:,} parameters")
    named = {"layers": "layers", "hidden_size": "wide", "heads": "heads", "kv_heads": "kv heads"}
    parts += [f"{card[key]} {word}" for key, word in named.items() if key in card]
    parts += [f"adapter {card.get('adapter')} on {card['base']}"] if card.get("base") else []
    return ", ".join(parts)


def card_rows(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A model's card as name and value."""
    rows = []
    for name, value in card.items():
        if name == "base_model" and isinstance(value, Mapping):
            rows += [(f"base: {key}", text) for key, text in card_rows(value)]
        elif name == "parts" and isinstance(value, Mapping) and all(type(n) is int for n in value.values()):
            total = sum(value.values()) or 1
            rows += [
                (f"parameters: {part}", f"{count:,} ({count / total:.1%})") for part, count in value.items()
            ]
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((name.replace("_", " "), f"{value:,}"))
        else:
            rows.append((name.replace("_", " "), visible(plain_value(value))))
    return rows
