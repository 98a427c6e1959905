"""A vLLM of our own: what a suite says of it, and how that becomes a child process and an identity."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.providers.base import Pinned, ProviderOptions
from evalrun.providers.engine import vllm_figures
from evalrun.providers.http_provider import ManagedEngine, http_address
from evalrun.types import JSON, ErrorKind, ProviderError

if TYPE_CHECKING:
    from evalrun.providers.base import ProviderContext
    from evalrun.providers.engine import Engine
    from evalrun.suite.components import ModelSpec

PYTHON_VARIABLE = "EVALRUN_VLLM_PYTHON"
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".gguf", ".json", ".jinja", ".model", ".txt"})
_OF_TRAINING = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|trainer_state|training_args|all_results|\w+_results)\b"
)
"""What a training leaves beside the weights, for itself: it shapes no answer."""
_EXCEPTION_LINE = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception): .+)$")
_SAID_OF_OTHERS = ("Engine core initialization failed", "EngineDeadError")
_NO_CAUSES = (" WARNING ", " INFO ", "DeprecationWarning")
_DIED = "exited unexpectedly"
_LOG_PREFIX = re.compile(r"^(\([^)]*\) )?(INFO|WARNING|ERROR) \S+ \S+ (\[[^\]]*\] )*")
_LOG_BYTES = 262_144
Mode = Literal["server", "attach", "offline"]


class VLLMOptions(ProviderOptions):
    """What a model entry with `provider: vllm` may say besides the common keys.

    `model` is a folder of weights (relative to the suite) or a name on the Hugging Face Hub; with
    `mode: attach` the name under which the server knows it, by default its only one.
    """

    mode: Mode | None = Field(
        default=None,
        description="server: start vLLM's server and stop it afterwards; attach: ask one that runs at "
        "base_url; offline: no server, LLM.chat or LLM.generate on whole batches. "
        "Default: attach where base_url is given, else server.",
    )
    base_url: str | None = Field(
        default=None, description="For attach: address of the API, such as http://127.0.0.1:8000/v1."
    )
    api_key_env: str | None = Field(
        default=None, description="For attach: name of the environment variable that holds the key."
    )
    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="chat puts messages through the model's chat template; completions sends raw text.",
    )
    python: str | None = Field(
        default=None,
        description=f"The Python interpreter that has vLLM. Default: {PYTHON_VARIABLE}, else the "
        "one that runs evalrun.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="vLLM's engine arguments by their Python names: {max_model_len: 4096, dtype: bfloat16, "
        "tensor_parallel_size: 2, enforce_eager: true}.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables for the engine, such as {CUDA_VISIBLE_DEVICES: '0'}.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="For server and attach: fields added to every request as they are.",
    )
    batch: int = Field(
        default=4096, ge=1, description="For offline: the most samples that the engine is given at once."
    )
    startup_timeout_s: float = Field(
        default=900, gt=0, strict=False, description="Seconds that loading and compiling may take."
    )

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)

    @model_validator(mode="after")
    def _fits_together(self) -> VLLMOptions:
        if self.resolved_mode == "attach":
            if self.base_url is None:
                raise ValueError("mode: attach needs base_url")
            if self.engine_args or self.env or self.python:
                raise ValueError("python, engine_args and env are for an engine of our own, not for attach")
        elif self.base_url is not None or self.api_key_env is not None:
            raise ValueError("base_url and api_key_env are for mode: attach")
        if self.resolved_mode == "offline" and self.extra_body:
            raise ValueError("extra_body is for requests to a server; offline, use params")
        return self

    @property
    def resolved_mode(self) -> Mode:
        """The mode in force."""
        return self.mode or ("attach" if self.base_url is not None else "server")


class VLLMEngine(ManagedEngine, Pinned):
    """What the providers of a vLLM of our own have in common."""

    spec: ModelSpec
    context: ProviderContext
    options: VLLMOptions
    engine_args: dict[str, JSON]
    figures = staticmethod(vllm_figures)

    def pins(self) -> dict[str, JSON]:
        if self.options.resolved_mode == "attach" or self.spec.model is None:
            return {}
        return self.weights()

    def weights(self) -> dict[str, JSON]:
        """What pins the weights."""
        model = model_argument(self.spec, self.context)
        return weights_identity(model, self.engine_args.get("revision"))

    def engine_identity(self) -> dict[str, JSON]:
        """What of the engine shapes an answer, beside its version."""
        from evalrun.secrets import scrub_json

        arguments, env = scrub_json(self.engine_args), scrub_json(self.options.env)
        return {**self.weights(), "engine_args": arguments, "env": env}

    async def launch(self, mode: str, key: Mapping[str, str], **config: JSON) -> dict[str, Any]:
        """Start `vllm_child` in a mode, with a key in its environment. What it announced.

        Raises UserError (exit 3) with the cause that its log names, else the log's end.
        """
        from evalrun.providers.engine import Engine, EngineCommand

        spec, context, options = self.spec, self.context, self.options
        python = interpreter(options, spec, context.base_dir, os.environ)
        model = model_argument(spec, context)
        config = {"mode": mode, "parent_pid": os.getpid(), "model": model, **config}
        child = str(Path(__file__).with_name("vllm_child.py"))
        self.engine = Engine(
            EngineCommand(
                name="vllm",
                argv=(python, child, orjson.dumps(config).decode()),
                log_path=context.work_dir / f"engine-{spec.id}.log",
                startup_timeout_s=options.startup_timeout_s,
                env={**engine_environment(options), **key},
                remedy="The log says more. See that the model is whole and that memory suffices.",
            )
        )
        return await started(self.engine)

    async def death(self, patience_s: float) -> ProviderError | None:
        """The ENGINE error for an engine that is gone, with its log's last lines; None while it runs."""
        return None if self.engine is None else await death_of(self.engine, patience_s)


