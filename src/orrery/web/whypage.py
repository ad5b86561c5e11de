"""The page that says why a version is where it is: the chain of evidence, with pictures of what it was decided by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orrery.app import Orrery
from orrery.timeline import why
from orrery.web.pictures import LEFT, RIGHT, Chart, Line, Scale, Tick, path, scale_of
from orrery.web.render import Page

LEAST = 0.01
"""Evidence below this is drawn as this: what speaks against an alarm need not be told apart."""
ROW = 22.0


@dataclass(frozen=True)
class Growth:
    """Evidence over time, on a logarithmic axis."""

    chart: Chart
    scale: Scale
    course: why.Course


@dataclass(frozen=True)
class Row:
    """One estimate of a :class:`Forest`: the places of its interval and of the estimate itself."""

    estimate: why.Estimate
    y: float
    low: float
    high: float
    gain: float


@dataclass(frozen=True)
class Forest:
    """Estimates with their intervals, one below the other, around no difference."""

    rows: list[Row]
    zero: float
    ticks: list[Tick]
    height: float


@dataclass(frozen=True, kw_only=True)
class WhyPage(Page):
    """Why one version is where it is."""

    template = "why.html"
    refreshes = False

    model: str
    number: int
    outcome: str
    links: list[why.Link]
    growths: list[Growth]
    forest: Forest | None


def why_page(orrery: Orrery, name: str, number: int) -> WhyPage:
    """Return the page of one version's evidence."""
    chain = why.chain(orrery.timeline, orrery.model(name), number)
    return WhyPage(
        title=f"Why {name} v{number}",
        model=name,
        number=number,
        outcome=chain.outcome,
        links=chain.links,
        growths=[growth(course) for course in chain.courses if len(course.points) > 1],
        forest=forest(chain.estimates),
    )


def growth(course: why.Course) -> Growth:
    """Draw evidence as it grew."""
    points = [(at, math.log10(max(value, LEAST))) for at, value in course.points if math.isfinite(value)]
    limit = None if not course.limit else math.log10(course.limit)
    values = [value for _, value in points]
    top, bottom = math.ceil(max([*values, limit or 0.0, 1.0])), math.floor(min([*values, 0.0]))
    scale = scale_of([at for at, _ in course.points])
    height = 150.0

    def y(value: float) -> float:
        return round(height - 8.0 - (value - bottom) / (top - bottom) * (height - 22.0), 1)

    lines = [Line(course.name, "line", path(scale, points, y, "line"))]
    if limit is not None:
        lines.append(Line(f"at {course.limit:,.10g} it counts", "step", f"M{LEFT} {y(limit)}H{RIGHT}"))
    ticks = tuple(Tick(y(power), f"{10.0**power:,.10g}") for power in range(bottom, top + 1))
    words = f"{course.name}; 1 is no evidence, each line is ten times as much."
    return Growth(Chart(course.name, words, height, tuple(lines), ticks), scale, course)


def forest(estimates: list[why.Estimate]) -> Forest | None:
    """Draw estimates with their intervals; None where there are none."""
    if not estimates:
        return None
    reach = max(max(abs(one.low), abs(one.high)) for one in estimates) * 1.05 or 1.0
    middle, half = (LEFT + 120.0 + RIGHT) / 2, (RIGHT - LEFT - 120.0) / 2

    def x(value: float) -> float:
        return round(middle + value / reach * half, 1)

    rows = [Row(one, 16.0 + ROW * place, x(one.low), x(one.high), x(one.gain)) for place, one in enumerate(estimates)]
    size = 10.0 ** math.floor(math.log10(reach))
    every = 2 if reach / size > 4 else 1
    steps = [step for step in range(-9, 10) if step and step % every == 0 and abs(step * size) < reach]
    ticks = [Tick(x(step * size), f"{step * size:+.3g}") for step in steps]
    return Forest(rows, x(0.0), ticks, 16.0 + ROW * len(rows) + 14.0)
