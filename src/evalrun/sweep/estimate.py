"""What a sweep would send, and what it spends, with its end when the budget is spent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.frozen import frozen
from evalrun.providers.batch_api import batch_api_of
from evalrun.runner.attempts import LOOK_S
from evalrun.runner.cell import Observer, Reservation, Stop
from evalrun.runner.journal import read_journal
from evalrun.runner.limits import CHARACTERS_PER_TOKEN, TokenGuess, estimated_tokens
from evalrun.suite.plan import RunSpec
from evalrun.suite.values import BudgetSpec, PriceSpec
from evalrun.tracking.folder import SweepFolder
from evalrun.types import Ask, Message, Request, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.analysis.pilot import PlannedPower
    from evalrun.prompts.rendering import Rendered
    from evalrun.providers.base import Provider
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.load import LoadedSuite
    from evalrun.sweep.prepare import PreparedSweep


UNKNOWN_ANSWER_TOKENS = 1000
"""Put by for an answer without `max_tokens` before any answer has come."""
RENDERED_ROWS = 200
"""Rows rendered to estimate the mean prompt length; the rest are taken to be like them."""


@frozen
class RunEstimate:
    """One run of the plan. Tokens are estimates; `usd` is None where the model has no price."""

    run: str
    model: str
    prompt: str
    dataset: str
    params: dict[str, Any]
    samples: int
    requests: int
    prompt_tokens: int
    max_completion_tokens: int | None
    usd: float | None
    usd_live: float | None = None
    """What it would cost request by request, where it is asked in batches."""
    load: str = ""
    """What load it runs under, where load is an axis, and for how many seconds it sends (None: until all is
    answered)."""
    seconds: float | None = None


@frozen
class JudgeEstimate:
    """What one scorer asks one model about one run. `requests` is the most without asking again."""

    run: str
    scorer: str
    model: str
    requests: int
    prompt_tokens: int
    max_completion_tokens: int
    usd: float | None


@frozen
class Estimate:
    """All runs of a plan, and what is asked about them."""

    name: str
    runs: tuple[RunEstimate, ...]
    judges: tuple[JudgeEstimate, ...] = ()

    def document(self) -> dict[str, Any]:
        """As plain JSON values, with totals. `usd_live` is there where something is asked in batches."""
        every: tuple[RunEstimate | JudgeEstimate, ...] = (*self.runs, *self.judges)
        costs = [each.usd for each in every if each.usd is not None]
        live = [run.usd_live for run in self.runs if run.usd_live is not None]
        alone = sum(run.usd or 0.0 for run in self.runs if run.usd_live is not None)
        return {
            "name": self.name,
            "runs": [_document(run) for run in self.runs],
            "judges": [asdict(judge) for judge in self.judges],
            "total": {
                "runs": len(self.runs),
                "requests": sum(run.requests for run in self.runs),
                "judge_requests": sum(judge.requests for judge in self.judges),
                "prompt_tokens": sum(run.prompt_tokens for run in self.runs),
                "max_completion_tokens": _sum_known([run.max_completion_tokens for run in self.runs]),
                "usd": sum(costs) if costs else None,
                **({"usd_live": sum(costs) - alone + sum(live)} if live else {}),
            },
        }


def _document(run: RunEstimate) -> dict[str, Any]:
    document = asdict(run)
    if run.usd_live is None:
        del document["usd_live"]
    return document


def _sum_known(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def power_from(estimated: Estimate, pilot: SweepFolder) -> list[PlannedPower]:
    """What the samples of the plan will see between the runs of each dataset, from those of a sweep."""
    from evalrun.analysis.measures import runs_of, whole_prompts
    from evalrun.analysis.pilot import planned_power

    planned: dict[str, tuple[int, int]] = {}
    for run in estimated.runs:
        samples, runs = planned.get(run.dataset, (run.samples, 0))
        planned[run.dataset] = min(samples, run.samples), runs + 1
    readable = [run for run in whole_prompts(runs_of(pilot)) if run.has_samples]
    return planned_power(readable, planned)


def estimate(prepared: PreparedSweep) -> Estimate:
    """Estimate every run of a prepared sweep."""
    runs = tuple(_estimate_run(prepared, spec) for spec in prepared.specs)
    judges: tuple[JudgeEstimate, ...] = ()
    if prepared.judging is not None:
        from evalrun.sweep.judging import estimate_judges

        judges = estimate_judges(prepared, runs)
    return Estimate(prepared.loaded.suite.name, runs, judges)


def _estimate_run(prepared: PreparedSweep, spec: RunSpec) -> RunEstimate:
    dataset = prepared.dataset(spec)
    renderer = prepared.renderer(spec)
    lengths, pairs = [], []
    for item in islice(iter(dataset), RENDERED_ROWS):
        rendered = renderer.render(item)
        lengths.append(_tokens(rendered))
        pairs.append(len(rendered.ask.pairs) if rendered.ask is not None and rendered.ask.pairs else 1)
    requests = spec.requests(prepared.loaded.suite, len(dataset))
    prompt_tokens = round(requests * sum(lengths) / len(lengths)) if lengths else 0
    # Of a published task each choice is a request of its own.
    requests = round(requests * sum(pairs) / len(pairs)) if pairs else requests
    limit = spec.params.get("max_tokens") if _in_words(spec) else 1
    completion = requests * limit if isinstance(limit, int) else None
    price = spec.model.price
    usd = usd_live = None
    if price is not None and completion is not None:
        usd = price.usd(prompt_tokens, completion)
        if batch_api_of(prepared.providers[spec.model.id]) is not None:
            usd, usd_live = price.batched().usd(prompt_tokens, completion), usd
    load, seconds = prepared.loaded.suite.load, None
    if load is not None and spec.load is not None:
        from evalrun.suite.levels import level_seconds

        seconds = level_seconds(load, spec.load, requests)
    return RunEstimate(
        run=spec.run_id,
        model=spec.model.id,
        prompt=spec.prompt.id,
        dataset=spec.dataset.id,
        params=spec.axes,
        samples=len(dataset),
        requests=requests,
        prompt_tokens=prompt_tokens,
        max_completion_tokens=completion,
        usd=usd,
        usd_live=usd_live,
        load=spec.load.words if spec.load is not None else "",
        seconds=seconds,
    )


def _in_words(spec: RunSpec) -> bool:
    """Whether an answer is generated, and not likelihoods asked for."""
    return spec.prompt.ask is None and not getattr(spec.dataset, "asks_likelihoods", False)


def _tokens(rendered: Rendered) -> float:
    """The tokens of all that is read for a sample."""
    ask = rendered.ask
    if ask is not None and ask.pairs:
        return sum(estimated_tokens((), context + text) for context, text in ask.pairs)
    return estimated_tokens(rendered.messages, rendered.prompt) * _texts(ask)


def _texts(ask: Ask | None) -> int:
    """How often the prompt is read for a sample: once for each option that is scored behind it."""
    return len(ask.options) if ask is not None and ask.options and ask.via == "prompt_logprobs" else 1


Tokens: TypeAlias = tuple[float | None, float | None]
"""Of the prompt and of the answer, as far as they are known."""


@dataclass(slots=True)
class Spent:
    """US dollars, tokens of prompts and answers, and seconds of running."""

    usd: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0


def budget_problems(
    loaded: LoadedSuite, specs: Iterable[RunSpec], providers: Mapping[str, Provider]
) -> list[Problem]:
    """What of budgets and limits cannot be kept: dollars without prices, a rate for what is not asked one by
    one. Found before anything is sent."""
    budget = loaded.suite.budget
    found = []
    from evalrun.providers.base import BatchProvider

    suite = loaded.suite
    models = {spec.model.id: spec.model for spec in specs} | {spec.id: spec for spec in suite.judges}
    for spec in models.values():
        provider = providers.get(spec.id)
        if provider is None:
            continue
        section = "judges" if spec in suite.judges else "models"
        where = loaded.locate(section, getattr(suite, section).index(spec))
        if budget is not None and budget.usd is not None and not _priced(spec, provider):
            what = f"budget.usd needs the price of model '{spec.id}', which is not known"
            remedy = "Add price: {input_per_million_usd: …, output_per_million_usd: …} to the model."
            found.append(Problem(what, where, remedy))
        if spec.limits is not None and (isinstance(provider, BatchProvider) or not provider.measured):
            what = f"model '{spec.id}' has limits, but provider '{spec.provider}' sends no single requests"
            found.append(Problem(what, where, "Leave limits out."))
    return found


def _priced(spec: ModelSpec, provider: Provider) -> bool:
    """Whether the model's cost is known. Recorded answers and engines on this machine cost no money."""
    from evalrun.providers.base import Priced, capability

    priced = capability(provider, Priced)
    looked_up = not provider.measured and batch_api_of(provider) is None
    free = looked_up or provider.endpoint.startswith("local:")
    return free or spec.price is not None or (priced is not None and priced.knows_price())


