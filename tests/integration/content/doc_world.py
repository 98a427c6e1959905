"""A folder in which the examples of the docs find what they name."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result
from doc_blocks import ROOT, Block, Command
from tests.servers import ChatServer

from evalrun.cli.main import cli

ROWS = 24
"""Samples of a dataset, and no more of the datasets that the repository ships."""

LABELS = ["billing", "bug", "account", "other"]
TEAMS = ["billing", "delivery", "account"]


def row(at: int) -> dict[str, Any]:
    """A row with every column that an example names."""
    return {
        "ticket_id": f"T-{at}",
        "message": f"Ticket {at}: it does not work.",
        "text": f"He wrote ticket {at}.",
        "label": LABELS[at % 2],
        "team": TEAMS[at % 3],
        "dialect": ("aave", "standard")[at % 2],
        "gender": ("female", "male")[at // 2 % 2],
        "topic": ("mail", "web")[at // 4 % 2],
        "channel": ("mail", "web")[at % 2],
        "language": "en",
        "template": f"template {at // 2}",
        "question": f"What is {at} + 1?",
        "context": "A and B met.",
        "choices": ["yes", "no"],
        **{name: f"{name} of {at}" for name in ("ans0", "ans1", "ans2")},
        "grade": 1 + at % 5,
        "article": f"Article {at} says little.",
        "png": "aGVsbG8=",
        "name": f"Ana Souza {at}",
        "email": f"ana{at}@example.org",
        "age": 30 + at,
        "remark": "a friend of the house",
        "customer": f"K-{100 + at % 3}",
        "model_output": LABELS[at % 3 % 2],
        "answer": f"It is {at} + 1. #### {at + 1}",
        "target": LABELS[at % 2],
        "stereotype": "one",
        "anti": "two",
        "unrelated": "three",
        "sent_more": "Old people forget.",
        "sent_less": "Young people forget.",
        "function_tests": f"assert f({at}) == {at}",
    }


def bbq_row(at: int) -> dict[str, Any]:
    """A row as the authors of BBQ write them."""
    return {
        "example_id": at, "question_index": str(at // 4), "category": "Age", "label": 2,
        "question_polarity": ("neg", "nonneg")[at % 2], "context_condition": "ambig",
        "context": "They met.", "question": "Who was late?", "answer": "C",
        "ans0": "The boy", "ans1": "The old man", "ans2": "Not known",
        "answer_info": {"ans0": ["boy", "nonOld"], "ans1": ["man", "old"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"], "version": "a", "source": "made"},
    }  # fmt: skip


def answer(body: dict[str, Any]) -> str:
    """What the model in this world answers: one of the labels, always the same for a message."""
    return LABELS[zlib.crc32(body["messages"][-1]["content"].encode()) % 2]


def lines(rows: list[dict[str, Any]]) -> str:
    """JSONL."""
    return "".join(json.dumps(each) + "\n" for each in rows)


def write_checkpoint(folder: Path, step: int) -> None:
    """A checkpoint of a training, whole and of no use."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def write_files(root: Path) -> None:
    """The data, prompts and modules that examples name, beside suites in `root` and in `root/suites`."""
    rows = lines([row(at) for at in range(ROWS)])
    pairs = "sent_more,sent_less,bias_type\nOld people forget.,Young people forget.,age\n"
    paraphrases = lines([{"sample_id": f"T-{at}", "text": f"Ticket {at} is his."} for at in range(ROWS)])
    for folder in (root, root / "suites"):
        files = {
            "data/tickets.jsonl": rows,
            "data/examples.jsonl": lines([row(at) for at in range(100, 110)]),
            "data/bbq/Age.jsonl": lines([bbq_row(at) for at in range(8)]),
            "data/paraphrases.jsonl": paraphrases,
            "stereoset.jsonl": rows,
            "tickets.csv": "Ticket ID;Message text;category\n1;My parcel is late;delivery\n2;Money;billing\n",
            "path/to/test.jsonl": rows,
            "path/to/crows_pairs_anonymized.csv": pairs,
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        write_traffic(folder / "live.parquet")
        for step in (500, 1000):
            write_checkpoint(folder / "out" / f"checkpoint-{step}", step)
    (root / "docs").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "prompts", root / "prompts", dirs_exist_ok=True)
    (root / "prompts" / "triage").mkdir(exist_ok=True)
    (root / "prompts" / "triage" / "direct.j2").write_text("What is this about? {{ message }}\n")


