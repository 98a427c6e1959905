"""The columnar table: the same from records and from Parquet, whatever the order of the rows."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tables import sample_table

from evalrun.analysis.samples import NUMBERS, SampleTable
from evalrun.types import Counts, SampleRecord, Status


def records(n: int = 60) -> list[SampleRecord]:
    chooser = random.Random(7)
    statuses = [Status.SCORED] * 6 + [Status.UNPARSED, Status.REFUSED, Status.FAILED]
    rows = []
    for position in range(n):
        for repeat in range(2):
            status = chooser.choice(statuses)
            failed = status is Status.FAILED
            rows.append(
                SampleRecord(
                    sample_id=f"id-{position:03d}",
                    repeat=repeat,
                    position=position,
                    vars={},
                    target=chooser.choice(["bug", "other"]),
                    status=status,
                    answer=chooser.choice(["bug", "other"]) if status is Status.SCORED else None,
                    e2e_s=None if failed else chooser.random(),
                    completion_tokens=None if failed else chooser.randint(1, 50),
                    attempts=chooser.randint(1, 3),
                    cached=chooser.random() < 0.1,
                    warmup=position == 0,
                    scores={} if failed else {"exact_match": float(chooser.random() < 0.5)},
                    sensitive={"dialect": chooser.choice(["aave", "sae", None])},
                    cluster=f"t{position % 7}" if position % 5 else None,
                )
            )
    return rows


def write(rows: list[SampleRecord], path: Path, row_group: int = 16) -> Path:
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([row.sample_id for row in rows]),
        "repeat": pa.array([row.repeat for row in rows]),
        "output": pa.array(["long text" * 50 for _ in rows]),
        "answer": pa.array([row.answer for row in rows], pa.string()),
        "target": pa.array([row.target for row in rows], pa.string()),
        "status": pa.array([row.status.value for row in rows]),
        "attempts": pa.array([row.attempts for row in rows]),
        "cached": pa.array([row.cached for row in rows]),
        "warmup": pa.array([row.warmup for row in rows]),
        "score.exact_match": pa.array([row.scores.get("exact_match") for row in rows], pa.float64()),
        "sensitive.dialect": pa.array([row.sensitive["dialect"] for row in rows], pa.string()),
        "cluster": pa.array([row.cluster for row in rows], pa.string()),
        **{name: pa.array([getattr(row, name) for row in rows]) for name in NUMBERS},
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def assert_same(first: SampleTable, second: SampleTable) -> None:
    for name in ("ids", "status", "cached", "warmup", "attempts", "clusters"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for name in NUMBERS:
        np.testing.assert_array_equal(first.number(name), second.number(name), err_msg=name)
    np.testing.assert_array_equal(first.scores["exact_match"], second.scores["exact_match"])
    assert first.sensitive["dialect"].labels == second.sensitive["dialect"].labels
    np.testing.assert_array_equal(first.sensitive["dialect"].codes, second.sensitive["dialect"].codes)
    for one, other in zip(first.texts(), second.texts(), strict=True):
        assert one.labels == other.labels
        np.testing.assert_array_equal(one.codes, other.codes)


def test_parquet_and_records_give_the_same_table(tmp_path: Path) -> None:
    rows = records()
    table = SampleTable.from_parquet(write(rows, tmp_path / "samples.parquet"))
    assert_same(table, sample_table(rows))
    assert table.distinct == 60
    assert len(table) == 120


def test_the_order_of_the_rows_changes_nothing(tmp_path: Path) -> None:
    rows = records()
    shuffled = random.Random(1).sample(rows, len(rows))
    table = SampleTable.from_parquet(write(shuffled, tmp_path / "samples.parquet", row_group=7))
    assert_same(table, sample_table(rows))


def test_counts_are_those_of_the_records() -> None:
    rows = records()
    by_status = {status: sum(row.status is status for row in rows) for status in Status}
    assert sample_table(rows).counts() == Counts(
        samples=120,
        scored=by_status[Status.SCORED],
        unparsed=by_status[Status.UNPARSED],
        refused=by_status[Status.REFUSED],
        failed=by_status[Status.FAILED],
        cached=sum(row.cached for row in rows),
        warmup=2,
        retried=sum(row.attempts > 1 for row in rows),
    )


def test_a_sample_without_a_cluster_is_one_of_its_own() -> None:
    table = sample_table(records())
    assert table.clusters is not None
    sizes = np.bincount(table.clusters)
    sizes = np.sort(sizes[sizes > 0])
    assert len(sizes) == 12 + 7
    assert (sizes[:12] == 2).all()  # the two repeats of one sample stay together
    assert (sizes[12:] > 2).all()


def test_without_clusters_and_rows_there_are_none(tmp_path: Path) -> None:
    empty = sample_table([])
    assert (len(empty), empty.distinct, empty.clusters) == (0, 0, None)
    assert empty.counts() == Counts()
    assert len(SampleTable.from_parquet(write([], tmp_path / "none.parquet"))) == 0


def test_only_the_columns_asked_for_are_kept(tmp_path: Path) -> None:
    path = write(records(), tmp_path / "samples.parquet")
    table = SampleTable.from_parquet(path, columns=["score.exact_match"])
    assert set(table.scores) == {"exact_match"}
    assert not table.sensitive
    assert np.isnan(table.number("e2e_s")).all()


def test_a_table_is_small(tmp_path: Path) -> None:
    path = write(records(5000), tmp_path / "samples.parquet", row_group=1024)
    table = SampleTable.from_parquet(path)
    arrays = [
        table.ids,
        table.status,
        table.cached,
        table.warmup,
        table.attempts,
        table.order,
        table.clusters,
    ]
    arrays += [*table.numbers.values(), *table.scores.values(), *(s.codes for s in table.sensitive.values())]
    total = sum(array.nbytes for array in arrays if array is not None)
    assert total / len(table) < 150


@pytest.mark.parametrize("name", ["pandas", "scipy", "sklearn", "fairlearn"])
def test_reading_and_analysing_needs_no_heavy_import(name: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    path = write(records(), tmp_path / "samples.parquet")
    code = f"""
import sys
from pathlib import Path
from evalrun import registry
from evalrun.analysis.run import SystemSummary, analyse
from evalrun.analysis.samples import SampleTable
scorers = [registry.load("scorer", name)(registry.load("scorer", name).Options())
           for name in ("exact_match", "classification")]
analyse(SampleTable.from_parquet(Path({str(path)!r})), scorers, SystemSummary())
sys.exit({name!r} in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
