"""What a suite says of parsers, scorers and models: entries whose keys an extension defines.

A parser or scorer is written by name (`exact_match`), by name and arguments (`{regex: "Label: (\\w+)"}`,
`{numeric: {tolerance: 0.01}}`) or as code of one's own (`{python: "package.module:attribute"}`).
A model entry holds the provider's options beside its own keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from evalrun import registry
from evalrun.errors import UserError
from evalrun.suite.checkpoints import CheckpointSpec, CheckpointsSpec
from evalrun.suite.findings import (
    DataPath,
    Finding,
    complaint,
    complaints,
    describe,
    did_you_mean,
    from_pydantic,
    known_keys,
)
from evalrun.suite.values import LimitsSpec, PriceSpec, ResourcesSpec, Spec
from evalrun.types import JSON

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PYTHON = "python"
"""The name under which a suite brings code of its own."""

GENERATION_PARAMETERS = frozenset(
    {"temperature", "max_tokens", "top_p", "top_k", "min_p", "stop", "seed", "frequency_penalty"}
    | {"presence_penalty", "repeat_penalty", "logit_bias", "logprobs", "n", "max_completion_tokens"}
)
"""Names that people put beside `model` although they belong under `params`; used for a hint only."""


def _check_id(value: str) -> str:
    allowed = value[:1].isalnum() and value.isascii() and all(c.isalnum() or c in "._-" for c in value)
    if allowed and len(value) <= 100:
        return value
    raise complaint(
        f"{describe(value)} cannot be used as a name",
        "Begin with a letter or digit; then letters, digits, '.', '_' and '-', at most 100 in all.",
    )


Id = Annotated[
    str, AfterValidator(_check_id), Field(json_schema_extra={"pattern": ID_PATTERN, "maxLength": 100})
]
"""A name that may stand in file names and dotted paths."""


def _check_model_id(value: str) -> str:
    base, at, step = value.partition("@")
    if at and step.isdecimal() and step.isascii():
        _check_id(base)
        return value
    return _check_id(value)


ModelId = Annotated[
    str,
    AfterValidator(_check_model_id),
    Field(json_schema_extra={"pattern": ID_PATTERN.removesuffix("$") + r"(@[0-9]+)?$", "maxLength": 100}),
]
"""The same, or with the step of a checkpoint behind it: triage@500."""


ELSE = "else"
"""The option of every parser: what its answer is where it finds nothing."""


class NoOptions(Spec):
    """The options of a thing that has none."""


class FunctionArguments(BaseModel):
    """The keyword arguments of a plain function named by `python`."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class ModelSpec(Spec):
    """One model: who serves it and how it is asked. The provider's own keys stand beside these."""

    id: ModelId = Field(description="Name of the model in this suite, in results and on the command line.")
    provider: str = Field(description="The adapter that asks the model: see the providers below.")
    model: str | None = Field(default=None, description="Name of the model as the provider knows it.")
    params: dict[str, JSON] = Field(
        default_factory=dict,
        description="Generation parameters, passed on as they are: temperature, max_tokens, top_p, stop, ...",
    )
    price: PriceSpec | None = Field(
        default=None, description="Prices, for the cost of each sample. Without them no cost is shown."
    )
    limits: LimitsSpec | None = Field(
        default=None,
        description="Requests and tokens a minute that the endpoint allows. Default: as many as it bears.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests in flight for this model at most. Default: performance.concurrency.",
    )
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that a sample may take for this model, retries included. "
        "Default: performance.timeout_s.",
    )
    resources: ResourcesSpec | None = Field(
        default=None, description="What a cluster sets aside for the model: see --on."
    )
    checkpoints: CheckpointsSpec | None = Field(
        default=None, description="The checkpoints of a training: the model becomes one for each, ID@STEP."
    )
    checkpoint: CheckpointSpec | None = Field(
        default=None, description="Which checkpoint of a training the model is; `checkpoints` says it itself."
    )
    mlflow: str | None = Field(
        default=None,
        pattern=r"^[^/]+/[0-9]+$",
        description="The version in MLflow's model registry that this is, NAME/VERSION: `evalrun promote` "
        "gives it the promotion's name as an alias, through the sink `mlflow`.",
    )
    allow_unknown: bool = Field(
        default=False,
        exclude=True,
        description="Send parameters that evalrun does not know of this provider. Without it they are "
        "refused, since most servers pass over what is mistyped.",
    )
    options: SerializeAsAny[BaseModel] = Field(
        default_factory=NoOptions, exclude=True, description="The provider's own options, validated."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _with_options(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Split an entry into the common keys and the provider's, and validate both, all problems at once."""
        if not isinstance(data, dict) or isinstance(data.get("options"), BaseModel):
            return handler(data)
        own = [*known_keys(cls), "allow_unknown"]  # which is kept nowhere: it changes nothing that is sent
        common = {key: value for key, value in data.items() if key in own}
        rest = {key: value for key, value in data.items() if key not in own}
        options, findings = _provider_options(data, rest, own)
        try:
            spec = handler({**common, "options": options})
        except ValidationError as error:
            findings += from_pydantic(error.errors(), data, cls, owner=_owner(data))
        if findings:
            raise complaints(findings)
        return spec

    def resolved(self) -> dict[str, JSON]:
        """The entry as a suite has it, with every default written out."""
        entry = {**self.model_dump(mode="json"), **self.options.model_dump(mode="json")}
        for key in ("resources", "checkpoints", "checkpoint", "mlflow"):  # few models have any
            if entry[key] is None:
                del entry[key]
        if entry.get("batch") is False:  # few models are asked in batches
            del entry["batch"]
        if self.price is not None:
            entry["price"] = self.price.model_dump(mode="json", exclude_none=True)
        return entry


def _owner(data: Mapping[str, Any]) -> str:
    return f"model '{data['id']}'" if isinstance(data.get("id"), str) else ""


def _provider_options(
    data: Mapping[str, Any], rest: dict[str, Any], own: list[str]
) -> tuple[BaseModel, list[Finding]]:
    name = data.get("provider")
    if not isinstance(name, str):
        return NoOptions(), []  # the missing or mistyped provider is reported with the common keys
    provider, findings = _load(partial(registry.load, "provider", name), ("provider",))
    if findings:
        return NoOptions(), findings
    return validate_options(provider.Options, rest, also_known=own, owner=f"{_owner(data)} (provider {name})")


def validate_options(
    options: type[BaseModel], data: dict[str, Any], *, also_known: list[str], owner: str
) -> tuple[BaseModel, list[Finding]]:
    """The options that the data give, or an empty stand-in and what is wrong."""
    try:
        return options.model_validate(data), []
    except ValidationError as error:
        found = from_pydantic(error.errors(), data, options, also_known=also_known, owner=owner.strip())
    return NoOptions(), [_parameter_hint(item) if also_known else item for item in found]


def _parameter_hint(item: Finding) -> Finding:
    if item.at_key and item.path[-1] in GENERATION_PARAMETERS:
        return Finding(
            item.path,
            item.what,
            f"Generation parameters stand under 'params': params: {{{item.path[-1]}: ...}}.",
            True,
        )
    return item


def _load(load: Callable[[], Any], path: DataPath) -> tuple[Any, list[Finding]]:
    """What a loader gives, or findings: importing runs other people's code, which may fail in any way."""
    try:
        return load(), []
    except UserError as error:
        return None, [Finding(path, problem.what, problem.remedy) for problem in error.problems]
    except Exception as error:
        what = f"importing it failed: {type(error).__name__}: {error}"
        return None, [Finding(path, what, "Fix that code, or name another.")]


class ComponentSpec(Spec):
    """A parser or scorer: its name, its arguments as the suite gives them, and these validated."""

    kind: ClassVar[registry.Kind]

    name: str
    args: dict[str, JSON] = Field(default_factory=dict)
    target: str | None = None
    """For `python`: what to import, as package.module:attribute."""
    options: SerializeAsAny[BaseModel] = Field(default_factory=NoOptions)

    @model_validator(mode="wrap")
    @classmethod
    def _from_entry(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept any of the written forms, and validate the arguments by the component's Options."""
        if isinstance(data, cls) or (isinstance(data, dict) and isinstance(data.get("options"), BaseModel)):
            return handler(data)
        if not isinstance(data, str | dict):
            raise complaint(f"expected the name of a {cls.kind}, found {describe(data)}")
        name, value, path = _written_form(cls.kind, data)
        fields, findings = (
            _python_component(value, data) if name == PYTHON else _registered(cls.kind, name, value, path)
        )
        if findings:
            raise complaints(findings)
        return handler(fields)

    @property
    def id(self) -> str:
        """The name in score columns and results: the option `name`, the function's, or the registered one."""
        given = getattr(self.options, "name", None)
        if isinstance(given, str) and given:
            return given
        return self.target.rpartition(":")[2].strip("_").lower() if self.target else self.name

    def build(self) -> Any:
        """The component, ready for use: an instance made from the options.

        For `python` with a plain function: that function, with its arguments bound. Whoever uses it wraps it.
        """
        target = self.target
        made = _imported(target) if target else registry.load(self.kind, self.name)
        if hasattr(made, "Options"):
            return made(self.options)
        return partial(made, **self.args) if self.args else made

    def resolved(self) -> dict[str, JSON]:
        """The entry as a suite has it, with every default written out."""
        arguments = self.options.model_dump(mode="json")
        return {PYTHON: self.target, "args": arguments} if self.target else {self.name: arguments}


class ParserSpec(ComponentSpec):
    """A step from raw output to answer. `otherwise` holds, alone in a list, the option `else`: the answer
    where the parser finds nothing."""

    kind = "parser"

    otherwise: list[JSON] = Field(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _with_else(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict) or len(data) != 1:
            return handler(data)
        name, value = next(iter(data.items()))
        if not isinstance(value, dict) or ELSE not in value:
            return handler(data)
        rest = {key: each for key, each in value.items() if key != ELSE}
        return handler({name: rest} if rest else name).model_copy(update={"otherwise": [value[ELSE]]})

    def build(self) -> Any:
        """The parser, which knows its `else`."""
        made = super().build()
        if self.otherwise:
            made.otherwise = tuple(self.otherwise)
        return made

    def resolved(self) -> dict[str, JSON]:
        """The entry as a suite has it, with every default written out."""
        entry = super().resolved()
        if self.otherwise and isinstance(entry.get(self.name), dict):
            entry[self.name] = {**entry[self.name], ELSE: self.otherwise[0]}
        return entry


Chain = Annotated[
    list[ParserSpec],
    WithJsonSchema(
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}, "default": []}
    ),
]
"""Parsers one after the other, each in any of the forms that a suite's `parse` takes."""


class ScorerSpec(ComponentSpec):
    """A function of one sample: answer and target to a score with a reason."""

    kind = "scorer"


class SinkSpec(ComponentSpec):
    """A tool that results go to after the sweep."""

    kind = "sink"


def _written_form(kind: str, data: str | dict[str, Any]) -> tuple[str, Any, DataPath]:
    """Name, value and the value's path of an entry in any of its forms."""
    if isinstance(data, str):
        return data, None, ()
    if "name" in data and set(data) <= {"name", "args"} and isinstance(data["name"], str):
        return data["name"], data.get("args"), ("args",) if "args" in data else ()
    if PYTHON in data and set(data) <= {PYTHON, "args"}:
        return PYTHON, data[PYTHON], (PYTHON,)
    for name in ("evaluate", "hub") if kind == "scorer" and len(data) > 1 else ():
        if isinstance(data.get(name), str):
            return name, {"metric": data[name], **{key: data[key] for key in data if key != name}}, ()
    if len(data) == 1:
        name, value = next(iter(data.items()))
        return name, value, (name,)
    first = next(iter(data), "name")
    raise complaint(
        f"a {kind} is one name with its options, found a mapping with {len(data)} keys",
        f"Indent the options under the name: {{{first}: {{option: value}}}}.",
    )


def _registered(
    kind: registry.Kind, name: str, value: Any, path: DataPath
) -> tuple[dict[str, Any], list[Finding]]:
    component, findings = _load(partial(registry.load, kind, name), path)
    if findings:
        return {}, [Finding(item.path, item.what, item.remedy, at_key=True) for item in findings]
    short: str | None = None
    if isinstance(value, dict):
        arguments = value
    elif value is None:
        arguments = {}
    elif (short := component.shorthand) is not None:
        arguments = {short: value}
    else:
        what = f"{kind} '{name}' takes a mapping of options, found {describe(value)}"
        return {}, [Finding(path, what, _options_remedy(component.Options, name))]
    options, findings = validate_options(
        component.Options, arguments, also_known=[], owner=f"{kind} '{name}'"
    )
    fields = {"name": name, "args": arguments, "options": options}
    return fields, [_at(item, path, short) for item in findings]


def _at(item: Finding, path: DataPath, short: str | None) -> Finding:
    """Where a finding about an option stands in the entry: a short form has no key for the option."""
    inner = item.path[1:] if short is not None and item.path[:1] == (short,) else item.path
    return Finding((*path, *inner), item.what, item.remedy, item.at_key)


def _options_remedy(options: type[BaseModel], name: str) -> str:
    keys = known_keys(options)
    return f"Its options: {', '.join(keys)}." if keys else f"It has none: write {name}."


def _python_component(target: Any, data: str | dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    arguments = data.get("args") if isinstance(data, dict) else None
    if not isinstance(target, str):
        what = f"expected package.module:attribute, found {describe(target)}"
        return {}, [Finding((PYTHON,) if isinstance(data, dict) else (), what)]
    if not isinstance(arguments, dict | None):
        return {}, [Finding(("args",), f"expected a mapping, found {describe(arguments)}")]
    arguments = arguments or {}
    made, findings = _load(partial(_imported, target), (PYTHON,))
    if findings:
        return {}, findings
    options: BaseModel
    if hasattr(made, "Options"):
        options, findings = validate_options(made.Options, arguments, also_known=[], owner=f"'{target}'")
    elif callable(made) and not isinstance(made, type):
        options, findings = (
            FunctionArguments.model_validate(arguments),
            _unknown_arguments(made, target, arguments),
        )
    else:
        what = f"'{target}' is neither a component (a class with Options) nor a function"
        return {}, [Finding((PYTHON,), what)]
    fields = {"name": PYTHON, "target": target, "args": arguments, "options": options}
    return fields, [item.under(("args",) if "args" in data else ()) for item in findings]


def _imported(target: str) -> Any:
    return registry.component(registry.import_attribute(target))


def _unknown_arguments(function: Callable[..., Any], target: str, arguments: dict[str, Any]) -> list[Finding]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C have none
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [
        Finding((key,), f"'{target}' has no argument '{key}'", did_you_mean(key, parameters), at_key=True)
        for key in arguments
        if key not in parameters
    ]
