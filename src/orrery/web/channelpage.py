"""The page of where a project's news goes: chats and webhooks, when they were reached last, and what fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from orrery.app import Orrery
from orrery.notify.channels import Channel
from orrery.notify.outbox import Outbox, Record
from orrery.source.remote import Remote
from orrery.timeline.kinds import KINDS
from orrery.web import wire
from orrery.web.render import Page
from orrery.web.wire import Answer


@wire.described
class ChannelAnswer(Answer):
    """A chat or webhook, and how it goes; of its address only what may be shown."""

    name: str
    medium: str
    place: str
    kinds: list[str]
    private: bool
    since: str
    by: str
    given_up: str
    last: datetime | None
    waiting: int
    failed: int
    said: str
    secret: str = ""
    """Key that a webhook signs with, in the answer that made it; never again."""


@dataclass(frozen=True, kw_only=True)
class ChannelsPage(Page):
    """Where the news of a project goes, and its commits come from.

    Parameters
    ----------
    hooks : address that platforms send webhooks to.
    said, key : what became of an order, and the key that it made, which is shown this once.
    """

    template = "channels.html"
    refreshes = False

    model: str
    channels: list[ChannelAnswer]
    sends: bool
    mail: bool
    remote: Remote | None
    fetched: Record
    fetched_at: datetime | None
    hooks: str
    kinds: list[str]
    said: str
    key: str


def channels_page(orrery: Orrery, name: str, said: str = "", key: str = "") -> ChannelsPage:
    """Return the page of the channels of one model."""
    orrery.model(name)
    fetched = Outbox(orrery.timeline).records(f"fetch/{name}").get(f"fetch/{name}", Record())
    return ChannelsPage(
        title=f"{name}: channels and webhooks",
        model=name,
        channels=lines(orrery, name),
        sends=orrery.settings.sends,
        mail=bool(orrery.settings.mail),
        remote=orrery.remotes.find(name),
        hooks=f"{orrery.settings.public_url}/hooks/{name}",
        kinds=sorted(KINDS),
        said=said,
        key=key,
        fetched=fetched,
        fetched_at=datetime.fromtimestamp(fetched.last, UTC) if fetched.last else None,
    )


def lines(orrery: Orrery, name: str) -> list[ChannelAnswer]:
    """Return the channels of a project, and how it goes with each."""
    records = Outbox(orrery.timeline)
    found = {**records.records(f"chat/{name}/"), **records.records(f"hook/{name}/")}
    return [_line(one, found.get(one.target, Record())) for one in orrery.channels.all(name)]


def _line(one: Channel, record: Record) -> ChannelAnswer:
    last = datetime.fromtimestamp(record.last, UTC) if record.last else None
    return ChannelAnswer(
        name=one.name,
        medium={"chat": "chat", "hook": "webhook"}[one.medium],
        place=one.place,
        kinds=list(one.kinds),
        private=one.private,
        since=one.since,
        by=one.by,
        given_up=one.dead,
        last=last,
        waiting=record.waiting,
        failed=record.failed,
        said=record.said,
    )
