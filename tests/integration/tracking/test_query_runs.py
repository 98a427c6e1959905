"""Finding runs by query: what is found, what is refused, and that text is never run as code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalogs import BOTH
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.program import evalrun
from tracking_samples import run_of, sweeps_in

from evalrun.errors import UserError
from evalrun.tracking.finding import Search
from evalrun.tracking.query import parse
from evalrun.tracking.store import Store

CATALOGS = BOTH


def fill(store: Store) -> Store:
    """Sweep one: accuracies 0.5 (direct) and 0.9 (few); sweep two (vision): 0.1 and none."""
    make_sweep = sweeps_in(store)
    one = make_sweep()
    few = run_of(
        "m-few-d", 0.9, model="llama-3", params={"temperature": 0.1, "mode": "fast", "stream": False}
    )
    one.finish_run("m-few-d", few)
    two = make_sweep(tags={"team": "vision"}, project="images", started_at="2026-12-01T00:00:00+00:00")
    two.finish_run("m-direct-d", run_of("m-direct-d", 0.1))
    two.finish_run("m-few-d", run_of("m-few-d", metrics=[], params={"temperature": 0, "mode": True}))
    store.index(one)
    store.index(two)
    return store


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Store, str | None]]:
    """The filled store of each kind of catalog, with the catalog's place where that is a server."""
    return {}


@pytest.fixture
def filled(
    made: dict[str, tuple[Store, str | None]],
    catalog: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """A store for tests that only ask: one for all of them."""
    if catalog not in made:
        place = os.environ.get("EVALRUN_CATALOG")
        made[catalog] = fill(Store(tmp_path_factory.mktemp("filled") / "store")), place
    store, place = made[catalog]
    if place is not None:
        monkeypatch.setenv("EVALRUN_CATALOG", place)
    return store


def found(store: Store, text: str, **options: object) -> list[tuple[str, str]]:
    rows = store.find(Search.of(text, **options)).rows  # type: ignore[arg-type]
    return sorted((row.project, row.prompt) for row in rows)


S_DIRECT, S_FEW, I_DIRECT, I_FEW = (
    ("support", "direct"), ("support", "few"), ("images", "direct"), ("images", "few"),
)  # fmt: skip
ALL = sorted([S_DIRECT, S_FEW, I_DIRECT, I_FEW])
WITH_METRICS = sorted([S_DIRECT, S_FEW, I_DIRECT])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ALL),
        ("metric.exact_match > 0.8", [S_FEW]),
        ("not metric.exact_match > 0.8", sorted([S_DIRECT, I_DIRECT, I_FEW])),
        ("metric.exact_match == None", [I_FEW]),
        ("metric.exact_match != None and 0.2 <= metric.exact_match < 0.9", [S_DIRECT]),
        ("metric.exact_match > 0.8 and ('llama' in model or tag.team == 'vision')", [S_FEW]),
        ("tag.team == 'vision'", sorted([I_DIRECT, I_FEW])),
        ('tag["team"] in ("nlp", "x")', sorted([S_DIRECT, S_FEW])),
        ("'LLAMA' in model", []),
        ("'llama' in lower(model) and len(model) == 7", [S_FEW]),
        ("'%' in model or '_' in model", []),
        ("model not in ['m']", [S_FEW]),
        ("param.temperature < 0.5", sorted([S_FEW, I_FEW])),
        ("param.temperature == 0", [I_FEW]),
        ("param.mode == 'fast'", [S_FEW]),
        ("param.mode == True", [I_FEW]),
        ("param.mode == 1", []),
        ("param.mode != 'fast'", [I_FEW]),
        ("param.stream", sorted([S_DIRECT, I_DIRECT])),
        ('param["extra.top_k"] == 5 and param.extra.style == "x"', sorted([S_DIRECT, I_DIRECT])),
        ('metric("exact_match", dialect="aave") < 0.5', sorted([S_DIRECT, S_FEW, I_DIRECT])),
        ('metric("exact_match").ci_low == 0.4 and metric("exact_match").n >= 100', WITH_METRICS),
        ('metric.exact_match >= metric("exact_match").ci_high', [S_FEW]),
        ("started_at >= '2026-12'", sorted([I_DIRECT, I_FEW])),
        ("failed == 1 and samples == 100 and status == 'complete'", ALL),
        ("wall_s == None", []),
        ("samples in (100, 99.6) and samples not in (99.6, 99999999999)", ALL),
        ("samples == 99.6 or samples > 99999999999 or samples > 1e999", []),
        ("param.mode in ('fast', True, 3)", sorted([S_FEW, I_FEW])),
        ("archived in (False, True)", ALL),
        ("dataset_digest == 'nothing'", []),
    ],
)  # fmt: skip
def test_finds(filled: Store, text: str, expected: list[tuple[str, str]]) -> None:
    assert found(filled, text) == expected


def test_sorts_missing_last_both_ways_and_counts_beyond_the_limit(filled: Store) -> None:
    def order(sort: str) -> list[float | None]:
        rows = filled.find(Search.of("", sort=[sort])).rows
        return [(row.metrics["exact_match"] or {}).get("value") for row in rows]

    assert order("metric.exact_match") == [0.1, 0.5, 0.9, None]
    assert order("-metric.exact_match") == [0.9, 0.5, 0.1, None]
    page = filled.find(Search.of("", sort=["-metric.exact_match"], limit=1))
    assert (page.total, len(page.rows)) == (4, 1)
    assert page.rows[0].params == {"temperature": 0.1, "mode": "fast", "stream": False}
    assert page.rows[0].tags == {"team": "nlp"}


