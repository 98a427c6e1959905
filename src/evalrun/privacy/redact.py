"""Removes personal data from texts, rows and records before they are stored.

Scores are made of the raw texts. What a recogniser cannot look at is not stored at all (`FAILED`): nothing
raw goes by.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from evalrun.errors import ExitCode, UserError
from evalrun.privacy import recognisers
from evalrun.privacy.known import WORD, Known, known_values, without_known
from evalrun.privacy.national import NUMBERS, SHOWN_AS, STRICT
from evalrun.privacy.recognisers import Recogniser, Span, windows
from evalrun.secrets import MASK, environment_secrets, scrub
from evalrun.suite.privacy import ColumnRule, PrivacySpec
from evalrun.types import JSON, Message, SampleRecord

FAILED = "<REDACTION FAILED>"
"""What stands where a recogniser raised: the text is not stored."""
WITHHELD = "<WITHHELD>"
_REMOVES = ("hmac", "drop", "withhold")
"""Rules of columns whose values are removed from the other texts too."""
_FROM_SERVERS = ("prompt", "error", "model", "fingerprint", "finish_reason")
"""A server may say of itself whatever it was asked."""
_SAID = ("output", "answer", "reasoning", "tool_calls", "likelihood")
_VECTOR = re.compile(r"\[[-\d.,eE+\s\[\]]*\]")
_LEAST_APART = 6
_HUGE = 1e300
_LONG = 40
LEAST_INTEGER = 10_000_000


@dataclass(slots=True)
class Sample:
    """What was replaced in one sample so far: the same value has the same number."""

    known: list[Known] = field(default_factory=list)
    numbers: dict[tuple[str, str], str] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    findings: Counter[str] | None = None
    """How much was found of each kind, where the text is only looked through and nothing of it stored."""

    def placeholder(self, kind: str, value: str) -> str:
        """Such as <EMAIL_1>."""
        if self.findings is not None:
            self.findings[kind] += 1
        key = kind, _bare(value) or value
        put = self.numbers.get(key)
        if put is None:
            count = self.counts[kind] = self.counts.get(kind, 0) + 1
            put = self.numbers[key] = f"<{_shown(kind)}_{count}>"
        return put


_SIGNS = bytes(code for code in range(128) if not chr(code).isalnum())


def _bare(value: str) -> str:
    """Letters and digits alone, in one case: what is written in two ways is one value."""
    if value.isascii():
        return value.encode().translate(None, _SIGNS).lower().decode()
    return "".join(filter(str.isalnum, value)).casefold()


@cache
def _shown(kind: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", kind.upper())


class Redactor:
    """Removes what the settings say. Called with a text, it gives the text without it.

    `failed` counts the texts that a recogniser raised on, and `failure` says what it raised.
    """

    def __init__(
        self,
        settings: PrivacySpec,
        key: bytes,
        kinds: Mapping[str, Recogniser],
        *,
        secrets: bool = True,
        quick: Callable[[str], bool] | None = None,
    ) -> None:
        """`kinds` are asked in their order; `quick` says whether they could find anything in a text."""
        self.settings = settings
        self._key = key
        # Addresses first, then numbers, where digits are; then what may see what these have left.
        self._texts = [each for each in kinds.items() if each[0] in STRICT and each[0] not in NUMBERS]
        self._numbers = [each for each in kinds.items() if each[0] in NUMBERS]
        self._own = [each for each in kinds.items() if each[0] not in STRICT]
        self._secrets = secrets
        self._quick = quick
        self._rules: Mapping[str, ColumnRule] = settings.rules
        removed = (name for name, rule in self._rules.items() if rule in _REMOVES)
        self._removed = tuple(dict.fromkeys([*settings.known, *removed]))  # in an order: it gives the names
        self._everyone: dict[str, dict[str, Known]] = {}
        """Values of all rows seen, by a word that occurs in them."""
        self._environment = environment_secrets()
        self._harmless: tuple[str | None, ...] = ()
        """What a server last called itself, where nothing is in it."""
        self.failed = 0
        self.failure = ""

    def __call__(self, text: str) -> str:
        """The text without personal data; `FAILED` in its place where that cannot be known."""
        return self._clean(text, Sample(), None)

    def findings(self, text: str) -> Counter[str]:
        """How often each kind occurs in a text. Raises what a recogniser raises. Addresses of the machine
        itself (loopback) are nobody's."""
        findings = Counter[str]()
        self._searched(text, Sample(findings=findings), None)
        return findings

    def may_hold(self, text: str) -> bool:
        """Whether anything could be found in a text: quick, and True of some others."""
        if self._quick is None or self._removed or self._everyone or self._quick(text):
            return True
        return bool(self._environment) and any(variable in text for variable in self._environment)

    def pseudonym(self, value: JSON) -> str:
        """16 hexadecimal digits of HMAC-SHA256 with the store's key: equal for equal values."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]

    def fault(self) -> UserError:
        """What is said where a recogniser raised."""
        return UserError(
            f"a recogniser raised ({self.failure}): {self.failed:,} texts are stored as {FAILED} in place of "
            "what they were; nothing raw was stored",
            where="privacy",
            remedy="Correct the recogniser, then run the suite again with --fresh.",
            exit_code=ExitCode.INCOMPLETE,
        )

    # Rows and records

    def row(self, row: Mapping[str, JSON]) -> dict[str, JSON]:
        """A dataset's row as it is stored."""
        return self._row(row, Sample(self._known_of(row)))

    def learn(self, rows: Iterable[Mapping[str, JSON]]) -> None:
        """Rows whose known values may occur in documents, and in the texts of other rows (examples)."""
        for row in rows:
            self._known_of(row)

    @property
    def removes(self) -> bool:
        """Whether values of some columns are removed from all texts."""
        return bool(self._removed)

    def known(self) -> tuple[bytes, dict[str, dict[str, Known]]]:
        """The key of pseudonyms and the values that were learnt, for `know` on another machine."""
        return self._key, self._everyone

    def know(self, key: bytes, values: Mapping[str, Mapping[str, Known]]) -> None:
        """Take over what `known` gave elsewhere, so that the same texts become of the same rows."""
        self._key = key
        self._everyone = {word: dict(some) for word, some in values.items()}

    def identity(self, sample_id: str, row: Mapping[str, JSON]) -> str:
        """The id under which a sample is stored: a pseudonym where the id itself is personal."""
        if not self._removed and self._quick is not None and not self._quick(sample_id):
            return sample_id
        named = any(name in row and str(row[name]) == sample_id for name in self._removed)
        return self.pseudonym(sample_id) if named or self(sample_id) != sample_id else sample_id

    def record(self, record: SampleRecord, row: Mapping[str, JSON] | None = None) -> SampleRecord:
        """The record as it is stored. `row` is the dataset's, where the record's own columns are others."""
        if self._nothing_in(record):
            return record
        sample = Sample(self._known_of(record.vars if row is None else row))
        texts: dict[str, Any] = {
            "vars": self._row(record.vars, sample),
            "target": self._value(record.target, sample),
            "messages": tuple(
                Message(each.role, self._value(each.content, sample)) for each in record.messages
            ),
            **{name: self._value(getattr(record, name), sample) for name in _FROM_SERVERS},
            "reasons": self._value(record.reasons, sample),
            "attempt_log": tuple(
                replace(each, message=self._value(each.message, sample)) for each in record.attempt_log
            ),
            "sensitive": {
                name: self._column(name, value, sample) for name, value in record.sensitive.items()
            },
        }
        if record.cluster is not None and self._value(record.cluster, sample) != record.cluster:
            texts["cluster"] = self.pseudonym(record.cluster)
        if self.settings.outputs == "redact" and not _VECTOR.fullmatch(record.output or ""):
            said = [name for name in _SAID if getattr(record, name) is not None]
            texts |= {name: self._value(getattr(record, name), sample) for name in said}
            if record.logprobs is not None and any(texts[name] != getattr(record, name) for name in said):
                texts["logprobs"] = None  # its tokens spell the text
        return replace(record, **texts)

    def reasons(self, raw: Mapping[str, Any], reasons: Mapping[str, str]) -> dict[str, str]:
        """What scorers said of a sample after its record (`raw`, as it was) was stored, as it is stored: with
        the numbers that values have in that record."""
        sample = Sample(self._known_of(raw["vars"]))
        self._row(raw["vars"], sample)
        messages = [each["content"] for each in raw.get("messages") or ()]
        for value in (
            raw.get("target"),
            messages,
            *map(raw.get, ("prompt", "error", "reasons", "sensitive")),
        ):
            self._value(value, sample)
        for name in ("output", "answer", "reasoning", "tool_calls"):
            self._value(raw.get(name), sample)
        return {name: str(self._value(reason, sample)) for name, reason in reasons.items()}

    def document(self, value: Any) -> Any:
        """A JSON-like value of a sweep (manifest, results, event) as it is stored. Addresses of endpoints
        stay: they say who was asked."""
        return self._document(value, Sample())

    def _document(self, value: Any, sample: Sample, spare: str | None = "ip") -> Any:
        if isinstance(value, str):
            return self._clean(value, sample, spare) if len(value) > 4 else value
        if isinstance(value, Mapping):
            return {
                name: item
                if name in STRUCTURE
                else self._document(item, sample, None if name == "diff" else spare)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._document(item, sample, spare) for item in value]
        return value

    def _nothing_in(self, record: SampleRecord) -> bool:
        """Whether a record clearly holds nothing: one look at all its texts together."""
        if self._quick is None or self._removed or self._everyone:
            return False
        texts: list[str] = []
        for message in record.messages:
            _gather(message.content, texts)
        asked = "\n".join(texts)
        texts = [asked]
        for value in (record.prompt, record.output, record.answer, record.target, record.error,
                      record.reasoning, record.tool_calls, record.cluster, record.likelihood):  # fmt: skip
            if value is not None:
                _gather(value, texts)
        for of_names in (record.vars, record.reasons, record.sensitive):
            if of_names:
                _gather(of_names, texts, asked)
        for attempt in record.attempt_log:
            if attempt.message:
                texts.append(attempt.message)
        of_server = record.model, record.fingerprint, record.finish_reason
        if of_server == self._harmless:
            return not self.may_hold("\n".join(texts))
        nothing = not self.may_hold("\n".join([*texts, *filter(None, of_server)]))
        self._harmless = of_server if nothing else self._harmless
        return nothing

    def _known_of(self, row: Mapping[str, JSON]) -> list[Known]:
        found: list[Known] = []
        for name in self._removed:
            value = row.get(name)
            if value is None:
                continue
            rule = self._rules.get(name)
            text = self.pseudonym(value) if rule == "hmac" else ""
            of_value = known_values(value, name, text, words=name in self.settings.known)
            found += of_value
            for one in of_value:
                # Of other rows' texts only what is told apart from ordinary words is removed.
                whole = one.digits or one.part == one.value
                if whole and len(one.value) >= _LEAST_APART and (one.whole or " " in one.value):
                    for hint in one.hints:
                        self._everyone.setdefault(hint, {})[one.value] = one
        return found

    def _row(self, row: Mapping[str, JSON], sample: Sample) -> dict[str, JSON]:
        return {
            name if name.isidentifier() else self._clean(name, sample, None): self._column(
                name, value, sample
            )
            for name, value in row.items()
            if self._rules.get(name) != "drop"
        }

    def _column(self, name: str, value: JSON, sample: Sample) -> JSON:
        rule = self._rules.get(name, "redact")
        if value is None or rule == "full":
            return value
        if rule == "hmac":
            return self.pseudonym(value)
        return WITHHELD if rule in ("withhold", "drop") else self._value(value, sample)

    def _value(self, value: Any, sample: Sample) -> Any:
        kind = type(value)
        if kind is str:
            clean = sample.done.get(value)
            if clean is None:
                clean = sample.done[value] = self._clean(value, sample, None)
            return clean
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(value, sample)
        if isinstance(value, Mapping):
            return {self._value(name, sample): self._value(item, sample) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item, sample) for item in value]
        return value

    def _number(self, value: int | float, sample: Sample) -> JSON:
        whole = isinstance(value, int) or value.is_integer()
        if (whole and abs(value) >= LEAST_INTEGER) or any(one.value == str(value) for one in sample.known):
            text = str(int(value)) if whole else str(value)
            clean = self._clean(text, sample, None)
            return value if clean == text else clean
        return value

    # Texts

    def _clean(self, text: str, sample: Sample, spare: str | None) -> str:
        try:
            return self._searched(text, sample, spare)
        except Exception as error:  # whatever it is: nothing raw goes by
            self.failed += 1
            self.failure = self.failure or f"{type(error).__name__} in {_where(error)}"
            return FAILED

    def _searched(self, text: str, sample: Sample, spare: str | None) -> str:
        if not text or (text.startswith("data:") and ";base64," in text[:100]):
            return text
        if not (sample.known or self._everyone or self._environment):
            return self._by_kinds(text, sample, spare)
        known = [*sample.known, *self._of_others(text)]
        text = without_known(text, [one for one in known if one.whole], sample.placeholder)
        of_environment = self._secrets and any(variable in text for variable in self._environment)
        text = self._by_kinds(text, sample, spare, surely=of_environment)
        return without_known(text, [one for one in known if not one.whole], sample.placeholder)

    def _by_kinds(self, text: str, sample: Sample, spare: str | None, *, surely: bool = False) -> str:
        if not surely and self._quick is not None and not self._quick(text):
            return text
        if surely or (self._secrets and recognisers.hides_secret(text)):
            clean = scrub(text)
            if sample.findings is not None:
                sample.findings["secret"] += clean.count(MASK) - text.count(MASK)
            text = clean
        text = self._by_some(text, self._texts, sample, spare)
        for begin, end in reversed(windows(text)) if self._numbers else ():
            part = self._by_some(text[begin:end], self._numbers, sample, spare)
            text = text[:begin] + part + text[end:]
        return self._by_some(text, self._own, sample, spare) if self._own else text

    @staticmethod
    def _by_some(
        text: str, kinds: Sequence[tuple[str, Recogniser]], sample: Sample, spare: str | None
    ) -> str:
        for kind, recognise in kinds:
            spans = sorted(recognise(text)) if kind != spare else ()
            if spans and sample.findings is not None and kind == "ip":
                spans = [span for span in spans if not recognisers.is_loopback(text[slice(*span)])]
            if spans:
                text = _replaced(text, spans, SHOWN_AS.get(kind, kind).removeprefix("presidio_"), sample)
        return text

    def _of_others(self, text: str) -> Iterator[Known]:
        if self._everyone:
            for word in {word.lower() for word in WORD.findall(text)} & self._everyone.keys():
                yield from self._everyone[word].values()


