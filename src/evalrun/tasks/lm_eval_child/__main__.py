"""Begins the child: its files become a package under a name that nothing else has."""

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "evalrun_lm_eval_child"

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if place and Path(place).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"{NAME}.server").main()
