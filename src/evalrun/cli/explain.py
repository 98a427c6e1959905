"""`evalrun explain`: which part of a prompt made an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import FILE, json_option, print_json, print_rows, store_option
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.explanations import Explained, Explanation, Unit
    from evalrun.tracking.folder import SweepFolder

_SHOWN = 15


@click.command(no_args_is_help=True)
@click.argument("what", metavar="SWEEP[/RUN[/SAMPLE]]")
@click.argument("other", metavar="[SWEEP[/RUN]]", required=False)
@click.option("--where", metavar="QUERY", default="", help="Only samples for which this holds.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
    help="How many, where no sample is named: those with the lowest score.",
)  # fmt: skip
@click.option(
    "--method",
    default="occlusion",
    show_default=True,
    help="occlusion, shapley, owen, gradient, integrated_gradients.",
)
@click.option("--units", default="section,sentence,word", show_default=True, metavar="UNIT,…")
@click.option("--target", default="auto", show_default=True, help="answer, target or contrast.")
@click.option("--removal", default="auto", show_default=True, help="delete, mask or resample.")
@click.option(
    "--most", type=click.IntRange(min=8), default=400, show_default=True, metavar="N",
    help="Prompts that are asked about at most for a level of units.",
)  # fmt: skip
@click.option("--no-faithfulness", is_flag=True, help="Do not compare with random rankings.")
@click.option("--attention", is_flag=True, help="Keep maps of attention and the likeliest tokens too.")
@click.option("--html", type=FILE, metavar="FILE.html", help="Write a page of it.")
@click.option("--no-cache", is_flag=True, help="Neither read nor write the response cache.")
@store_option
@json_option
def explain(
    what: str,
    other: str | None,
    where: str,
    samples: int,
    method: str,
    units: str,
    target: str,
    removal: str,
    most: int,
    no_faithfulness: bool,
    attention: bool,
    html: Path | None,
    no_cache: bool,
    store: Store,
    as_json: bool,
) -> None:
    """Say which sections, sentences and words of the prompt made an answer, and whether that is faithful.

    Parts are taken out and the model is asked how likely its answer is then. The model must be that of the
    sweep, and give likelihoods: the embedded engine, transformers, vLLM and other completions servers do.
    With a second run, the same samples are explained there too, and shown is which part's weight changed.

    \b
    Examples:
      evalrun explain latest/direct/T-17
      evalrun explain latest --where 'score.exact_match == 0' --samples 5
      evalrun explain latest/direct/T-17 --method owen --json
      evalrun explain previous/direct latest/direct --samples 10
    """
    from evalrun.explain.kept import documents
    from evalrun.explain.main import explain_run
    from evalrun.explain.options import Options
    from evalrun.explain.words import together

    folder, run_id, sample = _place(store, what)
    options = Options(
        method=method,
        units=tuple(part.strip() for part in units.split(",") if part.strip()),
        target=target,  # type: ignore[arg-type]
        removal=removal,
        most=most,
        faithfulness=not no_faithfulness,
        attention=samples if attention else 0,
    )
    second = None if other is None else _place(store, other)

    def run(folder: SweepFolder, run_id: str, wanted: Sequence[str], where: str) -> Explained:
        return explain_run(
            folder, run_id, options,
            wanted=wanted, where=where, count=samples, store=store.root, use_cache=not no_cache,
            say=lambda line: click.echo(line, err=True),
        )  # fmt: skip

    explained = run(folder, run_id, [sample] if sample else [], where)
    if second is not None:
        again = run(second[0], second[1], [each.sample_id for each in explained.samples], "")
        _print_changes((folder, explained), (second[0], again), as_json=as_json)
        return
    if html is not None:
        from evalrun.reports.explain import write_page

        write_page(folder, [explained], html)
    made = list(documents(folder, explained))
    if as_json:
        print_json(made[0] if sample is not None else made)
        return
    for one, document in zip(explained.samples, made, strict=True):
        _print(one, document)
    for found in explained.over if sample is None else ():
        click.echo(f"\n{together(found)}")


def _print_changes(
    a: tuple[SweepFolder, Explained], b: tuple[SweepFolder, Explained], *, as_json: bool
) -> None:
    from dataclasses import asdict

    from evalrun.explain.changes import changes

    found = changes(a, b)
    if as_json:
        print_json({"a": a[1].run, "b": b[1].run, "changes": [asdict(change) for change in found]})
        return
    rows = [
        (
            c.unit, c.part, c.n, f"{c.before:+.3f}", f"{c.after:+.3f}", f"{c.difference:+.3f}",
            "" if c.ci_low is None else f"[{c.ci_low:+.3f}, {c.ci_high:+.3f}]",
            c.p_corrected,
        )
        for c in found[:_SHOWN]
    ]  # fmt: skip
    print_rows(["unit", "part", "n", "a", "b", "b - a (nats)", "95 % interval", "p, corrected"], rows)


def _place(store: Store, what: str) -> tuple[SweepFolder, str, str | None]:
    """The sweep, the run and the sample that were named."""
    from evalrun.tracking.samples import find_run

    name, _, rest = what.partition("/")
    folder = store.resolve(name)
    run, _, sample = rest.partition("/")
    ids = folder.run_ids()
    run_id = ids[0] if not run and len(ids) == 1 else find_run(folder, run)
    return folder, run_id, sample or None


def _otherwise(unit: Unit) -> str:
    if unit.left_out is not None:
        return f"{unit.left_out:+.3f}"
    return "" if unit.other is None else f"{unit.other:+.3f}" + (" FLIPS" if unit.flips else "")


def _print(one: Explanation, document: dict[str, Any]) -> None:
    from evalrun.explain.words import headline

    click.echo(f"\n{document['run']} {one.sample_id}: {document['answer'][:200]!r}")
    for line in headline(one, [unit["text"] for unit in document["units"]]):
        click.echo(line)
    for level in dict.fromkeys(unit.level for unit in one.units):
        own = [
            (unit, made["text"])
            for unit, made in zip(one.units, document["units"], strict=True)
            if unit.level == level and unit.value is not None
        ]
        own.sort(key=lambda pair: -abs(pair[0].value or 0.0))
        click.echo(f"\n{level}s by weight ({len(own)})")
        rows = [
            (
                f"{unit.value:+.3f}",
                "" if not unit.se else f"± {unit.se:.2g}",
                _otherwise(unit),
                unit.name,
                text,
            )
            for unit, text in own[:_SHOWN]
        ]
        second = "otherwise removed" if one.method == "occlusion" else "left out alone"
        print_rows(["nats", "s.e.", second, "name", "text"], rows)
    for note in one.notes:
        click.echo(f"note: {note}", err=True)
