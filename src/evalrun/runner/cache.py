"""Answers that were already paid for, by a key of everything that shaped them.

The key is SHA-256 over two parts: the run's part (provider, endpoint, model, weights, engine build,
generation parameters: whatever the provider's `identity` says shapes an answer) and the sample's part
(rendered messages or prompt, repeat, seed). Ways of asking that do not shape an answer (streaming,
concurrency, deadlines) are not in it. Errors, filtered and truncated answers are never stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import operator
import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from evalrun.atomic import NO_ROOM, no_room, open_private, private_folder, write_private
from evalrun.canonical import canonical_json
from evalrun.errors import UserError
from evalrun.secrets import scrub_json
from evalrun.types import JSON, Ask, Request, Response

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec

_OF_GENERATION = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "typical_p", "max_tokens", "max_completion_tokens", "stop"}
    | {"seed", "n", "best_of", "logprobs", "top_logprobs", "echo", "logit_bias", "stream", "stream_options"}
    | {"frequency_penalty", "presence_penalty", "repeat_penalty", "repetition_penalty"}
    | {"min_tokens", "ignore_eos", "response_format", "tools", "tool_choice", "parallel_tool_calls"}
)


def sent_params(spec: RunSpec) -> Mapping[str, JSON]:
    """The parameters that shape what a run is answered: all of them, or those that a likelihood needs."""
    return spec.params if spec.prompt.ask is None else likelihood_params(spec.params)


def likelihood_params(params: Mapping[str, JSON]) -> dict[str, JSON]:
    """The parameters that a likelihood depends on."""
    return {name: value for name, value in params.items() if name not in _OF_GENERATION}


def key_parts(ask: Ask) -> list[JSON]:
    """What of an ask shapes what the model says. What decides between the options (`by`), and what they stand
    for, does not."""
    parts = [ask.kind, ask.via, ask.continuations, ask.context, ask.top if ask.via == "first_token" else None]
    return [*parts, ask.pairs, ask.max_length] if ask.max_length else parts


_FIELDS = (
    "output",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "refusal",
    "reasoning",
    "tool_calls",
    "logprobs",
    "model",
    "fingerprint",
    "likelihood",
)


_ROWS = 240
"""Rows of one INSERT: 960 values, which every build of SQLite takes."""

_answer = operator.attrgetter(*_FIELDS)


CREDENTIALS = "credentials"
"""Key of the run's part of a key: where secrets stand, and their digest."""

SALT = "salt"
"""The file beside the answers that holds it."""
_SALT_BYTES = 32


def secret_digest(secrets: Mapping[str, str], salt: bytes) -> str:
    """What may be written in the place of secrets: 16 bytes of scrypt (RFC 7914), in hexadecimal, with a salt
    of this store's own. To try one guess costs some 50 ms and 16 MB, and tells nothing of another store."""
    digest = hashlib.scrypt(canonical_json(dict(secrets)), salt=salt, n=1 << 14, r=8, p=1, dklen=16)
    return digest.hex()


def credentials_part(secrets: Mapping[str, str], digest: str) -> JSON:
    """What keys hold of secrets."""
    return {"of": sorted(secrets), "digest": digest}


def secret_params(params: Mapping[str, JSON]) -> dict[str, str]:
    """The parameters that hold a secret, as JSON, by their names."""
    return {
        f"params.{name}": canonical_json(value).decode()
        for name, value in params.items()
        if scrub_json(value) != value
    }


class KeyMaker:
    """Makes the keys of one run; the run's part is hashed once."""

    def __init__(
        self, identity: Mapping[str, JSON], params: Mapping[str, JSON], credentials: JSON = None
    ) -> None:
        """`credentials` is what `ResponseCache.credentials` says of them, None where there are none."""
        apart: dict[str, JSON] = {} if credentials is None else {CREDENTIALS: credentials}
        shown = scrub_json(dict(params))
        self.run_part = canonical_json({"identity": identity, "params": shown, **apart})
        self._base = hashlib.sha256(self.run_part)
        self.run_digest = self._base.hexdigest()[:16]

    def key(
        self,
        messages: Sequence[Any],
        prompt: str | None,
        repeat: int,
        seed: int | None,
        ask: Ask | None = None,
        exact: int = 0,
    ) -> bytes:
        """32 bytes. `messages` are `Message` values."""
        digest = self._base.copy()
        digest.update(orjson.dumps((messages, prompt, repeat, seed)))
        if exact:
            digest.update(b"exact %d" % exact)
        if ask is not None:
            digest.update(orjson.dumps(key_parts(ask)))
        return digest.digest()

    def parts(self, request: Request) -> bytes:
        """What the key of a request was made of, in short: enough to say later which part of it differs.

        JSON: the digest of the run's part, sample id, repeat, seed, a checksum of each message, of the
        prompt, and of what is wanted besides an answer in words.
        """
        return orjson.dumps(
            (
                self.run_digest,
                request.sample_id,
                request.repeat,
                request.params.get("seed"),
                [zlib.crc32(orjson.dumps(message)) for message in request.messages],
                None if request.prompt is None else zlib.crc32(orjson.dumps(request.prompt)),
                None if request.ask is None else zlib.crc32(orjson.dumps(key_parts(request.ask))),
            )
        )


