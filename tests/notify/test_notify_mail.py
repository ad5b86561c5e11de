"""Who is told of what by mail, against a real mail server; and who is not."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from notify.conftest import ADDRESSES, BY, MODEL, Receiver, Sink, Time, asked, candidate, draft
from orrery.access.roles import EVERYWHERE, Grant, Principal
from orrery.actions.courier import courier_of
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, NotUnderstood, OrreryError
from orrery.notify import courier as courier_module
from orrery.notify import mail, told
from orrery.notify.courier import Courier
from orrery.notify.outbox import GIVE_UP
from orrery.timeline.event import Event

WHY = "For the test."


def test_who_may_sign_is_told_that_a_candidate_waits_and_nobody_else(
    orrery: Orrery, courier: Courier, sink: Sink
) -> None:
    asked(orrery, "quality")
    courier.step()
    assert sink.to() == ["mara"]  # not lena (legal), not nora (her own work), not vic, far, or mute
    (message,) = sink.last
    text = message.get_payload(decode=True).decode()
    assert message["Subject"] == "Version 1 of tides waits for your review of quality before production"
    assert "quality: passed. 0.5 m, the champion 0.6 m." in text and "segments: passed" in text
    assert f"{orrery.settings.public_url}/tides/versions/1" in text
    assert message["Auto-Submitted"] == "auto-generated" and message["From"] == "orrery@post.example"
    assert not any(address in text for address in ADDRESSES.values())

    asked(orrery, "quality")  # the same again, as a second event
    courier.step()
    courier_of(orrery).step()
    assert sink.to() == []
    asked(orrery, "legal")
    courier.step()
    assert sink.to() == ["lena"]


def test_without_four_eyes_the_author_who_reviews_is_told_too(orrery: Orrery, courier: Courier, sink: Sink) -> None:
    commit, facts = "2" * 40, {"run": "r2", "commit": "2" * 40, "change": "redesign", "data": {MODEL: 1}}
    loose = {**orrery.model(MODEL).commits["1" * 40].spec}
    loose["environments"] = {"production": {"needs": ["review:quality"]}}
    orrery.append(
        [
            draft("pushed", "pia", version=None, commit=commit, spec=loose, author="Nora Berg", authors=[]),
            draft("triggered", "orrery", version=None, reason="push", **facts),
            draft("trained", version=2, artifact="x", metrics={}, **facts),
            draft("gated", version=2, passed=True, gates={}),
        ]
    )
    asked(orrery, "quality", 2)
    courier.step()
    assert sink.to() == ["mara", "nora"]


def test_reminders_questions_answers_and_overrides(orrery: Orrery, courier: Courier, sink: Sink) -> None:
    asked(orrery, "quality")
    asked(orrery, "legal")
    courier.step()
    assert sink.to() == ["lena", "mara"]

    orrery.append([draft("review_reminded", "orrery/review", "production", role="quality", since="2026-01-01")])
    courier.step()
    assert sink.to() == ["mara"] and sink.last[0]["Subject"].startswith("Reminder: ")

    mara = orrery.acting(Principal("mara", (Grant("reviewer:quality", MODEL),)))
    (question,) = [e for e in mara.ask_changes(MODEL, 1, why="What of the winter?", actor="x") if "title" in e.data]
    courier.step()
    assert sink.to() == ["nora", "pia"]  # who wrote it, and who pushed it: once, though an issue was opened, too
    assert "What of the winter?" in sink.last[0].get_payload(decode=True).decode()
    orrery.append([draft("review_reminded", "orrery/review", "production", role="quality", since="2026-01-01")])
    courier.step()
    assert sink.to() == []  # nobody waits for a reviewer now

    orrery.close_issue(MODEL, question.data["issue"], why="It is in.", actor="nora")
    courier.step()
    assert sink.to() == ["mara"]  # who asked

    orrery.override(MODEL, 1, why="The feed changed.", actor="olga", emergency=True)
    courier.step()
    assert sink.to() == ["lena", "mara", "nora"]  # everybody who reviews; not mute, not olga herself
    assert sink.last[0]["Subject"].startswith("EMERGENCY: olga let version 1")


def test_an_issue_is_told_to_who_looks_after_it_without_what_a_program_said(
    orrery: Orrery, courier: Courier, sink: Sink
) -> None:
    secret = "ValueError: row of Jane Roe, 1970-01-01"
    issue = {"issue": "i1", "title": f"Training failed: {secret}", "owner": "olga", "cause": "failed:training::r1"}
    orrery.append([replace_why(draft("issue_opened", "orrery/training", **issue), secret)])
    courier.step()
    assert sink.to() == ["olga"]
    whole = str(sink.last[0]) + sink.last[0].get_payload(decode=True).decode()
    assert "a step failed: training" in whole and "/tides/issues/i1" in whole
    assert "Jane" not in whole and "1970" not in whole

    refused = {"issue": "i2", "title": "Refused", "owner": "olga", "cause": "refused:1"}
    orrery.append([draft("issue_opened", "orrery/gates", **refused)])
    courier.step()
    assert sink.to() == ["olga"] and "segments: passed" in sink.last[0].get_payload(decode=True).decode()

    orrery.open_issue(MODEL, "Late in the evening", why="Since Monday.", actor="pia", owner="far")
    courier.step()
    assert sink.to() == []  # far may not see the project
    (opened,) = orrery.open_issue(MODEL, "Late in the evening", why="Since Monday.", actor="pia", owner="pia")
    courier.step()
    assert sink.to() == []  # her own act
    orrery.assign_issue(MODEL, opened.data["issue"], owner="vic", why="Yours.", actor="pia")
    courier.step()
    assert sink.to() == ["vic"]


def test_issues_of_orrery_itself_are_told_to_who_operates_all_of_it(
    orrery: Orrery, courier: Courier, sink: Sink, receiver: Receiver, tmp_path: Path
) -> None:
    url = f"json://{receiver.url.removeprefix('http://')}/operators"
    orrery.add_channel(EVERYWHERE, "ops", url, why="They keep it running.", actor="root", private=True)
    orrery.add_channel(MODEL, "team", url.replace("operators", "team"), why="w", actor="root", private=True)
    orrery.accounts.give("far", "operator", **BY)  # olga may operate one project, and is not told
    courier.step()
    place = f"git+file://{tmp_path}/away.git"
    assert orrery.anchoring.anchor([place])[0].fault
    courier.step()
    assert sink.to() == ["far"] and [path for path, *_ in receiver.got] == ["/operators"]
    whole = sink.last[0]["Subject"] + sink.last[0].get_payload(decode=True).decode()
    assert whole.startswith("Orrery itself: No anchors are put to") and "/issues" in whole
    assert orrery.anchoring.anchor([place])[0].fault
    courier.step()
    assert sink.to() == [], "it fails still, and is told once"
    subprocess.run(["git", "init", "-q", "--bare", place.removeprefix("git+file://")], check=True)
    assert not orrery.anchoring.anchor([place])[0].fault
    courier.step()
    assert sink.to() == ["far"] and sink.last[0]["Subject"].startswith("Closed: orrery itself: No anchors")
    assert len(receiver.got) == 2
    assert orrery.test_channel(EVERYWHERE, "ops", actor="root") and b"Orrery itself: a test" in receiver.got[-1][2]
    orrery.remove_channel(EVERYWHERE, "ops", why="They read mail.", actor="root")
    for role, place in (("operator", MODEL), ("viewer", "*")):
        with pytest.raises((NotFound, NotAllowed)):
            other = orrery.acting(Principal("x", (Grant(role, place),)))
            other.add_channel(EVERYWHERE, "ops", url, why="w", actor="x")


def replace_why(made: object, why: str) -> object:
    import msgspec

    return msgspec.structs.replace(made, why=why)  # type: ignore[type-var]


def test_people_say_what_they_want(orrery: Orrery, courier: Courier, sink: Sink) -> None:
    orrery.channels.wish("olga", "reviews", **BY)
    orrery.open_issue(MODEL, "Late", why=WHY, actor="pia", owner="olga")
    courier.step()
    assert sink.to() == []
    orrery.channels.wish("olga", "all", address="elsewhere@post.example", **BY)
    orrery.open_issue(MODEL, "Late", why=WHY, actor="pia", owner="olga")
    courier.step()
    assert sink.to() == ["elsewhere"]
    with pytest.raises(NotUnderstood):
        orrery.channels.wish("olga", "some", **BY)
    with pytest.raises(NotUnderstood):
        orrery.channels.wish("olga", "all", address="x@y\nBcc: z@z", **BY)
    told = [event for event in orrery.timeline.read(kinds=["account"]) if event.data["change"] == "told"]
    assert [event.data["wish"] for event in told] == ["nothing", "reviews", "all"]
    assert "elsewhere" not in str([event.to_json() for event in told])


def test_without_a_mail_server_and_before_anybody_could_be_told_nothing_is_sent(
    orrery: Orrery, courier: Courier, sink: Sink
) -> None:
    quiet = Orrery(replace(orrery.settings, mail=""))
    asked(orrery, "quality")
    courier_of(quiet).step()
    courier.step()  # mail is set up afterwards: what was before is not told
    assert sink.to() == [] and courier.outbox.records() == {}
    assert not replace(orrery.settings, replay=True).sends and not replace(orrery.settings, notify="no").sends
    assert replace(orrery.settings, replay=True, notify="replay").sends and orrery.settings.sends


def test_an_event_that_cannot_be_told_holds_nothing_up(
    orrery: Orrery, courier: Courier, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = told.news_of

    def breaks(event: Event, *args: Any) -> Any:
        return real(event, *args) if event.data.get("role") == "legal" else 1 / 0

    monkeypatch.setattr(courier_module, "news_of", breaks)
    asked(orrery, "quality")
    asked(orrery, "legal")
    courier.step()
    assert sink.to() == ["lena"] and courier.outbox.place() == orrery.timeline.head()[0]


def test_a_mail_is_tried_again_and_given_up_with_one_issue_that_closes_when_it_works(
    orrery: Orrery, courier: Courier, sink: Sink, wall: Time
) -> None:
    sink.refuses = "451 not now"
    asked(orrery, "quality")
    assert courier.step() == 1 and courier.step() == 0  # not again at once
    wall.now += 10
    assert courier.step() == 1
    wall.now += 10
    assert courier.step() == 0  # the second pause is longer
    sink.refuses = ""
    wall.now += 10
    assert courier.step() == 1 and sink.to() == ["mara"]

    sink.refuses = "550 no such person mara@post.example"
    asked(orrery, "legal")
    for _ in range(200):
        wall.now += 3600
        courier.step()
    (issue,) = [one for one in orrery.model(MODEL).issues.values() if one.closed is None]
    assert issue.cause == "delivery:mail/lena" and issue.owner == "olga" and "post.example" not in issue.why
    assert courier.outbox.records()["mail/lena"].failed == 1 and GIVE_UP < 200 * 3600
    sink.refuses = ""
    candidate(orrery, 2)
    asked(orrery, "legal", 2)
    courier.step()
    assert "lena" in sink.to()
    assert orrery.model(MODEL).issues[issue.id].closed_why == "It can be reached again."


def test_no_password_and_no_message_goes_over_a_network_in_the_clear(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (
        "smtp://h",
        "http://h/?from=a@b",
        "smtps://u:p@h/?from=a@b",
        "smtps://h/?from=a@b&x=1",
        "smtp://u@h/?from=a@b",
    ):
        with pytest.raises(NotUnderstood):
            mail.server_of(wrong)
    server = mail.server_of(sink.url)
    monkeypatch.setattr(mail, "_within", lambda host: False)  # as if it were elsewhere: this one has no STARTTLS
    with pytest.raises(OrreryError):
        mail.send(server, "mara@post.example", "x", "y", "id")
    assert sink.to() == []