@pytest.mark.parametrize(
    ("text", "what", "caret", "hint"),
    [
        ("metric.exact_mach > 0.8", "no run has a metric 'exact_mach'", (0, 17), "exact_match"),
        ("status == 'x' and modle == 'm'", "there is no 'modle'", (18, 23), "model"),
        ("param.temprature > 1", "no run has a param", (0, 16), "temperature"),
        ("tag.taem == 'x'", "no run has a tag", (0, 8), "team"),
        ("samples > 'many'", "a number is compared with a text", (0, 16), "quotes"),
        ("model > 3", "a text is compared with a number", (0, 9), "quotes"),
        ("model", "a text is compared with a truth value", (0, 5), ""),
        ("metric.exact_match >", "cannot be read", (19, 20), "metric"),
        ("__import__('os').system('x') == 1", "this cannot stand in a query", (0, 28), ""),
        ("__import__('os') == 1", "there is no '__import__.os'", (0, 16), ""),
        ("model.__class__.__mro__ == 1", "there is no 'model.__class__.__mro__'", (0, 23), ""),
        ("[x for x in ()] == 1", "this cannot stand in a query", (0, 15), ""),
        ("(lambda: 1)() == 1", "this cannot stand in a query", (0, 13), ""),
        ("1 == 1", "both sides are fixed values", (0, 6), ""),
        ("model + 'x' == 'y'", "this cannot stand in a query", (0, 11), ""),
        ("f'{model}' == 'y'", "this cannot stand in a query", (0, 10), ""),
        ("model == b'x'", "only texts, numbers", (9, 13), ""),
        ("model in ()", "the list needs values", (9, 11), ""),
        ("metric('exact_match').median > 1", "a metric has no 'median'", (0, 28), ""),
        ("status == complete", "there is no 'complete'", (10, 18), 'A text goes in quotes: "complete"'),
        ("model = 'm'", "cannot be read", (6, 7), "To compare is =="),
        ("model == 'm' AND run == 'x'", "cannot be read", (13, 16), "in small letters"),
        ("model LIKE 'm%'", "cannot be read", (6, 10), '"llama" in model'),
        ("metric.my-score > 1", "this cannot stand in a query", (0, 15), 'metric("my-score")'),
        ("'é' in model and modle == 1", "there is no 'modle'", (17, 22), "model"),
    ],
)
def test_errors_point_at_the_place(
    filled: Store, text: str, what: str, caret: tuple[int, int], hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        filled.find(Search.of(text))
    problem = caught.value.problems[0]
    assert what in problem.what
    assert hint in problem.remedy
    line = problem.remedy.splitlines()[1]
    start = len(line) - len(line.lstrip()) - 4
    assert (start, start + line.count("^")) == caret


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (f"""model in ({",".join(['"m"'] * 2400)})""", True),
        (f"param.temperature in ({','.join(['1'] * 4000)})", True),
        (" or ".join(["samples == 1"] * 300), True),
        (" or ".join(["samples == 1"] * 301), False),
        ("<".join(["samples"] * 1000), False),
        (" or ".join(f'metric("exact_match", g="{at}") > 1' for at in range(40)), True),
        (" or ".join(f'metric("exact_match", g="{at}") > 1' for at in range(41)), False),
    ],
)
def test_what_no_database_could_take_is_refused_and_the_catalog_kept(
    filled: Store, text: str, fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if fits:
        filled.find(Search.of(text))
    else:
        with pytest.raises(UserError, match="at most"):
            filled.find(Search.of(text))
    assert "broken" not in caplog.text
    assert not list(filled.root.glob("*.broken-*"))


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "not " * 5000 + "x", "a" * 10_001, "x\0 == 1"])
def test_absurd_queries_end_in_a_message(filled: Store, text: str) -> None:
    with pytest.raises(UserError):
        filled.find(Search.of(text))


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_is_read_or_refused_kindly(text: str) -> None:
    try:
        parse(text)
    except UserError as error:
        assert error.problems[0].what


def test_a_value_cannot_break_out_of_the_statement(filled: Store) -> None:
    assert found(filled, "model == \"x' OR '1'='1\"") == []
    with pytest.raises(UserError):
        found(filled, "tag[\"a' OR '1'='1\"] == 'x'")


def test_an_empty_store_finds_nothing_whatever_is_asked(store: Store) -> None:
    assert store.find(Search.of("metric.anything > 0.5 and tag.x == 'y'")).total == 0


def test_the_command_prints_json_and_errors_without_a_traceback(filled: Store) -> None:
    command = ["find", "--store", filled.root]
    done = evalrun(*command, "metric.exact_match > 0.4", "--sort", "-metric.exact_match", "--json")
    answer = json.loads(done.stdout)
    assert answer["total"] == 2
    assert [run["metrics"]["exact_match"]["value"] for run in answer["runs"]] == [0.9, 0.5]
    wrong = evalrun(*command, "modle == 'm'")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "^^^^^" in wrong.stderr and "Did you mean 'model'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    plain = evalrun(*command)
    assert plain.stdout.count("\n") == 5 and "4 runs found" in plain.stderr


def test_queries_are_parsed_without_the_database() -> None:
    code = "import sys, evalrun.tracking.query as p; p.parse('a == 1'); print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_archived_sweeps_are_left_out_unless_spoken_of(store: Store, tmp_path: Path) -> None:
    filled = fill(store)
    folder = filled.resolve("images")
    folder.append_event("archive", {"archived": True})
    filled.index(folder)
    assert found(filled, "") == sorted([S_DIRECT, S_FEW])
    assert found(filled, "archived") == sorted([I_DIRECT, I_FEW])
    assert found(filled, "name != 'archived'") == sorted([S_DIRECT, S_FEW])
    assert found(filled, "", archived=True) == ALL
