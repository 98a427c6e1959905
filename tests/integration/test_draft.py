"""`evalrun init --data`: whatever file it is given, what it writes is valid, and the guesses fit."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.errors import UserError
from evalrun.sweep.draft import write_draft
from evalrun.sweep.guess import guess
from evalrun.sweep.tables import read_table

SERVED = "m@http://127.0.0.1:9/v1"


def rows_of(*values: Any, column: str = "y", text: str = "a question about") -> list[dict[str, Any]]:
    return [{"id": f"r{at}", "text": f"{text} {at}", column: value} for at, value in enumerate(values)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def suite_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((folder / "suite.yaml").read_text())
    return document


@pytest.mark.parametrize(
    ("values", "parse", "scorer"),
    [
        (["a", "b", "c"] * 10, "choice", "exact_match"),
        (["1", "0"] * 20, "choice", "exact_match"),
        ([True, False] * 10, "choice", "exact_match"),
        (["12", "1,300.5", "-3", "$7"], "last_number", "numeric"),
        (["2,5", "1.234,5", "7"], "last_number", "numeric"),
        ([3, 4.5, 7, 8], "last_number", "numeric"),
        ([{"a": 1}, {"a": 2}], "json", "json_fields"),
        (['{"a": 1}', '{"a": [2]}'], "json", "json_fields"),
        (["Paris", "Rome", "Oslo", "Bonn"], None, "includes"),
        (["a long answer with many words in it, as people write them " * 2] * 3, None, "rouge"),
        (["only one"], None, "includes"),
    ],
)
def test_the_scorer_goes_by_the_target(tmp_path: Path, values: list[Any], parse: str, scorer: str) -> None:
    data = write_jsonl(tmp_path / "x.jsonl", rows_of(*values))
    write_draft(tmp_path, data, "y", SERVED)
    suite = suite_of(tmp_path)
    names = [next(iter(each)) if isinstance(each, dict) else each for each in suite.get("parse", [])]
    assert names == ([parse] if parse else [])
    first = suite["scorers"][0]
    assert (next(iter(first)) if isinstance(first, dict) else first) == scorer
    assert evalrun("validate", tmp_path / "suite.yaml").returncode == 0


def test_letters_of_option_columns_are_a_choice(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {at} and one?", **{c: f"{c}{at}" for c in "ABCD"}, "answer": "abCD"[at % 4]}
        for at in range(4)
    ]
    write_draft(tmp_path, write_jsonl(tmp_path / "x.jsonl", rows), "answer", SERVED)
    suite = suite_of(tmp_path)
    assert suite["parse"] == [{"choice": {"letters": True, "option_columns": ["A", "B", "C", "D"]}}]
    assert "A. {{ A }}\nB. {{ B }}" in suite["prompts"][0]["text"]
    assert evalrun("validate", tmp_path / "suite.yaml").returncode == 0


CAPITALS = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Peru", "Lima")]


def _options(at: int) -> list[str]:
    """The right one stands in place `at`."""
    others = [city for _, city in CAPITALS if city != CAPITALS[at][1]]
    return [*others[:at], CAPITALS[at][1], *others[at:]]


@pytest.mark.parametrize(
    ("options", "target", "why"),
    [
        ("list", lambda at: at, "places, from 0, of the options in the list 'choices'"),
        ("list", lambda at: at + 1, "places, from 1,"),
        ("list", lambda at: CAPITALS[at][1], "each one of the options"),
        ("list", lambda at: "abcd"[at], "letters, of the options in the list"),
        ("columns", lambda at: str(at + 1), "places, from 1, of the options in 'option1', 'option2'"),
        ("columns", lambda at: f" {CAPITALS[at][1]}", "each one of the options"),
    ],
)
def test_options_are_asked_for_by_letter_however_the_target_names_them(
    project: Path, chat_server: ChatServer, options: str, target: Any, why: str
) -> None:
    rows = []
    for at, (country, _) in enumerate(CAPITALS):
        listed = {f"option{place}": city for place, city in enumerate(_options(at), 1)}
        cells = {"choices": _options(at)} if options == "list" else listed
        rows.append({"question": f"What is the capital of {country}?", **cells, "answer": target(at)})
    draft = write_draft(
        project, write_jsonl(project / "x.jsonl", rows), "answer", f"m@{chat_server.base_url}"
    )
    assert why in " ".join(draft.said), draft.said
    asked: list[str] = []
    chat_server.answer = lambda body: asked.append(body["messages"][0]["content"]) or "Paris"  # type: ignore[func-returns-value]
    document = json.loads(evalrun("suite.yaml", "--no-report", "-q", "--json").stdout)
    assert document["runs"][0]["metrics"][0]["value"] == 0.25
    first = next(text for text in asked if "France" in text)
    assert "What is the capital of France?\n\nA. Paris\nB. Rome\nC. Madrid\nD. Lima\n\nAnswer" in first


def test_columns_of_rows_are_told_apart(tmp_path: Path) -> None:
    rows = [
        {
            "Ticket ID": f"T{at}",
            "Message text": f"the message number {at}",
            "channel": ("mail", "chat")[at % 2],
            "copy of label": ("x", "y")[at % 2],
            "when": f"2026-01-{at + 1:02d}",
            "label": ("x", "y")[at % 2],
        }
        for at in range(20)
    ]
    made = guess(read_table(write_jsonl(tmp_path / "x.jsonl", rows)), "Label", "x")
    assert (made.target, made.key, made.texts) == ("label", "Ticket ID", ["Message text"])
    assert made.groups == ["channel"]


ENCODED = [
    ("a;b", "utf-8", ";", "UTF-8, semicolons"),
    ("ä;b", "cp1252", ";", "Windows-1252, semicolons"),
    ("ä;b", "utf-16", "\t", "UTF-16, tabs"),
    ("ä;b", "utf-16-le", ",", "UTF-16, commas"),
    ("ä;b", "utf-8-sig", "|", "UTF-8 with a byte order mark, bars"),
    ("ä;b", "utf-8-sig", ",", "UTF-8 with a byte order mark, commas"),
]


@pytest.mark.parametrize(("cell", "encoding", "delimiter", "said"), ENCODED)
def test_separators_and_encodings_are_found_out_and_said(
    tmp_path: Path, cell: str, encoding: str, delimiter: str, said: str
) -> None:
    text = io.StringIO(newline="")
    rows = [
        ["id", "Größe, or so", "y"],
        *([f"{at}", f'{cell} "{at}"\nnext, line', f"l{at % 2}"] for at in range(6)),
    ]
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path = tmp_path / "x.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    table = read_table(path)
    assert table.said == f"{said} between columns"
    assert list(table.columns) == rows[0]
    assert [list(row.values()) for row in table.rows] == rows[1:]
    write_draft(tmp_path, path, "y", SERVED)
    assert evalrun("validate", tmp_path / "suite.yaml").returncode == 0


names = st.text(st.characters(codec="utf-8"), max_size=8)
cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.data())
@settings(max_examples=30)
def test_what_is_written_is_valid_whatever_the_table(data: st.DataObject) -> None:
    header = data.draw(st.lists(names, min_size=2, max_size=5))
    rows = data.draw(
        st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), min_size=1, max_size=6)
    )
    delimiter = data.draw(st.sampled_from(",;\t|"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *rows])
        try:
            table = read_table(path)
            target = data.draw(st.sampled_from(list(table.columns)))
            write_draft(Path(folder), path, target, SERVED)
        except UserError as error:
            assert not (Path(folder) / "suite.yaml").exists()
            known = ("columns are: ", "no rows", "is empty")
            known += ("neither text nor a table",) if b"\0" in path.read_bytes() else ()  # a NUL is no text
            assert any(message in str(error) for message in known), error
            return
        done = evalrun("validate", Path(folder) / "suite.yaml")
        assert done.returncode == 0, done.stderr + (Path(folder) / "suite.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "the file is empty"),
        ("x.csv", b"a,b\n", "Its columns are: a, b."),
        ("x.csv", b"a,b\n1,2,3\n", "the row has 3 cells where the header has 2"),
        ("x.bin", b"\0\1\2\3" * 50, "neither text nor a table"),
        ("x.xls", b"\xd0\xcf\x11\xe0", "not read"),
        ("x.jsonl", b"{broken\n", "this is not JSON"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.csv", b"id,y\n1,a\n", "there is no column 'nope'\n  Its columns are: id, y."),
    ],
)
def test_a_file_that_is_no_table_writes_nothing(
    project: Path, name: str, content: bytes, message: str
) -> None:
    (project / name).write_bytes(content)
    done = evalrun("init", "new", "--data", name, "--target", "nope")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (project / "new").exists()


def test_excel_is_read_or_its_package_named(project: Path) -> None:
    try:
        import openpyxl
    except ImportError:
        (project / "x.xlsx").write_bytes(b"PK\x03\x04")
        done = evalrun("init", "new", "--data", "x.xlsx", "--target", "y")
        assert done.returncode == 2 and "pip install openpyxl" in done.stderr
        return
    book = openpyxl.Workbook()
    for row in (["text", "y"], ["a long enough text", 3], ["another of the kind", 4.5]):
        book.active.append(row)
    book.active.append(["=1+1", 5])
    book.save(project / "x.xlsx")
    done = evalrun("init", "--data", "x.xlsx", "--target", "y", "--model", SERVED)
    assert done.returncode == 0 and "1 formula has no value in the file" in done.stdout, done.stderr
    assert evalrun("validate", "suite.yaml").returncode == 0


def test_the_options_of_a_file_of_ones_own_need_one(project: Path) -> None:
    done = evalrun("init", "--target", "y")
    assert done.returncode == 2 and "--data FILE" in done.stderr
    write_jsonl(project / "x.jsonl", rows_of("a", "b"))
    done = evalrun("init", "--data", "x.jsonl", "--target", "y", "--model", "nobody")
    assert done.returncode == 2 and "no model is known by 'nobody'" in done.stderr
    assert [each.name for each in project.iterdir()] == ["x.jsonl"]


def test_missing_values_of_a_parquet_file_are_left_out(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"q": ["what is one", None, "what is two"], "y": [1.5, 3.0, float("nan")]})
    pq.write_table(table, tmp_path / "x.parquet")
    draft = write_draft(tmp_path / "new", tmp_path / "x.parquet", "y", SERVED)
    assert "NaN" in draft.said[0] and "1 without a target are left out" in draft.said
    done = evalrun("validate", tmp_path / "new" / "suite.yaml")
    assert done.returncode == 0 and "2 samples" in done.stdout, done.stderr


def test_true_and_false_are_labels_that_score(project: Path, chat_server: ChatServer) -> None:
    data = write_jsonl(project / "x.jsonl", rows_of(*[True, False] * 8))
    write_draft(project, data, "y", f"m@{chat_server.base_url}")
    chat_server.answer = lambda body: "That is true."
    document = json.loads(evalrun("suite.yaml", "--no-report", "-q", "--json").stdout)
    values = {metric["name"]: metric["value"] for metric in document["runs"][0]["metrics"]}
    assert values["exact_match"] == values["classification.accuracy"] == 0.5
