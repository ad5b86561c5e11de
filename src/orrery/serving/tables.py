"""Tables in Arrow's IPC stream format, for batches: read into columns, and written from an answer.

A stream is checked before it is believed: what it unpacks to is never larger than the request may be.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from orrery.errors import NotUnderstood
from orrery.serving.contract import Columns
from orrery.serving.open_inference import likely
from orrery.serving.plain import ARROW
from orrery.serving.refusals import TooLarge
from orrery.serving.requests import MAX_ROWS, Answer, Headers

MAX_TEXT = 64 << 20
"""Characters of all texts of a table, in bytes, once each row has its own."""


def read(body: bytes) -> Columns:
    """Return the columns of an Arrow IPC stream; NaN becomes null, a date or an instant its ISO 8601 text.

    Raises
    ------
    NotUnderstood
        If it is no such stream, is compressed, or a column's type has no place in a request.
    TooLarge
        If it has too many rows, or holds more text than a request may.
    """
    try:
        messages = list(pa.ipc.MessageReader.open_stream(body))
        if any(_compressed(message) for message in messages if message.type in ("record batch", "dictionary")):
            raise NotUnderstood(
                "The Arrow stream is compressed.", todo="Send it uncompressed, with Content-Encoding: gzip if you like."
            )
        with pa.ipc.open_stream(body) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:  # the last: a column's name
        raise NotUnderstood(f"The request is no Arrow IPC stream: {error}.") from None
    if table.num_rows > MAX_ROWS:
        raise TooLarge(f"The request holds {table.num_rows} rows.", todo=f"Send at most {MAX_ROWS} at once.")
    if len(set(table.column_names)) != table.num_columns:
        raise NotUnderstood("A column is there twice.")
    left = MAX_TEXT
    columns: Columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns[name], used = _values(name, column, left)
        left -= used
    return columns


def write(answer: Answer) -> tuple[Headers, bytes]:
    """Return an answer as a stream: ``probability`` (a list for each row if there are several) and ``prediction``."""
    rows = answer.output
    many = len(rows[0]) > 1
    numbers = pa.array(rows if many else [row[0] for row in rows], pa.list_(pa.float64()) if many else pa.float64())
    if answer.slot.task == "regression":
        columns = {"prediction": numbers}
    else:
        columns = {"probability": numbers, "prediction": pa.array([likely(row) for row in rows], pa.int64())}
    about = {"id": answer.request.id, "model": answer.slot.model, "version": str(answer.slot.version)}
    if answer.broken is not None:
        columns["broken"] = pa.array(answer.broken, pa.list_(pa.string()))
    for name, columns_named in (("missing", answer.missing), ("extra", answer.extra)):
        if columns_named:
            about[name] = " ".join(columns_named)
    table = pa.table(columns).replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return [("content-type", ARROW)], sink.getvalue().to_pybytes()


def _values(name: str, column: Any, left: int) -> tuple[list[Any], int]:
    """Return a column's values, and how many bytes of text they are."""
    kind = column.type
    used = 0
    if pa.types.is_dictionary(kind):
        column, kind = _undictionaried(name, column, left)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        used = pc.sum(pc.binary_length(column)).as_py() or 0
        if used > left:
            raise TooLarge(f"Column {name} holds too much text.", todo=f"Send at most {MAX_TEXT} bytes at once.")
        return column.to_pylist(), used
    if pa.types.is_floating(kind):
        if pa.types.is_float16(kind):
            column = column.cast(pa.float32())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _instants(name, column), 0
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise NotUnderstood(f"Column {name} is of the type {kind}, which has no place in a request.")
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return column.to_pylist(), 0
    return column.to_numpy().tolist(), 0  # ten times quicker than value by value


def _instants(name: str, column: Any) -> list[str | None]:
    try:
        if pa.types.is_timestamp(column.type):  # of nanoseconds, a date cannot hold the last three digits
            column = column.cast(pa.timestamp("us", column.type.tz), safe=column.type.unit != "ns")
        return [None if value is None else value.isoformat() for value in column.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise NotUnderstood(f"Column {name} holds a date that cannot be written: {error}.") from None


def _undictionaried(name: str, column: Any, left: int) -> tuple[Any, Any]:
    """Give each row its own value, if that is not too much."""
    kind = column.type.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise NotUnderstood(f"Column {name} is of the type {column.type}, which has no place in a request.")
    longest = max((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0)
    if longest * len(column) > left:
        raise TooLarge(f"Column {name} holds too much text.", todo=f"Send at most {MAX_TEXT} bytes at once.")
    return column.cast(kind), kind


def _compressed(message: Any) -> bool:
    """Whether a message's buffers are compressed: field 3 of its flatbuffer ``RecordBatch``."""
    data = memoryview(message.metadata)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little", signed=size == 4)

    def field(table: int, which: int) -> int:
        """Return the place of a table's field; 0 if it is not there."""
        fields = table - number(table, 4)
        slot = 4 + 2 * which
        offset = number(fields + slot, 2) if slot < number(fields, 2) else 0
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + number(place, 4)

    batch = follow(field(follow(0), 2))
    if message.type == "dictionary":  # a record batch with an id
        batch = follow(field(batch, 1))
    return bool(field(batch, 3))
