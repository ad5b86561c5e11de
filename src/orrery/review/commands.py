"""Approval, rejection, questions and overrides: pure functions from the state to the events of a person's word."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orrery.errors import NotAllowed, NotFound
from orrery.timeline.event import Draft
from orrery.timeline.state import Issue, ModelState, Version
from orrery.types import PRODUCTION, digest


class OwnWork(NotAllowed):
    """Nobody approves their own work here."""


def approve(
    model: ModelState,
    number: int,
    *,
    why: str,
    actor: str,
    environment: str = "",
    role: str = "",
    gate: str = "",
    person: Callable[[str], str] = str,
    signs: Callable[[str], bool] = lambda role: True,
) -> list[Draft]:
    """Return the events of an approval, or of the override of a refused gate.

    Parameters
    ----------
    environment, role : what is approved; empty is all that was asked for, and that the actor may sign.
    gate : name of a gate that refused and is overridden.
    person : returns who is behind a name: people have several.
    signs : says whether the actor may sign in a role.

    Raises
    ------
    NotFound
        If there is no such version, or no such refused gate.
    NotAllowed
        If the version was rejected or deleted, or nobody asked, or the actor may not sign.
    OwnWork
        If the policy asks for four eyes, and the actor had a hand in it.
    """
    version = _open(model, number)
    facts: dict[str, object] = {"evidence": version.evidence}
    if gate:
        verdict = version.gates.get(gate, {})
        if verdict.get("verdict") != "refused":
            refused = [name for name, one in version.gates.items() if one.get("verdict") == "refused"]
            raise NotFound(f"The gate {gate!r} did not refuse version {number}.", todo=f"Refused: {refused or 'none'}.")
        _refuse_own_work(model, version, actor, "", person)
        facts |= {"gate": gate, "verdict": verdict.get("why", "")}
        return [_draft("approved", model, number, "", why, actor, facts)]
    asked = _asked(model, version, environment, role, actor, person)
    if not asked:
        _refuse_while_asked(model, version, environment, role)
        if version.passed is None:
            raise NotAllowed(f"Version {number} is not judged by the gates yet.", todo="Wait for the gates.")
        if not version.released:
            raise NotAllowed(
                f"The gates refused version {number}.", todo="Override with --gate NAME, or push a better one."
            )
        raise NotAllowed(f"No review of version {number} is waiting.", todo="`orrery status` shows what waits.")
    drafts = []
    for place, who in _signed(model, asked, actor, signs):
        _refuse_own_work(model, version, actor, place, person)
        drafts.append(_draft("approved", model, number, place, why, actor, {**facts, "role": who}))
        if (question := model.question(version, place, who)) is not None:
            drafts.append(_draft("issue_closed", model, number, "", why, actor, {"issue": question.id}))
    return drafts


def ask(
    model: ModelState,
    number: int,
    *,
    why: str,
    actor: str,
    environment: str = "",
    role: str = "",
    signs: Callable[[str], bool] = lambda role: True,
) -> list[Draft]:
    """Return the events of a question to the author: the review waits until its issue is closed.

    Parameters
    ----------
    environment, role, signs : as :func:`approve` has them.

    Raises
    ------
    NotFound
        If there is no such version.
    NotAllowed
        If no review of it waits, or the actor may not sign.
    """
    version = _open(model, number)
    asked = [(place, who) for one, place, who in model.waiting() if one.number == number]
    asked = [(place, who) for place, who in asked if environment in ("", place) and role in ("", who)]
    if not asked:
        _refuse_while_asked(model, version, environment, role)
        raise NotAllowed(f"No review of version {number} is waiting.", todo="`orrery status` shows what waits.")
    author = model.commits[version.commit].author
    drafts = []
    for place, who in _signed(model, asked, actor, signs):
        issue = digest(f"{model.name}/{number}/{place}:{who}/{model.seq}")[:12]
        facts: dict[str, object] = {"role": who, "issue": issue, "evidence": version.evidence}
        changes = _draft("changes_requested", model, number, place, why, actor, facts)
        title = f"{actor} asks for changes of version {number}"
        about: dict[str, object] = {"issue": issue, "title": title, "owner": author, "events": [changes.id]}
        about["cause"] = f"changes:{number}:{place}:{who}"
        drafts += [changes, _draft("issue_opened", model, number, place, why, actor, about)]
    return drafts


def answered(model: ModelState, issue: Issue) -> list[Draft]:
    """Return the events after which the reviews that waited for an issue wait for their reviewers again."""
    drafts = []
    for version, place, who in model.unreviewed():
        if version.questions.get(f"{place}:{who}") == issue.id:
            why = f"{place} needs a review{f' of {who}' if who else ''}: what was asked for is answered."
            drafts.append(_draft("review_requested", model, version.number, place, why, "orrery/review", {"role": who}))
    return drafts


def override(
    model: ModelState,
    number: int,
    *,
    why: str,
    actor: str,
    environment: str = PRODUCTION,
    person: Callable[[str], str] = str,
) -> list[Draft]:
    """Return the events after which a version needs no reviews of an environment: in an emergency, and loud.

    Raises
    ------
    NotFound
        If there is no such version.
    NotAllowed
        If the policy has no emergency there, or no review waits.
    OwnWork
        If the policy asks for four eyes, and the actor had a hand in it: that holds in an emergency, too.
    """
    version, policy = _open(model, number), model.policy()
    rules = policy.environments.get(environment) if policy is not None else None
    if rules is None or not rules.emergency:
        raise NotAllowed(
            f"The policy of {model.name} knows no emergency in {environment}.",
            safe="Nothing was changed.",
            todo=f"emergency = true in [environments.{environment}] of the champion's project file allows it.",
        )
    roles = [who for one, place, who in model.unreviewed() if one.number == number and place == environment]
    if not roles:
        raise NotAllowed(f"No review of version {number} before {environment} is waiting.")
    _refuse_own_work(model, version, actor, environment, person)
    reviews = ", ".join(one or "anybody" for one in roles)
    issue = digest(f"{model.name}/{number}/override/{environment}/{model.seq}")[:12]
    facts: dict[str, object] = {"roles": roles, "evidence": version.evidence, "issue": issue}
    overridden = _draft("review_overridden", model, number, environment, why, actor, facts)
    title = f"EMERGENCY: {actor} let version {number} into {environment} without its review of {reviews}"
    owner = str(model.commits[version.commit].spec["model"].get("owner") or "")
    about: dict[str, object] = {"issue": issue, "title": title, "owner": owner, "events": [overridden.id]}
    about["cause"] = f"override:{number}:{environment}"
    return [overridden, _draft("issue_opened", model, number, environment, why, actor, about)]


def _asked(
    model: ModelState, version: Version, environment: str, role: str, actor: str, person: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Return the reviews that can be answered: those that wait, and those whose question the actor asked."""
    found = []
    for one, place, who in model.unreviewed():
        if one.number == version.number and environment in ("", place) and role in ("", who):
            question = model.question(one, place, who)
            if question is None or person(question.opened_by) == person(actor):
                found.append((place, who))
    return found


