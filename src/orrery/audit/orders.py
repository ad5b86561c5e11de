"""What an auditor asks: the part of :class:`orrery.app.Orrery` that is about it. Who reads is written down."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from orrery.access.guarded import Of, needs
from orrery.access.roles import Principal
from orrery.audit.deeds import Deeds, deeds
from orrery.audit.served import Served, served
from orrery.audit.standing import Standings
from orrery.settings import actor as acting_name

if TYPE_CHECKING:
    from orrery.access.accounts import Accounts
    from orrery.access.reads import Reads
    from orrery.audit.anchoring import Anchoring
    from orrery.settings import Settings
    from orrery.spec import Spec
    from orrery.timeline.states import States
    from orrery.timeline.store import Timeline


class AuditOrders:
    """Questions about what happened, and notes of what was read."""

    principal: Principal
    settings: Settings
    timeline: Timeline
    states: States
    accounts: Accounts
    reads: Reads

    if TYPE_CHECKING:

        def allow(self, permission: str, name: str, of: Of = "project") -> None:
            """Raise unless the principal may."""

        def personal(self, spec: Spec) -> dict[str, str]:
            """Return the columns that a model's datasets mark as personal."""

    @cached_property
    def anchoring(self) -> Anchoring:
        """What notes the head of the chain outside."""
        from orrery.audit.anchoring import FOLDER, Anchoring

        return Anchoring(self.timeline, self.states.data, self.settings.home / FOLDER)

    @needs("read")
    def served(self, name: str, at: str, environment: str = "") -> list[Served]:
        """Return what of a model answered at an instant, or on a day: who let it, and on what evidence."""
        return served(self.states, Standings(self.timeline, self.accounts.person), name, at, environment)

    def deeds(self, who: str, begin: datetime | None = None, end: datetime | None = None) -> Deeds:
        """Return what somebody did in a period, under whichever of their names.

        Raises
        ------
        NotAllowed
            If the principal may not audit.
        """
        self.allow("audit", "")
        return deeds(self.timeline, Standings(self.timeline, self.accounts.person), who, begin, end)

    # --- reads are events ------------------------------------------------------------------------------------------

    def note_read(self, dataset: str, what: str, actor: str = "") -> None:
        """Write down that rows of a dataset are read, if its contract marks columns as personal.

        Parameters
        ----------
        dataset : which.
        what : ``rows``, ``quarantine``, ``profile`` or ``encrypted``.
        actor : who; empty for who this process belongs to.
        """
        known = self.states.data().datasets.get(dataset)
        columns = (known.contract or {}).get("columns", {}) if known is not None else {}
        marked = sorted(name for name, rule in columns.items() if rule.get("personal"))
        if marked:
            why = f"Somebody read {dataset}, which has personal columns: {what}."
            self.reads.note(self._reader(actor), what, why, of=dataset, columns=marked)

    def note_read_of_log(self, name: str, actor: str = "") -> None:
        """Write down that the prediction log of a model is read, if its columns are personal."""
        policy = self.states.model(name).policy()
        marked = sorted(self.personal(policy)) if policy is not None else []
        if marked:
            why = f"Somebody read the predictions of {name}, which have personal columns."
            self.reads.note(self._reader(actor), "predictions", why, of=name, columns=marked, model=name)

    def note_read_of_project(self, name: str, what: str, actor: str = "") -> None:
        """Write down that somebody reads what may hold rows of a project, if a dataset of any commit is personal.

        Parameters
        ----------
        name : the project; one without a commit has no datasets.
        what : ``artifacts``, ``traces``, ``evaluation rows`` or ``commits``.
        actor : who; empty for who this process belongs to.
        """
        if name not in self.timeline.models():
            return
        known, commits = self.states.data().datasets, self.states.model(name).commits.values()
        datasets = {one for commit in commits for one in commit.spec["data"].values()} & set(known)
        columns = (item for one in datasets for item in (known[one].contract or {}).get("columns", {}).items())
        marked = sorted({column for column, rule in columns if rule.get("personal")})
        if marked:
            why = f"Somebody read {what} of {name}, whose data have personal columns."
            self.reads.note(self._reader(actor), what, why, of=name, columns=marked, model=name)

    def note_read_of_chain(self, actor: str = "") -> None:
        """Write down that somebody takes the whole chain away."""
        self.reads.note(self._reader(actor), "chain", "The whole chain was exported.")

    def _reader(self, actor: str) -> str:
        return (actor if self.principal.owner else self.principal.name) or acting_name()
