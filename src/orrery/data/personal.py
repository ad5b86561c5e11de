"""Personal columns leave the clear before rows are written: as pseudonyms, encrypted, or not at all if they are erased.

What the contract of a dataset marks is done to its rows, to those that are set aside, and to what stands for them in
labels; the inference server does the same to requests (:mod:`orrery.data.pseudonyms`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import polars as pl

from orrery.data.pseudonyms import Pseudonyms, privacy_key
from orrery.data.rules import Rules
from orrery.data.sealed import FILE, HIDDEN, Sealed
from orrery.errors import NotUnderstood
from orrery.settings import Settings

ERASED = "belongs to a subject that was erased"


class Privacy:
    """What the processes of one orrery do with personal values.

    Parameters
    ----------
    settings : say where the keys are; the key is read, and made, only when a value needs it.
    graves : returns what says of subjects that they were erased (:meth:`Pseudonyms.grave`).
    told : told the name of a dataset before what is encrypted in it is opened.
    """

    def __init__(
        self,
        settings: Settings,
        graves: Callable[[], Collection[str]] = tuple,
        told: Callable[[str], None] = lambda dataset: None,
    ) -> None:
        self._settings, self._graves, self._told = settings, graves, told
        self._made: Pseudonyms | None = None

    @property
    def pseudonyms(self) -> Pseudonyms:
        """What makes pseudonyms."""
        if self._made is None:
            self._made = Pseudonyms(privacy_key(self._settings))
        return self._made

    @property
    def sealed(self) -> Sealed:
        """What encrypts."""
        return Sealed(self._settings.home / FILE, self.pseudonyms.wrapping)

    def named(self, rules: Rules, frame: pl.DataFrame) -> pl.DataFrame:
        """Return rows with pseudonyms in the columns that are marked so.

        Raises
        ------
        NotUnderstood
            If a column has a name that is kept for what is encrypted.
        """
        taken = next((name for name in frame.columns if name.startswith(HIDDEN)), None)
        if taken is not None:
            raise NotUnderstood(f"A column cannot be called {taken}.", todo="Rename it.")
        marked = [name for name, mark in rules.personal.items() if mark == "pseudonymised" and name in frame.columns]
        return frame.with_columns([self.pseudonymised(frame[name]) for name in marked]) if marked else frame

    def without_erased(self, rules: Rules, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Return the rows without those of subjects that were erased, and how many those were."""
        if rules.subject not in frame.columns or not self._graves():
            return frame, 0
        kept = frame.filter(~self.are_erased(frame[rules.subject]))
        return kept, frame.height - kept.height

    def are_erased(self, subjects: pl.Series) -> pl.Series:
        """Say of each subject whether it was erased."""
        graves = set(self._graves())
        names = self.pseudonyms
        known = subjects.unique().drop_nulls().to_list() if graves else []
        erased = [value for value in known if names.grave(names.of(value) or "") in graves]
        return subjects.is_in(pl.Series(erased, dtype=subjects.dtype).implode()).fill_null(False)

    def shut(self, rules: Rules, frame: pl.DataFrame, dataset: str) -> pl.DataFrame:
        """Return rows with what is to be encrypted in hidden columns; their subjects are pseudonyms already."""
        marked = [name for name, mark in rules.personal.items() if mark == "encrypted" and name in frame.columns]
        if not marked:
            return frame
        owners, box = self._owners(rules, frame, dataset), self.sealed
        hidden = [pl.Series(HIDDEN + name, box.seal(owners, frame[name].to_list()), dtype=pl.String) for name in marked]
        return frame.drop(marked).with_columns(hidden)

    def opened(self, rules: Rules, frame: pl.DataFrame, dataset: str) -> pl.DataFrame:
        """Return rows as they were read from the table with what is encrypted in the clear."""
        hidden = [name for name in frame.columns if name.startswith(HIDDEN)]
        if not hidden:
            return frame
        self._told(dataset)
        owners = self._owners(rules, frame, dataset)
        clear = {name.removeprefix(HIDDEN): self.sealed.opened(owners, frame[name].to_list()) for name in hidden}
        texts = [pl.Series(name, [_text(value) for value in values], dtype=pl.String) for name, values in clear.items()]
        return frame.drop(hidden).with_columns(texts)

    def pseudonymised(self, values: pl.Series) -> pl.Series:
        """Return the pseudonym of each value."""
        of = self.pseudonyms.of
        known: Mapping[Any, str | None] = {value: of(value) for value in values.unique().to_list()}
        return pl.Series(values.name, [known[value] for value in values.to_list()], dtype=pl.String)

    def _owners(self, rules: Rules, frame: pl.DataFrame, dataset: str) -> list[str]:
        """Return whose key each row is encrypted with: the dataset's where it is nobody's."""
        whole = f"dataset/{dataset}"
        if rules.subject not in frame.columns:
            return [whole] * frame.height
        return [name or whole for name in self.pseudonymised(frame[rules.subject]).to_list()]


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
