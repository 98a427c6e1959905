"""What every HTML page of evalrun is made with: templates, style and scripts inlined, and a policy that
allows these and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.errors import UserError
from evalrun.reports.bundle import read_bundle

if TYPE_CHECKING:
    from jinja2 import Environment

    from evalrun.reports.view import Chart

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


@cache
def asset(name: str) -> str:
    """A file of this package's assets."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def frame(names: Sequence[str], charts: Sequence[Chart] = (), home: str = "") -> dict[str, Any]:
    """What `_page.html.j2` puts around a page: the style, the scripts of these names, the charts' own, the
    policy, and a link to `home` if there is one. Where the charts' JavaScript cannot be made
    `bundle_trouble` says why; the tables remain."""
    from markupsafe import Markup

    try:
        bundle, trouble = (read_bundle(), "") if charts else ("", "")
    except UserError as error:
        bundle, trouble = "", error.problems[0].what
    style, script = asset("report.css"), "\n".join(map(asset, names))
    return {
        "home": home,
        "bundle": Markup(bundle),  # made from an installed package, see bundle.py
        "bundle_trouble": trouble,
        "style": Markup(style),  # a file of this package
        "script": Markup(script),  # files of this package
        "specs": Markup(safe_json({chart.key: chart.spec for chart in charts})),  # no < is left in it
        "policy": policy([bundle, script], [style]),
    }


@cache
def environment() -> Environment:
    """The templates, strict and escaping; compiled ones are kept in the cache folder."""
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

    from evalrun.paths import cache_dir
    from evalrun.reports import details, gateview, numbers, view
    from evalrun.reports.visible import visible

    compiled = cache_dir() / "reports" / "templates"
    compiled.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=FileSystemBytecodeCache(str(compiled)),
        finalize=_finalize(visible),
    )
    environment.globals.update(
        numbers=numbers, details=details, tally=gateview.tally, words=view.words, zip=zip
    )
    return environment


def _finalize(visible: Any) -> Any:
    """Every text that a template shows has its control and direction marks made visible."""

    def finalize(value: Any) -> Any:
        return visible(value) if type(value) is str else value

    return finalize
