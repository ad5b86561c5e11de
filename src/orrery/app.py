"""The composition root: opens one orrery and offers what people and other programs can order of it.

This is the only place where implementations are chosen. The commands below are what the command line and the web
interface call; both are thin. Every command returns the events it became.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from orrery.access.accounts import Accounts
from orrery.access.denials import Denials
from orrery.access.door import Door
from orrery.access.factors import Factors, roles_of
from orrery.access.guarded import Of, needs
from orrery.access.homekey import home_key
from orrery.access.keys import Keys
from orrery.access.patience import Patience
from orrery.access.reads import Reads
from orrery.access.roles import DATA, OWNER, Principal
from orrery.access.secrets import SecretOrders, Secrets
from orrery.access.vault import Vault
from orrery.audit.orders import AuditOrders
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.loop import decide
from orrery.notify.channels import Channels
from orrery.notify.orders import NotifyOrders
from orrery.review.orders import ReviewOrders
from orrery.rollout import moves
from orrery.settings import Settings, load
from orrery.source.orders import RemoteOrders
from orrery.source.remote import Remotes
from orrery.timeline import schema
from orrery.timeline.clock import clock_of
from orrery.timeline.event import Draft, Event
from orrery.timeline.state import Dataset, ModelState
from orrery.timeline.states import States
from orrery.timeline.store import Timeline, connect
from orrery.triggers.due import by_hand
from orrery.types import PRODUCTION, check_name, digest, parse_instant
from orrery.workers.action import Action

if TYPE_CHECKING:
    import polars as pl

    from orrery.data.contract import Contract
    from orrery.data.labels import Accepted
    from orrery.data.lake import Lake
    from orrery.data.personal import Privacy
    from orrery.data.scores import AnomalyScores
    from orrery.spec import Spec


class Orrery(ReviewOrders, AuditOrders, SecretOrders, NotifyOrders, RemoteOrders):
    """One orrery: its timeline, its data and the commands that change it, for one principal.

    Parameters
    ----------
    settings : see :mod:`orrery.settings`.
    """

    principal: Principal = OWNER
    """For whom: who opens the home folder owns it; :meth:`acting` gives the same orrery for somebody else."""

    def __init__(self, settings: Settings) -> None:
        settings.home.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.clock = clock_of(settings)
        self.timeline = Timeline(connect(settings.database), self.clock)
        schema.upgrade(self.timeline.engine)
        self.states = States(self.timeline)
        self.accounts, self.keys = Accounts(self.timeline), Keys(self.timeline)
        self.denials, self.reads = Denials(self.timeline), Reads(self.timeline)
        self.vault = Vault(settings.home)
        self.factors = Factors(self.timeline, self.vault, roles_of(settings.second_factor))
        self.channels = Channels(self.timeline, self.vault)
        self.remotes = Remotes(self.timeline, self.vault)
        self._whole = self

    @classmethod
    def open(cls, home: str | Path | None = None) -> Orrery:
        """Open the orrery in a folder, by default the user's own; it need not be running."""
        return cls(load(home))

    @cached_property
    def door(self) -> Door:
        """What knows who asks, by what they show."""
        key, passwords = home_key(self.settings.home), self.settings.passwords == "on"
        patience = Patience(self.timeline, key)
        return Door(self.accounts, self.keys, self.denials, key, patience, self.factors, passwords=passwords)

    @cached_property
    def lake(self) -> Lake:
        """The datasets and logs."""
        from orrery.data.lake import Lake

        if self._whole is not self:
            return self._whole.lake
        return Lake(self.settings.lake)

    @cached_property
    def anomaly_scores(self) -> AnomalyScores:
        """What tells how strange the rows of each version are."""
        from orrery.data.scores import AnomalyScores

        if self._whole is not self:
            return self._whole.anomaly_scores
        return AnomalyScores(self.states, self.settings.home)

    @cached_property
    def privacy(self) -> Privacy:
        """What keeps personal values from being written in the clear."""
        from orrery.data.personal import Privacy

        if self._whole is not self:
            return self._whole.privacy
        return Privacy(self.settings, lambda: self.states.data().erased, lambda name: self.note_read(name, "encrypted"))

    @cached_property
    def secrets(self) -> Secrets:
        """The secrets of projects."""
        from orrery.data.sealed import Sealed

        return Secrets(self.settings.home / "secrets", self.settings.secrets_key, Sealed)

    # --- for whom --------------------------------------------------------------------------------------------------

    def acting(self, principal: Principal) -> Orrery:
        """Return this orrery as a principal may see and change it."""
        made = copy.copy(self)
        made.principal = principal
        return made

    def allow(self, permission: str, name: str, of: Of = "project") -> None:
        """Let the principal do something in a project, with a dataset, or without a name everywhere.

        A denied attempt is written down.

        Raises
        ------
        NotFound
            If they may not even know that it is there.
        NotAllowed
            If they may not.
        """
        principal = self.principal
        may = principal.may if of == "project" else principal.may_data
        if may(permission, name):
            if of == "dataset" and permission == "read" and name not in self.states.data().datasets:
                raise self._not_here(name, of)  # one that is kept from them is answered in the same words
            return
        there = name in (self.timeline.models() if of == "project" else self.states.data().datasets)
        where = f"in {name}" if there else "in what is not there" if name else "everywhere"
        why = f"{principal.name} may not {permission} {where}."
        self.denials.note(principal.name, permission, why, project=name if there else "")
        if name and not may("read", name):
            raise self._not_here(name, of)
        raise NotAllowed(
            f"{principal.name} may not {permission} {f'in {name}' if name else 'everywhere'}.",
            safe="Nothing was changed; the attempt is written down.",
            todo="An administrator gives roles: `orrery user grant`.",
        )

    # --- reading ---------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Return the names of all models that the principal may see."""
        return [name for name in self.timeline.models() if self.principal.may("read", name)]

    def datasets(self) -> dict[str, Dataset]:
        """Return the state of all datasets that the principal may see."""
        found = self.states.data().datasets
        return {name: one for name, one in found.items() if self.principal.may_data("read", name)}

    def model(self, name: str) -> ModelState:
        """Return the state of a model. Do not change it.

        Raises
        ------
        NotFound
            If there is none of this name; the nearest one is named.
        """
        try:
            if self.principal.may("read", name):
                return self.states.model(name)
        except NotFound:
            pass
        raise self._not_here(name, "project")

    def team_apart(self, project: str, dataset: str) -> str:
        """Return the team of a dataset that a project must not learn from; empty where it may."""
        teams = self.accounts.teams()
        team = teams.get(f"{DATA}{dataset}", "")
        return "" if teams.get(project, "") == team else team

    def _not_here(self, name: str, of: Of) -> NotFound:
        import difflib

        known = self.models() if of == "project" else list(self.datasets())
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`orrery models` lists them." if of == "project" else ""
        return NotFound(f"There is no {'model' if of == 'project' else 'dataset'} {name!r} here.", todo=hint)

    def due(self, name: str) -> list[Action]:
        """Return what is due for a model now."""
        return decide(self.model(name), self.states.data(), self.clock.now())

    def settled(self) -> bool:
        """Say whether nothing is due for any model."""
        return not any(self.due(name) for name in self.models())

    # --- what people order -----------------------------------------------------------------------------------------

    def order(self, name: str, make: Callable[[ModelState], Sequence[Draft]]) -> list[Event]:
        """Append what a person orders; the order is made anew when the model changed in the meantime.

        Raises
        ------
        NotAllowed, NotFound
            As ``make`` says of the state it is shown.
        """
        for _ in range(5):
            state = self.model(name)
            try:
                return self.append(make(state), model_at={name: state.seq})
            except Conflict:
                continue
        raise Conflict(f"{name} changes faster than this order can be made.", todo="Try again.")

    def append(self, drafts: Sequence[Draft], *, model_at: dict[str, int] | None = None) -> list[Event]:
        """Append events; the registry's aliases follow them in the same transaction."""
        return self.timeline.append(drafts, within=follow_with_aliases, model_at=model_at)

    @needs("release")
    def promote(
        self,
        name: str,
        version: int,
        *,
        why: str,
        actor: str,
        environment: str = PRODUCTION,
        share: float = 1.0,
    ) -> list[Event]:
        """Make a version champion by hand, or have it answer a share; what the environment needs must be fulfilled."""
        now = self.clock.now()
        if share < 1:
            return self.order(
                name, lambda model: moves.order_share(model, version, environment, share, why, actor, now)
            )
        return self.order(name, lambda model: moves.order_promotion(model, version, environment, why, actor, now))

    @needs("release")
    def rollback(
        self, name: str, *, why: str, actor: str, environment: str = PRODUCTION, to: int | None = None
    ) -> list[Event]:
        """Bring the champion before this one back, or a given earlier one."""
        return self.order(name, lambda model: moves.order_rollback(model, environment, to, why, actor))

    @needs("release")
    def retire(self, name: str, version: int, *, why: str, actor: str, environment: str = "") -> list[Event]:
        """Take a version out of an environment, or out of all."""
        return self.order(name, lambda model: moves.order_retirement(model, version, environment, why, actor))

    @needs("delete")
    def delete(self, name: str, version: int, *, why: str, actor: str) -> list[Event]:
        """Delete a version's artifact; its record stays."""
        return self.order(name, lambda model: moves.order_deletion(model, version, why, actor))

    @needs("note")
    def event(
        self,
        name: str,
        *,
        why: str,
        actor: str,
        occurred_at: datetime | str | None = None,
        version: int | None = None,
        data: dict[str, Any] | None = None,
    ) -> list[Event]:
        """Note something that happened in the world around a model."""
        when = parse_instant(occurred_at) if occurred_at is not None else None
        draft = Draft(
            kind="business", actor=actor, why=why, model=name, version=version, data=data or {}, occurred_at=when
        )
        return self.order(name, lambda model: [draft])

    @needs("train")
    def train(
        self, name: str, *, why: str, actor: str, change: str = "refresh", params: dict[str, Any] | None = None
    ) -> list[Event]:
        """Ask for a training by hand: of the champion's commit, before there is a champion of the newest one."""
        data = self.states.data()

        def make(model: ModelState) -> list[Draft]:
            return by_hand(model, data, why=why, actor=actor, change=change, params=params or {})

        return self.order(name, make)

    # --- data ------------------------------------------------------------------------------------------------------

    @needs("data", of="dataset")
    def add_data(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        why: str,
        actor: str,
        key: str = "",
        occurred_at: datetime | None = None,
    ) -> Any:
        """Add rows to a dataset: what fits the contract becomes a new version, the rest goes to quarantine."""
        from orrery.data.contract import Contract
        from orrery.data.ingest import add

        known = self.states.data().datasets.get(name)
        contract = Contract.from_dict(known.contract) if known and known.contract else None
        return add(
            self.lake,
            self.timeline,
            name,
            frame,
            contract=contract,
            actor=actor,
            why=why,
            key=key or None,
            occurred_at=occurred_at,
            privacy=self.privacy,
        )

    @needs("data", of="dataset")
    def change_contract(self, name: str, contract: Contract, *, why: str, actor: str) -> list[Event]:
        """Put a contract in force, for rows that come from now on; also before the first rows.

        Raises
        ------
        NotAllowed
            If it marks a column otherwise than the rows are written that are there.
        """
        from orrery.data.contract import Contract
        from orrery.data.rules import check_marks

        check_name(name, "name of a dataset")
        known = self.states.data().datasets.get(name)
        if known is not None and known.rows and known.contract:
            check_marks(name, Contract.from_dict(known.contract), contract)
        data = {"dataset": name, "contract": contract.to_dict(), "digest": contract.digest}
        return self.append([Draft(kind="contract_changed", actor=actor, why=why, data=data)])

    def personal(self, spec: Spec) -> dict[str, str]:
        """Return the columns that a model's datasets mark as personal, and what becomes of each."""
        found = self.states.data().datasets
        contracts = (found[name].contract or {} for name in spec.data.values() if name in found)
        columns = (item for contract in contracts for item in contract.get("columns", {}).items())
        return {name: rule["personal"] for name, rule in columns if rule.get("personal")}

    def _of_nobody_erased(self, name: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return labels or values with pseudonyms where the predictions have them, and none of who was erased."""
        from orrery.data.subject import whose

        model = self.model(name)
        policy = model.policy()
        if policy is None or "entity" not in frame.columns or not (marks := self.personal(policy)):
            return frame
        if marks.get(policy.model.entity) == "pseudonymised":
            frame = frame.with_columns(self.privacy.pseudonymised(frame["entity"]))
        return self.privacy.without(whose(model, self.states.data()), frame, "entity")

    def _logged(self, name: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return predictions without those of who was erased."""
        from orrery.data.subject import whose

        data = self.states.data()
        if not data.erased or name not in self.timeline.models():
            return frame
        return self.privacy.without(whose(self.states.model(name), data), frame, "_entity")

    @needs("data")
    def add_values(self, name: str, metric: str, frame: pl.DataFrame, *, key: str = "") -> Accepted:
        """Add values of a business metric: columns ``entity`` (or a day), ``label`` (the value) and ``at``.

        Raises
        ------
        NotFound
            If no project file of the model names the metric: nothing would ever look at it.
        NotUnderstood
            If a value is no number.
        """
        from orrery.data.labels import LabelTable

        commits = self.model(name).commits.values()
        known = {one for commit in commits for one in commit.spec["rollout"].get("business") or ()}
        if metric not in known:
            hint = f"Known: {', '.join(sorted(known))}." if known else "Name it in [rollout.business]."
            raise NotFound(f"{name} has no business metric {metric!r}.", safe="Nothing was added.", todo=hint)
        if "label" in frame.columns and not (frame["label"].dtype.is_numeric() and frame["label"].is_finite().all()):
            raise NotUnderstood(f"A value of {metric} is no number.", safe="Nothing was added.")
        self.ship_journal()
        frame = self._of_nobody_erased(name, frame)
        return LabelTable(self.lake, name, metric).append(frame, key or None)

    @needs("data")
    def add_labels(self, name: str, frame: pl.DataFrame, *, actor: str = "labels", key: str = "") -> Accepted:
        """Add labels that have become known: columns ``entity``, ``label`` and ``at``.

        They also find predictions of a moment ago: what inference servers have journalled is brought to the log first.
        A batch that cannot be true as a whole (a value that the contract expects is absent from it) is set aside, and
        the model's timeline says so.
        """
        from orrery.data.labels import LabelTable

        policy = self.model(name).policy()
        self.ship_journal()
        frame = self._of_nobody_erased(name, frame)
        accepted = LabelTable(self.lake, name).append(frame, key or None, expected=self._expected_labels(policy))
        if accepted.quarantined:
            reasons = "; ".join(accepted.reasons)
            draft = Draft(
                id=digest(f"labels/{name}/{key}") if key else uuid.uuid4().hex,
                kind="quarantined",
                actor=actor,
                why=f"{accepted.quarantined} labels were set aside: {reasons}.",
                model=name,
                data={"dataset": f"labels of {name}", "rows": accepted.quarantined, "reasons": accepted.reasons},
            )
            self.append([draft])
        return accepted

    def ship_journal(self) -> int:
        """Bring what the inference servers have journalled into the prediction logs; return the number of rows."""
        from orrery.data.journal import FOLDER
        from orrery.data.ship import ship

        return ship(self.settings.folder(FOLDER), self.lake, self.anomaly_scores, self._logged)

    def _expected_labels(self, policy: Spec | None) -> dict[str, float]:
        """Return the shares of the target's values as the contract of the dataset knows them."""
        from orrery.data.contract import Contract

        if policy is None:
            return {}
        datasets = self.states.data().datasets
        for dataset in policy.data.values():
            contract = datasets[dataset].contract if dataset in datasets else None
            if contract and policy.model.target in (expected := Contract.from_dict(contract).present):
                return dict(expected[policy.model.target])
        return {}


def follow_with_aliases(connection: sa.Connection, events: list[Event]) -> None:
    """Let the registry's aliases follow the pointers that events moved, in the same transaction."""
    from orrery.registry.versions import set_alias

    for event in events:
        if event.kind in ("promoted", "rolled_back"):
            set_alias(connection, event.model, event.environment, event.version)
            if event.environment == PRODUCTION:
                set_alias(connection, event.model, "champion", event.version)
        elif event.kind == "challenged" and event.environment == PRODUCTION and event.data["role"] == "shadow":
            set_alias(connection, event.model, "challenger", event.version)
        elif event.kind == "retired" and event.environment == PRODUCTION and event.data.get("role") == "shadow":
            set_alias(connection, event.model, "challenger", None)
