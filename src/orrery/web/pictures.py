"""Where things stand in a picture of time: scales, ticks and lines, in the units of an SVG view box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WIDTH = 1120.0
LEFT, RIGHT = 76.0, 1096.0
_STEPS = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 7, 14)),
)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """The axis of time that all pictures of one page share.

    Parameters
    ----------
    start, end : instants at the left and the right edge.
    """

    start: datetime
    end: datetime

    def x(self, instant: datetime) -> float:
        """Return the place of an instant; what lies outside stands at the edge.

        Examples
        --------
        >>> from datetime import UTC
        >>> scale = Scale(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 3, tzinfo=UTC))
        >>> scale.x(datetime(2013, 1, 2, tzinfo=UTC)) == (LEFT + RIGHT) / 2
        True
        """
        share = (instant - self.start) / (self.end - self.start)
        return round(LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT), 1)

    def ticks(self, most: int = 12) -> list[Tick]:
        """Return at most so many round instants."""
        span = self.end - self.start
        months = span / timedelta(days=30.4)
        if months > most / 3:
            return self._months(math.ceil(months / most))
        step = next((one for one in _STEPS if span / one <= most), timedelta(days=14))
        day = self.start.replace(hour=0, minute=0, second=0, microsecond=0)
        at = day + step * math.ceil((self.start - day) / step)
        form = "%-d %b" if step >= timedelta(days=1) else "%-d %b %H:%M" if span > timedelta(days=1) else "%H:%M"
        found = []
        while at <= self.end:
            found.append(Tick(self.x(at), at.strftime(form)))
            at += step
        return found

    def _months(self, step: int) -> list[Tick]:
        step = next(one for one in (1, 2, 3, 6, 12, 24, 60, 120) if one >= min(step, 120))
        found = []
        for number in range(self.start.year * 12 + self.start.month, self.end.year * 12 + self.end.month):
            if number % step == 0:
                at = self.start.replace(
                    year=number // 12, month=number % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0
                )
                found.append(Tick(self.x(at), at.strftime("%b" if at.month > 1 else "%Y")))
        return found


def scale_of(instants: Sequence[datetime]) -> Scale:
    """Return the scale that shows all of some instants, with a little air."""
    start, end = min(instants), max(instants)
    air = max((end - start) * 0.012, timedelta(minutes=5))
    return Scale(start - air, end + air)


@dataclass(frozen=True)
class Line:
    """One line of a chart: what it is called, how it is drawn, and its path."""

    name: str
    style: str
    path: str


@dataclass(frozen=True)
class Chart:
    """Lines over time.

    Parameters
    ----------
    name, words : what is shown; the caption.
    height : of the view box.
    lines : the lines.
    ticks : of the vertical axis.
    """

    name: str
    words: str
    height: float
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]


Points = Sequence[tuple[datetime, float]]


def chart(
    name: str, words: str, scale: Scale, series: Sequence[tuple[str, str, Points]], *, height: float = 150.0
) -> Chart | None:
    """Draw series of points; None where there is none to draw.

    Parameters
    ----------
    series : name, style (``line``, ``step`` or ``dashed``) and points of each.
    """
    values = [value for _, _, points in series for _, value in points if math.isfinite(value)]
    if not values:
        return None
    # One wild look must not flatten all others: the axis ends a little above the 98th hundredth.
    low, high = min(values), sorted(values)[int(0.98 * (len(values) - 1))] * 1.04
    ticks = _round_ticks(low, max(high, low + 1e-9))
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    top, bottom = 14.0, height - 8.0

    def y(value: float) -> float:
        return round(bottom - (min(value, high) - low) / (high - low) * (bottom - top), 1)

    lines = tuple(Line(title, style, path(scale, points, y, style)) for title, style, points in series if points)
    return Chart(name, words, height, lines, tuple(Tick(y(value), f"{value:g}") for value in ticks))


def path(scale: Scale, points: Points, y: Callable[[float], float], style: str) -> str:
    """Return the path of a line; what is no number is left out."""
    parts: list[str] = []
    for at, value in points:
        if not math.isfinite(value):
            continue
        x = scale.x(at)
        if not parts:
            parts.append(f"M{x} {y(value)}")
        elif style == "step":
            parts.append(f"H{x}V{y(value)}")
        else:
            parts.append(f"L{x} {y(value)}")
    return "".join(parts)


def _round_ticks(low: float, high: float) -> list[float]:
    """Return two to five round values that span a range.

    Examples
    --------
    >>> _round_ticks(0.13, 0.21)
    [0.12, 0.14, 0.16, 0.18, 0.2, 0.22]
    """
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{step * number:.10g}") for number in range(first, last + 1)]


def spark(values: Sequence[float], *, width: float = 180.0, height: float = 36.0) -> str:
    """Return the path of a small line without axes; empty where there are fewer than two points."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    parts = []
    for number, value in enumerate(values):
        x = 2 + number / (len(values) - 1) * (width - 4)
        parts.append(f"{x:.1f} {3 + (high - value) / span * (height - 6):.1f}")
    return "M" + "L".join(parts)
