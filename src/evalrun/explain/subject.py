"""What of a stored sample is explained: its prompt with the parts of it, and the texts whose likelihood is
asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.explain.asking import Asker
from evalrun.explain.texts import SENTINEL, Prompt, locate
from evalrun.templates import TemplateFailure
from evalrun.types import JSON, Message

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.prompt import PromptSpec
    from evalrun.suite.schema import Suite
    from evalrun.tracking.folder import SweepFolder

Target: TypeAlias = Literal["auto", "answer", "target", "contrast"]
TARGETS: tuple[Target, ...] = ("auto", "answer", "target", "contrast")
MOST_WORDS = 40
"""So many words of an answer are explained; the rest follows from them."""
Named = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run that is explained."""

    folder: SweepFolder
    run_id: str
    suite: Suite
    base_dir: Path
    model: ModelSpec
    prompt: PromptSpec | None
    params: Mapping[str, JSON]
    sources: Mapping[str, Any]
    """Of its prompt: what `sweep.json` holds of it."""

    @property
    def labels(self) -> list[str]:
        """The labels between which the parser `choice` of prompt or suite chooses; none without one."""
        own = None if self.prompt is None else self.prompt.parse
        for parser in self.suite.parse if own is None else own:
            labels = getattr(parser.options, "labels", None) or getattr(parser.options, "options", None)
            if parser.name == "choice" and labels:
                return [str(label) for label in labels]
        return []


def open_run(folder: SweepFolder, run_id: str) -> Run:
    """A run of a sweep with what asked it. Raises UserError where it cannot be asked about."""
    from evalrun.suite.load import parse_suite
    from evalrun.suite.plan import matrix

    manifest = folder.read_manifest()
    resolved = (manifest.get("suite") or {}).get("resolved")
    if not resolved or not resolved.get("models"):
        raise UserError(
            "the sweep's manifest holds no suite, so nobody can be asked about its answers",
            where=folder.path.name,
            remedy="Imported results have no model: run the suite with evalrun first.",
        )
    suite = parse_suite(resolved)
    if suite.privacy is not None and suite.privacy.active:
        raise UserError(
            "its texts were redacted before they were stored, so what the model read is not known",
            where=f"sweep {folder.path.name}",
            remedy="Explain a sweep of the same suite without privacy: {redact: …}.",
        )
    planned = next((each for each in manifest["plan"] if each["run"] == run_id), None)
    spec = next((each for each in matrix(suite) if each.run_id == run_id), None)
    models = {each.id: each for each in suite.models}
    if planned is None or (spec is None and planned["model"] not in models):
        raise UserError("the run's model is not in the suite any more", where=f"{folder.path.name}/{run_id}")
    prompts = {each.id: each for each in suite.prompts}
    known = manifest.get("prompts", {}).get(planned["prompt"], {})
    base_dir = Path(manifest["suite"].get("path") or ".").absolute().parent
    return Run(
        folder, run_id, suite, base_dir,
        models[planned["model"]] if spec is None else spec.model,
        prompts.get(planned["prompt"]),
        planned["params"] if spec is None else spec.params,
        known,
    )  # fmt: skip


def prompt_of(row: Mapping[str, Any], asker: Asker | None) -> Prompt:
    """The prompt of a sample as the model read it. Raises UserError; without an `asker` (for other rows,
    whose frame does not matter) the messages stand one after the other."""
    if row.get("prompt") is not None:
        text = str(row["prompt"])
        return Prompt(text, (text,), ("",), (0,), ((0, len(text)),))
    messages = row.get("messages") or []
    contents = [message["content"] for message in messages]
    if not messages or not all(isinstance(content, str) for content in contents):
        raise UserError(
            "its messages hold something else than text",
            where=f"sample {row['sample_id']}",
            remedy="Only text can be left out of a prompt.",
        )
    roles = [str(message["role"]) for message in messages]
    if asker is None:
        starts = [sum(map(len, contents[:at])) for at in range(len(contents))]
        bounds = [(start, start + len(text)) for start, text in zip(starts, contents, strict=True)]
        return Prompt("".join(contents), tuple(contents), tuple(roles), tuple(starts), tuple(bounds))
    text = asker.chat_text([Message(role, text) for role, text in zip(roles, contents, strict=True)])
    marks = [Message(role, SENTINEL.format(at)) for at, role in enumerate(roles)]
    return locate(text, asker.chat_text(marks), contents, roles)