async def started(engine: Engine) -> dict[str, Any]:
    """Start an engine. What it announced. Raises UserError (exit 3) with the cause that its log names, else
    the log's end."""
    try:
        return await engine.start()
    except UserError as error:
        cause = root_cause(engine.command.log_path)
        if cause is None:
            raise
        problems = [
            Problem(
                f"{problem.what.partition('; its log ends')[0]}; cause: {cause}",
                problem.where,
                problem.remedy,
            )
            for problem in error.problems
        ]
        raise UserError(problems, exit_code=error.exit_code) from error


async def death_of(engine: Engine, patience_s: float) -> ProviderError | None:
    """The ENGINE error for an engine that is gone, with its log's last lines; None while it runs."""
    from evalrun.providers.faults import shorten

    path = engine.command.log_path
    reason = await engine.failure(patience_s)
    if reason is None:
        return None
    cause = root_cause(path)
    return ProviderError(ErrorKind.ENGINE, shorten(f"{cause}; {reason}" if cause else reason))


def effective_engine_args(options: VLLMOptions, deterministic: bool) -> dict[str, JSON]:
    """The engine arguments in force. `deterministic` means: one request at a time, nothing reused.

    Raises UserError where the suite's own arguments contradict that.
    """
    if not deterministic:
        return dict(options.engine_args)
    fixed: dict[str, JSON] = {"max_num_seqs": 1, "enable_prefix_caching": False}
    for name, value in fixed.items():
        if options.engine_args.get(name, value) != value:
            raise UserError(
                f"deterministic: true needs {name}: {orjson.dumps(value).decode()}",
                remedy=f"Leave {name} out of engine_args, or drop deterministic.",
            )
    return {**options.engine_args, **fixed}


def flags(engine_args: Mapping[str, JSON]) -> list[str]:
    """Engine arguments as those of the command line: {max_model_len: 8, enforce_eager: true} becomes
    `--max-model-len 8 --enforce-eager`. false is `--no-…`, null is left out, mappings are JSON."""
    words: list[str] = []
    for name, value in engine_args.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, list):
            words += [flag, *map(_word, value)]
        else:
            words += [flag, _word(value)]
    return words


