"""One stored sample, explained: its prompt in units, and what each of them is worth."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalrun.errors import UserError
from evalrun.explain.asking import Asker, Likelihood
from evalrun.explain.attention import key_of, shown
from evalrun.explain.faithful import faithfulness
from evalrun.explain.games import Coalition, Node, Values, efficiency_gap, flat, shared
from evalrun.explain.levels import Level, TextGame
from evalrun.explain.options import Options
from evalrun.explain.subject import Asked, Marker, Run, prompt_of
from evalrun.explain.texts import Prompt, Remover, donors_of, is_blank, token_counts, torn
from evalrun.explain.units import make_units
from evalrun.explanations import GRADIENTS, Attention, Explanation, Faithfulness, Rows, Unit
from evalrun.tracking.samples import find_samples

_TWICE = 5
"""So many of the units with the greatest values of a level are removed in another way as well."""
_DONORS = 5
_FLIP = 0.01
MOST_LEFT_OUT = 64
"""So many parts of the top level, or fewer, are also removed one by one beside Shapley's values."""


@dataclass
class Sample:
    """One sample with its prompt cut into units."""

    row: Mapping[str, Any]
    asker: Asker
    options: Options
    prompt: Prompt
    units: list[Unit]
    donors: dict[tuple[int, int], list[str]]
    removals: dict[str, str]
    seed: int
    notes: list[str]
    maps: dict[str, Any] = field(default_factory=dict)
    """Whole maps of attention, by their key."""

    @classmethod
    def of(cls, run: Run, row: Mapping[str, Any], asker: Asker, marker: Marker, options: Options) -> Sample:
        """Cut the prompt of a row. Raises UserError where nothing can be left out of it, or all would be."""
        from evalrun.canonical import digest

        where = f"sample {row['sample_id']}"
        prompt = prompt_of(row, asker)
        units = make_units(prompt.contents, prompt.roles, marker.sections(row, prompt), options.units)
        if not units:
            raise UserError("its prompt is empty", where=where)
        levels = tuple(dict.fromkeys(unit.level for unit in units))
        seed = int(digest([run.suite.seed, row["sample_id"]])[:12], 16)
        donors: dict[tuple[int, int], list[str]] = {}
        if options.removal == "resample":
            donors = _donors(run, row, marker, options, (prompt, units), seed)
        removals = {level: _removal(options, level, levels) for level in levels}
        notes = [marker.why] if marker.why else []
        made = cls(row, asker, options, prompt, units, donors, removals, seed, notes)
        for level in levels:
            own = [unit for unit in units if unit.level == level]
            if not is_blank(made._remover(removals[level]).without(own)):
                continue
            if options.removal == "delete":
                raise UserError(
                    "nothing stands before the answer when all is left out: its prompt is empty then",
                    where=where,
                    remedy="Use --removal mask, or keep a part outside the sections.",
                )
            removals[level] = "mask"
        return made

    def _remover(self, removal: str, counts: Mapping[tuple[int, int], int] | None = None) -> Remover:
        return Remover(self.prompt, removal, dict(counts or {}), self.donors)  # type: ignore[arg-type]

    def explained(self, asked: Asked, others: Sequence[str], *, inside: bool = False) -> Explanation:
        """Why the model gave its answer."""
        began, before = time.monotonic(), self.asker.asked
        texts = list(asked.texts)
        (base,) = self.asker.likelihoods([self.prompt.text], [*texts, *others])
        if others:
            best = max(range(len(others)), key=lambda at: base.logprobs[len(texts) + at])
            texts.append(others[best])
            base = replace(base, logprobs=(base.logprobs[0], base.logprobs[1 + best]))
        finest = [unit for unit in self.units if unit.level == self.units[-1].level]
        counts = token_counts(finest, self.prompt, base.context)
        self._note_torn(base)
        known: dict[str, Likelihood] = {self.prompt.text: base}
        game = TextGame(self.asker, texts, known)
        converged = True
        if self.options.method in GRADIENTS:
            values, v_full, v_empty, converged = self._by_gradients(texts)
        else:
            values, levels = self._values(game, counts)
            v_full, v_empty = levels[0].everything, levels[0].nothing
        units = [
            replace(unit, value=value, se=se, tokens=self._tokens(unit, counts) if base.context else None)
            for unit, (value, se) in zip(self.units, values, strict=True)
        ]
        units = self._left_out(self._removed_otherwise(units, game, counts), game, counts)
        judged = self._judged(units, game, counts) if converged else _not_converged(units[-1].level)
        if not converged:
            units = [replace(unit, value=None, se=None) for unit in units]
        rows = self._rows(units, base, game, counts, texts[0]) if converged else None
        attention = None
        if inside:
            attention, rows = self._attention(texts[0], asked.kind, rows)
        top = [unit.value or 0.0 for unit in units if unit.level == units[0].level]
        return Explanation(
            sample_id=str(self.row["sample_id"]),
            repeat=int(self.row.get("repeat") or 0),
            method=self.options.method,
            removal=", ".join(dict.fromkeys(self.removals.values())),
            target=asked.kind,
            against=asked.against,
            v_full=v_full,
            v_empty=v_empty,
            gap=efficiency_gap(v_full, v_empty, top),
            units=tuple(units),
            faithfulness=judged,
            evaluations=self.asker.asked - before,
            seconds=time.monotonic() - began,
            rows=rows,
            attention=attention,
            notes=tuple(dict.fromkeys([*asked.notes, *self.notes])),
        )

    # --- values -----------------------------------------------------------------------------------------

    def _values(
        self, game: TextGame, counts: Mapping[tuple[int, int], int]
    ) -> tuple[list[tuple[float | None, float | None]], list[Level]]:
        """Value and standard error of each unit, and the levels that were asked about."""
        names = list(dict.fromkeys(unit.level for unit in self.units))
        found: list[tuple[float | None, float | None]] = [(None, None)] * len(self.units)
        if self.options.method == "owen" and len(names) > 1:
            leaves = [at for at, unit in enumerate(self.units) if not self._children(at)]
            level = self._level(leaves, self.removals[names[-1]], game, counts)
            tree = self._tree(-1, {at: player for player, at in enumerate(leaves)})
            drawn = shared(level, tree, most=self.options.most, seed=self.seed)
            self._note_drawn("", drawn)
            place = {at: self._players(at, leaves) for at in range(len(self.units))}
            for at in range(len(self.units)):
                found[at] = drawn.values.get(place[at]), drawn.se.get(place[at], 0.0)
            return found, [level]
        levels: list[Level] = []
        for name in names:
            players = self._candidates(name, found)
            level = self._level(players, self.removals[name], game, counts)
            levels.append(level)
            everyone = frozenset(range(len(players)))
            if self.options.method == "occlusion":
                level([everyone, frozenset(), *(everyone - {player} for player in everyone)])
                for player, at in enumerate(players):
                    found[at] = level.left_out(player)
                continue
            drawn = shared(level, flat(range(len(players))), most=self.options.most, seed=self.seed)
            self._note_drawn(name, drawn)
            for player, at in enumerate(players):
                own = frozenset({player})
                found[at] = drawn.values[own], drawn.se.get(own, 0.0)
        return found, levels

    def _by_gradients(
        self, texts: Sequence[str]
    ) -> tuple[list[tuple[float | None, float | None]], float, float, bool]:
        """The sum of each unit's tokens, the value of the prompt and of the baseline, and whether they add
        up."""
        told = self.asker.look(
            "gradients",
            prompt=self.prompt.text,
            texts=list(texts),
            spans=[list(span) for unit in self.units for span in self.prompt.spans(unit)],
            method=self.options.method,
        )
        spans = [self.prompt.spans(unit) for unit in self.units]
        values = [
            sum(value for at, _, value in told["tokens"] if any(start <= at < end for start, end in own))
            for own in spans
        ]
        full, empty = float(told["full"]), float(told["empty"])
        missing = full - empty - float(told["sum"])
        if self.options.method == "gradient":
            self.notes.append("gradient times input is a quick look: its values add up to nothing")
        else:
            self.notes.append(
                f"{told['steps']} steps from a neutral token's embedding; completeness gap {missing:+.3g}"
                f" of {full - empty:+.3g} nats"
            )
        return [(value, 0.0) for value in values], full, empty, bool(told["converged"])

    def _attention(self, text: str, target: str, rows: Rows | None) -> tuple[Attention, Rows | None]:
        """What is shown of the maps of attention over prompt and answer, and the rows with the likeliest
        tokens."""
        told = self.asker.look("attention", prompt=self.prompt.text, text=text)
        places = tuple(self.prompt.place(start, end) for start, end in told["spans"])
        key = key_of(str(self.row["sample_id"]), int(self.row.get("repeat") or 0), target)
        attention, self.maps[key] = shown(told, places, key)
        if rows is not None:
            others = tuple(
                tuple((str(token), round(float(value), 4)) for token, value in each)
                for each in told["alternatives"]
            )
            rows = replace(rows, alternatives=others)
        return attention, rows

    def _left_out(
        self, units: Sequence[Unit], game: TextGame, counts: Mapping[tuple[int, int], int]
    ) -> list[Unit]:
        """The units, those of the top level with what is lost when each alone is removed."""
        name, made = units[0].level, list(units)
        top = [at for at, unit in enumerate(units) if unit.level == name and unit.value is not None]
        if self.options.method not in ("shapley", "owen") or len(top) > MOST_LEFT_OUT:
            return made
        level = self._level(top, self.removals[name], game, counts)
        everyone = frozenset(range(len(top)))
        whole, *rest = level([everyone, *(everyone - {player} for player in everyone)])
        for at, without in zip(top, rest, strict=True):
            made[at] = replace(units[at], left_out=whole - without)
        return made

    def _level(
        self, places: Sequence[int], removal: str, game: TextGame, counts: Mapping[tuple[int, int], int]
    ) -> Level:
        return Level(game, self._remover(removal, counts), [self.units[at] for at in places])

    def _candidates(self, name: str, found: Sequence[tuple[float | None, float | None]]) -> list[int]:
        """The units of a level that are asked about: all of them, or as many as may be, those within the
        parts with the greatest values first."""
        own = [at for at, unit in enumerate(self.units) if unit.level == name]
        room = self.options.most - 2
        if len(own) <= room or self.options.method != "occlusion":
            return own
        weight = {at: abs(found[self.units[at].parent][0] or 0.0) for at in own}
        kept = sorted(sorted(own, key=lambda at: -weight[at])[:room])
        self.notes.append(
            f"{len(kept)} of {len(own)} {name}s were asked about: those within the parts that weigh most"
        )
        return kept

    def _children(self, at: int) -> list[int]:
        return [child for child, unit in enumerate(self.units) if unit.parent == at]

    def _players(self, at: int, leaves: Sequence[int]) -> Coalition:
        below = self._children(at)
        if not below:
            return frozenset({leaves.index(at)})
        return frozenset().union(*(self._players(child, leaves) for child in below))

    def _tree(self, at: int, player: Mapping[int, int]) -> Node:
        below = [self._tree(child, player) for child in self._children(at)]
        if not below:
            return Node(frozenset({player[at]}))
        if len(below) == 1 and at != -1:
            return below[0]
        return Node(frozenset().union(*(node.players for node in below)), tuple(below))

    def _note_drawn(self, name: str, drawn: Values) -> None:
        if not drawn.exact:
            worst = max(drawn.se.values(), default=0.0)
            self.notes.append(
                f"{name + ': ' if name else ''}{drawn.pairs} antithetic pairs of permutations, largest "
                f"standard error {worst:.3g} nats"
            )

    def _tokens(self, unit: Unit, counts: Mapping[tuple[int, int], int]) -> int:
        return sum(
            tokens
            for (start, end), tokens in counts.items()
            for low, high in self.prompt.spans(unit)
            if low <= start and end <= high
        )

    def _note_torn(self, base: Likelihood) -> None:
        cut = [unit for unit in torn(self.units, self.prompt, base.context) if unit.level != "word"]
        if cut:
            self.notes.append(f"{len(cut)} parts begin or end within a token: their values hold a piece more")

    def _removed_otherwise(
        self, units: list[Unit], game: TextGame, counts: Mapping[tuple[int, int], int]
    ) -> list[Unit]:
        """The units with the greatest values of each level, with their value by another way of removal."""
        if self.options.method != "occlusion":
            return units
        made = list(units)
        for name, removal in self.removals.items():
            other = "mask" if removal == "delete" else "delete"
            top = sorted(
                (at for at, unit in enumerate(units) if unit.level == name and unit.value is not None),
                key=lambda at: -abs(units[at].value or 0.0),
            )[:_TWICE]
            level = self._level(top, other, game, counts)
            if other == "delete" and any(
                is_blank(level.text(frozenset(range(len(top))) - {p})) for p in range(len(top))
            ):
                continue
            everyone = frozenset(range(len(top)))
            whole, *rest = level([everyone, *(everyone - {player} for player in everyone)])
            for at, without in zip(top, rest, strict=True):
                value, again = units[at].value or 0.0, whole - without
                flips = min(abs(value), abs(again)) > _FLIP and (value > 0) != (again > 0)
                made[at] = replace(units[at], other=again, flips=flips)
        return made

    # --- what is said of the values ---------------------------------------------------------------------

    def _judged(
        self, units: Sequence[Unit], game: TextGame, counts: Mapping[tuple[int, int], int]
    ) -> Faithfulness:
        name = units[-1].level
        places = [at for at, unit in enumerate(units) if unit.level == name and unit.value is not None]
        level = self._level(places, self.removals[name], game, counts)
        rankings = self.options.rankings if self.options.faithfulness else 0
        values = [units[at].value or 0.0 for at in places]
        return faithfulness(level, name, values, rankings=rankings, seed=self.seed)

    def _rows(
        self,
        units: Sequence[Unit],
        base: Likelihood,
        game: TextGame,
        counts: Mapping[tuple[int, int], int],
        text: str,
    ) -> Rows | None:
        """What each of the finest units adds to each token of the answer, where the backend tells tokens."""
        if not base.spans:
            return None
        spans = tuple((max(0, start), end) for start, end in base.spans)
        plain = Rows(spans, tuple(round(value, 4) for value in base.tokens))
        name = units[-1].level
        places = [at for at, unit in enumerate(units) if unit.level == name and unit.value is not None]
        if self.options.method != "occlusion" or self.removals[name] == "resample":
            return plain
        level = self._level(places, self.removals[name], game, counts)
        everyone = frozenset(range(len(places)))
        matrix: list[list[float]] = []
        for player in range(len(places)):
            other = game.known[level.text(everyone - {player})]
            if other.spans != base.spans:
                return plain
            matrix.append([a - b for a, b in zip(base.tokens, other.tokens, strict=True)])
        scale = max((abs(value) for row in matrix for value in row), default=0.0) / 127
        if not scale:
            return plain
        data = bytes(round(value / scale) & 0xFF for row in matrix for value in row)
        return replace(plain, units=tuple(places), values=base64.b64encode(data).decode(), scale=scale)


