"""Suites as pytest items: one that the sweep completes, and one a gate. The sweep runs when the first of them
does, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.gates.conditions import COMPARED, parse_gate
from evalrun.suite.load import LoadedSuite, load_suite
from evalrun.suite.overrides import Overrides

if TYPE_CHECKING:
    from evalrun.sweep.main import Outcome

COMPLETES = "the sweep completes"


class Failed(Exception):
    """A gate failed, or the sweep could not be completed. Its text is all that is shown."""


class SuiteFile(pytest.File):
    """A suite file. Collecting it reads the suite and sends nothing to any model."""

    _outcome: Outcome | UserError | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """One item for the sweep, one for each gate."""
        try:
            loaded = load_suite(self.path, self._overrides())
        except UserError as error:
            raise self.CollectError(str(error)) from None
        for at, text in enumerate(loaded.suite.gates):
            if isinstance(wrong := parse_gate(text), Problem):
                raise self.CollectError(str(replace(wrong, where=loaded.locate("gates", at))))
        yield self._made(SweepItem.from_parent(self, name=COMPLETES))
        for at, text in enumerate(loaded.suite.gates):
            line = _line(loaded, at)
            yield self._made(GateItem.from_parent(self, name=text.strip(), line=line))

    def outcome(self) -> Outcome:
        """What came of the sweep, which runs when this is first asked for."""
        if self._outcome is None:
            self._outcome = self._run()
        if isinstance(self._outcome, UserError):
            raise Failed(str(self._outcome))
        return self._outcome

    def _run(self) -> Outcome | UserError:
        from evalrun.paths import default_store
        from evalrun.reports.progress import make_progress
        from evalrun.sweep.main import run_sweep
        from evalrun.sweep.options import SweepOptions

        given = self.config.getoption("--evalrun-store")
        options = SweepOptions(
            overrides=self._overrides(),
            store=Path(given) if given else default_store(),
            write_report=False,
            use_cache=not self.config.getoption("--evalrun-no-cache"),
            baseline=self.config.getoption("--evalrun-baseline"),
            argv=("pytest", str(self.path)),
        )
        try:
            outcome = run_sweep(self.path, options, make_progress(quiet=True))
        except UserError as error:
            return error
        if outcome.exit_code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        return outcome

    def _overrides(self) -> Overrides:
        limit = self.config.getoption("--evalrun-limit")
        if limit is not None and limit < 1:
            raise pytest.UsageError("--evalrun-limit: at least 1")
        return Overrides(limit=limit)

    def _made(self, item: pytest.Item) -> pytest.Item:
        if self.config.pluginmanager.hasplugin("xdist"):
            # With --dist loadgroup one worker gets the whole suite, and the sweep runs once.
            item.add_marker(pytest.mark.xdist_group(str(self.path)))
        return item


class _SuiteItem(pytest.Item):
    line: int = 0

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A failed gate in words; anything else as pytest shows it."""
        if isinstance(excinfo.value, Failed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands: the file, the line (from 0) and its name."""
        return self.path, max(self.line - 1, 0), f"{self.path.name}: {self.name}"

    def outcome(self) -> Outcome:
        """What came of the sweep."""
        assert isinstance(self.parent, SuiteFile)
        return self.parent.outcome()


class SweepItem(_SuiteItem):
    """Passes when every run was finished."""

    def runtest(self) -> None:
        """Run the sweep if nobody did yet."""
        outcome = self.outcome()
        status = outcome.manifest["status"]
        if status != "complete" or outcome.faults:
            faults = [str(fault) for fault in outcome.faults] or ["some runs have no results"]
            raise Failed("\n".join([f"the sweep is {status}:", *faults, _next(outcome)]))


class GateItem(_SuiteItem):
    """Passes when the gate passes on every run that it speaks of; skipped where the samples cannot tell."""

    def __init__(self, *, line: int = 0, **given: Any) -> None:
        super().__init__(**given)
        self.line = line

    def runtest(self) -> None:
        """Look up the gate's verdicts."""
        outcome = self.outcome()
        results = [gate for gate in outcome.manifest["gates"] if gate["gate"] == self.name]
        strict = outcome.manifest["inconclusive"] == "fail"
        stopping = ("fail", "inconclusive") if strict else ("fail",)
        failed = [result for result in results if result["verdict"] in stopping]
        if failed or not results:
            where = f"{self.path.name}:{self.line}: gate failed: {self.name}"
            raise Failed("\n".join([where, *_sentences(failed), _next(outcome)]))
        unknown = [
            result for result in results if result["verdict"] == "inconclusive" and result.get("incomplete")
        ]
        if unknown:
            where = (
                f"{self.path.name}:{self.line}: gate cannot be decided, too many rows were lost: {self.name}"
            )
            raise Failed("\n".join([where, *_sentences(unknown), _next(outcome)]))
        open_ = [result for result in results if result["verdict"] == "inconclusive"]
        if open_:
            pytest.skip("inconclusive: " + "; ".join(line.strip() for line in _sentences(open_)))


def _sentences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for result in results:
        value = "no value" if result["value"] is None else f"value {result['value']:.4g}"
        why = f": {result['reason']}" if result["reason"] else ""
        if result.get("limit") is not None and COMPARED not in why:
            value += f", {COMPARED} {result['limit']:.4g}"
        verdict = "" if result["verdict"] == "fail" else f" ({result['verdict']})"
        lines.append(f"  {result['run'] or 'every run'}{verdict}: {value}{why}")
    return lines


def _next(outcome: Outcome) -> str:
    return f"More: evalrun show {outcome.manifest['sweep']}"


def _line(loaded: LoadedSuite, at: int) -> int:
    number = loaded.locate("gates", at).rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
