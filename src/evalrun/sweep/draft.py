"""`evalrun init --data FILE --target COLUMN`: a suite for a file of one's own, that runs as it stands.

What was guessed stands in the suite as comments, beside the lines where it is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from evalrun.errors import UserError
from evalrun.suite.scaffold import schema_bytes, write_files
from evalrun.sweep.choices import LETTERS, Choices
from evalrun.sweep.guess import Guess, guess
from evalrun.sweep.tables import Table, read_table
from evalrun.templates import reference
from evalrun.types import JSON

EMBEDDED = "smollm2-135m-instruct"
LIMIT = 100
"""More rows than twice this are not all asked about at first."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written, the suite first, and how the file was understood, a line each."""

    written: Sequence[Path]
    said: Sequence[str]


def write_draft(folder: Path, data: Path, target: str | None, model: str | None) -> Draft:
    """Write a suite for a file of rows into a folder. Raises UserError, and writes nothing, where the file
    cannot be read, has no such column, or a file to be written exists."""
    entry = _model(model)
    table = read_table(data)
    guessed = guess(table, target, str(data))
    files: dict[str, bytes] = {}
    if table.format is None:
        path = f"data/{_name(data)}.jsonl"
        files[path] = b"".join(orjson.dumps(dict(row)) + b"\n" for row in table.rows)
    else:
        path = Path(os.path.relpath(data.resolve(), folder.resolve())).as_posix()
    suite = _suite(table, guessed, data, path, entry)
    contents = {"suite.yaml": suite.encode(), **files, "suite.schema.json": schema_bytes()}
    return Draft(write_files(folder, contents), _said(table, guessed, data, copied=bool(files)))


def _said(table: Table, guessed: Guess, data: Path, *, copied: bool) -> list[str]:
    rows = f"{len(table.rows):,} row{'' if len(table.rows) == 1 else 's'}"
    lines = [f"{data.name}: {rows}, {table.said}"]
    if copied:
        lines.append("a copy is written that suites can read as it is (JSON Lines, UTF-8)")
    lines += [f"column '{name}' was {old!r} in the file" for name, old in table.renamed.items()]
    lines.append(f"target: '{guessed.target}'; {guessed.why}")
    if guessed.empty:
        lines.append(f"{guessed.empty:,} without a target are left out")
    options = guessed.choices.columns if guessed.choices else ()
    lines.append(f"asked about: {', '.join(map(repr, (*guessed.texts, *options)))}")
    lines.append(f"key: '{guessed.key}'" if guessed.key else "key: none, rows are named by their content")
    return lines


def _name(data: Path) -> str:
    """The file's name without its endings, fit for an id."""
    stem = data.name
    while (suffix := Path(stem).suffix) and len(suffix) <= 8 and not suffix[1:].isdigit():
        stem = stem[: -len(suffix)]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:40] or "rows"


# Models


def _model(said: str | None) -> dict[str, JSON]:
    """The entry of a model: the catalogue's, a .gguf file, PROVIDER:MODEL, MODEL@URL, or one of OpenAI's.

    Raises UserError for anything else.
    """
    said = said or EMBEDDED
    name, at, url = said.rpartition("@")
    if at and url.startswith(("http://", "https://")):
        if not name:
            raise UserError("which model of the server?", where="--model", remedy=f"Write NAME@{url}")
        return {"id": _id(name), "provider": "openai_compatible", "base_url": url, "model": name}
    provider, colon, rest = said.partition(":")
    if colon and provider in ("openai", "anthropic", "litellm", "vllm", "llamacpp") and rest:
        return {"id": _id(rest), "provider": provider, "model": rest}
    if re.match(r"(gpt|chatgpt|o\d)[-\w.]*\Z", said):
        return {"id": _id(said), "provider": "openai", "model": said}
    if said.endswith(".gguf") or said.startswith("hf:") or said == EMBEDDED:
        short = "smollm2" if said == EMBEDDED else _id(Path(said).stem)
        return {"id": short, "provider": "llamacpp", "model": said}
    raise UserError(
        f"no model is known by '{said}'",
        where="--model",
        remedy=f"As in: {EMBEDDED}, weights.gguf, gpt-4o-mini, litellm:anthropic/claude-sonnet-4-5, "
        "my-model@http://127.0.0.1:8000/v1",
    )


