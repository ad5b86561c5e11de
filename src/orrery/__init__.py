"""orrery keeps machine-learning models true while the world moves.

>>> import orrery
>>> orrery.dataset("flights", version=158).polars()            # doctest: +SKIP
>>> orrery.model("flight-delay", "production").predict(rows)   # doctest: +SKIP
>>> orrery.predictions("flight-delay").polars()                # doctest: +SKIP
>>> orrery.timeline("flight-delay")                            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# The package of this name is loaded before the function below is made: loaded later it would take the function's place.
import orrery.timeline as _timeline  # noqa: F401

if TYPE_CHECKING:
    from orrery.data.frame import Frame
    from orrery.reading import History, Served

__all__ = ["dataset", "model", "predictions", "timeline"]


def dataset(name: str, version: int | None = None, *, home: str | None = None) -> Frame:
    """Return a version of a dataset, read-only, the newest if none is named: ``.polars()``, ``.pandas()`` ...

    Raises
    ------
    NotFound
        If there is no such dataset or version.
    """
    from orrery import reading

    return reading.dataset(name, version, home)


def model(name: str, environment: str = "production", *, home: str | None = None) -> Served:
    """Return a model as it is served in an environment; ``.predict(rows)`` asks the inference server.

    Raises
    ------
    NotFound
        If no version of it answers there.
    """
    from orrery import reading

    return reading.model(name, environment, home)


def predictions(name: str, environment: str = "production", *, home: str | None = None) -> Frame:
    """Return the prediction log of a model in an environment, read-only; ``.lazy()`` reads only what is asked for.

    Its columns are those of :data:`orrery.data.log.COLUMNS`, and those of the requests.

    Raises
    ------
    NotFound
        If there is no such model.
    """
    from orrery import reading

    return reading.predictions(name, environment, home)


def timeline(name: str, *, home: str | None = None) -> History:
    """Return what happened to a model; it draws itself in a notebook.

    Raises
    ------
    NotFound
        If there is no such model.
    """
    from orrery import reading

    return reading.timeline(name, home)