def encode_response(response: Response) -> bytes:
    """The parts of a response that are an answer, not a measurement."""
    return orjson.dumps(_answer(response))


def decode_response(data: bytes) -> Response:
    """The response that `encode_response` wrote: no timing, no cost. Older entries lack the last fields."""
    # By place, which is faster than by name: `timing` and `cost_usd` stand between.
    output, finish, prompt, completion, refusal, reasoning, calls, logprobs, model, print_, *later = (
        orjson.loads(data)
    )
    return Response(
        output, finish, prompt, completion, None, refusal, reasoning, calls, logprobs, model, print_, None,
        later[0] if later else None,
    )  # fmt: skip


_COLUMNS = "(key, value, created_at, parts)"


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables that are not there, and the column that older files lack."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS response"
        " (key BLOB PRIMARY KEY, value BLOB NOT NULL, created_at REAL NOT NULL, parts BLOB)"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS run_part (digest TEXT PRIMARY KEY, parts BLOB NOT NULL) WITHOUT ROWID"
    )
    if "parts" not in [row[1] for row in connection.execute("PRAGMA table_info(response)")]:
        # Another process may just have done it.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("ALTER TABLE response ADD COLUMN parts BLOB")


class Sealing(Protocol):
    """Names in the place of keys, and answers that cannot be read without a key (`privacy.sealed`)."""

    def name(self, key: bytes) -> bytes: ...
    def seal(self, name: bytes, answer: bytes) -> bytes: ...
    def open(self, name: bytes, sealed: bytes) -> bytes: ...
    def parts(self, parts: bytes | None) -> bytes | None: ...


