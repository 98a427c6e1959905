"""The JavaScript that draws the charts: Vega, Vega-Lite and Vega-Embed in one script, without a network.

`vl-convert-python` holds the libraries and bundles them, which takes seconds; so it is done once per
installation, by a child process that can be started while models answer, and kept in the cache folder.
Makers may run side by side: each writes a file of its own and moves it into place.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evalrun.atomic import replacing
from evalrun.errors import ExitCode, UserError
from evalrun.paths import cache_dir

FORMAT = 1
"""Raised when what is made from the libraries changes, so that older files in the cache are not taken."""

TIMEOUT_S = 120
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def bundle_path() -> Path:
    """Where the bundle of the installed version is kept, whether it is there or not."""
    try:
        release = version("vl-convert-python")
    except PackageNotFoundError:
        release = "none"
    return cache_dir() / "reports" / f"vega-{release}-{FORMAT}.js"


def make_bundle() -> Path:
    """Make the bundle in this process unless it is there. Takes seconds and much memory."""
    path = bundle_path()
    if path.exists():
        return path
    import vl_convert

    script = vl_convert.javascript_bundle(_SNIPPET)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(_inline(script), encoding="utf-8")
    return path


def _inline(script: str) -> str:
    """The libraries as one strict function, so that their names stay theirs, safe inside <script>."""
    safe = script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\0", "\\0")
    return f'(function(){{"use strict";{safe}\n}})();'


def begin_bundle() -> Callable[[], None]:
    """Begin to make the bundle in a child process, if it is not there. The result waits for it to end.

    A failure is not raised here: `read_bundle` tries once more and then says what is wrong.
    """
    try:
        if bundle_path().exists():
            return lambda: None
    except UserError:
        return lambda: None
    child = _start()

    def wait() -> None:
        try:
            child.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    return wait


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "evalrun.reports.bundle"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def read_bundle() -> str:
    """The bundle's text, made first if need be. Raises UserError where it cannot be made."""
    path = bundle_path()
    if not path.exists():
        child = _start()
        try:
            _, errors = child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            _, errors = child.communicate()
        if not path.exists():
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise UserError(
                f"the charts' JavaScript cannot be made: {last or 'it took too long'}",
                where=str(path),
                remedy="Reinstall the package vl-convert-python.",
                exit_code=ExitCode.INCOMPLETE,
            )
    return path.read_text(encoding="utf-8")


def main() -> None:
    """Prepare all that a first report would otherwise wait for."""
    from evalrun.reports.html import prepare_templates

    make_bundle()
    prepare_templates()


if __name__ == "__main__":
    main()
