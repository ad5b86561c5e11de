"""What people order of remotes: the part of :class:`orrery.app.Orrery` that is about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orrery.access.guarded import Of, needs
from orrery.access.outgoing import only_owner
from orrery.access.roles import Principal
from orrery.settings import Settings
from orrery.source.git import MAIN
from orrery.source.remote import Remote, Remotes
from orrery.timeline.store import Timeline


class RemoteOrders:
    """Orders about where a project's commits come from."""

    principal: Principal
    settings: Settings
    timeline: Timeline
    remotes: Remotes

    if TYPE_CHECKING:

        def allow(self, permission: str, name: str, of: Of = "project") -> None:
            """Raise unless the principal may."""

    @needs("operate")
    def set_remote(
        self,
        name: str,
        url: str,
        *,
        why: str,
        actor: str,
        branch: str = MAIN,
        user: str = "",
        token: str = "",
        secret: str = "",
        private: bool = False,
    ) -> tuple[Remote, str]:
        """Say where a project comes from; the second of what is returned is the secret of its webhooks."""
        only_owner(private, self.principal.owner)
        return self.remotes.set(
            name, url, by=actor, why=why, branch=branch, user=user, token=token, secret=secret, private=private
        )

    @needs("operate")
    def remove_remote(self, name: str, *, why: str, actor: str) -> None:
        """Fetch a project from nowhere any more."""
        self.remotes.remove(name, by=actor, why=why)

    @needs("operate")
    def fetch_remote(self, name: str, *, actor: str) -> str:
        """Bring the newest commit of the remote now, and return what became of it."""
        from orrery.source.follow import follow
        from orrery.source.git import Source

        remote = self.remotes.get(name)
        token, _ = self.remotes.opened(name)
        return follow(Source(self.settings), self.timeline, remote, token, "", actor)
