"""Reading from Python: datasets, models and timelines of the orrery in the settings."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orrery.access.homekey import home_key
from orrery.app import Orrery
from orrery.errors import NotFound, OrreryError
from orrery.timeline.event import Event

if TYPE_CHECKING:
    import polars as pl

    from orrery.data.frame import Frame


class Served:
    """A model in an environment, asked through the inference server.

    Parameters
    ----------
    name, environment, version : which, where, and which version answered when this was made.
    address : of the inference server.
    key : of the home folder, where the server wants to be shown something.
    """

    def __init__(self, name: str, environment: str, version: int, address: str, key: str = "") -> None:
        self.name, self.environment, self.version, self.address = name, environment, version, address
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def predict(self, rows: Any) -> pl.DataFrame:
        """Return the answer to each row, as the server says it.

        Parameters
        ----------
        rows : a Polars or pandas frame, or a list of ``{"column": value}``.

        Raises
        ------
        OrreryError
            If the server does not answer, or refuses the rows.
        """
        import httpx
        import polars as pl

        if not isinstance(rows, list):
            frame = rows if isinstance(rows, pl.DataFrame) else pl.from_pandas(rows)
            rows = json.loads(frame.write_json())
        try:
            answer = httpx.post(
                f"{self.address}/env/{self.environment}/models/{self.name}/predict",
                json=rows,
                headers=self._headers,
                timeout=60,
            )
        except httpx.HTTPError as error:
            raise OrreryError(f"The inference server does not answer: {error}.", todo="Start it: orrery up.") from error
        if answer.status_code != 200:
            raise OrreryError(f"{self.name} refused: {answer.text}")
        return pl.DataFrame(answer.json()["predictions"])

    def __repr__(self) -> str:
        return f"<{self.name} v{self.version} in {self.environment}>"


class History:
    """The events of a model, oldest first."""

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name, self.events = name, events

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return "\n".join(" ".join(cells) for cells in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in self._rows()
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for event in self.events:
            version = f"v{event.version}" if event.version else "-"
            yield (f"{event.occurred_at:%Y-%m-%d %H:%M}", version, event.environment or "-", event.kind, event.why)


def dataset(name: str, version: int | None, home: str | None) -> Frame:
    """Return a version of a dataset."""
    orrery = Orrery.open(home)
    found = orrery.lake.read(name, version)
    orrery.note_read(name, "rows")
    return found


def model(name: str, environment: str, home: str | None) -> Served:
    """Return a model as it is served in an environment."""
    orrery = Orrery.open(home)
    champion = orrery.model(name).lane(environment).champion
    if champion is None:
        raise NotFound(f"No version of {name} answers in {environment}.")
    address = orrery.settings.home / "address.json"
    url = json.loads(address.read_text())["inference"] if address.exists() else orrery.settings.serving_url
    key = home_key(orrery.settings.home) if orrery.settings.access == "required" else ""
    return Served(name, environment, champion, url, key)


def predictions(name: str, environment: str, home: str | None) -> Frame:
    """Return the prediction log of a model in an environment."""
    from orrery.data.frame import Frame
    from orrery.data.log import PredictionLog

    orrery = Orrery.open(home)
    orrery.note_read_of_log(orrery.model(name).name)
    return Frame(PredictionLog(orrery.lake, orrery.model(name).name).rows(environment, None, None))


def timeline(name: str, home: str | None) -> History:
    """Return what happened to a model."""
    orrery = Orrery.open(home)
    orrery.model(name)
    return History(name, list(orrery.timeline.read(name)))
