"""A request for predictions, whatever protocol it came in, and its answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from operator import itemgetter
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.contract import Broken, Columns
from orrery.serving.refusals import LengthNeeded, TooLarge

MAX_ROWS = 100_000
CERTIFICATE = ":certificate"
"""Field with the common name of the certificate that was shown: no caller can send one that begins with a colon."""
MAX_ID = 200

Headers = list[tuple[str, str]]
JSON = ("content-type", "application/json")

_LEAST = -(1 << 63)
Cell = float | Annotated[int, msgspec.Meta(ge=_LEAST, le=-_LEAST - 1)] | str | bool | None
"""What a cell may hold. Who decodes a body as such need not look at each cell again (see :func:`request`)."""

_CELLS = frozenset({int, float, str, bool, type(None)})
_boot, _numbers = os.urandom(8).hex(), count()


class Request(msgspec.Struct):
    """Some rows, by column.

    Parameters
    ----------
    id : name of the request; a row is ``id#row``.
    columns : the inputs as received: numbers, text, true or false, null.
    rows : number of rows.
    single : whether it is one row that was not in a list.
    explain : whether the answer is to say why.
    caller : who asks; empty where nobody says so.
    """

    id: str
    columns: Columns
    rows: int
    single: bool = False
    explain: bool = False
    caller: str = ""


class Answer(msgspec.Struct):
    """What the champion said.

    Parameters
    ----------
    request, slot : what was asked, and who answered.
    output : numbers of each row: for a binary task the probability of the positive class, for a multiclass one the
        probability of each class, for regression the predicted value.
    broken : columns of each row that break the contract; nothing when none does.
    missing, extra : inputs that the model knows and that were not sent, and the other way round.
    explanation : why, if that was asked: the fields of :class:`orrery.pipeline.explain.Explanation`.
    """

    request: Request
    slot: Slot
    output: list[list[Any]]
    broken: Broken | None
    missing: list[str]
    extra: list[str]
    explanation: dict[str, Any] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What the caller should know besides the numbers; empty in the good case."""
        if not (self.broken or self.missing or self.extra):
            return {}
        said = {"broken": self.broken, "missing": self.missing, "extra": self.extra}
        return {name: value for name, value in said.items() if value}


class Fields(Protocol):
    """The header fields of a request; names are in lower case."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return a field's text."""

    def __contains__(self, key: Any, /) -> bool: ...


class Given(NamedTuple):
    """A request as it came over HTTP.

    Parameters
    ----------
    body : its content, unpacked.
    headers : its header fields.
    """

    body: bytes
    headers: Fields

    @property
    def kind(self) -> str:
        """The content type, without parameters; empty if there is none."""
        return _bare(self.headers.get("content-type", ""))

    def check_whole(self) -> None:
        """Refuse a body that may have broken off unseen; JSON that does is no JSON, a table's rows may be missing.

        Raises
        ------
        LengthNeeded
            If it came in chunks and is not packed.
        """
        if "content-length" not in self.headers and "content-encoding" not in self.headers:
            raise LengthNeeded(todo="Send it with Content-Length, or packed with gzip.")

    @property
    def id(self) -> str | None:
        """The id that the caller gave in the header ``X-Request-Id``."""
        found: str | None = self.headers.get("x-request-id")
        return found


Write = Callable[[Answer], tuple[Headers, bytes]]
"""Puts an answer into the form in which it was asked for: header fields, and the content."""


class Asked(NamedTuple):
    """What was understood of a request, how its answer is written, and whether an explanation has a place in that."""

    request: Request
    write: Write
    explains: bool = True


Read = Callable[[Given, Slot, Mapping[str, Any]], Asked]
"""Understands a request; gets the slot that will answer, and the model's columns with their types, in order."""


def request(columns: Columns, given_id: object = None, *, single: bool = False, checked: bool = False) -> Request:
    """Return a request that has been looked at.

    Parameters
    ----------
    checked : whether the columns are known to be of one length, and all their cells to be :data:`Cell`.

    Raises
    ------
    NotUnderstood
        If there are no rows, columns of different lengths, a cell that holds a list, an object or a whole number of
        more than 64 bits, a column name that is reserved, or an id that is not a short text.
    TooLarge
        If there are more than :data:`MAX_ROWS` rows.
    """
    usual = checked and columns and not [name for name in columns if name[:1] in "_"]
    rows = len(next(iter(columns.values()))) if usual else _rows(columns)
    if not rows:
        raise NotUnderstood("The request holds no rows.")
    if rows > MAX_ROWS:
        raise TooLarge(f"The request holds {rows} rows.", todo=f"Send at most {MAX_ROWS} at once.")
    return Request(_checked_id(given_id), columns, rows, single)


def by_column(records: list[dict[str, Any]]) -> Columns:
    """Turn rows into columns; what a row does not have is null.

    Raises
    ------
    NotUnderstood
        If a row is not an object.

    Examples
    --------
    >>> by_column([{"a": 1, "b": 2}, {"a": 3}])
    {'a': [1, 3], 'b': [2, None]}
    """
    first = records[0] if records else None
    if (
        type(first) is dict
        and len(first) > 1
        and {dict} == set(map(type, records))
        and {len(first)} == set(map(len, records))
    ):
        try:  # all have the same columns
            return dict(zip(first, map(list, zip(*map(itemgetter(*first), records), strict=True)), strict=True))
        except KeyError:
            pass
    names: dict[str, None] = {}
    for row, record in enumerate(records):
        if type(record) is not dict:
            raise NotUnderstood(f"Row {row} is not an object of columns.")
        names.update(dict.fromkeys(record))
    return {name: [record.get(name) for record in records] for name in names}


def _checked_id(given: object) -> str:
    if given is None or given == "":
        return f"{_boot}-{next(_numbers):x}"
    if not isinstance(given, str) or len(given) > MAX_ID or not (given.isascii() and given.isprintable()):
        raise NotUnderstood(f"A request's id is an ASCII text of at most {MAX_ID} characters.")
    return given


def _rows(columns: Columns) -> int:
    """Look at each column; return the number of rows."""
    rows = -1
    for name, values in columns.items():
        if rows < 0:
            rows, first = len(values), name
        elif len(values) != rows:
            raise NotUnderstood(f"Column {name} has {len(values)} rows and column {first} has {rows}.")
        if name[:1] == "_" or not name:
            raise NotUnderstood(
                f"A column cannot be called {name!r}.", todo="Names that begin with _ are orrery's own."
            )
        kinds = set(map(type, values))
        if not kinds <= _CELLS:
            raise NotUnderstood(_odd_cell(name, values))
        if int in kinds:
            _check_integers(name, values)
    return max(rows, 0)


@lru_cache(64)
def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _check_integers(name: str, values: list[Any]) -> None:
    for row, value in enumerate(values):
        if type(value) is int and not _LEAST <= value < -_LEAST:
            raise NotUnderstood(f"Column {name} of row {row} holds a whole number of more than 64 bits.")


def _odd_cell(name: str, values: list[Any]) -> str:
    row = next(row for row, value in enumerate(values) if type(value) not in _CELLS)
    what = "a list" if isinstance(values[row], list) else "an object"
    return f"Column {name} of row {row} holds {what}; a cell is a number, text, true, false or null."
