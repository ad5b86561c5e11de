"""Error streams of fixed classifiers on river's generators: ``python river_streams.py OUT.npz ROWS SEED``.

For each generator a classifier learns from rows of the first concept and is then left alone. What it gets wrong (1) and
right (0) on further rows, of this concept and of the one after the change, is kept in the order in which rows came.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from river import compose, naive_bayes, preprocessing, tree
from river.datasets import synth

LEARN = 10_000

Rows = Iterator[tuple[dict[Any, Any], Any]]


def concepts() -> dict[str, tuple[Callable[[int], Rows], Callable[[int], Rows], Callable[[], Any]]]:
    """Name to the rows before and after the change, and the classifier."""

    def hoeffding() -> Any:
        return tree.HoeffdingTreeClassifier(grace_period=200)

    def bayes() -> Any:
        return compose.Pipeline(preprocessing.StandardScaler(), naive_bayes.GaussianNB())

    def led_moved(seed: int) -> Rows:
        """The same display with three of its seven segments wired to others (as LEDDrift does)."""
        for x, y in synth.LED(seed=seed, noise_percentage=0.1):
            names = list(x)
            yield {**x, names[0]: x[names[4]], names[4]: x[names[0]], names[1]: x[names[6]]}, y

    return {
        "SEA": (
            lambda seed: iter(synth.SEA(variant=0, noise=0.1, seed=seed)),
            lambda seed: iter(synth.SEA(variant=3, noise=0.1, seed=seed)),
            hoeffding,
        ),
        "Agrawal": (
            lambda seed: iter(synth.Agrawal(classification_function=2, seed=seed, perturbation=0.05)),
            lambda seed: iter(synth.Agrawal(classification_function=3, seed=seed, perturbation=0.05)),
            hoeffding,
        ),
        "Sine": (
            lambda seed: iter(synth.Sine(classification_function=0, seed=seed)),
            lambda seed: iter(synth.Sine(classification_function=2, seed=seed)),
            bayes,
        ),
        "Mixed": (
            lambda seed: iter(synth.Mixed(classification_function=0, seed=seed)),
            lambda seed: iter(synth.Mixed(classification_function=1, seed=seed)),
            bayes,
        ),
        "LED": (lambda seed: iter(synth.LED(seed=seed, noise_percentage=0.1)), led_moved, bayes),
    }


def wrong(model: Any, rows: Rows, n: int) -> np.ndarray:
    return np.array([model.predict_one(x) != y for x, y in itertools.islice(rows, n)], dtype=np.uint8)


def main(out: str, rows: int, seed: int) -> None:
    found = {}
    for name, (before, after, make) in concepts().items():
        model = make()
        stream = before(seed)
        for x, y in itertools.islice(stream, LEARN):
            model.learn_one(x, y)
        found[f"{name} before"] = wrong(model, stream, rows)
        found[f"{name} after"] = wrong(model, after(seed + 1), rows)
        print(name, found[f"{name} before"].mean(), found[f"{name} after"].mean(), flush=True)
    np.savez_compressed(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
