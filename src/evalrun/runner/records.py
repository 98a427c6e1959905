"""Turns a request and what came of it into the sample's record. The definitions of the per-sample
timings are here: see `docs/metrics.md` for the words, DESIGN's reference for where they come from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from evalrun.scoring.likelihood import decided
from evalrun.scoring.pipeline import Scored
from evalrun.scoring.reasoning import split_reasoning
from evalrun.types import JSON, Attempt, ProviderError, Response, Row, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.runner.source import Prepared
    from evalrun.suite.values import PriceSpec

FILTERED = frozenset({"content_filter", "safety", "refusal"})
"""Finish reasons by which a server says that a filter, not the model, ended the answer."""


def time_per_output_token_s(response: Response) -> float | None:
    """(last - first chunk) / (output tokens - tokens of the first chunk); one token where that is unknown.

    None without streaming, for answers of fewer than two tokens, and for those whose content arrived at one
    moment (one chunk, or several in one read): nothing passed that could be divided among tokens.
    """
    timing, tokens = response.timing, response.completion_tokens
    if timing is None or timing.first_ns is None or tokens is None or timing.last_ns <= timing.first_ns:
        return None
    rest = tokens - (timing.first_chunk_tokens or 1)
    if tokens < 2 or rest < 1:
        return None
    return (timing.last_ns - timing.first_ns) / 1e9 / rest


def _chosen(likelihood: JSON) -> str:
    """What stands in place of an output where options were only compared: the chosen one."""
    return (likelihood.get("chosen") or "") if likelihood else ""


def _without_reasoning(response: Response) -> Response:
    """The response with the reasoning that stands in its text put beside it, whoever sent it."""
    reasoning, answer = split_reasoning(response.output)
    if answer == response.output:
        return response
    parts = [part for part in (response.reasoning, reasoning) if part]
    return replace(response, output=answer, reasoning="\n\n".join(parts) or None)


class ReadsAnswers(Protocol):
    """Makes of an output an answer and scores: a suite's pipeline, or what reads a judge's grade."""

    def evaluate(
        self,
        output: str,
        target: JSON,
        row: Row,
        refused: bool = False,
        tool_calls: JSON = None,
        likelihood: JSON = None,
    ) -> Scored: ...


class RecordMaker:
    """Makes the records of one run."""

    def __init__(
        self,
        reader: ReadsAnswers,
        price: PriceSpec | None,
        clock_offset_s: float,
        *,
        scheduled: bool = False,
    ) -> None:
        """`scheduled`: note when each request was due, and when a failed one ended."""
        self._reader = reader
        self._price = price
        self._scheduled = scheduled
        self.score_s = 0.0
        """Seconds in which answers were parsed and scored."""
        self._origin_ns = time.perf_counter_ns() - int(clock_offset_s * 1e9)

    def clock_s(self, at_ns: int) -> float:
        """A moment on the run's clock."""
        return (at_ns - self._origin_ns) / 1e9

    def answered(
        self,
        prepared: Prepared,
        response: Response,
        scheduled_ns: int,
        log: Sequence[Attempt] = (),
        *,
        warmup: bool = False,
    ) -> SampleRecord:
        """The record of a sample that the model answered just now."""
        return self._answer(prepared, response, scheduled_ns, log, warmup=warmup)

    def cached(self, prepared: Prepared, response: Response) -> SampleRecord:
        """The record of a sample whose answer was paid for earlier: text and tokens, no timings, no cost."""
        return self._answer(prepared, response, 0, (), cached=True)

    def _answer(
        self,
        prepared: Prepared,
        response: Response,
        scheduled_ns: int,
        log: Sequence[Attempt],
        *,
        warmup: bool = False,
        cached: bool = False,
    ) -> SampleRecord:
        likelihood = None
        if not prepared.request.exact:
            response = _without_reasoning(response)
        try:
            if prepared.request.ask is not None:
                likelihood = decided(prepared.request.ask, response.likelihood)
            scored = self._score(prepared, response, likelihood)
        except ProviderError as error:  # a provider of one's own gave something else than likelihoods
            scored = Scored(Status.FAILED, None, str(error), {}, {})
        timing = response.timing
        item, request = prepared.item, prepared.request
        return SampleRecord(
            sample_id=item.sample_id,
            repeat=request.repeat,
            position=item.position,
            vars=item.row,
            target=item.target,
            status=scored.status,
            messages=request.messages,
            prompt=request.prompt,
            output=response.output or _chosen(likelihood),
            answer=scored.answer,
            error=scored.error,
            finish_reason=response.finish_reason,
            prompt_tokens=response.prompt_tokens,
            completion_tokens=response.completion_tokens,
            ttft_s=(timing.first_ns - timing.sent_ns) / 1e9 if timing and timing.first_ns else None,
            e2e_s=(timing.last_ns - timing.sent_ns) / 1e9 if timing else None,
            tpot_s=time_per_output_token_s(response),
            client_queue_s=self._queued_s(timing.sent_ns - scheduled_ns, log) if timing else None,
            sent_s=(timing.sent_ns - self._origin_ns) / 1e9 if timing else None,
            done_s=(timing.last_ns - self._origin_ns) / 1e9 if timing else None,
            scheduled_s=self.clock_s(scheduled_ns) if self._scheduled else None,
            attempts=0 if cached else max(1, len(log)),
            attempt_log=tuple(log),
            cached=cached,
            warmup=warmup,
            cost_usd=None if cached else self._cost(response),
            reasoning=response.reasoning,
            tool_calls=response.tool_calls,
            model=response.model,
            fingerprint=response.fingerprint,
            scores=scored.scores,
            reasons=scored.reasons,
            sensitive=item.sensitive,
            cluster=item.cluster,
            logprobs=response.logprobs,
            likelihood=likelihood,
            cached_prompt_tokens=None if cached else response.cached_prompt_tokens,
            chunk_gaps=timing.gaps if timing else None,
        )

    def failed(
        self,
        prepared: Prepared,
        error: ProviderError,
        log: Sequence[Attempt],
        warmup: bool,
        scheduled_ns: int = 0,
    ) -> SampleRecord:
        """The record of a sample that got no answer."""
        item, request = prepared.item, prepared.request
        return SampleRecord(
            sample_id=item.sample_id,
            repeat=request.repeat,
            position=item.position,
            vars=item.row,
            target=item.target,
            status=Status.FAILED,
            messages=request.messages,
            prompt=request.prompt,
            error=f"{error.kind}: {error.message}",
            done_s=self.clock_s(time.perf_counter_ns()) if self._scheduled else None,
            scheduled_s=self.clock_s(scheduled_ns) if self._scheduled else None,
            attempts=max(1, len(log)),
            attempt_log=tuple(log),
            warmup=warmup,
            sensitive=item.sensitive,
            cluster=item.cluster,
        )

    def _score(self, prepared: Prepared, response: Response, likelihood: JSON) -> Scored:
        refused = bool(response.refusal) or response.finish_reason in FILTERED
        output = response.output or response.refusal or ""
        item = prepared.item
        began = time.perf_counter()
        try:
            return self._reader.evaluate(
                output, item.target, item.row, refused, response.tool_calls, likelihood
            )
        finally:
            self.score_s += time.perf_counter() - began

    @staticmethod
    def _queued_s(sent_after_ns: int, log: Sequence[Attempt]) -> float:
        """Scheduled to first sent. With retries, the first attempt was sent at its start."""
        return log[0].start_s if log else sent_after_ns / 1e9

    def _cost(self, response: Response) -> float | None:
        if response.cost_usd is not None or self._price is None:
            return response.cost_usd
        if response.prompt_tokens is None or response.completion_tokens is None:
            return None
        return self._price.usd(
            response.prompt_tokens, response.completion_tokens, response.cached_prompt_tokens or 0
        )
