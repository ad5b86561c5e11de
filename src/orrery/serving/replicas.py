"""Several processes of one inference server: the kernel shares its port among them, and each tells of all.

Each replica has its own models, routes, limits, lock and segments of the journal, and follows the assignment by itself.
What they share is the folder ``serving`` in the home: there each leaves its counters, so that whoever is asked for
``/metrics`` answers for all, with the label ``replica``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from orrery.serving.metrics import Metrics

EVERY = 1.0
"""Seconds after which a replica leaves its counters anew."""


class Replica:
    """One of them.

    Parameters
    ----------
    folder : what the replicas share.
    number, count : which one it is, from 1 on, and of how many; 0 for a server that is alone.
    metrics : its counters.
    """

    def __init__(self, folder: Path, number: int, count: int, metrics: Metrics) -> None:
        self._folder, self._number, self._count, self._metrics = folder, number, count, metrics

    def metrics(self) -> str:
        """Return the counters of all replicas in the text format."""
        if not self._number:
            return self._metrics.text()
        own = self._publish()
        sheets = {}
        for number in range(1, self._count + 1):
            with contextlib.suppress(OSError):  # it has not begun, or has ended
                sheets[number] = own if number == self._number else self._sheet(number).read_text()
        return together(sheets)

    async def run(self) -> None:
        """Leave the counters for the others until cancelled."""
        while self._number:
            self._publish()
            await asyncio.sleep(EVERY)

    def leave(self) -> None:
        """Tell of this replica no more."""
        if self._number:
            self._sheet(self._number).unlink(missing_ok=True)

    def _sheet(self, number: int) -> Path:
        return self._folder / f"metrics-{number}.txt"

    def _publish(self) -> str:
        text, path = self._metrics.text(), self._sheet(self._number)
        fresh = path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk: the others tell of this one what they knew
            fresh.write_text(text)
            os.replace(fresh, path)
        return text


def together(sheets: Mapping[int, str]) -> str:
    r"""Return the metrics of several replicas as one page, where each line says whose it is.

    Examples
    --------
    >>> one = '# HELP n What.\n# TYPE n counter\nn{a="b"} 1\n# HELP k What.\n# TYPE k counter\nk 2\n'
    >>> print(together({1: one, 2: one}), end="")
    # HELP n What.
    # TYPE n counter
    n{replica="1",a="b"} 1
    n{replica="2",a="b"} 1
    # HELP k What.
    # TYPE k counter
    k{replica="1"} 2
    k{replica="2"} 2
    """
    metrics: dict[str, list[str]] = {}
    for number, text in sheets.items():
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                lines = metrics.setdefault(line, [])
            elif not line.startswith("#"):
                name, _, rest = line.partition("{")
                if not rest:
                    name, _, value = line.rpartition(" ")
                    rest = f"}} {value}"
                else:
                    rest = f",{rest}"
                lines.append(f'{name}{{replica="{number}"{rest}')
            elif not lines:
                lines.append(line)
    return "".join(f"{help}\n" + "".join(f"{line}\n" for line in lines) for help, lines in metrics.items())