class ResponseCache:
    """A SQLite file of answers. Reads happen on the caller's thread, writes in batches on another.

    Several processes may use one file. A cache that cannot be read or written is not worth a run: the failure
    is kept in `warning` and the run goes on without it. Only a disk that is full when it is opened is a
    UserError (exit 3), since nothing else could be kept there either.
    """

    BATCH = 1000

    def __init__(self, path: Path, seal: Sealing | None = None) -> None:
        """With `seal` neither answers nor what they answer can be read in the file."""
        self._path, self._seal = path, seal
        self.warning: str | None = None
        self._pending: list[tuple[bytes, bytes, float, bytes | None]] = []
        self._run_parts: list[tuple[str, bytes]] = []
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._empty = True
        self.oldest: float | None = None
        """When the oldest answer was stored that was found here (Unix seconds)."""
        self._salt: bytes | None = None
        self._digests: dict[bytes, str] = {}
        try:
            self._open()
        except UserError as error:
            if "full" in str(error):
                raise
            self._give_up("cannot be used", error)
        except (OSError, sqlite3.Error) as error:
            if _is_full(error, path.parent):
                raise no_room(path.parent) from error
            self._give_up("cannot be used", error)
        else:
            self.begin_run()

    def _open(self) -> None:
        path = self._path
        private_folder(path.parent)
        if not path.exists():
            os.close(open_private(path, os.O_CREAT | os.O_WRONLY))
        self._reader = self._connect()
        self._writer = self._connect()
        # Keys are random, so each batch touches most pages of the index: with these at hand, and moved into
        # the file once for many batches, an answer costs two thirds of the time.
        self._writer.execute("PRAGMA wal_autocheckpoint=8000")
        self._writer.execute("PRAGMA cache_size=-8000")
        create_tables(self._writer)

    def credentials(self, secrets: Mapping[str, str]) -> JSON:
        """What keys hold of a provider's secrets: where they stand, and a digest; None where it has none."""
        if not secrets:
            return None
        text = canonical_json(dict(secrets))
        if text not in self._digests:
            self._digests[text] = secret_digest(secrets, self._store_salt())
        return credentials_part(secrets, self._digests[text])

    def _store_salt(self) -> bytes:
        """The salt of this cache, made when it is first needed. One that cannot be kept is for this run."""
        if self._salt is None:
            path = self._path.with_name(SALT)
            with contextlib.suppress(OSError, UserError):
                if not path.exists():
                    write_private(path, os.urandom(_SALT_BYTES))
                self._salt = path.read_bytes()
        if not self._salt:
            self._salt = os.urandom(_SALT_BYTES)
        return self._salt

    def _give_up(self, what: str, error: Exception) -> None:
        """From here on it is as if there were no cache."""
        remedy = "where it is damaged, delete it: its answers are asked for again"
        self.warning = (
            f"the response cache {what}, and the run goes on without it: {error} ({self._path}; {remedy})"
        )
        self._empty, self._pending = True, []

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        # Losing the last answers to a power cut costs a repeat of those requests and nothing else.
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    def begin_run(self, keys: KeyMaker | None = None) -> None:
        """Look whether there is anything to find. What a run itself adds, it need not look for.

        `keys` is what the run makes its keys with; its part of them is written beside the answers.
        """
        if self.warning is not None or self._reader is None:
            return
        if keys is not None:
            self._run_parts.append((keys.run_digest, keys.run_part))
        try:
            self._empty = self._reader.execute("SELECT 1 FROM response LIMIT 1").fetchone() is None
        except sqlite3.Error as error:
            self._give_up("cannot be read", error)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        """The answers that are there, by key."""
        if self._empty or not keys or self._reader is None:
            return {}
        if (seal := self._seal) is not None:
            names = {seal.name(key): key for key in keys}
            return {names[name]: found for name, found in self._read([*names], seal).items()}
        return self._read(keys)

    def _read(self, keys: Sequence[bytes], seal: Sealing | None = None) -> dict[bytes, Response]:
        assert self._reader is not None
        marks = ",".join("?" * len(keys))
        try:
            rows = self._reader.execute(
                f"SELECT key, value, created_at FROM response WHERE key IN ({marks})", keys
            ).fetchall()
            opened = ((key, value if seal is None else seal.open(key, value)) for key, value, _ in rows)
            found = {key: decode_response(value) for key, value in opened}
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._give_up("cannot be read", error)
            return {}
        if rows:
            stored = min(created_at for _, _, created_at in rows)
            self.oldest = stored if self.oldest is None else min(self.oldest, stored)
        return found

    def put(self, key: bytes, response: Response, parts: bytes | None = None) -> None:
        """Store one answer, soon, with what `KeyMaker.parts` says. Call inside the event loop."""
        if self.warning is not None:
            return
        try:
            answer = encode_response(response)
        except TypeError:  # text that is no Unicode, from a function of the user's own
            return
        if self._seal is not None:
            key, parts = self._seal.name(key), self._seal.parts(parts)
            answer = self._seal.seal(key, answer)
        self._pending.append((key, answer, time.time(), parts))
        if len(self._pending) >= self.BATCH and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write what is pending."""
        async with self._writing:
            batch, self._pending = self._pending, []
            if batch:
                await asyncio.to_thread(self._write, batch)

    def _write(self, batch: list[tuple[bytes, bytes, float, bytes | None]]) -> None:
        if self._writer is None:
            return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            run_parts, self._run_parts = self._run_parts, []
            self._writer.executemany("INSERT OR IGNORE INTO run_part VALUES (?, ?)", run_parts)
            for start in range(0, len(batch), _ROWS):
                rows = batch[start : start + _ROWS]
                # One statement for many rows: SQLite gives the interpreter up once, and not once a row, after
                # each of which this thread would wait for its turn beside a busy event loop.
                marks = ",".join(["(?, ?, ?, ?)"] * len(rows))
                values = [value for row in rows for value in row]
                self._writer.execute(f"INSERT OR REPLACE INTO response {_COLUMNS} VALUES {marks}", values)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self.warning = f"answers are no longer cached: {error} ({self._path})"

    async def close(self) -> None:
        """Write what is pending and close the file."""
        if self._task is not None:
            await self._task
        await self.flush()
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()


_LEAST_ROOM = 1 << 16
"""Bytes: what SQLite's index of its log takes, and a little."""


def _is_full(error: Exception, folder: Path) -> bool:
    """Whether the disk, a quota or a limit on the size of files stands behind an error."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # For some of its files it says only that writing failed.
    full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(folder).free < _LEAST_ROOM
    return full or code == sqlite3.SQLITE_FULL
