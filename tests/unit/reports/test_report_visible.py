"""Text from outside is made harmless."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from evalrun.reports.visible import terminal, visible


def test_marks_become_symbols() -> None:
    assert visible("a\u202eb") == "a\u27e8U+202E\u27e9b"
    assert visible("\x1b[31m") == "\u27e8ESC\u27e9[31m"
    assert visible("\x00") == "\u27e8NUL\u27e9"
    assert visible("tab\tand\nline") == "tab\tand\nline"
    assert (
        visible("na\u00efve \u4f60\u597d \u0645\u0631\u062d\u0628\u0627")
        == "na\u00efve \u4f60\u597d \u0645\u0631\u062d\u0628\u0627"
    )
    assert visible("\ud800") == "\u27e8U+D800\u27e9"


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    shown = terminal(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert len(shown) <= 400
    assert all(unicodedata.category(each) != "Cs" for each in shown)


def test_escape_sequences_leave_no_trace_in_a_terminal() -> None:
    assert terminal("\x1b[2J\x1b]0;title\x07red \x1b[31mtext\x1b[0m") == "red text"
    assert terminal("x" * 1000, 10) == "x" * 9 + "…"
