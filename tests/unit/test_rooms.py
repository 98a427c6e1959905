"""The rooms import one way: nothing imports what stands right of it (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evalrun

PACKAGE = Path(evalrun.__file__).parent
ROOMS = [
    "suite",
    "datasets",
    "prompts",
    "providers",
    "scoring",
    "tasks",
    "runner",
    "tracking",
    "training",
    "analysis",
    "gates",
    "explain",
    "reports",
    "sinks",
    "exports",
    "privacy",
    "sweep",
    "search",
    "cluster",
    "traffic",
    "production",
    "evidence",
    "api",
    "stats",
    "integrations",
    "server",
    "cli",
]
"""Left to right. Single files at the top of the package (errors, types, registry, …) are the foundation."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return first if first in ROOMS else "foundation"


def _imports(module: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("evalrun.")}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_what_stands_left_of_it(module: Path) -> None:
    if module.name in ("__init__.py", "__main__.py") and module.parent == PACKAGE:
        return
    room = _room(module)
    allowed = set() if room == "foundation" else set(ROOMS[: ROOMS.index(room) + 1])
    right_of_it = {name for name in _imports(module) if name in ROOMS} - allowed
    assert not right_of_it


def test_every_room_is_known() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ROOMS)


ARCHITECTURE = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()


def test_the_table_of_rooms_is_true() -> None:
    """Rooms in their order, each with the rooms that it imports."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) ?\|$", ARCHITECTURE, re.MULTILINE)
    imported: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in MODULES:
        if (room := _room(module)) != "foundation":
            imported[room] |= {name for name in _imports(module) if name in ROOMS} - {room}
    expected = [(room, ", ".join(each for each in ROOMS if each in imported[room])) for room in ROOMS]
    assert [(room, others.strip()) for room, others in rows] == expected


def test_no_two_modules_of_tests_have_one_name() -> None:
    """pytest imports modules outside packages by their names alone, and leaves the second out."""
    tests = Path(__file__).parents[1]
    named = [path.name for path in tests.rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert sorted({name for name in named if named.count(name) > 1}) == []


def test_files_that_the_architecture_names_are_there() -> None:
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?|\w+\.py)`", ARCHITECTURE)
    assert named
    assert [name for name in named if not (PACKAGE / name.removeprefix("src/evalrun/")).exists()] == []


HEAVY = """pandas pyarrow numpy scipy sklearn fairlearn datasets evaluate aiohttp sqlalchemy rich
openai pydantic yaml jinja2 duckdb sacrebleu"""


@pytest.mark.parametrize("heavy", HEAVY.split())
def test_help_imports_nothing_heavy(heavy: str) -> None:
    code = (
        "import sys\n"
        "from evalrun.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
