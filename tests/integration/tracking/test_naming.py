"""Short names: what lists and tables show of sweeps and runs is taken back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking_samples import MakeSweep

from evalrun.errors import UserError
from evalrun.tracking import changes
from evalrun.tracking.naming import NUMBERS, fitting, read_numbers
from evalrun.tracking.store import Store

RUNS = {
    "m-direct-d": ["m", "direct", "d", "temperature=0"],
    "m-rules-d": ["m", "rules", "d", "temperature=0"],
    "m-rules-d-0.7": ["m", "rules", "d", "temperature=0.7"],
    "m-rules_v2-e": ["m", "rules_v2", "e", "temperature=0"],
}


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("m-rules-d", ["m-rules-d"]),
        ("m-d", ["m-direct-d"]),
        ("direct", ["m-direct-d"]),
        ("DIRECT", ["m-direct-d"]),
        ("rules", ["m-rules-d", "m-rules-d-0.7"]),
        ("rules/temperature=0.7", ["m-rules-d-0.7"]),
        ("rules · temperature=0.7", ["m-rules-d-0.7"]),
        ("d/rules/temperature=0", ["m-rules-d"]),
        ("e", ["m-rules_v2-e"]),
        ("v2", ["m-rules_v2-e"]),
        ("0.7", ["m-rules-d-0.7"]),
        ("m-ru…-0.7", ["m-rules-d-0.7"]),
        ("rules · temp…=0.7", ["m-rules-d-0.7"]),
        ("", []),
        ("/", []),
        ("nothing", []),
    ],
)
def test_a_run_is_known_by_any_part_of_what_it_is_called(name: str, fits: list[str]) -> None:
    assert fitting(name, RUNS) == fits


names = st.text("abc_-=0.", min_size=1, max_size=6)


@given(st.dictionaries(names, st.lists(names, min_size=1, max_size=3), min_size=1, max_size=5))
def test_an_id_and_the_whole_label_always_fit_their_run(runs: dict[str, list[str]]) -> None:
    for run_id, said in runs.items():
        assert fitting(run_id, runs) == [run_id]
        whole = " · ".join(said)
        if not any(each.startswith(whole) for each in runs):
            assert run_id in fitting(whole, runs)


def test_previous_and_the_one_before_are_of_the_same_project(store: Store, make_sweep: MakeSweep) -> None:
    first = make_sweep(name="a", project="one")
    make_sweep(name="b", project="other")
    second = make_sweep(name="a", project="one")
    assert store.resolve("previous").path == first.path
    assert store.resolve("latest~1").path == first.path
    assert store.resolve("latest~0").path == second.path
    assert store.resolve("2").path != second.path and store.resolve("3~1").path == first.path
    with pytest.raises(UserError, match="there is no sweep 2 before"):
        store.resolve("latest~2")


def test_numbers_stay_with_their_sweeps(store: Store, make_sweep: MakeSweep, tmp_path: Path) -> None:
    first, second, third = (make_sweep(name=name) for name in "abc")
    assert store.resolve("#2").path == second.path and store.resolve("2").path == second.path
    changes.delete(store, second, "gone")
    assert store.resolve("3").path == third.path
    with pytest.raises(UserError, match="sweep 2 was deleted"):
        store.resolve("#2")
    # One that is older, copied in from elsewhere, comes after those that are there.
    early = store.sweeps / f"{'0' * 26}-early"
    shutil.copytree(first.path, early)
    assert read_numbers(store, [each.ulid for each in store.folders()])["0" * 26] == 4
    assert store.resolve("1").path == first.path


def test_numbers_of_a_store_that_cannot_be_written_hold_for_once(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    (store.root / NUMBERS).mkdir()  # whatever cannot be opened for writing
    assert read_numbers(store, [folder.ulid]) == {folder.ulid: 1}
    assert store.resolve("1").path == folder.path


def test_the_end_of_an_id_is_enough(store: Store, make_sweep: MakeSweep) -> None:
    folder, other = make_sweep(), make_sweep()
    assert store.resolve(folder.ulid[-6:].lower()).path == folder.path
    assert store.resolve(other.ulid[-6:]).path == other.path
    assert store.resolve(f"{other.ulid[:5]}…{other.ulid[-5:]}").path == other.path


def test_names_go_before_short_names(store: Store, make_sweep: MakeSweep) -> None:
    named, _ = make_sweep(name="previous"), make_sweep(name="a")
    numbered = make_sweep(name="1")
    assert store.resolve("previous").path == named.path
    assert store.resolve("1").path == numbered.path and store.resolve("#1").path == named.path
