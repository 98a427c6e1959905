"""The fixtures of `tests.team`, where the extra `serve` is there; without it each file here says so."""

from importlib.util import find_spec

if all(find_spec(name) for name in ("starlette", "uvicorn", "joserfc")):
    from tests.team import root, start, sweep, swept, team  # noqa: F401