def _not_converged(level: str) -> Faithfulness:
    return Faithfulness("did not converge", level, 0.0, 0.0, 0, 0, None)


def _removal(options: Options, level: str, levels: Sequence[str]) -> str:
    if options.removal != "auto":
        return options.removal
    deciding = levels[-1] if options.method == "owen" else level
    return "mask" if deciding == "word" else "delete"


def _donors(
    run: Run,
    row: Mapping[str, Any],
    marker: Marker,
    options: Options,
    own: tuple[Prompt, list[Unit]],
    seed: int,
) -> dict[tuple[int, int], list[str]]:
    """Texts of other rows that may stand in the place of the units."""
    rows = find_samples(
        run.folder.samples_path(run.run_id), f"sample_id != {row['sample_id']!r}", limit=200
    ).rows
    rows = tuple(sorted(rows, key=lambda each: str(each["sample_id"])))[:: max(1, len(rows) // _DONORS)]
    prompts = [prompt_of(other, None) for other in rows[:_DONORS]]
    if not prompts:
        raise UserError("resample needs other rows, and the run has one", remedy="Use --removal delete.")
    units = [
        make_units(each.contents, each.roles, marker.sections(other, each), options.units)
        for each, other in zip(prompts, rows, strict=False)
    ]
    return donors_of(own[1], own[0], units, prompts, seed)
