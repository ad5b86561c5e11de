"""What people order of channels and webhooks: the part of :class:`orrery.app.Orrery` that is about them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orrery.access.guarded import Of, needs
from orrery.access.outgoing import only_owner, split
from orrery.access.roles import EVERYWHERE, Principal
from orrery.errors import NotAllowed, NotUnderstood
from orrery.notify import chat
from orrery.notify.channels import TOPICS, Channel, Channels
from orrery.settings import Settings
from orrery.timeline.event import GENESIS, Draft, seal
from orrery.timeline.state import ModelState

if TYPE_CHECKING:
    from orrery.timeline.clock import Clock


class NotifyOrders:
    """Orders about where a project's news goes."""

    principal: Principal
    settings: Settings
    clock: Clock
    channels: Channels

    if TYPE_CHECKING:

        def allow(self, permission: str, name: str, of: Of = "project") -> None:
            """Raise unless the principal may."""

        def model(self, name: str) -> ModelState:
            """Return the state of a model."""

    @needs("operate")
    def add_channel(
        self, name: str, channel: str, url: str, *, why: str, actor: str, about: str = "all", private: bool = False
    ) -> Channel:
        """Tell a chat the news of a project, or of orrery itself (``*``); ``about``: ``all`` or ``reviews``."""
        if name != EVERYWHERE:
            self.model(name)
        only_owner(private, self.principal.owner)
        if about not in TOPICS:
            raise NotUnderstood(f"{about!r} is nothing that a chat is told.", todo=f"Use {' or '.join(TOPICS)}.")
        chat.check(url)
        return self.channels.add(name, channel, "chat", url, [about], private, actor, why)[0]

    @needs("operate")
    def add_hook(
        self,
        name: str,
        hook: str,
        url: str,
        *,
        why: str,
        actor: str,
        kinds: Sequence[str] = ("*",),
        private: bool = False,
    ) -> tuple[Channel, str]:
        """Send the events of a project to a program; the second of what is returned is the key, shown once."""
        self.model(name)
        only_owner(private, self.principal.owner)
        split(url, private=private)
        return self.channels.add(name, hook, "hook", url, kinds, private, actor, why)

    @needs("operate")
    def remove_channel(self, name: str, channel: str, *, why: str, actor: str) -> None:
        """Send nothing there any more."""
        self.channels.remove(name, channel, actor, why)

    @needs("operate")
    def test_channel(self, name: str, channel: str, *, actor: str) -> str:
        """Send something to a channel or webhook now, and return what became of it."""
        from orrery.notify.courier import send_hook
        from orrery.notify.envelope import envelope

        found = self.channels.get(name, channel)
        if found.dead:
            raise NotAllowed(f"{channel} was given up on {found.dead[:10]}.", todo="Remove it, and add it anew.")
        url, secret = self.channels.opened(found)
        why = f"{actor} tries whether this can be reached."
        if found.medium == "chat":
            return chat.send(
                url, f"{'Orrery itself' if name == EVERYWHERE else name}: a test", why, private=found.private
            )
        draft = Draft(kind="channel", actor=actor, why=why, model=name, id=uuid.uuid4().hex)
        event = seal(draft, seq=0, recorded_at=self.clock.now(), prev_hash=GENESIS)
        body = envelope(event, self.settings.public_url) | {"type": "dev.cdeventsx.orrery-channel.tested.0.1.0"}
        body["data"]["context"]["type"] = body["type"]
        return send_hook(url, secret, draft.id, body, found.private, time.time())
