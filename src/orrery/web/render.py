"""Pages: one frozen dataclass each, rendered as HTML, or as JSON at the same path with ``.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from orrery.access.roles import OWNER
from orrery.web.entrance import visitor
from orrery.web.pictures import LEFT, RIGHT, WIDTH
from orrery.web.wire import answer


@dataclass(frozen=True, kw_only=True)
class Page:
    """What one page shows.

    Parameters
    ----------
    title : its heading.
    running : what is going on, in words; the page loads itself again as long as there is something.
    """

    template: ClassVar[str]
    refreshes: ClassVar[bool] = True
    """Whether it may load itself again; no page with a form does: somebody may be typing."""

    title: str
    running: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Problem(Page):
    """Something went wrong."""

    template = "problem.html"
    refreshes = False

    status: int
    what: str
    safe: str
    todo: str


def show(request: Request, page: Page, status: int = 200) -> Response:
    """Answer with a page, in the form that the path asks for."""
    if request.url.path.endswith(".json"):
        return answer(page, status)
    return HTMLResponse(html(page), status)


def html(page: Page) -> str:
    """Render a page."""
    return environment().get_template(page.template).render(page=page)


def problem_page(status: int, what: str, safe: str, todo: str) -> Response:
    """Answer with a page that says what went wrong."""
    page = Problem(title=_NAMES.get(status, "This did not work"), status=status, what=what, safe=safe, todo=todo)
    return HTMLResponse(html(page), status)


_NAMES = {
    403: "Not allowed",
    404: "Not here",
    409: "Too late",
    422: "Not understood",
}


@cache
def environment() -> jinja2.Environment:
    """Return the templates; everything that is put in is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(when=when, day=day, num=num, short=short, word=word, count=count)
    made.globals.update(visitor=visitor.get, OWNER=OWNER, may=may)
    made.globals.update(WIDTH=WIDTH, LEFT=LEFT, RIGHT=RIGHT)
    return made


def may(permission: str, project: str) -> bool:
    """Say whether who looks may do something in a project: a page shows no form that would only be refused."""
    principal = visitor.get().principal
    return principal is not None and principal.may(permission, project)


def when(instant: datetime | str | None) -> str:
    """Write an instant for people.

    Examples
    --------
    >>> when(datetime(2013, 6, 10, 5, tzinfo=UTC))
    '2013-06-10 05:00'
    """
    if instant is None:
        return "–"
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant)
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def day(instant: datetime | None) -> str:
    """Write the day of an instant."""
    return "–" if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d")


def num(value: Any) -> str:
    """Write a number with four digits that count.

    Examples
    --------
    >>> num(0.123456), num(12345.0), num(None), num(True)
    ('0.1235', '12,345', '–', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(num(one) for one in value) + "]"
    return str(value)


def short(sha: str) -> str:
    """Return the beginning of a commit's id."""
    return sha[:7]


def word(name: str) -> str:
    """Write a name of the wire as a word."""
    return name.replace("_", " ")


def count(number: int, one: str, many: str = "") -> str:
    """Write how many there are of something.

    Examples
    --------
    >>> count(1, "version"), count(3, "version")
    ('1 version', '3 versions')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