STRUCTURE = frozenset(
    {"base_url", "endpoint", "remote", "digest", "spec_digest", "cell_digest", "sweep", "run", "packages"}
    | {"started_at", "finished_at", "resumed_at", "schema_version"}
)
"""Keys of documents whose texts name things of evalrun's: nothing is searched there."""


def _stands_in(text: str, other: str) -> bool:
    """Whether a text stands in another as words of its own, so that whoever looked at that has seen it."""
    at = other.find(text)
    end = at + len(text)
    return at >= 0 and not (other[at - 1 : at].isalnum() or other[end : end + 1].isalnum())


def _gather(value: Any, texts: list[str], seen: str = "") -> None:  # noqa: C901 - a list of types
    """The texts in a value, but those that stand in `seen`. By type and not by kind: this is asked of every
    field of every record."""
    kind = type(value)
    if kind is str:
        texts.append(value)
    elif kind is dict:
        for name, item in value.items():
            if type(item) is str:
                if len(item) <= _LONG or not _stands_in(item, seen):
                    texts.append(item)
            elif item is not None:
                _gather(item, texts)
            if len(name) > _LEAST_APART and not name.isidentifier():
                texts.append(name)
    elif kind is int or kind is float:
        if value >= LEAST_INTEGER or value <= -LEAST_INTEGER:
            texts.append(str(int(value)) if abs(value) < _HUGE else "")
    elif kind is bool or value is None:
        return
    elif isinstance(value, Mapping):
        _gather(dict(value), texts, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            _gather(item, texts)
    else:
        texts.append(str(value))


def _replaced(text: str, spans: Sequence[Span], kind: str, sample: Sample) -> str:
    """The text with spans, in their order, replaced; of those that overlap the first counts, then what is
    left of others."""
    if len(spans) == 1:
        begin, end = spans[0]
        return (
            f"{text[:begin]}{sample.placeholder(kind, text[begin:end])}{text[end:]}" if end > begin else text
        )
    parts, at = [], 0
    for begin, end in spans:
        begin = max(begin, at)
        if end > begin:
            parts += [text[at:begin], sample.placeholder(kind, text[begin:end])]
            at = end
    return "".join([*parts, text[at:]])


def _where(error: Exception) -> str:
    """The function that raised, without what it raised: messages quote their input."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_qualname if trace is not None else "a recogniser"
