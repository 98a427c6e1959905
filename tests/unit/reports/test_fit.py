"""Tables fit their width, and no cell is broken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalrun.reports.fit import Column, cut, fit, lines

words = st.text("abc d", max_size=40)
figures = st.integers(-99, 9999).map(str)


@st.composite
def tables(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(0, 4))
    made: list[Column] = []
    for at in range(draw(st.integers(1, 6))):
        side = draw(st.sampled_from(["left", "right"]))
        cells = draw(st.lists(words if side == "left" else figures, min_size=rows, max_size=rows))
        made.append((f"title {at}", side, cells))
    return made


@given(tables(), st.integers(60, 120))
def test_a_table_fits_and_figures_stay_whole(columns: list[Column], width: int) -> None:
    fitted = fit(columns, width)
    assert max(map(len, lines(fitted))) <= width
    assert len(fitted) >= min(3, len(columns))
    for before, after in zip(columns, fitted, strict=False):
        if before[1] == "right":
            assert after[2] == before[2]
        else:
            assert all(
                new == cut(old, max(1, len(new))) for old, new in zip(before[2], after[2], strict=True)
            )


def test_columns_go_before_names_become_unreadable() -> None:
    table: list[Column] = [
        ("run", "left", ["a-long-name-of-a-model · prompt_1 · temperature=0.7"]),
        ("score", "left", ["0.58 [0.48, 0.68]"]),
        ("n", "right", ["100"]),
        ("more", "left", ["something else that is long"]),
    ]
    assert [title for title, _, _ in fit(table, 80, rigid={"score"})] == ["run", "score", "n", "more"]
    narrow = fit(table, 50, rigid={"score"})
    assert [title for title, _, _ in narrow] == ["run", "score", "n"]
    assert narrow[0][2] == ["a-long-name-…mperature=0.7"]


def test_a_cut_keeps_both_ends() -> None:
    assert cut("abcdefghij", 5) == "ab…ij" and cut("abc", 3) == "abc" and cut("abcdef", 2) == "…f"
