"""A worker sends by itself, the pages say how it goes, and everybody chooses what they are told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest
import uvicorn

from notify.conftest import BY, MODEL, Receiver, Sink, asked
from orrery.access.roles import Grant, Principal
from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.errors import NotAllowed
from orrery.notify.courier import POLL, Courier
from orrery.types import format_instant
from orrery.web.server import create


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def sending() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "courier" and one.is_alive()]


def test_a_worker_sends_what_is_new_and_a_replay_does_not(orrery: Orrery, courier: Courier, sink: Sink) -> None:
    asked(orrery, "quality")
    workers = [Worker(orrery, name) for name in ("w", "v")]
    threads = [threading.Thread(target=one.run) for one in workers]
    for one in threads:
        one.start()
    try:
        until(lambda: any(to.startswith("mara@") for to, _ in sink.got))
        time.sleep(2 * POLL)  # the other one has looked, too
    finally:
        for each in workers:
            each.stop()
        for one in threads:
            one.join(60)
    assert sink.to().count("mara") == 1

    until(lambda: not sending())
    (orrery.settings.home / "clock").write_text(format_instant(orrery.clock.now()))
    replayed = Orrery(replace(orrery.settings, replay=True))
    orrery.open_issue(MODEL, "Late", why="x", actor="pia", owner="vic")
    worker = Worker(replayed, "w")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: worker._read == orrery.timeline.head()[0])
        assert not sending()
    finally:
        worker.stop()
        thread.join(60)
    assert sink.to() == []
    courier.step()  # the negative control: it would have been sent
    assert "vic" in sink.to()


@pytest.fixture
def address(orrery: Orrery) -> Iterator[str]:
    config = uvicorn.Config(create(orrery), loop="asyncio", host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_the_pages_say_how_it_goes_and_show_no_secret(
    orrery: Orrery, courier: Courier, receiver: Receiver, address: str
) -> None:
    url = f"{receiver.url}/in?t=s3cr3t"
    orrery.add_hook(MODEL, "ci", url, kinds=["business"], private=True, why="x", actor="olga")
    receiver.status = [204, 500]
    for why in ("1", "2"):
        orrery.event(MODEL, why=why, actor="pia")
    courier.step()
    token = {name: orrery.keys.token(name, scopes=["api"], **BY)[0] for name in ("vic", "far")}
    with httpx.Client(base_url=address, trust_env=False) as web:
        headers = {name: {"Authorization": f"Bearer {shown}"} for name, shown in token.items()}
        page = web.get(f"/{MODEL}/channels.json", headers=headers["vic"])
        (line,) = page.json()["channels"]
        assert (line["waiting"], line["said"]) == (1, "The receiver answered 500.") and line["last"]
        text = page.text + web.get(f"/{MODEL}/channels", headers=headers["vic"]).text
        assert receiver.url in text and "s3cr3t" not in text and "whsec_" not in text
        assert web.get(f"/{MODEL}/channels", headers=headers["far"]).status_code == 404


def test_an_operator_adds_a_webhook_on_the_page_and_sees_its_key_once(
    orrery: Orrery, receiver: Receiver, address: str
) -> None:
    password = "the moons of Jupiter are four"
    for name in ("olga", "vic"):
        orrery.accounts.choose_password(name, password, **BY)
    same = {"Origin": address, "Sec-Fetch-Site": "same-origin"}

    def at(web: httpx.Client, order: str, **form: str) -> httpx.Response:
        return web.post(f"/{MODEL}/channels/{order}", data={"why": "For the test.", **form}, headers=same)

    with httpx.Client(base_url=address, trust_env=False, timeout=60) as web:
        web.post("/-/sign-in", data={"name": "olga", "password": password}, headers=same)
        csrf = re.search(r'name="csrf" value="([^"]+)"', web.get(f"/{MODEL}/channels").text)
        assert csrf
        said = {"csrf": csrf[1], "name": "ci", "url": "https://ci.example/x", "kinds": "promoted, retired"}
        assert at(web, "hook", **{**said, "csrf": "x"}).status_code == 403
        made = at(web, "hook", **said)
        key = re.search(r"whsec_[A-Za-z0-9+/=]+", made.text)
        assert made.status_code == 200 and key and made.headers["cache-control"] == "no-store"
        (channel,) = orrery.channels.all(MODEL)
        assert (channel.kinds, channel.by) == (("promoted", "retired"), "olga")
        assert orrery.channels.opened(channel)[1] == key[0] not in web.get(f"/{MODEL}/channels").text
        # what this machine reaches is not for an operator to reach: not by an address, not by asking
        for order, form in (
            ("hook", {"url": f"{receiver.url}/", "name": "x"}),
            ("hook", {"url": f"https://127.0.0.1:{receiver.url.rpartition(':')[2]}/", "name": "within"}),
            ("remote", {"url": "file:///etc"}),
            ("remote", {"url": f"{receiver.url}/x.git"}),
        ):
            at(web, order, csrf=csrf[1], private="yes", **form)
        assert at(web, "test", csrf=csrf[1], name="within").status_code == 403 and receiver.got == []
        remote = at(web, "remote", csrf=csrf[1], url="https://git.example/a/tides.git", token="t0ken")
        assert remote.status_code == 200 and orrery.remotes.opened(MODEL)[1] in remote.text
        assert "t0ken" not in remote.text + web.get(f"/{MODEL}/channels").text
        assert at(web, "leave", csrf=csrf[1]).status_code == 200 and orrery.remotes.find(MODEL) is None
        assert at(web, "remove", csrf=csrf[1], name="ci").status_code == 200
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as web:
        web.post("/-/sign-in", data={"name": "vic", "password": password}, headers=same)
        page = web.get(f"/{MODEL}/channels").text
        assert "<form" not in page and at(web, "hook", **said).status_code == 403
    operator = orrery.acting(Principal("olga", (Grant("operator", MODEL),)))
    for allow in (
        lambda: operator.add_hook(MODEL, "x", receiver.url, private=True, why="x", actor="x"),
        lambda: operator.add_channel(MODEL, "x", "json://localhost", private=True, why="x", actor="x"),
        lambda: operator.set_remote(MODEL, receiver.url, private=True, why="x", actor="x"),
    ):
        with pytest.raises(NotAllowed, match="who owns this orrery"):
            allow()


def test_everybody_chooses_on_the_page_of_their_account(
    orrery: Orrery, courier: Courier, sink: Sink, address: str
) -> None:
    password = "the moons of Jupiter are four"
    orrery.accounts.choose_password("olga", password, **BY)
    same = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=address, trust_env=False) as web:
        web.post("/-/sign-in", data={"name": "olga", "password": password}, headers=same)
        page = web.get("/-/account").text
        assert "olga@post.example" in page
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)
        assert csrf
        assert web.post("/-/account", data={"wish": "nothing"}, headers=same).status_code == 403
        assert web.post("/-/account", data={"wish": "x", "csrf": csrf[1]}, headers=same).status_code == 422
        assert web.post("/-/account", data={"wish": "nothing", "csrf": csrf[1]}, headers=same).status_code == 303
    orrery.open_issue(MODEL, "Late", why="x", actor="pia", owner="olga")
    courier.step()
    assert sink.to() == []
