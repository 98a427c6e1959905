"""A promptfoo configuration as a suite: prompts, providers, tests; what has no counterpart is listed."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from evalrun.errors import UserError
from evalrun.scoring.scorers.assertions import CHECKS, SET

MODEL_GRADED = ("llm-rubric", "g-eval", "factuality", "model-graded-factuality", "model-graded-closedqa")
_PARAMS = {
    "temperature", "max_tokens", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty",
    "max_completion_tokens",
}  # fmt: skip
_TAKEN = {
    "description", "prompts", "providers", "targets", "tests", "defaultTest", "evaluateOptions", "tags",
    "$schema", "sharing", "outputPath", "env", "commandLineOptions",
}  # fmt: skip
_OPENAI_LIKE = {
    "ollama": "http://127.0.0.1:11434/v1", "openrouter": "https://openrouter.ai/api/v1",
    "localai": "http://127.0.0.1:8080/v1", "vllm": "http://127.0.0.1:8000/v1",
    "groq": "https://api.groq.com/openai/v1", "together": "https://api.together.xyz/v1",
    "deepseek": "https://api.deepseek.com/v1", "mistral": "https://api.mistral.ai/v1",
}  # fmt: skip
_KEYS = {
    "openrouter": "OPENROUTER_API_KEY", "groq": "GROQ_API_KEY", "together": "TOGETHER_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY", "mistral": "MISTRAL_API_KEY",
}  # fmt: skip
_BY_LITELLM = {
    "anthropic": "anthropic", "google": "gemini", "vertex": "vertex_ai", "bedrock": "bedrock",
    "azure": "azure",
    "cohere": "cohere", "replicate": "replicate", "huggingface": "huggingface", "azureopenai": "azure",
    "xai": "xai", "cerebras": "cerebras", "databricks": "databricks", "perplexity": "perplexity",
}  # fmt: skip


@dataclass(slots=True)
class Converted:
    """A suite as data, its rows, and what was not taken over."""

    suite: dict[str, Any]
    rows: list[dict[str, Any]]
    taken_over: int
    left_out: list[dict[str, str]] = field(default_factory=list)
    digest: str = ""


def convert(path: Path) -> Converted:
    """Read a configuration. Raises UserError for one that is none."""
    return _Conversion(path).run()


class _Conversion:
    def __init__(self, path: Path) -> None:
        self.path, self.base = path, path.parent
        self.left_out: list[dict[str, str]] = []
        self.checks = 0
        self.rubrics: dict[int, list[str]] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}", where=str(path)) from error
        if not isinstance(document, dict) or not document.get("prompts"):
            raise UserError(f"{path} is no configuration of promptfoo: it has no prompts", where=str(path))
        self.config: dict[str, Any] = document

    def leave(self, what: str, why: str) -> None:
        """Note what is not taken over; once."""
        entry = {"what": what, "why": why}
        if entry not in self.left_out:
            self.left_out.append(entry)

    def run(self) -> Converted:
        config = self.config
        for key in config.keys() - _TAKEN:
            self.leave(key, "has no counterpart here")
        for key in ("env", "sharing", "outputPath", "commandLineOptions"):
            if config.get(key):
                self.leave(key, "belongs to promptfoo's own running, not to what is asked")
        prompts = list(self._prompts(config["prompts"]))
        models = list(self._models(config.get("providers") or config.get("targets") or []))
        default = config.get("defaultTest") or {}
        default = self._loaded(default) if isinstance(default, str) else default
        rows = self._rows(self._tests(config.get("tests")) or [{}], default)
        if not prompts or not models:
            missing = "prompts" if not prompts else "providers"
            reasons = "; ".join(f"{each['what']}: {each['why']}" for each in self.left_out[:5])
            raise UserError(
                f"none of the {missing} of {self.path} can be taken over",
                where=str(self.path),
                remedy=reasons,
            )
        metrics = sorted(
            {
                str(check["metric"])
                for row in rows
                for check in _flat(row["assertions"])
                if check.get("metric")
            }
        )
        suite: dict[str, Any] = {
            "name": _id(
                config.get("description") or self.path.stem.removeprefix("promptfooconfig") or "promptfoo"
            )
        }
        if config.get("description"):
            suite["description"] = str(config["description"])
        suite["models"], suite["prompts"] = models, prompts
        suite["datasets"] = [{"id": "tests", "path": "", "key": "test"}]
        if any(row["assertions"] for row in rows):
            suite["scorers"] = [{"assertions": {"metrics": metrics}} if metrics else "assertions"]
            suite["gates"] = ["assertions.passed >= 1"]
        else:
            suite["scorers"] = [{"length": {"min": 1}}]
            self.leave(
                "tests without assertions",
                "nothing says what is right; the scorer asks for any answer at all",
            )
        self._judge(suite, rows)
        self._fill(prompts, rows)
        self._options(config.get("evaluateOptions") or {}, suite)
        tags = config.get("tags")
        if isinstance(tags, dict):
            suite["tags"] = {str(key): str(value) for key, value in tags.items()}
        columns = dict.fromkeys(name for row in rows for name in row)
        rows = [{name: row.get(name, "" if name != "assertions" else []) for name in columns} for row in rows]
        return Converted(
            suite, rows, len(rows) + len(prompts) + len(models) + self.checks, self.left_out, self.digest
        )

    def _judge(self, suite: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Rubrics become a judge where every test has one; else some rows would be graded by nothing."""
        if not self.rubrics:
            return
        if any(not self.rubrics.get(int(row["test"][:4])) for row in rows):
            self.leave("assertion llm-rubric", "only some tests have one: " + _why_not("llm-rubric"))
            return
        for row in rows:
            row["rubric"] = "\n".join(dict.fromkeys(self.rubrics[int(row["test"][:4])]))
        suite["judges"] = [{"id": "grader", "provider": "openai", "model": "gpt-4o-mini"}]
        suite["scorers"].append({"judge": {"model": "grader", "rubric": "{{ rubric }}"}})
        self.leave("llm-rubric in pass or fail",
                   "a figure beside assertions.passed, by gpt-4o-mini until judges "
                   "names another; promptfoo's grading prompt is not copied")  # fmt: skip

    @staticmethod
    def _fill(prompts: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]) -> None:
        """Variables that no test sets are empty, as they are in promptfoo."""
        from jinja2 import Environment, TemplateError, meta

        texts = [str(prompt.get("text") or json.dumps(prompt.get("messages"))) for prompt in prompts]
        for text in texts:
            try:
                wanted = meta.find_undeclared_variables(Environment(autoescape=True).parse(text))
            except TemplateError:
                continue
            for name in wanted:
                for row in rows:
                    row.setdefault(name, "")

    def _options(self, options: Mapping[str, Any], suite: dict[str, Any]) -> None:
        if options.get("repeat"):
            suite["repeats"] = int(options["repeat"])
        if options.get("maxConcurrency"):
            suite["performance"] = {"concurrency": int(options["maxConcurrency"])}
        for key in options.keys() - {"repeat", "maxConcurrency", "showProgressBar", "cache", "delay"}:
            self.leave(f"evaluateOptions.{key}", "has no counterpart here")
        if options.get("delay"):
            self.leave(
                "evaluateOptions.delay", "limits: {requests_per_minute: …} of the model holds requests back"
            )

    # Prompts

    def _prompts(self, listed: Any) -> Iterator[dict[str, Any]]:
        if isinstance(listed, dict):  # {file: id}
            listed = [{"id": key, "label": value} for key, value in listed.items()]
        used: set[str] = set()
        for at, entry in enumerate([listed] if isinstance(listed, str) else listed):
            label = None
            if isinstance(entry, dict):
                label, source = entry.get("label"), entry.get("raw") or entry.get("id") or entry.get("file")
                if entry.get("function"):
                    self.leave(f"prompt {label or at}", "is made by a function")
                    continue
            else:
                source = entry
            for text, name in self._prompt_texts(str(source)):
                own = _unique(_id(label or name or f"prompt{at + 1}"), used)
                made = self._prompt(text, own)
                if made is not None:
                    yield made

    def _prompt_texts(self, source: str) -> Iterator[tuple[str, str]]:
        named = source.removeprefix("file://")
        is_file = source.startswith("file://") or (
            "\n" not in source
            and re.search(r"\.(txt|json|ya?ml|md|j2|jsonl|csv|py|js|ts|mjs|cjs)(:\w+)?$", source)
        )
        if not is_file:
            yield source, ""
            return
        paths = sorted(glob.glob(str(self.base / named)))  # noqa: PTH207  (absolute names too)
        if not paths:
            suffix = Path(named.partition(":")[0]).suffix
            why = (
                "is made by code"
                if suffix in (".py", ".js", ".ts", ".mjs", ".cjs")
                else "there is no such file"
            )
            self.leave(f"prompt {source}", why)
        for name in paths:
            path = Path(name)
            if path.suffix in (".py", ".js", ".ts", ".mjs", ".cjs"):
                self.leave(f"prompt {source}", "is made by code")
                continue
            text = path.read_text(encoding="utf-8")
            parts = [text] if path.suffix != ".txt" else re.split(r"^---\s*$", text, flags=re.MULTILINE)
            for part in parts:
                if part.strip():
                    yield part.strip() if path.suffix == ".txt" else part, path.stem

    def _prompt(self, text: str, name: str) -> dict[str, Any] | None:
        messages = _messages(text)
        if messages is not None:
            found = []
            for message in messages:
                if not isinstance(message, dict) or "content" not in message:
                    self.leave(f"prompt {name}", "a message has no content")
                    return None
                found.append(
                    {"role": str(message.get("role", "user")), "content": _jinja(message["content"])}
                )
            return {"id": name, "messages": found}
        return {"id": name, "text": _jinja(text)}

    # Providers

    def _models(self, listed: Any) -> Iterator[dict[str, Any]]:
        used: set[str] = set()
        for entry in [listed] if isinstance(listed, str | dict) else listed:
            config: Mapping[str, Any] = {}
            label = None
            if isinstance(entry, dict) and "id" not in entry and len(entry) == 1:
                name, inner = next(iter(entry.items()))  # {openai:gpt-4: {config: …}}
                entry = {"id": name, **(inner or {})}
            if isinstance(entry, dict):
                source, config, label = str(entry.get("id")), entry.get("config") or {}, entry.get("label")
                for key in entry.keys() - {"id", "config", "label"}:
                    self.leave(f"provider {source}: {key}", "has no counterpart here")
            else:
                source = str(entry)
            made = self._model(source, config)
            if made is not None:
                yield {"id": _unique(_id(label or source.replace(":", "-")), used), **made}

    def _model(self, source: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
        kind, _, rest = source.partition(":")
        params = {key: config[key] for key in config if key in _PARAMS}
        for key in config.keys() - _PARAMS - {"apiBaseUrl", "apiHost", "apiKeyEnvar", "apiKey"}:
            self.leave(
                f"provider {source}: {key}", "has no counterpart here; extra_body of the model may send it"
            )
        if config.get("apiKey"):
            self.leave(f"provider {source}: apiKey", "keys stand in no suite: name a variable by api_key_env")
        sub, _, name = rest.partition(":")
        if sub not in ("chat", "completion", "completions", "responses", "messages", "generate"):
            sub, name = "chat", rest
        common = {"model": name, **({"params": params} if params else {})}
        base = config.get("apiBaseUrl") or (
            f"https://{config['apiHost']}/v1" if config.get("apiHost") else None
        )
        completions = {"api": "completions"} if sub.startswith("completion") else {}
        if kind == "openai" and name:
            if base:
                variable = config.get("apiKeyEnvar")
                return {"provider": "openai_compatible", "base_url": base, **completions, **common,
                        **({"api_key_env": variable} if variable else {})}  # fmt: skip
            return {"provider": "openai", **completions, **common}
        if kind in _OPENAI_LIKE and name:
            own_key = _KEYS.get(kind)
            return {"provider": "openai_compatible", "base_url": base or _OPENAI_LIKE[kind], **common,
                    **({"api_key_env": own_key} if own_key else {})}  # fmt: skip
        if kind in _BY_LITELLM and name:
            return {"provider": "litellm", **common, "model": f"{_BY_LITELLM[kind]}/{name}"}
        why = (
            "is a program of its own: name it by provider: python"
            if kind in ("python", "exec", "file", "javascript", "package", "golang", "ruby")
            else "has no counterpart here"
        )
        self.leave(f"provider {source}", why)
        return None

    # Tests

    def _tests(self, tests: Any) -> list[dict[str, Any]]:
        if tests is None:
            return []
        if isinstance(tests, str):
            return self._test_file(tests)
        found: list[dict[str, Any]] = []
        test: Any
        for test in [tests] if isinstance(tests, dict) else tests:
            if isinstance(test, str):
                found += self._test_file(test)
            elif isinstance(test, dict) and "path" in test and "vars" not in test:
                found += self._test_file(str(test["path"]))
            elif isinstance(test, dict):
                found.append(test)
        return found

    def _test_file(self, name: str) -> list[dict[str, Any]]:
        path = name.removeprefix("file://")
        found: list[dict[str, Any]] = []
        paths = sorted(glob.glob(str(self.base / path)))  # noqa: PTH207
        if not paths:
            self.leave(
                f"tests {name}", "there is no such file" if "://" not in path else "is not on this machine"
            )
        for each in paths:
            file = Path(each)
            if file.suffix == ".csv":
                with file.open(encoding="utf-8-sig", newline="") as rows:
                    found += [_csv_test(row, self) for row in csv.DictReader(rows)]
            elif file.suffix == ".jsonl":
                lines = file.read_text(encoding="utf-8").splitlines()
                found += [json.loads(line) for line in lines if line.strip()]
            elif file.suffix in (".yaml", ".yml", ".json"):
                document = yaml.safe_load(file.read_text(encoding="utf-8"))
                found += self._tests(document)
            else:
                self.leave(f"tests {name}", "is made by code")
        return found

    def _loaded(self, name: str) -> dict[str, Any]:
        document = yaml.safe_load((self.base / name.removeprefix("file://")).read_text(encoding="utf-8"))
        return document if isinstance(document, dict) else {}

    def _rows(self, tests: Sequence[Mapping[str, Any]], default: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for key in default.keys() - {"vars", "assert", "threshold", "description", "metadata", "options"}:
            self.leave(f"defaultTest.{key}", "has no counterpart here")
        self._test_options(default.get("options"), "defaultTest")
        for at, test in enumerate(tests):
            for key in test.keys() - {"vars", "assert", "threshold", "description", "metadata", "options"}:
                self.leave(f"tests[{at}].{key}", "has no counterpart here")
            self._test_options(test.get("options"), f"tests[{at}]")
            values = {**self._vars(default.get("vars")), **self._vars(test.get("vars"))}
            checks = [*(default.get("assert") or ()), *(test.get("assert") or ())]
            threshold = test.get("threshold", default.get("threshold"))
            for number, combination in enumerate(_combinations(values)):
                rows.append({
                    "test": f"{at:04d}" + (f"-{number}" if number else ""),
                    "description": str(test.get("description") or ""),
                    **combination,
                    "assertions": [c for check in checks if (c := self._check(check, combination, at))],
                    "threshold": threshold,
                })  # fmt: skip
        return rows

    def _test_options(self, options: Any, where: str) -> None:
        for key in options or {}:
            self.leave(f"{where}.options.{key}", "has no counterpart here; parse: of the suite reads answers"
                       if key in ("transform", "postprocess") else "has no counterpart here")  # fmt: skip

    def _vars(self, given: Any) -> dict[str, Any]:
        if isinstance(given, str):
            given = self._loaded(given)
        found: dict[str, Any] = {}
        for name, value in (given or {}).items():
            if isinstance(value, str) and value.startswith("file://"):
                path = self.base / value.removeprefix("file://")
                if path.suffix in (".py", ".js", ".ts") or not path.is_file():
                    self.leave(
                        f"var {name}: {value}",
                        "is made by code"
                        if path.suffix in (".py", ".js", ".ts")
                        else "there is no such file",
                    )
                    value = ""
                else:
                    value = path.read_text(encoding="utf-8")
            found[str(name)] = value
        return found

    def _check(self, check: Any, values: Mapping[str, Any], at: int) -> dict[str, Any] | None:
        if isinstance(check, str):
            check = _expected(check)
        if not isinstance(check, dict) or "type" not in check:
            self.leave(f"tests[{at}].assert", "is no assertion")
            return None
        kind = str(check["type"])
        if kind == "llm-rubric" and isinstance(check.get("value"), str):
            self.rubrics.setdefault(at, []).append(str(_filled(check["value"], values)))
            return None
        kept = {key: check[key] for key in ("weight", "threshold", "metric") if check.get(key) is not None}
        for key in check.keys() - {
            "type",
            "value",
            "weight",
            "threshold",
            "metric",
            "assert",
            "provider",
            "config",
        }:
            self.leave(f"assertion {kind}: {key}", "has no counterpart here")
        if kind == SET:
            inner = [c for each in check.get("assert") or () if (c := self._check(each, values, at))]
            return {"type": SET, **kept, "assert": inner} if inner else None
        if kind.removeprefix("not-") not in CHECKS:
            self.leave(f"assertion {kind}", _why_not(kind))
            return None
        value = check.get("value")
        if isinstance(value, str) and value.startswith("file://"):
            path = self.base / value.removeprefix("file://")
            if path.suffix in (".py", ".js", ".ts") or not path.is_file():
                self.leave(
                    f"assertion {kind}: {value}",
                    "is code" if path.suffix in (".py", ".js", ".ts") else "there is no such file",
                )
                return None
            text = path.read_text(encoding="utf-8")
            value = yaml.safe_load(text) if path.suffix in (".json", ".yaml", ".yml") else text
        if (
            kind.removeprefix("not-") in ("is-json", "contains-json")
            and isinstance(value, str)
            and value.strip()
        ):
            value = yaml.safe_load(value)
        self.checks += 1
        return {"type": kind, **({"value": _filled(value, values)} if value is not None else {}), **kept}


def _why_not(kind: str) -> str:
    base = kind.removeprefix("not-")
    if base in MODEL_GRADED:
        return "a model grades it: add the scorer judge with the rubric's text"
    if base in ("similar",):
        return "needs a model of embeddings: add {threshold: {scorer: embedding}}"
    if base in ("cost", "latency"):
        metric = "cost.usd" if base == "cost" else "performance.e2e_s.p95"
        return f"cost and time are metrics of the run: add a gate on {metric}"
    if base in ("javascript", "python", "ruby", "webhook"):
        return "is code: name a function of yours by the scorer python"
    return "there is no such check here"


def _flat(checks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for check in checks:
        yield check
        yield from _flat(check.get("assert") or ())


def _combinations(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lists expand to every combination."""
    names = [name for name, value in values.items() if isinstance(value, list)]
    for chosen in product(*(values[name] for name in names)):
        yield {**values, **dict(zip(names, chosen, strict=True))}


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """An assertion's value with the test's variables filled in."""
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, values) for key, each in value.items()}
    if not isinstance(value, str) or "{{" not in value:
        return value
    from jinja2 import TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        return SandboxedEnvironment().from_string(_jinja(value)).render(**values)
    except TemplateError:
        return value


def _jinja(text: Any) -> Any:
    """A template of nunjucks as one of Jinja2: they differ in the name of a filter."""
    if not isinstance(text, str):
        return text
    return re.sub(r"\|\s*dump(\(\d*\))?", "| tojson", text)


def _messages(text: str) -> list[Any] | None:
    """The messages of a chat that is written as JSON or YAML; None for a plain text."""
    if not text.lstrip().startswith(("[", "- role")):
        return None
    for load in (json.loads, yaml.safe_load):
        try:
            document = load(text)
        except (ValueError, yaml.YAMLError):
            continue
        if isinstance(document, list) and document and all(isinstance(each, dict) for each in document):
            return document
    return None


def _csv_test(row: Mapping[str, Any], conversion: _Conversion) -> dict[str, Any]:
    test: dict[str, Any] = {"vars": {}, "assert": []}
    for name, value in row.items():
        if name is None or value is None:
            continue
        if re.fullmatch(r"__expected\d*", name):
            if value:
                test["assert"].append(_expected(value))
        elif name == "__threshold":
            test["threshold"] = float(value) if value else None
        elif name == "__description":
            test["description"] = value
        elif name == "__metric":
            for check in test["assert"]:
                check["metric"] = value
        elif name.startswith("__"):
            conversion.leave(f"column {name}", "has no counterpart here")
        else:
            test["vars"][name] = value
    return test


def _expected(text: str) -> dict[str, Any]:
    """`contains: x`, `levenshtein(3): x`, or a text that the answer must equal."""
    match = re.match(r"^(not-)?([a-z][a-z-]*[a-z])(?:\(([\d.]+)\))?(?::([\s\S]*))?$", text.strip())
    known = {
        *CHECKS,
        *MODEL_GRADED,
        "similar",
        "javascript",
        "fn",
        "python",
        "grade",
        "eval",
        "cost",
        "latency",
    }
    if (
        match is None
        or match[2] not in known
        or (
            match[4] is None
            and match[2] not in ("is-json", "is-xml", "is-sql", "is-refusal", "contains-json")
        )
    ):
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(match[2], match[2])
    value: Any = (match[4] or "").strip()
    if kind.endswith(("-any", "-all")):
        value = [part.strip() for part in value.split(",")]
    check: dict[str, Any] = {"type": (match[1] or "") + kind}
    if value not in ("", None):
        check["value"] = value
    if match[3]:
        check["threshold"] = float(match[3])
    return check


def _id(text: Any) -> str:
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-._")[:60]
    return made if made and made[0].isalnum() else f"x{made}"


def _unique(name: str, used: set[str]) -> str:
    made, number = name, 2
    while made.lower() in used:
        made, number = f"{name}-{number}", number + 1
    used.add(made.lower())
    return made


def written(converted: Converted, to: Path) -> list[Path]:
    """Write the suite and its rows beside it; the files."""
    from evalrun.suite.build import suite_text

    rows = to.with_name(f"{to.stem}.tests.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)
    converted.suite["datasets"][0]["path"] = rows.name
    rows.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in converted.rows), encoding="utf-8"
    )
    head = f"# Made by `evalrun import promptfoo` (SHA-256 of the configuration: {converted.digest}).\n"
    listed = "".join(f"# Not taken over: {each['what']}: {each['why']}\n" for each in converted.left_out)
    to.write_text(head + listed + suite_text(converted.suite), encoding="utf-8")
    return [to, rows]
