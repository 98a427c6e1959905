"""What vLLM and llama.cpp say of themselves on /metrics: a parser of the Prometheus text format and the few
figures we keep.

Pure: no network. Names have changed between versions of vLLM; each figure lists those it has had.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One line of the format: name, labels, value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure we keep. Several engines report one line each: `combine` says how they join."""

    key: str
    names: tuple[str, ...]
    combine: Literal["sum", "mean"] = "sum"
    labels: frozenset[str] = field(default=frozenset({"model_name", "engine"}))


FIGURES: tuple[_Figure, ...] = (
    _Figure("kv_cache_usage", ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), "mean"),
    _Figure("requests_running", ("vllm:num_requests_running",)),
    _Figure("requests_waiting", ("vllm:num_requests_waiting",)),
    _Figure("preemptions", ("vllm:num_preemptions_total", "vllm:num_preemptions")),
    _Figure(
        "prefix_cache_queries",
        (
            "vllm:prefix_cache_queries_total",
            "vllm:prefix_cache_queries",
            "vllm:gpu_prefix_cache_queries_total",
        ),
    ),
    _Figure(
        "prefix_cache_hits",
        ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits_total"),
    ),
    _Figure("prompt_tokens", ("vllm:prompt_tokens_total",)),
    _Figure("generation_tokens", ("vllm:generation_tokens_total",)),
)
"""`kv_cache_usage` is a fraction of 1 and, with running and waiting, a state; the others count since
the start of the engine, the prefix cache in tokens looked up and found."""

_CACHE_CONFIG = "vllm:cache_config_info"
_WANTED = frozenset({_CACHE_CONFIG, *(name for figure in FIGURES for name in figure.names)})
_LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*"
)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")


def parse_metrics(text: str, names: Collection[str] | None = None) -> list[MetricSample]:
    """The samples of a text in the Prometheus format (0.0.4), of these names or of all.

    Comments and lines that are not of the format are left out. A page of vLLM has hundreds of lines, most
    of them of histograms: what is not wanted costs one look at its name.
    """
    found = []
    for line in text.splitlines():
        name = _NAME.match(line)
        if name is None or (names is not None and name[0] not in names):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[3])  # also NaN, +Inf, -Inf
        except ValueError:
            continue
        found.append(MetricSample(match[1], _labels(match[2] or ""), value))
    return found


def vllm_figures(text: str) -> dict[str, float]:
    """The figures of `FIGURES` that the text holds, and `kv_cache_tokens`, the KV cache's size in tokens.

    A figure that the text does not hold is left out, never guessed.
    """
    samples = parse_metrics(text, _WANTED)
    by_name: dict[str, list[MetricSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    figures: dict[str, float] = {}
    for figure in FIGURES:
        for name in figure.names:
            values = [each.value for each in by_name.get(name, ()) if each.labels.keys() <= figure.labels]
            if values:
                total = sum(values)
                figures[figure.key] = total / len(values) if figure.combine == "mean" else total
                break
    capacity = _cache_tokens(by_name.get(_CACHE_CONFIG, ()))
    if capacity is not None:
        figures["kv_cache_tokens"] = capacity
    return figures


def _labels(text: str) -> dict[str, str]:
    return {name: _ESCAPE.sub(_unescaped, value) for name, value in _LABEL.findall(text)}


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _cache_tokens(samples: Iterable[MetricSample]) -> float | None:
    total = None
    for sample in samples:
        blocks = sample.labels.get("num_gpu_blocks", "") or ""
        size = sample.labels.get("block_size", "")
        if blocks.isdigit() and size.isdigit():
            total = (total or 0.0) + float(int(blocks) * int(size))
    return total


_LLAMACPP_NAMES = {
    "llamacpp:requests_processing": "requests_running",
    "llamacpp:requests_deferred": "requests_waiting",
    "llamacpp:prompt_tokens_total": "prompt_tokens",
    "llamacpp:prompt_tokens_cached_total": "prefix_cache_hits",
    "llamacpp:tokens_predicted_total": "generation_tokens",
}


def llamacpp_figures(text: str) -> dict[str, float]:
    """The figures that the text holds (see `vllm_metrics.FIGURES`); the others are left out.

    llama.cpp counts the prompt tokens that it computed and those that it found in its cache apart: together
    they are what was looked up.
    """
    figures = {_LLAMACPP_NAMES[sample.name]: sample.value for sample in parse_metrics(text, _LLAMACPP_NAMES)}
    if "prompt_tokens" in figures and "prefix_cache_hits" in figures:
        figures["prefix_cache_queries"] = figures["prompt_tokens"] + figures["prefix_cache_hits"]
    return figures
