"""Every reader of files that others wrote, on damaged and hostile ones: it reads, or raises a UserError.

`EVALRUN_FUZZ=20000 pytest tests/fuzz` goes on for longer, with other inputs each time.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bounds import FUZZ
from hypothesis import given
from hypothesis import strategies as st
from mutations import as_json, as_lines, mutated

from evalrun.errors import UserError


@dataclass(frozen=True)
class Reader:
    """A seed, how it is written, the name of its file, and what reads it."""

    seed: Any
    file: str
    read: Callable[[Path], Any]
    text: Callable[[Any], bytes] = as_json


SUITE = {
    "name": "s", "seed": 1, "repeats": 1,
    "models": [{"id": "m", "provider": "recorded", "column": "o"},
               {"id": "s", "provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "model": "x",
                "params": {"temperature": 0, "max_tokens": 5}}],
    "prompts": [{"id": "p", "text": "{{ q }}"}, {"id": "n", "messages": [{"role": "user", "content": "{{ q }}"}]}],
    "datasets": [{"id": "d", "rows": [{"q": "a", "t": "b", "o": "c", "g": "x"}], "target": "{{ t }}", "sensitive": ["g"]}],
    "parse": [{"regex": "(a)"}, "first_line"], "scorers": ["exact_match", {"includes": {"ignore_case": True}}],
    "fairness": {"by": ["g"]}, "gates": ["exact_match >= 0.5"], "performance": {"warmup": 0},
    "sweep": {"temperature": [0, 1]},
}  # fmt: skip
PROMPTFOO = {
    "description": "d", "prompts": ["Say {{q}}", {"raw": "x {{q}}", "label": "l"}],
    "providers": ["openai:gpt-4o", {"id": "anthropic:messages:c", "config": {"temperature": 0}}],
    "defaultTest": {"assert": [{"type": "contains", "value": "a"}], "vars": {"q": "1"}},
    "tests": [{"vars": {"q": ["a", "b"]}, "assert": [{"type": "equals", "value": "x", "weight": 2},
              {"type": "javascript", "value": "output.length < 3"}, {"type": "similar", "threshold": 0.5}]}],
}  # fmt: skip
LM_EVAL = {
    "results": {"own": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.1, "alias": "own"}},
    "model_name": "m", "config": {"model": "hf"}, "higher_is_better": {"own": {"exact_match": True}},
}  # fmt: skip
JOURNAL = [
    {"sample_id": f"a{at}", "repeat": 0, "position": at, "vars": {"q": "x", "n": 1}, "target": "t", "status": "scored",
     "messages": [{"role": "user", "content": "q"}], "output": "o", "answer": "o", "prompt_tokens": 1, "e2e_s": 0.5,
     "attempts": 1, "attempt_log": [], "cached": False, "scores": {"exact_match": 1.0}, "reasons": {}, "sensitive": {"g": "x"}}
    for at in range(2)
]  # fmt: skip
LM_ROWS = [
    {"doc_id": at, "doc": {"q": "x"}, "target": "1", "arguments": {"gen_args_0": {"arg_0": "p"}},
     "resps": [["o"]], "filtered_resps": ["o"], "filter": "none", "metrics": ["exact_match"], "exact_match": 1.0,
     "doc_hash": "h"}
    for at in range(2)
]  # fmt: skip
INSPECT = {
    "version": 2, "status": "success", "eval": {"task": "t", "model": "m", "created": "2026-01-01", "dataset": {"name": "d"}},
    "results": {"scores": [{"name": "match", "scorer": "match", "metrics": {"accuracy": {"name": "accuracy", "value": 1.0}}}]},
    "samples": [{"id": 1, "epoch": 1, "input": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
                 "target": ["a"], "output": {"model": "m", "choices": [{"message": {"role": "assistant", "content": "a"}}],
                 "usage": {"input_tokens": 1, "output_tokens": 1}, "time": 0.5},
                 "scores": {"match": {"value": "C", "answer": "a", "explanation": "e"}}, "metadata": {"k": 1}}],
}  # fmt: skip
PROMPTFOO_RESULTS = {
    "results": {"version": 3, "results": [
        {"promptIdx": 0, "testIdx": 0, "provider": {"id": "p"}, "prompt": {"raw": "hi", "label": "l"}, "vars": {"q": 1},
         "response": {"output": "a", "tokenUsage": {"prompt": 1, "completion": 2}}, "success": True, "score": 1,
         "namedScores": {"T": 0.5}, "latencyMs": 20, "cost": 0.1, "gradingResult": {"reason": "r"}}]},
}  # fmt: skip
OPENAI_EVALS = [
    {"spec": {"completion_fns": ["m"], "eval_name": "e"}},
    {
        "sample_id": "a",
        "type": "sampling",
        "data": {"prompt": [{"role": "user", "content": "q"}], "sampled": ["x"]},
    },
    {"sample_id": "a", "type": "match", "data": {"correct": True, "expected": "x", "sampled": "x"}},
    {"sample_id": "a", "type": "metrics", "data": {"f1": 0.5}},
    {"final_report": {"accuracy": 1.0}},
]
REGISTRY = {"e": {"class": "evals.elsuite.basic.match:Match", "args": {"samples_jsonl": "rows.jsonl"}}}
TRAINER = {
    "global_step": 2, "max_steps": 2, "epoch": 1.0, "log_history": [{"step": 1, "loss": 2.0, "learning_rate": 0.1},
    {"step": 2, "eval_loss": 1.0}], "train_batch_size": 8, "best_metric": None,
}  # fmt: skip
TRACE = {
    "resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]}, "scopeSpans": [
        {"spans": [{"traceId": "00" * 16, "spanId": "00" * 8, "name": "chat", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
                    "attributes": [{"key": "gen_ai.request.model", "value": {"stringValue": "m"}},
                                   {"key": "gen_ai.prompt.0.content", "value": {"stringValue": "q"}}], "status": {}}]}]}],
}  # fmt: skip
PUSH = [
    {"path": "sweep.json", "bytes": 1, "sha256": "0" * 64},
    {"path": "events.jsonl", "bytes": 1, "sha256": "0" * 64},
]
DSSE = {
    "payload": "e30=",
    "payloadType": "application/vnd.in-toto+json",
    "signatures": [{"keyid": "k", "sig": "AA=="}],
}
ROWS = [{"id": "a", "q": "x", "n": 1, "t": {"u": [1]}}, {"id": "b", "q": "y", "n": 2.5, "t": None}]
SIGNERS = 'ana@example.org valid-before="20300101" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBERERERERERERERERERERERERERERERERERERERERER\n'


def _suite(path: Path) -> None:
    from evalrun.suite.load import load_suite

    load_suite(path)


def _promptfoo(path: Path) -> None:
    from evalrun.tasks.promptfoo.main import convert, written

    written(convert(path), path.with_name("to.yaml"))


def _registry(path: Path) -> None:
    from evalrun.tasks.openai_evals import convert, written

    path.with_name("rows.jsonl").write_text('{"input": "q", "ideal": "a"}\n')
    written(convert(path), path.with_name("to.yaml"))


def _rows_of_registry(path: Path) -> None:
    path.rename(path.with_name("rows.jsonl"))
    registry = path.with_name("e.yaml")
    registry.write_bytes(as_json(REGISTRY))
    from evalrun.tasks.openai_evals import convert

    convert(registry)


def _results(kind: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from evalrun.sweep.imported import write_sweep
        from evalrun.tasks.logs.main import read_results
        from evalrun.tracking.store import Store

        write_sweep(Store(path.with_name("store")), read_results(kind, path))

    return read


def _lm_eval(other: str, text: bytes) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        path.with_name(other).write_bytes(text)
        _results("lm-eval")(path.parent)

    return read


def _zipped(seed: Any) -> bytes:
    buffer = io.BytesIO()
    document = seed if isinstance(seed, dict) else {}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", as_json({k: v for k, v in document.items() if k != "samples"}))
        samples = document.get("samples")
        for at, sample in enumerate(samples if isinstance(samples, list) else []):
            archive.writestr(f"samples/{at}_epoch_1.json", as_json(sample))
    return buffer.getvalue()


def _dataset(path: Path) -> None:
    from evalrun.datasets.dataset import open_dataset
    from evalrun.suite.dataset import DatasetSpec

    dataset = open_dataset(DatasetSpec(id="d", path=path.name, key="id"), path.parent, 1)
    list(dataset)


def _csv(rows: Any) -> bytes:
    import csv

    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return as_json(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "q", "n", "t"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _parquet(_: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"id": ["a", "b"], "sample_id": ["a", "b"], "repeat": [0, 0], "n": [1, 2]}), buffer
    )
    return buffer.getvalue()


def _samples(path: Path) -> None:
    from evalrun.tracking import parquet

    if parquet.damage(path) is None:
        list(parquet.iter_samples(path))


def _journal(path: Path) -> None:
    from evalrun.runner.journal import read_journal, repair_journal
    from evalrun.tracking.parquet import journal_to_parquet

    list(read_journal(path, []))
    repair_journal(path)
    journal_to_parquet(path, path.with_name("samples.parquet"))


def _training(path: Path) -> None:
    from evalrun.tracking.store import Store
    from evalrun.training.importing import ImportOptions, import_training

    import_training(Store(path.with_name("store")), ImportOptions(str(path)))


def _traffic(path: Path) -> None:
    from evalrun.traffic.calls import Tally
    from evalrun.traffic.files import read_calls

    list(read_calls([path], "", {}, Tally()))


def _push(path: Path) -> None:
    from evalrun.evidence.dsse import read_json
    from evalrun.server.transfer import read_files

    read_files(read_json(path), 1 << 30, 100)


def _attestation(path: Path) -> None:
    from evalrun.evidence.attest import check

    signers = path.with_name("signers")
    signers.write_text(SIGNERS)
    check(path, signers)


def _signers(path: Path) -> None:
    from evalrun.evidence.dsse import signers_in

    signers_in(path)


def _answers(path: Path) -> None:
    from evalrun.evidence.card import questions, read_answers

    read_answers(path).check(questions(), frozenset({"ll144"}))


READERS = {
    "suite": Reader(SUITE, "suite.yaml", _suite),
    "promptfoo configuration": Reader(PROMPTFOO, "promptfooconfig.yaml", _promptfoo),
    "promptfoo results": Reader(PROMPTFOO_RESULTS, "r.json", _results("promptfoo-results")),
    "lm-eval results": Reader(LM_EVAL, "results_T.json", _lm_eval("samples_own_T.jsonl", as_lines(LM_ROWS))),
    "lm-eval samples": Reader(
        LM_ROWS, "samples_own_T.jsonl", _lm_eval("results_T.json", as_json(LM_EVAL)), as_lines
    ),
    "inspect log": Reader(INSPECT, "log.json", _results("inspect")),
    "inspect archive": Reader(INSPECT, "log.eval", _results("inspect"), _zipped),
    "openai-evals log": Reader(OPENAI_EVALS, "log.jsonl", _results("openai-evals"), as_lines),
    "openai-evals registry": Reader(REGISTRY, "e.yaml", _registry),
    "openai-evals rows": Reader([{"input": "q", "ideal": "a"}], "in.jsonl", _rows_of_registry, as_lines),
    "rows as JSON lines": Reader(ROWS, "rows.jsonl", _dataset, as_lines),
    "rows as JSON": Reader(ROWS, "rows.json", _dataset),
    "rows as CSV": Reader(ROWS, "rows.csv", _dataset, _csv),
    "rows as Parquet": Reader([], "rows.parquet", _dataset, _parquet),
    "journal": Reader(JOURNAL, "journal.jsonl", _journal, as_lines),
    "samples": Reader([], "samples.parquet", _samples, _parquet),
    "trainer state": Reader(TRAINER, "trainer_state.json", _training),
    "training table": Reader(
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}], "log.jsonl", _training, as_lines
    ),
    "traces": Reader([TRACE], "traces.jsonl", _traffic, as_lines),
    "traffic": Reader(
        [{"messages": [{"role": "user", "content": "q"}], "output": "a"}], "t.jsonl", _traffic, as_lines
    ),
    "push": Reader(PUSH, "plan.json", _push),
    "attestation": Reader(DSSE, "a.json", _attestation),
    "allowed signers": Reader(
        SIGNERS, "signers", _signers, lambda text: str(text).encode("utf-8", "replace")
    ),
    "card answers": Reader(
        {"purpose": "x", "language": ["en"], "ll144": {"sex": "s"}}, "card.yaml", _answers
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    reader_holds(reader, tmp_path, mutated(reader.seed, reader.text))


def test_the_seeds_themselves_are_read(tmp_path: Path) -> None:
    """Else nothing behind the first check would be reached."""
    refused = {"push": 0, "attestation": 0}
    for name, reader in READERS.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        (folder / reader.file).write_bytes(reader.text(reader.seed))
        try:
            reader.read(folder / reader.file)
        except UserError as error:
            assert name in refused, (name, str(error))


def reader_holds(reader: Reader, folder: Path, inputs: st.SearchStrategy[bytes]) -> None:
    at = [0]

    @FUZZ
    @given(inputs)
    def holds(data: bytes) -> None:
        at[0] += 1
        place = folder / str(at[0])
        place.mkdir()
        (place / reader.file).write_bytes(data)
        try:
            reader.read(place / reader.file)
        except UserError as error:
            assert str(error).strip()
        finally:
            shutil.rmtree(place)

    holds()
