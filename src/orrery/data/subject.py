"""Where a lake holds a subject, and how it is taken out: the tables, by what each of their columns says.

Rows are a subject's where the subject's column of their contract says so, or the entity of a prediction, a label or a
score; and where only an entity stands (a visit, an order) that is of this subject alone. In other columns a subject is
mentioned: the row stays, and the cell is emptied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from orrery.data.contract import Contract
from orrery.data.labels import ASIDE, FOLDER, VALUES
from orrery.data.lake import ROW, Lake
from orrery.data.log import FOLDER as LOG
from orrery.data.pseudonyms import Pseudonyms, written
from orrery.data.purge import Condition, blank, purge, remove
from orrery.data.table import Table
from orrery.data.traces import STATED, Needles
from orrery.errors import NotUnderstood
from orrery.timeline.state import DataState, ModelState
from orrery.timeline.states import States
from orrery.timeline.store import Timeline

DATASETS, QUARANTINE = "datasets", "quarantine"
WHOSE = {LOG: "_entity", FOLDER: "entity", VALUES: "entity", ASIDE: "entity"}
"""Folder of tables -> the column that says whose a row is."""


@dataclass(frozen=True)
class Subject:
    """A person, or whatever else data are of.

    Parameters
    ----------
    pseudonym : that stands for it.
    clear : who it is; empty where only the pseudonym was given.
    grave : says of it that it was erased.
    columns : that hold subjects in the clear.
    """

    pseudonym: str
    clear: str = field(repr=False)
    grave: str = ""
    columns: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """All that may stand for it in a cell."""
        return [self.pseudonym, *([self.clear] if self.clear else [])]

    @property
    def needles(self) -> Needles:
        """What files are searched for."""
        return Needles(self.pseudonym, self.clear, self.columns)


def subject_of(pseudonyms: Pseudonyms, value: str, columns: Iterable[str] = ()) -> Subject:
    """Return the subject of a name, a number, or a pseudonym."""
    pseudonym = pseudonyms.of(value) or ""
    clear = "" if pseudonym == value else written(value)
    return Subject(pseudonym, clear, pseudonyms.grave(pseudonym), frozenset(columns))


@dataclass(frozen=True)
class Held:
    """What one table holds of a subject.

    Parameters
    ----------
    folder, name : the table.
    rows, mentions : rows of the subject, and cells of other rows that name it.
    first, last : of a dataset, the first version with a row of it, and the newest version.
    """

    folder: str
    name: str
    rows: int
    mentions: int = 0
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Whose:
    """What says of a model's predictions and labels whose they are.

    Parameters
    ----------
    model : its name.
    entity_is_subject : whether its entity is the subject of a dataset that it learns from.
    columns : subjects of those datasets, which requests bring beside it.
    """

    model: str
    entity_is_subject: bool = False
    columns: tuple[str, ...] = ()


def whose(model: ModelState, data: DataState) -> Whose:
    """Return what says of a model's rows whose they are, as the project file in force has it."""
    policy = model.policy()
    if policy is None:
        return Whose(model.name)
    contracts = contracts_of(data)
    columns = {contracts[one].subject for one in policy.data.values() if one in contracts} - {""}
    others = tuple(sorted(columns - {policy.model.entity}))
    return Whose(model.name, policy.model.entity in columns, others)


def contracts_of(data: DataState) -> dict[str, Contract]:
    """Return the contracts in force; one that cannot be read says of no row whose it is."""
    found = {}
    for name, one in data.datasets.items():
        with contextlib.suppress(NotUnderstood):
            if one.contract:
                found[name] = Contract.from_dict(one.contract)
    return found


@dataclass(frozen=True)
class Keyed:
    """How a model names what it predicts for.

    Parameters
    ----------
    entity : its column; empty where it has none.
    datasets : that it learns from.
    """

    entity: str
    datasets: tuple[str, ...]


