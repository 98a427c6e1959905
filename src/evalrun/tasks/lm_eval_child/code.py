"""`evaluate`'s metric `code_eval`, which HumanEval, MBPP and others load from the Hub: pass@k of programs.

Here what models wrote runs in evalrun's locked-down child, never in this process, and nothing is fetched.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from .values import Fault

RUNNER_VARIABLE = "EVALRUN_CODE_RUNNER"
NAMES = ("code_eval", "evaluate-metric/code_eval")


class CodeEval:
    """In the place of the metric."""

    def compute(
        self,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1, 10, 100),
        timeout: float = 3.0,
        **_: Any,
    ) -> tuple[dict[str, float], dict[int, list[Any]]]:
        """pass@k for each k that all tasks have answers enough for, and each program's own result."""
        programs = [
            f"{answer}\n{test}"
            for test, given in zip(references, predictions, strict=True)
            for answer in given
        ]
        ran = iter(_run(programs, timeout))
        results: dict[int, list[Any]] = {}
        for task, given in enumerate(predictions):
            results[task] = [
                (at, {"task_id": task, "passed": passed, "result": reason, "completion_id": at})
                for at, (passed, reason) in zip(range(len(given)), ran, strict=False)
            ]
        counts = [(len(each), sum(one["passed"] for _, one in each)) for each in results.values()]
        figures = {
            f"pass@{many}": sum(_pass_at(n, c, many) for n, c in counts) / len(counts)
            for many in k
            if counts and all(n >= many for n, _ in counts)
        }
        return figures, results


def _pass_at(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k) (Chen et al. 2021): one of k drawn of n is among the c right ones."""
    return 1.0 if n - c < k else 1.0 - math.prod(1.0 - k / each for each in range(n - c + 1, n + 1))


def _run(programs: list[str], timeout_s: float) -> list[tuple[bool, str]]:
    command = json.loads(os.environ.get(RUNNER_VARIABLE, "[]"))
    if not command:
        raise Fault("programs that models wrote cannot be run: nothing says where evalrun is")
    order = json.dumps({"programs": programs, "timeout_s": timeout_s})
    done = subprocess.run(command, input=order, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Fault(f"programs that models wrote cannot be run: {done.stderr.strip()[-300:]}")
    said = json.loads(done.stdout)
    return list(zip(said["passed"], said["reasons"], strict=True))


def install() -> None:
    """Stand in front of `evaluate.load` for this one metric."""
    import evaluate

    original = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        return CodeEval() if path in NAMES else original(path, *args, **kwargs)

    evaluate.load = load
