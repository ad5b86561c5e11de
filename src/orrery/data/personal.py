"""Personal columns leave the clear before rows are written: as pseudonyms, encrypted, or not at all if they are erased.

What the contract of a dataset marks is done to its rows, to those that are set aside, and to what stands for them in
labels; the inference server does the same to requests (:mod:`orrery.data.pseudonyms`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import polars as pl

from orrery.data.pseudonyms import PREFIX, Pseudonyms, privacy_key, wrapping_keys, written
from orrery.data.rules import Rules
from orrery.data.sealed import FILE, HIDDEN, Sealed
from orrery.data.subject import Subject, Whose, subject_of
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
        first, *older = wrapping_keys(self._settings, self.pseudonyms)
        return Sealed(self._settings.home / FILE, first, older)

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

    def subject(self, value: str, columns: Iterable[str] = ()) -> Subject:
        """Return the subject that a name, a number or a pseudonym stands for; ``columns`` may hold it in the clear."""
        return subject_of(self.pseudonyms, value, columns)

    def without_erased(self, rules: Rules, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Return the rows without those of subjects that were erased, and how many those were.

        Other columns with pseudonyms are emptied where they name such a subject.
        """
        if not self._graves():
            return frame, 0
        kept = frame.filter(~self.are_erased(frame[rules.subject])) if rules.subject in frame.columns else frame
        others = [name for name, mark in rules.personal.items() if mark == "pseudonymised" and name != rules.subject]
        return self.unnamed(kept, others), frame.height - kept.height

    def unnamed(self, frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
        """Return rows with the cells of some columns emptied that hold the pseudonym of who was erased."""
        emptied = []
        for name in columns:
            if name in frame.columns and frame.schema[name] == pl.String:
                named = frame[name].str.starts_with(PREFIX).fill_null(False)
                if named.any() and (gone := named & self.are_erased(frame[name])).any():
                    emptied.append(pl.when(~gone).then(frame[name]).alias(name))
        return frame.with_columns(emptied) if emptied else frame

    def are_erased(self, values: pl.Series, model: str = "") -> pl.Series:
        """Say of each subject, or of each entity of a model that belonged to one, whether it was erased."""
        graves = set(self._graves())
        known = values.unique().drop_nulls().to_list() if graves else []
        erased = [value for value in known if self.grave(value, model) in graves]
        return values.is_in(pl.Series(erased, dtype=values.dtype).implode()).fill_null(False)

    def grave(self, value: Any, model: str = "") -> str:
        """Return what says of a subject, or of an entity of a model, that it was erased."""
        names = self.pseudonyms
        return names.grave(names.of(f"{model}/{written(value)}" if model else value) or "")

    def without(self, whose: Whose, frame: pl.DataFrame, column: str) -> pl.DataFrame:
        """Return predictions, labels or values without those of who was erased.

        Parameters
        ----------
        whose : what of the model's rows says whose they are.
        frame, column : the rows, and which of their columns is the entity.
        """
        if not self._graves() or column not in frame.columns:
            return frame
        gone = self.are_erased(frame[column], whose.model)
        for name in [*([column] if whose.entity_is_subject else []), *whose.columns]:
            if name in frame.columns:
                gone = gone | self.are_erased(frame[name])
        kept = frame.filter(~gone)
        return self.unnamed(kept, [name for name in kept.columns if not name.startswith("_") and name != "at"])

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
