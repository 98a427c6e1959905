"""A dataset's settings, compiled: from a source row to the item that a run works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from evalrun.canonical import canonical_json, derived_seed
from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.templates import Compiled, TemplateFailure, compile_condition, compile_value, is_template
from evalrun.types import JSON, Row, hot_value

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec


@hot_value
class Item:
    """A selected row of a dataset.

    `row` holds the source columns and the derived ones. `position` counts from 0 in the order of
    selection and identifies nothing: `sample_id` does. `target` is None where the dataset names none.
    `base` is the id that the versions of a sample share, None where there are no versions. `repeat` is set
    where the item stands for one repeat alone, as a sample that was answered before does.
    """

    sample_id: str
    position: int
    row: Mapping[str, JSON]
    target: JSON = None
    sensitive: Mapping[str, str | None] = field(default_factory=dict)
    cluster: str | None = None
    base: str | None = None
    repeat: int | None = None


Reader: TypeAlias = Callable[[Row], JSON]


class BadRow(Exception):
    """A row that a setting cannot be applied to. The message names the setting."""


@frozen
class Setting:
    """One setting of a dataset: what it is called in messages, and how it reads a row."""

    name: str
    template: Compiled | None
    column: str = ""

    def read(self, row: Row) -> JSON:
        """The setting's value for a row. Raises BadRow."""
        if self.template is None:
            return row[self.column]
        values = row
        if "row" in self.template.variables.lines and "row" not in row:
            values = {**row, "row": row}
        try:
            return self.template.evaluate(values)
        except TemplateFailure as failure:
            raise BadRow(f"{self.name} cannot be made: {failure}{_advice(str(failure))}") from failure

    def reads(self, columns: frozenset[str]) -> frozenset[str]:
        """Those of some columns that it reads; the whole row reads them all."""
        if self.template is None:
            return columns & {self.column}
        used = self.template.variables
        looked_up = used.attributes.get("row")
        if "row" in used.lines and not looked_up:
            return columns
        return columns & {*used.lines, *(looked_up or ())}

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that it needs and that are not among these."""
        known = frozenset(columns)
        if self.template is not None:
            return list(self.template.variables.missing(known))
        return [] if self.column in known else [self.column]


def _advice(failure: str) -> str:
    """What to write instead, where values of two types were compared; every column of a CSV file is text."""
    if "not supported between instances of" not in failure:
        return ""
    if "'NoneType'" in failure:
        return "; a value is null: write `NAME is not none and …` before it"
    return "; text is compared with a number: write `NAME | float`" if "'str'" in failure else ""


class Shape:
    """How rows of one dataset become items.

    With `examples`, the rows are few-shot examples: groups and clusters are left out, and a row without
    the key column is named by its content.
    """

    def __init__(self, spec: DatasetSpec, *, examples: bool = False) -> None:
        where = f"dataset {spec.id}"
        self.derived = {
            name: Setting(f"column '{name}'", compile_value(source, f"{where}, column '{name}'"))
            for name, source in spec.columns.items()
        }
        self.condition = (
            Setting("where", compile_condition(spec.where, f"{where}, where")) if spec.where else None
        )
        self.target = _setting("target", spec.target, where)
        self.key = _setting("key", spec.key, where)
        self.sensitive = {
            name: setting
            for name in ([] if examples else spec.sensitive)
            if (setting := _setting(f"sensitive column '{name}'", name, where))
        }
        self.cluster = None if examples else _setting("cluster", spec.cluster, where)
        self.weight = None if examples else _setting("weight", spec.weight, where)
        self.strata = None if examples else _setting("strata", spec.strata, where)
        # Variables that versions set: the row as it stands has the first value, unless a column says.
        self.given = {name: each.values[0] for name, each in spec.counterfactual.items() if not each.columns}
        self._optional_key = examples
        self.withheld = frozenset(spec.withheld)
        self._part = spec.part
        self._refuse_leaks(where)

    def _refuse_leaks(self, where: str) -> None:
        """What is stored must not be made from a column that is not to be. Raises UserError."""
        stored = [*self.derived.values(), self.target, self.key, self.cluster]
        problems = [
            Problem(
                f"{setting.name} is stored and made from '{column}', which is not to be",
                where,
                "Make it from other columns, or let the column be stored.",
            )
            for setting in stored
            if setting is not None
            for column in sorted(setting.reads(self.withheld))
        ]
        if problems:
            raise UserError(problems)

    def missing(self, columns: Iterable[str]) -> list[tuple[str, str]]:
        """Columns that a row with these columns lacks, each with the setting that needs it."""
        known = [*columns, *self.given]
        absent = []
        for name, setting in self.derived.items():
            absent += [(column, setting.name) for column in setting.missing(known)]
            known.append(name)
        key = None if self._optional_key else self.key
        for other in (
            self.condition,
            self.target,
            key,
            *self.sensitive.values(),
            self.cluster,
            self.weight,
            self.strata,
        ):
            if other is not None:
                absent += [(column, other.name) for column in other.missing(known)]
        return absent

    def complete(self, row: dict[str, JSON]) -> dict[str, JSON]:
        """The row with the derived columns, each of which may read those before it. Raises BadRow."""
        if not self.derived and not self.given:
            return row
        full = {**self.given, **row}
        for name, setting in self.derived.items():
            full[name] = setting.read(full)
        return full

    def keeps(self, full: Row) -> bool:
        """Whether the filter keeps a complete row. Raises BadRow."""
        return self.condition is None or bool(self.condition.read(full))

    def in_part(self, full: Row, row: Row) -> bool:
        """Whether a complete row is in the part that is used; `row` is as the source has it. Raises
        BadRow."""
        part = self._part
        if part is None:
            return True
        name = _label(self.cluster, full) if self.cluster else None
        name = name or self.key_of(full) or canonical_json(dict(row)).decode()
        held_out = derived_seed(part.seed, "held out", name) < part.held_out * 2**64
        return held_out == (part.take == "held_out")

    def key_of(self, full: Row) -> str | None:
        """The row's key as text, or None where rows are named by content. Raises BadRow."""
        if self.key is None or (self._optional_key and self.key.missing(full)):
            return None
        value = self.key.read(full)
        if isinstance(value, bool | float | list | dict | None) or value == "":
            raise BadRow(f"the key is {_short(value)}; it must be text or a whole number")
        return str(value)

    def target_of(self, full: Row) -> JSON:
        """The target of a complete row, once its groups are seen to be readable too. Raises BadRow."""
        for setting in self.sensitive.values():
            _label(setting, full)
        if self.cluster:
            _label(self.cluster, full)
        if self.weight:
            weight = self.weight.read(full)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
                raise BadRow(f"the weight is {_short(weight)}; it must be a number above 0")
        return self.target.read(full) if self.target else None

    def visible(self, full: dict[str, JSON]) -> dict[str, JSON]:
        """The row without the columns that are not to be stored: nobody further on sees these."""
        if not self.withheld:
            return full
        return {name: value for name, value in full.items() if name not in self.withheld}

    def withheld_groups(self, full: Row) -> dict[str, str | None]:
        """The groups of a complete row that are not to be stored."""
        return {
            name: _label(setting, full) for name, setting in self.sensitive.items() if name in self.withheld
        }

    def item(self, sample_id: str, position: int, full: dict[str, JSON]) -> Item:
        """The item of a complete row. Raises BadRow."""
        return Item(
            sample_id,
            position,
            self.visible(full),
            self.target.read(full) if self.target else None,
            {
                name: _label(setting, full)
                for name, setting in self.sensitive.items()
                if name not in self.withheld
            },
            _label(self.cluster, full) if self.cluster else None,
        )


def _setting(name: str, value: str | None, where: str) -> Setting | None:
    if value is None:
        return None
    if is_template(value):
        return Setting(name, compile_value(value, f"{where}, {name}"))
    return Setting(name, None, value)


def _label(setting: Setting, row: Row) -> str | None:
    """A group or cluster as text. Null and empty text are no group."""
    value = setting.read(row)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        raise BadRow(f"{setting.name} holds {_short(value)}; a group is text, a number, true or false")
    return str(value)


def _short(value: JSON) -> str:
    if value is None:
        return "null"
    if value == "":
        return "empty"
    text = canonical_json(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."
