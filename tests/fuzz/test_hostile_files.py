"""Files made to hurt: aliases that stand for millions of values, archives of zeros, devices without an end."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
from tests.program import evalrun

from evalrun.cli.options import print_csv
from evalrun.errors import UserError
from evalrun.evidence.card import read_answers
from evalrun.server.transfer import files_of
from evalrun.suite.load import load_suite
from evalrun.tasks.logs.main import read_results
from evalrun.tasks.promptfoo.main import convert
from evalrun.tracking.folder import SweepFolder

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 12)
)


@pytest.mark.parametrize("read", [load_suite, convert, read_answers])
@pytest.mark.parametrize("text", [BOMB + "prompts: *a11\n", "prompts: &a [*a]\n", "prompts: " + "[" * 20_000])
def test_aliases_and_depth_cost_nothing(tmp_path: Path, read: object, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError):
        read(file)  # type: ignore[operator]


def test_an_archive_of_zeros_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.eval"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b"{" + b" " * 5_000_000 + b"}")
    monkeypatch.setattr("evalrun.tasks.logs.inspect._MOST_BYTES", 1_000_000)
    with pytest.raises(UserError, match="unpacked"):
        read_results("inspect", file)


@pytest.mark.parametrize(
    "text",
    [
        "prompts: [file:///dev/zero]\nproviders: [openai:x]\ntests: [{vars: {q: 1}}]\n",
        "prompts: ['{{q}}']\nproviders: [openai:x]\ntests: /dev/zero\n",
        "prompts: ['{{q}}']\nproviders: [openai:x]\ntests: [{vars: /dev/zero}]\n",
    ],
)
def test_a_configuration_cannot_make_a_device_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "promptfooconfig.yaml"
    file.write_text(text)
    assert evalrun("import", "promptfoo", file, "--to", tmp_path / "s.yaml").returncode in (0, 2)


@pytest.mark.parametrize(
    "part",
    [
        "prompts: [{id: p, file: /dev/zero}]\ndatasets: [{id: d, rows: [{q: a, o: b}], target: '{{ q }}'}]",
        "prompts: [{id: p, text: x}]\ndatasets: [{id: d, path: /dev/zero, format: jsonl, target: '{{ q }}'}]",
    ],
)
def test_a_suite_cannot_make_a_device_be_read(tmp_path: Path, part: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: s\nmodels: [{{id: m, provider: recorded, column: o}}]\nscorers: [exact_match]\n{part}\n"
    )
    done = evalrun("validate", file)
    assert done.returncode == 2 and "/dev/zero" in done.stderr, done.stderr


def test_what_a_model_wrote_is_no_formula_in_csv(capsys: pytest.CaptureFixture[str]) -> None:
    values = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-x", "\t=1", "plain", "-0.5", "+3e2", 'a"=1']
    print_csv([{"text": value, "number": -0.5} for value in values])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    shown = [row["text"] for row in rows]
    assert shown == [
        "'=1+1",
        "'+cmd|' /C calc'!A0",
        "'@SUM(A1)",
        "'-x",
        "'\t=1",
        "plain",
        "-0.5",
        "+3e2",
        'a"=1',
    ]
    assert {row["number"] for row in rows} == {"-0.5"}


def test_links_in_a_sweep_are_not_pushed(tmp_path: Path) -> None:
    folder = tmp_path / "0123456789ABCDEFGHJKMNPQRS-x"
    (folder / "inputs").mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    (folder / "inputs" / "rows.jsonl").symlink_to(tmp_path / "secret")
    (folder / "inputs" / "own.jsonl").write_text("{}\n")
    assert [file.path for file in files_of(SweepFolder(folder))] == ["inputs/own.jsonl"]
