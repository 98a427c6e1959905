"""Where named extensions are found: one line each, imported only when a suite names it.

A built-in is a line in a table below. Another package adds its own by an entry point of the group
`evalrun.<kind>s` with the same name; a suite may also write `python: package.module:attribute`.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeAlias

from evalrun.errors import UserError

Kind: TypeAlias = Literal["provider", "parser", "scorer"]

PROVIDERS: Mapping[str, str] = {
    "litellm": "evalrun.providers.litellm_sdk:LiteLLM",
    "llamacpp": "evalrun.providers.llamacpp:LlamaCpp",
    "openai": "evalrun.providers.openai_sdk:OpenAI",
    "openai_compatible": "evalrun.providers.openai_compatible:OpenAICompatible",
    "python": "evalrun.providers.python_function:PythonFunction",
    "recorded": "evalrun.providers.recorded:Recorded",
    "vllm": "evalrun.providers.vllm_server:VLLM",
}

PARSERS: Mapping[str, str] = {
    "between": "evalrun.scoring.parsers.text:Between",
    "choice": "evalrun.scoring.parsers.choice:Choice",
    "code": "evalrun.scoring.parsers.text:CodeBlock",
    "first_line": "evalrun.scoring.parsers.text:FirstLine",
    "json": "evalrun.scoring.parsers.text:JsonValue",
    "last_line": "evalrun.scoring.parsers.text:LastLine",
    "last_number": "evalrun.scoring.parsers.text:LastNumber",
    "regex": "evalrun.scoring.parsers.text:Regex",
    "strip": "evalrun.scoring.parsers.text:Strip",
}

SCORERS: Mapping[str, str] = {
    "bbq": "evalrun.scoring.scorers.bbq:BBQ",
    "bleu": "evalrun.scoring.scorers.translation:Bleu",
    "calibration": "evalrun.scoring.scorers.labels:Calibration",
    "cer": "evalrun.scoring.scorers.translation:CharacterErrorRate",
    "chrf": "evalrun.scoring.scorers.translation:Chrf",
    "classification": "evalrun.scoring.scorers.labels:Classification",
    "code": "evalrun.scoring.scorers.code:Code",
    "contains_all": "evalrun.scoring.scorers.text:ContainsAll",
    "contains_any": "evalrun.scoring.scorers.text:ContainsAny",
    "correlation": "evalrun.scoring.scorers.numbers:CorrelationScorer",
    "crows_pairs": "evalrun.scoring.scorers.likelihood:CrowsPairs",
    "edit_distance": "evalrun.scoring.scorers.text:EditDistance",
    "embedding": "evalrun.scoring.scorers.embedding:EmbeddingSimilarity",
    "ends_with": "evalrun.scoring.scorers.text:EndsWith",
    "exact_match": "evalrun.scoring.scorers.text:ExactMatch",
    "hub": "evalrun.scoring.scorers.hub:HubMetric",
    "includes": "evalrun.scoring.scorers.text:Includes",
    "json_fields": "evalrun.scoring.scorers.structure:JsonFields",
    "json_schema": "evalrun.scoring.scorers.structure:JsonSchema",
    "json_valid": "evalrun.scoring.scorers.structure:JsonValid",
    "judge": "evalrun.scoring.scorers.judge:Judge",
    "length": "evalrun.scoring.scorers.text:Length",
    "math": "evalrun.scoring.scorers.numbers:Math",
    "meteor": "evalrun.scoring.scorers.words:Meteor",
    "not": "evalrun.scoring.scorers.wrapping:Not",
    "numeric": "evalrun.scoring.scorers.numbers:Numeric",
    "option_likelihood": "evalrun.scoring.scorers.likelihood:OptionLikelihood",
    "perplexity": "evalrun.scoring.scorers.likelihood:Perplexity",
    "refusal": "evalrun.scoring.scorers.text:Refusal",
    "regex": "evalrun.scoring.scorers.text:RegexMatch",
    "rouge": "evalrun.scoring.scorers.words:Rouge",
    "sql_parse": "evalrun.scoring.scorers.structure:SqlParse",
    "squad": "evalrun.scoring.scorers.words:Squad",
    "stereoset": "evalrun.scoring.scorers.likelihood:StereoSet",
    "starts_with": "evalrun.scoring.scorers.text:StartsWith",
    "ter": "evalrun.scoring.scorers.translation:Ter",
    "threshold": "evalrun.scoring.scorers.wrapping:Threshold",
    "token_f1": "evalrun.scoring.scorers.words:TokenF1",
    "tool_calls": "evalrun.scoring.scorers.structure:ToolCalls",
    "wer": "evalrun.scoring.scorers.translation:WordErrorRate",
    "winobias": "evalrun.scoring.scorers.likelihood:WinoBias",
    "xml_valid": "evalrun.scoring.scorers.structure:XmlValid",
}

BUILT_IN: Mapping[Kind, Mapping[str, str]] = {
    "provider": PROVIDERS,
    "parser": PARSERS,
    "scorer": SCORERS,
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one most likely meant, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


@cache
def entry_points_of(kind: Kind) -> Mapping[str, str]:
    """The names that installed packages give, with what each stands for; looked up once."""
    return {point.name: point.value for point in entry_points(group=f"evalrun.{kind}s")}


def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted: the built-in ones and those of installed packages."""
    return sorted({**entry_points_of(kind), **BUILT_IN[kind]})


def importable_from(folder: Path) -> None:
    """Let the modules in a folder be imported; none of them can stand before an installed one."""
    entry = str(folder.resolve())
    if entry not in sys.path:
        sys.path.append(entry)
    importlib.invalidate_caches()


def import_attribute(target: str) -> Any:
    """The object that `package.module:attribute` names.

    Raises UserError when the module or the attribute does not exist.
    """
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise UserError(f"'{target}' is not of the form package.module:attribute")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"cannot import '{target}': {error}",
            remedy="Install the package that holds it, or correct the name.",
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(f"module '{module_name}' has no '{attribute}'") from None


def load(kind: Kind, name: str) -> Any:
    """The class registered under a name.

    Raises UserError, with the nearest known name, when there is none.
    """
    target = BUILT_IN[kind].get(name) or entry_points_of(kind).get(name)
    if target is None:
        near = nearest(name, names(kind))
        raise UserError(
            f"unknown {kind} '{name}'",
            remedy=f"Did you mean '{near}'?" if near else f"Known: {', '.join(names(kind))}.",
        )
    return import_attribute(target)
