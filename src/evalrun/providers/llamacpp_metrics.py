"""What llama.cpp's server says of itself on /metrics, under the names that vLLM's figures have here.

Pure: no network. Of its key-value cache llama.cpp says nothing.
"""

from __future__ import annotations

from evalrun.providers.vllm_metrics import parse_metrics

_NAMES = {
    "llamacpp:requests_processing": "requests_running",
    "llamacpp:requests_deferred": "requests_waiting",
    "llamacpp:prompt_tokens_total": "prompt_tokens",
    "llamacpp:prompt_tokens_cached_total": "prefix_cache_hits",
    "llamacpp:tokens_predicted_total": "generation_tokens",
}


def engine_figures(text: str) -> dict[str, float]:
    """The figures that the text holds (see `vllm_metrics.FIGURES`); the others are left out.

    llama.cpp counts the prompt tokens that it computed and those that it found in its cache apart: together
    they are what was looked up.
    """
    figures = {_NAMES[sample.name]: sample.value for sample in parse_metrics(text, _NAMES)}
    if "prompt_tokens" in figures and "prefix_cache_hits" in figures:
        figures["prefix_cache_queries"] = figures["prompt_tokens"] + figures["prefix_cache_hits"]
    return figures
