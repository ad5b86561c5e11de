"""The one source of time: a clock is handed to whoever needs one, so that a replay can run on its own time."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path

from orrery.errors import NotAllowed
from orrery.settings import Settings
from orrery.types import format_instant, parse_instant


class Clock(ABC):
    """Tells the time."""

    @abstractmethod
    def now(self) -> datetime:
        """Return this instant, aware, in UTC."""


class SystemClock(Clock):
    """The time of the machine."""

    def now(self) -> datetime:
        """Return this instant, aware, in UTC."""
        return datetime.now(UTC)


class ReplayClock(Clock):
    """The time that a file says: every process of a replay reads the same.

    Parameters
    ----------
    path : file that holds one ISO 8601 instant.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def now(self) -> datetime:
        """Return the instant in the file."""
        return parse_instant(self.path.read_text())

    def set(self, instant: datetime) -> None:
        """Move the clock on.

        Raises
        ------
        NotAllowed
            If the instant lies before the present one.
        """
        if self.path.exists() and instant < self.now():
            raise NotAllowed(f"The replay stands at {self.path.read_text()}; a clock does not go back.")
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_text(format_instant(instant))
        os.replace(fresh, self.path)


def clock_of(settings: Settings) -> Clock:
    """Return the clock that the settings ask for."""
    return ReplayClock(settings.home / "clock") if settings.replay else SystemClock()
