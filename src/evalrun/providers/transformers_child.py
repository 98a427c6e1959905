"""The child process of the provider `transformers`: holds a model of Hugging Face Transformers and answers
batches by the wire of `vllm_child`.

Rows of one batch are padded on the left, and drawn tokens come from a generator of each row's own: what a row
is answered does not depend on the others, up to the rounding of sums.
"""

from __future__ import annotations

import json
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation import logits_process as processors
from transformers.generation.stopping_criteria import StoppingCriteria

from evalrun.providers.vllm_child import Job, announce, end_with_parent, listen

_SCORED_AT_ONCE = 512
"""Positions whose log-probabilities over the vocabulary are held at the same time."""
_MOST_SCORES = 1 << 28
"""Scores over the vocabulary that one forward pass may give: texts x tokens x vocabulary."""
_DIVERGED = "the model gives NaN: its training diverged, or the dtype is too narrow for it"


def main() -> None:
    """Load what the JSON in the first argument names, then answer one batch after the other."""
    config = json.loads(sys.argv[1])
    channel = os.dup(1)
    os.dup2(2, 1)  # what libraries print belongs to the log
    threading.Thread(target=end_with_parent, args=(config["parent_pid"],), daemon=True).start()
    torch.set_num_threads(config["threads"])
    engine = Engine(config)
    jobs: queue.Queue[Job] = queue.Queue()
    announce(channel, listen(jobs), **engine.described())
    while True:
        job = jobs.get()
        try:
            engine.answer(job)
        finally:
            job.lines.put(None)


@dataclass(frozen=True)
class Entry:
    """One request, as tokens. `text` is what was cut into them, `limit` how many may be generated."""

    index: int
    text: str
    ids: list[int]
    params: Mapping[str, Any]
    limit: int