def _word(value: JSON) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def model_argument(spec: ModelSpec, context: ProviderContext) -> str:
    """What vLLM is given as its model: the folder's path where there is one, else the Hub's name."""
    if spec.model is None:
        raise UserError(
            "'model' is missing",
            where=f"model {spec.id}",
            remedy="Name a folder of weights, or a model of the Hugging Face Hub.",
        )
    folder = context.base_dir / Path(spec.model).expanduser()
    return str(folder.resolve()) if folder.exists() else spec.model


def interpreter(options: VLLMOptions, spec: ModelSpec, base_dir: Path, env: Mapping[str, str]) -> str:
    """The interpreter that has vLLM. Raises UserError (exit 3) with a remedy when there is none."""
    named, origin = options.python, "python"
    if named is None:
        named, origin = env.get(PYTHON_VARIABLE, "").strip() or None, PYTHON_VARIABLE
    if named is None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "vLLM is not installed beside evalrun",
                where=f"model {spec.id}",
                remedy=f"Run: pip install 'vllm>=0.16', or set {PYTHON_VARIABLE}"
                " to an interpreter that has it.",
                exit_code=ExitCode.INCOMPLETE,
            )
        return sys.executable
    relative = base_dir / Path(named).expanduser()
    program = str(relative) if os.sep in named and os.access(relative, os.X_OK) else shutil.which(named)
    if program is None:
        raise UserError(
            f"{origin} names no program that can be run: {named}",
            where=f"model {spec.id}",
            remedy="Give the path of a Python interpreter in which vLLM is installed.",
            exit_code=ExitCode.INCOMPLETE,
        )
    return program


def engine_environment(options: VLLMOptions) -> dict[str, str]:
    """Variables for the engine: no telemetry, and what the suite adds."""
    return {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", **options.env}


def weights_identity(model: str, revision: str | None) -> dict[str, JSON]:
    """What pins the weights: a digest over a folder's files, or the commit in the Hub's cache."""
    path = Path(model)
    if path.exists():
        return {"weights_sha256": _folder_sha256(path), **_tokenizer_identity(path)}
    return {"revision": revision or "main", "commit": _hub_commit(model, revision or "main")}


def _folder_sha256(path: Path) -> str:
    from evalrun.providers.downloads import file_sha256

    digest = hashlib.sha256()
    for file in sorted(_weight_files(path)):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _tokenizer_identity(path: Path) -> dict[str, JSON]:
    """Digests of the tokenizer and of the chat template in a folder of weights, where it has them."""
    digests: dict[str, JSON] = {}
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path / name).is_file():
            digests["tokenizer_sha256"] = hashlib.sha256((path / name).read_bytes()).hexdigest()
            break
    template = None
    with contextlib.suppress(OSError, ValueError):
        if (path / "chat_template.jinja").is_file():
            template = (path / "chat_template.jinja").read_text("utf-8")
        else:
            template = orjson.loads((path / "tokenizer_config.json").read_bytes()).get("chat_template")
    if template is not None:
        text = template if isinstance(template, str) else orjson.dumps(template).decode()
        digests["chat_template_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def _weight_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for entry in path.iterdir():
        if entry.is_file() and entry.suffix in _WEIGHT_SUFFIXES and not _OF_TRAINING.match(entry.name):
            yield entry


def _hub_commit(name: str, revision: str) -> str | None:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = cache / f"models--{name.replace('/', '--')}"
    try:
        return (folder / "refs" / revision).read_text().strip()
    except OSError:
        return revision if (folder / "snapshots" / revision).exists() else None


def root_cause(log_path: Path) -> str | None:
    """The first exception in the last part of an engine's log that says what happened, and not only that
    something did; else the last line that says so much."""
    from evalrun.providers.faults import shorten

    fallback = None
    for line, following in pairwise([*_log_end(log_path), ""]):
        match = _EXCEPTION_LINE.search(line)
        if match and not any(words in line for words in (*_NO_CAUSES, *_SAID_OF_OTHERS)):
            more = _LOG_PREFIX.sub("", following) if "validation error" in line else ""
            return shorten(f"{match[1]} {more}")
        if (match and any(words in line for words in _SAID_OF_OTHERS)) or _DIED in line:
            fallback = shorten(_LOG_PREFIX.sub("", match[1] if match else line))
    return fallback


def _log_end(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