def _refuse_while_asked(model: ModelState, version: Version, environment: str, role: str) -> None:
    for one, place, who in model.unreviewed():
        question = model.question(one, place, who)
        if one.number == version.number and environment in ("", place) and role in ("", who) and question:
            raise NotAllowed(
                f"{question.opened_by} asked for changes of version {version.number}: {question.why}",
                safe="Nothing was changed.",
                todo=f"Closing the issue {question.id} with the answer lets the review wait again.",
            )


def _signed(
    model: ModelState, asked: list[tuple[str, str]], actor: str, signs: Callable[[str], bool]
) -> list[tuple[str, str]]:
    mine = [(place, who) for place, who in asked if signs(who)]
    if not mine:
        roles = ", ".join(sorted({who or "any" for _, who in asked}))
        raise NotAllowed(f"{actor} does not sign for {roles} in {model.name}.", safe="Nothing was changed.")
    return mine


def hands(model: ModelState, version: Version) -> Iterator[tuple[str, str]]:
    """Yield who had a hand in a version, and which: its code, its training, the request for its release."""
    while True:
        commit = model.commits[version.commit]
        yield commit.author, "wrote the commit"
        yield from ((one, "wrote the commit") for one in commit.authors)
        yield commit.pushed_by, "pushed the commit"
        if (run := model.runs.get(version.run)) is not None:
            yield run.by, "asked for the training"
        yield from ((one, "asked for the release") for one in version.requested_by)
        if version.change != "repair" or version.parent not in model.versions:
            return
        version = model.versions[version.parent or 0]  # what is repaired is in it, too


def _refuse_own_work(
    model: ModelState, version: Version, actor: str, environment: str, person: Callable[[str], str]
) -> None:
    policy = model.policy()
    rules = policy.environments if policy is not None else {}
    if not any(one.four_eyes for name, one in rules.items() if environment in ("", name)):
        return
    who = person(actor)
    for name, hand in hands(model, version):
        if name and not name.startswith("orrery/") and person(name).casefold() == who.casefold():
            also = "" if name == actor else f" (as {name})" if not name.startswith("mail:") else " (by its address)"
            raise OwnWork(
                f"{actor} {hand} of version {version.number}{also}, and {environment or 'a release'} needs four eyes.",
                safe="Nothing was changed; the attempt is written down.",
                todo="Ask somebody else who may review it.",
            )


def reject(model: ModelState, number: int, *, why: str, actor: str) -> list[Draft]:
    """Return the events of a rejection: it ends the version's way and opens an issue to the author.

    Raises
    ------
    NotFound
        If there is no such version.
    NotAllowed
        If the version was rejected or deleted already, or answers somewhere.
    """
    version = _open(model, number)
    if model.lane(PRODUCTION).champion == number:
        raise NotAllowed(f"Version {number} answers in production.", todo="Roll back or retire it instead.")
    commit = model.commits[version.commit]
    owner = str(commit.spec["model"].get("owner") or commit.author)
    issue = digest(f"{model.name}/{number}/rejected")[:12]
    title = f"Version {number} was rejected by {actor}: {why}"
    drafts = [_draft("rejected", model, number, "", why, actor, {"role": ""})]
    for lane in model.lanes.values():
        if lane.champion == number or number in lane.challengers:
            words = f"Rejected by {actor}: {why}"
            role = "champion" if lane.champion == number else lane.challengers[number].role
            drafts.append(_draft("retired", model, number, lane.environment, words, actor, {"role": role}))
    facts: dict[str, object] = {"issue": issue, "title": title, "owner": owner}
    drafts.append(_draft("issue_opened", model, number, "", title, "orrery/review", facts))
    return drafts


def _open(model: ModelState, number: int) -> Version:
    version = model.versions.get(number)
    if version is None:
        raise NotFound(f"{model.name} has no version {number}.", todo=f"It has: {list(model.versions) or 'none'}.")
    if version.deleted:
        raise NotAllowed(f"Version {number} was deleted: {version.deleted['why']}")
    if version.rejected:
        raise NotAllowed(f"Version {number} was rejected: {version.rejected}")
    return version


def _draft(
    kind: str, model: ModelState, number: int, environment: str, why: str, actor: str, data: dict[str, object]
) -> Draft:
    return Draft(kind=kind, actor=actor, why=why, model=model.name, version=number, environment=environment, data=data)