class Marker:
    """Finds the marked sections of a run's prompt in what was sent for its rows."""

    def __init__(self, run: Run) -> None:
        self._parts: list[Any] = []
        self.why = ""
        """Why marked sections are not known, where there may be some."""
        if run.prompt is None or "{% section" not in str(run.sources.get("source")).replace("{%-", "{%"):
            return
        try:
            self._parts = list(self._compiled(run).parts)
        except UserError as error:
            self.why = f"the prompt's marked sections are not known: {error.problems[0].what}"

    @staticmethod
    def _compiled(run: Run) -> Any:
        """The prompt as the sweep had it, from the texts that its manifest holds."""
        from evalrun.prompts import compile_prompt

        spec, source = run.prompt, dict(run.sources["source"])
        assert spec is not None
        api = run.sources.get("api", "chat")
        with tempfile.TemporaryDirectory(prefix="evalrun-explain-") as temporary:
            if spec.file is not None:
                for name, text in source.items():
                    path = Path(temporary) / PurePosixPath(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                spec = spec.model_copy(update={"file": Path(PurePosixPath(str(spec.file)).name)})
            return compile_prompt(spec, Path(temporary) if source else run.base_dir, api, marked=True)

    def sections(self, row: Mapping[str, Any], prompt: Prompt) -> dict[int, list[Named]]:
        """The marked sections of each message of a row's prompt."""
        from evalrun.prompts.sections import unmarked

        found: dict[int, list[Named]] = {}
        values = {name[5:]: value for name, value in row.items() if name.startswith("vars.")}
        at = 0
        for part in self._parts:
            try:
                rendered = part.render({"row": values, "examples": [], **values})
            except (TemplateFailure, UserError):
                continue
            if not isinstance(rendered, str):
                continue
            plain, sections = unmarked(rendered)
            for message in range(at, len(prompt.contents)):
                start = prompt.contents[message].rfind(plain) if plain.strip() else -1
                if start >= 0 and sections:
                    found[message] = [(name, start + s, start + e) for name, s, e in sections]
                if start >= 0:
                    at = message + (prompt.roles[message] != "")
                    break
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts whose likelihood is asked for: the first is explained, less that of the second where there is
    one. `kind` and `against` are for people."""

    kind: str
    against: str
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose_target(run: Run, row: Mapping[str, Any], kind: Target) -> tuple[Asked, list[str]]:
    """What is explained, and between which texts the runner-up is to be found, where it is a contrast with
    it. Raises UserError where there is no such thing."""
    where = f"sample {row['sample_id']}"
    if row["status"] == "failed":
        raise UserError("it has no answer: it failed", where=where, remedy="Explain another sample.")
    likelihood = row.get("likelihood") or {}
    if likelihood and likelihood.get("kind") != "choose":
        raise UserError("it was asked for a perplexity, and has no answer to explain", where=where)
    options = {str(each["answer"]): str(each["option"]) for each in likelihood.get("options") or ()}
    labels = options or {label: label for label in run.labels}
    if kind == "auto":
        kind = "contrast" if labels and row.get("answer") is not None else "answer"
    before = _before(run, row, bool(options))
    output, target = str(row.get("output") or ""), row.get("target")
    wanted = None if target is None else options.get(str(target), str(target))
    if kind != "answer" and wanted is None and (kind == "target" or not labels):
        raise UserError("it has no target", where=where, remedy="Use --target answer.")
    if kind == "target":
        return _cut("target", "", (before + str(wanted),)), []
    if kind == "answer":
        text = before + options[str(row["answer"])] if options and row.get("answer") is not None else output
        if not text.strip():
            raise UserError("the model said nothing", where=where, remedy="Use --target target.")
        return _cut("answer", "", (text,)), []
    answer = str(row["answer"]) if row.get("answer") is not None else output.strip()
    said = options.get(answer, answer)
    if not said:
        raise UserError("the model said nothing", where=where, remedy="Use --target target.")
    if wanted is not None and wanted.strip() != said.strip():
        return _cut("contrast", "the target", (before + said, before + wanted)), []
    others = [before + text for label, text in labels.items() if label != answer]
    if not others:
        raise UserError(
            "the answer is the target, so there is nothing to set it against",
            where=where,
            remedy="Use --target answer.",
        )
    return _cut("contrast", "the runner-up", (before + said,)), others


def _before(run: Run, row: Mapping[str, Any], choice: bool) -> str:
    """What stands between prompt and answer: a choice's separator, or the blanks that the output begins
    with."""
    if choice and run.prompt is not None and run.prompt.ask is not None and run.prompt.ask.choose is not None:
        return run.prompt.ask.choose.separator
    output = str(row.get("output") or "")
    return output[: len(output) - len(output.lstrip())]


def _cut(kind: str, against: str, texts: Sequence[str]) -> Asked:
    kept, notes = [], []
    for text in texts:
        words = text.split()
        if len(words) > MOST_WORDS:
            end = 0
            for word in words[:MOST_WORDS]:
                end = text.index(word, end) + len(word)
            text = text[:end]
            notes = [f"the first {MOST_WORDS} of {len(words)} words of the answer are explained"]
        kept.append(text)
    return Asked(kind, against, tuple(kept), tuple(notes))