def write_traffic(path: Path) -> None:
    """Rows as `traffic import` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = [
        {"request_id": f"r{at}", "messages": [{"role": "user", "content": f"Ticket {at}"}],
         "output": "billing",
         "text": f"Ticket {at}", "weight": 1.0 + at % 2, "stratum": "ab"[at % 2], "user_key": f"u{at // 2}"}
        for at in range(20)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(made), path)
    asked = datetime.now(UTC) - timedelta(hours=1)
    own = {"gen_ai.operation.name": "chat", "service": "triage", "arm": "a", "ts": asked.isoformat()}
    (path.parent / "otel").mkdir(exist_ok=True)
    (path.parent / "otel" / "traces.jsonl").write_text(lines([{**own, **row} for row in made]))


def write_modules(blocks: list[Block], folder: Path) -> None:
    """The Python examples that begin with the name of their file, as files; and their entry points."""
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").write_text("def change(text):\n    return text + '!'\n")
    for block in blocks:
        first = block.text.partition("\n")[0]
        if block.language == "python" and first.startswith("# ") and first.endswith(".py"):
            (folder / first[2:]).parent.mkdir(parents=True, exist_ok=True)
            (folder / first[2:]).write_text(block.text)
        if block.language == "toml" and "entry-points" in block.text:
            made = folder / "my_package-1.0.dist-info"
            made.mkdir(parents=True, exist_ok=True)
            (made / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
            points = block.text.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
            (made / "entry_points.txt").write_text(points)


class World:
    """A project: suites, their data, a model on loopback that answers them, and a store with sweeps.

    The suites are those of the repository and some that examples name; a model that would be fetched or asked
    elsewhere is replaced by the one on loopback.
    """

    def __init__(self, root: Path, server: ChatServer) -> None:
        self.root = root
        self.server = server
        server.answer = answer

    def make(self) -> None:
        """Write everything, and run the sweeps that examples speak of."""
        write_files(self.root)
        shutil.copytree(ROOT / "suites", self.root / "suites", dirs_exist_ok=True)
        for path in (self.root / "suites").glob("*.yaml"):
            self.serve(path)
        self._suite("suite.yaml", "support-triage")
        self._suite("suites/nightly.yaml", "nightly")
        (self.root / "feedback.csv").write_text(
            "sample_id,rating\n" + "".join(f"T-{at},{1 + at % 5}\n" for at in range(ROWS))
        )
        (self.root / "scorers.yaml").write_text("- exact_match\n- {includes: {ignore_case: true}}\n")
        for words in (
            ["suites/nightly.yaml"], ["suites/nightly.yaml", "--fresh"], ["suite.yaml"],
            ["baseline", "set", "main", "latest"], ["baseline", "set", "release-1", "latest"],
            ["suite.yaml", "--fresh"], ["tag", "latest", "team=nlp", "draft=yes"],
        ):  # fmt: skip
            report = [] if words[0] in ("baseline", "tag") else ["--no-report"]
            result = self.invoke(self.root, [*words, *report])
            assert result.exit_code == 0, result.output
        listed = json.loads(self.invoke(self.root, ["list", "--json"]).stdout)
        self.first = min(each["sweep"] for each in listed if each["project"] == "support-triage")

    def _suite(self, name: str, suite: str) -> None:
        document = {
            "name": suite,
            "models": [
                {"id": "smollm2", "provider": "llamacpp", "model": "small", "params": {"temperature": 0}}
            ],
            "prompts": [
                {"id": "direct", "text": "{{ message }}"},
                {"id": "few_shot", "text": "About what? {{ message }}"},
            ],
            "datasets": [
                {"id": "tickets", "path": "data/tickets.jsonl", "key": "ticket_id", "target": "label",
                 "sensitive": ["dialect"]}
            ],
            "scorers": ["exact_match", {"classification": {"labels": LABELS}}],
            "fairness": {"by": ["dialect"]},
            "performance": {"stream": True},
        }  # fmt: skip
        (self.root / name).write_text(yaml.safe_dump(document))
        self.serve(self.root / name)

    def serve(self, path: Path) -> None:
        """Let the model on loopback stand for those of a suite, and ask it no more than a few samples."""
        document = yaml.safe_load(path.read_text())
        for dataset in document.get("datasets", ()):
            dataset["limit"] = min(dataset.get("limit") or ROWS, ROWS)
        for model in document["models"]:
            kept = {key: model[key] for key in ("id", "params") if key in model}
            price = {"input_per_million_usd": 0.5, "output_per_million_usd": 1.5}
            model.clear()
            model.update(
                kept, provider="openai_compatible", base_url=self.server.base_url, model="m", price=price
            )
        path.write_text(yaml.safe_dump(document))

    def invoke(self, folder: Path, words: list[str]) -> Result:
        """What `evalrun WORDS` does in a folder."""
        before = Path.cwd()
        os.chdir(folder)
        try:
            return CliRunner().invoke(cli, words, input="y\n")
        finally:
            os.chdir(before)

    def follow(self, commands: list[Command], folder: Path, skip: tuple[str, ...]) -> None:
        """Run the commands of a block one after the other in a copy of this world."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        at = folder
        for command in commands:
            if command.words[0] == "cd":
                at = at / command.words[1]
                continue
            if command.text.startswith(skip):
                continue
            words = [
                word.replace("01K5", self.first).replace("PATH/", "path/to/") for word in command.words[1:]
            ]
            result = self.invoke(at, words)
            may_differ = words[0] in ("gate", "verify")
            assert result.exit_code in ((0, 1) if may_differ else (0,)), (
                command.text,
                result.exception,
                result.output,
            )
            if command.output and not command.output.startswith("~"):
                (at / command.output).write_text(result.stdout)
            if words[0] == "init":
                self.serve(at / words[1] / "suite.yaml")
