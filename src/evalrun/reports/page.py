"""What every HTML page is made with: templates, style and scripts inlined, a policy that allows these and
nothing else, and the JavaScript that draws the charts: Vega, Vega-Lite and Vega-Embed in one script.

`vl-convert-python` holds the libraries and bundles them, which takes seconds; so it is done once per
installation, by a child process that can be started while models answer, and kept in the cache folder.
Makers may run side by side: each writes a file of its own and moves it into place.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.atomic import replacing
from evalrun.errors import ExitCode, UserError
from evalrun.paths import cache_dir

if TYPE_CHECKING:
    from jinja2 import Environment

    from evalrun.reports.view import Chart


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
    try:
        child = _start()
    except OSError:
        return lambda: None

    def wait() -> None:
        try:
            child.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    return wait


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "evalrun.reports.page"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _make_in_child() -> str:
    """The last line of what the child said, if it failed."""
    try:
        child = _start()
    except OSError as error:
        return f"{sys.executable} cannot be started: {error.strerror}"
    try:
        _, errors = child.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        _, errors = child.communicate()
    return errors.decode("utf-8", "replace").strip().rpartition("\n")[2]


def read_bundle() -> str:
    """The bundle's text, made first if need be. Raises UserError where it cannot be made."""
    path = bundle_path()
    if not path.exists():
        reason = _make_in_child()
        if not path.exists():
            raise UserError(
                f"the charts' JavaScript cannot be made: {reason or 'it took too long'}",
                where=str(path),
                remedy="Reinstall the package vl-convert-python.",
                exit_code=ExitCode.INCOMPLETE,
            )
    return path.read_text(encoding="utf-8")


def main() -> None:
    """Prepare all that a first report would otherwise wait for."""
    from evalrun.reports.report import prepare_templates

    make_bundle()
    prepare_templates()


if __name__ == "__main__":
    main()


HERE = Path(__file__).parent

REPORT_MODE = 0o644
"""A report is made to be handed on; the sweep folder, which is not, is 0600."""


def safe_json(value: Any) -> str:
    """JSON that is safe inside <script>: no < is left in it."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def policy(scripts: list[str], styles: list[str]) -> str:
    """The content-security policy: these very scripts and styles by their digests, and nothing from anywhere.

    Digests rather than a nonce: a nonce stands in the file for whoever injects something to copy.
    """
    allowed = " ".join(map(_digest, filter(None, scripts)))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {' '.join(map(_digest, styles))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page_head(text: str) -> str:
    """The rule that prints a text at the top of every page. Every odd character is escaped: it cannot end the
    text, nor the style."""
    if not text:
        return ""
    safe = "".join(c if c.isalnum() or c in " .,:#-" else f"\\{ord(c):x} " for c in text)
    return f'\n@page {{ @top-left {{ content: "{safe}"; font: 7pt sans-serif; color: #444c54; }} }}\n'


@cache
def asset(name: str) -> str:
    """A file of this package's assets."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def frame(
    names: Sequence[str], charts: Sequence[Chart] = (), home: str = "", head: str = ""
) -> dict[str, Any]:
    """What `_page.html.j2` puts around a page: the style, the scripts of these names, the charts' own, the
    policy, and a link to `home` if there is one. `head` stands at the top of every printed page. Where the
    charts' JavaScript cannot be made `bundle_trouble` says why; the tables remain."""
    from markupsafe import Markup

    try:
        bundle, trouble = (read_bundle(), "") if charts else ("", "")
    except UserError as error:
        bundle, trouble = "", error.problems[0].what
    style, script = asset("report.css") + _page_head(head), "\n".join(map(asset, names))
    return {
        "home": home,
        "bundle": Markup(bundle),  # made from an installed package, see make_bundle
        "bundle_trouble": trouble,
        "style": Markup(style),  # a file of this package, and the page's head as a text of CSS
        "script": Markup(script),  # files of this package
        "specs": Markup(safe_json({chart.key: chart.spec for chart in charts})),  # no < is left in it
        "policy": policy([bundle, script], [style]),
    }


@cache
def environment() -> Environment:
    """The templates, strict and escaping; compiled ones are kept in the cache folder."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

    from evalrun.reports import details, numbers, view
    from evalrun.reports.gates import tally
    from evalrun.reports.visible import visible

    class Compiled(FileSystemBytecodeCache):
        """A cache that cannot be written (a full disk, a folder that is gone) costs time, and no report."""

        def dump_bytecode(self, bucket: Any) -> None:
            with contextlib.suppress(OSError):
                super().dump_bytecode(bucket)

    compiled = cache_dir() / "reports" / "templates"
    with contextlib.suppress(OSError):
        compiled.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=Compiled(str(compiled)),
        finalize=_finalize(visible),
    )
    environment.filters.update(breakable=_breakable, capitalize_first=_capitalize_first)
    environment.globals.update(
        numbers=numbers, details=details, tally=tally, words=view.words, zip=zip, grid=view.grid_link
    )
    return environment


def _breakable(name: str) -> Any:
    """A dotted name that may be broken between its parts, never within a word."""
    from markupsafe import Markup, escape

    from evalrun.reports.visible import visible

    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(visible(name)))))


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _finalize(visible: Any) -> Any:
    """Every text that a template shows has its control and direction marks made visible."""

    def finalize(value: Any) -> Any:
        return visible(value) if type(value) is str else value

    return finalize
