"""What changed between two sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.program import evalrun
from tracking_samples import MakeSweep, run_of

from evalrun.tracking.diff import Change, diff_sweeps, word_diff
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store


@given(st.text(max_size=80), st.text(max_size=80))
@settings(deadline=None)
def test_a_word_diff_holds_both_texts(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert "".join(each.text for each in pieces if each.kind != "added") == before
    assert "".join(each.text for each in pieces if each.kind != "removed") == after


def test_words_are_told_apart() -> None:
    pieces = word_diff("Answer with one label.", "Answer in one label!")
    assert [(each.kind, each.text) for each in pieces] == [
        ("same", "Answer "), ("removed", "with"), ("added", "in"), ("same", " one label"),
        ("removed", "."), ("added", "!"),
    ]  # fmt: skip


def rows_of(folder: SweepFolder, tmp_path: Path, rows: dict[str, Any]) -> SweepFolder:
    journal = tmp_path / f"{folder.ulid}.jsonl"
    samples = [
        {"sample_id": key, "repeat": repeat, "position": at, "vars": {"text": text}, "target": "a",
         "status": "scored", "output": f"differs {folder.ulid}"}
        for at, (key, text) in enumerate(rows.items()) for repeat in (0, 1)
    ]  # fmt: skip
    journal.write_text("".join(json.dumps(each) + "\n" for each in samples))
    journal_to_parquet(journal, folder.samples_path("m-direct-d"))
    folder.finish_run("m-direct-d", run_of("m-direct-d"))
    return folder


@pytest.fixture
def pair(make_sweep: MakeSweep, tmp_path: Path) -> tuple[SweepFolder, SweepFolder]:
    def suite(temperature: float, *order: str) -> dict[str, Any]:
        models = [{"id": each, "params": {"temperature": temperature}} for each in order]
        return {
            "digest": "x",
            "resolved": {"seed": 7, "models": models, "prompts": [{"id": "p", "text": "a"}]},
        }

    def provenance(version: str, cores: int) -> dict[str, Any]:
        packages = [{"name": "numpy", "version": version}, {"name": "aiohttp", "version": "3"}]
        return {
            "packages": packages,
            "machine": {"cores": cores, "cpu": "x"},
            "git": {"commit": version * 40},
        }

    a = make_sweep(
        suite=suite(0, "m", "n"), provenance=provenance("1", 2),
        datasets={"d": {"digest": "1", "n": 3}, "same": {"digest": "s"}, "old": {"digest": "o"}},
        prompts={"direct": {"digest": "1", "source": {"user": "Say {{ text }} now"}}},
    )  # fmt: skip
    b = make_sweep(
        suite=suite(0.7, "n", "m"), provenance=provenance("2", 4),
        datasets={"d": {"digest": "2", "n": 3}, "same": {"digest": "s"}},
        prompts={"direct": {"digest": "2", "source": {"user": "Say {{ text }} \x1b[31mlater"}}},
    )  # fmt: skip
    rows_of(a, tmp_path, {"s1": "one", "s2": "two", "s3": "three"})
    rows_of(b, tmp_path, {"s1": "one", "s2": "TWO", "s4": "four"})
    return a, b


def test_says_what_changed_and_nothing_else(pair: tuple[SweepFolder, SweepFolder]) -> None:
    found = diff_sweeps(*pair)
    assert found.suite == (
        Change("models.m.params.temperature", 0, 0.7), Change("models.n.params.temperature", 0, 0.7),
    )  # fmt: skip
    assert found.packages == (Change("numpy", "1", "2"),)
    assert found.machine == (Change("machine.cores", 2, 4),)
    assert found.code == (Change("git.commit", "1" * 40, "2" * 40),)
    (prompt,) = found.prompts
    assert (prompt.prompt, prompt.text) == ("direct", "user")
    data = {each.dataset: each for each in found.data}
    assert data["same"].same and data["old"].note == "only in the first"
    rows = data["d"]
    assert (rows.added_ids, rows.removed_ids, rows.changed) == (("s4",), ("s3",), 1)
    assert rows.changes[0].sample_id == "s2"
    assert rows.changes[0].columns == {"vars.text": ("two", "TWO")}


def test_a_sweep_is_the_same_as_itself(pair: tuple[SweepFolder, SweepFolder]) -> None:
    assert diff_sweeps(pair[0], pair[0]).same


def test_the_command(store: Store, pair: tuple[SweepFolder, SweepFolder]) -> None:
    command = ["diff", pair[0].ulid, "latest", "--store", store.root]
    plain = evalrun(*command).stdout
    assert "[-now-]" in plain and "+ s4" in plain and "- s3" in plain and "two -> TWO" in plain
    assert "\x1b" not in plain
    answer = json.loads(evalrun(*command, "--json").stdout)
    assert answer["same"] is False and answer["data"][0]["added"] == 1
