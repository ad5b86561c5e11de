"""What a program printed: its head and its tail, however much there was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from orrery.pipeline.redaction import Redaction, Stream

HEAD_BYTES = 256 << 10
TAIL_BYTES = 256 << 10
LINE_BYTES = 16 << 10
"""A longer line is handed on in pieces."""


class Output:
    """Take blocks of output; keep the beginning and the end in a file, and hand on each line.

    Parameters
    ----------
    path : the file, replaced if it is there; None keeps only the tail in memory.
    on_line : called with each line, without its end.
    redaction : what is secret; it is in none of that.
    """

    def __init__(
        self, path: Path | None, on_line: Callable[[str], None] | None, redaction: Redaction | None = None
    ) -> None:
        self._stream = Stream(redaction or Redaction())
        self._file: BinaryIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w+b")
        self._on_line = on_line
        self._line = b""
        self._head = 0
        self._end = bytearray()
        self._left_out = 0
        self._written = 0.0

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *details: object) -> None:
        if details[0] is None:
            self.end()
        if self._line and self._on_line and details[0] is None:
            self._on_line(_text(self._line))
        if self._file is not None:
            self._write_end()
            self._file.close()

    @property
    def tail(self) -> str:
        """The last 16 kB as text."""
        return _text(bytes(self._end[-16384:]))

    @property
    def last_line(self) -> str:
        """The last line that is not empty, at most 300 characters of it."""
        lines = [line for line in self.tail.splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def end(self) -> None:
        """Take that nothing more will be printed."""
        if held := self._stream.rest():
            self._take(held)

    def write(self, block: bytes) -> None:
        """Take what was printed."""
        if clear := self._stream.take(block):
            self._take(clear)

    def _take(self, block: bytes) -> None:
        if self._on_line is not None:
            self._hand_on(block)
        if self._file is not None and self._head < HEAD_BYTES:
            self._file.seek(self._head)
            part = block[: HEAD_BYTES - self._head]
            self._file.write(part)
            self._head += len(part)
            self._left_out -= len(part)
        self._left_out += len(block)
        self._end += block
        if len(self._end) > 2 * TAIL_BYTES:
            del self._end[:-TAIL_BYTES]
        # Once a second, so that somebody who reads along, or comes after a crash, finds the end too.
        if self._file is not None and time.monotonic() - self._written > 1:
            self._write_end()

    def _write_end(self) -> None:
        assert self._file is not None
        rest = bytes(self._end[-min(TAIL_BYTES, self._left_out) :]) if self._left_out else b""
        self._file.seek(self._head)
        if self._left_out > len(rest):
            self._file.write(f"\n[... {self._left_out - len(rest)} bytes left out ...]\n".encode())
        self._file.write(rest)
        self._file.truncate()
        self._file.flush()
        self._written = time.monotonic()

    def _hand_on(self, block: bytes) -> None:
        assert self._on_line is not None
        *lines, self._line = (self._line + block).split(b"\n")
        if len(self._line) > LINE_BYTES:
            lines.append(self._line)
            self._line = b""
        for line in lines:
            self._on_line(_text(line).rstrip("\r"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")
