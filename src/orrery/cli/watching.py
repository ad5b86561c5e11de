"""What ``orrery up`` shows: a live picture on a terminal, else a line when something changes."""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from orrery.cli import show
from orrery.cli.timeline import QUIET, line
from orrery.errors import OrreryError

if TYPE_CHECKING:
    from rich.live import Live

    from orrery.app import Orrery
    from orrery.timeline.event import Event
    from orrery.workers.supervisor import Process

_LINES = 12
_HEALTH = ("/api/health", "/v2/health/live")


class Screen:
    """Shows processes and what the loop does.

    Parameters
    ----------
    orrery : whose timeline is followed.
    addresses : what it is reached by, to be printed first.
    as_json : one JSON object a line instead.
    """

    def __init__(self, orrery: Orrery, addresses: Mapping[str, str], *, as_json: bool = False) -> None:
        self._orrery = orrery
        self._addresses = addresses
        self._as_json = as_json
        self._seq = orrery.timeline.head()[0]
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._states: dict[str, str] = {}
        self._ready = False
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        home = self._orrery.settings.home
        if self._as_json:
            show.as_json({"home": str(home), "addresses": dict(self._addresses)})
        else:
            print(f"orrery in {home}; Ctrl-C stops it.\n")
            show.columns(list(self._addresses.items()), indent="  ")
            print()
        sys.stdout.flush()
        if sys.stdout.isatty() and not self._as_json:
            from rich.live import Live

            self._live = Live(refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def report(self, sentence: str) -> None:
        """Tell that something was started again."""
        self._say({"report": sentence}, sentence)

    def show_processes(self, processes: list[Process]) -> None:
        """Show how things stand; called each second."""
        for one in processes:
            if self._states.get(one.name, one.state) != one.state:
                why = f", it {one.why}" if one.why and one.state != "running" else ""
                words = f"{one.name}: {one.state}{why} (log: {one.log})"
                self._say({"process": one.name, "state": one.state, "why": one.why}, words)
            self._states[one.name] = one.state
        if not self._ready and self._answers():
            self._ready = True
            self._say({"ready": True}, "Ready.")
        # The database may be busy or its disk full: what serves must not stop because it cannot be shown.
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError, OrreryError):
            for event in self._orrery.timeline.read(after=self._seq):
                self._seq = event.seq
                self._tell(event)
            if self._live is not None:
                self._live.update(self._picture(processes))

    def _tell(self, event: Event) -> None:
        if event.kind not in QUIET:
            self._say({"event": event.to_json()}, line(event, with_model=True))

    def _say(self, fact: dict[str, Any], text: str) -> None:
        self._lines.append(text)
        if self._as_json:
            show.as_json(fact)
        elif self._live is None:
            print(text)
        sys.stdout.flush()

    def _answers(self) -> bool:
        settings = self._orrery.settings
        for port, path in zip((settings.port, settings.serving_port), _HEALTH, strict=True):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status != 200:
                    return False
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
        return True

    def _picture(self, processes: list[Process]) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("process", "state", "memory", "CPU", "restarts"):
            table.add_column(name, style="dim" if name != "process" else "")
        for one in processes:
            style = "green" if one.state == "running" else "yellow"
            cells = (one.name, f"[{style}]{one.state}[/]", show.size(one.rss), f"{one.cpu:.0f} s", str(one.restarts))
            table.add_row(*cells)
        parts: list[Any] = [table, Text(self._work(), style="bold"), *(Text(text) for text in self._lines)]
        return Group(*parts)

    def _work(self) -> str:
        words = []
        for name in self._orrery.models():
            state = self._orrery.model(name)
            champion = state.champion()
            due = sorted({action.kind for action in self._orrery.due(name)})
            waits = len(state.waiting())
            parts = [f"v{champion.number} answers" if champion else "no champion yet"]
            parts += [f"{', '.join(due)} due"] if due else []
            parts += [f"{waits} reviews wait"] if waits else []
            words.append(f"{name}: {'; '.join(parts)}")
        return "\n" + ("\n".join(words) or "No model yet: `orrery init NAME` writes a project to push.") + "\n"
