"""Rows whose concept changes at four places: ``python river_rows.py OUT.npz ROWS SEED``."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
from river.datasets import synth

CHANGES = (8000, 15_000, 26_000, 33_000)


def pieces(make: Any, concepts: tuple[int, ...], rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The concepts one after the other."""
    x, y = [], []
    ends = (*CHANGES, rows)
    for number, (concept, start, end) in enumerate(zip(concepts, (0, *CHANGES), ends, strict=True)):
        for one, label in itertools.islice(make(concept, seed + number), end - start):
            x.append([float(value) for value in one.values()])
            y.append(int(label))
    return np.array(x), np.array(y)


def main(out: str, rows: int, seed: int) -> None:
    mixed = pieces(lambda one, at: synth.Mixed(classification_function=one, seed=at), (0, 1, 0, 1, 0), rows, seed)
    sea = pieces(lambda one, at: synth.SEA(variant=one, noise=0.1, seed=at), (0, 3, 1, 2, 0), rows, seed)
    np.savez(out, **{"MIXED/x": mixed[0], "MIXED/y": mixed[1], "SEA/x": sea[0], "SEA/y": sea[1]})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
