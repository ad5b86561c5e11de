"""The courier: makes deliveries of what is new on the timeline, and sends what is due."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orrery.access.accounts import Accounts
from orrery.access.posting import post
from orrery.access.roles import EVERYWHERE
from orrery.access.signatures import sign
from orrery.errors import Conflict, NotFound, NotUnderstood, OrreryError
from orrery.notify import chat, mail
from orrery.notify.channels import Channel, Channels, address_of
from orrery.notify.envelope import envelope
from orrery.notify.outbox import Delivery, Outbox
from orrery.notify.told import DELIVERY, KINDS, REVIEWS, News, People, Reader, news_of, news_of_itself
from orrery.settings import Settings
from orrery.timeline.event import Draft, Event
from orrery.timeline.state import ModelState, Version
from orrery.timeline.states import States
from orrery.timeline.store import Timeline
from orrery.types import digest

log = logging.getLogger("orrery.notify")

BATCH = 500  # events that deliveries are made of at once
POLL = 1.0  # seconds between two looks
PRUNE = 3600.0  # seconds between two times that old records are forgotten

Send = Callable[[Delivery], str]


class Courier:
    """Sends what the timeline of one orrery says; one at a time in one orrery (see :meth:`run`).

    Parameters
    ----------
    settings, timeline, states, accounts, channels : of the orrery.
    hands : returns who had a hand in a version, and which.
    more : prefix of other targets -> what delivers to them.
    now : the time on the wall, in seconds since 1970: a replay has its own, and receivers have not.
    """

    def __init__(
        self,
        settings: Settings,
        timeline: Timeline,
        states: States,
        accounts: Accounts,
        channels: Channels,
        *,
        hands: Callable[[ModelState, Version], Iterator[tuple[str, str]]],
        more: Mapping[str, Send] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._timeline, self._states = settings, timeline, states
        self._accounts, self._channels, self._hands, self._now = accounts, channels, hands, now
        self.outbox = Outbox(timeline)
        self._sends: dict[str, Send] = {"mail/": self._mail, "chat/": self._chat, "hook/": self._hook, **(more or {})}
        self._pruned = 0.0

    def run(self, stopping: threading.Event, holds: Callable[[], bool]) -> None:
        """Work until told to stop.

        Parameters
        ----------
        holds : says whether this courier is the one that works now.
        """
        while not stopping.is_set():
            try:
                if holds():
                    self.step(holds)
            except Exception:  # the database may be away for a while; what was not sent is still there
                log.exception("The courier could not work")
            stopping.wait(POLL)

    def step(self, holds: Callable[[], bool] = lambda: True) -> int:
        """Make and send what is due; return how many attempts were made."""
        while self.plan():
            pass
        made, now = 0, self._now()
        if now - self._pruned > PRUNE:
            self._pruned = now
            self.outbox.prune(now)
        while due := self.outbox.due(self._now()):
            for delivery in due:
                if not holds():
                    return made
                self._attempt(delivery)
                made += 1
        return made

    # --- what is to be delivered -----------------------------------------------------------------------------------

    def plan(self) -> bool:
        """Make the deliveries of the next events; say whether there may be more."""
        after = self.outbox.place()
        events = list(self._timeline.read(after=after, limit=BATCH))
        if not events:
            return False
        channels: dict[str, list[Channel]] = {}
        for one in self._channels.all():
            if not one.dead:
                channels.setdefault(one.project, []).append(one)
        found = [made for event in events for made in self._safely(event, channels.get(event.model or EVERYWHERE, []))]
        return self.outbox.file(found, after=after, upto=events[-1].seq) and len(events) == BATCH

    def _safely(self, event: Event, channels: list[Channel]) -> list[Delivery]:
        """Return the deliveries of an event; one that cannot be told must not hold up all that come after it."""
        try:
            return list(self._of(event, channels))
        except Exception:
            log.exception("Event %s cannot be told", event.seq)
            return []

    def _of(self, event: Event, channels: list[Channel]) -> Iterator[Delivery]:
        for one in channels:
            if one.medium == "hook" and event.seq > one.after and one.wants(event.kind) and event.kind != "channel":
                body = envelope(event, self._settings.public_url)
                yield Delivery(digest([event.id, one.target]), one.target, event.model, event.seq, body)
        chats = [one for one in channels if one.medium == "chat" and event.seq > one.after]
        if event.kind not in KINDS or not (chats or self._settings.mail):
            return
        if event.model:
            news = news_of(event, self._states.model(event.model), self._people())
        else:
            news = news_of_itself(event, self._states.data(), self._people())
        if news is None:
            return
        told = [f"mail/{name}" for name in self._wanting(news)] if self._settings.mail else []
        if news.channels and not event.data.get("cause", "").startswith(f"{DELIVERY}chat/"):
            told += [one.target for one in chats if "all" in one.kinds or news.topic == REVIEWS]
        for target in told:
            body = {"subject": news.subject, "text": news.text, "path": news.path}
            yield Delivery(digest([news.key, target]), target, event.model, event.seq, body)

    def _people(self) -> People:
        readers = []
        for account in self._accounts.all():
            if account.kind == "person" and not account.disabled and (may := self._accounts.principal(account.name)):
                readers.append(Reader(account.name, may))
        return People(readers, self._accounts.person, self._hands)

    def _wanting(self, news: News) -> list[str]:
        wishes = self._channels.wishes()
        wanted = {"all": True, "reviews": news.topic == REVIEWS, "nothing": False}
        return [name for name in news.to if wanted[wishes.get(name, ("all", ""))[0]]]

    # --- sending ---------------------------------------------------------------------------------------------------

    def _attempt(self, delivery: Delivery) -> None:
        send = next(send for prefix, send in self._sends.items() if delivery.target.startswith(prefix))
        try:
            said = send(delivery)
        except NotFound as error:  # nobody is there any more: no fault, and nobody to tell
            self.outbox.given_up(delivery, self._now(), error.what)
        except NotUnderstood as error:  # it will not be understood the next time either
            self.outbox.given_up(delivery, self._now(), error.what)
            self._tell(delivery, f"Refused: {_named(delivery)}", str(error))
        except OrreryError as error:
            self._failed(delivery, error.what)
        except Exception as error:
            log.exception("%s could not be delivered", delivery.id)
            self._failed(delivery, f"{type(error).__name__}")
        else:
            self.outbox.sent(delivery, self._now(), said)
            self._recovered(delivery)

    def _failed(self, delivery: Delivery, said: str) -> None:
        if self.outbox.failed(delivery, self._now(), said):
            return
        if delivery.target.startswith("hook/"):
            _, project, name = delivery.target.split("/")
            self._channels.give_up(project, name)
            self.outbox.drop(delivery.target, self._now(), "The webhook was given up.")
        self._tell(delivery, f"Given up after three days: {_named(delivery)}", said)

    def _tell(self, delivery: Delivery, what: str, said: str) -> None:
        """Open an issue about what cannot be delivered, if none is open."""
        cause = f"{DELIVERY}{delivery.target}"
        for _ in range(5):
            model = self._model(delivery)
            if model is None or model.open_issue(cause) is not None:
                return
            policy = model.policy()
            facts = {
                "issue": digest([cause, delivery.id])[:12],
                "title": what,
                "owner": (policy.model.owner or "") if policy is not None else "",
                "cause": cause,
            }
            why = f"{what}. {said}"
            draft = Draft(kind="issue_opened", actor="orrery/notify", why=why, model=delivery.model, data=facts)
            try:
                self._timeline.append([draft], model_at={delivery.model: model.seq})
                return
            except Conflict:
                continue

    def _recovered(self, delivery: Delivery) -> None:
        model = self._model(delivery)
        issue = model.open_issue(f"{DELIVERY}{delivery.target}") if model is not None else None
        if issue is not None:
            draft = Draft(
                id=digest(["recovered", issue.id, delivery.id]),
                kind="issue_closed",
                actor="orrery/notify",
                why="It can be reached again.",
                model=delivery.model,
                data={"issue": issue.id},
            )
            self._timeline.append([draft])

    def _model(self, delivery: Delivery) -> ModelState | None:
        """Return the state of the model that it is about; nothing of one without a commit, or of orrery itself."""
        try:
            return self._states.model(delivery.model)
        except NotFound:
            return None

    def _mail(self, delivery: Delivery) -> str:
        name = delivery.target.removeprefix("mail/")
        account = self._accounts.get(name)
        wish, said = self._channels.wishes().get(name, ("all", ""))
        address = address_of(account.links, said)
        if account.disabled or wish == "nothing" or not address:
            raise NotFound(f"{name} has no address, or wants nothing.")
        end = f"What you are told you choose yourself: {self._settings.public_url}/-/account"
        server = mail.server_of(self._settings.mail, self._settings.mail_password)
        text = f"{self._text(delivery)}\n\n-- \n{end}\n"
        return mail.send(server, address, delivery.body["subject"], text, delivery.id)

    def _chat(self, delivery: Delivery) -> str:
        channel = self._channel(delivery)
        url, _ = self._channels.opened(channel)
        return chat.send(url, delivery.body["subject"], self._text(delivery), private=channel.private)

    def _hook(self, delivery: Delivery) -> str:
        channel = self._channel(delivery)
        return send_hook(*self._channels.opened(channel), delivery.id, delivery.body, channel.private, self._now())

    def _channel(self, delivery: Delivery) -> Channel:
        _, project, name = delivery.target.split("/")
        return self._channels.get(project, name)

    def _text(self, delivery: Delivery) -> str:
        return f"{delivery.body['text']}\n\n{self._settings.public_url}{delivery.body['path']}".strip()


def _named(delivery: Delivery) -> str:
    kind, _, whose = delivery.target.partition("/")
    words = {"mail": "mail to", "chat": "the chat", "hook": "the webhook", "fetch": "the remote of"}
    return f"{words[kind]} {whose.rpartition('/')[2]}"


def send_hook(url: str, secret: str, id_: str, event: dict[str, Any], private: bool, now: float) -> str:
    """Send one signed event and return what the receiver answered.

    Raises
    ------
    OrreryError
        If it did not take it.
    """
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "user-agent": "orrery",
        "webhook-id": id_,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": sign(secret, id_, int(now), body),
    }
    status = post(url, body, headers, private=private)
    if not 200 <= status < 300:
        raise OrreryError(f"The receiver answered {status}.")
    return f"answered {status}"
