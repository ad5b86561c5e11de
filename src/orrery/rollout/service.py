"""How a version that answers a share behaves, read from the log of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from orrery.spec import Spec
from orrery.types import percent

FLOOR = 0.005
"""Seconds below which it makes no difference how many times as long something took."""
FAILURES = 3
"""Failures that are not yet a reason."""


def service(rows: pl.DataFrame, champion: int, version: int, role: str, spec: Spec, scale: float) -> dict[str, Any]:
    """Return what the log says of a version's service at its present share.

    Parameters
    ----------
    rows : of the log, all roles, since the share was set.
    champion, version, role : who is compared with whom; ``role`` is ``canary`` or ``arm``.
    spec : the policy with the limits.
    scale : largest error that counts, for regressions: answers that differ by less agree.

    Returns
    -------
    ``requests`` that were for the version, ``failures`` (those that the champion answered in its place), ``latency``
    and ``broken`` (a ratio and a difference to the champion), ``agreement`` (share of equal answers where both saw the
    same rows), and ``breach``: the limit that is broken, in words.
    """
    limits = spec.rollout.probation
    mine = rows.filter((pl.col("_version") == version) & (pl.col("_role") == role))
    its = rows.filter((pl.col("_version") == champion) & (pl.col("_role") == "champion"))
    failures = rows.filter((pl.col("_version") == champion) & (pl.col("_role") == "standby"))
    failed, requests = _requests(failures), _requests(mine) + _requests(failures)
    found: dict[str, Any] = {"requests": requests, "failures": failed}
    found["latency"] = _latency(mine, its)
    found["broken"] = _broken(mine) - _broken(its) if len(mine) and len(its) else None
    found["agreement"] = _agreement(rows, champion, version, spec, scale)
    found["breach"] = ""
    if requests < min(limits.requests, 50) and failed < FAILURES:
        return found  # too few to say anything
    if failed >= FAILURES and failed > limits.failures * requests:
        found["breach"] = f"it failed on {failed:,} of {requests:,} requests (limit {percent(limits.failures)})"
    elif (ratio := found["latency"]) is not None and ratio > limits.latency:
        found["breach"] = f"it took {ratio:.1f} times as long as the champion (limit {limits.latency:g} times)"
    elif (more := found["broken"]) is not None and more > limits.broken:
        found["breach"] = f"{percent(more)} more of its rows break the contract (limit {percent(limits.broken)})"
    elif (agreement := found["agreement"]) is not None and agreement < limits.agreement:
        found["breach"] = (
            f"only {percent(agreement)} of its answers are the champion's (limit {percent(limits.agreement)})"
        )
    return found


def _requests(rows: pl.DataFrame) -> int:
    return int(rows["_id"].str.replace(r"#\d+$", "").n_unique()) if len(rows) else 0


def _latency(mine: pl.DataFrame, its: pl.DataFrame) -> float | None:
    one, other = mine["_latency"].median(), its["_latency"].median()
    if not isinstance(one, float) or not isinstance(other, float):
        return None
    return round(max(one, FLOOR) / max(other, FLOOR), 3)


def _broken(rows: pl.DataFrame) -> float:
    share = (rows["_broken"].list.len() > 0).mean()
    return float(share) if isinstance(share, float) else 0.0


def _agreement(rows: pl.DataFrame, champion: int, version: int, spec: Spec, scale: float) -> float | None:
    """Return the share of rows that both saw and answered alike; nothing where no row was seen by both."""
    sides = [
        rows.filter(pl.col("_version") == number).select("_id", output="_output").unique("_id", keep="first")
        for number in (champion, version)
    ]
    pairs = sides[0].join(sides[1], on="_id", how="inner", suffix="_other")
    if not len(pairs):
        return None
    one, other = pairs["output"].to_list(), pairs["output_other"].to_list()
    if len({len(row) for row in (*one, *other)}) > 1:
        return 0.0
    left, right = (np.asarray(side, dtype=np.float64) for side in (one, other))
    if spec.model.task == "regression":
        alike = (np.abs(left - right) <= scale).all(axis=1)
    elif left.shape[1] == 1:
        alike = ((left >= 0.5) == (right >= 0.5)).all(axis=1)
    else:
        alike = left.argmax(axis=1) == right.argmax(axis=1)
    return round(float(alike.mean()), 4)
