"""What a request costs a version, answered as the inference server has it answered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orrery.pipeline.compiled import Compiled, Unproven

if TYPE_CHECKING:
    from orrery.pipeline.predictor import Predictor


class Timing:
    """Times a version: by its compiled form where that was proven, else by its own Python.

    Parameters
    ----------
    predictor
        The version.
    artifact
        Its folder.
    """

    def __init__(self, predictor: Predictor, artifact: str) -> None:
        self._predictor, self._compiled = predictor, _compiled(artifact)

    def ask(self, columns: Mapping[str, Sequence[Any]], count: int) -> tuple[float, bool]:
        """Answer a request.

        Parameters
        ----------
        columns
            Plain values as JSON brings them, by column; `count` of each.

        Returns
        -------
        float
            Seconds of processor time.
        bool
            Whether its compiled form answered; else it was left to the version's own Python.

        Raises
        ------
        RowRefused, ProjectFailed
            As :meth:`orrery.pipeline.predictor.Predictor.predict`.
        """
        began = time.process_time()
        compiled = self._of_graph(columns, count)
        if not compiled:
            self._predictor.predict_rows(self._predictor.columns.of_values(columns, count))
        return time.process_time() - began, compiled

    def _of_graph(self, columns: Mapping[str, Sequence[Any]], count: int) -> bool:
        if self._compiled is None:
            return False
        try:
            self._compiled.predict(columns, count)
        except Unproven:
            return False
        return True


def _compiled(artifact: str) -> Compiled | None:
    """The compiled form, tried out as where it is served; None where it would not be used there either."""
    try:
        compiled = Compiled.load(artifact)
        if compiled is None or not compiled.whole:
            return None
        compiled.try_out()
    except Exception:  # whatever is wrong with it: there it is the same
        return None
    return compiled
