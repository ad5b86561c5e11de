"""The anomaly scores of versions: each is read once, and its artifact is looked for through the model's state."""

from __future__ import annotations

import logging
from pathlib import Path

from orrery.errors import Damaged, NotFound
from orrery.pipeline.artifact import read_score
from orrery.stats.anomaly import AnomalyScore
from orrery.timeline.states import States

_log = logging.getLogger("orrery.data")


class AnomalyScores:
    """Finds what tells how strange a version's rows are; to be called with a model's name and a version's number.

    Parameters
    ----------
    states : say where the artifacts are.
    home : of the orrery, which holds them.
    """

    def __init__(self, states: States, home: Path) -> None:
        self._states, self._home = states, home
        self._known: dict[tuple[str, int], AnomalyScore | None] = {}

    def __call__(self, name: str, number: int) -> AnomalyScore | None:
        """Return a version's score; None where it learned none, or is gone."""
        if (name, number) in self._known:
            return self._known[name, number]
        try:
            version = self._states.model(name).versions.get(number)
        except NotFound:
            return None
        if version is None or version.deleted or not version.facts.get("artifact"):
            return None
        score = self._known[name, number] = _read(self._home / str(version.facts["artifact"]))
        return score


def _read(artifact: Path) -> AnomalyScore | None:
    try:
        return read_score(artifact)
    except Damaged as error:  # the log must go on
        _log.error("Rows are logged without an anomaly score: %s: %s", artifact.name, error)
        return None
