"""A digest of what rows say, not of how they are stored: the same for every library version and machine."""

from __future__ import annotations

import hashlib

import polars as pl


def digest_of(frame: pl.DataFrame, before: str = "") -> str:
    """Return 32 hexadecimal digits for the rows, chained to the digest of what stands before them.

    Examples
    --------
    >>> one = digest_of(pl.DataFrame({"a": [1, None]}))
    >>> one == digest_of(pl.DataFrame({"a": [1]}).vstack(pl.DataFrame({"a": [None]}, schema={"a": pl.Int64})))
    True
    >>> one == digest_of(pl.DataFrame({"a": [None, 1]}))
    False
    """
    state = hashlib.blake2b(before.encode(), digest_size=16)
    for series in frame.get_columns():
        state.update(f"\0{series.name}\0{series.dtype}\0{series.len()}\0".encode())
        state.update(series.is_null().to_numpy().tobytes())
        state.update(_values(series))
    return state.hexdigest()


def _values(series: pl.Series) -> bytes:
    kind = series.dtype
    if kind.is_nested() or kind == pl.Binary or kind.is_decimal():
        return series.to_frame("v").write_ndjson().encode() if kind != pl.Binary else repr(series.to_list()).encode()
    if kind == pl.String:
        filled = series.fill_null("")
        # Lengths keep ["ab", "c"] and ["a", "bc"] apart.
        return bytes(filled.str.len_bytes().to_numpy().astype("<i8").tobytes()) + "".join(filled.to_list()).encode()
    if kind.is_temporal():
        series = series.to_physical()
    numbers = series.fill_null(False if kind == pl.Boolean else 0).to_numpy()
    return bytes(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
