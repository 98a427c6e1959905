"""Prompts: templates compiled once, checked against the data, rendered for each row."""

from evalrun.prompts.few_shot import FewShotPool, open_pool
from evalrun.prompts.prompt import Api, Prompt, compile_prompt
from evalrun.prompts.rendering import Rendered, Renderer
from evalrun.prompts.sections import with_variants

__all__ = [
    "Api",
    "FewShotPool",
    "Prompt",
    "Rendered",
    "Renderer",
    "compile_prompt",
    "open_pool",
    "with_variants",
]