def _id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rpartition("/")[2]).strip("-._")[:40] or "model"


# The suite


@dataclass(frozen=True, slots=True)
class _Form:
    """How a kind of target is asked for, read and scored."""

    ask: str
    max_tokens: int
    parse: Sequence[tuple[JSON, str]]
    scorers: Sequence[tuple[JSON, str]]


def _form(guessed: Guess) -> _Form:
    labels = [*guessed.labels]
    case = {"ignore_case": True} if guessed.ignore_case else {}
    if guessed.choices is not None:
        columns: JSON = {"choice": {"letters": True, "option_columns": [*guessed.choices.columns]}}
        return _Form(
            "Answer with the letter of the right option only.", 8,
            [(columns, "the letter that the answer names, or whose option it repeats")],
            [("exact_match", "the share of right letters")],
        )  # fmt: skip
    if guessed.kind == "labels":
        listed = ", ".join(map(_literal, labels))
        return _Form(
            f"Answer with one of these only: {listed}", 16,
            [({"choice": labels}, "the one label that stands in the answer")],
            [({"exact_match": case} if case else "exact_match", "the share of right labels"),
             ({"classification": {"labels": labels, **case}}, "accuracy, F1 and more, label by label")],
        )  # fmt: skip
    if guessed.kind == "number":
        return _Form(
            "Answer with the number only.", 200,
            [("last_number", "the last number in the answer; reasoning may stand before it")],
            [("numeric", "equal as numbers; {numeric: {rel_tolerance: 0.01}} forgives 1 %")],
        )  # fmt: skip
    if guessed.kind == "json":
        return _Form(
            "Answer with JSON only.", 512,
            [("json", "the JSON value in the answer, also inside a code fence")],
            [("json_fields", "field by field: the share that is right, and whether all are"),
             ("json_valid", "whether the whole output is JSON")],
        )  # fmt: skip
    if guessed.kind == "short":
        return _Form(
            "Answer in a few words.", 48, [],
            [({"includes": {"whole_word": False}}, "whether the answer holds the target somewhere"),
             ("squad", "exact match and word F1, without case, punctuation and articles")],
        )  # fmt: skip
    return _Form(
        "", 256, [],
        [("rouge", "words in common with the target; of Latin script only"),
         ("chrf", "letters in common with the target; for any script"),
         ("includes", "whether the answer holds the whole target")],
    )  # fmt: skip


def _suite(table: Table, guessed: Guess, data: Path, path: str, entry: Mapping[str, JSON]) -> str:
    form, name = _form(guessed), _name(data)
    params: dict[str, JSON] = {"temperature": 0, "max_tokens": form.max_tokens}
    commented = [f"key: {_flow(guessed.key)}"] if guessed.key else []
    lines = [
        "# yaml-language-server: $schema=suite.schema.json",
        "#",
        f"# Made from {_line(data.name)}: {_line(table.said)}.",
        f"# {_line(guessed.why[:1].upper() + guessed.why[1:])}.",
        "#   evalrun validate suite.yaml      check it; nothing is sent to any model",
        "#   evalrun suite.yaml               run it; the report is written to reports/",
        "#   evalrun suite.yaml --watch       run it again whenever it, a prompt or the data is saved",
        f"name: {_flow(name)}",
        "seed: 1",
        "",
        "models:",
        f"  - {_flow({**entry, 'params': params})}",
        "",
        "# Names in {{ }} are columns of the data; one with blanks is row['Its name'].",
        "prompts:",
        "  - id: direct",
        *_block("text", _prompt(guessed, form.ask)),
        "  # A second way to ask, to compare with the first:",
        "  # - id: careful",
        "  #   text: …",
        "",
        "datasets:",
        f"  - id: {_flow(name)}",
        f"    path: {_flow(path)}",
        *([f"    format: {table.format}"] if table.format else []),
        *(
            f"    {line}{' ' * 16}# names a row, so that it is the same one in every sweep"
            for line in commented
        ),
        *_target_lines(guessed),
        *_selection_lines(table, guessed),
        *_group_lines(guessed),
        "",
        *_steps("parse", form.parse, "From the raw output to the answer, one step after the other."),
        *_steps("scorers", form.scorers, "The first one is what prompts and models are ranked by."),
        *_fairness_lines(guessed),
        *_gate_lines(form),
    ]
    return ("\n".join(lines) + "\n").replace("${", "$${")  # `${NAME}` is a variable of the environment


