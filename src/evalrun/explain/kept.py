"""Explanations beside the samples of their run: written, read, and given their texts again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from evalrun.atomic import write_private
from evalrun.documents import read
from evalrun.errors import UserError
from evalrun.explain.attention import keep_maps
from evalrun.explain.faithful import over_samples
from evalrun.explain.subject import prompt_of
from evalrun.explanations import EXPLANATIONS, MAPS, Explained, Explanation, OverSamples, Unit
from evalrun.tracking.folder import SweepFolder, file_sha256
from evalrun.tracking.samples import find_samples
from evalrun.types import JSON


def read_explanations(folder: SweepFolder, run_id: str) -> Explained | None:
    """What was explained of a run; None where nothing was."""
    path = folder.run_dir(run_id) / EXPLANATIONS
    try:
        return read(Explained, orjson.loads(path.read_bytes()), path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError("is no JSON", where=str(path), remedy="Explain the run again.") from error


def keep(folder: SweepFolder, explained: Explained, maps: Mapping[str, Any] | None = None) -> Explained:
    """Write the explanations beside those of other samples, methods and targets, and the whole `maps` of
    attention; give back the new ones, with what is to be said of all of the run."""
    before = read_explanations(folder, explained.run)
    new = {_key(each) for each in explained.samples}
    kept = [each for each in (before.samples if before else ()) if _key(each) not in new]
    path = folder.run_dir(explained.run) / EXPLANATIONS
    every = (*kept, *explained.samples)
    explained = replace(explained, over=over_samples(every))
    if maps:
        keep_maps(path.parent, maps)
    write_private(path, orjson.dumps(asdict(replace(explained, samples=every))))
    detail: dict[str, JSON] = {
        "samples": [each.sample_id for each in explained.samples],
        "method": explained.samples[0].method if explained.samples else "",
        "explain_sha256": file_sha256(path),
    }
    if maps:
        detail["attention_sha256"] = file_sha256(path.with_name(MAPS))
    folder.append_event("explain", detail, target=explained.run)
    return explained


def _key(each: Explanation) -> tuple[str, int, str, str]:
    return each.sample_id, each.repeat, each.method, each.target


def documents(folder: SweepFolder, explained: Explained) -> Iterator[dict[str, JSON]]:
    """Each explanation as JSON, with the texts of its units and of the answer."""
    for one in explained.samples:
        texts = sample_texts(folder, explained.run, one)
        document = asdict(one)
        for unit, made in zip(one.units, document["units"], strict=True):
            first = unit.places[0]
            made |= {"text": texts.of(unit), "message": first.message, "start": first.start, "end": first.end}
        yield {
            "run": explained.run,
            "model": explained.model,
            **document,
            "answer": texts.answer,
            "faithfulness": one.faithfulness.word,
            "faithful": asdict(one.faithfulness),
            "identity": explained.identity,
            "over_samples": next((asdict(o) for o in explained.over if _together(o) == _together(one)), None),
        }


def _together(found: Explanation | OverSamples) -> tuple[str, str, str]:
    level = found.level if isinstance(found, OverSamples) else found.faithfulness.level
    return found.method, found.target, level


@dataclass(frozen=True, slots=True)
class SampleTexts:
    """What a stored sample says: places of an explanation are in it."""

    contents: tuple[str, ...]
    roles: tuple[str, ...]
    answer: str

    def of(self, unit: Unit) -> str:
        """What a unit says."""
        return " … ".join(self.contents[p.message][p.start : p.end] for p in unit.places)


def sample_texts(folder: SweepFolder, run_id: str, one: Explanation) -> SampleTexts:
    """The texts of an explained sample, from the samples of its run."""
    found = find_samples(folder.samples_path(run_id), f"sample_id == {one.sample_id!r}").rows
    row = next((row for row in found if int(row.get("repeat") or 0) == one.repeat), None)
    if row is None:
        raise UserError(f"the sample '{one.sample_id}' is not in the run any more", where=run_id)
    prompt = prompt_of(row, None)
    return SampleTexts(prompt.contents, prompt.roles, str(row.get("output") or ""))
