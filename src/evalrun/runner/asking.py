"""One sample on its way: when it was scheduled, what held it back, and what its failed attempts were."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from evalrun.runner.rates import Ticket
from evalrun.runner.source import Prepared
from evalrun.types import Attempt, ProviderError


@dataclass(slots=True)
class Asking:
    """`held_s` is how long the endpoint's budget held it back before its first attempt; `ticket` what the
    present attempt took out of that budget."""

    prepared: Prepared
    scheduled_ns: int
    warmup: bool
    held_s: float = 0.0
    ticket: Ticket | None = None
    log: list[Attempt] = field(default_factory=list)

    def held_back(self, seconds: float) -> None:
        """The budget made it wait: before the first attempt, or between two."""
        if self.log:
            self.log[-1] = replace(self.log[-1], wait_s=self.log[-1].wait_s + seconds)
        else:
            self.held_s = seconds

    def attempted(self, error: ProviderError | None, wait_s: float = 0.0) -> None:
        """An attempt ended just now; it is waited `wait_s` before the next."""
        last = self.log[-1] if self.log else None
        start = last.start_s + last.duration_s + last.wait_s if last else self.held_s
        end = (time.perf_counter_ns() - self.scheduled_ns) / 1e9
        self.log.append(
            Attempt(
                start_s=start,
                duration_s=max(0.0, end - start),
                error=str(error.kind) if error else None,
                message=error.message if error else None,
                wait_s=wait_s,
            )
        )

    def timeout_message(self, timeout_s: float) -> str:
        """What a sample failed with whose time is up: its attempts and waits are part of that time."""
        message = f"no answer within {timeout_s:g} s"
        if self.log:
            waited = sum(each.wait_s for each in self.log)
            message += f": {len(self.log) + 1} attempts, with {waited:.1f} s of waiting between them"
        return message
