"""Arrow arrays as numpy, read from their buffers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.samples import plain_values

KINDS: list[tuple[pa.DataType, type[np.generic], float, st.SearchStrategy[Any]]] = [
    (pa.float64(), np.float64, np.nan, st.floats(allow_nan=False)),
    (pa.int32(), np.int32, 0, st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), np.float64, np.nan, st.integers(-(2**40), 2**40)),
    (pa.int8(), np.int64, -1, st.integers(0, 100)),
    (pa.bool_(), np.bool_, 0, st.booleans()),
    (pa.bool_(), np.float64, np.nan, st.booleans()),
    (pa.null(), np.float64, np.nan, st.none()),
]


@pytest.mark.parametrize(("arrow", "kind", "missing", "values"), KINDS, ids=str)
@settings(deadline=None)
@given(data=st.data())
def test_values_and_gaps_of_any_slice(
    arrow: pa.DataType,
    kind: type[np.generic],
    missing: float,
    values: st.SearchStrategy[Any],
    data: st.DataObject,
) -> None:
    written = data.draw(st.lists(values | st.none(), max_size=40))
    start = data.draw(st.integers(0, len(written)))
    length = data.draw(st.integers(0, len(written) - start))
    found = plain_values(pa.array(written, arrow).slice(start, length), kind, missing)
    expected = [missing if each is None else each for each in written[start : start + length]]
    np.testing.assert_array_equal(found, np.array(expected, kind))
    assert found.dtype == np.dtype(kind)


def test_neither_pandas_nor_compute_is_imported_where_types_are_as_wanted() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from evalrun.analysis.samples import plain_values\n"
        "eight = pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(bytes(8))])\n"
        "one = pa.Array.from_buffers(pa.bool_(), 8, [pa.py_buffer(b'a'), pa.py_buffer(b'b')])\n"
        "plain_values(eight, np.float64, 0)\n"
        "plain_values(one, np.bool_, 0)\n"
        "sys.exit(any(name in sys.modules for name in ('pandas', 'pyarrow.compute')))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
