"""No row held out stands in a prompt that is chosen: neither as an example nor word for word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.recorded import recorded_suite

from evalrun.datasets import open_dataset
from evalrun.errors import UserError
from evalrun.search.leaks import HeldOut, check_prompts
from evalrun.search.space import Space, space_of
from evalrun.suite.load import load_suite
from evalrun.sweep.prepare import PreparedSweep, prepare

ROWS = [
    {
        "id": f"r{at}",
        "text": f"My parcel number {at} did not arrive.",
        "want": ["late", "lost", "still on its way"][at % 3],
        "m": "late",
    }
    for at in range(400)
]


def space(folder: Path, prompt: Mapping[str, Any], rows: list[dict[str, Any]] = ROWS) -> Space:
    """A search of two prompts over parcels."""
    said = {} if "messages" in prompt else {"text": "{{ text }}"}
    texts = [{"id": "plain", "text": "Sort: {{ text }}"}, {"id": "p", **said, **prompt}]
    search = {"metric": "exact_match", "baseline": "plain"}
    return space_of(load_suite(recorded_suite(folder, rows, ["m"], prompts=texts, search=search)))


def parts(made: Space) -> dict[str, set[str]]:
    """The ids of the rows of both parts."""
    base = made.baseline
    suites = {"search": made.searched(0), "held_out": made.held_out(0, base)}
    return {
        name: {item.sample_id for item in open_dataset(each.suite.datasets[0], each.base_dir, 0)}
        for name, each in suites.items()
    }


def prepared(made: Space, tmp: Path) -> PreparedSweep:
    return prepare(made.searched(0), tmp / "work")


def held_out_rows(folder: Path) -> list[dict[str, Any]]:
    ids = parts(space(folder, {}))["held_out"]
    return [row for row in ROWS if row["id"] in ids]


WAYS: list[dict[str, Any]] = [{"count": 3}, {"count": 3, "same": True}, {"first": 3}, {"ids": ["x0", "x1"]}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alike", [False, True])
def test_an_example_that_is_held_out_is_refused(tmp_path: Path, way: dict[str, Any], alike: bool) -> None:
    # Under other ids, and, with `alike`, written a little differently.
    rows = [{**row, "id": f"x{at}"} for at, row in enumerate(held_out_rows(tmp_path))]
    if alike:
        rows = [{**row, "text": row["text"].upper().rstrip(".")} for row in rows]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = space(tmp_path, {"few_shot": {"path": "shots.jsonl", **way}})
    with pytest.raises(UserError, match="shows rows that are held out as examples"):
        prepared(made, tmp_path)


def test_examples_drawn_from_the_rows_themselves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shows rows that are held out as examples"):
        prepared(space(tmp_path, {"few_shot": {"path": "rows.jsonl", "count": 2}}), tmp_path)


def test_examples_of_rows_that_choose_are_allowed_and_the_same_in_both_parts(tmp_path: Path) -> None:
    ids = parts(space(tmp_path, {}))["search"]
    rows = [row for row in ROWS if row["id"] in ids][:6]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = space(tmp_path, {"few_shot": {"path": "shots.jsonl", "first": 5}})
    race = prepared(made, tmp_path)
    last = prepare(made.held_out(0, made.candidates[1]), tmp_path / "work")
    assert [len(each.renderer(each.specs[-1]).pool or ()) for each in (race, last)] == [6, 6]
    assert race.examples == last.examples


def test_leave_out_leaves_out_the_rows_of_both_parts(tmp_path: Path) -> None:
    other = [{"id": f"o{at}", "text": f"Something else, {at}.", "want": "late"} for at in range(5)]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, [*ROWS[:60], *other])))
    few_shot = {"path": "shots.jsonl", "count": 3, "contamination": "leave_out"}
    made = space(tmp_path, {"few_shot": few_shot})
    for suite in (made.searched(0), made.held_out(0, made.candidates[1])):
        ready = prepare(suite, tmp_path / "work")
        pool = ready.renderer(ready.specs[-1]).pool
        assert pool is not None and {item.sample_id for item in pool.examples} == {
            f"o{at}" for at in range(5)
        }


def test_a_prompt_that_quotes_a_row_held_out_is_refused(tmp_path: Path) -> None:
    row = held_out_rows(tmp_path)[7]
    quoting = f"Such as: my PARCEL  number {row['text'].split()[3]} did not arrive -> late. {{{{ text }}}}"
    for prompt in (
        {"text": quoting},
        {"messages": [{"role": "user", "content": quoting}]},
        {"system": quoting, "text": "{{ text }}"},
    ):
        made = space(tmp_path, prompt)
        with pytest.raises(UserError, match=f"prompt p quotes the row '{row['id']}'"):
            check_prompts(made, 0)
    check_prompts(space(tmp_path, {"text": f"{ROWS[0]['text'][:12]} late, lost, still on its way"}), 0)


def test_what_rows_that_choose_say_too_is_no_leak(tmp_path: Path) -> None:
    rows = [{**row, "passage": f"The passage {at // 40} is long."} for at, row in enumerate(ROWS)]
    made = space(tmp_path, {}, rows)
    held_out = HeldOut(made.searched(0).suite.datasets[0], tmp_path, 0)
    ids = parts(made)
    one = next(row for row in rows if row["id"] in ids["held_out"])
    assert held_out.quoted(f"({one['text']})") == one["id"]
    chosen_by = next(row for row in rows if row["id"] in ids["search"])
    for said in (chosen_by["text"], str(one["passage"]), "still on its way", one["text"][:-12], ""):
        assert held_out.quoted(f"Answer late, lost or {said}.") is None
    # The number 1 is no part of the number 15.
    longer = next(row for row in rows if row["id"] in ids["held_out"] and len(row["id"]) > 3)
    assert held_out.quoted(longer["text"].replace(longer["id"][1:], longer["id"][1:] + "7")) is None