def _prompt(guessed: Guess, ask: str) -> str:
    def shown(name: str) -> str:
        return f"{{{{ {reference(name)}{' or ' + repr('') if name in guessed.nulls else ''} }}}}"

    texts = [*guessed.texts]
    parts = [shown(name) if len(texts) == 1 else f"{_literal(name)}: {shown(name)}" for name in texts]
    blocks = ["\n".join(parts), _options(guessed.choices, shown) if guessed.choices else "", ask]
    text = "\n\n".join(block for block in blocks if block)
    return text.replace(f"{_END}\n\n", f"{_END}\n")  # the last option ends its line itself


_END = "{% endfor %}"


def _options(choices: Choices, shown: Callable[[str], str]) -> str:
    """The options, a line each, under letters."""
    if choices.listed:
        each = f"{{{{ '{LETTERS}'[loop.index0] }}}}. {{{{ option }}}}"
        return f"{{% for option in {reference(choices.columns[0])} %}}{each}\n{_END}"
    return "\n".join(
        f"{letter}. {shown(name)}" for letter, name in zip(LETTERS, choices.columns, strict=False)
    )


def _target_lines(guessed: Guess) -> list[str]:
    column = reference(guessed.target)
    value = guessed.target
    if guessed.choices is not None:
        value = guessed.choices.target(guessed.target)
    elif guessed.trim and guessed.kind != "json":
        value = f"{{{{ {column} | string | trim }}}}"
    return [f"    target: {_flow(value)}{' ' * 8}# the right answer: a column, or a template"]


def _selection_lines(table: Table, guessed: Guess) -> list[str]:
    lines = []
    if guessed.empty:
        condition = f"({reference(guessed.target)} | default('', true) | string | trim) != ''"
        lines.append(f"    where: {_flow(condition)}   # {guessed.empty:,} rows have no target")
    if len(table.rows) > 2 * LIMIT:
        lines += [
            "    shuffle: true",
            f"    limit: {LIMIT}     # of {len(table.rows):,} rows, drawn by the seed; all without it",
        ]
    return lines


def _group_lines(guessed: Guess) -> list[str]:
    if not guessed.groups:
        return []
    return [
        "    # Groups to compare, with `fairness` below:",
        f"    # sensitive: {_flow([*guessed.groups])}",
    ]


def _fairness_lines(guessed: Guess) -> list[str]:
    return [f"# fairness: {_flow({'by': [*guessed.groups]})}", ""] if guessed.groups else []


def _gate_lines(form: _Form) -> list[str]:
    scorer = form.scorers[0][0]
    first = scorer if isinstance(scorer, str) else next(iter(scorer)) if isinstance(scorer, Mapping) else ""
    metric = {"rouge": "rouge.rouge_l", "json_fields": "json_fields.share"}.get(str(first), str(first))
    return [
        "# What must hold; if it does not, evalrun ends with exit code 1:",
        f'# gates: ["{metric} >= 0.5"]',
    ]


def _steps(key: str, steps: Sequence[tuple[JSON, str]], why: str) -> list[str]:
    if not steps:
        return []
    lines = [f"# {why}", f"{key}:"]
    for value, said in steps:
        lines += [f"  # {said}", f"  - {_flow(value)}"]
    return [*lines, ""]


def _block(key: str, text: str) -> list[str]:
    """A text over several lines, as YAML has it; in quotes where it holds what a block cannot."""
    lines = text.split("\n")
    if any(not c.isprintable() for line in lines for c in line) or lines[0][:1] in (" ", "\t"):
        return [f"    {key}: {_flow(text)}"]
    return [f"    {key}: |-", *(f"      {line}".rstrip() for line in lines)]


def _flow(value: JSON) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n...\n").rstrip("\n")


def _literal(text: str) -> str:
    """A text that a template leaves as it is."""
    return f"{{{{ {text!r} }}}}" if any(mark in text for mark in ("{{", "{%", "{#")) else text


def _line(text: str) -> str:
    """A text fit for a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
