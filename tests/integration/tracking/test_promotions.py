"""Promotions and deployments: refused where a gate failed, recorded where overridden, never forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from tests.nights import RUN, night

from evalrun.errors import ExitCode, UserError
from evalrun.tracking import changes
from evalrun.tracking.changes import Wish, deployed, promote, whatis
from evalrun.tracking.store import Store
from evalrun.tracking.targets import find_run_target, find_target

CATALOGS = ("sqlite", "postgresql")

FAILED: dict[str, Any] = {
    "gates": [{"gate": "exact_match >= 0.9", "run": RUN, "verdict": "fail", "value": 0.5, "reason": ""}]
}


def test_the_last_promotion_counts_and_the_others_are_its_history(store: Store) -> None:
    first, second = night(store, [1, 0]), night(store, [1, 1])
    promote(store, find_run_target(store, first.ulid), Wish("production", "the first"))
    promote(store, find_run_target(store, "latest"), Wish("production", "better"))
    deployed(store, find_run_target(store, RUN), "prod", "https://me:pw@x.example/v1?token=abcdefghijkl1234")
    now, before = whatis(store, "production")
    assert (now.sweep, now.run, now.reason, before.reason) == (second.ulid, RUN, "better", "the first")
    assert now.metrics[0]["name"] == "exact_match" and now.metrics[0]["value"] == 1.0
    (place,) = whatis(store, "prod")
    assert place.kind == "deploy" and "pw" not in place.url and "abcdefghijkl1234" not in place.url

    store.reindex()
    assert [each.reason for each in whatis(store, "production")] == ["better", "the first"]


def test_a_failed_gate_refuses_unless_overridden_which_is_recorded(store: Store) -> None:
    night(store, [1, 0], **FAILED)
    target = find_run_target(store, "latest")
    with pytest.raises(UserError, match=r"gate fail: exact_match >= 0\.9") as refused:
        promote(store, target, Wish("production", "why not"))
    assert refused.value.exit_code == ExitCode.GATE_FAILED
    with pytest.raises(UserError, match="nothing was promoted"):
        whatis(store, "production")
    promote(store, target, Wish("production", "a hot fix", override=True))
    (now,) = whatis(store, "production")
    assert now.overridden == ("gate fail: exact_match >= 0.9",)
    assert target.folder.last_event()["detail"]["overridden"] == ["gate fail: exact_match >= 0.9"]  # type: ignore[index]


def test_an_undecided_gate_refuses_only_where_the_sweep_said_so(store: Store) -> None:
    gates = [{**FAILED["gates"][0], "verdict": "inconclusive"}]
    night(store, [1, 0], gates=gates, inconclusive="fail")
    with pytest.raises(UserError, match="gate inconclusive"):
        promote(store, find_run_target(store, "latest"), Wish("production", "x"))
    night(store, [1, 0], gates=gates, inconclusive="warn")
    promote(store, find_run_target(store, "latest"), Wish("production", "x"))


def test_an_unfinished_or_altered_sweep_is_refused(store: Store) -> None:
    folder = night(store, [1, 0])
    with (folder.path / "runs" / RUN / "samples.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="altered after the run had finished"):
        promote(store, find_run_target(store, "latest"), Wish("production", "x"))
    other = night(store, [1, 1])
    other.update_manifest(status="incomplete")
    with pytest.raises(UserError, match="incomplete, not complete"):
        promote(store, find_run_target(store, "latest"), Wish("production", "x"))
    with pytest.raises(UserError, match="needs a reason"):
        promote(store, find_run_target(store, "latest"), Wish("production", " "))


def test_what_stands_in_production_cannot_be_deleted_and_what_stood_is_kept(store: Store) -> None:
    first = night(store, [1, 0])
    promote(store, find_run_target(store, "latest"), Wish("production", "the first"))
    with pytest.raises(UserError, match="stands for 'production'"):
        changes.delete(store, first)
    night(store, [1, 1])
    promote(store, find_run_target(store, "latest"), Wish("production", "better"))
    changes.delete(store, first)
    store.reindex()
    found = whatis(store, "production")
    assert [(each.reason, each.present) for each in found] == [("better", True), ("the first", False)]


def test_one_name_in_two_projects_must_be_told_apart(store: Store) -> None:
    for project in ("a", "b"):
        night(store, [1, 0], project=project)
        promote(store, find_run_target(store, "latest"), Wish("production", project))
    with pytest.raises(UserError, match="2 projects"):
        whatis(store, "production")
    assert whatis(store, "production", "a")[0].reason == "a"
    with pytest.raises(UserError, match="Did you mean 'production'"):
        whatis(store, "prodution")


def test_a_target_is_a_sweep_a_run_or_a_sample(store: Store) -> None:
    folder = night(store, [1, 0])
    assert find_target(store, "latest").name == ""
    assert find_target(store, f"{folder.ulid}/m-").name == RUN
    assert find_target(store, f"latest/{RUN}/s00001").name == f"{RUN}/s00001"
    assert find_target(store, f"{folder.path}/{RUN}").run == RUN
    with pytest.raises(UserError, match="several samples"):
        find_target(store, f"latest/{RUN}/s0")
    with pytest.raises(UserError, match="no sample 'zzz'"):
        find_target(store, f"latest/{RUN}/zzz")
    with pytest.raises(UserError, match="no sweep 'nothing'"):
        find_target(store, f"nothing/{RUN}")


def test_notes_stand_on_sweeps_runs_and_samples_and_names_change(store: Store) -> None:
    folder = night(store, [1, 0])
    for target, text in (("", "whole"), (RUN, "run"), (f"{RUN}/s00001", "sample")):
        changes.note(store, folder, text, target)
    changes.rename(store, folder, "the good one")
    store.reindex()
    said = changes.said(folder)
    assert [(each.target, each.text) for each in said.notes] == [
        ("", "whole"), (RUN, "run"), (f"{RUN}/s00001", "sample"),
    ]  # fmt: skip
    (row,) = store.list()
    assert (row.name, row.note) == ("the good one", "whole")
    assert store.resolve("the good one").ulid == folder.ulid
    assert folder.manifest().name == "night"
    for odd in ("", "a/b", "x" * 101, "a\nb"):
        with pytest.raises(UserError, match="cannot name a sweep"):
            changes.rename(store, folder, odd)
