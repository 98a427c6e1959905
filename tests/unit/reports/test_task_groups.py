"""Groups of published tasks as lm_eval aggregates them, in a table for terminal and page."""

from __future__ import annotations

import pytest

from evalrun.reports.details import task_groups
from evalrun.sweep.tasks import _group_metric
from evalrun.sweep_results import TaskGroup
from evalrun.types import MetricValue

ACC = MetricValue("acc", 0.15, 80, "score", "higher", se=0.0379, ci_low=0.0757, ci_high=0.2243)


def test_a_row_for_each_figure_of_a_group() -> None:
    table = task_groups([TaskGroup("mmlu", "m", {"temperature": 0}, ("a", "b"), True, (ACC,))])
    assert table is not None
    (row,) = table.rows
    assert row[:3] == ("mmlu temperature=0", "m", "acc") and row[4:] == ("80", "2")
    assert row[3].startswith("0.15 [0.08, 0.22")
    assert task_groups([]) is None


def test_a_group_that_does_not_compare_says_so() -> None:
    table = task_groups([TaskGroup("mmlu", "m", exact=False, metrics=(ACC,))])
    assert table is not None and "not comparable" in table.rows[0][-1]


def test_lm_evals_standard_error_gives_the_interval() -> None:
    made = _group_metric("acc,none", {"acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 25}, True)
    assert (made["value"], made["se"], made["n"]) == (0.5, 0.1, 25)
    assert (made["ci_low"], made["ci_high"]) == pytest.approx((0.304, 0.696), abs=1e-3)
    none = _group_metric("ppl,none", {"ppl,none": 9.0, "ppl_stderr,none": "N/A"}, False)
    assert (none["se"], none["ci_low"], none["direction"]) == (None, None, "lower")
