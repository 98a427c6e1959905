"""A promptfoo configuration as a suite: prompts, providers, tests; what has no counterpart is listed."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from evalrun.errors import UserError
from evalrun.scoring.scorers.assertions import CHECKS, SET
from evalrun.tasks.reading import as_list, as_mapping, as_number, as_whole, json_lines, parse_yaml, text_of

MODEL_GRADED = ("llm-rubric", "g-eval", "factuality", "model-graded-factuality", "model-graded-closedqa")
_PARAMS = {
    "temperature", "max_tokens", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty",
    "max_completion_tokens",
}  # fmt: skip
_TAKEN = {
    "description", "prompts", "providers", "targets", "tests", "defaultTest", "evaluateOptions", "tags",
    "$schema", "sharing", "outputPath", "env", "commandLineOptions",
}  # fmt: skip
_CODE = (".py", ".js", ".ts", ".mjs", ".cjs")
_NO_CHAT = {
    "embedding", "embeddings", "moderation", "image", "realtime", "assistant", "transcription", "speech",
    "audio", "video", "agents", "rerank",
}  # fmt: skip
_TYPES = {
    *CHECKS, *MODEL_GRADED, "agent-rubric", "answer-relevance", "classifier", "contains-html",
    "contains-sql", "context-faithfulness", "context-recall", "context-relevance",
    "conversation-relevance", "cost", "eval", "finish-reason", "fn", "gleu", "grade", "guardrails",
    "is-html", "is-valid-function-call", "is-valid-openai-function-call",
    "is-valid-openai-tools-call", "javascript", "latency", "max-score", "meteor", "moderation",
    "perplexity", "perplexity-score", "pi", "python", "ruby", "search-rubric", "select-best", "similar",
    "tool-call-f1", "trajectory", "webhook",
}  # fmt: skip
"""What stands before a colon in a cell of assertions; any other text is what the answer must equal."""
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
        self.columns: dict[str, str] = {}
        self.rubrics: dict[str, list[str]] = {}
        text = text_of(path)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        document = parse_yaml(text, path)
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
        default = self._loaded(default) if isinstance(default, str) else as_mapping(default, "defaultTest")
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
                for check in _flat(row[self.columns["assertions"]])
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
        checks = self.columns["assertions"]
        suite["datasets"] = [{"id": "tests", "path": "", "key": self.columns["test"]}]
        if any(row[checks] for row in rows):
            options: dict[str, Any] = {"metrics": metrics} if metrics else {}
            for option, name in (("column", "assertions"), ("threshold_column", "threshold")):
                if self.columns[name] != name:
                    options[option] = self.columns[name]
            suite["scorers"] = [{"assertions": options} if options else "assertions"]
            suite["gates"] = ["assertions.passed >= 1"]
        else:
            suite["scorers"] = [{"length": {"min": 1}}]
            self.leave(
                "tests without assertions",
                "nothing says what is right; the scorer asks for any answer at all",
            )
        self._judge(suite, rows)
        self._fill(prompts, rows)
        self._options(as_mapping(config.get("evaluateOptions") or {}, "evaluateOptions"), suite)
        tags = config.get("tags")
        if isinstance(tags, dict):
            suite["tags"] = {str(key): str(value) for key, value in tags.items()}
        columns = dict.fromkeys(name for row in rows for name in row)
        rows = [{name: row.get(name, "" if name != checks else []) for name in columns} for row in rows]
        return Converted(
            suite, rows, len(rows) + len(prompts) + len(models) + self.checks, self.left_out, self.digest
        )

    def _judge(self, suite: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Rubrics become a judge where every test has one; else some rows would be graded by nothing."""
        if not self.rubrics:
            return
        key, rubric = self.columns["test"], self.columns["rubric"]
        if any(not self.rubrics.get(row[key]) for row in rows):
            self.leave("assertion llm-rubric", "only some tests have one: " + _why_not("llm-rubric"))
            return
        for row in rows:
            row[rubric] = "\n".join(dict.fromkeys(self.rubrics[row[key]]))
        suite["judges"] = [{"id": "grader", "provider": "openai", "model": "gpt-4o-mini"}]
        suite["scorers"].append({"judge": {"model": "grader", "rubric": f"{{{{ {rubric} }}}}"}})
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
            suite["repeats"] = as_whole(options["repeat"], "evaluateOptions.repeat")
        if options.get("maxConcurrency"):
            most = as_whole(options["maxConcurrency"], "evaluateOptions.maxConcurrency")
            suite["performance"] = {"concurrency": most}
        if options.get("cache") is False:
            self.leave("evaluateOptions.cache", "run with --no-cache")
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
        for at, entry in enumerate([listed] if isinstance(listed, str) else as_list(listed, "prompts")):
            label = None
            if isinstance(entry, dict):
                label, source = entry.get("label"), entry.get("raw") or entry.get("id") or entry.get("file")
                if entry.get("function"):
                    self.leave(f"prompt {label or at}", "is made by a function")
                    continue
            else:
                source = entry
            if not isinstance(source, str):
                self.leave(f"prompt {label or at}", "has no text")
                continue
            for text, name in self._prompt_texts(source):
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
            why = "is made by code" if suffix in _CODE else "there is no such file"
            self.leave(f"prompt {source}", why)
        for name in paths:
            path = Path(name)
            if path.suffix in _CODE:
                self.leave(f"prompt {source}", "is made by code")
                continue
            text = text_of(path)
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
                for key in message.keys() - {"role", "content"}:
                    self.leave(f"prompt {name}: {key} of a message", "has no counterpart here")
                content = self._jinja(message["content"], f"prompt {name}")
                found.append({"role": str(message.get("role", "user")), "content": content})
            return {"id": name, "messages": found}
        return {"id": name, "text": self._jinja(text, f"prompt {name}")}

    # Providers

    def _models(self, listed: Any) -> Iterator[dict[str, Any]]:
        used: set[str] = set()
        for entry in [listed] if isinstance(listed, str | dict) else as_list(listed, "providers"):
            config: Mapping[str, Any] = {}
            label = None
            if isinstance(entry, dict) and "id" not in entry and len(entry) == 1:
                name, inner = next(iter(entry.items()))  # {openai:gpt-4: {config: …}}
                entry = {"id": name, **as_mapping(inner or {}, f"provider {name}")}
            if isinstance(entry, dict):
                source, label = str(entry.get("id")), entry.get("label")
                config = as_mapping(entry.get("config") or {}, f"provider {source}: config")
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
        if sub in _NO_CHAT:
            self.leave(f"provider {source}", "is no model of chats or completions")
            return None
        if sub == "responses":
            self.leave(f"provider {source}: responses", "is asked by chat completions")
        if sub not in ("chat", "completion", "completions", "responses", "messages", "generate"):
            sub, name = "chat", rest
        common = {"model": name, **({"params": params} if params else {})}
        if config.get("apiKeyEnvar"):
            common["api_key_env"] = str(config["apiKeyEnvar"])
        base = config.get("apiBaseUrl") or (
            f"https://{config['apiHost']}/v1" if config.get("apiHost") else None
        )
        completions = {"api": "completions"} if sub.startswith("completion") else {}
        if kind == "openai" and name:
            if base:
                return {"provider": "openai_compatible", "base_url": base, **completions, **common}
            return {"provider": "openai", **completions, **common}
        if kind in _OPENAI_LIKE and name:
            own_key = _KEYS.get(kind)
            return {"provider": "openai_compatible", "base_url": base or _OPENAI_LIKE[kind],
                    **({"api_key_env": own_key} if own_key else {}), **common}  # fmt: skip
        if kind in _BY_LITELLM and name:
            if base:
                self.leave(f"provider {source}: {base}", "LiteLLM's own variables name another address")
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
        for test in [tests] if isinstance(tests, dict) else as_list(tests, "tests"):
            if isinstance(test, str):
                found += self._test_file(test)
            elif isinstance(test, dict) and "path" in test and "vars" not in test:
                found += self._test_file(str(test["path"]))
            elif isinstance(test, dict):
                found.append(test)
            else:
                self.leave(f"test {str(test)[:60]}", "is no test")
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
                rows = csv.DictReader(io.StringIO(text_of(file), newline=""))
                found += [_csv_test(row, self, f"{file}:{rows.line_num}") for row in rows]
            elif file.suffix == ".jsonl":
                found += list(json_lines(file))
            elif file.suffix in (".yaml", ".yml", ".json"):
                found += self._tests(parse_yaml(text_of(file), file))
            else:
                self.leave(f"tests {name}", "is made by code")
        return found

    def _loaded(self, name: str) -> dict[str, Any]:
        path = self.base / name.removeprefix("file://")
        return as_mapping(parse_yaml(text_of(path), path), str(path))

    def _rows(self, tests: Sequence[Mapping[str, Any]], default: Mapping[str, Any]) -> list[dict[str, Any]]:
        default_vars = self._vars(default.get("vars"))
        every = [{**default_vars, **self._vars(test.get("vars"))} for test in tests]
        self.columns = _columns({name for values in every for name in values})
        rows = []
        for key in default.keys() - {"vars", "assert", "threshold", "description", "options"}:
            self.leave(f"defaultTest.{key}", "has no counterpart here")
        self._test_options(default.get("options"), "defaultTest")
        for at, test in enumerate(tests):
            for key in test.keys() - {"vars", "assert", "threshold", "description", "options"}:
                self.leave(f"tests[{at}].{key}", "has no counterpart here")
            self._test_options(test.get("options"), f"tests[{at}]")
            checks = [*as_list(default.get("assert"), "defaultTest.assert")]
            checks += as_list(test.get("assert"), f"tests[{at}].assert")
            threshold = test.get("threshold", default.get("threshold"))
            for number, values in enumerate(_combinations(every[at])):
                row = f"{at:04d}" + (f"-{number}" if number else "")
                own = {
                    "test": row,
                    "description": str(test.get("description") or ""),
                    "assertions": [c for check in checks if (c := self._check(check, values, at, row))],
                    "threshold": threshold,
                }
                rows.append({**{self.columns[name]: value for name, value in own.items()}, **values})
        return rows

    def _test_options(self, options: Any, where: str) -> None:
        for key in as_mapping(options or {}, f"{where}.options"):
            self.leave(f"{where}.options.{key}", "has no counterpart here; parse: of the suite reads answers"
                       if key in ("transform", "postprocess") else "has no counterpart here")  # fmt: skip

    def _vars(self, given: Any) -> dict[str, Any]:
        if isinstance(given, str):
            given = self._loaded(given)
        named = as_mapping(given or {}, "vars").items()
        return {str(name): self._var(str(name), value) for name, value in named}

    def _var(self, name: str, value: Any) -> Any:
        """A value; of `file://` what the file has, of a pattern that of each file, as a list."""
        if not isinstance(value, str) or not value.startswith("file://"):
            return value
        paths = sorted(glob.glob(str(self.base / value.removeprefix("file://"))))  # noqa: PTH207
        if not paths or any(Path(path).suffix in _CODE for path in paths):
            self.leave(f"var {name}: {value}", "is made by code" if paths else "there is no such file")
            return ""
        texts = []
        for path in map(Path, paths):
            text = text_of(path)
            of_yaml = path.suffix in (".yaml", ".yml")
            texts.append(json.dumps(parse_yaml(text, path), default=str) if of_yaml else text.strip())
        return texts if len(texts) > 1 else texts[0]

    def _filled(self, value: Any, values: Mapping[str, Any]) -> Any:
        """An assertion's value with the test's variables filled in."""
        if isinstance(value, list):
            return [self._filled(part, values) for part in value]
        if isinstance(value, dict):
            return {key: self._filled(part, values) for key, part in value.items()}
        if not isinstance(value, str) or "{{" not in value:
            return value
        from jinja2 import TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        try:
            return SandboxedEnvironment().from_string(self._jinja(value, "assertion")).render(**values)
        except (TemplateError, TypeError, ValueError) as error:
            self.leave(f"variables in '{value[:60]}'", f"it stands as it is written: {error}")
            return value

    def _jinja(self, text: Any, where: str) -> Any:
        """A template of nunjucks as one of Jinja2: they differ in the name of a filter."""
        if not isinstance(text, str):
            return text
        from jinja2.filters import FILTERS

        made = re.sub(r"\|\s*dump(\(\d*\))?", "| tojson", text)
        inside = " ".join(re.findall(r"\{[{%](.*?)[%}]\}", made, flags=re.DOTALL))
        for name in re.findall(r"\|\s*([A-Za-z_]\w*)", inside):
            if name not in FILTERS:
                self.leave(f"{where}: filter {name}", "Jinja2 has none of that name")
        return made

    def _check(self, check: Any, values: Mapping[str, Any], at: int, row: str) -> dict[str, Any] | None:
        if isinstance(check, str):
            check = _expected(check)
        if not isinstance(check, dict) or "type" not in check:
            self.leave(f"tests[{at}].assert", "is no assertion")
            return None
        kind = str(check["type"])
        if kind == "llm-rubric" and isinstance(check.get("value"), str):
            self.rubrics.setdefault(row, []).append(str(self._filled(check["value"], values)))
            for key in check.keys() - {"type", "value"}:
                self.leave(
                    f"assertion {kind}: {key}", "the judge is a scorer of its own, alike for each test"
                )
            return None
        kept = {key: check[key] for key in ("weight", "threshold", "metric") if check.get(key) is not None}
        for key in check.keys() - {
            "type",
            "value",
            "weight",
            "threshold",
            "metric",
            "assert",
        }:
            self.leave(f"assertion {kind}: {key}", "has no counterpart here")
        if kind == SET:
            parts = as_list(check.get("assert"), "assert-set")
            inner = [made for part in parts if (made := self._check(part, values, at, row))]
            if len(inner) < len(parts):
                self.leave("assertion assert-set", "a part is not taken over: the rest decides it alone")
            return {"type": SET, **kept, "assert": inner} if inner else None
        if kind.removeprefix("not-") not in CHECKS:
            self.leave(f"assertion {kind}", _why_not(kind))
            return None
        value = check.get("value")
        if isinstance(value, str) and value.startswith("file://"):
            path = self.base / value.removeprefix("file://")
            if path.suffix in _CODE or not path.is_file():
                self.leave(
                    f"assertion {kind}: {value}",
                    "is code" if path.suffix in _CODE else "there is no such file",
                )
                return None
            text = text_of(path)
            value = parse_yaml(text, path) if path.suffix in (".json", ".yaml", ".yml") else text
        if (
            kind.removeprefix("not-") in ("is-json", "contains-json")
            and isinstance(value, str)
            and value.strip()
        ):
            value = parse_yaml(value, self.path)
        self.checks += 1
        return {"type": kind, **({"value": self._filled(value, values)} if value is not None else {}), **kept}


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


