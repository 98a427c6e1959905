"""Small tasks of all output types, with their data, for comparisons with lm_eval itself."""

from __future__ import annotations

import json
from pathlib import Path

GENERATE = """
task: own_generate
dataset_path: json
dataset_kwargs: {data_files: {train: DIR/train.jsonl, test: DIR/test.jsonl}}
output_type: generate_until
training_split: train
test_split: test
fewshot_split: train
num_fewshot: 2
description: "Count well.\\n\\n"
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\nQ:"], max_gen_toks: 40}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: f1_of_all, aggregation: !function helpers.share_of_twos, higher_is_better: true}
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\\\d)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, regex_pattern: "(\\\\d)", group_select: -1}, {function: take_first}]
process_results: !function helpers.process
"""
CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {train: DIR/train.jsonl, test: DIR/test.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
fewshot_split: train
num_fewshot: 3
doc_to_text: "Question: {{question}} Answer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
"""
CHOICE_B = (
    CHOICE.replace("own_choice", "own_choice_b")
    .replace("num_fewshot: 3", "num_fewshot: 0")
    .replace("Question: ", "Which? ")
)
LIKELIHOOD = """
task: own_likelihood
dataset_path: json
dataset_kwargs: {data_files: {test: DIR/test.jsonl}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{question}} "
doc_to_target: "{{answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLING = """
task: own_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: DIR/test.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}} {{long}}"
process_docs: !function helpers.lengthen
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
GROUP = """
group: own_group
task: [own_choice, own_choice_b]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
  - {metric: acc_norm, aggregation: mean, weight_by_size: false}
metadata: {version: 1}
"""
HELPERS = """
def process(doc, results):
    right = float(results[0] == doc["answer"])
    return {"exact_match": right, "f1_of_all": (results[0], doc["answer"])}


def share_of_twos(items):
    return sum(answer == "2" for answer, _ in items) / len(items)


def lengthen(dataset):
    return dataset.map(lambda doc: {"long": " ".join([doc["question"]] * (200 if doc["n"] % 7 == 0 else 1))})
"""
NAMES = ("own_generate", "own_choice", "own_choice_b", "own_likelihood", "own_rolling")


def write_tasks(folder: Path, documents: int = 14) -> Path:
    """The tasks with their data in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 12), ("test", documents)):
        rows = []
        for at in range(count):
            shown = at - at % 3 if split == "test" and at > 9 else at  # some documents come twice
            rows.append(
                {
                    "n": shown,
                    "question": f"how many {split} apples are {shown} and {shown % 3} apples?",
                    "answer": str(shown % 5),
                    "choices": [f"apple {shown}", "pear", "a plum of many words", "a plum"],
                    "gold": shown % 3,
                    "subject": "even" if shown % 2 == 0 else "odd",
                }
            )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "helpers.py").write_text(HELPERS)
    for name, text in (
        ("generate", GENERATE), ("choice", CHOICE), ("choice_b", CHOICE_B), ("likelihood", LIKELIHOOD),
        ("rolling", ROLLING), ("group", GROUP),
    ):  # fmt: skip
        (folder / f"{name}.yaml").write_text(text.replace("DIR", str(folder)))
    return folder