class Engine:
    """The model with its tokenizer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        known = {"revision": config["revision"]} if config["revision"] else {}
        self.tokenizer = AutoTokenizer.from_pretrained(config["tokenizer"], **known)
        dtype = config["dtype"]
        model = AutoModelForCausalLM.from_pretrained(
            config["model"],
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,  # the other formats are pickles
            **known,
        )
        if config["adapter"]:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, config["adapter"])
        self.device = torch.device(_device(config["device"]))
        self.model: Any = model.to(self.device).eval()
        self.rows: int = config["batch"]
        defaults = model.generation_config
        ends = defaults.eos_token_id if defaults.eos_token_id is not None else self.tokenizer.eos_token_id
        self.ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        self.pad = next((n for n in (self.tokenizer.pad_token_id, *sorted(self.ends)) if n is not None), 0)
        self._inside: Any = None
        text = model.config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        self.context = int(getattr(text, "max_position_embeddings", None) or 1 << 30)

    def described(self) -> dict[str, Any]:
        """What it says of itself when it is ready."""
        parameter = next(self.model.parameters())
        return {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "device": self.device.type,
            "chat_template": bool(self.tokenizer.chat_template),
            "context": self.context,
        }

    # --- batches ----------------------------------------------------------------------------------------

    def answer(self, job: Job) -> None:
        """Answer every request of a batch: those that can be asked together, sorted by length."""
        if job.api == "look":
            self._look(job)
            return
        alike: dict[str, list[Entry]] = {}
        for index, request in enumerate(job.requests):
            try:
                entry = self._entry(index, job.api, request)
            except Exception as error:
                _refuse(job, index, error)
            else:
                shared = {name: value for name, value in entry.params.items() if name not in _OF_A_ROW}
                alike.setdefault(json.dumps(shared, sort_keys=True), []).append(entry)
        for entries in alike.values():
            entries.sort(key=lambda entry: -len(entry.ids))  # what does not fit shows at once
            rows = self.rows
            if "prompt_logprobs" in entries[0].params:
                rows = min(rows, max(1, _MOST_SCORES // (max(1, len(entries[0].ids)) * self.vocabulary)))
            for at in range(0, len(entries), rows):
                self._together(job, entries[at : at + rows])

    def _look(self, job: Job) -> None:
        """What only a model in this process can tell; see `transformers_inside`."""
        from evalrun.providers.transformers_inside import Inside

        if self._inside is None:
            self._inside = Inside(self)
        for index, request in enumerate(job.requests):
            try:
                job.answer(index, result=self._inside.look(request))
            except Exception as error:
                _refuse(job, index, error)

    def _entry(self, index: int, api: str, request: Mapping[str, Any]) -> Entry:
        params = dict(request["params"])
        if api == "chat":
            given = params.pop("chat_template_kwargs", None) or {}
            text = self.tokenizer.apply_chat_template(
                request["messages"], tokenize=False, add_generation_prompt=True, **given
            )
        else:
            text = request["prompt"]
        ids = self.tokenizer(text, add_special_tokens=api != "chat")["input_ids"]
        if "prompt_logprobs" in params:
            if len(ids) > self.context:
                raise ValueError(f"the text has {len(ids)} tokens, more than the context of {self.context}")
            return Entry(index, text, ids, {"prompt_logprobs": 0}, 0)
        room = self.context - len(ids)
        if not ids or room < 1:
            raise ValueError(f"the prompt has {len(ids)} tokens, and the context {self.context}")
        wanted = params.pop("max_completion_tokens", None) or params.pop("max_tokens", None) or room
        return Entry(index, text, ids, params, min(int(wanted), room))

    def _together(self, job: Job, entries: Sequence[Entry]) -> None:
        """Answer requests with the same parameters; by halves, where memory does not suffice for all."""
        scored = "prompt_logprobs" in entries[0].params
        try:
            with torch.inference_mode():
                lines = list(self._scored(entries, job.began) if scored else self._generated(job, entries))
        except torch.OutOfMemoryError as error:
            if len(entries) == 1:
                _refuse(job, entries[0].index, error)
                return
            torch.cuda.empty_cache()
            for part in (entries[: len(entries) // 2], entries[len(entries) // 2 :]):
                self._together(job, part)
        except Exception as error:
            for entry in entries:
                _refuse(job, entry.index, error)
        else:
            for entry, line in zip(entries, lines, strict=True):
                job.answer(entry.index, **line)

    # --- likelihoods of texts ---------------------------------------------------------------------------

    def _scored(self, entries: Sequence[Entry], began: float) -> Iterator[dict[str, Any]]:
        """The log-probability of each token after those before it; the first has none. Padded on the right:
        nothing is generated, and no token sees what comes after it."""
        started = time.monotonic()
        longest = max(1, *(len(entry.ids) for entry in entries))
        rows = [entry.ids + [self.pad] * (longest - len(entry.ids)) for entry in entries]
        mask = [[1] * len(entry.ids) + [0] * (longest - len(entry.ids)) for entry in entries]
        ids = torch.tensor(rows, device=self.device)
        logits = self.model(input_ids=ids, attention_mask=torch.tensor(mask, device=self.device)).logits
        known = [_own(logits[row], entry.ids) for row, entry in enumerate(entries)]
        ended = time.monotonic()
        for values, entry in zip(known, entries, strict=True):
            yield {
                "output": "",
                "finish_reason": None,
                "prompt_tokens": len(entry.ids),
                "completion_tokens": 0,
                "prompt_logprobs": {
                    **self._shown(entry),
                    "token_logprobs": [None, *values][: len(entry.ids)],
                },
                "times": [started - began, None, ended - began],
            }

    def _shown(self, entry: Entry) -> dict[str, Any]:
        """Each token as the part of the text that it stands for, U+FFFD for parts of characters; and where it
        begins, white space before it included: some tokenizers leave that out of what they say of a token."""
        if not self.tokenizer.is_fast:
            return {"tokens": [self.tokenizer.decode([token]) for token in entry.ids]}
        spans = self.tokenizer(entry.text, return_offsets_mapping=True)["offset_mapping"]
        shown: list[str] = []
        starts: list[int] = []
        reached = 0
        for begin, end in spans:
            if begin < end and begin < reached:  # shares a character with the token before it
                shown[-1] = "\ufffd"
                shown.append("\ufffd")
                starts.append(starts[-1])
            else:
                shown.append(entry.text[begin:end])
                starts.append(reached)
            reached = max(reached, end)
        return {"tokens": shown, "text_offset": starts}

    # --- generation -------------------------------------------------------------------------------------

    def _generated(self, job: Job, entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
        params = entries[0].params
        longest = max(len(entry.ids) for entry in entries)
        rows = [[self.pad] * (longest - len(entry.ids)) + entry.ids for entry in entries]
        mask = [[0] * (longest - len(entry.ids)) + [1] * len(entry.ids) for entry in entries]
        top = _top_logprobs(params)
        watch = _Watch(self, entries, _stops(params))
        output = self.model.generate(
            input_ids=torch.tensor(rows, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            max_new_tokens=max(entry.limit for entry in entries),
            do_sample=False,  # what draws is among the processors, row by row
            temperature=None,
            top_p=None,
            top_k=None,
            min_p=None,
            pad_token_id=self.pad,
            eos_token_id=sorted(self.ends) or None,
            logits_processor=self._processors(entries),
            stopping_criteria=[watch],
            output_logits=top is not None,
            return_dict_in_generate=True,
            **{name: params[name] for name in _PASSED_ON if name in params},
        )
        for row in range(len(entries)):
            count = watch.counts[row]
            ids = output.sequences[row, longest : longest + count].tolist()
            line = watch.line(row, ids, job.began)
            if top is not None:
                line["logprobs"] = self._logprobs(job.api, output.logits, row, ids, top)
            yield line

    def _processors(self, entries: Sequence[Entry]) -> Any:
        """What shapes the scores before the greatest is taken. The model's own generation_config gives the
        defaults, as in `generate`."""
        params, found = entries[0].params, processors.LogitsProcessorList()
        own = self.model.generation_config
        defaults = own if own.do_sample else None
        temperature = params.get("temperature", (defaults and defaults.temperature) or 0.0)
        found.append(_Sane())
        if not temperature:
            return found
        found.append(processors.TemperatureLogitsWarper(float(temperature)))
        if top_k := params.get("top_k", defaults and defaults.top_k):
            found.append(processors.TopKLogitsWarper(int(top_k)))
        top_p = params.get("top_p", defaults and defaults.top_p)
        if top_p is not None and top_p < 1:
            found.append(processors.TopPLogitsWarper(float(top_p)))
        if min_p := params.get("min_p", defaults and defaults.min_p):
            found.append(processors.MinPLogitsWarper(float(min_p)))
        found.append(_Draw([entry.params.get("seed") for entry in entries], self.device))
        return found

    def _logprobs(self, api: str, steps: Sequence[Any], row: int, ids: Sequence[int], top: int) -> Any:
        """Log-probabilities by the model alone, before temperature and the rest."""
        tokens = []
        for token, logits in zip(ids, steps, strict=False):
            known = torch.log_softmax(logits[row].float(), -1)
            values, likeliest = known.topk(min(top, len(known))) if top else ([], [])
            tokens.append(
                {
                    "token": self.tokenizer.decode([token]),
                    "logprob": float(known[token]),
                    "top_logprobs": [
                        {"token": self.tokenizer.decode([int(other)]), "logprob": float(value)}
                        for value, other in zip(values, likeliest, strict=True)
                    ],
                }
            )
        if api == "chat":
            return {"content": tokens}
        return {
            "tokens": [each["token"] for each in tokens],
            "token_logprobs": [each["logprob"] for each in tokens],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in each["top_logprobs"]} for each in tokens
            ],
        }


_OF_A_ROW = frozenset({"seed"})
_PASSED_ON = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")


class _Sane(processors.LogitsProcessor):  # type: ignore[misc]
    """Raises where the first scores are NaN: the greatest of them would be an answer like any other."""

    def __init__(self) -> None:
        self._looked = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not self._looked and bool(torch.isnan(scores).any()):
            raise ValueError(_DIVERGED)
        self._looked = True
        return scores


class _Draw(processors.LogitsProcessor):  # type: ignore[misc]
    """Draws a token by its probability, with a generator for each row, and leaves it the greatest: the
    exponential race, argmax p / E with E ~ Exp(1)."""

    def __init__(self, seeds: Sequence[int | None], device: torch.device) -> None:
        self._generators = [torch.Generator(device) for _ in seeds]
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.seed() if seed is None else generator.manual_seed(seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log()


@dataclass
class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Sees every token: says which rows are done and why, and when the first and the last token came."""

    engine: Engine
    entries: Sequence[Entry]
    stops: Sequence[str]
    started: float = field(default_factory=time.monotonic)
    first: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.entries)
        self.reasons: list[str | None] = [None] * len(self.entries)
        self.last = [0.0] * len(self.entries)
        self._tail = 1 + max((len(stop.encode()) for stop in self.stops), default=0)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        now = time.monotonic()
        self.first = self.first or now
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.reasons[row] is None:
                self.counts[row] += 1
                self.last[row] = now
                self.reasons[row] = self._reason(row, token, input_ids)
        return torch.tensor([reason is not None for reason in self.reasons], device=input_ids.device)

    def _reason(self, row: int, token: int, input_ids: Any) -> str | None:
        count = self.counts[row]
        if token in self.engine.ends:
            return "stop"
        if self.stops:
            # Every token but the first few holds a byte at least: so many reach back over a whole stop.
            ids = input_ids[row, -min(count, self._tail) :].tolist()
            text = self.engine.tokenizer.decode(ids, skip_special_tokens=True)
            if any(stop in text for stop in self.stops):
                return "stop"
        return "length" if count >= self.entries[row].limit else None

    def line(self, row: int, ids: Sequence[int], began: float) -> dict[str, Any]:
        """What is answered to a row that generated these tokens. Times are seconds after the batch came."""
        text = self.engine.tokenizer.decode(ids, skip_special_tokens=True)
        ends = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        return {
            "output": text[: min(ends)] if ends else text,
            "finish_reason": self.reasons[row],
            "prompt_tokens": len(self.entries[row].ids),
            "completion_tokens": len(ids),
            "times": [self.started - began, self.first - began, self.last[row] - began],
        }


