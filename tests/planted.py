"""A completions server whose model looks at planted words, and a suite that asks it."""

from __future__ import annotations

from typing import Any

from tests.completions import CompletionsServer, tokens_of

ROWS = [
    {"id": "a", "text": "I was charged twice. The weather is fine today. My name is Sam.", "t": "billing"},
    {"id": "b", "text": "The parcel came late. Thank you. It is Monday.", "t": "delivery"},
]
TEXT = (
    "{% section task %}You sort messages.{% endsection %}\n"
    "{% section message %}{{ text }}{% endsection %}\n"
    "{% section form %}Be brief.{% endsection %} Team:"
)


class Planted(CompletionsServer):
    """What it thinks of a label depends on single words of what stands before it: `weights`."""

    weights = {"charged": {"billing": 4.0}, "late": {"delivery": 3.0}, "brief": {"billing": -1.0}}

    def __init__(self) -> None:
        super().__init__()
        self.texts = lambda body: " billing" if "charged" in body["prompt"] else " account"

    def _echo(self, number: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        choice = super()._echo(number, prompt, body)
        tokens = tokens_of(prompt)
        before = {token.strip() for token in tokens[:-1]}
        value = -9.0 + sum(
            w.get(tokens[-1].strip(), 0.0) for word, w in self.weights.items() if word in before
        )
        choice["logprobs"]["token_logprobs"][len(tokens) - 1] = value
        return choice


def suite(server: CompletionsServer, **changes: Any) -> dict[str, Any]:
    model = {"id": "m", "provider": "openai_compatible", "base_url": server.base_url, "model": "scripted"}
    return {
        "name": "why",
        "models": [{**model, "api": "completions", "params": {"max_tokens": 4}}],
        "prompts": [{"id": "p", "text": TEXT}],
        "datasets": [{"id": "d", "rows": ROWS, "key": "id", "target": "t"}],
        "parse": [{"choice": ["billing", "delivery", "account"]}],
        "scorers": ["exact_match"],
        "performance": {"concurrency": 4, "retries": 0},
        **changes,
    }
