"""How answers look: one JSON object a line for scripts, aligned columns for people."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orrery.types import format_instant


def as_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """Turn instants into text, records and tuples into what JSON has."""
    import msgspec

    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return value


def columns(rows: Iterable[Sequence[object]], head: Sequence[str] = (), indent: str = "") -> None:
    """Print rows in aligned columns; the last one takes the room it needs."""
    texts = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    lines = [list(head), *texts] if head and texts else texts
    if not lines:
        return
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        print(f"{indent}{'  '.join([*cells, line[-1]])}".rstrip())


def note(text: str) -> None:
    """Say something beside the answer, on standard error."""
    print(text, file=sys.stderr)


def minute(instant: datetime | None) -> str:
    """Write an instant as people read it: UTC, to the minute."""
    return "" if instant is None else instant.strftime("%Y-%m-%d %H:%M")


def size(count: float) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> size(3_400_000)
    '3.4 MB'
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def growth(values: Sequence[float]) -> str:
    """Draw evidence as a line of blocks, each step of which is about three times the one below; 1 is the lowest.

    Examples
    --------
    >>> growth([0.5, 1.0, 4.0, 12.0, 100.0, 1026.0])
    '▁▁▂▃▅▇'
    """
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(
        blocks[min(int(2 * math.log10(value)), len(blocks) - 1) if value > 1 else 0] if value == value else " "
        for value in values
    )
