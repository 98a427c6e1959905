"""The text is of the form that llama.cpp's server gave (xllamacpp 2026.10), shortened."""

from evalrun.providers.llamacpp_metrics import engine_figures

TEXT = """\
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
    assert engine_figures(TEXT) == {
        "prompt_tokens": 30.0,
        "prefix_cache_hits": 10.0,
        "prefix_cache_queries": 40.0,
        "generation_tokens": 48.0,
        "requests_running": 4.0,
        "requests_waiting": 2.0,
    }


def test_guesses_nothing() -> None:
    assert engine_figures("llamacpp:requests_processing 1\n") == {"requests_running": 1.0}
    assert engine_figures("") == {}
