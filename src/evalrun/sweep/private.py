"""What a sweep's privacy section needs of its suite, before anything is sent or stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.sweep.alerts import stored_text
from evalrun.tracking.folder import RAW

if TYPE_CHECKING:
    from evalrun.datasets import Dataset
    from evalrun.privacy.kept import Keeper
    from evalrun.privacy.redact import Redactor
    from evalrun.prompts import Renderer
    from evalrun.suite.load import LoadedSuite
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.privacy import PrivacySpec
    from evalrun.suite.schema import Suite
    from evalrun.sweep.prepare import PreparedSweep
    from evalrun.tracking.folder import SweepFolder
    from evalrun.types import MetricValue


def prepare_redactor(
    suite: Suite,
    datasets: Mapping[str, Dataset],
    renderers: Mapping[Any, Renderer],
    store: Path | None,
    base_dir: Path,
) -> Redactor:
    """The suite's redactor, known to its datasets and their examples. Raises UserError for columns that no
    dataset has, and as `privacy.redactor` does."""
    from evalrun.privacy import redactor

    assert suite.privacy is not None
    problems = [*_unknown_columns(suite.privacy, datasets), *_withheld_groups(suite), *_unfit_judges(suite)]
    if problems:
        raise UserError(problems)
    made = redactor(suite.privacy, store, base_dir)
    for dataset in datasets.values():
        dataset.redactor = made
    for spec in suite.datasets:
        made.learn(spec.rows or ())
    for pool in {id(each.pool): each.pool for each in renderers.values() if each.pool is not None}.values():
        made.learn(item.row for item in pool.examples)
        named = [replace(each, sample_id=made.identity(each.sample_id, each.row)) for each in pool.examples]
        pool.examples = sorted(named, key=lambda item: item.sample_id)
    return made


@frozen
class Carried:
    """What a redactor elsewhere needs of the sweep's: its key, and the values that are removed everywhere."""

    key: bytes
    values: Mapping[str, Any]


def carried(prepared: PreparedSweep) -> Carried | None:
    """The sweep's redactor, for other machines; it then knows the values of all rows."""
    redactor = prepared.redactor
    if redactor is None:
        return None
    if redactor.removes:
        for dataset in prepared.datasets.values():
            redactor.learn(item.row for item in dataset)
    return Carried(*redactor.known())


def redactor_there(suite: Suite, base_dir: Path, carried: Carried | None) -> Redactor | None:
    """The redactor of another machine's sweep. Raises UserError where it cannot be made here."""
    from evalrun.privacy import redactor

    if carried is None or suite.privacy is None:
        return None
    made = redactor(suite.privacy, None, base_dir)
    made.know(carried.key, carried.values)
    return made


def note_failed(prepared: PreparedSweep, failed: tuple[int, str]) -> None:
    """Count texts that could not be redacted elsewhere."""
    if prepared.redactor is not None and failed[0]:
        prepared.redactor.failed += failed[0]
        prepared.redactor.failure = prepared.redactor.failure or failed[1]


def _unknown_columns(privacy: PrivacySpec, datasets: Mapping[str, Dataset]) -> Iterable[Problem]:
    known = {column for each in datasets.values() for column in (*each.columns, *each.partial)}
    subject = [privacy.subject] if privacy.subject else []
    for section, names in (("columns", privacy.columns), ("known", privacy.known), ("subject", subject)):
        for name in names if datasets else ():
            if name not in known:
                near = nearest(name, known)
                remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(sorted(known))}."
                yield Problem(f"no dataset has a column '{name}'", f"privacy.{section}", remedy)


def _withheld_groups(suite: Suite) -> Iterable[Problem]:
    """Groups come from what is stored, unless the dataset itself says that they are not to be."""
    assert suite.privacy is not None
    for dataset in suite.datasets:
        for name in dataset.sensitive:
            if suite.privacy.rules.get(name) in ("drop", "withhold"):
                yield Problem(
                    f"'{name}' has groups to compare, and is not to be stored",
                    f"privacy.columns.{name}",
                    f"Say it where the groups are: sensitive: [{{column: {name}, store: drop}}].",
                )


