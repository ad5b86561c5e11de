"""What a dataset version looks like to whoever reads it: the same rows in the library of their choice."""

from __future__ import annotations

from typing import Any

import polars as pl


class Frame:
    """Rows of one dataset version, for reading; in the order in which they were added.

    Libraries that know the Arrow PyCapsule interface take it as it is. Nothing is read before it is asked for.

    Parameters
    ----------
    scan : the rows.
    """

    def __init__(self, scan: pl.LazyFrame) -> None:
        self._scan = scan
        self._rows: pl.DataFrame | None = None

    def lazy(self) -> pl.LazyFrame:
        """Return a Polars plan: only the columns and rows that it needs are read."""
        return self._scan if self._rows is None else self._rows.lazy()

    def polars(self) -> pl.DataFrame:
        """Return a Polars data frame."""
        if self._rows is None:
            self._rows = self._scan.collect()
        return self._rows.clone()

    def pandas(self) -> Any:
        """Return a pandas data frame of its own (changing it changes nothing here)."""
        return self.polars().to_pandas()

    def arrow(self) -> Any:
        """Return a ``pyarrow.Table``."""
        return self.polars().to_arrow()

    def duckdb(self) -> Any:
        """Return a DuckDB relation in a database of its own; needs the extra ``duckdb``."""
        import duckdb

        return duckdb.connect().from_arrow(self.arrow())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.polars().__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        if self._rows is not None:
            return self._rows.height
        return int(self._scan.select(pl.len()).collect().item())
