"""Server-sent events, as bytes arrive: an incremental parser without any input or output of its own.

Follows the event stream format of the WHATWG HTML standard (section 9.2.6): lines end in \\n, \\r\\n or
\\r, lines that begin with a colon are comments, several `data` lines make one event, a blank line ends it.
Two leniences: the last event counts even if the stream ends before its blank line (`finish`), since
servers cut that short; `id` and `retry` are read over, since nothing here reconnects.
"""

from __future__ import annotations

from typing import TypeAlias

DONE = b"[DONE]"
"""The data of the event with which chat completion streams end."""

_BOM = b"\xef\xbb\xbf"


Event: TypeAlias = tuple[bytes, bytes]
"""One event: its data, and its name (empty for an ordinary one). A plain tuple, as it is made per chunk."""


class SSEParser:
    """Bytes in, events out. How the bytes are cut into pieces makes no difference."""

    __slots__ = ("_at_start", "_data", "_name", "_pieces", "_skip_newline")

    def __init__(self) -> None:
        self._pieces: list[
            bytes
        ] = []  # of the line that has not ended; a list, so that long lines stay linear
        self._data: list[bytes] = []
        self._name = b""
        self._skip_newline = False  # the last piece ended in \r: a \n now belongs to it
        self._at_start = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if not piece:
            return []
        if self._skip_newline:
            self._skip_newline = False
            if piece[0] == 0x0A:
                piece = piece[1:]
        if b"\r" in piece:
            self._skip_newline = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._pieces.append(piece)
            return []
        if self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
        rest = lines.pop()
        self._pieces = [rest] if rest else []
        return self._take(lines)

    def finish(self) -> list[Event]:
        """The event that was under way when the stream ended, if any; its data may be cut short."""
        line = b"".join(self._pieces)
        self._pieces = []
        return self._take([line, b""] if line else [b""])

    def _take(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        data = self._data
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if data:
                    events.append((data[0] if len(data) == 1 else b"\n".join(data), self._name))
                    data.clear()
                self._name = b""
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line == b"data":
                data.append(b"")
        return events
