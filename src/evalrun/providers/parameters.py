"""Names of generation parameters that servers and engines know, so that a mistyped one is not sent unheeded.

Most servers pass over what they do not know: `temprature: 0` is then an answer at temperature 1.
"""

from __future__ import annotations


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


OPENAI = _names(
    """
    temperature top_p n max_tokens max_completion_tokens stop seed frequency_penalty
    presence_penalty logit_bias logprobs top_logprobs response_format tools tool_choice
    parallel_tool_calls functions function_call reasoning_effort verbosity modalities audio
    prediction web_search_options stream stream_options suffix echo best_of user store metadata
    service_tier prompt_cache_key prompt_cache_retention safety_identifier data_sources
    """
)
"""Chat and completions of OpenAI, Azure included."""

VLLM = OPENAI | _names(
    """
    top_k min_p repetition_penalty length_penalty use_beam_search min_tokens ignore_eos
    stop_token_ids bad_words allowed_token_ids include_stop_str_in_output skip_special_tokens
    spaces_between_special_tokens prompt_logprobs truncate_prompt_tokens detokenize output_kind
    logits_processors logprob_token_ids add_special_tokens add_generation_prompt
    continue_final_message chat_template chat_template_kwargs documents structured_outputs
    guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
    guided_whitespace_pattern include_reasoning thinking_token_budget priority request_id cache_salt
    return_tokens_as_token_ids return_token_ids mm_processor_kwargs media_io_kwargs vllm_xargs
    kv_transfer_params
    """
)
"""vLLM, as a server and offline."""

LLAMA_CPP = OPENAI | _names(
    """
    top_k min_p typical_p tfs_z top_n_sigma repeat_penalty repeat_last_n penalize_nl n_predict
    n_probs n_keep n_indent n_discard min_keep ignore_eos mirostat mirostat_tau mirostat_eta
    dynatemp_range dynatemp_exponent xtc_probability xtc_threshold dry_multiplier dry_base
    dry_allowed_length dry_penalty_last_n dry_sequence_breakers adaptive_target adaptive_decay
    samplers grammar grammar_lazy grammar_triggers json_schema preserved_tokens cache_prompt
    n_cache_reuse id_slot return_tokens return_progress post_sampling_probs timings_per_token
    t_max_prompt_ms t_max_predict_ms response_fields lora chat_template_kwargs reasoning_format
    reasoning_budget thinking_forced_open enable_thinking parse_tool_calls add_generation_prompt
    continue_final_message backend_sampling
    """
)
"""llama.cpp's server."""

TRANSFORMERS = _names(
    """
    temperature top_p top_k min_p max_tokens max_completion_tokens stop seed logprobs top_logprobs
    repetition_penalty no_repeat_ngram_size min_new_tokens chat_template_kwargs
    """
)
"""What the provider `transformers` passes on."""

ANTHROPIC = _names(
    """
    temperature top_p top_k max_tokens max_completion_tokens stop stop_sequences tools tool_choice
    response_format output_config thinking metadata service_tier cache_control context_management
    container mcp_servers inference_geo speed
    """
)
"""Anthropic's Messages API, with the words of the others that are turned into its own."""

_OTHERS = _names(
    """
    regex ebnf structural_tag no_stop_trim lora_path session_params return_hidden_states
    separate_reasoning stream_reasoning custom_logit_processor custom_params rid stop_regex num_ctx
    num_predict keep_alive think options format do_sample max_new_tokens decoder_input_details
    return_full_text truncate typical_p watermark details top_n_tokens adapter_id top_a transforms
    models route provider plugins usage reasoning include_reasoning max_price thinking
    thinking_config random_seed safe_prompt prompt_mode safe_mode disable_search search_parameters
    search_domain_filter search_recency_filter return_images return_related_questions
    enable_thinking thinking_budget incremental_output enable_search result_format do_meta
    output_config system metadata stop_sequences max_output_tokens safety_settings generation_config
    cachedContent anthropic_version anthropic_beta amazon_bedrock guardrailConfig performanceConfig
    citations context_length_exceeded_behavior prompt_truncate_len perf_metrics_in_response
    mirostat_lr mirostat_target tfs repetition_penalty
    """
)
"""SGLang, Ollama, TGI, routers and vendors that speak the OpenAI API with words of their own."""

EVERY = OPENAI | VLLM | LLAMA_CPP | _OTHERS
