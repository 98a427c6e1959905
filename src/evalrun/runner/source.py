"""The stream of requests of one run: rows rendered, keyed, and answered from the cache where possible.

Rows are prepared in small chunks just ahead of the workers, so memory does not grow with the dataset.
Cache hits are handed over without ever becoming a task.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice
from typing import Protocol

from evalrun.canonical import derived_seed
from evalrun.datasets import Item
from evalrun.frozen import frozen
from evalrun.prompts.rendering import Rendered
from evalrun.runner.cache import KeyMaker, ResponseCache
from evalrun.types import JSON, Request, Response, hot_value

SMALL_CHUNK = 16
"""Rows prepared at once while requests are in flight: about a third of a millisecond of the event loop."""
LARGE_CHUNK = 512
"""Rows prepared at once while everything comes from the cache and nothing is being timed."""


class Samples(Protocol):
    """What is asked: the rows of a dataset, or samples that were answered before."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Item]: ...


class Renders(Protocol):
    """Makes of an item what is sent: a prompt bound to its examples, or what stands in its place."""

    def render(self, item: Item) -> Rendered: ...


@hot_value
class Prepared:
    """A sample that is ready to be asked."""

    item: Item
    request: Request
    key: bytes | None


@frozen
class SourceOptions:
    """What shapes the requests of one run besides row and prompt."""

    params: Mapping[str, JSON]
    repeats: int
    seed: int
    stream: bool

    @property
    def samples_randomly(self) -> bool:
        """True when the model draws its tokens: then each sample gets a seed of its own."""
        return self.params.get("temperature", 1) != 0 and "seed" not in self.params


def sample_seed(root: int, sample_id: str, repeat: int) -> int:
    """A 31-bit seed that depends on the root seed, the sample and the repeat, and on nothing else."""
    return derived_seed(root, sample_id, repeat) >> 33


class Source:
    """Hands out `Prepared` samples; calls `on_hit` for those that the cache answers.

    Samples (id, repeat) in `skip` are passed over, those in `last` come after all others.
    """

    def __init__(
        self,
        samples: Iterable[Item],
        renderer: Renders,
        options: SourceOptions,
        *,
        skip: Set[tuple[str, int]],
        last: Set[tuple[str, int]] = frozenset(),
        cache: ResponseCache | None,
        keys: KeyMaker | None,
        on_hit: Callable[[Prepared, Response], None],
    ) -> None:
        self._renderer = renderer
        self._options = options
        self._cache = cache
        self._keys = keys
        self._on_hit = on_hit
        done = skip | last
        self._pending = self._requests(samples, (lambda sample: sample not in done) if done else None)
        if last:
            # What failed before comes after what was never asked: it may fail again, and end the run.
            self._pending = chain(self._pending, self._requests(samples, last.__contains__))
        self._ready: deque[Prepared] = deque()
        self._chunk = SMALL_CHUNK
        self._exhausted = False
        self._refilling = asyncio.Lock()
        self.render_s = 0.0
        """Seconds in which rows were read and prompts rendered."""

    async def take(self) -> Prepared | None:
        """The next sample that needs the model, or None when there are no more."""
        while not self._ready:
            if self._exhausted:
                return None
            # One at a time: chunks from the cache for all the workers would make one long turn of the loop.
            async with self._refilling:
                if not self._ready and not self._exhausted and self._refill():
                    await asyncio.sleep(0)
        return self._ready.popleft()

    def stop(self) -> None:
        """Hand out nothing more."""
        self._ready.clear()
        self._exhausted = True

    def _refill(self) -> bool:
        """Prepare one chunk. True when something in it came from the cache."""
        began = time.perf_counter()
        chunk = list(islice(self._pending, self._chunk))
        self.render_s += time.perf_counter() - began
        if len(chunk) < self._chunk:
            self._exhausted = True
        if self._cache is None:
            self._ready.extend(chunk)
            return False
        hits = self._cache.get_many([each.key for each in chunk if each.key is not None])
        if not hits:
            self._chunk = SMALL_CHUNK
            self._ready.extend(chunk)
            return False
        for prepared in chunk:
            response = hits.get(prepared.key) if prepared.key is not None else None
            if response is None:
                self._ready.append(prepared)
            else:
                self._on_hit(prepared, response)
        self._chunk = SMALL_CHUNK if self._ready else min(LARGE_CHUNK, self._chunk * 2)
        return True

    def _requests(
        self, samples: Iterable[Item], wanted: Callable[[tuple[str, int]], bool] | None
    ) -> Iterator[Prepared]:
        options = self._options
        random = options.samples_randomly
        every: Sequence[int] = range(options.repeats)
        for item in samples:
            repeats = every if item.repeat is None else (item.repeat,)
            if wanted is not None:
                # Before rendering: what is done already costs a look and nothing else.
                repeats = [repeat for repeat in repeats if wanted((item.sample_id, repeat))]
                if not repeats:
                    continue
            rendered = self._renderer.render(item)
            for repeat in repeats:
                drawn = random and rendered.ask is None
                seed = sample_seed(options.seed, item.sample_id, repeat) if drawn else None
                params = options.params if seed is None else {**options.params, "seed": seed}
                request = Request(
                    sample_id=item.sample_id,
                    repeat=repeat,
                    messages=rendered.messages,
                    prompt=rendered.prompt,
                    params=params,
                    row=item.row,
                    stream=options.stream and rendered.ask is None,
                    ask=rendered.ask,
                    exact=rendered.exact,
                )
                key = None
                if self._keys is not None:
                    # About one repeat alone nothing is asked twice: equal questions have one answer then.
                    drawn_again = repeat if item.repeat is None else 0
                    key = self._keys.key(
                        rendered.messages, rendered.prompt, drawn_again, seed, rendered.ask, rendered.exact
                    )
                yield Prepared(item, request, key)
