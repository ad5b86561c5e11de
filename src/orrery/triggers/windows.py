"""Which rows a refresh learns from, decided by probes of each window on the same newest untouched rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np

from orrery.spec import Spec, window_length
from orrery.stats import paired_interval
from orrery.stats.checks import FloatArray

ALPHA = 0.05
"""Risk that a shorter window is taken where none is better, over all windows together."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe of one window showed.

    Parameters
    ----------
    window : its name.
    rows : that the probe learned from, a share of the window's.
    loss : mean on the newest untouched rows; None if the probe failed.
    against : the longer window that it was compared with; empty for the longest.
    gain, low : by how much its loss is lower than that one's, and the lower end of the interval.
    failed : why there is no loss.
    steps : of the pipeline, each with its ``key`` in the cache and the ``cpu_seconds`` that it took here.
    """

    window: str
    rows: int = 0
    loss: float | None = None
    against: str = ""
    gain: float | None = None
    low: float | None = None
    failed: str = ""
    steps: list[dict[str, Any]] = []

    def sentence(self) -> str:
        """Say it to people."""
        if self.loss is None:
            return f"{self.window} failed ({self.failed})"
        said = f"{self.window} {self.loss:.4f} on {self.rows:,} rows"
        if self.gain is None:
            return said
        if self.low is not None and self.low > 0:
            return f"{said}, better than {self.against} by {self.gain:.3g}, at least by {self.low:.2g}"
        return f"{said}, not known to be better than {self.against}"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The window that is learnt from, and what each showed.

    Parameters
    ----------
    window : the chosen one.
    metric : the primary loss.
    judged : newest untouched rows that all were compared on.
    tried : from the longest to the shortest.
    """

    window: str
    metric: str
    judged: int
    tried: list[Tried]

    def sentence(self) -> str:
        """Say it to people.

        Examples
        --------
        >>> short = Tried(window="31d", rows=400, loss=0.15, against="all", gain=0.06, low=0.02)
        >>> both = [Tried(window="all", rows=4000, loss=0.21), short]
        >>> print(Choice(window="31d", metric="brier", judged=700, tried=both).sentence())
        Window 31d: probes have, on the 700 newest untouched rows, a brier of: all 0.2100 on 4,000 rows; 31d 0.1500 on \
400 rows, better than all by 0.06, at least by 0.02.
        """
        told = "; ".join(one.sentence() for one in self.tried)
        if not self.judged:
            return f"Window {self.window}, the longest, as no probe worked: {told}."
        where = f"on the {self.judged:,} newest untouched rows"
        return f"Window {self.window}: probes have, {where}, a {self.metric} of: {told}."

    def as_fact(self) -> dict[str, Any]:
        """Return it as the timeline keeps it, the sentence included."""
        return {**msgspec.to_builtins(self), "says": self.sentence()}


def candidates(spec: Spec, span: timedelta = timedelta.max) -> list[str]:
    """Return the windows that a refresh chooses from, the longest first; one where the project names no others.

    Parameters
    ----------
    spec : the project file.
    span : from the oldest row to the newest: of the windows that hold all of it only the longest is worth a probe.

    Examples
    --------
    >>> from orrery.spec import from_dict
    >>> toy = {"name": "toy", "task": "binary", "target": "y", "time": "at"}
    >>> candidates(from_dict({"model": toy, "data": {"a": "a"}, "triggers": {"windows": ["31d", "all", "12w"]}}))
    ['all', '12w', '31d']
    """
    named = spec.triggers.windows or (spec.rollout.refresh.window,)
    longest, *others = sorted(named, key=lambda name: window_length(name) or timedelta.max, reverse=True)
    return [longest, *(name for name in others if (window_length(name) or timedelta.max) <= span)]


def pick(
    losses: Mapping[str, FloatArray],
    rows: Mapping[str, int],
    metric: str,
    blocks: np.ndarray[Any, Any] | None = None,
    failed: Mapping[str, str] | None = None,
    steps: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Choice:
    """Take the longest window that no shorter one is known to beat.

    From the longest on, a shorter window takes over where its loss is lower than that of the one that stands, with
    evidence: the lower end of a paired interval is above nothing, at :data:`ALPHA` over all comparisons together
    (Bonferroni). What is within the noise goes to the longer: it has more rows, so less variance, and a probe on a
    share of the rows is harder on a short window than the whole training will be, so that what wins here wins there.

    Parameters
    ----------
    losses : of each window's probe on the same rows, in the order of windows from the longest.
    rows : that each probe learned from.
    metric : what the losses are.
    blocks : for each row its day: rows of one day depend on each other.
    failed : windows whose probe failed, and why.
    steps : what each probe ran; see :class:`Tried`.
    """
    tried = [Tried(window=name, failed=why) for name, why in (failed or {}).items()]
    longest = stands = next(iter(losses or failed or {}))
    alpha = ALPHA / max(len(losses) - 1, 1)
    for name, mine in losses.items():
        found: dict[str, Any] = {}
        if name != longest:
            gain, low, _ = paired_interval(losses[stands] - mine, alpha, blocks)
            found = {"against": stands, "gain": gain, "low": low if np.isfinite(low) else None}
            stands = name if low > 0 else stands
        found["steps"] = (steps or {}).get(name, [])
        tried.append(Tried(window=name, rows=rows[name], loss=float(mine.mean()), **found))
    order = sorted(tried, key=lambda one: window_length(one.window) or timedelta.max, reverse=True)
    return Choice(window=stands, metric=metric, judged=len(losses.get(stands, ())), tried=order)