class Spending:
    """An observer that counts, and stops the sweep when the budget is spent.

    What a request may cost is put by before it is sent: its prompt, and `max_tokens` or what answers took on
    average. So no more is in flight than the budget bears, but for one request where nothing else is. What
    is in flight when the budget is spent is still answered, recorded and counted: it is paid for. Answers
    whose tokens the server did not count are taken at the rule of thumb of four characters a token.
    """

    def __init__(
        self,
        budget: BudgetSpec,
        earlier: Spent,
        prices: Mapping[str, PriceSpec | None],
        stop: Stop,
        observer: Observer,
    ) -> None:
        """`earlier` is what earlier parts of the sweep spent; `prices` are by run id."""
        self._budget = budget
        self.spent = earlier
        self._prices = prices
        self._stop = stop
        self._observer = observer
        self._guess = TokenGuess(UNKNOWN_ANSWER_TOKENS)
        self._reserved_usd = self._reserved_tokens = 0.0
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._check()

    async def reserve(
        self, request: Request, price: PriceSpec | None, give_up: Callable[[], bool]
    ) -> Reservation | None:
        """Wait until the budget bears a request beside those in flight, and put by what it may cost.

        None when `give_up` said meanwhile that it need not be sent."""
        while not give_up():
            prompt = self._guess.prompt_tokens(request) * _texts(request.ask)
            completion = self._guess.tokens(request) - self._guess.prompt_tokens(request)
            usd = price.usd(prompt, completion) if price is not None else 0.0
            reservation = Reservation(usd, prompt + completion)
            if self._in_flight == 0 or self._bears(reservation):
                self._in_flight += 1
                self._reserved_usd += reservation.usd
                self._reserved_tokens += reservation.tokens
                return reservation
            freed = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await asyncio.wait([freed], timeout=LOOK_S)
        return None

    def release(self, reservation: Reservation) -> None:
        """The request was answered and counted, or failed: what was put by for it is free again."""
        self._in_flight -= 1
        self._reserved_usd -= reservation.usd
        self._reserved_tokens -= reservation.tokens
        while self._waiting:
            freed = self._waiting.popleft()
            if not freed.done():
                freed.set_result(None)

    def _bears(self, reservation: Reservation) -> bool:
        spent, budget = self.spent, self._budget
        usd = spent.usd + self._reserved_usd + reservation.usd
        tokens = spent.tokens + self._reserved_tokens + reservation.tokens
        return (budget.usd is None or usd <= budget.usd) and (
            budget.tokens is None or tokens <= budget.tokens
        )

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """One sample more."""
        self._observer.sample(run_id, record)
        if record.cached or record.status is Status.FAILED:
            return
        tokens: Tokens = (record.prompt_tokens, record.completion_tokens)
        if None in tokens:
            tokens = _guessed(record.messages, record.prompt, record.output, tokens)
        self._guess.learn(record, record.prompt_tokens, record.completion_tokens)
        _add(self.spent, tokens, record.cost_usd, self._prices.get(run_id))
        self._check()

    async def watch_clock(self) -> None:
        """Count the time, and stop when it is up. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        began, earlier = loop.time(), self.spent.seconds
        try:
            while True:
                left = (self._budget.minutes or 60) * 60 - self.spent.seconds
                await asyncio.sleep(min(1.0, max(0.01, left)))
                self.spent.seconds = earlier + loop.time() - began
                self._check()
        finally:
            self.spent.seconds = earlier + loop.time() - began

    def fault(self) -> UserError:
        """What was spent, and how to go on."""
        spent, budget = self.spent, self._budget
        parts = [
            _part(spent.usd, budget.usd, "{:.4g}", "US dollars"),
            _part(spent.tokens, budget.tokens, "{:,.0f}", "tokens"),
            _part(spent.seconds / 60, budget.minutes, "{:.3g}", "minutes"),
        ]
        over = [f"--set budget.{name}=…" for name in self._over()]
        return UserError(
            f"the budget is spent: {', '.join(part for part in parts if part)}",
            remedy=f"Give it more, in the suite or with {' '.join(over)}, and run the same command again: it "
            "goes on where it stopped, and what was answered is kept.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _over(self) -> list[str]:
        spent, budget = self.spent, self._budget
        pairs = {
            "usd": (spent.usd, budget.usd),
            "minutes": (spent.seconds / 60, budget.minutes),
            "tokens": (spent.tokens, budget.tokens),
        }
        return [name for name, (used, most) in pairs.items() if most is not None and used >= most]

    def _check(self) -> None:
        if not self._stop.requested and self._over():
            self._stop.fault = self.fault()
            self._stop.requested = True


def _part(used: float, most: float | None, form: str, unit: str) -> str:
    if most is None:
        return f"{form.format(used)} {unit}" if used else ""
    return f"{form.format(used)} of {most:,g} {unit}"


def _add(spent: Spent, tokens: Tokens, usd: float | None, price: PriceSpec | None) -> None:
    prompt, completion = (token or 0 for token in tokens)
    spent.tokens += prompt + completion
    if usd is None and price is not None:
        usd = price.usd(prompt, completion)
    spent.usd += usd or 0.0


def _guessed(messages: Iterable[Message], prompt: str | None, output: str | None, known: Tokens) -> Tokens:
    asked = estimated_tokens(tuple(messages), prompt) if known[0] is None else known[0]
    answered = len(output or "") / CHARACTERS_PER_TOKEN if known[1] is None else known[1]
    return asked, answered


def spent_earlier(folder: SweepFolder, prices: Mapping[str, PriceSpec | None]) -> Spent:
    """What the earlier parts of a sweep spent: by the samples on disk, and by its events."""
    spent = Spent(seconds=running_s(folder))
    for path in folder.path.glob("runs/*/judge/*/journal.jsonl*"):
        for row in read_journal(path):
            _add_row(spent, row, None)  # what a judge cost is in its rows
    for path in folder.path.glob("runs/*/judge.parquet"):
        for row in _rows(path):
            _add_row(spent, row, None)
    for path in folder.path.glob("runs/*/journal.jsonl*"):
        for row in read_journal(path):
            _add_row(spent, row, prices.get(path.parent.name))
    for path in folder.path.glob("runs/*/samples.parquet"):
        if not (path.parent / "journal.jsonl").exists():
            for row in _rows(path):
                _add_row(spent, row, prices.get(path.parent.name))
    return spent


def _rows(path: Any) -> Iterable[dict[str, Any]]:
    from evalrun.tracking.parquet import reading

    names = ("status", "cached", "cost_usd", "prompt_tokens", "completion_tokens", "prompt", "output")
    with reading(path) as file:
        present = [name for name in names if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=present):
            yield from batch.to_pylist()


def _add_row(spent: Spent, row: Mapping[str, Any], price: PriceSpec | None) -> None:
    if row.get("cached") or row.get("status") == Status.FAILED:
        return
    tokens: Tokens = (row.get("prompt_tokens"), row.get("completion_tokens"))
    if None in tokens:
        messages = [Message(message["role"], message["content"]) for message in row.get("messages") or ()]
        tokens = _guessed(messages, row.get("prompt"), row.get("output"), tokens)
    _add(spent, tokens, row.get("cost_usd"), price)


def running_s(folder: SweepFolder) -> float:
    """Seconds that the sweep ran in all its parts until now.

    A part that was killed left no event at its end: it ended when a file of its runs was last written.
    """
    total, began = 0.0, None
    for event in folder.events():
        at = datetime.fromisoformat(event["ts"]).timestamp()
        if event["action"] in ("start", "resume"):
            total, began = event["detail"].get("earlier_s", total), at
        elif event["action"] == "finish" and began is not None:
            total, began = total + at - began, None
    if began is not None:
        written = [path.stat().st_mtime for path in folder.path.glob("runs/*/*")]
        total += max([0.0, *(each - began for each in written)])
    return total