def _own(logits: Any, ids: Sequence[int]) -> list[float]:
    """The log-probability of each token but the first, from the scores at the place before it."""
    found: list[float] = []
    for at in range(0, len(ids) - 1, _SCORED_AT_ONCE):
        following = torch.tensor(ids[at + 1 : at + 1 + _SCORED_AT_ONCE], device=logits.device)
        known = torch.log_softmax(logits[at : at + len(following)].float(), -1)
        found += known.gather(-1, following[:, None])[:, 0].tolist()
    if any(map(math.isnan, found)):
        raise ValueError(_DIVERGED)
    return [max(value, -9999.0) for value in found]


def _stops(params: Mapping[str, Any]) -> list[str]:
    stop = params.get("stop") or []
    return [text for text in ([stop] if isinstance(stop, str) else stop) if text]


def _top_logprobs(params: Mapping[str, Any]) -> int | None:
    """How many alternatives are wanted beside each token's own log-probability; None where none is."""
    wanted = params.get("logprobs")
    if wanted is None or wanted is False:
        return None
    return int(params.get("top_logprobs") or 0) if wanted is True else int(wanted)


def _device(name: str) -> str:
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _refuse(job: Job, index: int, error: Exception) -> None:
    job.answer(index, error="bad_request", message=f"{type(error).__name__}: {error}"[:2000])


if __name__ == "__main__":
    main()
