"""What explaining an answer costs on the embedded model: the bars of `evalrun explain`.

    python benchmarks/explain.py [--words 60] [--weights DIR]

Runs a suite of one prompt with four sections and so many words on SmolLM2, then times occlusion of its
words, occlusion with twenty random rankings beside it, and exact Shapley values of its sections against their
sixteen prompts asked at once; and says what a sample takes of a page. The cache is passed over. With the
folder of a model for `transformers`, that is asked, and maps of attention are on the page too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from evalrun.cli.main import cli
from evalrun.explain.asking import Asker
from evalrun.explain.kept import read_explanations
from evalrun.explain.main import explain_run
from evalrun.explain.options import Options
from evalrun.explain.subject import open_run
from evalrun.explanations import Explained
from evalrun.providers.base import ProviderContext
from evalrun.reports.explain import write_page
from evalrun.runner.cache import likelihood_params
from evalrun.tracking.store import Store

FILLER = "The shop sells lamps and chairs, and most parcels arrive within three days of the order."


TEMPLATE = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""SmolLM2's."""


def sections_of(words: int) -> dict[str, str]:
    """Four sections with so many words."""
    parts = ["You sort messages.", "Teams: billing, delivery, account.", "Answer with the team only."]
    rest = words - sum(len(part.split()) for part in parts)
    message = " ".join((FILLER.split() * words)[: rest - 4]) + " I was charged twice."
    return {"task": parts[0], "teams": parts[1], "message": message, "ask": parts[2]}


def suite(words: int, weights: Path | None) -> dict[str, object]:
    """One prompt of four sections with so many words."""
    texts = sections_of(words)
    text = "\n".join(f"{{% section {name} %}}{part}{{% endsection %}}" for name, part in texts.items())
    model = {"id": "smollm2", "provider": "llamacpp", "model": "smollm2-135m-instruct"}
    if weights is not None:
        model |= {"provider": "transformers", "model": str(weights.absolute())}
    return {
        "name": "explain-benchmark",
        "models": [{**model, "params": {"temperature": 0, "max_tokens": 4}}],
        "prompts": [{"id": "p", "text": text}],
        "datasets": [{"id": "d", "rows": [{"id": "a", "t": "billing"}], "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
    }


def engine_cpu_s() -> float:
    """CPU seconds of the engines that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def explained(store: Store, name: str, options: Options) -> int:
    """Explain the sample; how many prompts that asked about."""
    made = explain_run(
        store.resolve("latest"), name, options, wanted=["a"], store=store.root, use_cache=False
    )
    return made.samples[0].evaluations


def together(store: Store, name: str, sections: Iterable[str]) -> int:
    """Ask at once about the prompts that every choice of sections makes."""
    run = open_run(store.resolve("latest"), name)
    context = ProviderContext(run.base_dir, store.root / "engines")
    choices = itertools.product(*[("", f"{section}\n") for section in sections])
    texts = [TEMPLATE.format("".join(chosen)) for chosen in choices]
    with Asker.of(run.model, context, likelihood_params(run.params), None) as asker:
        asker.likelihoods(texts, ["billing"])
    return len(texts)


def row(what: str, work: Callable[[], int]) -> None:
    """Do something, and print what it took, engine's start and all."""
    began, cpu = time.perf_counter(), engine_cpu_s()
    asked = work()
    print(
        f"| {what} | {time.perf_counter() - began:.1f} | {engine_cpu_s() - cpu:.1f} | {asked} |", flush=True
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "suite.yaml").write_text(json.dumps(suite(arguments.words, arguments.weights)))
        command = [str(folder / "suite.yaml"), "--no-report", "--quiet", "--store", str(folder / "store")]
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(command, standalone_mode=False)
        store, name = Store(folder / "store"), "smollm2-p-d"
        print(f"{arguments.words} words, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| what | seconds | of the engine's CPU | prompts |\n|---|---|---|---|", flush=True)
        words = Options(units=("word",), target="target", faithfulness=False)
        row("occlusion of its words (bar: 60 s)", lambda: explained(store, name, words))
        sections = Options(method="shapley", units=("section",), target="target", faithfulness=False)
        row("exact Shapley of 4 sections", lambda: explained(store, name, sections))
        texts = sections_of(arguments.words).values()
        row("its 16 prompts at once (bar for it)", lambda: together(store, name, texts))
        judged = Options(units=("word",), target="target", attention=int(arguments.weights is not None))
        row("occlusion with 20 random rankings", lambda: explained(store, name, judged))
        kept_there = read_explanations(store.resolve("latest"), name)
        assert kept_there is not None
        sizes = []
        for kept in (kept_there.samples[-1:], kept_there.samples[-1:] * 2):
            page = folder / "page.html"
            write_page(store.resolve("latest"), [Explained(name, "smollm2", {}, kept)], page)
            sizes.append(page.stat().st_size)
        print(f"\na sample takes {sizes[1] - sizes[0]:,} bytes of a page (bar: 20,000)")


if __name__ == "__main__":
    main()
