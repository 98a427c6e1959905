"""A model's card from its folder: `config.json` and the headers of its safetensors files; no weights are
read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrun.checkpoints import Tensor, safetensors_header
from evalrun.errors import UserError
from evalrun.training.gguf import gguf_settings, read_gguf
from evalrun.types import JSON

_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "rope_theta": ("rope_theta",),
    "rope_scaling": ("rope_scaling", "rope_parameters"),
    "tied_embeddings": ("tie_word_embeddings",),
    "dtype": ("dtype", "torch_dtype"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok",),
}
_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("adapter", re.compile(r"lora_|adapter", re.IGNORECASE)),
    ("embedding", re.compile(r"embe?d|\bwte\b|\bwpe\b|lm_head|output\.weight$", re.IGNORECASE)),
    ("norm", re.compile(r"norm|\bln_\w+|layernorm", re.IGNORECASE)),
    ("attention", re.compile(r"attn|attention|[qkvo]_proj|\bqkv\b|c_attn", re.IGNORECASE)),
    (
        "mlp",
        re.compile(r"mlp|feed_forward|ffn|experts?\b|gate_proj|up_proj|down_proj|\bfc\d|c_fc", re.IGNORECASE),
    ),
)
_EXPERT = re.compile(r"\bexperts?\.(?!shared)(\d+)\.", re.IGNORECASE)


def architecture_of(folder: Path) -> dict[str, JSON]:
    """What the folder of a checkpoint or model, or a GGUF file, says of its model; empty where there is
    neither a configuration nor weights.

    `parameters` counts each tensor once, also of sharded models; `parts` are embedding, attention, mlp, norm,
    adapter and other. Of an adapter, `base` is the model that it was trained on. Raises UserError for a
    header that does not fit its file.
    """
    card: dict[str, JSON] = {}
    if folder.suffix == ".gguf" and folder.is_file():
        metadata, found = read_gguf(folder)
        card = gguf_settings(metadata)
        return card | _counted({tensor.name: tensor for tensor in found}, card)
    config = _document(folder / "config.json")
    if config is not None:
        card |= _configured(config)
    adapter = _document(folder / "adapter_config.json")
    if adapter is not None:
        card |= _adapter(adapter)
    tensors = {tensor.name: tensor for file in _weights(folder) for tensor in safetensors_header(file)}
    if tensors:
        card |= _counted(tensors, card)
    return card


def _weights(folder: Path) -> Iterator[Path]:
    """The safetensors files of the model, or of the adapter: those of the index where there is one."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        mapped = (_document(index) or {}).get("weight_map")
        names = {str(name) for name in mapped.values()} if isinstance(mapped, dict) else set()
        for name in sorted(names):
            if Path(name).name != name:
                raise UserError(f"names a file outside its folder: '{name[:80]}'", where=str(index))
            if not (folder / name).is_file():
                raise UserError(f"names a shard that is not there: '{name[:80]}'", where=str(index))
            yield folder / name
        return
    for stem in ("model", "adapter_model"):
        if (folder / f"{stem}.safetensors").is_file():
            yield folder / f"{stem}.safetensors"
            return
    yield from sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def _configured(config: Mapping[str, Any]) -> dict[str, JSON]:
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config
    card: dict[str, JSON] = {name: config[name] for name in ("model_type", "architectures") if name in config}
    for name, keys in _NAMES.items():
        value = next((text[key] for key in keys if text.get(key) is not None), None)
        if value is not None:
            card[name] = value
    heads, hidden = card.get("heads"), card.get("hidden_size")
    if "head_dim" not in card and type(heads) is int and type(hidden) is int and heads > 0:
        card["head_dim"] = hidden // heads
    return card


def _adapter(config: Mapping[str, Any]) -> dict[str, JSON]:
    named = {"peft_type": "adapter", "base_model_name_or_path": "base", "revision": "base_revision"}
    named |= {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "target_modules": "target_modules",
    }
    return {new: config[old] for old, new in named.items() if config.get(old) not in (None, "")}


def _counted(tensors: Mapping[str, Tensor], card: Mapping[str, JSON]) -> dict[str, JSON]:
    parts: dict[str, int] = {}
    types: dict[str, int] = {}
    expert = 0
    for tensor in tensors.values():
        part = next((name for name, pattern in _PARTS if pattern.search(tensor.name)), "other")
        parts[part] = parts.get(part, 0) + tensor.parameters
        types[tensor.dtype] = types.get(tensor.dtype, 0) + tensor.parameters
        expert += tensor.parameters if _EXPERT.search(tensor.name) else 0
    total = sum(parts.values())
    counted: dict[str, JSON] = {
        "parameters": total,
        "tensors": len(tensors),
        "parts": parts,
        "weights_dtype": max(types, key=types.__getitem__) if len(types) == 1 else types,
    }
    experts, active = card.get("experts"), card.get("experts_per_token")
    if expert and type(experts) is int and type(active) is int and 0 < active <= experts:
        counted["active_parameters"] = total - expert + expert * active // experts
    return counted


def _document(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read: {str(error)[:100]}", where=str(path)) from error
    if not isinstance(value, dict):
        raise UserError("is no JSON object", where=str(path))
    return value
