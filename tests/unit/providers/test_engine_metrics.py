"""What engines say of themselves. The texts are as vLLM 0.32 and xllamacpp 2026.10 gave them, shortened."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from evalrun.providers.engine import llamacpp_figures, parse_metrics, vllm_figures

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 120.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7954196001066663e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 32.0
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",num_gpu_blocks="364"} 1.0
process_resident_memory_bytes 1.234e+08
"""


def test_keeps_the_figures_that_are_there_and_guesses_none() -> None:
    assert vllm_figures(VLLM) == {
        "kv_cache_usage": 0.5,
        "requests_running": 5.0,
        "requests_waiting": 7.0,
        "preemptions": 4.0,
        "prefix_cache_queries": 120.0,
        "prefix_cache_hits": 32.0,
        "prompt_tokens": 1500.0,
        "kv_cache_tokens": 364 * 128.0,
    }
    assert vllm_figures("# nothing here\nother 1\n") == {}


def test_knows_the_names_of_older_versions() -> None:
    old = 'vllm:gpu_cache_usage_perc{model_name="m"} 0.125\nvllm:num_preemptions{model_name="m"} 2\n'
    assert vllm_figures(old) == {"kv_cache_usage": 0.125, "preemptions": 2.0}


def test_an_engine_that_does_not_know_its_blocks_has_no_size() -> None:
    assert vllm_figures('vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n') == {}


def test_reads_the_whole_format() -> None:
    samples = parse_metrics(
        'a{x="1, 2} \\"q\\" \\\\ \\n",y=""} NaN\n'
        "b 3 1700000000000\n"
        "c{} +Inf\n"
        "broken line here now\n"
        "d{x=} one\n"
    )
    first, *rest = samples
    assert first.labels == {"x": '1, 2} "q" \\ \n', "y": ""} and math.isnan(first.value)
    assert [(each.name, each.value) for each in rest] == [("b", 3.0), ("c", math.inf)]


_names = st.from_regex(r"[a-z_:][a-z0-9_:]{0,10}", fullmatch=True)
_label_names = st.from_regex(r"[a-z_][a-z0-9_]{0,10}", fullmatch=True)
_values = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")))


@given(_names, st.dictionaries(_label_names, _values, max_size=4), st.floats(allow_nan=False))
def test_reads_back_what_is_written(name: str, labels: dict[str, str], value: float) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    (sample,) = parse_metrics(f"{name}{{{inside}}} {value!r}\n")
    assert (sample.name, dict(sample.labels), sample.value) == (name, labels, value)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    vllm_figures(text)


LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 30
llamacpp:prompt_tokens_cached_total 10
llamacpp:tokens_predicted_total 48
llamacpp:predicted_tokens_seconds 97.1
llamacpp:requests_processing 4
llamacpp:requests_deferred 2
"""


def test_takes_the_names_that_other_engines_have() -> None:
    assert llamacpp_figures(LLAMACPP) == {
        "prompt_tokens": 30.0,
        "prefix_cache_hits": 10.0,
        "prefix_cache_queries": 40.0,
        "generation_tokens": 48.0,
        "requests_running": 4.0,
        "requests_waiting": 2.0,
    }


def test_guesses_nothing() -> None:
    assert llamacpp_figures("llamacpp:requests_processing 1\n") == {"requests_running": 1.0}
    assert llamacpp_figures("") == {}
