"""What rows of a dataset promise to be: inferred from reference rows, edited by people, checked on every batch.

Two kinds of rules. A *row* rule sets single rows aside: type, missing, range, categories, uniqueness, order of two
columns. A *batch* rule sets a batch aside as a whole, because no single row shows what is wrong: too much is missing,
or a value that always occurs does not occur at all (a feed that reports every flight as on time).
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from orrery.data.check import Checked, broken_columns, check
from orrery.data.infer import infer
from orrery.data.rules import Column, Rules
from orrery.errors import NotUnderstood
from orrery.types import digest

__all__ = ["Checked", "Column", "Contract"]


class Contract(Rules, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    r"""The rules of one dataset; see :class:`orrery.data.rules.Rules` for what they are.

    Examples
    --------
    >>> contract = Contract.from_toml('[columns.age]\ntype = "integer"\nmin = 0\nmax = 120')
    >>> contract.check(pl.DataFrame({"age": [40, 400]})).reasons
    {'age is above 120': 1}
    """

    @classmethod
    def infer(cls, frame: pl.DataFrame) -> Contract:
        """Infer a contract from reference rows (see :func:`orrery.data.infer.infer`)."""
        return cls(**infer(frame))

    def completed(self, frame: pl.DataFrame) -> Contract:
        """Return the contract with rules for the columns that it does not name, inferred from reference rows."""
        rest = frame.drop(name for name in self.columns if name in frame.columns)
        if not rest.width:
            return self
        found = Contract.infer(rest)
        made = msgspec.structs.replace(
            self,
            columns={**self.columns, **found.columns},
            ordered=[*self.ordered, *found.ordered],
            present={**found.present, **self.present},
        )
        made.verify()
        return made

    def check(self, frame: pl.DataFrame) -> Checked:
        """Part the rows that keep the contract from those that break it."""
        return check(self, frame)

    def broken_columns(self, frame: pl.DataFrame) -> list[list[str]]:
        """Return, per row, the columns that break a row rule; for single requests, so without the batch rules."""
        return broken_columns(self, frame)

    @property
    def digest(self) -> str:
        """Stands for the content."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as the timeline and the inference server have it."""
        found = msgspec.to_builtins(self)
        assert isinstance(found, dict)
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Contract:
        """Read what :meth:`to_dict` gave.

        Raises
        ------
        NotUnderstood
            If a key is not known (the nearest known one is named) or a value is of another type.
        """
        _refuse_unknown(value)
        try:
            contract = msgspec.convert(_marked(value), cls, strict=False)
        except msgspec.ValidationError as error:
            raise NotUnderstood(f"This contract cannot be read: {error}.") from None
        contract.verify()
        return contract

    def to_json(self) -> str:
        """Return the contract as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read JSON; raises as :meth:`from_dict`."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise NotUnderstood(f"This contract is not JSON: {error}.") from None

    def to_toml(self, name: str = "") -> str:
        """Return the contract as people edit it."""
        lines = [f"# What rows of {name or 'this dataset'} promise to be. Change it; rows that break it are set aside."]
        value = self.to_dict()
        if self.retention:
            lines += ["# rows are removed so long after they were added", f"retention = {json.dumps(self.retention)}"]
        for key in ("ordered",):
            if key in value:
                lines += ["# of each pair, the first is at most the second", f"{key} = {json.dumps(value[key])}"]
        for section in ("columns", "present"):
            for column, entries in value.get(section, {}).items():
                lines += ["", f"[{section}.{_key(column)}]"]
                lines += [f"{_key(key)} = {_value(entry)}" for key, entry in entries.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Contract:
        """Read TOML; raises as :meth:`from_dict`."""
        try:
            return cls.from_dict(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise NotUnderstood(f"This contract is not TOML: {error}.") from None


def _refuse_unknown(value: Mapping[str, Any]) -> None:
    _refuse(value, Contract.__struct_fields__, "The contract")
    columns = value.get("columns", {})
    if not isinstance(columns, Mapping):
        raise NotUnderstood("In a contract, columns is a table of columns.")
    for name, column in columns.items():
        if isinstance(column, Mapping):
            _refuse(column, Column.__struct_fields__, f"Column {name!r} of the contract")


def _marked(value: Mapping[str, Any]) -> dict[str, Any]:
    """Say in full what a mark without more means: a column that is personal, or the subject, is pseudonymised."""
    columns = {}
    for name, column in value.get("columns", {}).items():
        if isinstance(column, Mapping) and (column.get("personal") is True or column.get("subject")):
            given = column.get("personal")
            column = {**column, "personal": "pseudonymised" if given in (None, True) else given}
        elif isinstance(column, Mapping) and column.get("personal") is False:
            column = {key: entry for key, entry in column.items() if key != "personal"}
        columns[name] = column
    return {**value, "columns": columns} if columns else dict(value)


def _refuse(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            raise NotUnderstood(f"{what} has the unknown key {key!r}.", todo=hint)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