class Searched:
    """The tables of a lake, as far as they can be searched for a subject.

    Parameters
    ----------
    lake : the tables.
    contracts : of the datasets.
    models : by name.
    made : dataset of predictions -> the model that made them.
    """

    def __init__(
        self,
        lake: Lake,
        contracts: Mapping[str, Contract],
        models: Mapping[str, Keyed],
        made: Mapping[str, str],
    ) -> None:
        self.lake, self.contracts, self.models, self.made = lake, contracts, models, made
        self.subjects = {one.subject for one in contracts.values() if one.subject}
        self.clear = {one.subject for one in contracts.values() if one.personal.get(one.subject) == "plain"}

    @classmethod
    def of(cls, lake: Lake, timeline: Timeline, states: States) -> Searched:
        """Return the tables as the timeline knows them."""
        models = {}
        for name in timeline.models():
            policy = states.model(name).policy()
            if policy is not None:
                models[name] = Keyed(policy.model.entity, tuple(policy.data.values()))
        made = {event.data["out"]: event.model for event in timeline.read(kinds=("scored",))}
        return cls(lake, contracts_of(states.data()), models, made)

    def blind(self) -> list[str]:
        """Return the datasets that say of no row whose it is, so that they cannot be searched."""
        return [name for name in self.lake.names() if not self._subject(name) and not self._entity(name)]

    def held(self, subject: Subject) -> list[Held]:
        """Return the tables that hold a subject, and how much of it."""
        keys = self.keys(subject)
        found = []
        for folder, name in self.tables():
            table = self.lake.table(folder, name)
            schema, wanted = table.schema(), self._wanted(folder, name, subject, keys)
            mine = Condition(schema, wanted)
            rows = table.scan().filter(mine.rows)
            places = rows.select(ROW).collect().to_series() if ROW in schema else None
            count = len(places) if places is not None else int(rows.select(pl.len()).collect().item())
            mentions = self._mentions(table, schema, wanted, subject, mine)
            if not (count or mentions):
                continue
            if folder != DATASETS:
                found.append(Held(folder, name, count, mentions))
                continue
            versions = self.lake.versions(name)
            least = int(places.min() or 0) if places is not None and count else 0  # type: ignore[arg-type]
            first = next((one.version for one in versions if one.end > least), 0) if count else 1
            found.append(Held(folder, name, count, mentions, first, versions[-1].version))
        return found

    def erase(self, subject: Subject) -> list[Held]:
        """Take a subject out of every table; return what was taken.

        What was derived goes before what it is found by, so that a second call finishes what a first one could not.
        """
        keys, found = self.keys(subject), []
        for folder, name in sorted(self.tables(), key=_derived_first):
            table = self.lake.table(folder, name)
            wanted = self._wanted(folder, name, subject, keys)
            rows = 0
            if folder == LOG:
                rows += remove(table, {"_id": self._requests(table, wanted)})
            rows += remove(table, wanted)
            mentions = blank(table, self._others(table.schema(), wanted), [subject.pseudonym])
            if rows or mentions:
                found.append(Held(folder, name, rows, mentions))
            purge(table, [one[:STATED] for one in subject.names])
        return found

    def tables(self) -> Iterator[tuple[str, str]]:
        """Yield folder and name of every table."""
        for folder in self.lake.folders():
            for name in self.lake.names(folder=folder):
                yield folder, name

    def keys(self, subject: Subject) -> dict[str, list[str]]:
        """Return, by model, entities that belong to the subject alone: what is kept of them is of the subject."""
        found: dict[str, list[str]] = {}
        for model, keyed in self.models.items():
            mine: set[str] = set()
            shared: set[str] = set()
            for column in {self._subject(name) for name in keyed.datasets} - {"", keyed.entity}:
                places = [(self.lake.table(DATASETS, name), keyed.entity) for name in keyed.datasets]
                for table, entity in [*places, (self.lake.table(LOG, model), WHOSE[LOG])]:
                    of, others = _entities(table, entity, column, self._names(column, subject))
                    mine |= of
                    shared |= others
            found[model] = sorted(mine - shared - {""})
        return found

    def _subject(self, dataset: str) -> str:
        contract = self.contracts.get(dataset)
        return contract.subject if contract is not None else ""

    def _entity(self, dataset: str) -> str:
        """Return the entity of the model whose predictions a dataset holds; empty where it holds none."""
        keyed = self.models.get(self.made.get(dataset, ""))
        return keyed.entity if keyed is not None else ""

    def _names(self, column: str, subject: Subject) -> list[str]:
        """Return what stands for a subject in a column; in the clear it is only where a contract leaves it so."""
        return subject.names if column in self.clear else [subject.pseudonym]

    def _wanted(
        self, folder: str, name: str, subject: Subject, keys: Mapping[str, Sequence[str]]
    ) -> dict[str, list[str]]:
        """Return the columns that say whose a row is, with the values that make it the subject's."""
        if folder in (DATASETS, QUARANTINE):
            if column := self._subject(name):
                return {column: self._names(column, subject)}
            if entity := self._entity(name):
                return {entity: [*self._names(entity, subject), *keys.get(self.made[name], ())]}
            return {}
        column = next((one for kind, one in WHOSE.items() if folder == kind or folder.startswith(f"{kind}-")), "")
        keyed = self.models.get(name)
        if not column or keyed is None:
            return {}
        wanted = {column: [*self._names(keyed.entity, subject), *keys.get(name, ())]}
        if folder == LOG:  # a request's own columns stand beside it
            mine = {self._subject(one) for one in keyed.datasets} - {""}
            wanted.update({one: self._names(one, subject) for one in mine})
        return wanted

    def _others(self, schema: Mapping[str, pl.DataType], wanted: Mapping[str, Sequence[str]]) -> list[str]:
        return [name for name, kind in schema.items() if kind == pl.String and name not in wanted and name != "_id"]

    def _mentions(
        self,
        table: Table,
        schema: Mapping[str, pl.DataType],
        wanted: Mapping[str, Sequence[str]],
        subject: Subject,
        mine: Condition,
    ) -> int:
        names = self._others(schema, wanted)
        if not names:
            return 0
        cells = [(pl.col(name) == subject.pseudonym).fill_null(False).sum() for name in names]
        counted = table.scan().filter(~mine.rows).select(cells).collect()
        return int(counted.sum_horizontal().item()) if counted.height else 0

    def _requests(self, table: Table, wanted: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the ids of the requests whose rows are the subject's: those beside the champion have no inputs."""
        condition = Condition(table.schema(), wanted)
        if not condition:
            return []
        return table.scan().filter(condition.rows).select("_id").unique().collect().to_series().to_list()


def _entities(table: Table, entity: str, column: str, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the entities of a table's rows that are a subject's, and those of them that are somebody else's, too."""
    schema = table.schema()
    if entity not in schema or column not in schema:
        return set(), set()
    condition = Condition(schema, {column: names})
    mine = condition.rows.alias("mine")
    rows = table.scan().select(pl.col(entity).cast(pl.String).alias("entity"), mine, pl.col(column).alias("whose"))
    of = rows.filter("mine").select("entity").unique().collect()["entity"].drop_nulls()
    rest = rows.filter(~pl.col("mine") & pl.col("whose").is_not_null() & pl.col("entity").is_in(of.implode()))
    return set(of), set(rest.select("entity").unique().collect()["entity"])


def _derived_first(table: tuple[str, str]) -> tuple[int, str, str]:
    folder, name = table
    order = {DATASETS: 3, QUARANTINE: 2, LOG: 1}
    return order.get(folder, 0), folder, name
