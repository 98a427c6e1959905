"""What explaining an answer costs on the embedded model: the bars of `evalrun explain`.

    python benchmarks/explain.py [--words 60] [--store DIR]

Runs a suite of one prompt with four sections and so many words on SmolLM2, then times occlusion of its
words, occlusion with twenty random rankings beside it, and exact Shapley values of its sections against their
sixteen prompts asked at once; and says what a sample takes of a page. The cache is passed over.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

from evalrun.cli.main import cli
from evalrun.explain.asking import Asker
from evalrun.explain.kept import read_explanations
from evalrun.explain.main import Options, explain_run
from evalrun.explain.subject import open_run
from evalrun.providers.base import ProviderContext
from evalrun.reports.explain import write_page
from evalrun.runner.cache import likelihood_params
from evalrun.tracking.store import Store

FILLER = "The shop sells lamps and chairs, and most parcels arrive within three days of the order."


def suite(words: int) -> dict[str, object]:
    """One prompt of four sections with so many words."""
    parts = ["You sort messages.", "Teams: billing, delivery, account.", "Answer with the team only."]
    rest = words - sum(len(part.split()) for part in parts)
    message = " ".join((FILLER.split() * words)[: rest - 4]) + " I was charged twice."
    texts = {"task": parts[0], "teams": parts[1], "message": message, "ask": parts[2]}
    text = "\n".join(f"{{% section {name} %}}{part}{{% endsection %}}" for name, part in texts.items())
    model = {"id": "smollm2", "provider": "llamacpp", "model": "smollm2-135m-instruct"}
    return {
        "name": "explain-benchmark",
        "models": [{**model, "params": {"temperature": 0, "max_tokens": 4}}],
        "prompts": [{"id": "p", "text": text}],
        "datasets": [{"id": "d", "rows": [{"id": "a", "t": "billing"}], "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
    }


def seconds(store: Store, name: str, options: Options) -> tuple[float, int]:
    """How long an explanation takes, engine's start and all, and how many prompts it asked about."""
    began = time.perf_counter()
    made = explain_run(
        store.resolve("latest"), name, options, wanted=["a"], store=store.root, use_cache=False
    )
    return time.perf_counter() - began, made.samples[0].evaluations


def together(store: Store, name: str, prompts: int) -> float:
    """How long so many prompts take when they are asked at once, engine's start and all."""
    run = open_run(store.resolve("latest"), name)
    context = ProviderContext(run.base_dir, store.root / "engines")
    texts = [f"Number {at}. {FILLER} {FILLER} {FILLER}" for at in range(prompts)]
    began = time.perf_counter()
    with Asker.of(run.model, context, likelihood_params(run.params), None) as asker:
        asker.likelihoods(texts, ["billing"])
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "suite.yaml").write_text(json.dumps(suite(arguments.words)))
        command = [str(folder / "suite.yaml"), "--no-report", "--quiet", "--store", str(folder / "store")]
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(command, standalone_mode=False)
        store, name = Store(folder / "store"), "smollm2-p-d"
        words = Options(units=("word",), target="target", faithfulness=False)
        rows = [
            ("occlusion of its words (bar: 60 s)", *seconds(store, name, words)),
            ("with 20 random rankings", *seconds(store, name, Options(units=("word",), target="target"))),
        ]
        sections = Options(method="shapley", units=("section",), target="target", faithfulness=False)
        rows.append(("exact Shapley of 4 sections", *seconds(store, name, sections)))
        rows.append(("16 prompts at once (bar for it)", together(store, name, 16), 16))
        print(f"{arguments.words} words, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| what | seconds | prompts |\n|---|---|---|")
        for what, took, asked in rows:
            print(f"| {what} | {took:.1f} | {asked} |")
        explained = read_explanations(store.resolve("latest"), name)
        assert explained is not None
        sizes = []
        for kept in (explained.samples[:1], explained.samples[:1] * 2):
            page = folder / "page.html"
            write_page(store.resolve("latest"), [type(explained)(name, "smollm2", {}, kept)], page)
            sizes.append(page.stat().st_size)
        print(f"\na sample takes {sizes[1] - sizes[0]:,} bytes of a page (bar: 20,000)")


if __name__ == "__main__":
    main()
