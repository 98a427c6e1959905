"""Chromium against the server: pages of other origins, what models wrote, labelling by keys."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser import CHROMIUM, FLAGS, Opened, needs_browser, until
from tests.team import Client, Running

from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(charts_cache: Path) -> Iterator[Browser]:
    """Chromium, to which all of `.test` is this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    flags = [*FLAGS, "--host-resolver-rules=MAP *.test 127.0.0.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALRUN_CACHE", str(charts_cache))
        with playwright.sync_playwright() as driver:
            launched = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
            yield launched
            launched.close()


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder that is served at another port, and the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "evil"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield folder, int(http.server_address[1])
    http.shutdown()
    http.server_close()


def _sign_in(page: Page, client: Client, address: str) -> None:
    name, _, value = client.headers["Cookie"].partition("=")
    page.context.add_cookies([{"name": name, "value": value, "url": address, "sameSite": "Lax"}])


ATTACK = """<form method=post action="{notes}"><input name=text value=forged></form><script>
fetch("{notes}", {{method: "POST", mode: "no-cors", credentials: "include", body: "text=fetched",
  headers: {{"Content-Type": "application/x-www-form-urlencoded"}}}})
  .catch(() => 0).finally(() => document.forms[0].submit());</script>"""


@pytest.mark.parametrize("name", ["127.0.0.1", "team.test"])
def test_a_page_of_another_origin_writes_nothing_with_the_readers_cookie(
    name: str, start: Callable[..., Running], sweep: SweepFolder, evil: tuple[Path, int], opened: Opened
) -> None:
    """By plain http, a name that is not loopback sends no Sec-Fetch-Site: `Origin` alone decides there."""
    team = start(hosts=["team.test"])
    address, page = f"http://{name}:{team.port}", opened.page
    ana = team.person("ana", {"*": "admin"})
    _sign_in(page, ana, address)
    folder, port = evil
    notes = f"{address}/api/v1/sweeps/{sweep.ulid}/notes"
    (folder / "index.html").write_text(ATTACK.format(notes=notes))
    said = []
    page.on("response", lambda answer: said.append((answer.url, answer.status)))
    page.goto(f"http://{'evil.test' if name == 'team.test' else name}:{port}/")
    page.wait_for_url(notes)
    assert [status for url, status in said if url == notes][-1] == 403
    trail = (sweep.path / "events.jsonl").read_text()
    assert "forged" not in trail
    assert "fetched" not in trail
    page.goto(f"{address}/s/{sweep.ulid}")
    page.fill("textarea[name=text]", "ours")
    page.click("text=Add comment")
    page.wait_for_selector("article.note")
    assert "ours" in (sweep.path / "events.jsonl").read_text()


def test_a_report_cannot_use_the_readers_session(team: Running, sweep: SweepFolder, opened: Opened) -> None:
    page = opened.page
    _sign_in(page, team.person("ana", {"*": "admin"}), team.origin)
    page.goto(f"{team.origin}/s/{sweep.ulid}/report")
    until(page, "document.documentElement.dataset.charts === 'drawn'")
    assert page.evaluate("self.origin") == "null"
    stolen = "(() => { try { return document.cookie } catch (error) { return error.name } })()"
    assert page.evaluate(stolen) == "SecurityError"
    me = f"fetch('{team.origin}/api/v1/me', {{credentials: 'include'}})"
    reached = page.evaluate(f"{me}.then(() => 'reached', () => 'refused')")
    assert reached == "refused"
    assert page.title() != "owned"
    asked = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert {url for url in asked if not url.endswith("/api/v1/me")} == {
        f"{team.origin}/s/{sweep.ulid}/report"
    }


def test_two_label_by_keys_on_a_telephone(team: Running, sweep: SweepFolder, browser: Browser) -> None:
    values = {"title": "right?", "run": "m-p-d", "schema": {"kind": "pass_fail"}, "n": 3, "overlap": 2}
    made = team.machine("editor").post(f"/api/v1/sweeps/{sweep.ulid}/queues", {**values, "blind": True})
    queue = made.json["queue"]
    for name, key in (("ana", "1"), ("ben", "2")):
        context = browser.new_context(viewport={"width": 360, "height": 640})
        page = context.new_page()
        seen: list[bytes] = []
        page.on("response", lambda answer, seen=seen: seen.append(answer.body()))
        _sign_in(page, team.person(name, {"team": "annotator"}), team.origin)
        page.goto(f"{team.origin}/q/{queue}")
        for left in (3, 2, 1):
            page.wait_for_selector(f"#status:has-text('{left} are left')")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.keyboard.press(key)
        page.wait_for_selector("#status:has-text('Saved. 3 of yours are answered, 0 are left')")
        page.keyboard.press("u")
        page.wait_for_selector("#status:has-text('taken back')")
        page.keyboard.press(key)
        page.wait_for_selector("#status:has-text('Saved. 3')")
        told = b"".join(seen)
        for secret in (b"m-p-d", b"exact_match", sweep.ulid.encode(), b"ana" if name == "ben" else b"ben"):
            assert secret not in told
        context.close()
    results = team.machine("editor", name="ed").get(f"/api/v1/queues/{queue}/results").json["results"]
    assert [each["answers"] for each in results] == [{"ana": "pass", "ben": "fail"}] * 3