def _unfit_judges(suite: Suite) -> Iterable[Problem]:
    """Judges that are named and not there."""
    assert suite.privacy is not None
    named = suite.privacy.judges if isinstance(suite.privacy.judges, dict) else {}
    known = [model.id for model in (*suite.judges, *suite.models)]
    for name in named.keys() - known:
        near = nearest(name, known)
        remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(known)}."
        yield Problem(f"there is no judge '{name}'", "privacy.judges", remedy)


def refuse_redacted(manifest: Mapping[str, Any], sweep: str, what: str) -> None:
    """Raise UserError where the texts of a sweep were redacted: `what` needs them as they were."""
    from evalrun.suite.privacy import PrivacySpec

    privacy = (manifest["suite"].get("resolved") or {}).get("privacy")
    if privacy and PrivacySpec.model_validate(privacy).active:
        raise UserError(
            f"its texts were redacted before they were stored, and to {what} needs them as they were",
            where=f"sweep {sweep}",
            remedy="Run the suite again on its data: the scores are made before anything is redacted.",
        )


def stored_suite(loaded: LoadedSuite, redactor: Redactor | None) -> dict[str, Any]:
    """`text` and `resolved` of the suite as they are stored. Rows that stand in a suite with a privacy
    section are redacted as rows; its text is then written anew."""
    resolved = loaded.suite.resolved()
    if redactor is None or not any(dataset.rows for dataset in loaded.suite.datasets):
        return {"text": stored_text(loaded), "resolved": resolved}
    from evalrun.suite.build import suite_text

    for dataset in resolved["datasets"]:
        if dataset["rows"]:
            dataset["rows"] = [redactor.row(row) for row in dataset["rows"]]
    given = loaded.suite.model_dump(mode="json", exclude_unset=True).keys() | {"models", "scorers", "parse"}
    text = suite_text({name: value for name, value in resolved.items() if name in given})
    return {"text": f"# Written anew: the rows that stood here are redacted.\n{text}", "resolved": resolved}


def findings_counter(prepared: PreparedSweep) -> Callable[[Path], MetricValue] | None:
    """What counts `privacy.findings` of a run, where a gate or an alert of the suite speaks of it."""
    from evalrun.analysis.catalogue import FINDINGS

    conditions = [*prepared.gates, *(alert.gate for alert in prepared.alerts)]
    if not any(gate.metric == FINDINGS.name for gate in conditions):
        return None
    from evalrun.privacy import redactor
    from evalrun.privacy.scan import findings_of_run

    counter = prepared.redactor or redactor({}, None)
    return lambda run: findings_of_run(run, counter)


def keeper_of(prepared: PreparedSweep, folder: SweepFolder, warnings: list[str]) -> Keeper | None:
    """What keeps texts as they were for judges and scorers that take long; None where nothing is redacted or
    scored later, and where the suite wants them to see what is stored."""
    from evalrun.sweep.score import is_deferred

    privacy, redactor = prepared.loaded.suite.privacy, prepared.redactor
    if privacy is None or redactor is None or privacy.judges == "redacted":
        return None
    asked = () if prepared.judging is None else prepared.judging.models
    if not any(map(privacy.sees_raw, asked)) and not is_deferred(prepared.pipeline.scorers):
        return None
    from evalrun.privacy.kept import Keeper, can_encrypt

    if can_encrypt():
        return Keeper(folder.path, redactor)
    warnings.append(
        "judges and scorers that take long were given redacted texts: to keep texts as they were, encrypted, "
        "needs the package cryptography (privacy: {judges: redacted} asks for it without this warning)"
    )
    return None


def judged_as_stored(
    keeper: Keeper | None, folder: SweepFolder, waits: Callable[[str], bool], specs: Iterable[RunSpec]
) -> Iterable[str]:
    """A warning where runs that wait to be scored were asked on other machines, which keep no texts as they
    were."""
    if keeper is None:
        return
    names = [spec.run_id for spec in specs if waits(spec.run_id)]
    if any(not (folder.run_dir(name) / RAW).exists() for name in names):
        yield "runs were asked on other machines: judges and scorers that take long were given redacted texts"
