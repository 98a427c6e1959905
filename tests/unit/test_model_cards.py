"""The cards of a sweep's models: of folders, of adapters with their base; nothing of what is no folder."""

import json
from pathlib import Path

from evalrun.reports.card import card_line, card_rows
from evalrun.suite.load import load_suite
from evalrun.sweep.cards import model_cards

SUITE = """
name: cards
models:
  - {id: base, provider: transformers, model: base}
  - {id: tuned, provider: transformers, model: base, adapter: lora}
  - {id: alone, provider: transformers, model: lora}
  - {id: hub, provider: transformers, model: owner/name}
  - {id: recorded, provider: recorded, column: answer}
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, rows: [{q: one, t: a, answer: a}], target: "{{ t }}"}]
scorers: [exact_match]
"""


def test_models_that_are_folders_have_cards(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2})
    )
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "base", "r": 8})
    )
    cards = model_cards(load_suite(tmp_path / "suite.yaml").suite.models, tmp_path)
    base = {"architectures": ["LlamaForCausalLM"], "layers": 2}
    adapter = {"adapter": "LORA", "base": "base", "rank": 8, "base_model": base}
    assert cards == {"base": base, "tuned": adapter, "alone": adapter}
    assert card_line(adapter) == "adapter LORA on base"
    assert ("base: layers", "2") in card_rows(adapter)
    (tmp_path / "base" / "config.json").write_text("torn {")
    assert "base" not in model_cards(load_suite(tmp_path / "suite.yaml").suite.models, tmp_path)


def test_a_card_of_any_kind_can_be_shown() -> None:
    odd = {"parts": {"mlp": "many"}, "base_model": 3, "architectures": "x", "parameters": None}
    assert len(card_rows(odd)) == 4
    assert card_line(odd) == ""