def _is_text(first: Sequence[Any]) -> bool:
    return bool(first) and isinstance(first[0], str)


def _combinations(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lists of texts expand to every combination; any other list is one value."""
    names = [name for name, value in values.items() if isinstance(value, list) and _is_text(value[:1])]
    for chosen in product(*(values[name] for name in names)):
        yield {**values, **dict(zip(names, chosen, strict=True))}


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


def _csv_test(row: Mapping[str, Any], conversion: _Conversion, where: str) -> dict[str, Any]:
    test: dict[str, Any] = {"vars": {}, "assert": []}
    for name, value in row.items():
        if name is None or value is None:
            continue
        if re.fullmatch(r"__expected\d*", name):
            if value:
                test["assert"].append(_expected(value))
        elif name == "__threshold":
            test["threshold"] = as_number(value, where) if value else None
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
    alone = ("is-json", "is-xml", "is-sql", "is-refusal", "contains-json")
    if match is None or match[2] not in _TYPES or (match[4] is None and match[2] not in alone):
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(match[2], match[2])
    value: Any = (match[4] or "").strip()
    if kind.endswith(("-any", "-all")):
        value = [part.strip() for part in value.split(",")]
    check: dict[str, Any] = {"type": (match[1] or "") + kind}
    if value not in ("", None):
        check["value"] = value
    if match[3]:
        check["threshold"] = as_number(match[3], text)
    return check


def _columns(taken: AbstractSet[str]) -> dict[str, str]:
    """Names of the columns that are ours, apart from the variables."""
    found = {}
    for name in ("test", "description", "assertions", "threshold", "rubric"):
        own = name
        while own in taken:
            own = f"{own}_"
        found[name] = own
    return found


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
