"""What people order of reviews and issues: the part of :class:`orrery.app.Orrery` that is about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orrery.access.guarded import Of, needs
from orrery.access.roles import Principal
from orrery.errors import NotFound, NotUnderstood
from orrery.review import commands, issues
from orrery.timeline.event import Draft, Event
from orrery.timeline.state import ModelState
from orrery.types import PRODUCTION

if TYPE_CHECKING:
    from orrery.access.accounts import Accounts
    from orrery.access.denials import Denials
    from orrery.timeline.store import Timeline


class ReviewOrders:
    """Orders about versions that wait for a word, and about issues; every one returns the events it became."""

    principal: Principal
    timeline: Timeline
    accounts: Accounts
    denials: Denials

    if TYPE_CHECKING:

        def allow(self, permission: str, name: str, of: Of = "project") -> None:
            """Raise unless the principal may."""

        def order(self, name: str, make: Callable[[ModelState], Sequence[Draft]]) -> list[Event]:
            """Append what is made of the state."""

    # --- reviews ---------------------------------------------------------------------------------------------------

    @needs("review")
    def approve(
        self, name: str, version: int, *, why: str, actor: str, environment: str = "", role: str = "", gate: str = ""
    ) -> list[Event]:
        """Say yes to a version, or override a gate that refused it."""
        said = {"why": why, "actor": actor, "environment": environment, "role": role, "gate": gate}
        person, principal = self.accounts.person, self.principal

        def signs(role: str) -> bool:
            return principal.may_sign(role, name)

        try:
            return self.order(name, lambda model: commands.approve(model, version, **said, person=person, signs=signs))
        except commands.OwnWork as error:
            self.denials.note(actor, "review", error.what, project=name, version=version, of_model=True)
            raise

    @needs("review")
    def reject(self, name: str, version: int, *, why: str, actor: str) -> list[Event]:
        """Say no to a version; its author gets an issue."""
        return self.order(name, lambda model: commands.reject(model, version, why=why, actor=actor))

    @needs("review")
    def ask_changes(
        self, name: str, version: int, *, why: str, actor: str, environment: str = "", role: str = ""
    ) -> list[Event]:
        """Ask the author for changes; the review waits until the question is closed with an answer."""
        said = {"why": why, "actor": actor, "environment": environment, "role": role}
        principal = self.principal

        def signs(role: str) -> bool:
            return principal.may_sign(role, name)

        return self.order(name, lambda model: commands.ask(model, version, **said, signs=signs))

    @needs("override")
    def override(
        self,
        name: str,
        version: int,
        *,
        why: str,
        actor: str,
        environment: str = PRODUCTION,
        emergency: bool = False,
    ) -> list[Event]:
        """In an emergency, let a version go on without its reviews; everybody who reviews is told."""
        if not emergency:
            raise NotUnderstood(
                "A review is overridden in an emergency only.",
                safe="Nothing was changed.",
                todo="Say that it is one: --emergency.",
            )
        said = {"why": why, "actor": actor, "environment": environment}
        person = self.accounts.person
        try:
            return self.order(name, lambda model: commands.override(model, version, **said, person=person))
        except commands.OwnWork as error:
            self.denials.note(actor, "override", error.what, project=name, version=version, of_model=True)
            raise

    # --- issues ----------------------------------------------------------------------------------------------------

    @needs("note")
    def open_issue(
        self,
        name: str,
        title: str,
        *,
        why: str,
        actor: str,
        owner: str = "",
        version: int | None = None,
        event: int | None = None,
    ) -> list[Event]:
        """Open an issue; ``event`` is the number of an event of the model that it is linked to."""
        about = self._linked(name, event)
        said = {"title": title, "why": why, "actor": actor, "owner": owner}
        return self.order(name, lambda model: issues.opened(model, **said, version=version, events=about))

    @needs("note")
    def comment_issue(
        self, name: str, issue: str, *, why: str, actor: str, version: int | None = None, event: int | None = None
    ) -> list[Event]:
        """Say something about an issue, which may link it to a version or an event."""
        about = self._linked(name, event)
        return self.order(
            name, lambda model: issues.commented(model, issue, why=why, actor=actor, version=version, events=about)
        )

    @needs("note")
    def assign_issue(self, name: str, issue: str, *, owner: str, why: str, actor: str) -> list[Event]:
        """Let somebody else look after an issue."""
        return self.order(name, lambda model: issues.assigned(model, issue, owner=owner, why=why, actor=actor))

    @needs("note")
    def close_issue(self, name: str, issue: str, *, why: str, actor: str) -> list[Event]:
        """Close an issue; where a review waited for it, it waits for its reviewers again."""
        person, reviews = self.accounts.person, self.principal.may("review", name)
        return self.order(
            name, lambda model: issues.closed(model, issue, why=why, actor=actor, person=person, reviews=reviews)
        )

    @needs("note")
    def reopen_issue(self, name: str, issue: str, *, why: str, actor: str) -> list[Event]:
        """Open a closed issue again; from then on only a person closes it."""
        return self.order(name, lambda model: issues.reopened(model, issue, why=why, actor=actor))

    def _linked(self, name: str, seq: int | None) -> list[str]:
        if seq is None:
            return []
        found = next(self.timeline.read(name, after=seq - 1, before=seq + 1), None)
        if found is None:
            raise NotFound(f"There is no event {seq} of {name}.", safe="Nothing was changed.")
        return [found.id]
