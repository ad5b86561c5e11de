"""Shapley values of any model, by asking it: exactly where it has few columns, else by sampled orders.

The value of a set of columns is the mean answer to the row with its other columns taken from background rows. A row's
contributions therefore add up exactly to its answer less the mean answer to the background, however few orders were
sampled; what sampling costs is how they are shared out, and that is estimated and told (Castro, Gómez and Tejada 2009;
orders are sampled with their reverse, Mitchell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.errors import NotUnderstood

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

EVALUATIONS = 4096
"""Rows that the model is asked about for each row that is explained, about."""
BACKGROUND = 10
"""Rows of the background that are used."""
_LEAST_PAIRS = 2
"""An error cannot be estimated from fewer."""


class Table:
    """Rows to explain and, below them, those of the background, so that a row can be mixed of both.

    Parameters
    ----------
    rows, background
        What the model sees, of one kind: Polars or pandas frames, or arrays of two dimensions.

    Raises
    ------
    NotUnderstood
        If it is no table.
    """

    def __init__(self, rows: Any, background: Any) -> None:
        self.height = len(rows)
        if isinstance(rows, pl.DataFrame):
            step = max(1, -(-len(background) // BACKGROUND))
            self._stack: Any = pl.concat([rows, background.gather_every(step)], how="vertical_relaxed")
            self.names = list(rows.columns)
        elif hasattr(rows, "iloc"):
            import pandas as pd  # type: ignore[import-untyped]

            step = max(1, -(-len(background) // BACKGROUND))
            self._stack = pd.concat([rows, background.iloc[::step]], ignore_index=True)
            self.names = [str(name) for name in rows.columns]
        else:
            given = np.asarray(rows)
            if given.ndim != 2:
                raise NotUnderstood("What this model sees is no table, so it cannot be explained by columns.")
            step = max(1, -(-len(background) // BACKGROUND))
            self._stack = np.concatenate([given, np.asarray(background)[::step]])
            self.names = [f"x{place}" for place in range(given.shape[1])]
        self.spread = len(self._stack) - self.height
        """Rows of the background."""

    def mixed(self, row: int, masks: npt.NDArray[np.bool_]) -> Any:
        """Return, for each mask, one row for each of the background: columns of the mask as in ``row``."""
        below = np.arange(self.height, self.height + self.spread)
        places = np.where(masks[:, None, :], row, below[None, :, None]).reshape(-1, masks.shape[1])
        if isinstance(self._stack, pl.DataFrame):
            return pl.DataFrame([each.gather(places[:, at]) for at, each in enumerate(self._stack.iter_columns())])
        if hasattr(self._stack, "iloc"):
            import pandas as pd

            parts = [
                self._stack.iloc[:, at].take(places[:, at]).reset_index(drop=True) for at in range(places.shape[1])
            ]
            return pd.concat(parts, axis=1)
        return self._stack[places, np.arange(places.shape[1])]


def shapley(
    ask: Callable[[Any, int], FloatArray], table: Table, *, seed: int = 0, evaluations: int = EVALUATIONS
) -> tuple[FloatArray, FloatArray, float | None, int]:
    """Return base, contributions, and how sure they are.

    Parameters
    ----------
    ask
        From rows as the model sees them, and how many they are, to its answers, of shape (rows, k).
    table
        The rows and their background.
    seed
        Of the sampled orders; a row's answer depends on nothing else of the request.
    evaluations
        Budget for each row.

    Returns
    -------
    base of shape (k,), contributions of shape (rows, k, columns), the largest standard error of a contribution (None
    where they are exact), and how often the model was asked for a row.
    """
    width = len(table.names)
    exact = width <= 20 and (1 << width) * table.spread <= evaluations
    values, errors = [], []
    base = None
    for row in range(table.height):
        if exact:
            masks = (np.arange(1 << width)[:, None] >> np.arange(width)) & 1 == 1
            worth = _worth(ask, table, row, masks)
            base = worth[0]
            values.append(_exactly(worth, width))
        else:
            pairs = max(_LEAST_PAIRS, evaluations // (2 * (width + 1) * table.spread))
            base, mean, error = _sampled(ask, table, row, pairs, np.random.default_rng(seed))
            values.append(mean)
            errors.append(error)
    assert base is not None
    asked = (1 << width) if exact else 2 * pairs * (width + 1)
    return base, np.array(values), max(errors) if errors else None, asked * table.spread


def _worth(ask: Callable[[Any, int], FloatArray], table: Table, row: int, masks: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the value of each set of columns, of shape (sets, k)."""
    said = ask(table.mixed(row, masks), len(masks) * table.spread)
    means: FloatArray = said.reshape(len(masks), table.spread, -1).mean(axis=1)
    return means


def _exactly(worth: FloatArray, width: int) -> FloatArray:
    """Return contributions from the values of all sets, set ``s`` having column ``c`` where bit ``c`` of it is 1."""
    found = np.zeros((worth.shape[1], width))
    for column in range(width):
        others = [other for other in range(width) if other != column]
        for size in range(width):
            weight = factorial(size) * factorial(width - size - 1) / factorial(width)
            sets = np.array([sum(1 << other for other in chosen) for chosen in combinations(others, size)])
            found[:, column] += weight * (worth[sets | (1 << column)] - worth[sets]).sum(axis=0)
    return found


def _sampled(
    ask: Callable[[Any, int], FloatArray], table: Table, row: int, pairs: int, random: np.random.Generator
) -> tuple[FloatArray, FloatArray, float]:
    width = len(table.names)
    orders = [random.permutation(width) for _ in range(pairs)]
    orders = [order for each in orders for order in (each, each[::-1])]
    ranks = np.argsort(orders, axis=1)
    masks = (ranks[:, None, :] < np.arange(width + 1)[None, :, None]).reshape(-1, width)
    worth = _worth(ask, table, row, masks)
    steps = np.diff(worth.reshape(2 * pairs, width + 1, -1), axis=1)  # in the order of each
    each = np.empty_like(steps)
    for at, order in enumerate(orders):
        each[at, order] = steps[at]
    paired = each.reshape(pairs, 2, width, -1).mean(axis=1)
    error = float((paired.std(axis=0, ddof=1) / np.sqrt(pairs)).max())
    return worth[0], paired.mean(axis=0).T, error
